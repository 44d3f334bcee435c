"""Supervised training on teacher traces: loss on the assistant's tokens, MXFP4 in the forward pass towards the end.

A run folder holds tokenizer.json, state.pt (model, optimizer, step) and log.jsonl. Stopped anywhere, it goes on from
the last save with the same bits: batches depend on (seed, step) alone and nothing else is random.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.reference import Reference, Routing
from motet.train.data import Chunk, FileEncoder, batch
from motet.train.optim import MuonAdamW
from motet.train.quantize import set_fake_quantization
from motet.train.recipe import Recipe
from motet.train.vocabulary import CONTROL, save_vocabulary, train_vocabulary


@dataclass
class Run:
    """A training run in memory; `step` is the next one to do."""

    recipe: Recipe
    folder: Path
    encoder: FileEncoder
    model: Reference
    optimizer: MuonAdamW
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def open_run(recipe: Recipe, folder: Path) -> Run:
    """Start a run, or pick up the one in `folder`."""
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    vocabulary = folder / "tokenizer.json"
    if not vocabulary.exists():
        tokenizer = train_vocabulary(recipe.vocabulary, recipe.vocabulary_examples, recipe.seed)
        save_vocabulary(tokenizer, vocabulary)
    tokenizer = Tokenizer.from_file(str(vocabulary))
    encoder = FileEncoder(tokenizer)
    eos = tuple(encoder.special(n) for n in ("<|return|>", "<|endoftext|>", "<|call|>"))
    config = recipe.config(tokenizer.get_vocab_size(), eos, encoder.special("<|endoftext|>"))
    assert all(encoder.special(name) < config.vocab_size for name in CONTROL)
    model = Reference(config).initialize(torch.Generator().manual_seed(recipe.seed))
    optimizer = MuonAdamW(model, recipe.muon_lr, recipe.adam_lr, recipe.weight_decay)
    run = Run(recipe, folder, encoder, model, optimizer)
    if (folder / "state.pt").exists():
        saved = torch.load(folder / "state.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        run.step, run.tokens, run.seconds = saved["step"], saved["tokens"], saved["seconds"]
    return run


def save(run: Run) -> None:
    """Write state.pt; a crash leaves either the old one or the new one."""
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "step": run.step,
             "tokens": run.tokens, "seconds": run.seconds}  # fmt: skip
    torch.save(state, run.folder / "state.new")
    (run.folder / "state.new").replace(run.folder / "state.pt")


def train(run: Run, until: int | None = None, report: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Train to step `until` (default: all). `report` receives each log record; the same records go to log.jsonl."""
    recipe = run.recipe
    last = recipe.steps if until is None else min(until, recipe.steps)
    while run.step < last:
        began = time.perf_counter()
        set_fake_quantization(run.model, run.step >= recipe.quantize_from * recipe.steps)
        record = one_step(run)
        run.step += 1
        run.seconds += time.perf_counter() - began
        if run.step % recipe.log_every == 0 or run.step == last:
            record |= {"step": run.step, "tokens": run.tokens, "seconds": round(run.seconds, 1)}
            with (run.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            if report:
                report(record)
        if run.step % recipe.save_every == 0 or run.step == last:
            save(run)


def one_step(run: Run) -> dict[str, Any]:
    """One optimizer step: loss per taught token, gradients summed over chunks, clipped to norm 1."""
    recipe, model = run.recipe, run.model
    chunks = batch(recipe.mix, run.encoder, recipe.seed, run.step, recipe.rows, recipe.chunks)
    taught, real = sum(c.target.numel() for c in chunks), sum(int(c.real.sum()) for c in chunks)
    total, hits, balance = 0.0, 0, 0.0
    for chunk in chunks:
        routing: list[Routing] = []
        logits = model(chunk.ids, at=chunk.at, routing=routing)
        loss = F.cross_entropy(logits, chunk.target, reduction="sum") / taught
        uneven = load_imbalance(routing, chunk) * (int(chunk.real.sum()) / real)
        (loss + recipe.balance * uneven).backward()  # type: ignore[no-untyped-call]
        total, balance = total + loss.item(), balance + uneven.item()
        hits += int((logits.detach().argmax(-1) == chunk.target).sum())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    rate = recipe.rate(run.step)
    run.optimizer.step(rate)
    run.tokens += real
    return {"loss": round(total, 5), "hit": round(hits / taught, 4), "balance": round(balance, 4),
            "norm": round(float(norm), 4), "rate": round(rate, 4)}  # fmt: skip


def load_imbalance(routing: list[Routing], chunk: Chunk) -> Tensor:
    """Switch-style balance loss, mean over layers: E * sum_e share_e * mean probability_e; 1 when perfectly even."""
    losses = []
    for r in routing:
        experts = r.logits.shape[-1]
        choice = r.choice[chunk.real]
        share = torch.bincount(choice.reshape(-1), minlength=experts) / choice.numel()
        losses.append(experts * (share * r.logits[chunk.real].softmax(-1).mean(0)).sum())
    return torch.stack(losses).mean()

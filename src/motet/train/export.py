"""A trained model as a checkpoint folder: MXFP4 weights in the Hugging Face layout, its vocabulary, its papers.

Knows which files stand beside the weights and what is in them. Does not know how weights are laid out on disk
(`motet.checkpoint`) or how the model was trained. Nothing here depends on the clock: same run, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from motet.config import ModelConfig
from motet.reference import Reference
from motet.tasks import lesson
from motet.train.data import Question, row
from motet.train.evaluate import Score, questions
from motet.train.quantize import round_to_stored
from motet.train.run import Run, read_log

REFERENCE_TOKENS = (64, 28)  # how much of each stored prompt: longer than the sliding window, shorter than it
Layout = Literal["hf", "openai"]


def export(run: Run, folder: Path, layout: Layout = "hf") -> Reference:
    """Write everything but the measurements to `folder`; return the model with the very values that were stored."""
    from motet.checkpoint import write_checkpoint

    model = stored_model(run.model)
    parameters = {name: p.detach().numpy() for name, p in model.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, model.config, parameters.__getitem__, layout=layout, experts="mxfp4")
    shutil.copyfile(run.folder / "tokenizer.json", folder / "tokenizer.json")
    _write_json(folder / "generation_config.json", generation_config(model.config))
    _write_json(folder / "tokenizer_config.json", tokenizer_config())
    (folder / "training.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in read_log(run.folder)), "utf-8"
    )
    write_reference(model, run, folder / "reference.npz")
    return model


def stored_model(model: Reference) -> Reference:
    """A plain copy in which every value is what its stored form holds."""
    copy = Reference(model.config)
    copy.load_state_dict(model.state_dict())
    round_to_stored(copy)
    return copy.eval()


def generation_config(config: ModelConfig) -> dict[str, Any]:
    """Keys of the published generation_config.json: where to stop, and that sampling is meant."""
    return {
        "do_sample": True,
        "eos_token_id": list(config.eos_token_ids),
        "pad_token_id": config.pad_token_id,
    }


def tokenizer_config() -> dict[str, Any]:
    """Enough for transformers' AutoTokenizer. No chat template: Harmony is rendered by `motet.harmony`."""
    return {"clean_up_tokenization_spaces": False, "bos_token": "<|startoftext|>", "eos_token": "<|return|>",
            "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}  # fmt: skip


@torch.inference_mode()
def write_reference(model: Reference, run: Run, path: Path) -> None:
    """Prompts `idsN` (T,) int32 and the float32 logits `logitsN` (T, V) of the reference model for them, as .npz."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for n, (task, length) in enumerate(zip(("multiplication", "modular"), REFERENCE_TOKENS, strict=True)):
        example = questions(task, "medium", 1, run.recipe.seed)[0]
        ids = row(Question(example, lesson(example)), run.encoding).ids[:length]
        arrays[f"ids{n}"] = np.array(ids, np.int32)
        arrays[f"logits{n}"] = model(torch.tensor([ids]))[0].float().numpy()
    np.savez_compressed(path, allow_pickle=False, **arrays)


def write_card(run: Run, folder: Path, measured: dict[str, list[Score]]) -> None:
    """card.json: recipe, seed, cost, vocabulary and weights by hash, and the scores by way of decoding."""
    counts = run.model.config.counts()
    records = [r for r in read_log(run.folder) if "step" in r and "accepted" not in r]
    card: dict[str, Any] = {
        "name": run.recipe.name,
        "parameters": {"total": counts.total, "active": counts.active},
        "recipe": run.recipe.to_dict(),
        "training": {"tokens": run.tokens, "seconds": round(run.seconds, 1), "threads": run.recipe.threads,
                     "last": records[-1] if records else {}},
        "sha256": {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name not in ("card.json", "README.md")},
        "held_out": {way: _table(scores) for way, scores in measured.items()},
    }  # fmt: skip
    _write_json(folder / "card.json", card)


def _table(scores: list[Score]) -> dict[str, dict[str, dict[str, float | int]]]:
    table: dict[str, dict[str, dict[str, float | int]]] = {}
    for s in scores:
        table.setdefault(s.task, {})[s.effort] = {
            "accuracy": round(s.accuracy, 4), "right": s.right, "asked": s.asked, "finished": s.finished,
            "mean_analysis_tokens": round(s.mean_tokens, 1),
        }  # fmt: skip
    return table


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

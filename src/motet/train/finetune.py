"""Fine-tuning of any checkpoint of this architecture, whole or by LoRA, on one process or many, and back to a checkpoint.

    python -m motet.train.finetune MODEL --data chats.jsonl --out DIR
    torchrun --nproc-per-node 2 -m motet.train.finetune MODEL --data chats.jsonl --out DIR --lora 8

Many processes share the weights by PyTorch's FSDP2 and keep distributed checkpoints, which go on with another number of
processes; nothing of that is ours. Every process draws the whole batch and learns its share, so the loss curve does not
depend on their number. A line of the data is {"messages": [...]}, as Chat Completions has it; an assistant's message
after the last user's is taught. Knows no recipes and no rewards.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from motet.errors import UsageError, UserError
from motet.harmony import Conversation
from motet.reference import Reference
from motet.tasks import Lesson
from motet.tokenizer import Encoding
from motet.train.data import Chunk, Row, collate, lesson_row, pack
from motet.train.fast import FAST

COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")


class LowRank(nn.Module):
    """A frozen linear map with a trained addition of rank r: y = W x + b + (alpha / r) B A x (2106.09685). B begins at zero."""

    def __init__(
        self, base: nn.Linear, rank: int, generator: torch.Generator, alpha: float | None = None
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = (alpha or 2.0 * rank) / rank
        first = torch.randn(rank, base.in_features, generator=generator) * base.in_features**-0.5
        self.a = nn.Parameter(first.to(base.weight.dtype))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """As the linear map."""
        return cast(Tensor, self.base(x)) + F.linear(F.linear(x, self.a), self.b) * self.scale


def add_low_rank(model: Reference, rank: int, seed: int) -> None:
    """Freeze the model and give the attention's maps of every layer an addition of `rank`."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for block in cast(Any, model.block):
        block.attn.qkv = LowRank(block.attn.qkv, rank, generator)
        block.attn.out = LowRank(block.attn.out, rank, generator)


def merged(parameters: dict[str, Tensor], scales: dict[str, float]) -> dict[str, Tensor]:
    """Parameters by their published names, additions of low rank added in."""
    out = {}
    for name, p in parameters.items():
        if name.endswith((".a", ".b")) and name[:-2] in scales:
            continue
        stem, _, last = name.rpartition(".base.")
        if stem in scales and last == "weight":
            p = p + parameters[f"{stem}.b"].float() @ parameters[f"{stem}.a"].float() * scales[stem]
        out[f"{stem}.{last}" if stem in scales else name] = p
    return out


def read_chats(path: Path, encoding: Encoding) -> list[Row]:
    """The rows of a JSONL file of chats. Raises UserError naming the line at fault."""
    rows = []
    for n, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            chat = json.loads(line)
            messages = Conversation.from_chat(
                chat["messages"], chat.get("tools"), chat.get("effort", "medium")
            ).messages
        except (ValueError, KeyError, TypeError, UsageError) as e:
            raise UserError(f'{path}, line {n}, is no chat ({e}); a line is {{"messages": [...]}}.') from None
        last = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
        if not any(m.role == "assistant" for m in messages[last + 1 :]):
            raise UserError(
                f"{path}, line {n}, has no answer after its last user's message; there is nothing to learn."
            )
        rows.append(
            lesson_row(Lesson(Conversation.of(*messages[: last + 1]), messages[last + 1 :]), encoding)
        )
    if not rows:
        raise UserError(f'{path} holds no chats; a line is {{"messages": [...]}}.')
    return rows


@dataclass
class Job:
    """A model in training and what it is trained with. `step` is the next one."""

    model: Reference
    optimizer: torch.optim.Optimizer
    scales: dict[str, float]
    step: int = 0

    @property
    def rank(self) -> int:
        """This process among its fellows."""
        return dist.get_rank() if dist.is_initialized() else 0

    @property
    def world(self) -> int:
        """How many processes there are."""
        return dist.get_world_size() if dist.is_initialized() else 1


def begin(
    source: str | Path, rank: int = 0, seed: int = 0, rate: float = 1e-4, dtype: torch.dtype = torch.float32
) -> Job:
    """Load a checkpoint of either layout; `rank` > 0 trains additions to attention alone. Shards when there are processes."""
    model = Reference.from_checkpoint(source, dtype, FAST)
    if rank:
        add_low_rank(model, rank, seed)
    scales = {n: m.scale for n, m in model.named_modules() if isinstance(m, LowRank)}
    if dist.is_initialized():
        _shard(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Job(model, torch.optim.AdamW(trained, rate, weight_decay=0.0), scales)


def _shard(model: Reference) -> None:
    from torch.distributed.fsdp import fully_shard

    # Attention and experts are called one by one, so each is a unit; the root holds the tables and the last norm.
    for block in cast(Any, model.block):
        fully_shard(block.attn)
        fully_shard(block.mlp)
    fully_shard(model)


def learn(job: Job, rows: Sequence[Row], width: int, clip: float = 1.0) -> float:
    """One step on a batch that every process holds whole; returns the loss per taught token of the whole batch."""
    bins = pack(rows, max(width, *(len(r.ids) - 1 for r in rows)))
    taught = sum(sum(r.learn) for r in rows)
    # Without a row of its own a process still has to take part in every exchange: it reads one and learns nothing.
    mine = bins[job.rank :: job.world]
    chunk = collate(mine or bins[:1])
    loss = _loss(job.model, chunk) / taught if mine else _loss(job.model, chunk) * 0.0
    (loss * job.world).backward()  # type: ignore[no-untyped-call]  # FSDP2 averages gradients over processes
    nn.utils.clip_grad_norm_(job.model.parameters(), clip)
    job.optimizer.step()
    job.optimizer.zero_grad()
    job.step += 1
    total = loss.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return float(total)


def _loss(model: Reference, chunk: Chunk) -> Tensor:
    logits = model(chunk.ids, at=chunk.at, segments=chunk.segments)
    return F.cross_entropy(logits.float(), chunk.target, reduction="sum")


def save(job: Job, folder: Path) -> None:
    """A distributed checkpoint of weights, optimizer and step."""
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save as store

    model, optimizer = get_state_dict(job.model, job.optimizer)
    store({"model": model, "optimizer": optimizer, "step": torch.tensor(job.step)}, checkpoint_id=folder)


def load(job: Job, folder: Path) -> None:
    """Go on from `save`, by however many processes it was made."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as restore

    model, optimizer = get_state_dict(job.model, job.optimizer)
    step = torch.tensor(0)
    state = {"model": model, "optimizer": optimizer, "step": step}
    restore(state, checkpoint_id=folder)
    set_state_dict(job.model, job.optimizer, model_state_dict=model, optim_state_dict=optimizer)
    job.step = int(step)


def write_back(job: Job, source: Path, out: Path, layout: str = "hf", experts: str = "mxfp4") -> None:
    """The trained model as a checkpoint folder in either layout, the vocabulary of `source` beside it.

    Tensors that were not trained keep the bytes they have in `source`.
    """
    from motet.checkpoint import open_checkpoint, write_checkpoint

    changed = {n: p for n, p in job.model.named_parameters() if p.requires_grad or _under(n, job.scales)}
    whole = {n: cast(Any, p).full_tensor() if hasattr(p, "full_tensor") else p for n, p in changed.items()}
    if job.rank == 0:
        before = open_checkpoint(source)
        with torch.no_grad():
            found = {n: p.detach().float().numpy() for n, p in merged(whole, job.scales).items()}

        def fetch(name: str) -> Any:
            plain = name.removesuffix(".blocks").removesuffix(".scales")
            return found[name] if plain in found else before.tensor(name)

        write_checkpoint(out, job.model.config, fetch, layout=layout, experts=experts)
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
    if dist.is_initialized():
        dist.barrier()


def _under(name: str, stems: Mapping[str, float]) -> bool:
    return name.rpartition(".base.")[0] in stems


def batches(rows: Sequence[Row], size: int, seed: int, first: int) -> Iterator[list[Row]]:
    """Batches from step `first` on; a step's batch depends on the seed and the step alone."""
    step = first
    while True:
        rng = random.Random(f"finetune {seed} {step}")
        yield [rng.choice(rows) for _ in range(size)]
        step += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit 0, 1 for what the user can put right, 2 for bad usage."""
    options = _parser().parse_args(arguments)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        _run(options)
    except (UserError, OSError) as e:
        print(f"finetune: {e}", file=sys.stderr)
        return 2 if isinstance(e, UsageError) else 1
    finally:
        if "RANK" in os.environ:
            dist.destroy_process_group()
    return 0


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m motet.train.finetune", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("model", help="a name of 'motet models', or a checkpoint folder of either layout")
    p.add_argument("--data", type=Path, required=True, help="chats, one JSON object a line")
    p.add_argument(
        "--out", type=Path, required=True, help="where the trained checkpoint goes; OUT.state keeps the run"
    )
    p.add_argument("--layout", choices=("hf", "openai"), default="hf")
    p.add_argument("--experts", choices=("mxfp4", "bfloat16"), default="mxfp4")
    p.add_argument(
        "--lora",
        type=int,
        default=0,
        metavar="RANK",
        help="train additions of this rank to attention; 0: all",
    )
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--batch", type=int, default=8, help="chats a step, over all processes")
    p.add_argument("--rate", type=float, default=1e-4)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--save-every", type=int, default=50)
    return p


def _run(options: argparse.Namespace) -> None:
    from motet.library import find
    from motet.tokenizer import load_encoding

    if options.steps < 1 or options.batch < 1 or options.lora < 0 or options.save_every < 1:
        raise UsageError("--steps, --batch and --save-every are at least 1, --lora at least 0.")
    source = find(options.model)
    rows = read_chats(options.data, load_encoding(source))
    job = begin(source, options.lora, options.seed, options.rate, getattr(torch, options.dtype))
    state = options.out.with_name(options.out.name + ".state")
    if (state / ".metadata").exists():
        load(job, state)
    for batch in batches(rows, options.batch, options.seed, job.step):
        if job.step >= options.steps:
            break
        loss = learn(job, batch, 1024)
        if job.rank == 0:
            print(json.dumps({"step": job.step, "loss": round(loss, 6)}), flush=True)
        if job.step % options.save_every == 0 or job.step == options.steps:
            save(job, state)
    write_back(job, source, options.out, options.layout, options.experts)


if __name__ == "__main__":
    sys.exit(main())

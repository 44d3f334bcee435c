"""A training run on disk: its recipe, its vocabulary, a checkpoint a stage, one log; stopped anywhere, it goes on.

A run folder holds recipe.json, tokenizer.json, STAGE.pt (weights; while the stage is unfinished also the optimizer and
the step) and log.jsonl. What a step does depends on (seed, stage, step) and the weights alone, so a stage that was
stopped ends in the same bits as one that was not. Knows nothing of what a step does.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from motet.errors import UsageError, UserError
from motet.reference import Reference
from motet.tokenizer import Encoding
from motet.train.fast import fast_model
from motet.train.fusing import fuse
from motet.train.optim import MuonAdamW
from motet.train.recipe import Recipe, Stage

DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


@dataclass
class Run:
    """A run in memory, in one of its stages. `step` is the next one to do."""

    recipe: Recipe
    folder: Path
    encoding: Encoding
    stage: str
    model: Reference
    optimizer: MuonAdamW
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)  # what a stage wants to find again; JSON

    @property
    def settings(self) -> Stage:
        """The stage's part of the recipe."""
        return self.recipe.stages[self.stage]

    @property
    def dtype(self) -> torch.dtype:
        """That of matrix products."""
        return DTYPES[self.recipe.precision]

    @property
    def finished(self) -> bool:
        """Whether every step of the stage is done."""
        return self.step >= self.settings.steps

    def name(self, what: str = "") -> str:
        """The name under which this step draws its random numbers."""
        return f"{self.recipe.seed} {self.stage} {self.step}{' ' if what else ''}{what}"


StepFunction = Callable[[Run], dict[str, Any]]
Report = Callable[[Run, dict[str, Any]], None]


def open_folder(recipe: Recipe, folder: Path) -> Encoding:
    """Make or check the run folder; returns its vocabulary. UserError when it belongs to another recipe."""
    from motet.tokenizer import load_encoding

    folder.mkdir(parents=True, exist_ok=True)
    mine = json.loads(json.dumps(recipe.to_dict()))
    stored = folder / "recipe.json"
    if stored.exists():
        old = json.loads(stored.read_text("utf-8"))
        different = _differs(_begun(old, folder), _begun(mine, folder))
        if different:
            raise UserError(
                f"{folder} holds a run whose {different} differs; choose another --run, or delete that folder."
            )
    torch.set_num_threads(recipe.threads)
    keep_memory()
    fuse(recipe.fuse)
    vocabulary = folder / "tokenizer.json"
    if not vocabulary.exists():
        from motet.train.vocabulary import save_vocabulary, train_vocabulary

        data = [getattr(s, "data") for s in recipe.stages.values() if getattr(s, "data", None)]  # noqa: B009
        wanted = recipe.vocabulary
        save_vocabulary(train_vocabulary(wanted.size, data, wanted.examples, recipe.seed), vocabulary)
    _write(stored, json.dumps(mine, indent=1) + "\n")
    return load_encoding(folder)


def keep_memory() -> None:
    """Let the C library keep what tensors free: given back and fetched anew, its pages cost half of a step's time.

    Does nothing where there is no glibc. PyTorch asks for huge pages from its next allocation on, if none was made yet.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    trim, top_pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((mmap, 2**30), (trim, 2**31 - 1), (top_pad, 2**28)):
        mallopt(option, value)


def _begun(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe up to the last stage that has begun in `folder`, with the order of its stages; what comes later may still be changed."""
    names = list(recipe["stages"])
    last = max((n for n, name in enumerate(names) if (folder / f"{name}.pt").exists()), default=-1)
    done = {name: recipe["stages"][name] for name in names[: last + 1]}
    return {**recipe, "stages": done, "order of stages": list(done)}


def _differs(old: dict[str, Any], new: dict[str, Any], where: str = "") -> str:
    """The first key whose value would change the bits of what is done already, or ''."""
    for key in sorted(old.keys() | new.keys()):
        path = f"{where}.{key}" if where else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = _differs(a, b, path)
            if found:
                return found
        elif a != b and key not in ("threads", "save_every", "log_every", "questions", "max_new", "fuse"):
            return path
    return ""


def open_stage(recipe: Recipe, folder: Path, stage: str) -> Run:
    """Begin a stage from the weights of the one before it, or pick it up where it was left.

    UserError when the stage before it is not finished.
    """
    encoding = open_folder(recipe, folder)
    settings, before = recipe.stages[stage], recipe.before(stage)
    eos = tuple(encoding.special(n) for n in ("<|return|>", "<|endoftext|>", "<|call|>"))
    size = max(encoding.special_tokens.values()) + 1
    config = recipe.config(size, eos, encoding.special("<|endoftext|>"), settings.yarn)
    model = fast_model(config)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(settings.only))
    if not any(p.requires_grad for p in model.parameters()):
        known = ", ".join(dict.fromkeys(re.sub(r"\d+", "N", name) for name, _ in model.named_parameters()))
        raise UsageError(f"stages.{stage}.only is {settings.only!r}; the parameters are {known}.")
    rates = settings.optimizer
    optimizer = MuonAdamW(model, rates.muon, rates.adam, rates.weight_decay, DTYPES[recipe.precision])
    run = Run(recipe, folder, encoding, stage, model, optimizer)
    own = folder / f"{stage}.pt"
    if own.exists():
        saved = torch.load(own, weights_only=True)
        model.load_state_dict(saved["model"])
        run.step, run.tokens, run.seconds = saved["step"], saved["tokens"], saved["seconds"]
        run.notes = saved["notes"]
        if saved["optimizer"] is not None:
            optimizer.load_state_dict(saved["optimizer"])
    elif before is None:
        model.initialize(torch.Generator().manual_seed(recipe.seed))
    else:
        saved = finished_weights(recipe, folder, before)
        model.load_state_dict(saved["model"])
        run.tokens, run.seconds = saved["tokens"], saved["seconds"]
    return run


def finished_weights(recipe: Recipe, folder: Path, stage: str) -> dict[str, Any]:
    """What a finished stage left. UserError when it is not finished."""
    path = folder / f"{stage}.pt"
    saved = torch.load(path, weights_only=True) if path.exists() else None
    if saved is None or saved["step"] < recipe.stages[stage].steps:
        raise UserError(f"The stage {stage!r} of {folder} is not finished; run 'motet train {stage}' first.")
    return dict(saved)


def save(run: Run) -> None:
    """Write STAGE.pt; a crash leaves either the old one or the new one. A finished stage keeps its weights alone."""
    state = {"model": run.model.state_dict(), "step": run.step, "tokens": run.tokens, "seconds": run.seconds,
             "notes": run.notes, "optimizer": None if run.finished else run.optimizer.state_dict()}  # fmt: skip
    new = run.folder / f"{run.stage}.new"
    torch.save(state, new)
    new.replace(run.folder / f"{run.stage}.pt")


def carry_on(
    run: Run,
    step: StepFunction,
    until: int | None = None,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Do steps to `until` (default: all), or until `stop()`; the run is saved when this returns.

    Records of several steps are averaged; `report` receives what goes to log.jsonl.
    """
    last = run.settings.steps if until is None else min(until, run.settings.steps)
    records: list[dict[str, Any]] = []
    while run.step < last and not stop():
        began = time.perf_counter()
        records.append(step(run))
        run.step += 1
        run.seconds += time.perf_counter() - began
        if run.step % run.settings.log_every == 0 or run.step == last or stop():
            record = {"stage": run.stage, "step": run.step, "tokens": run.tokens,
                      "seconds": round(run.seconds, 1), **mean_record(records)}  # fmt: skip
            log(run.folder, record)
            if report:
                report(run, record)
            records = []
        if run.step % run.settings.save_every == 0:
            save(run)
    save(run)


def mean_record(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of every number, nested tables included; numbers that only some records have are averaged over those."""
    out: dict[str, Any] = {}
    for key in dict.fromkeys(k for r in records for k in r):
        values = [r[key] for r in records if r.get(key) is not None]
        if not values:
            continue
        out[key] = mean_record(values) if isinstance(values[0], dict) else _rounded(sum(values) / len(values))
    return out


def _rounded(x: float) -> float:
    return float(f"{x:.6g}")


def log(folder: Path, record: dict[str, Any]) -> None:
    """Append a record to the run's log."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All records, the last one of every (stage, step): a run that crashed repeats steps."""
    records: dict[tuple[str, int, bool], dict[str, Any]] = {}
    path = folder / "log.jsonl"
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            r = json.loads(line)
        except json.JSONDecodeError:  # the line a crash cut off
            continue
        records[r["stage"], r.get("step", -1), "accepted" in r] = r
    return list(records.values())


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)

"""`motet train`: a recipe's stages from the command line, with a bar, a log, and a way to stop and go on.

Knows what the person sees. Everything a stage does is motet.train's.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli import show
from motet.cli.options import JsonOption
from motet.errors import UsageError, UserError

if TYPE_CHECKING:
    from motet.train.evaluate import Score
    from motet.train.run import Run

STOPPED = 130


def train(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the recipe, such as distill; or all.")] = "all",
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="R", help="A recipe of the package, such as mini, or a TOML file.")
    ] = "mini",
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; an unfinished run goes on. Default: runs/R.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the checkpoint goes. Default: DIR/model of the run. Exports of another name go to folders of that name in DIR.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="The recipe's own small form, to see that all is well.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", metavar="S", min=0, help="Another seed than the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Threads of PyTorch.")] = None,
    until: Annotated[int | None, typer.Option("--until", metavar="STEP", min=1, help="Stop a stage after this step.")] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Train a model: pretraining, distillation, reinforcement, MXFP4, export; stopped anywhere, it goes on later."""
    _torch()
    from dataclasses import replace

    from motet.train.recipe import read_recipe
    from motet.train.stages import chosen, do

    wanted = read_recipe(recipe, smoke)
    if seed is not None:
        wanted = replace(wanted, seed=seed)
    if threads is not None:
        wanted = replace(wanted, threads=threads)
    if until is not None and stage == "all":
        raise UsageError("--until belongs to one stage; name it.")
    folder = run or Path("runs") / wanted.name
    screen = Screen(json)
    with screen:
        for name in chosen(wanted, stage):
            target = (out or folder / "model") if name == "export" else (out or folder) / name
            if not do(wanted, folder, name, target, until, screen.watch()):
                break
    if json:
        show.emit(
            {"recipe": wanted.name, "run": str(folder), "stopped": screen.stopped, "stages": screen.figures}
        )
    if screen.stopped:
        command = " ".join(a for a in ("motet train", stage, f"--recipe {recipe}" if recipe != "mini" else "",
                                       "--smoke" if smoke else "", f"--seed {seed}" if seed is not None else "",
                                       f"--run {run}" if run else "") if a)  # fmt: skip
        print(f"stopped and saved in {folder}; '{command}' goes on", file=sys.stderr)
        raise typer.Exit(STOPPED)


def _torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "Training needs PyTorch; 'make train-mini' installs it, or pip install 'motet[train]'."
        ) from None


class Screen:
    """Lines about a run on stderr, one rewritten on a terminal; the first Ctrl-C lets the step end and the run be saved."""

    def __init__(self, quiet: bool) -> None:
        self.figures: dict[str, Any] = {}
        self.stopped = False
        self.live = sys.stderr.isatty()
        self._old: Any = None
        self._began, self._first = 0.0, 0

    def __enter__(self) -> Screen:
        self._old = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._old)

    def _interrupted(self, number: int, frame: object) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        print("\nending this step and saving; Ctrl-C again stops at once", file=sys.stderr)

    def watch(self) -> Any:
        """What `motet.train.stages.do` calls."""
        from motet.train.stages import Watch

        return Watch(self.began, self.report, self.accepted, self.cell, lambda: self.stopped)

    def began(self, run: Run) -> None:
        """Say what begins."""
        counts, steps = run.model.config.counts(), run.settings.steps
        state = (
            "finished already"
            if run.finished and steps
            else f"from step {run.step} of {steps}"
            if steps
            else "writing"
        )
        self._began, self._first = time.monotonic(), run.step
        print(f"{run.stage}: {counts.total / 1e6:.2f} M parameters, {counts.active / 1e6:.2f} M active, seed {run.recipe.seed}, "
              f"{run.recipe.threads} threads, {state}", file=sys.stderr)  # fmt: skip

    def report(self, run: Run, record: dict[str, Any]) -> None:
        """A log record as one line."""
        step, steps = run.step, run.settings.steps
        left = (time.monotonic() - self._began) / max(1, step - self._first) * (steps - step)
        keys = ("loss", "right", "reward", "accuracy", "form", "entropy", "router_entropy")
        figures = "  ".join(f"{k} {record[k]:.3f}" for k in keys if k in record)
        bar = "#" * round(20 * step / steps)
        line = f"{run.stage} [{bar:20}] {step}/{steps}  {figures}  {run.tokens / 1e6:.2f} M tokens  {_clock(left)} left"
        end = "" if self.live and step < steps else "\n"
        print(f"\r{line}\033[K" if self.live else line, end=end, file=sys.stderr, flush=True)

    def accepted(self, stage: str, figures: dict[str, Any]) -> None:
        """A stage's figures."""
        self.figures[stage] = figures
        for name, values in figures.items():
            print(f"{stage}: {name}: {_short(values)}", file=sys.stderr)

    def cell(self, score: Score) -> None:
        """One cell of the last measurement."""
        print(
            f"  {score.task:14} {score.effort:7} {score.right}/{score.asked}  {score.mean_tokens:.1f} tokens",
            file=sys.stderr,
        )


def _short(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(
            f"{k} {_short(v)}" if not isinstance(v, dict) else f"{k} ({_short(v)})" for k, v in values.items()
        )
    return str(values)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def add_to(app: typer.Typer) -> None:
    """Registers this file's command."""
    app.command(rich_help_panel="Train")(train)

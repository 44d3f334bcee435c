"""`make train-mini`: train the embedded model from its seed, export it, measure it. Stopped anywhere, it goes on later.

Knows the order of things and what the person sees. Everything it writes goes to the run folder (runs/mini); the
package's own copy of the model is replaced only when `--out` says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.errors import UsageError, UserError

if TYPE_CHECKING:
    from motet.train.evaluate import Answer, Score
    from motet.train.sft import Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for what the user can put right, 2 for a bad argument, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        _all(options)
    except UsageError as e:
        print(f"train: {e}", file=sys.stderr)
        return 2
    except (UserError, OSError) as e:
        print(f"train: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\ntrain: stopped; the same command goes on from the last save in {options.run}", file=sys.stderr
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m motet.train.mini", description=__doc__)
    parser.add_argument(
        "--recipe", default="mini", help="mini, or smoke: a run of seconds to see that all is well"
    )
    parser.add_argument(
        "--run", type=Path, help="the run folder (default: runs/RECIPE); an unfinished run there goes on"
    )
    parser.add_argument("--out", type=Path, help="where the checkpoint goes (default: RUN/model)")
    parser.add_argument(
        "--evaluate", type=int, metavar="N", help="held-out questions per task and effort; 0: none"
    )
    parser.add_argument("--until", type=int, metavar="STEP", help="stop after this step, without an export")
    return parser


def _check(options: argparse.Namespace) -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "training needs PyTorch; 'make train-mini' installs it, or pip install 'motet[train]'"
        ) from None
    from motet.train.recipe import recipe

    options.recipe = recipe(options.recipe)
    options.run = options.run or Path("runs") / options.recipe.name
    options.out = options.out or options.run / "model"
    options.evaluate = options.recipe.evaluate if options.evaluate is None else options.evaluate
    if options.evaluate < 0 or (options.until is not None and options.until < 1):
        raise UsageError("--evaluate needs a number of at least 0 and --until one of at least 1")


def _all(options: argparse.Namespace) -> None:
    from motet.train.export import export, write_card
    from motet.train.sft import open_run, train

    run = open_run(options.recipe, options.run)
    _say_start(run)
    train(run, options.until, progress(run))
    if run.step < run.recipe.steps:
        print(f"train: {run.step} of {run.recipe.steps} steps done; the same command without --until goes on")
        return
    model = export(run, options.out)
    write_card(run, options.out, {})
    print(f"checkpoint: {options.out} ({sum(p.stat().st_size for p in options.out.iterdir()) / 1e6:.2f} MB)")
    if options.evaluate:
        _measure(run, model, options)
    _compare(options.out)


def _say_start(run: Run) -> None:
    counts = run.model.config.counts()
    state = "finished already" if run.step >= run.recipe.steps else f"from step {run.step}"
    print(f"recipe {run.recipe.name}, seed {run.recipe.seed}: {counts.total / 1e6:.2f} M parameters, {counts.active / 1e6:.2f} M "
          f"active, {run.recipe.steps} steps of {run.recipe.rows} examples on {run.recipe.threads} threads, {state}")  # fmt: skip


def progress(run: Run) -> Callable[[dict[str, Any]], None]:
    """A printer of log records: one line that is rewritten on a terminal, a line per record elsewhere."""
    live, began, first = sys.stdout.isatty(), time.perf_counter(), run.step

    def tell(record: dict[str, Any]) -> None:
        step, steps = record["step"], run.recipe.steps
        left = (time.perf_counter() - began) / max(1, step - first) * (steps - step)
        line = (f"step {step}/{steps}  loss {record['loss']:.4f}  right {100 * record['hit']:.2f} %  "
                f"{record['tokens'] / 1e6:.1f} M tokens  {_clock(left)} left")  # fmt: skip
        print(
            f"\r{line}\033[K" if live and step < steps else f"\r{line}",
            end="" if live and step < steps else "\n",
            flush=True,
        )

    return tell


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _measure(run: Run, model: Any, options: argparse.Namespace) -> None:
    """Score the stored model greedily and at temperature 1, the way people will run it, and put both on the card."""
    import torch

    from motet.train.evaluate import evaluate
    from motet.train.export import show_table, write_card

    torch.set_num_threads(
        1
    )  # decoding is made of products too small to share; waiting for a second thread costs more
    measured: dict[str, list[Score]] = {}

    def tell(score: Score, answers: list[Answer]) -> None:
        print(
            f"  {score.task:10} {score.effort:7} {score.right}/{score.asked}  {score.mean_tokens:.1f} tokens",
            flush=True,
        )

    for way, temperature in (("greedy", 0.0), ("temperature 1", 1.0)):
        print(f"{options.evaluate} held-out questions per task and effort, {way}:")
        measured[way] = evaluate(
            model, run.encoder, options.evaluate, run.recipe.seed, run.recipe.max_new, temperature, tell
        )
        write_card(run, options.out, measured)
        print(show_table(measured[way]))


def _compare(out: Path) -> None:
    """Say whether the weights are those that ship in the package."""
    from motet.library import embedded_folder
    from motet.train.export import sha256

    shipped = embedded_folder()
    files = sorted(out.glob("*.safetensors"))
    if out.resolve() == shipped.resolve() or not files:
        return
    same = all((shipped / p.name).is_file() and sha256(p) == sha256(shipped / p.name) for p in files)
    print("weights: " + ("bit for bit those of the package" if same else "not those of the package"))


if __name__ == "__main__":
    sys.exit(main())

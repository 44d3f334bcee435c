"""Evaluations from the command line: `motet eval NAME`, `motet eval list`. An evaluation with ways of its own is a command here.

Knows options and tables; motet.evals asks and scores.
"""

from __future__ import annotations

import contextlib
import json as jsonlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from motet.cli import asked, show
from motet.cli.asked import UrlOption, WidthOption
from motet.cli.options import JsonOption, ModelOption, PrecisionOption, ThreadsOption
from motet.errors import UsageError, UserError


class _ByName(TyperGroup):
    """`motet eval NAME ...` is `motet eval run NAME ...`: what can be evaluated is data, not commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args and args[0] in self.commands
        return super().resolve_command(ctx, args if known or not args else ["run", *args])


evals = typer.Typer(
    cls=_ByName,
    help="Score a model beside the card; NAME is one of 'list'.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@evals.command("list")
def list_(json: JsonOption = False) -> None:
    """What can be evaluated here, and what is missing for the rest."""
    from motet.evals import catalogue

    found = catalogue.survey()
    rows: list[dict[str, Any]] = [
        {"name": b.name, "what": b.what, "runs": _runs(b, found[b.name]), "missing": found[b.name], "repeats": b.repeats,
         "card": any(m.card for m in b.measures), "analogue": b.analogue}
        for b in catalogue.BENCHMARKS
    ]  # fmt: skip
    if json:
        show.emit({"evaluations": rows})
        return
    show.table(
        [[r["name"], r["runs"], str(r["repeats"]), r["what"]] for r in rows],
        ["name", "runs here", "repeats", ""],
    )
    for r in rows:
        for sentence in r["missing"]:
            show.note(f"{r['name']}: {sentence}", dim=False)


def _runs(b: Any, missing: list[str]) -> str:
    """yes, no, or the options with which it runs."""
    parts = [f"--{part}" for part in ("grader", "user") if getattr(b, part)]
    return "yes" if not missing else "no" if len(missing) > len(parts) else f"with {' '.join(parts)}"


@evals.command("codeforces")
def codeforces(
    record: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSON: 'contests' of {rank, ratings} or 'problems' of {rating, solved}."
        ),
    ],
    json: JsonOption = False,
) -> None:
    """The rating that contests or solved problems amount to, beside the card's.

    Nothing here judges programs: the problems' tests are not public. Judge them where they can be and bring the results.
    """
    from motet.evals import card, elo

    kind, rating, n = elo.read(record)
    row: dict[str, Any] = {"from": kind, "n": n, "rating": rating}
    high = card.TABLE["codeforces"].of("high")
    row |= {f"{k} high": v for k, v in high.items()}
    note = "The card's ratings come from a held-out split of problems and an undisclosed method."
    if json:
        show.emit({"rows": [row | {"rating": rating.json()}], "note": note})
        return
    show.table(
        [[kind, str(n), f"{rating.value:.0f} [{rating.low:.0f}, {rating.high:.0f}]", *(f"{v:.0f}" for v in high.values() if v)]],
        ["from", "n", "rating", *(f"{k} high" for k in high)], right={1, 2, 3, 4},
    )  # fmt: skip
    show.note(note, dim=False)


EffortsOption = Annotated[
    list[str] | None, typer.Option("--effort", "-e", help="An effort; again for more. Default: all three.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", metavar="N", min=1, help="Questions at most; the default is all."),
]
RepeatsOption = Annotated[
    int | None,
    typer.Option("--repeats", metavar="N", min=1, help="Answers to each question; 'list' has the default."),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Keep logs and report there; the same folder again goes on where it stopped.",
    ),
]
TaskArgument = Annotated[
    list[str] | None, typer.Option("--arg", metavar="K=V", help="An argument of the task; again for more.")
]


@evals.command("run", hidden=True)
def run(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An evaluation; 'motet eval list' has the names.")
    ],
    model: ModelOption = "mini",
    url: UrlOption = None,
    effort: EffortsOption = None,
    limit: LimitOption = None,
    repeats: RepeatsOption = None,
    tool: Annotated[
        str | None,
        typer.Option("--tool", metavar="T", help="python: the model may run code while it thinks."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", metavar="B", min=0, help="Thinking ends after B tokens.")
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens", metavar="N", min=1, help="Of each answer, at most; the context bounds it too."
        ),
    ] = 131_072,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", min=0, help="The card's is 1.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    grader: Annotated[
        str | None,
        typer.Option("--grader", metavar="G", help="Who judges, as Inspect names models: openai/gpt-4.1."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="U", help="Who plays the user, as Inspect names models.")
    ] = None,
    arg: TaskArgument = None,
    width: WidthOption = 8,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a model, and show its score beside the card's."""
    from motet.evals import catalogue
    from motet.tasks import EFFORTS

    found = catalogue.benchmark(name)
    if bad := set(effort or ()) - set(EFFORTS):
        raise UsageError(f"--effort is '{bad.pop()}'; choose {', '.join(EFFORTS)}.")
    lacks = catalogue.missing(found, grader=grader is not None, user=user is not None, given=_arguments(arg))
    if lacks:
        raise UserError(f"{name} cannot run here: {lacks[0]}")
    if tool is not None and tool not in ("python",):
        raise UsageError(f"--tool is '{tool}'; an evaluation takes python.")
    from motet.evals.run import Plan

    plan = Plan(
        tuple(e for e in EFFORTS if e in (effort or EFFORTS)), repeats, limit, seed, budget, max_tokens, temperature,
        arguments=_arguments(arg), tools=tool or "", grader=grader, user=user,
    )  # fmt: skip
    _run(found, plan, model, url, width, precision, threads, out, json)


def _arguments(given: list[str] | None) -> dict[str, Any]:
    """K=V, the value read as JSON where it is JSON."""
    out: dict[str, Any] = {}
    for text in given or ():
        key, eq, value = text.partition("=")
        if not eq or not key.isidentifier():
            raise UsageError(f"--arg is '{text}'; give NAME=VALUE.")
        try:
            out[key] = jsonlib.loads(value)
        except ValueError:
            out[key] = value
    return out


def _run(
    found: Any, plan: Any, model: str, url: str | None, width: int, precision: str, threads: int | None, out: Path | None, json: bool
) -> None:  # fmt: skip
    from inspect_ai.model import get_model

    import motet.evals.registry  # noqa: F401  so that `motet/...` exists even where no entry point is installed
    from motet.evals.run import evaluate

    folder = out or _folder(found.name)
    with (
        asked.subject(model, url, precision=precision, threads=threads, width=width) as who,
        contextlib.redirect_stdout(sys.stderr),  # Inspect greets
    ):
        settings: dict[str, Any] = {"base_url": url, "width": width} if url else {"width": width}
        own: dict[str, Any] = {} if url else {"subject": who}
        asking = get_model(f"motet/{model}", memoize=False, tools=plan.tools, **settings, **own)
        asking.model_args = {"width": width, "tools": plan.tools}  # what a log can hold
        with show.bar(found.name, "answers") as progress:
            report = evaluate(found, asking, who.identity(), plan, folder, progress)
    if not report.complete or out is None:
        show.note(f"answers are kept in {folder}; --out {folder} goes on with them", dim=False)
    asked.finish(report, folder, json)


def _folder(name: str) -> Path:
    from platformdirs import user_data_path

    return user_data_path("motet") / "evals" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


@evals.command("mini-suite")
def mini_suite(
    model: ModelOption = "mini",
    task: Annotated[list[str] | None, typer.Option("--task", "-t", metavar="T", help="A task; again for more. Default: all of the suite.")] = None,
    count: Annotated[int, typer.Option("--questions", "-n", metavar="N", min=1, help="Instances per task and effort.")] = 100,
    bands: Annotated[bool, typer.Option("--bands/--no-bands", help="Also larger sizes and new wordings.")] = True,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="Sampled tokens a turn at most.")] = 512,
    temperature: Annotated[float, typer.Option("--temperature", metavar="T", min=0)] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 64,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """The aims of the toy world: families by effort, tools, the hierarchy, form; fresh instances, intervals beside."""
    from motet.study.minisuite import Plan, chosen, suite

    plan = Plan(
        chosen(task or ()),
        count=count,
        bands=bands,
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        width=width,
    )
    with asked.subject(model, None, precision=precision, threads=threads, width=width, grammar=False) as who:
        found: Any = who
        report = suite(found.engine, found.encoding, plan, lambda line: show.note(line, dim=False))
    if json:
        show.emit({"model": model, "precision": precision, **report})
        return
    rows = [
        [name, *(f"{100 * c['share']:.0f} % {c['tokens']:.0f}" for c in cells.values())]
        for name, cells in report["tasks"].items()
    ]
    show.table(rows, ["task: right, tokens of thinking", *plan.efforts])
    for name in ("form", "calls_undeclared", "followups", "limits"):
        show.note(f"{name}: {_interval(report[name])}", dim=False)
    for part in ("hierarchy", "policy"):
        for name, cell in report[part].items():
            show.note(f"{part}, {name.replace('_', ' ')}: {_interval(cell)}", dim=False)


def _interval(cell: dict[str, Any]) -> str:
    return (
        f"{cell['right']}/{cell['n']} = {100 * cell['share']:.1f} % [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"
        if cell["n"]
        else "none asked"
    )


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    app.add_typer(evals, name="eval", rich_help_panel="Measure")

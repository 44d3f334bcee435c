"""What the study commands share: who is asked (a model or a URL), progress, and how a report leaves. Measures nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli import show
from motet.errors import UsageError

if TYPE_CHECKING:
    from motet.study.report import Report
    from motet.study.subject import Subject

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask an OpenAI-compatible API there (its /v1) instead; --model names its model."),
]  # fmt: skip
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write the report there, as JSON and as a page.")
]
DefectOption = Annotated[
    str | None,
    typer.Option("--defect", metavar="D", help="Plant a defect in a played subject, to see it caught."),
]
WidthOption = Annotated[int, typer.Option("--width", metavar="N", min=1, max=1024, help="Requests at once.")]
QuestionsOption = Annotated[int, typer.Option("--questions", "-n", metavar="N", min=1, help="Of each kind.")]
SeedsOption = Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Answers to each question.")]


@contextmanager
def subject(
    model: str, url: str | None, played: Subject | None = None, *, precision: str = "int8", threads: int | None = None, width: int = 8,
    grammar: bool = True, record_routes: bool = False,
) -> Iterator[Subject]:  # fmt: skip
    """Who is asked, ready: `played` if there is one, else the model at the URL, else one of this process with an engine that
    ends with the block."""
    if played is not None:
        yield played
        return
    from motet.study.subject import Native, Remote
    from motet.turn import RULES

    if url is not None:
        yield Remote(url, model, os.environ.get("OPENAI_API_KEY"), width=width)
        return
    from motet.engine import Engine
    from motet.library import find
    from motet.model import load

    with show.bar(f"packing {model} for {precision}, once") as progress:
        loaded = load(find(model), precision=precision, threads=threads, progress=progress)
    with Engine(loaded, max_batch=width, record_routes=record_routes) as engine:
        yield Native(engine, loaded.encoding, model, rules=RULES if grammar else None, width=width)


def known(defect: str, names: Any) -> str:
    """The defect, or UsageError that lists those there are."""
    if defect not in names:
        raise UsageError(f"There is no defect {defect!r} to plant; use {', '.join(names)}.")
    return defect


def finish(report: Report, out: Path | None, json: bool) -> None:
    """Prints or writes the report; exit 1 when a check failed, 130 when it was stopped."""
    if out is not None:
        paths = report.save(out)
        show.note(f"written: {paths[0]} {paths[1]}", dim=False)
    if json:
        show.emit(report.json())
    else:
        _print(report)
    if not report.complete:
        show.note("stopped; the report covers what was done until then", dim=False)
        raise typer.Exit(130)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from motet.study.report import shown

    for table in report.tables:
        if not table.rows:
            continue
        print(f"{table.title}:")
        head = [str(k) for k in table.rows[0]]
        rows = [[show.visible(shown(v)) for v in row.values()] for row in table.rows]
        show.table(rows, head, right=set(range(1, len(head))))
        print()
    words = {True: "passed", False: "FAILED", None: "open"}
    rows = [[words[c.passed], c.name, c.value, c.threshold, c.detail] for c in report.checks]
    if rows:
        show.table(rows, ["", "check", "value", "wanted", ""])
    show.note(f"harness {report.harness}")

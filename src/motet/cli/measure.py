"""Measuring and checking: bench, doctor. Knows how results are printed; bench.py and doctor.py measure and check."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from motet.cli import show
from motet.cli.options import JsonOption, KvOption, PrecisionOption, ThreadsOption
from motet.errors import UsageError


def _numbers(text: str, name: str, least: int) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--{name} is '{text}'; give whole numbers with commas between, such as 0,4096."
        ) from None
    if min(values) < least:
        raise UsageError(f"--{name} has {min(values)}; every number must be at least {least}.")
    return values


def bench(
    model: Annotated[
        str, typer.Argument(metavar="M", help="mini, a name from 'motet models', or a folder.")
    ] = "mini",
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="N,N", help="Lengths of prompts, in tokens.")
    ] = "512",
    gen: Annotated[int, typer.Option("--gen", metavar="N", min=1, help="Tokens decoded per pass.")] = 64,
    depth: Annotated[str, typer.Option("--depth", metavar="N,N", help="Tokens already in the cache.")] = "0",
    batch: Annotated[str, typer.Option("--batch", metavar="N,N", help="Sequences decoded together.")] = "1",
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", metavar="N", min=1, help="Passes; the default fits a minute, 3 to 12."),
    ] = None,
    precision: PrecisionOption = "int8",
    kv: KvOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Speed with the ceilings of this machine first, then tokens/s and how much of the ceiling that is."""
    from motet.bench import Plan, measure
    from motet.library import find

    plan = Plan(
        tuple(_numbers(prompt, "prompt", 1)),
        gen,
        tuple(_numbers(depth, "depth", 0)),
        tuple(_numbers(batch, "batch", 1)),
        repeats,
    )
    tell = (lambda line: show.note(line, dim=False)) if json else (lambda line: print(line, flush=True))
    with show.bar(f"packing {model} for {precision}, once") as progress:
        result = measure(
            find(model), plan, precision=precision, kv=kv, threads=threads, tell=tell, progress=progress
        )
    if json:
        show.emit({"model": model, **result})


def doctor(
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="M", help="The model to check with.")
    ] = "mini",
    json: JsonOption = False,
) -> None:
    """Check this machine and this installation, one line a check; exit 1 when one fails."""
    from motet.doctor import checks

    results = []
    for result in checks(model):
        results.append(result)
        if not json:
            mark = {"ok": show.GREEN, "FAIL": show.RED, "skip": show.DIM}[result.state]
            print(
                f"{show.paint(mark, f'{result.state:4}', sys.stdout)}  {result.name:22}  {result.detail}",
                flush=True,
            )
    failed = [r.name for r in results if r.state == "FAIL"]
    if json:
        show.emit({"ok": not failed, "checks": [vars(r) for r in results]})
    else:
        show.note(
            f"{len(failed)} of {len(results)} checks failed"
            if failed
            else f"all {len(results)} checks done, none failed"
        )
    if failed:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (bench, doctor):
        app.command(rich_help_panel="Measure and check")(command)

"""Studies from the command line: each prints a table, or one JSON report, and exits 1 when a threshold is missed.

Knows options and tables; motet.study measures.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from motet.cli import show
from motet.cli.options import EffortOption, JsonOption, MaxTokens, PrecisionOption, ThreadsOption

study = typer.Typer(help="Measure how a model behaves.", rich_markup_mode=None, no_args_is_help=True)


@study.command("tools")
def tools(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="M", help="A model; without one the scripted policy plays."),
    ] = None,
    attempts: Annotated[
        int, typer.Option("--attempts", "-k", metavar="K", min=1, max=1000, help="Of each scenario.")
    ] = 1,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="S", help="A scenario; again for more.")
    ] = None,
    defect: Annotated[
        str | None,
        typer.Option(
            "--defect", metavar="D", help="Plant a defect in the scripted policy, to see it caught."
        ),
    ] = None,
    effort: EffortOption = "medium",
    max_tokens: MaxTokens = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Conversations that need tools, every token span validated."""
    from motet.study.toolcheck import toolcheck

    options: dict[str, Any] = {"attempts": attempts, "only": only or (), "effort": effort, "defect": defect}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if model is None:
        from motet.tokenizer import o200k_harmony

        report = toolcheck(None, o200k_harmony(), **options)
    else:
        from motet.cli.talk import _open

        with _open(model, precision, threads) as session:
            report = toolcheck(session.engine, session.encoding, **options)
    result = {"model": model or "scripted policy", "defect": defect, **report.json()}
    if json:
        show.emit(result)
    else:
        _print(result)
    if not report.passed:
        raise typer.Exit(1)


def _print(result: dict[str, Any]) -> None:
    rows = []
    for name, s in result["scenarios"].items():
        k = s["attempts"]
        faults = ", ".join(f"{c} {n}" for c, n in s["faults"].items())
        rows.append([name, f"{s['passed']}/{k}", f"{s['pass@k'][k]:.2f}", f"{s['pass^k'][k]:.2f}", faults])
    show.table(rows, ["scenario", "right", "pass@k", "pass^k", "faults"], right={1, 2, 3})
    print()
    show.table(
        [[k.replace("_", " "), f"{v:.3f}"] for k, v in result["rates"].items()], ["rate", ""], right={1}
    )
    for f in result["faults"][:10]:
        show.note(f"{f['scenario']}: {f['code']}: {show.visible(f['detail'])}", dim=False)


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    app.add_typer(study, name="study", rich_help_panel="Measure")

"""Tools from the command line: index a folder to browse, offer our tools over MCP, keep what tools made.

Knows what the options are called; motet.tools does the work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli import show
from motet.cli.options import JsonOption
from motet.errors import UsageError, UserError

if TYPE_CHECKING:
    from motet.harmony import Artefact
    from motet.study.scenarios import Scenario

ToolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tool", metavar="T", help="python, browser:DIR, browser:fetch, apply_patch:DIR; again for more."
    ),
]
McpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mcp", metavar="S", help="Tools of an MCP server: a URL or a command line, or NAME= and either."
    ),
]
SaveOption = Annotated[
    Path | None, typer.Option("--save", metavar="DIR", help="Keep the files that tools make in this folder.")
]


def keep(artefacts: Sequence[Artefact], folder: Path | None) -> list[dict[str, Any]]:
    """Writes artefacts to a folder, never over a file that is there, and says where they are."""
    rows: list[dict[str, Any]] = []
    for a in artefacts:
        rows.append({"name": a.name, "mime": a.mime, "bytes": len(a.data), "path": None})
        if folder is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        stem, dot, ending = a.name.partition(".")
        for n in range(1, 10_000):
            path = folder / (a.name if n == 1 else f"{stem}-{n}{dot}{ending}")
            try:
                with path.open("xb") as f:
                    f.write(a.data)
                break
            except FileExistsError:
                continue
        rows[-1]["path"] = str(path)
    if artefacts and folder is None:
        show.note(f"(files made: {', '.join(a.name for a in artefacts)}; --save DIR keeps them)")
    for row in rows:
        if row["path"]:
            show.note(f"(saved {row['path']})")
    return rows


def index(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A folder of HTML, Markdown, text, PDF or WARC files.")
    ],
    json: JsonOption = False,
) -> None:
    """Make a folder something to browse, or bring its index up to date."""
    from motet.tools.browser.corpus import index as update

    done = update(folder)
    for reason in done.left_out:
        show.note(f"left out {show.visible(reason)}", dim=False)
    if json:
        show.emit({"pages": done.pages, "read": done.read, "left_out": list(done.left_out)})
    else:
        print(
            f"{done.pages} pages in the index, {done.read} files read now; browse with --tool browser:{folder}"
        )


def mcp(
    tool: ToolOption = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="P", min=1, max=65535, help="HTTP on this machine instead of stdio."),
    ] = None,
) -> None:
    """Offer the python and browser tools to other programs, over MCP."""
    from motet.tools import toolbox
    from motet.tools.mcp import server

    specs = tool or ["python"]
    if bad := [t for t in specs if t.partition(":")[0] not in ("python", "browser")]:
        raise UsageError(f"{bad[0]!r} is not offered over MCP; use python and browser:DIR.")
    with toolbox(specs) as tools:
        offered = server(tools)
        if port is None:
            if sys.stdin.isatty():
                show.note("MCP over stdin and stdout: this is for another program to start.", dim=False)
            offered.run("stdio")
            return
        try:
            offered.run("streamable-http", host="127.0.0.1", port=port)
        except SystemExit:
            raise UserError(
                f"Port {port} cannot be used; another program may have it. Choose another with --port."
            ) from None


def demo_tools(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="M", help="A model; without one a scripted policy plays."),
    ] = None,
    save: Annotated[Path, typer.Option("--save", metavar="DIR", help="Where the plot goes.")] = Path(
        "runs/demo-tools"
    ),
) -> None:
    """Three questions with real tools: compute, plot, read and cite."""
    import tempfile

    from motet.study.scenarios import SCENARIOS

    right = True
    for scenario in (s for s in SCENARIOS if s.name in ("python", "plot", "interleaved")):
        with tempfile.TemporaryDirectory() as folder:
            right = _demonstrate(scenario, model, Path(folder), save) and right
    if not right:
        raise UserError("An answer was wrong; the lines above say which.")


def _demonstrate(scenario: Scenario, model: str | None, folder: Path, save: Path) -> bool:
    """Shows one conversation; whether its answers were right."""
    from motet.cli import talk
    from motet.harmony import Conversation, ToolResult, fold
    from motet.study.scripted import ScriptedEngine
    from motet.tokenizer import o200k_harmony
    from motet.tools.browser import BrowserTool, CitationStream
    from motet.turn import run_turn

    tools = scenario.tools(folder)
    browser = next((t for t in tools if isinstance(t, BrowserTool)), None)
    session = None if model is None else talk.open_session(model, "int8", None, tools)
    encoding = o200k_harmony() if session is None else session.encoding
    engine = ScriptedEngine(encoding, scenario.scripts) if session is None else session.engine
    finals: list[str] = []
    try:
        for question in scenario.questions:
            show.note(f"\n{show.paint(show.BOLD, question)}", dim=False)
            conversation = Conversation.from_chat([{"role": "user", "content": question}])
            printer = talk.Printer(None if browser is None else lambda: CitationStream(browser.address))
            events = []
            for event in run_turn(engine, conversation, encoding, talk.sampling(seed=0), tools):
                events.append(event)
                printer.feed(event)
            printer.close()
            final = fold(events).final
            finals.append(final if browser is None else browser.cite(final)[0])
            keep([a for e in events if isinstance(e, ToolResult) for a in e.artefacts], save)
    finally:
        for thing in (*tools, *([] if session is None else [session.engine])):
            getattr(thing, "close", lambda: None)()
    return scenario.grade(finals)


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (index, mcp, demo_tools):
        app.command(rich_help_panel="Tools")(command)

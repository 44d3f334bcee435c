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


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (index, mcp):
        app.command(rich_help_panel="Tools")(command)

"""Tools by the names people type: python, browser:DIR, apply_patch:DIR. Knows names; each tool is imported when named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from motet.errors import UsageError
from motet.tools.base import Tool

NAMES = "python, python:FILE,..., browser:DIR, browser:fetch|exa|youcom|searxng, apply_patch:DIR"


def named(spec: str) -> Tool:
    """The tool a word stands for. UsageError for a word that stands for none, UserError for a tool that cannot be had."""
    name, _, value = spec.partition(":")
    if name == "python":
        from motet.tools.python import PythonTool

        return PythonTool(files=[f for f in value.split(",") if f])
    if name == "browser":
        from motet.tools.browser import BrowserTool, backend

        if not value:
            raise UsageError(
                "The browser needs to know where pages come from; write browser:DIR or browser:fetch."
            )
        return BrowserTool(backend(value))
    if name == "apply_patch":
        from motet.tools.apply_patch import ApplyPatchTool

        if not value or not Path(value).is_dir():
            raise UsageError("apply_patch needs the folder it may change; write apply_patch:DIR.")
        return ApplyPatchTool(value)
    raise UsageError(f"There is no tool {spec[:60]!r}; use {NAMES}.")


@contextlib.contextmanager
def toolbox(specs: Iterable[str] = (), servers: Iterable[str] = ()) -> Iterator[Sequence[Tool]]:
    """Tools by name and tools of MCP servers; all are closed in the end."""
    tools: list[Tool] = []
    try:
        for spec in specs:
            tools.append(named(spec))
        for server in servers:
            from motet.tools.mcp import connect

            tools.append(connect(server))
        spaces = [t.namespace.name for t in tools if t.namespace.name != "functions"]
        if twice := {s for s in spaces if spaces.count(s) > 1}:
            raise UsageError(
                f"Two tools are called {min(twice)!r}; leave one out, or name a server NAME=SERVER."
            )
        yield tools
    finally:
        for tool in tools:
            close = getattr(tool, "close", None)
            if close is not None:
                close()

"""What only the results of tools can show: sessions that forget or pretend to, citations of lines nobody was shown.

Reads calls and results as texts, in order. Knows no tokens and no engine.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_SHOWN = re.compile(r"\[(\d+)\] ")
_LINE = re.compile(r"^L(\d+): ", re.M)
_MARK = re.compile(r"【(\d+)†([^】]*)】")
_LINES = re.compile(r"L(\d+)(?:-L(\d+))?")
_LOST = re.compile(r"^\[ERROR\] .*\ball variables\b.* are lost\b", re.I | re.M)
_BEFORE = re.compile(r"after the last call\.")
_OPAQUE = re.compile(r"\bimport \*|\bexec\(|\bglobals\(|^\s*%", re.M)
_ALWAYS = {*dir(builtins), "In", "Out", "display", "get_ipython", "exit", "quit"}
_UNKNOWN = re.compile(r"NameError: name '(\w+)' is not defined")


@dataclass(frozen=True)
class Told:
    """A call and what it came to; `target` is the declared tool, empty for one that does not exist."""

    target: str
    content: str
    result: str


def sessions(told: Iterable[Told]) -> Iterator[tuple[str, str]]:
    """(fault, name) of python sessions. `stateless`: a cell misses a name that an earlier one, which ran without error, has
    bound, and no result said that variables were lost. `stale`: a result said so, and a later cell finds the name all the same.
    """
    known: set[str] = set()
    gone: set[str] = set()
    for cell in told:
        if cell.target != "python":
            continue
        lost = _LOST.search(cell.result)
        missed = _UNKNOWN.search(cell.result)
        bound, wanted = _names(cell.content)
        if _OPAQUE.search(cell.content):  # what such a cell binds cannot be read off it
            gone = set()
        failed = "Error" in cell.result or "[ERROR]" in cell.result
        if lost is not None:  # also of a cell that ran after the loss and says so first
            died = set() if _BEFORE.search(lost[0]) else bound
            known, gone = set(), gone | known | died
        if missed is not None and missed[1] in known:
            yield "stateless", missed[1]
        if lost is None and not failed:
            yield from (("stale", name) for name in sorted(wanted & gone - _ALWAYS))
        if not failed:
            known |= bound
            gone -= bound


def _names(code: str) -> tuple[set[str], set[str]]:
    """(names a cell binds at its top, names it reads without having bound them anywhere). Magics and lines for the shell
    are left out; code that is none has no names."""
    try:
        tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(), set()
    bound = {
        n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    anywhere: set[str] = set()
    read: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.arg):
            anywhere.add(node.arg)
        elif isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else anywhere).add(node.id)
    for top in tree.body:
        if not isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            stored = (n for n in ast.walk(top) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            bound |= {n.id for n in stored}
    return bound, read - anywhere - bound


def wrapped(code: str) -> str | None:
    """What is around the code of a python call, which should be raw: a fence, or JSON with the code in it. None: nothing."""
    text = code.strip()
    if text.startswith("```"):
        return "a fence around the code"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), str):
        return "JSON around the code"
    return None


def dangling(told: Sequence[Told], answers: Iterable[str]) -> Iterator[str]:
    """Marks in answers that name no line shown by the browser so far, or no lines at all."""
    shown: dict[int, set[int]] = {}
    for one in told:
        head = _SHOWN.match(one.result)
        if one.target.partition(".")[0] == "browser" and head is not None:
            shown.setdefault(int(head[1]), set()).update(map(int, _LINE.findall(one.result)))
    for text in answers:
        for mark in _MARK.finditer(text):
            lines = _LINES.fullmatch(mark[2])
            first = int(lines[1][:9]) if lines else 0
            last = int((lines[2] or lines[1])[:9]) if lines else 0
            seen = [n for n in shown.get(int(mark[1][:9]), ()) if first <= n <= last]
            if lines is None or first > last or len(seen) <= last - first:
                yield mark[0]

"""What a person sees: answers on stdout, everything else on stderr; colours only on a terminal. Knows no models.

The answer alone is on stdout, so that `motet run ... > answer.txt` holds the answer; thinking, speeds and progress go to
stderr, where a terminal shows them in between.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.errors import UsageError, UserError

if TYPE_CHECKING:
    from rich import progress as rp
    from rich.console import Console

Progress = Callable[[int, int], None]
DIM, BOLD, RED, GREEN, RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


def coloured(stream: Any) -> bool:
    """Whether escape codes make sense there: a terminal, and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def paint(code: str, text: str, stream: Any = None) -> str:
    """`text` between escape codes when the stream shows colours."""
    return f"{code}{text}{RESET}" if coloured(stream or sys.stderr) else text


def note(text: str = "", *, dim: bool = True, end: str = "\n") -> None:
    """A line for the person, on stderr."""
    sys.stdout.flush()
    print(paint(DIM, text) if dim and text else text, end=end, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """The JSON object of a --json command: one line, last on stdout. Unpaired surrogates are escaped."""
    print(json.dumps(value, ensure_ascii=True, allow_nan=False), flush=True)


def visible(text: str) -> str:
    """Text that cannot move the cursor: control characters and escapes are shown as \\x1b, \\n, ..."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe(text: str) -> str:
    """Model output for a terminal: keeps newlines and tabs, shows other control characters (no escape sequences)."""
    return "".join(c if c.isprintable() or c in "\n\t" else visible(c) for c in text)


def console() -> Console:
    """A rich console on stderr, for tables and progress bars."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(rows: list[list[str]], head: list[str], right: set[int] | None = None) -> None:
    """A plain table on stdout: columns as wide as their widest cell, two spaces between, numbers to the right."""
    right = right or set()
    widths = [max(_width(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for n, row in enumerate([head, *rows]):
        cells = [_pad(cell, widths[i], i in right) for i, cell in enumerate(row)]
        line = "  ".join(cells).rstrip()
        print(paint(BOLD, line, sys.stdout) if n == 0 else line)


def _width(text: str) -> int:
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


@contextmanager
def bar(title: str, unit: str = "bytes") -> Iterator[Progress]:
    """A progress callback (done, total): a bar on a terminal, some lines elsewhere.

    Nothing is shown, and rich is not imported, before the first call: most work that may take long does not.
    """
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    view: list[rp.Progress] = []

    def report(done: int, total: int) -> None:
        if not view:
            view.append(_bar(unit))
            view[0].start()
            view[0].add_task(title, total=None)
        view[0].update(view[0].task_ids[0], completed=done, total=total)

    try:
        yield report
    finally:
        if view:
            view[0].stop()


def _bar(unit: str) -> rp.Progress:
    from rich import progress as rp

    columns: list[rp.ProgressColumn] = [rp.TextColumn("{task.description}"), rp.BarColumn()]
    columns += (
        [rp.DownloadColumn(), rp.TransferSpeedColumn()] if unit == "bytes" else [rp.MofNCompleteColumn()]
    )
    return rp.Progress(*columns, rp.TimeRemainingColumn(), console=console(), transient=True)


def _lines(title: str) -> Progress:
    """Lines for a log: one every ten per cent, at most two a second, none for work that is done at once."""
    tenth, at = 0, time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal tenth, at
        now, reached = time.monotonic(), 10 * done // total if total else 0
        if reached > tenth and now - at > 0.5:
            tenth, at = reached, now
            note(f"{title} {10 * tenth} %", dim=False)

    return report


def prompt_text(argument: str | None) -> str:
    """The prompt: the argument, or stdin when it is `-` or missing and stdin is not a terminal."""
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        raise UsageError("There is no prompt; write one in quotes, or pipe it in with '-'.")
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not text.strip():
        raise UsageError("The prompt on standard input is empty; pipe some text in.")
    return text.removesuffix("\n")


def read_json(path: str) -> Any:
    """The JSON in a file, or on stdin for `-`. UserError says where it stops being JSON."""
    name = "standard input" if path == "-" else f"'{path}'"
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except IsADirectoryError:
        raise UserError(f"{name} is a folder; give a JSON file.") from None
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise UserError(f"{name} is not UTF-8 text (byte {e.start}); save it as UTF-8 JSON.") from None
    except json.JSONDecodeError as e:
        raise UserError(f"{name} is not JSON: {e.msg} at line {e.lineno}, column {e.colno}.") from None
    except RecursionError:
        raise UserError(f"{name} is nested too deeply; flatten it.") from None


def size(n: float) -> str:
    """Bytes for people: 6.8 MB, 13.7 GB (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"

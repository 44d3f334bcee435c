"""Runs one command and writes what a clock and the kernel saw of it: for measurements from outside a program.

    python -m bench.timed REPORT.json [--spin N] [--warm FILE]... -- COMMAND ARG...

The report holds the exit code, seconds until the first byte on stdout and until the end, the most memory the process had
(mapped pages included), its stdout and the end of its stderr. --spin runs N processes beside it that do nothing but take
processor time, one on each core in turn; --warm reads a file into the page cache first.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def run(command: list[str], spin: int = 0, warm: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Runs the command to its end; see the file's head for what is returned."""
    for file in warm:
        # In a process of its own: what this one ever held would count as the command's, which starts as its copy.
        subprocess.run([sys.executable, __file__, "--read", str(file)], check=True)
    with _spinning(spin), tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        out, first = b"", None
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            first = time.perf_counter() - began if first is None else first
            out += piece
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 20_000))
        tail = errors.read().decode(errors="replace")
    return {"code": process.returncode, "first_byte_s": seconds if first is None else first, "seconds": seconds,
            "peak_bytes": used.ru_maxrss * 1024, "stdout": out.decode(errors="replace"), "stderr": tail}  # fmt: skip


def _read(file: Path) -> None:
    """Touches every page of a mapping, as programs do that map their weights; in 2 MB pages where the kernel can.

    Again and again until no page had to be fetched (at most four times): while other files leave the cache, so do parts
    of this one.
    """
    with file.open("rb") as source, mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as held:
        with suppress(OSError, AttributeError):
            held.madvise(mmap.MADV_HUGEPAGE)
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
            for at in range(0, len(held), 1 << 30):
                held[at : at + (1 << 30) : mmap.PAGESIZE]
            if resource.getrusage(resource.RUSAGE_SELF).ru_majflt == before:
                break


@contextmanager
def _spinning(count: int) -> Iterator[None]:
    cores = sorted(os.sched_getaffinity(0))
    spinners = []
    for n in range(count):
        spinners.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        os.sched_setaffinity(spinners[-1].pid, {cores[n % len(cores)]})
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--read"]:
        _read(Path(arguments[1]))
        return
    if "--" not in arguments or not arguments[0] or arguments[0] == "--":
        sys.exit(f"usage: {(__doc__ or '').splitlines()[2].strip()}")
    cut = arguments.index("--")
    options, command = arguments[1:cut], arguments[cut + 1 :]
    spin, warm = 0, []
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name == "--spin":
            spin = int(value)
        elif name == "--warm":
            warm.append(Path(value))
        else:
            sys.exit(f"bench.timed knows no option {name}")
    Path(arguments[0]).write_text(json.dumps(run(command, spin, tuple(warm))))


if __name__ == "__main__":
    main()

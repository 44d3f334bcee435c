"""Foreign bytes read in a process of their own, within limits of time and memory: what is made to break a reader breaks that.

A page that is small is read where it is asked for, unless it is a PDF, whose few bytes may stand for gigabytes. Between the
processes go frames: a length, a JSON object, a length, bytes. The child knows no keys and opens no file but an archive.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from motet.tools import base
from motet.tools.browser.formats import decoded, kind_of, page_of
from motet.tools.browser.page import Page

SMALL = 64 << 10
CPU_S = 20.0  # of computing for one page, or one record of an archive
WALL_S = 300.0  # a machine that is busy gets that much longer; a call has its own deadline besides
MEMORY = 1 << 30  # of address space beyond what the reader itself needs
MAX_RECORD = 64 << 20
MAX_FAILURES = 20  # records of one archive that cannot be read; the rest is not tried then
_IDLE = 2  # children kept for the next page
_KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass
class Source:
    """One page before it is text."""

    url: str
    kind: str
    data: bytes


def read(url: str, kind: str, data: bytes, charset: str | None = None) -> Page:
    """Bytes of a known kind as a page. ValueError for what is damaged, or takes too much time or memory."""
    if kind != "pdf" and len(data) <= SMALL:
        return page_of(url, kind, data, charset)
    with _child() as child:
        child.send({"url": url, "kind": kind, "charset": charset}, data)
        said, text = child.receive()
    links = {int(n): str(u) for n, u in said["links"].items()}
    return Page(url, said["title"], text.decode("utf-8", "surrogatepass"), links)


def records(path: Path) -> Iterator[Source]:
    """The pages of a web archive. ValueError, after those before it, at what cannot be read."""
    child = _Child()
    try:
        child.send({"path": str(path)})
        while True:
            said, data = child.receive()
            if "url" not in said:
                return
            yield Source(said["url"], said["kind"], data)
    finally:
        child.end()


@contextlib.contextmanager
def _child() -> Iterator[_Child]:
    """A child for one page; it is kept for the next one when all went well."""
    with _LOCK:
        child = _CHILDREN.pop() if _CHILDREN else None
    child = child or _Child()
    kept = False
    try:
        yield child
        kept = True
    except Damaged:  # said by the child, which goes on
        kept = True
        raise
    finally:
        with _LOCK:
            kept = kept and child.process.poll() is None and len(_CHILDREN) < _IDLE
            if kept:
                _CHILDREN.append(child)
        if not kept:
            child.end()


_LOCK = threading.Lock()
_CHILDREN: list[_Child] = []


class Damaged(ValueError):
    """What the child says of bytes it could not read."""


class _Child:
    """The parent's end of a reader."""

    def __init__(self) -> None:
        # -P: the folder this runs in, which may hold hostile files, is no place for modules.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "motet.tools.browser.reader", str(CPU_S), str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k in _KEPT},
            start_new_session=True,
            bufsize=0,  # what waits in a buffer of ours, poll would not see
        )

    def send(self, said: dict[str, Any], data: bytes = b"") -> None:
        """A task. A child that has died is noticed when it is listened to."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            _write(self.process.stdin, said, data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """What it says next. ValueError when it says that something is wrong, or has been ended for it."""
        assert self.process.stdout is not None
        pipe = self.process.stdout
        end = time.monotonic() + min(WALL_S, base.seconds_left())
        ready = select.poll()
        ready.register(pipe, select.POLLIN)

        def piece(most: int) -> bytes:
            while not ready.poll(100):
                if base.cancelled() or time.monotonic() > end:
                    self.end()
                    raise ValueError("it takes too long to read")
            return pipe.read(most)

        try:
            said, data = _read(piece)
        except EOFError:
            self.process.wait()
            raise ValueError(_death(self.process.returncode)) from None
        if "error" in said:
            raise Damaged(str(said["error"])[:500])
        return said, data

    def end(self) -> None:
        """Ends it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, AttributeError):
                pipe.close()  # type: ignore[union-attr]


def _death(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"it takes more than {CPU_S:g} s to read"
    return _large(MEMORY) if code == -signal.SIGKILL else "it breaks the program that reads it"


def _large(memory: int) -> str:
    return f"it takes more than {memory >> 20} MiB of memory to read"


def _write(pipe: IO[bytes], said: dict[str, Any], data: bytes = b"") -> None:
    head = json.dumps(said).encode()
    rest = memoryview(b"".join([len(head).to_bytes(4, "big"), head, len(data).to_bytes(4, "big"), data]))
    while rest:
        rest = rest[pipe.write(rest) :]
    pipe.flush()


def _read(piece: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes]:
    """A frame, from pieces of at most so many bytes; an empty one is the end. EOFError for what is no whole frame."""

    def exactly(n: int) -> bytes:
        out: list[bytes] = []
        while n:
            got = piece(min(n, 1 << 20))
            if not got:
                raise EOFError
            out.append(got)
            n -= len(got)
        return b"".join(out)

    head = exactly(int.from_bytes(exactly(4), "big"))
    data = exactly(int.from_bytes(exactly(4), "big"))
    return json.loads(head), data


def _archive(path: str) -> Iterator[Source]:
    """The pages of a WARC: answers with status 200 and a content that is text."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    with open(path, "rb") as f:
        try:
            found, last = ArchiveIterator(f), 0
            for record in found:
                last = found.offset  # get_record_offset() would read the record to its end
                url = record.rec_headers.get_header("WARC-Target-URI") or ""
                headers = record.http_headers
                if record.rec_type != "response" or headers is None or headers.get_statuscode() != "200":
                    continue
                mime, _, rest = (headers.get_header("Content-Type") or "").partition(";")
                kind = kind_of(mime.strip().lower())
                if kind is None or not url.startswith(("http://", "https://")):
                    continue
                data = record.content_stream().read(MAX_RECORD)
                _, _, charset = rest.lower().partition("charset=")
                if kind != "pdf" and (charset := charset.partition(";")[0].strip(" \"'")):
                    data = b"\xef\xbb\xbf" + decoded(data, charset).encode("utf-8", "replace")
                yield Source(url, kind, data)
                if getattr(record.raw_stream, "limit", 0) > 0 and len(data) < MAX_RECORD:
                    raise ValueError("the archive ends in the middle of a page")
            if _cut(f, last):
                raise ValueError("the archive ends in the middle of a page")
        except ArchiveLoadFailed as e:
            raise ValueError(f"it is no readable WARC ({e})") from None
        except (EOFError, OSError, zlib.error) as e:
            raise ValueError(f"the archive is damaged ({e or type(e).__name__})") from None


def _cut(f: IO[bytes], at: int) -> bool:
    """Whether the last of the packed members from `at` on has no end; warcio takes that for the end of the archive."""
    f.seek(at)
    rest, unpack = f.read(1 << 16), zlib.decompressobj(31)
    if not rest.startswith(b"\x1f\x8b"):
        return False
    while rest:
        if unpack.eof:
            unpack = zlib.decompressobj(31)
        unpack.decompress(rest, 1 << 20)
        rest = unpack.unconsumed_tail or unpack.unused_data or f.read(1 << 16)
    unpack.flush()
    return not unpack.eof


def _answer(task: dict[str, Any], data: bytes, out: IO[bytes], cpu_s: float) -> None:
    """One task of the child. The clock starts anew for each record."""
    if "path" not in task:
        page = page_of(task["url"], task["kind"], data, task["charset"])
        text = page.text.encode("utf-8", "surrogatepass")
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(out, {"title": page.title, "links": page.links}, text)
        return
    for source in _archive(task["path"]):
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(out, {"url": source.url, "kind": source.kind}, source.data)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_PROF, 0)
    _write(out, {})


def main() -> None:
    """Reads tasks from stdin until it ends; argv: seconds and bytes. A page that takes too long ends this process (SIGPROF)."""
    import lxml.html  # noqa: F401  (so that its own memory counts as needed)

    cpu_s, memory = float(sys.argv[1]), int(sys.argv[2])
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    while True:
        try:
            task, data = _read(source.read)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            _answer(task, data, out, cpu_s)
            error = None
        except MemoryError:
            error = _large(memory)
        except (OSError, ValueError) as e:
            error = str(e)
        except (
            Exception
        ) as e:  # libxml2's way to say that there is no memory is a fault of syntax, of which HTML has none
            memory_out = type(e).__name__ == "XMLSyntaxError"
            error = _large(memory) if memory_out else f"it cannot be read ({type(e).__name__})"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if error is not None:
            _write(out, {"error": error})


if __name__ == "__main__":
    main()

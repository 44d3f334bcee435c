"""Files that are out to break whoever reads them: each is one sentence, in bounded time and memory, and the others are read."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import lxml.html
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile_files import ARCHIVES, HTML, MARKDOWN, PDFS, encrypted, record, site
from motet.tools import base
from motet.tools.browser import BrowserTool, page, reader
from motet.tools.browser.corpus import LocalBackend, index
from motet.tools.browser.formats import MAX_TEXT, decoded, page_of
from motet.tools.browser.web import FetchBackend, Fetcher
from test_tools_browser import pdf

ROOM = 400 << 20  # what the process that asks may grow by


@pytest.fixture(autouse=True)
def _little_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits small enough to be reached often; children made under other ones are not used."""
    forget()
    monkeypatch.setattr(reader, "CPU_S", 3.0)
    monkeypatch.setattr(reader, "MEMORY", 512 << 20)
    yield
    forget()


def forget() -> None:
    while reader._CHILDREN:
        reader._CHILDREN.pop().end()


def held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


KINDS: dict[str, dict[str, Callable[[], bytes]]] = {"pdf": PDFS, "html": HTML, "markdown": MARKDOWN}
SENTENCE = re.compile(r"it (is|takes|breaks|cannot) [^\n]{4,200}")


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, table in KINDS.items() for n in table])
def test_a_file_made_to_break_its_reader(kind: str, name: str) -> None:
    """It is a page, or a sentence; the reader lives or is replaced, and this process hardly grows."""
    data, before = KINDS[kind][name](), held()
    try:
        read = reader.read("http://a.org/x", kind, data)
        assert len(read.text) <= MAX_TEXT + 100 and len(read.rows) < 1 << 20
    except ValueError as e:
        assert SENTENCE.fullmatch(str(e)), e
    assert held() - before < ROOM
    if kind == "pdf":
        assert reader.read("http://a.org/y", "pdf", pdf("still here")).text.endswith("still here")


def test_passwords() -> None:
    with pytest.raises(ValueError, match="it is encrypted, and opens with a password only"):
        reader.read("http://a.org/x", "pdf", encrypted("secret"))
    assert reader.read("http://a.org/x", "pdf", encrypted("")).text.endswith("A quiet owl")


def test_time_and_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CPU_S", 0.5)
    with pytest.raises(ValueError, match=r"it takes more than 0\.5 s to read"):
        reader.read("http://a.org/x", "pdf", PDFS["text without end"]())
    forget()
    monkeypatch.setattr(reader, "CPU_S", 60.0)
    monkeypatch.setattr(reader, "MEMORY", 64 << 20)
    with pytest.raises(ValueError, match="it takes more than 64 MiB of memory to read"):
        reader.read("http://a.org/x", "html", b"<p>a" * (4 << 20))


def test_a_reader_that_breaks_is_replaced() -> None:
    child = reader._Child()
    reader._CHILDREN.append(child)
    child.process.kill()
    with pytest.raises(ValueError, match="it takes more than"):
        reader.read("http://a.org/x", "pdf", pdf("x"))
    assert reader.read("http://a.org/x", "pdf", pdf("again")).text.endswith("again")


def test_who_no_longer_waits_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CPU_S", 600.0)
    run = base.Run()
    threading.Timer(1.0, run.stop.set).start()
    token = base._RUN.set(run)
    begun = time.monotonic()
    try:
        with pytest.raises(ValueError, match="it takes too long to read"):
            reader.read("http://a.org/x", "pdf", PDFS["text without end"]())
    finally:
        base._RUN.reset(token)
    assert time.monotonic() - begun < 60 and not reader._CHILDREN


def test_the_reader_is_given_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "not-for-pages")
    child = reader._Child()
    try:
        assert b"not-for-pages" not in Path(f"/proc/{child.process.pid}/environ").read_bytes()
    finally:
        child.end()


def test_a_folder_of_traps(tmp_path: Path) -> None:
    """One index run over all of them, with honest files in between."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in (
        "garbage",
        "truncated",
        "locked",
        "bomb in a bomb",
        "tree in a circle",
        "nested dictionaries",
    ):
        (docs / f"p-{name}.pdf").write_bytes(PDFS[name]())
    for name in ("deep", "tables in tables", "comments", "attributes"):
        (docs / f"h-{name}.html").write_bytes(HTML[name]())
    (docs / "m.md").write_bytes(MARKDOWN["brackets"]())
    (docs / "a.txt").write_text("the first owl")
    (docs / "z.txt").write_text("the last owl")
    with open(os.path.join(os.fsencode(docs), b"b\xff\xfe.txt"), "wb") as f:
        f.write(b"an owl whose name is no text")
    (docs / "nul.html").write_bytes(b"<p>before\0after</p>")
    (docs / "sixteen.txt").write_bytes("wide owl".encode("utf-16"))
    before = held()
    done = index(docs)
    assert held() - before < ROOM
    left = {reason.partition(": ")[0]: reason.partition(": ")[2] for reason in done.left_out}
    assert {"p-garbage.pdf", "p-truncated.pdf", "p-locked.pdf", "p-tree in a circle.pdf"} <= set(left)
    assert all(SENTENCE.fullmatch(said) for said in left.values())
    backend = LocalBackend(docs)
    found = {h.url.rsplit("/", 1)[-1] for h in backend.search("owl", 20)}
    assert {"a.txt", "z.txt", "b%FF%FE.txt", "sixteen.txt"} <= found
    assert "whose name is no text" in backend.fetch("local://docs/b%FF%FE.txt", False).text
    assert backend.search("after", 5) and backend.search("before", 5)
    assert index(docs).read == 0  # what could not be read is not tried again


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_damaged(name: str, tmp_path: Path) -> None:
    make, pages, said = ARCHIVES[name]
    (tmp_path / "a.txt").write_text("owl")
    (tmp_path / f"{name}.warc.gz").write_bytes(make())
    (tmp_path / "z.txt").write_text("owl")
    before = held()
    done = index(tmp_path)
    assert held() - before < ROOM
    assert done.pages == pages + 2
    read = [
        LocalBackend(tmp_path).fetch(f"https://site.org/{n}", False).text for n in range(1, min(pages, 2) + 1)
    ]
    assert all("owl" in text for text in read)
    assert re.search(said, " ".join(done.left_out)), done.left_out
    assert all(len(reason) < 400 and "\n" not in reason for reason in done.left_out)


def test_an_archive_of_nothing_but_bad_pages_is_given_up(tmp_path: Path) -> None:
    bad = [record(f"https://site.org/x{n}", b"%PDF-1.4 no", "application/pdf") for n in range(50)]
    (tmp_path / "bad.warc").write_bytes(b"".join([site(1), *bad, site(2)]))
    done = index(tmp_path)
    assert done.pages == 1 and len(done.left_out) == reader.MAX_FAILURES + 1
    assert "the rest was not tried" in done.left_out[-1]


def test_charsets_of_an_archive(tmp_path: Path) -> None:
    """The header's charset counts before what the page says of itself, and before a guess."""
    word = "\u0441\u043e\u0432\u0430"
    named = record("https://site.org/a", f"<p>{word}".encode("koi8-r"), "text/html; charset=KOI8-R")
    lying = f'<meta charset="latin-1"><p>{word}'.encode("cp1251")
    told = record("https://site.org/b", lying, 'text/html; charset="windows-1251"; x=y')
    own = record("https://site.org/c", f'<meta charset="koi8-r"><p>{word}'.encode("koi8-r"))
    none = record("https://site.org/d", b"<p>owl \xff\xfe", "text/html; charset=no-such-thing")
    (tmp_path / "w.warc").write_bytes(named + told + own + none)
    index(tmp_path)
    backend = LocalBackend(tmp_path)
    assert sorted(h.url[-1] for h in backend.search(word, 9)) == ["a", "b", "c"]
    assert backend.search("owl", 9)[0].url == "https://site.org/d"


def test_what_is_done_stays_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody loses patience in the middle of a large folder."""
    from motet.tools.browser import corpus

    for n in range(6):
        (tmp_path / f"{n}.txt").write_text(f"owl {n}")
    monkeypatch.setattr(corpus, "_COMMIT_S", 0.0)
    real = reader.read

    def impatient(url: str, kind: str, data: bytes) -> page.Page:
        if url.endswith("4.txt"):
            raise KeyboardInterrupt
        return real(url, kind, data)

    monkeypatch.setattr(reader, "read", impatient)
    with pytest.raises(KeyboardInterrupt):
        index(tmp_path)
    monkeypatch.setattr(reader, "read", real)
    done = index(tmp_path)
    assert (done.pages, done.read) == (6, 2)


def test_a_table_of_fifty_thousand_rows_is_read_whole() -> None:
    rows = "".join(
        f"<tr><td>{n}</td><td><a href='/{n}'>row {n}</a></td><td>{n * 3}</td></tr>" for n in range(50_000)
    )
    read = page_of("http://a.org/t", "html", f"<title>T</title><h1>All</h1><table>{rows}</table>".encode())
    assert read.title == "T" and "All\n" in read.text
    assert all(f"\n{n} 【{n}†row {n}】 {n * 3}\n" in read.text for n in (1, 25_000, 49_998))
    assert read.links[49_999] == "http://a.org/49999"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["p", "div", "li", "td", "h2", "b", "pre", "span"]),
            st.text("ab \n<&", max_size=8),
        ),
        max_size=12,
    )
)
def test_the_quick_way_loses_no_word(parts: list[tuple[str, str]]) -> None:
    import html

    text = "".join(f"<{tag}>{html.escape(said)}</{tag}>" for tag, said in parts)
    root = lxml.html.fromstring(f"<html><head><title>no</title></head><body>{text}</body></html>")
    quick = page._quick(root)
    plain = page._plain(f"<html><head><title>no</title></head><body>{text}</body></html>")
    assert re.sub(r"\s", "", quick) == re.sub(r"[\s#*]", "", plain)


def test_a_page_too_deep_says_so() -> None:
    read = page_of("http://a.org/x", "html", b"<p>first" + b"<div>" * 1000 + b"owl")
    assert (
        "first" in read.text and "[the rest of this page is left out: it is nested too deeply]" in read.text
    )


def test_a_page_too_long_says_so() -> None:
    read = page_of("http://a.org/x", "text", b"word word\n" * (1 << 20))
    assert len(read.text) < MAX_TEXT + 100 and "[the rest of this page is left out: " in read.rows[-1]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfcaf\xc3\xa9", "caf\u00e9".encode("utf-16"), b"caf\xc3\xa9"])
def test_first_bytes_say_the_charset(data: bytes) -> None:
    assert decoded(data, None if data[:1] == b"c" else "latin-1") == "caf\u00e9"


class Traps(BaseHTTPRequestHandler):
    """A site of traps."""

    pages: ClassVar[
        dict[str, tuple[bytes, str]]
    ] = {}  # made before anybody asks: a bomb takes a while to pack

    def do_GET(self) -> None:
        body, kind = self.pages.get(self.path, (b"<p>harmless", "text/html"))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


def test_traps_on_the_web() -> None:
    Traps.pages.update({
        "/bomb.pdf": (PDFS["bomb in a bomb"](), "application/pdf"),
        "/deep": (HTML["deep"](), "text/html"),
        "/odd": (b"<p>caf\xe9", "text/html; charset=\x01\xff"),
    })  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), Traps)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    tool = BrowserTool(FetchBackend(Fetcher(True)))
    before = held()
    try:
        bomb = tool.call("browser.open", json.dumps({"id": f"{url}/bomb.pdf"}))
        assert bomb.error and re.fullmatch(r"Error fetching URL `\S+`: it (is|takes) [^\n]+", bomb.text)
        assert "nested too deeply" in tool.call("browser.open", json.dumps({"id": f"{url}/deep"})).text
        assert "caf" in tool.call("browser.open", json.dumps({"id": f"{url}/odd"})).text
        assert "harmless" in tool.call("browser.open", json.dumps({"id": url})).text
    finally:
        server.shutdown()
    assert held() - before < ROOM


def test_a_packed_archive_is_read_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "one.warc.gz").write_bytes(gzip.compress(site(1)) + gzip.compress(site(2)))
    done = index(tmp_path)
    assert (done.pages, done.left_out) == (2, ())

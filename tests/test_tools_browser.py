"""The browser: displays to the letter, the page stack, citations cut anywhere, a real folder, a real server, real refusals."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.errors import UserError
from motet.tokenizer import o200k_harmony
from motet.tools.browser import BrowserTool, CitationStream, Hit, backend, cited
from motet.tools.browser.corpus import INDEX, LocalBackend, index
from motet.tools.browser.formats import decoded
from motet.tools.browser.page import Page, from_html, from_markdown, from_text, wrap
from motet.tools.browser.web import (
    ExaBackend,
    FetchBackend,
    Fetcher,
    Limits,
    SearxngBackend,
    YouBackend,
    harmless,
)

HTML = """<html><head><title>Owls &amp; 【more】</title><style>p {}</style></head><body>
<h1>Owls</h1><p>An owl sees at night<sup>2</sup>, see <a href="/a">the <b>first</b></a> and <a href="https://other.org/x†">a† b</a>,
or <a href="/a">again</a>. <a href="mailto:x@y">mail</a> <a href="#here">here</a> <a href="https://arxiv.org/abs/1">paper</a></p>
<img src="x.png" alt="an owl"><img src="y.png"><table><tr><td>one</td><td>two</td></tr></table>
<script>bad()</script><math><mi>x</mi></math><p>H<sub>2</sub>O \U0001f989 1. not a list * really</p></body></html>"""


class Shelf:
    """A backend with pages of the test's own."""

    def __init__(self, **texts: str) -> None:
        self.pages = {f"https://site.org/{n}": t for n, t in texts.items()}
        self.asked: list[tuple[str, bool]] = []

    def search(self, query: str, topn: int) -> list[Hit]:
        return [Hit(url.rsplit("/", 1)[1], url, f"about {query}") for url in self.pages][:topn]

    def fetch(self, url: str, source: bool) -> Page:
        self.asked.append((url, source))
        if url not in self.pages:
            raise OSError("site.org answered 404")
        return from_text("SOURCE", f"view-source:{url}") if source else from_html(self.pages[url], url)


def test_html_as_the_model_reads_it() -> None:
    page = from_html(HTML, "https://site.org/p")
    assert page.title == "Owls & 〖more〗"
    assert page.text.split("\n") == [
        "", "URL: https://site.org/p", "# Owls", "",
        "An owl sees at night^{2}, see 【0†the first】 and 【1†a‡ b†other.org】, or 【0†again】. mail here 【2†paper†ar5iv.org】",
        "", "[Image 0: an owl][Image 1]one two  ", "", "H_{2}O 1. not a list * really",
    ]  # fmt: skip
    assert page.links == {0: "https://site.org/a", 1: "https://other.org/x†", 2: "https://ar5iv.org/abs/1"}


@pytest.mark.parametrize(
    "html",
    ["", "<", "<p>", "</html>", "<a href='http://[bad'>x</a>", "\0\x01", "<!doctype html>", "<p>" * 3000],
)
def test_any_html_is_a_page(html: str) -> None:
    assert from_html(html, "https://site.org/").text.startswith("\nURL: https://site.org/\n")


def test_markdown_has_links() -> None:
    page = from_markdown("# Title\n\nSee [b](b.md) and <script>x</script>.\n", "local://docs/a.md")
    assert page.title == "Title" and page.links == {0: "local://docs/b.md"}
    assert "See 【0†b】" in page.text


def ask(tool: BrowserTool, name: str, **arguments: Any) -> str:
    return tool.call(f"browser.{name}", json.dumps(arguments)).text


def test_displays_to_the_letter() -> None:
    tool = BrowserTool(
        Shelf(
            owls="<title>Owls</title><p>An owl.</p><p>Second <a href='/bats'>bats</a>.</p>",
            bats="<title>Bats</title>x",
        )
    )
    assert ask(tool, "search", query="night birds") == (
        "[0] night birds\n**viewing lines [0 - 5] of 5**\n\nL0: \nL1: URL: \nL2: # Search Results\nL3: \n"
        "L4:   * 【0†owls†site.org】 about night birds\nL5:   * 【1†bats†site.org】 about night birds"
    )
    assert ask(tool, "open", id=0) == (
        "[1] Owls (https://site.org/owls)\n**viewing lines [0 - 4] of 4**\n\nL0: \nL1: URL: https://site.org/owls\n"
        "L2: An owl.\nL3: \nL4: Second 【0†bats】."
    )
    assert ask(tool, "open", loc=2, num_lines=1) == (
        "[2] Owls (https://site.org/owls)\n**viewing lines [2 - 2] of 4**\n\nL2: An owl."
    )
    assert ask(tool, "find", pattern="SECOND BATS") == (
        "[3] Find results for text: `second bats` in `Owls` (https://site.org/owls/find?pattern=second bats)\n"
        "**viewing lines [0 - 1] of 1**\n\nL0: # 【0†match at L4】\nL1: Second bats."
    )
    assert ask(tool, "open", id=0).startswith(
        "[4] Owls (https://site.org/owls)\n**viewing lines [0 - 4] of 4**"
    )
    assert ask(tool, "open", id=0, cursor=1).startswith("[5] Bats (https://site.org/bats)")


def test_every_search_keeps_its_page() -> None:
    tool = BrowserTool(Shelf(owls="o"))
    ask(tool, "search", query="first")
    ask(tool, "search", query="second")
    assert "about first" in ask(tool, "open", cursor=0)
    assert tool.address(0) is None


def test_a_view_is_some_thousand_tokens_and_whole_lines() -> None:
    text = "".join(f"<p>line {n} of a long page with some words in it</p>" for n in range(600))
    tool = BrowserTool(Shelf(long=text))
    shown = ask(tool, "open", id="https://site.org/long")
    body = shown.split("\n\n", 1)[1]
    n = len(o200k_harmony().encode(body))
    assert 1024 <= n < 1024 + 40
    last = int(shown.split(" - ")[1].split("]")[0])
    following = ask(tool, "open", loc=last + 1)
    assert f"viewing lines [{last + 1} - " in following and f"L{last + 1}: " in following
    total = int(shown.split("] of ")[1].split("*")[0])
    assert ask(tool, "open", loc=total).endswith(f"L{total}: line 599 of a long page with some words in it")
    said = ask(tool, "open", loc=total + 1)
    assert said == f"Invalid location parameter: `{total + 1}`. Cannot exceed page maximum of {total}."
    assert ask(tool, "open", loc=0).startswith("[3] ")  # what could not be shown is not on the stack


def test_opening_a_match_shows_it_with_some_lines_before() -> None:
    tool = BrowserTool(Shelf(long="".join(f"<p>word{n}</p>" for n in range(100))))
    ask(tool, "open", id="https://site.org/long")
    assert "# 【0†match at L102】" in ask(tool, "find", pattern="word50")
    assert "viewing lines [98 - " in ask(tool, "open", id=0)


def test_find_reads_at_most_fifty_matches_of_four_lines() -> None:
    tool = BrowserTool(Shelf(many="".join(f"<p>owl {n}</p>" for n in range(500))), view_tokens=10**6)
    ask(tool, "open", id="https://site.org/many")
    found = ask(tool, "find", pattern="owl")
    assert found.count("†match at L") == 50
    assert "【1†match at L6】" in found


def test_errors_are_answers() -> None:
    tool = BrowserTool(Shelf(owls="o", bats="b"))
    assert ask(tool, "open") == "No pages to access!"
    ask(tool, "search", query="q")
    for said, name, arguments in (
        ("Cursor `7` is out of range. Available cursor indices: [0 - 0].", "open", {"cursor": 7}),
        ("Invalid link id `9`.", "open", {"id": 9}),
        ("Cannot run `find` on search results page or find results page", "find", {"pattern": "x"}),
        (
            "Error fetching URL `https://site.org/gone`: site.org answered 404",
            "open",
            {"id": "https://site.org/gone"},
        ),
        ('{"error": "Invalid function arguments"}', "open", {"id": [1]}),
        ('{"error": "Invalid function arguments"}', "open", {"loc": 1.5}),
        ('{"error": "Invalid function arguments"}', "search", {}),
        ('{"error": "Unknown function: click"}', "click", {}),
    ):
        answer = tool.call(f"browser.{name}", json.dumps(arguments))
        assert answer.error and answer.text == said
    assert tool.call("browser.open", "{").text == '{"error": "Invalid function arguments"}'
    assert ask(tool, "open", id="0", topn=3, whatever=1).startswith(
        "[1] site.org"
    )  # text for a number, a surplus key
    assert ask(tool, "find", pattern="zebra").endswith("L0: No `find` results for pattern: `zebra`")


def test_source_view_and_refresh() -> None:
    shelf = Shelf(owls="o")
    tool = BrowserTool(shelf)
    url = "https://site.org/owls"
    ask(tool, "open", id=url)
    assert "SOURCE" in ask(tool, "open", view_source=True)
    ask(tool, "search", query="q")
    ask(tool, "open", id=0)  # seen before: from the cache
    ask(tool, "open", id=url)  # written out: fetched anew
    assert shelf.asked == [(url, False), (url, True), (url, False)]


ANSWER = "Owls see【1†L2】 well【2†L3-L5】, bats 【9†L1】 less 【0†L1】. 【1†x†y】【"
EXPECTED = "Owls see ([site.org](https://site.org/owls))  well ([b.org](https://b.org/a%20%28b%29)) , bats 【9†L1】 less 【0†L1】.  ([site.org](https://site.org/owls)) 【"
ADDRESSES = {1: "https://site.org/owls", 2: "https://b.org/a (b)"}


def test_citations_become_links_and_annotations() -> None:
    text, found = cited(ANSWER, ADDRESSES.get)
    assert text == EXPECTED.replace("%28b%29", "(b)").replace("(b)", "%28b%29")
    assert [(c.title, c.url) for c in found] == [
        ("site.org", ADDRESSES[1]),
        ("b.org", ADDRESSES[2]),
        ("site.org", ADDRESSES[1]),
    ]
    for c in found:
        assert text[c.start_index : c.end_index].startswith(f" ([{c.title}](")


def test_a_stream_cut_anywhere_is_the_same() -> None:
    whole = cited(ANSWER, ADDRESSES.get)
    for cut in range(len(ANSWER) + 1):
        stream = CitationStream(ADDRESSES.get)
        parts = [stream.feed(ANSWER[:cut]), stream.feed(ANSWER[cut:]), stream.feed("", last=True)]
        assert ("".join(p[0] for p in parts), [c for p in parts for c in p[1]]) == whole
        assert "【1" not in parts[0][0]


@given(st.lists(st.sampled_from(["【", "】", "†", "1", "L2", "-", "x", "【1†L2】", "【12"]), max_size=20))
def test_streams_of_any_pieces_equal_the_whole(pieces: list[str]) -> None:
    stream = CitationStream(ADDRESSES.get)
    parts = [*(stream.feed(p) for p in pieces), stream.feed("", last=True)]
    assert ("".join(p[0] for p in parts), [c for p in parts for c in p[1]]) == cited(
        "".join(pieces), ADDRESSES.get
    )


@given(st.text(max_size=300))
def test_lines_keep_every_character(text: str) -> None:
    lines = wrap(text)
    assert all(len(line) <= 80 for line in lines)
    assert "".join(lines) == text.replace("\n", "").expandtabs() or "\t" in text or not text.isprintable()


def pdf(text: str) -> bytes:
    """A small PDF, written by hand."""
    stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]  # fmt: skip
    out, offsets = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, 2)
    for n, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (n, body))
    start = out.tell()
    out.write(b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets))
    out.write(b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start)
    return out.getvalue()


def warc(url: str, html: str) -> bytes:
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(html)}\r\n\r\n{html}"
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(f"{head}{body}\r\n\r\n".encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    (docs / "owls.html").write_text(
        "<title>Owls</title><p>Owls hunt at night. See <a href='sub/bats.md#wings'>bats</a>.</p>"
    )
    (docs / "sub" / "bats.md").write_text("# Bats\n\nBats are mammals; [owls](../owls.html) are not.\n")
    (docs / "notes.txt").write_bytes("Fledermäuse schlafen kopfüber".encode("latin-1"))
    (docs / "moths.pdf").write_bytes(pdf("Moths navigate by the moon"))
    (docs / "web.warc.gz").write_bytes(
        warc("https://site.org/hedgehogs", "<title>Hedgehogs</title>spiny animals")
    )
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    (docs / ".secret.txt").write_text("hidden nightjar")
    (tmp_path / "outside.txt").write_text("outside nightjar")
    (docs / "link.txt").symlink_to("../outside.txt")
    return docs


def test_a_folder_is_searched_and_opened(folder: Path) -> None:
    tool = BrowserTool(LocalBackend(folder))
    assert "【0†Owls†docs】 Owls hunt at night. See bats." in ask(tool, "search", query="what do OWLS hunt?")
    assert "L2: Owls hunt at night. See 【0†bats】" in ask(tool, "open", id=0)
    assert "[2] Bats (local://docs/sub/bats.md" in ask(tool, "open", id=0)
    assert "[3] Owls" in ask(tool, "open", id=0)
    assert "Hedgehogs" in ask(tool, "search", query="spiny")
    assert "[5] Hedgehogs (https://site.org/hedgehogs)" in ask(tool, "open", id=0)
    assert "Moths navigate by the moon" in ask(tool, "open", id="local://docs/moths.pdf")
    assert "<title>Owls</title>" in ask(tool, "open", id="local://docs/owls.html", view_source=True)
    assert "【0" not in ask(tool, "search", query="nightjar outside hidden")
    assert "not in the local collection" in ask(tool, "open", id="local://docs/../outside.txt")
    assert "not in the local collection" in ask(tool, "open", id="https://example.org/")
    assert tool.cite("So【1†L2】.")[0] == "So ([docs](local://docs/owls.html)) ."
    for query in ('"', "AND OR NOT", "a* NEAR(b)", "';--", "-", "ü" * 500):
        assert "Error" not in ask(tool, "search", query=query)


def test_an_index_is_brought_up_to_date(folder: Path) -> None:
    first = index(folder)
    assert (first.pages, first.read) == (5, 6)
    assert first.left_out[0].startswith("broken.pdf: it is no readable PDF")
    assert index(folder).read == 0
    (folder / "owls.html").unlink()
    (folder / "new.txt").write_text("a pangolin")
    second = index(folder)
    assert (second.pages, second.read) == (5, 1)
    assert LocalBackend(folder).search("pangolin owls hunt", 10)[0].url == "local://docs/new.txt"
    (folder / INDEX).write_bytes(b"not a database at all, but long enough to be read as one" * 50)
    assert index(folder).pages == 5


def test_folders_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        backend(str(tmp_path / "none"))
    with pytest.raises(UserError, match="nothing to browse"):
        backend(str(tmp_path))


class Site(BaseHTTPRequestHandler):
    """A server with one page of each kind of trouble."""

    hits: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.hits.append(self.path)
        send = {
            "/page": (200, "text/html; charset=latin-1", "<title>P</title>caf\u00e9".encode("latin-1")),
            "/text": (200, "text/plain", b"plain"),
            "/pdf": (200, "application/pdf", pdf("portable")),
            "/image": (200, "image/png", b"\x89PNG"),
            "/big": (200, "text/html", b"x" * (2 << 20)),
            "/bomb": (200, "text/html", gzip.compress(b"x" * (64 << 20))),
            "/gone": (404, "text/html", b"no"),
            "/flaky": (503 if self.hits.count("/flaky") < 2 else 200, "text/html", b"at last"),
            "/down": (500, "text/html", b"no"),
            "/json": (200, "application/json", b"[1]"),
        }.get(parts.path)
        if parts.path in ("/redirect", "/loop"):
            self.send_response(302)
            self.send_header("Location", parse_qs(parts.query).get("to", ["/loop"])[0])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if parts.path == "/slow":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b"x" * 100_000)
                time.sleep(0.1)
            return
        if parts.path == "/search":
            found = {
                "results": [
                    {"title": "R", "url": "https://site.org/r", "content": parse_qs(parts.query)["q"][0]},
                    {"no": "url"},
                    3,
                ]
            }
            send = (200, "application/json", json.dumps(found).encode())
        if parts.path == "/v1/search":
            rows = {
                "web": [{"title": "Y", "url": "https://site.org/y", "snippets": ["a", "b"]}],
                "news": None,
            }
            send = (
                200 if self.headers["X-API-Key"] == "k" else 401,
                "application/json",
                json.dumps({"results": rows}).encode(),
            )
        status, mime, body = send or (404, "text/plain", b"")
        self.send_response(status)
        self.send_header("Content-Type", mime)
        if parts.path == "/bomb":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ok = self.headers["x-api-key"] == "k" and asked["numResults"] == 3
        body = json.dumps(
            {"results": [{"title": "E", "url": "https://site.org/e", "summary": asked["query"]}]}
        ).encode()
        self.send_response(200 if ok else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


LIMITS = Limits(bytes=1 << 20, seconds=15.0, tries=3, backoff_s=0.05)


def test_pages_from_a_server(site: str) -> None:
    fetch = FetchBackend(Fetcher(True, LIMITS)).fetch
    assert fetch(f"{site}/page", False).text.endswith("café")
    assert fetch(f"{site}/redirect?to=/page", False).url == f"{site}/page"
    assert "<title>" in fetch(f"{site}/page", True).text
    assert fetch(f"{site}/text", False).text.endswith("plain")
    assert "portable" in fetch(f"{site}/pdf", False).text
    assert fetch(f"{site}/flaky", False).text.endswith("at last")
    assert "/flaky" in Site.hits and Site.hits.count("/flaky") == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/image", "its content is image/png, which is no text"),
        ("/big", "larger than 1 MiB"),
        ("/bomb", "larger than 1 MiB"),
        ("/gone", "answered 404"),
        ("/down", "answered 500"),
        ("/slow", "larger than 1 MiB"),
        ("/redirect?to=file:///etc/passwd", "only http and https"),
        ("/loop", "more than 5 redirects"),
    ],
)
def test_what_cannot_be_shown_is_said(site: str, path: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises((OSError, ValueError), match=said):
        Fetcher(True, LIMITS).page(site + path)
    assert time.monotonic() - began < 15


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html"
SLOW = Limits(bytes=1 << 20, seconds=1.0, tries=2, backoff_s=0.05)
ZEROS = gzip.compress(bytes(2 << 20))
HOSTILE = {
    "a header without end": (b"HTTP/1.1 200 OK\r\nX: ", b"x", "timed out|took longer"),
    "a body without end": (HEAD + b"\r\n\r\n", b"x", "timed out|took longer"),
    "hints without end": (b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", "timed out|took longer"),
    "nothing": (b"", b"", "timed out|took longer"),
    "packed twice": (
        HEAD + b"\r\nContent-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(ZEROS), None, "packed in a way that was not asked for",
    ),
    "packed once": (HEAD + b"\r\nContent-Encoding: gzip\r\n\r\n" + ZEROS, None, "larger than 1 MiB"),
    "packed wrongly": (HEAD + b"\r\nContent-Encoding: gzip\r\n\r\nno", None, "it is damaged"),
    "redirect to nowhere": (b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n", None, "answered 302"),
    "redirect to nonsense": (b"HTTP/1.1 302 X\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", None, "Invalid"),
    "no http": (b"\0\1\2\r\n\r\n", None, "illegal status line"),
    "a short body": (HEAD + b"\r\nContent-Length: 9\r\n\r\nx", None, "peer closed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_servers_that_do_not_keep_to_http(name: str) -> None:
    """Raw bytes, then a little again and again; the fetch ends in time, with a reason, as an answer."""
    first, again, said = HOSTILE[name]
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(first)
                while again is not None and not over.wait(0.05):
                    connection.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        threading.Thread(target=serve, daemon=True).start()
        tool = BrowserTool(FetchBackend(Fetcher(True, SLOW)))
        began = time.monotonic()
        answer = tool.call("browser.open", json.dumps({"id": f"http://127.0.0.1:{server.getsockname()[1]}/"}))
        over.set()
    assert answer.error and re.search(said, answer.text), answer.text
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["punycode", "idna", "unicode_escape", "zlib", "utf-7", "../x", "latin-1"])
def test_charsets_that_are_none_for_pages(name: str) -> None:
    """punycode would take hours for a megabyte, unicode_escape would make half a surrogate pair."""
    text = decoded(rb"\ud800 +2AA- " + b"xn--a-" * 200_000, name)
    assert text.startswith(r"\ud800 +2AA- xn--")


def test_lines_are_those_of_textwrap_and_long_words_cost_nothing() -> None:
    for text in (
        "word " * 50,
        "x" * 300,
        "a-b-" * 99,
        " lead  and   gaps " * 9,
        "q" * 79 + "-" + "r" * 200 + " s",
        "y" * 9000,
    ):
        expected = textwrap.wrap(text, 80, replace_whitespace=False, drop_whitespace=False)
        assert wrap(text) == expected
    lines = wrap("z" * (4 << 20))  # textwrap itself copies the rest for each line: hours
    assert len(lines) == (4 << 20) // 80 + 1 and {len(line) for line in lines[:-1]} == {80}


def test_lines_found_are_the_lines_shown() -> None:
    """A link whose domain stands on the next line is one line less without its mark; the numbers must not know."""
    text = (
        "w " * 35
        + '<a href="https://a-very-long-name-of-a-host.example.org/x">see this</a> after <p>needle here</p>'
    )
    tool = BrowserTool(Shelf(p=text))
    shown = tool.call("browser.open", '{"id": "https://site.org/p"}').text
    found = tool.call("browser.find", '{"pattern": "needle"}').text
    line = re.search(r"match at (L\d+)", found)
    assert line is not None and f"{line[1]}: needle here" in shown and "\nL3: " in shown


def test_arguments_no_caller_should_send() -> None:
    tool = BrowserTool(Shelf(a="<p>x</p>"))
    tool.call("browser.open", '{"id": "https://site.org/a"}')
    for content in ('{"id": "--1"}', '{"id": "\\u0661"}', '{"id": "\\ud800"}', '{"id": "http://["}'):
        assert tool.call("browser.open", content).text.startswith("Error fetching URL"), content
    assert tool.call("browser.find", '{"pattern": "\\ud800.*["}').text.startswith(
        "[1] Find results for text: `?.*[`"
    )
    assert tool.call("browser.search", '{"query": "\\ud800"}').text.startswith("[2] ?")


def test_a_citation_names_the_page_whatever_its_address_says() -> None:
    tool = BrowserTool(Shelf(**{"a/find?pattern=b": "<p>x</p>"}))
    tool.call("browser.open", '{"id": "https://site.org/a/find?pattern=b"}')
    tool.call("browser.find", '{"pattern": "x"}')
    tool.call("browser.open", '{"id": "https://site.org/a/find?pattern=b", "view_source": true}')
    assert {tool.address(n) for n in range(3)} == {"https://site.org/a/find?pattern=b"}
    said, found = cited("【0†L1】", lambda cursor: "https://x](javascript:1)[y/")
    assert "](javascript" not in said and len(found) <= 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://x.org/",
        "http:///x",
        "http://a:b@127.0.0.1/",
        "http://[bad/",
        "x",
        "http://a\nb/",
    ],
)
def test_only_web_addresses_are_visited(url: str) -> None:
    with pytest.raises((OSError, ValueError)):
        Fetcher(limits=LIMITS).page(url)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "::",
     "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::7f00:1", "ff02::1"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not harmless(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert harmless(address)


def test_this_machine_is_not_visited_under_any_name(site: str) -> None:
    port = urlsplit(site).port
    before = len(Site.hits)
    for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        with pytest.raises((OSError, ValueError)):
            Fetcher(limits=LIMITS).page(f"http://{host}:{port}/page")
    assert len(Site.hits) == before


def test_names_that_change_their_address_lead_nowhere(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver in the attacker's hands: harmless when asked first, this machine afterwards; or both at once."""
    port = urlsplit(site).port
    real, asked, made = socket.getaddrinfo, [], []

    def rebinding(host: Any, *args: Any, **options: Any) -> Any:
        if host != "evil.example":
            return real(host, *args, **options)
        asked.append(host)
        return real("8.8.8.8" if len(asked) == 1 else "127.0.0.1", *args, **options)

    def connect(address: Any, *args: Any, **options: Any) -> Any:
        made.append(address[0])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    before = len(Site.hits)
    with pytest.raises(OSError, match="not public"):
        Fetcher(limits=LIMITS).page(f"http://evil.example:{port}/page")
    assert (
        made == ["8.8.8.8"] and len(Site.hits) == before
    )  # first try by address; the second look was refused
    both = [*real("8.8.8.8", 80), *real("127.0.0.1", 80)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: both)
    with pytest.raises(OSError, match=r"127\.0\.0\.1, an address that is not public"):
        Fetcher(limits=LIMITS).page("http://evil.example/")


def test_a_redirect_into_a_private_network_is_refused(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public page sends us to this machine. The resolver plays the public name; only its address is let through."""
    from motet.tools.browser import web

    port = urlsplit(site).port
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: real("127.0.0.2" if host == "public.example" else host, *a, **k),
    )
    monkeypatch.setattr(web, "harmless", lambda a: a == "127.0.0.2" or harmless(a))
    fetcher = Fetcher(limits=LIMITS)
    server = ThreadingHTTPServer(("127.0.0.2", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://public.example:{server.server_port}"
        assert fetcher.page(f"{url}/page").title == "P"
        with pytest.raises(OSError, match="not public"):
            fetcher.page(f"{url}/redirect?to=http://127.0.0.1:{port}/page")
    finally:
        server.shutdown()


def test_search_services(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "k")
    monkeypatch.setenv("YDC_API_KEY", "k")
    fetcher = Fetcher(limits=LIMITS)
    assert SearxngBackend(site, fetcher).search("q", 5) == [Hit("R", "https://site.org/r", "q")]
    assert ExaBackend(fetcher, site).search("q", 3) == [Hit("E", "https://site.org/e", "q")]
    assert YouBackend(fetcher, site).search("q", 3) == [Hit("Y", "https://site.org/y", "a b")]
    with pytest.raises(OSError, match="answered 401"):
        ExaBackend(fetcher, site).search("q", 4)
    assert SearxngBackend(f"{site}/json", fetcher).url.endswith("/json")
    with pytest.raises(ValueError, match="no search service"):
        backend("fetch").search("q", 1)


@pytest.mark.parametrize(
    ("name", "variable"), [("exa", "EXA_API_KEY"), ("youcom", "YDC_API_KEY"), ("searxng", "SEARXNG_URL")]
)
def test_a_missing_key_is_said_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=variable):
        backend(name)


def test_a_page_of_nothing_but_links_is_read() -> None:
    """One parent, and a text that would grow with each link: minutes, were they joined one by one."""
    page = from_html("".join(f"<a href=/{i}>y{i}</a> and " for i in range(20_000)), "http://a/")
    assert len(page.links) == 20_000 and "【19999†y19999】 and" in page.text

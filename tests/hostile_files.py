"""Files made to break whoever reads them: PDFs, archives, HTML, Markdown, text. name -> bytes. Nothing here is large on disk."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable


def pdf_of(objects: list[bytes], root: int = 1) -> bytes:
    """A PDF of numbered objects, with a right table of them."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for n, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % o for o in offsets)
    out += b"trailer << /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, root, start)
    return bytes(out)


FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def stream(data: bytes, more: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), more, data)


def pdf(content: bytes = b"BT /F1 12 Tf 50 700 Td (A quiet owl) Tj ET", filters: bytes = b"") -> bytes:
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
    catalog, pages = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    )
    return pdf_of([catalog, pages, page, stream(content, filters), FONT])


def packed(megabytes: int, what: bytes, times: int = 1) -> bytes:
    """So many megabytes of one thing, packed once or more often."""
    data = b""
    for level in range(times):
        pack = zlib.compressobj(9)
        source = [what * ((1 << 20) // len(what))] * megabytes if level == 0 else [data]
        data = b"".join([*map(pack.compress, source), pack.flush()])
    return data


def encrypted(password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf())))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def many_pages(n: int) -> bytes:
    """A flat tree whose leaves are one page."""
    kids = b"3 0 R " * n
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    return pdf_of(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, n), page]
    )


def doubling_tree(levels: int) -> bytes:
    """Each level names the next one twice: 2^levels pages in a few hundred bytes."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for n in range(levels):
        objects.append(b"<< /Type /Pages /Kids [%d 0 R %d 0 R] /Count 9 >>" % (n + 3, n + 3))
    return pdf_of([*objects, b"<< /Type /Page /MediaBox [0 0 9 9] >>"])


PDFS: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"%PDF-1.7\n" + bytes(range(256)) * 40,
    "truncated": lambda: pdf()[:300],
    "empty": lambda: b"",
    "locked": lambda: encrypted("secret"),
    "nested arrays": lambda: pdf(b"[" * 200_000),
    "nested dictionaries": lambda: pdf_of([b"<< /Type /Catalog /Pages " + b"<< /a " * 50_000 + b">>" * 50_001]),
    "tree in a circle": lambda: pdf_of([b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>"]),
    "doubling tree": lambda: doubling_tree(40),
    "three million pages": lambda: many_pages(3_000_000),
    "bomb": lambda: pdf(packed(3000, b"(owl) Tj "), b"/Filter /FlateDecode"),
    "bomb in a bomb": lambda: pdf(packed(3000, b"\0", 2), b"/Filter [/FlateDecode /FlateDecode]"),
    "text without end": lambda: pdf(packed(30, b"(owl) Tj "), b"/Filter /FlateDecode"),
    "run lengths": lambda: pdf(packed(30, b"\x81a"), b"/Filter [/FlateDecode /RunLengthDecode]"),
}  # fmt: skip
HTML: dict[str, Callable[[], bytes]] = {
    "nothing but opening": lambda: b"<" * (1 << 20),
    "deep": lambda: b"<div>" * 300_000 + b"owl",
    "deep lists": lambda: b"<ul><li>" * 100_000 + b"owl",
    "elements": lambda: b"<b>" * (4 << 20),
    "tables in tables": lambda: b"<table><tr><td>" * 50_000 + b"owl",
    "attributes": lambda: b"<p " + b"a=1 " * 1_000_000 + b">owl",
    "comments": lambda: b"<!--" * 500_000,
    "entities": lambda: b"&lt;&amp;" * 200_000,
    "one word": lambda: b"w" * (8 << 20),
    "blank": lambda: b"<p>owl" + b" \n" * (2 << 20) + b"end",
    "links": lambda: b"".join(b"<a href=/%d>" % n for n in range(60_000)) + b"owl",
    "sup": lambda: b"<sup>" * 100_000 + b"owl",
}
MARKDOWN: dict[str, Callable[[], bytes]] = {
    "brackets": lambda: b"[" * 200_000,
    "links": lambda: b"[a](" * 100_000,
    "stars": lambda: b"*a **b " * 60_000,
    "quotes": lambda: b"> " * 200_000 + b"owl",
    "ticks": lambda: b"`a" + b"".join(b"`" * n + b" " for n in range(1500)),
    "table": lambda: b"|a" * 5000 + b"|\n" + b"|-" * 5000 + b"|\n" + b"|b|\n" * 20_000,
}


def record(url: str, body: bytes, mime: str = "text/html", length: int | None = None) -> bytes:
    """One answer in a WARC; `length` may lie."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n%s" % (mime.encode(), body)
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http) if length is None else length}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def site(n: int) -> bytes:
    return record(f"https://site.org/{n}", b"<title>T%d</title>owl number %d" % (n, n))


# name -> (the archive, how many pages can be read, what is said of the rest)
ARCHIVES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "garbage": (lambda: bytes(range(256)) * 99, 0, "no readable WARC"),
    "empty": (lambda: b"", 0, "no readable WARC|"),
    "cut": (lambda: site(1) + site(2) + site(3)[:-20], 3, "ends in the middle of a page"),
    "cut-packed": (lambda: gzip.compress(site(1)) + gzip.compress(site(2) + b"x" * 500)[:-60], 1, "damaged|middle|no readable"),
    "lies": (lambda: site(1) + record("https://site.org/2", b"owl", length=10**15), 2, "ends in the middle of a page"),
    "bad-page": (
        lambda: site(1) + record("https://site.org/x", b"%PDF-1.4 no", "application/pdf") + site(2), 2, "site.org/x: it is no readable PDF"),
    "long-line": (lambda: gzip.compress(site(1)) + gzip.compress(b"WARC/1.0\r\nX: " + b"A" * (400 << 20)), 1, "memory|to read|damaged|no readable"),
    "bomb": (lambda: gzip.compress(site(1)) + gzip.compress(record("https://site.org/b", b"<p>owl " * (20 << 20))) + gzip.compress(site(2)),
             2, "site.org/b: it takes"),
}  # fmt: skip

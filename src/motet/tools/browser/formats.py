"""Bytes of a known kind as a page: which kinds there are, in what charset, how much of it. Knows no files and no network.

What comes in is foreign and may be made to take hours or gigabytes: `reader.read` is the way in that bounds both.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from urllib.parse import unquote, urlsplit

from motet.tools.browser import page as pages
from motet.tools.browser.page import Page

MAX_TEXT = 8 << 20  # characters of one page; what is beyond is left out, and the page says so


def kind_of(mime: str) -> str | None:
    """What a content type is read as; None for what is no text."""
    if mime in ("text/html", "application/xhtml+xml"):
        return "html"
    if mime == "text/markdown":
        return "markdown"
    if mime == "application/pdf":
        return "pdf"
    if mime.startswith("text/") or mime in ("application/json", "application/xml", "application/rss+xml"):
        return "text"
    return None


def page_of(url: str, kind: str, data: bytes, charset: str | None = None) -> Page:
    """Bytes of a known kind as a page. ValueError for a PDF that is none."""
    if kind == "pdf":
        page = pages.from_pdf(data, url)
    else:
        text = decoded(data, charset)
        if kind == "html":
            page = pages.from_html(text, url)
        elif kind == "markdown":
            page = pages.from_markdown(text, url)
        else:
            page = pages.from_text(text, url, unquote(urlsplit(url).path.rsplit("/", 1)[-1]))
    if (more := len(page.text) - MAX_TEXT) > 0:
        page.text = f"{page.text[:MAX_TEXT]}\n[the rest of this page is left out: {more} characters]"
    return page


def decoded(data: bytes, charset: str | None = None) -> str:
    """Text of bytes: what the first bytes say, else the charset that is named outside or inside, else UTF-8."""
    if data[:3] == codecs.BOM_UTF8:
        return data[3:].decode("utf-8", "replace")
    named = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", data[:2048], re.I)
    for name in (
        "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None,
        charset,
        named and named[1].decode("ascii"),
    ):
        if name and _charset(name):
            with contextlib.suppress(LookupError, UnicodeError):
                return data.decode(name, "replace")
    return data.decode("utf-8", "replace")


def _charset(name: str) -> bool:
    """Whether pages may name it; Python has codecs besides that take hours, or make half surrogate pairs."""
    try:
        return codecs.lookup(name).name.replace("_", "-") not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False


_NO_CHARSETS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined")

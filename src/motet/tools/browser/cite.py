"""Citation marks in an answer, `【3†L10-L12】`, as links and url_citation annotations; whole texts and streams alike.

Knows marks and a way from a cursor to a page's address; knows no pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from motet.tools.browser.page import domain_of

MARK = re.compile(r"【(\d+)†[^†】]+(?:†[^†】]+)?】")
_BEGUN = re.compile(r"【(?:\d+(?:†[^†】]*(?:†[^†】]*)?)?)?$")
_LONGEST = 200  # a mark that is longer is none, and its text is not held back


@dataclass(frozen=True)
class Citation:
    """A url_citation: where it stands in the new text (characters, end exclusive), and what it names."""

    start_index: int
    end_index: int
    title: str
    url: str


class CitationStream:
    """Rewrites text as it comes; an unfinished mark at its end is held back until it is complete."""

    def __init__(self, address: Callable[[int], str | None]) -> None:
        """`address` gives the URL of the page at a cursor, None when there is none."""
        self._address = address
        self._held = ""
        self._length = 0

    def feed(self, text: str, last: bool = False) -> tuple[str, list[Citation]]:
        """(text to show, the citations in it). `last` gives up what is held back."""
        text = self._held + text
        begun = None if last else _BEGUN.search(text)
        cut = begun.start() if begun is not None and len(text) - begun.start() < _LONGEST else len(text)
        self._held = text[cut:]
        out: list[str] = []
        found: list[Citation] = []
        here = 0
        for m in MARK.finditer(text, 0, cut):
            url = self._address(int(m[1])) if len(m[1]) < 10 else None
            if not url:
                continue
            out.append(text[here : m.start()])
            here = m.end()
            domain = re.sub(r"[][()\s]", "", domain_of(url)) or "page"  # nothing that ends a link early
            link = quote(url, safe="/:?#[]@!$&'*+,;=%~")
            said = f" ([{domain}]({link})) "
            at = self._length + sum(map(len, out))
            found.append(Citation(at, at + len(said), domain, url))
            out.append(said)
        shown = "".join([*out, text[here:cut]])
        self._length += len(shown)
        return shown, found


def cited(text: str, address: Callable[[int], str | None]) -> tuple[str, list[Citation]]:
    """A whole text with links for marks, and its citations."""
    return CitationStream(address).feed(text, last=True)

"""The `browser` tool: search, open and find over a stack of pages, in the displays that models were trained on.

Calls, displays and error texts follow openai/gpt-oss (tools/simple_browser/simple_browser_tool.py); where the reference loses
pages, breaks or ignores arguments, ours does what its description promises (docs/tools.md). Knows no network: a backend
finds and fetches.
"""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, unquote

from motet.harmony import BROWSER, Namespace
from motet.tokenizer import o200k_harmony
from motet.tools import base
from motet.tools.base import Answer
from motet.tools.browser.cite import Citation, cited
from motet.tools.browser.page import Page, clean, from_html, without_links

MAX_RESULTS, MAX_MATCHES, MATCH_LINES = 20, 50, 4
VIEW_TOKENS, MAX_URL, MAX_SUMMARY = 1024, 1024, 4096
_CHARACTERS = 128  # the longest token


class BrowserError(Exception):
    """Something the model reads."""


@dataclass(frozen=True)
class Hit:
    """A search result."""

    title: str
    url: str
    summary: str = ""


class Backend(Protocol):
    """Where pages come from. Errors of either kind of call are OSError or ValueError, with a text for the model."""

    def search(self, query: str, topn: int) -> list[Hit]:
        """At most topn results, best first."""
        ...

    def fetch(self, url: str, source: bool) -> Page:
        """The page at a URL; `source`: its text as it was written."""
        ...


class BrowserTool:
    """A browser for one conversation. `address` leads from a cursor to a URL, for citations."""

    def __init__(self, backend: Backend, view_tokens: int = VIEW_TOKENS) -> None:
        self.backend, self.view_tokens = backend, view_tokens
        self.timeout_s = 120.0
        self._stack: list[Page] = []
        self._seen: dict[str, Page] = {}

    @property
    def namespace(self) -> Namespace:
        """`browser`, in the words models know."""
        return BROWSER

    def address(self, cursor: int) -> str | None:
        """The URL of the page at a cursor; None for a search page and for none."""
        page = self._stack[cursor] if 0 <= cursor < len(self._stack) else None
        return None if page is None else (page.origin or page.url).removeprefix("view-source:") or None

    def shown(self, answer: str) -> Page | None:
        """The page an answer of this tool shows, known by the cursor it begins with."""
        found = re.match(r"\[(\d{1,9})\] ", answer)
        cursor = int(found[1]) if found else -1
        return self._stack[cursor] if 0 <= cursor < len(self._stack) else None

    def cite(self, text: str) -> tuple[str, list[Citation]]:
        """An answer with links for citation marks, and its url_citations."""
        return cited(text, self.address)

    def call(self, recipient: str, content: str) -> Answer:
        """search, open or find; every error is an answer."""
        name = recipient.removeprefix("functions.").removeprefix("browser.")
        does = {"search": self._search, "open": self._open, "find": self._find}.get(name)
        if does is None:
            return Answer(json.dumps({"error": f"Unknown function: {name}"}, ensure_ascii=False), (), True)
        try:
            arguments = json.loads(content) if content.strip() else {}
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return Answer('{"error": "Invalid function arguments"}', (), True)
        try:
            return Answer(does(arguments))
        except BrowserError as e:
            return Answer(str(e), (), True)

    def close(self) -> None:
        """Forgets all pages."""
        self._stack.clear()
        self._seen.clear()

    def _search(self, arguments: dict[str, Any]) -> str:
        query = _text(arguments, "query")
        topn = _whole(arguments, "topn", 10)
        try:
            hits = self.backend.search(query, max(1, min(topn, MAX_RESULTS)))
        except (OSError, ValueError) as e:
            raise BrowserError(f"Error during search for `{query}`: {_cut(str(e))}") from None
        items = "".join(
            f"<li><a href='{html.escape(h.url)}'>{html.escape((h.title or h.url)[:MAX_URL])}</a> "
            f"{html.escape(h.summary[:MAX_SUMMARY])}</li>"
            for h in hits
        )
        page = from_html(f"<html><body><h1>Search Results</h1><ul>{items}</ul></body></html>", "", query)
        page.searchable = False
        return self._push(page, 0, -1)

    def _open(self, arguments: dict[str, Any]) -> str:
        target = arguments.get("id", -1)
        loc, count = _whole(arguments, "loc", -1), _whole(arguments, "num_lines", -1)
        source = arguments.get("view_source") is True
        line = None
        if isinstance(target, str) and not _NUMBER.fullmatch(target):
            page = self._load(base.text(target.strip()), source, fresh=True)
        else:
            here = self._page(_whole(arguments, "cursor", -1))
            n = _whole(arguments, "id", -1)
            if n < 0:
                page = self._load(here.url, True) if source and here.url else here
            elif n not in here.links:
                raise BrowserError(f"Invalid link id `{n}`.")
            else:
                page, line = self._load(here.links[n], source), here.lines.get(n)
        if loc < 0:
            loc = max(0, line - MATCH_LINES) if line is not None else 0
        return self._push(page, loc, count)

    def _find(self, arguments: dict[str, Any]) -> str:
        pattern = _text(arguments, "pattern").lower()
        page = self._page(_whole(arguments, "cursor", -1))
        if not page.searchable:
            raise BrowserError("Cannot run `find` on search results page or find results page")
        lines = without_links("\n".join(page.rows)).split("\n")
        found: list[tuple[int, str]] = []
        at = 0
        while at < len(lines) and len(found) < MAX_MATCHES:
            if pattern in lines[at].lower():
                found.append((at, "\n".join(lines[at : at + MATCH_LINES])))
                at += MATCH_LINES
            else:
                at += 1
        text = "\n\n".join(f"# 【{n}†match at L{line}】\n{said}" for n, (line, said) in enumerate(found))
        shown = clean(pattern)
        results = Page(
            f"{page.url}/find?pattern={quote(pattern)}",
            f"Find results for text: `{shown}` in `{page.title}`",
            text or f"No `find` results for pattern: `{shown}`",
            dict.fromkeys(range(len(found)), page.url),
            {n: line for n, (line, _) in enumerate(found)},
            searchable=False,
            origin=page.url,
        )
        self._seen.setdefault(page.url, page)
        return self._push(results, 0, -1)

    def _page(self, cursor: int) -> Page:
        if not self._stack:
            raise BrowserError("No pages to access!")
        if cursor == -1:
            return self._stack[-1]
        if not 0 <= cursor < len(self._stack):
            raise BrowserError(
                f"Cursor `{cursor}` is out of range. Available cursor indices: [0 - {len(self._stack) - 1}]."
            )
        return self._stack[cursor]

    def _load(self, url: str, source: bool, fresh: bool = False) -> Page:
        """A page from the cache or the backend; a URL that the model writes out is fetched anew."""
        if url.startswith("view-source:"):
            url, source = url.removeprefix("view-source:"), True
        key = f"view-source:{url}" if source else url
        if fresh or key not in self._seen:
            try:
                self._seen[key] = self.backend.fetch(url, source)
            except (OSError, ValueError) as e:
                raise BrowserError(f"Error fetching URL `{_cut(url)}`: {_cut(str(e))}") from None
        return self._seen[key]

    def _push(self, page: Page, loc: int, count: int) -> str:
        """Shows a page as the newest; one that cannot be shown leaves no trace."""
        lines = page.rows
        if loc >= len(lines):
            raise BrowserError(
                f"Invalid location parameter: `{loc}`. Cannot exceed page maximum of {len(lines) - 1}."
            )
        self._stack.append(page)
        end = loc + count if count > 0 else loc + self._fitting(lines, loc)
        end = min(end, len(lines))
        address = _cut(unquote(page.url))
        head = f"[{len(self._stack) - 1}] {page.title}" + (f" ({address})" if address else "")
        body = "\n".join(f"L{n}: {lines[n]}" for n in range(loc, end))
        return f"{head}\n**viewing lines [{loc} - {end - 1}] of {len(lines) - 1}**\n\n{body}"

    def _fitting(self, lines: list[str], loc: int) -> int:
        """How many lines from loc make one view: view_tokens, rounded up to a whole line."""
        text = "\n".join(f"L{n}: {lines[n]}" for n in range(loc, min(len(lines), loc + self.view_tokens)))
        if len(text) <= self.view_tokens:
            return len(lines) - loc
        encoding = o200k_harmony()
        ids = encoding.encode(text[: (self.view_tokens + 1) * _CHARACTERS])
        if len(ids) <= self.view_tokens:
            return len(lines) - loc
        return encoding.decode(ids[: self.view_tokens]).count("\n") + 1


def _text(arguments: dict[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BrowserError('{"error": "Invalid function arguments"}')
    return base.text(value)


_NUMBER = re.compile(r"\s*-?[0-9]{1,9}\s*")


def _whole(arguments: dict[str, Any], name: str, default: int) -> int:
    """An integer argument; models write 3, 3.0 and "3"."""
    value = arguments.get(name, default)
    if value is None:
        return default
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value != int(value)
    ):
        raise BrowserError('{"error": "Invalid function arguments"}')
    return int(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_URL else text[: MAX_URL - 3] + "..."

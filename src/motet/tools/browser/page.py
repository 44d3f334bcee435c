"""Pages as the model reads them: HTML, Markdown, text and PDF as plain text with numbered link marks.

Marks and cleaning follow openai/gpt-oss (tools/simple_browser/page_contents.py), whose output models were trained on.
Knows no network and no page stack.
"""

from __future__ import annotations

import functools
import re
import textwrap
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

MAX_TITLE, WIDTH = 256, 80
_LONG_WORD, _PIECE = 8192, 1 << 16
_SLOW_PAGE = 2 << 20  # characters of HTML after which a page is read without headings' and lists' marks
_MAX_PDF_TEXT = 32 << 20
_MARKS = str.maketrans({"【": "〖", "】": "〗", "◼": "◾", "\u200b": None})
_EMOJI = re.compile("[\U00010000-\U0001ffff]")
_LINK = re.compile(r"【\d+†([^†】]+)(?:†[^†】]+)?】")
_WORD = re.compile(r"[\w-]+")


@dataclass
class Page:
    """Text with link marks. `links`: id -> URL. `lines`: link id -> the line of another page it leads to (find pages)."""

    url: str
    title: str
    text: str
    links: dict[int, str] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)
    searchable: bool = True  # whether `find` makes sense on it
    origin: str = ""  # the page a find page was made of

    @functools.cached_property
    def rows(self) -> list[str]:
        """The text in lines of at most 80 columns, spaces and empty lines kept."""
        return wrap(self.text)


class _Wrapper(textwrap.TextWrapper):
    """textwrap, which takes hours for a word of megabytes: of such a word it is given the front only."""

    def _handle_long_word(
        self, reversed_chunks: list[str], cur_line: list[str], cur_len: int, width: int
    ) -> None:
        while len(reversed_chunks[-1]) > _LONG_WORD:
            word = reversed_chunks.pop()
            reversed_chunks += [word[len(word) // 2 :], word[: len(word) // 2]]
        super()._handle_long_word(reversed_chunks, cur_line, cur_len, width)


def wrap(text: str) -> list[str]:
    """Lines of at most 80 columns, spaces and empty lines kept."""
    wrapper = _Wrapper(WIDTH, replace_whitespace=False, drop_whitespace=False, expand_tabs=False)
    out: list[str] = []
    for line in text.split("\n"):
        line = line.expandtabs()
        # A long line is taken in pieces, the last rows of each once more with what follows them: textwrap makes a text of
        # every word, which of megabytes takes gigabytes.
        while len(line) > _PIECE:
            *rows, last, end = wrapper.wrap(line[:_PIECE])
            out += rows
            line = last + end + line[_PIECE:]
        out += wrapper.wrap(line) if len(line) > WIDTH else [line]
    return out


def domain_of(url: str) -> str:
    """The host of a URL, without user and port kept as written; a URL without scheme counts as one with."""
    try:
        return urlsplit(url).netloc or urlsplit(f"http://{url}").netloc
    except ValueError:
        return ""


def join(base: str, link: str) -> str:
    """An absolute URL; also for the `local:` URLs of a folder, which urllib does not join."""
    if base.startswith("local:"):
        joined = urljoin("http:" + base.removeprefix("local:"), link)
        same = urlsplit(joined).netloc == urlsplit("http:" + base.removeprefix("local:")).netloc
        return "local:" + joined.removeprefix("http:") if same and not link.startswith("http") else joined
    return urljoin(base, link)


def clean(text: str) -> str:
    """Text without the characters that marks are made of."""
    return _EMOJI.sub("", text).translate(_MARKS)


def without_links(text: str) -> str:
    """Link marks replaced by their texts, halves of marks at the ends too."""
    text = re.sub(r"^[^【】]*】", "", text)
    text = re.sub(r"【\d*(?:†([^†】]*)(?:†[^†】]*)?)?$", lambda m: m[1] or "", text)
    return _LINK.sub(
        lambda m: m[1] + "\n" * (m[0].count("\n") - m[1].count("\n")), text
    )  # lines keep their numbers


def from_text(text: str, url: str, title: str = "") -> Page:
    """A page of plain text."""
    return Page(url, _title(title) or domain_of(url), f"\nURL: {url}\n{clean(text).strip()}")


def from_markdown(text: str, url: str, title: str = "") -> Page:
    """Markdown by way of HTML, so that its links are links."""
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    heading = re.search(r"^#\s+(.+)$", text, re.M)
    return from_html(html, url, title or (heading[1].strip(" #") if heading else ""))


def from_pdf(data: bytes, url: str, title: str = "") -> Page:
    """The text of a PDF, page by page. ValueError for what is none."""
    import io
    import logging

    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("it is encrypted, and opens with a password only")
        parts: list[str] = []
        room = _MAX_PDF_TEXT
        for n in range(min(len(reader.pages), 2000)):
            parts.append(f"## Page {n + 1}\n\n{reader.pages[n].extract_text()}")
            if (room := room - len(parts[-1])) < 0:
                break
        named = str(reader.metadata.title or "") if reader.metadata else ""
    except MemoryError:
        raise
    except ValueError as e:
        raise (
            e if "encrypted" in str(e) else ValueError(f"it is no readable PDF ({type(e).__name__})")
        ) from None
    except Exception as e:  # a damaged PDF shows itself in any place of a long program
        raise ValueError(f"it is no readable PDF ({type(e).__name__})") from None
    return from_text("\n\n".join(parts), url, title or named)


def from_html(html: str, url: str, title: str = "") -> Page:
    """Links numbered from 0, one id a URL; images, sup, sub, math and tables as the models know them."""
    import lxml.html
    from lxml import etree

    parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True)
    try:
        root = lxml.html.fromstring(clean(html).encode("utf-8", "replace") or b"<p></p>", parser=parser)
    except (etree.ParserError, ValueError):
        return from_text("", url, title)
    named = root.find(".//title")
    title = _title(title) or _title(named.text or "" if named is not None else "") or domain_of(url)
    for node in [*root.iter("math", "script", "style", "noscript", "template")]:
        _replace(node, "")
    links = _links(root, url)
    for n, image in enumerate([*root.iter("img")]):
        said = image.get("alt") or image.get("title")
        _replace(image, f"[Image {n}: {said}]" if said else f"[Image {n}]")
    for tag, mark in (("sup", "^"), ("sub", "_")):
        for node in [*root.iter(tag)]:
            text = node.text or ""
            if len(node) == 0 and _WORD.fullmatch(text):
                _replace(node, f"{mark}{{{text}}}")
    etree.strip_tags(root, _DONE)
    for cell in root.iter("td", "th"):
        cell.tail = f" {cell.tail or ''}"
    written = etree.tostring(root, encoding="unicode")
    text = _plain(written) if len(written) <= _SLOW_PAGE else _quick(root)
    if any("Excessive depth" in e.message for e in parser.error_log):
        text += "\n[the rest of this page is left out: it is nested too deeply]"
    return Page(url, title, f"\nURL: {url}\n{text}", links)


def _quick(root: Any) -> str:
    """The text of a page that html2text would take minutes for: blocks are lines, link marks stay."""
    for node in [*root.iter("head")]:
        node.clear(keep_tail=True)
    for node in [n for pre in root.iter("pre") for n in pre.iter()]:
        node.text = (node.text or "").replace("\n", _BREAK)
        if node.tag != "pre":
            node.tail = (node.tail or "").replace("\n", _BREAK)
    for node in root.iter(*_BLOCKS):
        node.text, node.tail = f"{_BREAK}{node.text or ''}", f"{_BREAK}{node.tail or ''}"
    lines = (" ".join(line.split()) for line in "".join(root.itertext()).split(_BREAK))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


_BREAK = "\ue000"
_BLOCKS = (
    "p",
    "div",
    "br",
    "li",
    "tr",
    "table",
    "section",
    "article",
    "pre",
    "blockquote",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "dt",
    "dd",
)


def _plain(html: str) -> str:
    import html2text

    h = html2text.HTML2Text(bodywidth=0)
    h.ignore_links = h.ignore_images = h.ignore_tables = h.ignore_emphasis = h.unicode_snob = True
    text = h.handle(html).strip()
    # What html2text escapes so that it stays Markdown is plain text here.
    text = re.sub(r"\\([\\`*_{}\[\]()#+.!-])", r"\1", text)
    return re.sub(r"\n(\s*\n)+", "\n\n", text)


def _links(root: object, url: str) -> dict[int, str]:
    here, ids = domain_of(url), dict[str, int]()
    for a in [*root.iter("a")]:  # type: ignore[attr-defined]
        link = (a.get("href") or "").strip()
        text = " ".join(" ".join(a.itertext()).split()).replace("†", "‡")
        if (
            not link
            or not text
            or link.lower().startswith(("mailto:", "javascript:"))
            or a.getparent() is None
        ):
            continue
        if link.startswith("#"):
            _replace(a, text)
            continue
        try:
            target = join(url, link).replace("arxiv.org", "ar5iv.org")
            domain = domain_of(target)
        except ValueError:
            continue
        if not domain:
            continue
        n = ids.setdefault(target, len(ids))
        _replace(a, f"【{n}†{text}】" if domain == here else f"【{n}†{text}†{domain}】")
    return {n: target for target, n in ids.items()}


def _replace(node: object, text: str) -> None:
    """Text in place of a node; what follows it stays. It remains as an element that is taken out in the end: to join the
    text with its neighbours here takes minutes for a page of nothing but links."""
    if node.getparent() is None:  # type: ignore[attr-defined]
        return
    node.clear(keep_tail=True)  # type: ignore[attr-defined]
    node.tag, node.text = _DONE, text  # type: ignore[attr-defined]


_DONE = "motet-done"


def _title(text: str) -> str:
    return " ".join(clean(text).split())[:MAX_TITLE]

"""A folder as something to browse: HTML, Markdown, text, PDF and WARC files indexed in SQLite's full-text search.

The index stands in the folder itself, is made once, and brought up to date when files have changed. Knows no network.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from motet.errors import UserError
from motet.tools import base
from motet.tools.browser import page as pages
from motet.tools.browser import reader
from motet.tools.browser.formats import decoded
from motet.tools.browser.page import Page
from motet.tools.browser.reader import Source
from motet.tools.browser.tool import Hit

INDEX = ".motet-index.sqlite"
VERSION = 1
_COMMIT_S = 2.0
MAX_FILE = 64 << 20
KINDS = {
    ".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown", ".pdf": "pdf",
    ".txt": "text", ".text": "text", ".rst": "text", ".csv": "text", ".json": "text", ".tex": "text", ".log": "text",
    ".warc": "warc", ".warc.gz": "warc",
}  # fmt: skip
_SCHEMA = """
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER);
CREATE TABLE pages (id INTEGER PRIMARY KEY, url TEXT UNIQUE, path TEXT, kind TEXT, title TEXT, source BLOB);
CREATE INDEX pages_path ON pages(path);
CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize = 'porter unicode61 remove_diacritics 2');
"""


@dataclass
class Indexed:
    """What `index` did: pages in the index, files read now, and files left out with the reason."""

    pages: int = 0
    read: int = 0
    left_out: tuple[str, ...] = ()


def index(folder: str | Path) -> Indexed:
    """Brings a folder's index up to date. UserError for a folder that is none, or cannot hold an index."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder '{folder}' to index; check the path.")
    try:
        with contextlib.closing(_open(root)) as db, db:
            return _update(db, root)
    except sqlite3.OperationalError as e:
        raise UserError(
            f"The index in '{folder}' cannot be written ({e}); copy the folder to where you may write."
        ) from None


def _open(root: Path) -> sqlite3.Connection:
    path = root / INDEX
    db = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError:  # damaged, or something else under this name: made again
        version = -1
    if version != VERSION:
        db.close()
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path, timeout=30, check_same_thread=False)
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.commit()
    return db


def _update(db: sqlite3.Connection, root: Path) -> Indexed:
    known = {p: (s, m) for p, s, m in db.execute("SELECT path, size, mtime FROM files")}
    out, reasons = Indexed(), []
    found: set[str] = set()
    written = time.monotonic()
    for path, kind in _files(root):
        # A name of bytes that are no text is written with escapes.
        name = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
        found.add(name)
        try:
            stat = path.stat()
        except OSError as e:
            reasons.append(f"{name}: {e.strerror}")
            continue
        if known.get(name) == (stat.st_size, stat.st_mtime_ns):
            continue
        _forget(db, name)
        reasons += [f"{name}: {why}" for why in _read(db, root, path, kind, name, stat.st_size)]
        db.execute("INSERT INTO files VALUES (?, ?, ?)", (name, stat.st_size, stat.st_mtime_ns))
        out.read += 1
        if time.monotonic() - written > _COMMIT_S:  # what is done stays done
            db.commit()
            written = time.monotonic()
    for name in known.keys() - found:
        _forget(db, name)
    out.pages = db.execute("SELECT count(*) FROM pages").fetchone()[0]
    out.left_out = tuple(reasons)
    return out


def _read(db: sqlite3.Connection, root: Path, path: Path, kind: str, name: str, size: int) -> list[str]:
    """Adds a file's pages; returns what is wrong with those that are left out. One hostile page does not keep the others out."""
    wrong: list[str] = []
    try:
        if size > MAX_FILE and kind != "warc":
            raise ValueError(f"it is larger than {MAX_FILE >> 20} MiB")
        for source in _sources(root, path, kind):
            try:
                _add(db, name, source)
            except ValueError as e:
                if kind != "warc":
                    raise
                wrong.append(f"{base.text(source.url)[:200]}: {e}")
                if len(wrong) == reader.MAX_FAILURES:
                    raise ValueError(
                        "so many of its pages cannot be read that the rest was not tried"
                    ) from None
    except sqlite3.Error:
        raise
    except Exception as e:
        wrong.append(base.text(str(e)) if isinstance(e, ValueError | OSError) else type(e).__name__)
    return wrong


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Files of a known kind; nothing hidden, no links out of the folder."""
    for here, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            lower = name.lower()
            kind = "warc" if lower.endswith(".warc.gz") else KINDS.get(os.path.splitext(lower)[1])
            path = Path(here, name)
            if (
                kind
                and not name.startswith(".")
                and path.is_file()
                and path.resolve().is_relative_to(root.resolve())
            ):
                yield path, kind


def _sources(root: Path, path: Path, kind: str) -> Iterator[Source]:
    if kind == "warc":
        yield from reader.records(path)
        return
    name = quote(os.fsencode(path.relative_to(root)))
    yield Source(
        f"local://{quote(os.fsencode(root.resolve().name) or b'files')}/{name}", kind, path.read_bytes()
    )


def _add(db: sqlite3.Connection, path: str, source: Source) -> None:
    page = reader.read(source.url, source.kind, source.data)
    row = (source.url, path, source.kind, page.title, zlib.compress(source.data, 6))
    old = db.execute("SELECT id FROM pages WHERE url = ?", (source.url,)).fetchone()
    if old:  # the same address twice in an archive: the later one counts
        db.execute("DELETE FROM words WHERE rowid = ?", old)
        db.execute("DELETE FROM pages WHERE id = ?", old)
    number = db.execute(
        "INSERT INTO pages (url, path, kind, title, source) VALUES (?, ?, ?, ?, ?)", row
    ).lastrowid
    text = pages.without_links(page.text.removeprefix(f"\nURL: {source.url}\n"))
    db.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (number, page.title, text))


def _forget(db: sqlite3.Connection, path: str) -> None:
    for (number,) in db.execute("SELECT id FROM pages WHERE path = ?", (path,)).fetchall():
        db.execute("DELETE FROM words WHERE rowid = ?", (number,))
    db.execute("DELETE FROM pages WHERE path = ?", (path,))
    db.execute("DELETE FROM files WHERE path = ?", (path,))


class LocalBackend:
    """Searches and opens what `index` has read. Nothing outside the index can be opened."""

    source = "local"

    def __init__(self, folder: str | Path) -> None:
        self.indexed = index(folder)
        if not self.indexed.pages:
            raise UserError(
                f"There is nothing to browse in '{folder}'; it holds no HTML, Markdown, text, PDF or WARC file."
            )
        self._db = _open(Path(folder))
        self._lock = threading.Lock()

    def search(self, query: str, topn: int) -> list[Hit]:
        """Pages with any of the words, those with rare words, and words in the title, first."""
        words = re.findall(r"\w+", query)[:64]
        if not words:
            return []
        wanted = " OR ".join(f'"{w}"' for w in words)
        sql = (
            "SELECT url, pages.title, snippet(words, 1, '', '', ' ... ', 32) FROM words JOIN pages ON pages.id = words.rowid "
            "WHERE words MATCH ? ORDER BY bm25(words, 4.0, 1.0), pages.id LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(sql, (wanted, topn)).fetchall()
        return [Hit(title, url, " ".join(said.split())) for url, title, said in rows]

    def fetch(self, url: str, source: bool) -> Page:
        """A page of the index, by its exact URL; a fragment is no part of it."""
        with self._lock:
            row = None
            for address in (url, url.split("#")[0], quote(unquote(url.split("#")[0]), safe="/:?&=%+~,;@")):
                row = (
                    row
                    or self._db.execute(
                        "SELECT url, kind, source FROM pages WHERE url = ?", (address,)
                    ).fetchone()
                )
        if row is None:
            raise ValueError("it is not in the local collection; use search")
        address, kind, packed = row
        data = zlib.decompress(packed)
        if source:
            return pages.from_text(
                "(a PDF has no source to show)" if kind == "pdf" else decoded(data),
                f"view-source:{address}",
                address,
            )
        return reader.read(address, kind, data)

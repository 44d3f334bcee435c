"""Files that the model's code has made and its caller may see: found in an answer, kept beside their response, given out by id.

A file belongs to the response whose call made it and is deleted with it. Knows rows and names; knows no HTTP and no events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa

FOLDER = "/mnt/data/"
_MENTION = re.compile(rf"(?:sandbox:)?{FOLDER}([^\s()\[\]<>\"'`|*]+)")
_T = sa.Table(
    "files", sa.MetaData(),
    *(sa.Column(n, sa.Text) for n in ("id", "response", "owner", "container", "name", "mime")),
    sa.Column("size", sa.Integer), sa.Column("created_at", sa.Float), sa.Column("data", sa.LargeBinary),
)  # fmt: skip
_BARE = [_T.c[n] for n in ("id", "container", "name", "mime", "size", "created_at")]


@dataclass(frozen=True)
class File:
    """One file. `size` in bytes; `data` is empty where it was not asked for."""

    id: str
    container: str
    name: str
    mime: str
    size: int
    created_at: float
    data: bytes = field(default=b"", repr=False)

    def bare(self) -> File:
        """Without its bytes."""
        return replace(self, data=b"")


def mentions(text: str, files: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """(begin, end, name) of each path of one of the files in an answer, as models write them: sandbox:/mnt/data/NAME."""
    for m in _MENTION.finditer(text):
        said = m[1].rstrip(".,;:!?")
        for path in (said, unquote(said)):
            name = path.replace("/", "-")  # as the sandbox hands files over
            if name in files:
                yield m.start(), m.start(1) + len(said), name
                break


def within(files: Sequence[File], room: int) -> list[File]:
    """The latest of the files that have room together (bytes)."""
    out: list[File] = []
    for file in reversed(files):
        room -= file.size
        if room < 0:
            break
        out.append(file)
    return out[::-1]


# --- rows; `c` is a connection in a transaction ---


def insert(c: sa.Connection, response: str, owner: str, files: Sequence[File], most: int) -> None:
    """Adds files of a response. An owner has `most` bytes: where they are more, his oldest files go."""
    if not files:
        return
    rows: list[dict[str, Any]] = [{**vars(f), "response": response, "owner": owner} for f in files]
    c.execute(_T.insert(), rows)
    newest = (_T.c.created_at.desc(), _T.c.id.desc())
    summed = sa.select(_T.c.id, sa.func.sum(_T.c.size).over(order_by=newest).label("upto"))
    by_age = summed.where(_T.c.owner == owner).subquery()
    c.execute(_T.delete().where(_T.c.id.in_(sa.select(by_age.c.id).where(by_age.c.upto > most))))


def listed(c: sa.Connection, container: str, owner: str) -> list[File]:
    """Those of a container, oldest first, without their bytes."""
    asked = sa.select(*_BARE).where(_of(container, owner)).order_by(_T.c.created_at, _T.c.id)
    return [File(**r._mapping) for r in c.execute(asked)]


def found(c: sa.Connection, id: str, container: str, owner: str) -> File | None:
    """One, with its bytes."""
    row = c.execute(sa.select(*_BARE, _T.c.data).where(_of(container, owner) & (_T.c.id == id))).first()
    return None if row is None else File(**row._mapping)


def deleted(c: sa.Connection, id: str, container: str, owner: str) -> bool:
    """Deletes one; whether it was there."""
    return c.execute(_T.delete().where(_of(container, owner) & (_T.c.id == id))).rowcount > 0


def _of(container: str, owner: str) -> sa.ColumnElement[bool]:
    return (_T.c.container == container) & (_T.c.owner == owner)

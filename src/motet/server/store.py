"""Responses, kept, with the ids they were sampled as. Blocking; callers use a thread.

A row is written when a response begins and again, before its last event is sent, when it is over; so after a crash every
finished one is whole and every other is known to be unfinished. Every question names an owner, and sees nothing of others.
Knows rows and JSON; knows no events and no HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from motet.server import files
from motet.server.database import Database
from motet.server.files import File

Json = dict[str, Any]
RUNNING = ("queued", "in_progress")
TITLE = 120  # characters of a conversation's title
_meta = sa.MetaData()
_T = sa.Table(
    "responses", _meta,
    *(sa.Column(n, sa.Text) for n in ("owner", "process", "status", "response", "input", "output", "previous", "root", "title")),
    sa.Column("id", sa.Text, primary_key=True), sa.Column("created_at", sa.Float), sa.Column("updated_at", sa.Float),
    sa.Column("stopping", sa.Boolean), sa.Column("events", sa.LargeBinary), sa.Column("tokens", sa.LargeBinary),
)  # fmt: skip
_SPENT = sa.Table(
    "spent", _meta,
    sa.Column("owner", sa.Text), sa.Column("day", sa.Integer), sa.Column("tokens", sa.BigInteger),
)  # fmt: skip
_SECRETS = sa.Table("secrets", _meta, sa.Column("name", sa.Text), sa.Column("value", sa.LargeBinary))
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass
class Record:
    """One response. `output` and `ids`: everything the model said, hidden or not, for the turns that follow it.

    `ids[n]` are the tokens `output[n]` was sampled as, None where it was not, or not as it stands. `tokens` holds the
    prompt, everything sampled, and the seed.
    """

    id: str
    owner: str
    response: Json
    input: list[Json]
    output: list[Json] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    tokens: Json | None = None
    previous: str | None = None
    root: str = ""  # the first response of the conversation; `begin` finds it
    read: list[tuple[Json, list[int] | None]] = field(
        default_factory=list, compare=False
    )  # see history.read; not kept

    @property
    def status(self) -> str:
        """As in the response."""
        return str(self.response["status"])


class Store:
    """Opens a database (see `Database`) and marks what dead processes have left unfinished."""

    def __init__(self, url: str, serving: bool = True) -> None:
        self._db = Database(url, serving)
        if serving:
            self.orphans()

    @property
    def shared(self) -> bool:
        """Whether other servers may use it too."""
        return not self._db.sqlite

    # --- writing ---

    def begin(self, record: Record) -> None:
        """A response that has begun. Durable when this returns."""
        now = time.time()
        with self._db.writing() as c:
            root = None
            if record.previous is not None:
                root = c.execute(sa.select(_T.c.root).where(_mine(record.previous, record.owner))).scalar()
            record.root = root or record.id
            told = {
                "root": record.root,
                "title": title_of(record.input),
                "created_at": now,
                "updated_at": now,
            }
            c.execute(_T.insert().values(process=self._db.process, stopping=False, **told, **_row(record)))
            self._touch(c, root, now)

    def end(self, record: Record, made: Sequence[File] = (), most: int = 0) -> None:
        """A response that is over, with the files it made. Durable when this returns. One that was deleted in between stays
        deleted. `most`: bytes of files an owner may have; the oldest go."""
        row, now = _row(record), time.time()
        with self._db.writing() as c:
            changed = _T.update().where(_T.c.id == row.pop("id")).values(updated_at=now, **row)
            root = c.execute(changed.returning(_T.c.root)).scalar()
            self._touch(c, root, now)
            if root is not None:
                files.insert(c, record.id, record.owner, made, most)

    def _touch(self, c: sa.Connection, root: str | None, now: float) -> None:
        """A conversation is as old as the last that was said in it; its first response remembers."""
        if root is not None:
            c.execute(_T.update().where(_T.c.id == root).values(updated_at=now))

    def delete(self, id: str, owner: str) -> bool:
        """Whether there was such a response of this owner."""
        with self._db.writing() as c:
            return c.execute(_T.delete().where(_mine(id, owner))).rowcount > 0

    def rename(self, root: str, owner: str, title: str) -> bool:
        """Gives a conversation another title; whether there is such a one of this owner."""
        with self._db.writing() as c:
            first = _mine(root, owner) & (_T.c.root == root)
            return c.execute(_T.update().where(first).values(title=_short(title))).rowcount > 0

    def delete_conversation(self, root: str, owner: str) -> int:
        """Deletes every response of a conversation; returns how many there were."""
        with self._db.writing() as c:
            return c.execute(_T.delete().where(_of(root, owner))).rowcount

    def forget(
        self, *, older_than_s: float | None = None, owner: str | None = None, ids: Sequence[str] | None = None
    ) -> int:
        """Deletes finished responses that fit everything given; returns how many. The age is that of the conversation."""
        which: list[sa.ColumnElement[bool]] = [_T.c.status.not_in(RUNNING)]
        if older_than_s is not None:
            first, end = _T.alias(), time.time() - older_than_s
            updated = sa.select(first.c.updated_at).where(first.c.id == _T.c.root).scalar_subquery()
            which.append(sa.func.coalesce(updated, _T.c.created_at) < end)
        which += [] if owner is None else [_T.c.owner == owner]
        which += [] if ids is None else [_T.c.id.in_(list(ids))]
        with self._db.writing() as c:
            # found first: a condition must not change with what it has deleted
            found = [r.id for r in c.execute(sa.select(_T.c.id).where(*which))]
            for n in range(0, len(found), 500):
                c.execute(_T.delete().where(_T.c.id.in_(found[n : n + 500])))
        return len(found)

    def beat(self) -> None:
        """Says that this process is alive."""
        self._db.beat()

    def orphans(self) -> int:
        """Marks as failed what processes that are gone have left unfinished; returns how many."""
        with self._db.writing() as c:
            left = list(c.execute(sa.select(_T).where(_T.c.status.in_(RUNNING))))
            dead = {p for p in {row.process for row in left} if self._db.gone(c, p)}
            lost = [row for row in left if row.process in dead]
            for row in lost:
                c.execute(_T.update().where(_T.c.id == row.id).values(**_broken(json.loads(row.response))))
        return len(lost)

    def stop(self, id: str, owner: str) -> None:
        """Asks whichever process makes a response to end it."""
        with self._db.writing() as c:
            c.execute(_T.update().where(_mine(id, owner)).values(stopping=True))

    def stopping(self, ids: Iterable[str]) -> list[str]:
        """Those of these responses that another process was asked to end."""
        with self._db.reading() as c:
            return [r.id for r in c.execute(sa.select(_T.c.id).where(_T.c.id.in_(list(ids)) & _T.c.stopping))]

    # --- reading ---

    def find(self, id: str, owner: str) -> Record | None:
        """A response of this owner."""
        with self._db.reading() as c:
            row = c.execute(sa.select(_T).where(_mine(id, owner))).first()
        return None if row is None else _record(row)

    def chain(self, id: str, owner: str) -> list[Record] | None:
        """A response and what it follows, oldest first, without their events and tokens; None if one of them is gone."""
        columns = [c for c in _T.c if c.name not in ("events", "tokens")]
        root = sa.select(_T.c.root).where(_mine(id, owner)).scalar_subquery()
        with self._db.reading() as c:
            rows = {
                r.id: r
                for r in c.execute(sa.select(*columns).where((_T.c.root == root) & (_T.c.owner == owner)))
            }
        out: list[Record] = []
        here: str | None = id
        while here is not None:
            row = rows.pop(here, None)
            if row is None:
                return None
            out.append(_record(row))
            here = row.previous
        return out[::-1]

    def conversations(self, owner: str, limit: int, after: str | None = None) -> list[Json] | None:
        """The first responses of an owner's conversations, latest activity first: id, title, created_at, updated_at.

        None if `after` is none of them.
        """
        asked = sa.select(_T.c.id, _T.c.title, _T.c.created_at, _T.c.updated_at)
        asked = asked.where((_T.c.owner == owner) & (_T.c.id == _T.c.root))
        with self._db.reading() as c:
            if after is not None:
                edge = c.execute(sa.select(_T.c.updated_at).where(_mine(after, owner))).scalar()
                if edge is None:
                    return None
                asked = asked.where(
                    sa.tuple_(_T.c.updated_at, _T.c.id) < sa.tuple_(sa.literal(edge), sa.literal(after))
                )
            rows = c.execute(asked.order_by(_T.c.updated_at.desc(), _T.c.id.desc()).limit(limit))
            return [dict(r._mapping) for r in rows]

    def holding(self, words: str, owner: str, limit: int, after: str | None = None) -> list[Json] | None:
        """Those of `conversations` with these words in their title, a question or an answer, whatever the case. Thinking and what
        tools said are not looked at."""
        out: list[Json] = []
        words = words.casefold()
        while len(out) < limit and (page := self.conversations(owner, 200, after)) != []:
            if page is None:
                return None
            said = self._saying(words, [c["id"] for c in page], owner)
            out += [c for c in page if words in c["title"].casefold() or c["id"] in said]
            after = page[-1]["id"]
        return out[:limit]

    def _saying(self, words: str, roots: Sequence[str], owner: str) -> set[str]:
        asked = sa.select(_T.c.root, _T.c.input, _T.c.response).where(
            (_T.c.owner == owner) & _T.c.root.in_(roots)
        )
        if words.isascii():  # what is not, JSON writes otherwise, and databases know its cases differently
            part = json.dumps(words)[1:-1]
            asked = asked.where(
                sa.or_(*(c.icontains(part, autoescape=True) for c in (_T.c.input, _T.c.response)))
            )
        with self._db.reading() as c:
            return {
                r.root
                for r in c.execute(asked)
                if words in question_of(json.loads(r.input)).casefold()
                or words in _answer(json.loads(r.response)).casefold()
            }

    def conversation(self, root: str, owner: str) -> list[Json]:
        """Its responses, parents first: parent, input, response, title."""
        asked = sa.select(_T.c.previous, _T.c.input, _T.c.response, _T.c.title)
        asked = asked.where(_of(root, owner)).order_by(_T.c.created_at, _T.c.id)
        with self._db.reading() as c:
            return [
                {
                    "parent": r.previous,
                    "input": json.loads(r.input),
                    "response": json.loads(r.response),
                    "title": r.title,
                }
                for r in c.execute(asked)
            ]

    def totals(self) -> Json:
        """What is kept: responses, of which unfinished, conversations, owners, times of the first and the last."""
        f = sa.func
        asked = sa.select(
            f.count().label("responses"), f.coalesce(f.sum(sa.case((_T.c.status.in_(RUNNING), 1), else_=0)), 0).label("unfinished"),
            f.count(sa.distinct(_T.c.root)).label("conversations"), f.count(sa.distinct(_T.c.owner)).label("owners"),
            f.min(_T.c.created_at).label("first"), f.max(_T.c.updated_at).label("last"),
        )  # fmt: skip
        with self._db.reading() as c:
            return dict(c.execute(asked).one()._mapping)

    def secret(self) -> bytes:
        """32 random bytes that are always the same for this store, and so for all servers that share it."""
        insert = sqlite.insert if self._db.sqlite else postgresql.insert
        new = insert(_SECRETS).values(name="reasoning", value=secrets.token_bytes(32))
        with self._db.writing() as c:
            c.execute(new.on_conflict_do_nothing(index_elements=["name"]))
            return bytes(c.execute(sa.select(_SECRETS.c.value)).scalar_one())

    # --- files, which go with their responses ---

    def files(self, container: str, owner: str) -> list[File]:
        """What code has made in a container of this owner, oldest first, without the bytes."""
        with self._db.reading() as c:
            return files.listed(c, _named(container), owner)

    def file(self, id: str, container: str, owner: str) -> File | None:
        """One of them, with its bytes."""
        with self._db.reading() as c:
            return files.found(c, _named(id), _named(container), owner)

    def delete_file(self, id: str, container: str, owner: str) -> bool:
        """Whether there was such a file of this owner."""
        with self._db.writing() as c:
            return files.deleted(c, _named(id), _named(container), owner)

    # --- tokens by day ---

    def spent(self, day: int) -> dict[str, int]:
        """Tokens of a day (days since 1970, UTC) by owner."""
        with self._db.reading() as c:
            return {r.owner: r.tokens for r in c.execute(sa.select(_SPENT).where(_SPENT.c.day == day))}

    def spend(self, owner: str, day: int, tokens: int) -> None:
        """Adds tokens."""
        insert = (
            sqlite.insert if self._db.sqlite else postgresql.insert
        )  # one statement: others may begin the same day
        new = insert(_SPENT).values(owner=owner, day=day, tokens=tokens)
        more = {"tokens": _SPENT.c.tokens + new.excluded.tokens}
        with self._db.writing() as c:
            c.execute(new.on_conflict_do_update(index_elements=["owner", "day"], set_=more))

    def close(self) -> None:
        """Lets go of the database."""
        self._db.close()


def _mine(id: str, owner: str) -> sa.ColumnElement[bool]:
    """The row of that name if it is the owner's. A name that no response has finds nothing, whatever it holds."""
    return (_T.c.id == _named(id)) & (_T.c.owner == owner)


def _of(root: str, owner: str) -> sa.ColumnElement[bool]:
    """The rows of a conversation if it is the owner's."""
    return (_T.c.root == _named(root)) & (_T.c.owner == owner)


def _named(id: str) -> str:
    return id if _ID.fullmatch(id) else ""


def _broken(response: Json) -> Json:
    """What a row becomes whose process has ended."""
    said = "The server ended before this response was complete; ask again."
    lost = {**response, "status": "failed", "error": {"code": "server_error", "message": said}}
    events = [{"type": "response.failed", "sequence_number": 0, "response": lost}]
    return {"status": "failed", "response": json.dumps(lost), "events": _packed(events)}


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode())


def _unpacked(row: Any, name: str) -> Any:
    data = getattr(row, name, None)
    return json.loads(zlib.decompress(data)) if data else None


def _row(r: Record) -> Json:
    return {
        "id": r.id, "owner": r.owner, "status": r.status, "previous": r.previous,
        "response": json.dumps(r.response), "input": json.dumps(r.input),
        "output": json.dumps({"items": r.output, "ids": r.ids}), "events": _packed(r.events),
        "tokens": None if r.tokens is None else _packed(r.tokens),
    }  # fmt: skip


def _record(row: Any) -> Record:
    output = json.loads(row.output or '{"items": [], "ids": []}')
    return Record(
        row.id, row.owner, json.loads(row.response), json.loads(row.input), output["items"], output["ids"],
        _unpacked(row, "events") or [], _unpacked(row, "tokens"), row.previous, row.root,
    )  # fmt: skip


def question_of(items: Sequence[Json]) -> str:
    """What the last message of a user says."""
    for item in reversed(items):
        if isinstance(item, dict) and item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else ()
            return "".join(str(p.get("text") or "") for p in parts if isinstance(p, dict))
    return ""


def _answer(response: Json) -> str:
    """What a response says to its reader."""
    said = [i for i in response.get("output") or () if i.get("type") == "message"]
    return "\n".join(p.get("text") or "" for i in said for p in i.get("content") or ())


def title_of(items: Sequence[Json]) -> str:
    """The beginning of the first question, in one line."""
    first = next((i for i in items if isinstance(i, dict) and i.get("role") == "user"), None)
    return _short(question_of([first] if first else []))


def _short(text: str) -> str:
    words = re.sub(r"[\s\x00]+", " ", text).strip()
    words = words.encode("utf-8", "replace").decode()  # half a character cannot be stored
    return words if len(words) <= TITLE else words[: TITLE - 1].rstrip() + "…"


def url_of(given: str | None) -> str | None:
    """What --store means: a URL as it is, a path as a SQLite file, `memory`, `none`; nothing is the user's own file."""
    if given == "none":
        return None
    if given == "memory":
        return "sqlite://"
    if given is None:
        from platformdirs import user_data_path

        given = str(user_data_path("motet") / "responses.sqlite")
    return given if "://" in given else f"sqlite:///{Path(given).expanduser()}"

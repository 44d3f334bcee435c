"""Files that code makes in its sandbox, downloaded with the published client: cited, listed, kept, bounded, and nobody else's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, NotFoundError

from folding import fold_events, summed
from motet.server import auth
from motet.server.files import File, mentions, within
from motet.server.settings import Limits, Settings
from motet.server.store import Record, Store, url_of
from serving import Script, Served, serving
from test_server_store import emptied, pg, record  # noqa: F401  (pg is a fixture)
from test_server_tools import PYTHON, cell, needs_sandbox

TABLE = "open('/mnt/data/t.csv', 'w').write('a,b\\n1,2\\n')"
LINK = "<|channel|>final<|message|>Here: [t](sandbox:/mnt/data/t.csv).<|return|>"
DONE = "<|channel|>final<|message|>Done.<|return|>"


def notes(response: Any) -> list[Any]:
    return [a for i in response.output if i.type == "message" for p in i.content for a in p.annotations]


def ask(served: Served, key: str = "none", **more: Any) -> Any:
    return served.client(key).responses.create(model="scripted", input="hi", tools=PYTHON, **more)


# --- with a real sandbox ---


@needs_sandbox
@pytest.mark.parametrize("store", ["memory", "none"])
def test_a_file_can_be_downloaded_by_the_key_that_made_it(store: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    mine, theirs = auth.add(path, "mine"), auth.add(path, "theirs")
    more = "open('/mnt/data/è [1].bin', 'wb').write(bytes(range(256)))"
    engine = Script([cell(TABLE), cell(more), LINK, DONE])
    with serving(engine, Settings(port=0, store=store, keys=path, tools=("python",))) as served:
        events = list(ask(served, mine, stream=True))
        r = events[-1].response
        assert fold_events(events) == summed(r.output)
        odd, table = notes(r)
        assert (odd.type, odd.filename, odd.start_index, odd.end_index) == (
            "container_file_citation", "è [1].bin", 0, 0,
        )  # fmt: skip
        text = r.output_text
        assert text[table.start_index : table.end_index] == "sandbox:/mnt/data/t.csv"
        made = [f for i in r.output if i.type == "code_interpreter_call" for f in i.files]
        assert made == [
            {"file_id": a.file_id, "filename": a.filename, "bytes": n} for a, n in ((table, 8), (odd, 256))
        ]
        files = served.client(mine).containers.files
        got = files.content.retrieve(table.file_id, container_id=table.container_id)
        assert got.read() == b"a,b\n1,2\n"
        raw = files.content.retrieve(odd.file_id, container_id=odd.container_id)
        assert hashlib.sha256(raw.read()).digest() == hashlib.sha256(bytes(range(256))).digest()
        head = got.response.headers
        assert (
            head["content-type"] == "application/octet-stream" and head["x-content-type-options"] == "nosniff"
        )
        assert head["content-disposition"] == "attachment; filename*=UTF-8''t.csv"
        assert "sandbox" in head["content-security-policy"]
        listed = list(files.list(table.container_id, order="asc", limit=1))
        assert [(f.path, f.bytes, f.source) for f in listed] == [
            ("/mnt/data/t.csv", 8, "assistant"), ("/mnt/data/è [1].bin", 256, "assistant"),
        ]  # fmt: skip
        one = files.retrieve(odd.file_id, container_id=odd.container_id)
        assert (one.object, one.bytes, one.container_id) == ("container.file", 256, odd.container_id)
        others = served.client(theirs).containers.files
        for look in (lambda: others.list(table.container_id),
                     lambda: others.retrieve(table.file_id, container_id=table.container_id),
                     lambda: others.content.retrieve(table.file_id, container_id=table.container_id),
                     lambda: others.delete(table.file_id, container_id=table.container_id),
                     lambda: files.retrieve(table.file_id, container_id="cntr_none"),
                     lambda: files.content.retrieve("cfile_\x00", container_id=table.container_id)):  # fmt: skip
            with pytest.raises(NotFoundError):
                look()
        url = f"{served.url}/v1/containers/{table.container_id}/files/{table.file_id}/content"
        assert httpx.get(url).status_code == 401
        # a later answer of the conversation may name it again
        engine._says = [LINK]
        previous = {"previous_response_id": r.id} if store == "memory" else {}
        container: Any = [{"type": "code_interpreter", "container": table.container_id}]
        again = served.client(mine).responses.create(
            model="scripted", input="?", tools=PYTHON if previous else container, **previous
        )
        assert [a.file_id for a in notes(again)] == [table.file_id]
        files.delete(table.file_id, container_id=table.container_id)
        with pytest.raises(NotFoundError):
            files.retrieve(table.file_id, container_id=table.container_id)
        if store == "memory":
            served.client(mine).responses.delete(r.id)
            with pytest.raises(NotFoundError):
                files.retrieve(odd.file_id, container_id=odd.container_id)


@needs_sandbox
def test_a_key_that_may_not_see_code_sees_no_files_of_it() -> None:
    settings = Settings(port=0, store="memory", thinking="hide", tools=("python",))
    with serving(Script([cell(TABLE), LINK]), settings) as served:
        r = ask(served)
        assert [i.type for i in r.output] == ["message"] and not notes(r)
        assert served.host.store is not None
        with served.host.store._db.reading() as c:
            import sqlalchemy as sa

            assert c.execute(sa.text("SELECT count(*) FROM files")).scalar() == 0


@needs_sandbox
def test_files_have_bounds_and_say_what_was_left_out() -> None:
    code = (
        "for n, size in (('a', 900), ('b', 200), ('c', 90)): open(f'/mnt/data/{n}', 'wb').write(b'x' * size)"
    )
    limits = Limits(made_bytes=1000, files_bytes=1500)
    engine = Script([cell(code), DONE, cell(TABLE), DONE])
    with serving(engine, Settings(port=0, store="memory", tools=("python",), limits=limits)) as served:
        first = ask(served)
        call = first.output[1]
        assert [f["filename"] for f in call.files] == ["a", "c"] and call.files_not_kept == ["b"]
        a, c = notes(first)
        files = served.client().containers.files
        assert len(files.content.retrieve(a.file_id, container_id=a.container_id).read()) == 900
        second = ask(served)
        assert len(list(files.list(notes(second)[0].container_id))) == 1
        assert len(list(files.list(c.container_id))) == 2, "there is room for both"


@needs_sandbox
def test_a_file_is_there_while_its_response_runs() -> None:
    words = "<|channel|>final<|message|>" + "word " * 2000
    engine = Script([cell(TABLE), words], pause_s=0.005)
    with serving(engine, Settings(port=0, store="memory", tools=("python",))) as served:
        begun = ask(served, background=True)
        files = served.client().containers.files
        for event in served.client().responses.retrieve(begun.id, stream=True):
            if event.type == "response.output_item.done" and event.item.type == "code_interpreter_call":
                made: Any = event.item
                where = {"container_id": made.container_id}
                id = made.files[0]["file_id"]
                assert files.content.retrieve(id, **where).read() == b"a,b\n1,2\n"
                with pytest.raises(APIStatusError) as error:
                    files.delete(id, **where)
                assert error.value.status_code == 409
                break
        served.client().responses.cancel(begun.id)
        assert files.content.retrieve(id, **where).read() == b"a,b\n1,2\n"


# --- names and rows ---


def test_names_in_an_answer_are_found() -> None:
    known = {n: n for n in ("a.csv", "sub-b.txt", "è.md", "x y.pdf")}
    text = "See sandbox:/mnt/data/a.csv. `/mnt/data/sub/b.txt`, [e](sandbox:/mnt/data/%C3%A8.md) (/mnt/data/x%20y.pdf) /mnt/data/no.csv"
    found = [(text[b:e], n) for b, e, n in mentions(text, known)]
    assert found == [("sandbox:/mnt/data/a.csv", "a.csv"), ("/mnt/data/sub/b.txt", "sub-b.txt"),
                     ("sandbox:/mnt/data/%C3%A8.md", "è.md"), ("/mnt/data/x%20y.pdf", "x y.pdf")]  # fmt: skip


def a_file(id: str, size: int = 1, at: float = 0.0) -> File:
    return File(id, "cntr_1", f"{id}.csv", "text/csv", size, at, b"x" * size)


def test_the_latest_have_room() -> None:
    files = [a_file("a", 5), a_file("b", 3), a_file("c", 2)]
    assert [f.id for f in within(files, 5)] == ["b", "c"] and within(files, 1) == []


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = str(tmp_path / "r.sqlite")
    if request.param == "postgresql":
        url = request.getfixturevalue("pg")
        emptied(url)
    store = Store(url_of(url) or "")
    yield store
    store.close()


def kept(store: Store, id: str, owner: str, files: list[File], most: int = 100) -> Record:
    r = record(id, owner=owner)
    store.begin(r)
    r.response["status"] = "completed"
    store.end(r, files, most)
    return r


def test_files_go_with_their_response_and_with_age(store: Store) -> None:
    kept(store, "1", "a", [a_file("f1", 40, 1), a_file("f2", 40, 2)])
    kept(store, "2", "b", [a_file("g1", 90, 1)])
    assert [f.id for f in store.files("cntr_1", "a")] == ["f1", "f2"]
    found = store.file("f2", "cntr_1", "a")
    assert found is not None and found.data == b"x" * 40 and found.name == "f2.csv"
    for id, container, owner in (("f2", "cntr_2", "a"), ("f2", "cntr_1", "b"), ("f2'--", "cntr_1", "a")):
        assert store.file(id, container, owner) is None and not store.delete_file(id, container, owner)
    kept(store, "3", "a", [a_file("f3", 50, 3)])  # the oldest make room, and of this owner only
    assert [f.id for f in store.files("cntr_1", "a")] == ["f2", "f3"]
    assert [f.id for f in store.files("cntr_1", "b")] == ["g1"]
    assert store.delete("3", "a") and [f.id for f in store.files("cntr_1", "a")] == ["f2"]
    assert store.forget(owner="a") == 1 and store.files("cntr_1", "a") == []
    assert store.delete_conversation("2", "b") == 1 and store.files("cntr_1", "b") == []


def test_a_response_that_was_deleted_while_it_ran_leaves_no_files(store: Store) -> None:
    r = record("1")
    store.begin(r)
    store.delete("1", "a")
    r.response["status"] = "completed"
    store.end(r, [a_file("f")], 100)
    assert store.files("cntr_1", "a") == []

"""The store on SQLite and on a real PostgreSQL: whole after a crash, one process a file, owners apart, migrated, forgetting."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from openai import ConflictError, NotFoundError, OpenAI

from motet.cli.app import run
from motet.errors import UsageError, UserError
from motet.harmony import ids_of, parse
from motet.server.responses import validate
from motet.server.settings import Settings
from motet.server.store import Record, Store, title_of, url_of
from postgres import postgres
from serving import E, Script, serving

FINAL = (
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>It is 5.<|return|>"
)


@pytest.fixture(scope="module")
def pg() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["file", "memory", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("pg")
        emptied(url)
        return url
    found = url_of("memory" if request.param == "memory" else str(tmp_path / "r.sqlite"))
    assert found is not None
    return found


def emptied(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as c:
        c.execute(sa.text("DROP TABLE IF EXISTS secrets, files, responses, spent, alembic_version"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def record(id: str, status: str = "in_progress", owner: str = "a", asked: str = "hi", **more: Any) -> Record:
    response = {"id": id, "status": status, "created_at": int(time.time()), "output": []}
    return Record(id, owner, response, [{"role": "user", "content": asked}], **more)


def age(store: Store, id: str, seconds: float) -> None:
    with store._db.writing() as c:
        c.execute(
            sa.text(
                "UPDATE responses SET created_at = created_at - :s, updated_at = updated_at - :s WHERE id = :i"
            ),
            {"s": seconds, "i": id},
        )


def test_what_was_written_comes_back(store: Store) -> None:
    odd = {"text": "\x00 \ud800 è 的 \U0001f600"}
    r = record(
        "resp_1", asked="\x00 \ud800 hi", tokens={"prompt": [1, 2], "sampled": [3], "seed": 2**62}, output=[odd],
        ids=[[7, 8]], events=[{"n": 1}],
    )  # fmt: skip
    store.begin(r)
    r.response["status"] = "completed"
    store.end(r)
    again = store.find("resp_1", "a")
    assert again == r
    assert store.find("resp_1", "b") is None and store.find("resp_\x00", "a") is None


def test_a_file_outlives_its_process_and_is_read_by_its_owner_only(tmp_path: Path) -> None:
    url = url_of(str(tmp_path / "deep" / "r.sqlite"))
    assert url is not None
    store = Store(url)
    store.begin(record("1", "completed"))
    for file in (tmp_path / "deep").glob("r.sqlite*"):
        assert file.suffix == ".lock" or file.stat().st_mode & 0o077 == 0, file
    with pytest.raises(UserError, match="Another server"):
        Store(url)
    beside = Store(url, serving=False)  # a command may look and delete meanwhile
    assert beside.find("1", "a") is not None and beside.forget(ids=["1"]) == 1
    beside.close()
    store.close()
    again = Store(url)
    assert again.find("1", "a") is None
    again.close()


def test_what_cannot_be_opened_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database" * 100)
    for url in (
        "sqlite:////proc/r.sqlite",
        f"sqlite:///{tmp_path}/text",
        "postgresql://x:secret@127.0.0.1:1/z",
    ):
        with pytest.raises(UserError, match="--store") as error:
            Store(url)
        assert str(tmp_path) not in str(error.value) and "secret" not in str(error.value)
    for url in ("mysql://x:secret@y/z", "://"):
        with pytest.raises(UsageError, match="--store") as wrong:
            Store(url)
        assert "secret" not in str(wrong.value)


def test_a_store_of_another_version_is_left_alone(tmp_path: Path) -> None:
    url = url_of(str(tmp_path / "r.sqlite"))
    assert url is not None
    store = Store(url)
    with store._db.writing() as c:
        c.execute(sa.text("UPDATE alembic_version SET version_num = 'r9999'"))
    store.close()
    with pytest.raises(UserError, match="newer version"):
        Store(url)


def test_a_step_that_breaks_leaves_the_tables_as_they_were(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that is killed while it changes tables would."""
    from alembic import command

    real = command.upgrade

    def broken(*args: Any) -> None:
        real(*args)
        raise OSError("killed")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(UserError):
        Store(url)
    monkeypatch.undo()
    store = Store(url)
    store.begin(record("1"))
    store.close()


def test_unfinished_responses_are_marked_when_their_process_is_gone(url: str) -> None:
    if url == "sqlite://":
        pytest.skip("memory ends with its process")
    store = Store(url)
    for n, status in enumerate(("queued", "in_progress", "completed")):
        store.begin(record(f"resp_{n}", status))
    assert store.orphans() == 0
    store.close()
    again = Store(url)
    found = [again.find(f"resp_{n}", "a") for n in range(3)]
    assert [r.status for r in found if r] == ["failed", "failed", "completed"]
    assert found[0] is not None and "ended" in found[0].response["error"]["message"]
    assert [e["type"] for e in found[0].events] == ["response.failed"]
    again.close()


def test_those_who_share_a_store_leave_each_others_alone(pg: str) -> None:
    emptied(pg)
    one, two = Store(pg), Store(pg)
    one.begin(record("1"))
    two.begin(record("2"))
    assert one.orphans() == two.orphans() == 0
    with one._db.reading() as c:  # a connection that is lost, as when the database was started again
        c.execute(sa.text("SELECT pg_terminate_backend(:p)"), {"p": _backend(two)})
    two.beat()
    assert one.orphans() == 0
    two.stop("1", "b")
    assert one.stopping(["1", "2"]) == []
    two.stop("1", "a")
    assert one.stopping(["1", "2"]) == ["1"]
    one.close()
    end = time.monotonic() + 20  # the database notices a little later
    while not two.orphans():
        assert time.monotonic() < end
        time.sleep(0.02)
    gone = two.find("1", "a")
    assert gone is not None and gone.status == "failed"
    two.close()


def _backend(store: Store) -> int:
    assert store._db._alive is not None
    return int(store._db._alive.execute(sa.text("SELECT pg_backend_pid()")).scalar() or 0)


def test_many_processes_begin_with_one_empty_store(pg: str) -> None:
    emptied(pg)
    code = "import sys; from motet.server.store import Store; s = Store(sys.argv[1]); s.spend('a', 1, 5); s.close()"
    started = [subprocess.Popen([sys.executable, "-c", code, pg], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 3
    store = Store(pg)
    assert store.spent(1) == {"a": 15}
    store.close()


def test_forgetting_by_age_by_owner_and_by_id(store: Store) -> None:
    for id, owner, status, previous in (
        ("old", "a", "completed", None), ("new", "a", "completed", None), ("theirs", "b", "failed", None),
        ("runs", "a", "in_progress", None), ("long", "a", "completed", None), ("longer", "a", "completed", "long"),
    ):  # fmt: skip
        store.begin(record(id, status, owner, previous=previous))
    for id in ("old", "theirs", "runs", "longer"):
        age(store, id, 100)
    assert not store.delete("new", "b")
    assert store.forget(older_than_s=50) == 2, (
        "what runs stays, and a conversation is as old as its latest word"
    )
    assert store.find("longer", "a") is not None and store.find("old", "a") is None
    assert store.forget(owner="a", ids=["new", "nothing"]) == 1
    assert store.forget(owner="a") == 2 and store.delete("runs", "a")
    store.end(record("runs", "completed"))  # deleted while it ran: it stays deleted
    assert store.find("runs", "a") is None and store.totals()["responses"] == 0


def test_a_chain_with_a_hole_is_none(store: Store) -> None:
    for n in range(4):
        store.begin(record(f"{n}", "completed", previous=f"{n - 1}" if n else None))
    assert [r.id for r in store.chain("3", "a") or ()] == ["0", "1", "2", "3"]
    assert store.chain("3", "b") is None and store.chain("none", "a") is None
    store.delete("1", "a")
    assert store.chain("3", "a") is None and store.chain("0", "a") is not None


def test_conversations_are_listed_by_what_was_last_said(store: Store) -> None:
    for n in range(5):
        store.begin(record(f"{n}", "completed", asked=f"question {n}"))
    store.begin(record("z", "completed", owner="b"))
    store.begin(record("2b", "completed", previous="2", asked="more"))
    store.begin(record("2c", "completed", previous="2b", asked="most"))
    listed = store.conversations("a", 10)
    assert listed is not None and [c["id"] for c in listed] == ["2", "4", "3", "1", "0"]
    assert listed[0]["title"] == "question 2" and listed[0]["updated_at"] > listed[0]["created_at"]
    pages = [store.conversations("a", 2, after) for after in (None, "4", "1")]
    assert [[c["id"] for c in p or ()] for p in pages] == [["2", "4"], ["3", "1"], ["0"]]
    assert store.conversations("a", 2, "z") is None
    turns = store.conversation("2", "a")
    assert [(t["parent"], t["response"]["id"]) for t in turns] == [(None, "2"), ("2", "2b"), ("2b", "2c")]
    assert store.conversation("2", "b") == []
    assert store.delete_conversation("2", "b") == 0 and store.delete_conversation("2", "a") == 3
    assert store.find("2c", "a") is None


@pytest.mark.parametrize(
    ("items", "title"),
    [
        ([{"role": "user", "content": " a\n\tb "}], "a b"),
        (
            [
                {"role": "developer", "content": "x"},
                {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
            ],
            "q",
        ),
        ([{"role": "user", "content": "w" * 500}], "w" * 119 + "…"),
        ([{"type": "function_call_output", "output": "5"}], ""),
        ([], ""),
    ],
)
def test_a_title_is_the_beginning_of_the_question(items: list[Any], title: str) -> None:
    assert title_of(items) == title


def test_tokens_of_a_day_add_up(store: Store) -> None:
    for owner, day, n in (("a", 1, 5), ("a", 1, 6), ("b", 1, 7), ("a", 2, 8)):
        store.spend(owner, day, n)
    assert store.spent(1) == {"a": 11, "b": 7} and store.spent(3) == {}


def test_many_threads_write_and_read(store: Store) -> None:
    wrong: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for n in range(10):
                store.begin(record(f"{k}-{n}", previous=f"{k}-{n - 1}" if n else None))
                store.end(record(f"{k}-{n}", "completed", previous=f"{k}-{n - 1}" if n else None))
                assert len(store.chain(f"{k}-{n}", "a") or ()) == n + 1
                store.orphans()
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and store.totals()["responses"] == 60


# --- the server's side of it ---


def test_what_is_stored_can_be_replayed_token_for_token() -> None:
    with serving(Script(lambda _: FINAL), Settings(port=0, store="memory")) as served:
        done = served.client().responses.create(model="scripted", input="hi")
        kept = served.host.store.find(done.id, "") if served.host.store else None
        assert kept is not None and kept.tokens is not None
        assert kept.tokens["sampled"] == E.encode_with_special(FINAL)
        assert ids_of(parse(kept.tokens["sampled"], E)) == kept.tokens["sampled"]
        assert E.decode(kept.tokens["prompt"]).endswith("hi<|end|><|start|>assistant")


def test_a_response_that_cannot_be_stored_is_not_completed() -> None:
    with serving(Script(lambda _: FINAL), Settings(port=0, store="memory")) as served:
        assert served.host.store is not None
        with served.host.store._db.writing() as c:
            c.execute(
                sa.text("CREATE TRIGGER no BEFORE UPDATE ON responses BEGIN SELECT RAISE(ABORT, 'disk'); END")
            )
        events = list(served.client().responses.create(model="scripted", input="hi", stream=True))
    assert events[-1].type == "response.failed" and "stored" in events[-1].response.error.message


def test_it_is_durable_before_the_stream_says_so() -> None:
    """When `completed` arrives, the database already has it: every time, not mostly."""
    with serving(Script(lambda _: FINAL), Settings(port=0, store="memory")) as served:
        assert served.host.store is not None
        for _ in range(10):
            for event in served.client().responses.create(model="scripted", input="hi", stream=True):
                if event.type == "response.completed":
                    kept = served.host.store.find(event.response.id, "")
                    assert kept is not None and kept.status == "completed"


# --- several servers, one database ---


def test_servers_share_what_they_keep(pg: str) -> None:
    emptied(pg)
    settings = Settings(port=0, store=pg)
    words = "<|channel|>final<|message|>" + "word " * 3000
    with (
        serving(Script(lambda p: words if "long" in p else FINAL, pause_s=0.01), settings) as one,
        serving(Script(lambda _: FINAL), settings) as two,
    ):
        a, b = one.client().responses, two.client().responses
        first = a.create(model="scripted", input="hi")
        assert b.retrieve(first.id).model_dump() == first.model_dump()
        assert b.create(model="scripted", input="more", previous_response_id=first.id).status == "completed"
        running = a.create(model="scripted", input="long", background=True)
        assert b.retrieve(running.id).status in ("queued", "in_progress")
        with pytest.raises(ConflictError):
            b.create(model="scripted", input="more", previous_response_id=running.id)
        followed: list[str] = []
        listener = threading.Thread(
            target=lambda: followed.extend(e.type for e in b.retrieve(running.id, stream=True))
        )
        listener.start()
        over = b.cancel(running.id)
        listener.join(20)
        assert over.status == "cancelled" and followed[0] == "response.created" and "word" in over.output_text
        assert a.retrieve(running.id).model_dump() == over.model_dump()
        doomed = a.create(model="scripted", input="long", background=True)
        b.delete(doomed.id)
        with pytest.raises(NotFoundError):
            a.retrieve(doomed.id)
        assert not one.host.runs


# --- the command ---


def test_the_command_forgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "r.sqlite"
    store = Store(url_of(str(where)) or "")
    for id, owner in (("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")):
        store.begin(record(id, "completed", owner))
    age(store, "3", 3 * 86_400)

    def forget(*options: str) -> dict[str, Any]:
        assert run(["forget", "--store", str(where), "--json", *options]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return said

    assert forget()["responses"] == 4
    assert forget("--older-than", "2", "--key", "a")["forgotten"] == 0
    assert forget("--older-than", "2")["forgotten"] == 1
    assert forget("--id", "1", "--id", "4")["forgotten"] == 2
    assert forget("--key", "a") | {"first": 0, "last": 0} == {
        "forgotten": 1, "responses": 0, "unfinished": 0, "conversations": 0, "owners": 0, "first": 0, "last": 0,
    }  # fmt: skip
    store.close()
    with pytest.raises(UsageError):
        run(["forget", "--store", "none"])
    with pytest.raises(UserError):
        run(["forget", "--store", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


# --- kill -9 ---


def begin(store: str) -> tuple[subprocess.Popen[str], OpenAI]:
    command = [sys.executable, "-m", "motet", "serve", "--port", "0", "--store", store, "--threads", "1"]
    p = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert p.stderr is not None
    found = re.search(r"(http://\S+)/v1", p.stderr.readline())
    assert found
    return p, OpenAI(base_url=f"{found[1]}/v1", api_key="x", max_retries=0)


def ask(client: OpenAI, rng: random.Random, begun: set[str], finished: set[str]) -> None:
    """Asks until the server is dead."""
    question = f"What is {rng.randrange(10, 99)} * {rng.randrange(10, 99)}?"
    try:
        while True:
            if rng.random() < 0.3:
                begun.add(client.responses.create(model="mini", input=question, background=True).id)
            for event in client.responses.create(model="mini", input=question, stream=True):
                if event.type == "response.created":
                    begun.add(event.response.id)
                if event.type == "response.completed":
                    finished.add(event.response.id)
    except Exception:
        return


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_server_killed_at_any_moment_loses_no_finished_response(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import os

    rounds = (20 if os.environ.get("MOTET_FUZZ") == "full" else 2) if kind == "sqlite" else 1
    rng = random.Random(5)
    where = str(tmp_path / "r.sqlite")
    if kind == "postgresql":
        where = request.getfixturevalue("pg")
        emptied(where)
    begun: set[str] = set()
    finished: set[str] = set()
    for _ in range(rounds):
        p, client = begin(where)
        threads = [
            threading.Thread(target=ask, args=(client, random.Random(rng.random()), begun, finished))
            for _ in range(4)
        ]
        before, end = len(finished), time.monotonic() + 60
        for t in threads:
            t.start()
        while len(finished) < before + 3 or not begun - finished:
            assert time.monotonic() < end, "nothing was finished, or nothing was interrupted"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        p.send_signal(signal.SIGKILL)
        p.wait()
        for t in threads:
            t.join(30)
    assert finished and begun - finished, "nothing was finished, or nothing was interrupted"
    p, client = begin(where)
    try:
        said = [client.responses.retrieve(id) for id in begun]
        for r in said:
            assert r.status in ("completed", "failed", "incomplete", "cancelled")
            assert r.status == "completed" or r.id not in finished
            events = list(client.responses.retrieve(r.id, stream=True))
            assert events[-1].type == f"response.{r.status}"
            if r.status == "completed":
                assert r.output_text and r.usage and events[-1].response.output == r.output
            elif r.status == "failed":
                assert r.error is not None and "ended" in r.error.message
                # whoever was in the middle of the stream is told too
                late = list(client.responses.retrieve(r.id, stream=True, starting_after=17))
                assert [e.type for e in late] == ["response.failed"] and late[0].sequence_number == 18
        assert any(r.status == "failed" for r in said)
    finally:
        p.kill()
        p.wait()
    store = Store(url_of(where) or "")
    for r in said:
        kept = store.find(r.id, "")
        assert kept is not None
        for event in kept.events:
            validate(event)
    if kind == "sqlite":
        with store._db.reading() as c:
            assert c.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_background_responses_of_a_killed_server_fail_and_say_so(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "r.sqlite")
    if kind == "postgresql":
        where = request.getfixturevalue("pg")
        emptied(where)
    p, client = begin(where)
    ask: dict[str, Any] = {"model": "mini", "reasoning": {"effort": "high"}, "background": True}
    begun = [client.responses.create(input=f"What is {n} * {n + 7}?", **ask) for n in range(20, 28)]
    p.send_signal(signal.SIGKILL)
    p.wait()
    p, client = begin(where)
    try:
        found = [client.responses.retrieve(b.id) for b in begun]
        lost = [r for r in found if r.status == "failed"]
        assert {r.status for r in found} <= {"completed", "failed"} and lost
        for r in lost:
            assert r.background and r.error is not None
            assert r.error.message == "The server ended before this response was complete; ask again."
            assert client.responses.cancel(r.id).model_dump() == r.model_dump()
            events = list(client.responses.retrieve(r.id, stream=True))
            assert [e.type for e in events] == ["response.failed"]
        more = client.responses.create(model="mini", input="What is 2 + 3?", previous_response_id=lost[0].id)
        assert more.status == "completed", "one can go on from where it failed"
    finally:
        p.kill()
        p.wait()


def test_a_second_server_is_refused_the_file_of_the_first(tmp_path: Path) -> None:
    where = str(tmp_path / "r.sqlite")
    p, client = begin(where)
    try:
        command = [sys.executable, "-m", "motet", "serve", "--port", "0", "--store", where]
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 1 and "Another server uses this store" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert client.responses.create(model="mini", input="What is 2 + 3?").status == "completed"
    finally:
        p.kill()
        p.wait()


def test_conversations_are_found_by_their_words(store: Store) -> None:
    for n, (asked, said) in enumerate(
        [("On owls", "They hunt."), ("On % and _", 'a "quoted" word'), ("Où est l'ÉTÉ?", "output role user")]
    ):
        r = record(f"{n}", asked=asked)
        store.begin(r)
        thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "canary"}]}
        part = {"type": "output_text", "text": said}
        r.response |= {
            "status": "completed",
            "output": [thought, {"type": "message", "content": [part]}],
        }
        store.end(r)
    store.begin(record("1b", previous="1", asked="and owls"))
    store.rename("2", "a", "Summer")

    def found(words: str, owner: str = "a", limit: int = 9, after: str | None = None) -> list[str]:
        return [c["id"] for c in store.holding(words, owner, limit, after) or ()]

    assert (
        found("OWLS") == ["1", "0"] and found("owls", limit=1) == ["1"] and found("owls", after="1") == ["0"]
    )
    assert found("hunt.") == ["0"] and found('"quoted"') == ["1"] and found("%") == ["1"]
    assert found("l'été") == ["2"] and found("summer") == ["2"] and found("role user") == ["2"]
    assert found("completed") == found("canary") == found("owls", "b") == []
    assert store.holding("x", "a", 5, "none") is None

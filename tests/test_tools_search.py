"""Search services that are busy, broken or slow, played by a server on this machine: exa, youcom and searxng alike."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from motet.errors import UserError
from motet.tools import base
from motet.tools.base import Answer
from motet.tools.browser import BrowserTool, backend
from motet.tools.browser.web import ExaBackend, Fetcher, Limits, SearxngBackend, YouBackend

KEY = "sk-do-not-tell-4711"
LIMITS = Limits(bytes=1 << 20, seconds=20.0, tries=3, backoff_s=0.2)
Reply = tuple[int, dict[str, str], bytes]


class Service(ThreadingHTTPServer):
    """Answers by a plan, the last entry for ever; remembers who asked what, and when."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Reply | Callable[[], Reply]] = []
        self.asked: list[tuple[float, str, dict[str, str]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gaps(self) -> list[float]:
        times = [at for at, _, _ in self.asked]
        return [b - a for a, b in itertools.pairwise(times)]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        said = {k.lower(): v for k, v in self.headers.items()}
        self.server.asked.append((time.monotonic(), self.path, said))
        reply = self.server.plan.pop(0) if len(self.server.plan) > 1 else self.server.plan[0]
        status, headers, body = reply() if callable(reply) else reply
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    yield server
    server.shutdown()
    server.server_close()


ROW = {
    "title": "Owls",
    "url": "https://site.org/owls",
    "content": "said",
    "summary": "said",
    "description": "said",
}
NAMES = ["exa", "youcom", "searxng"]


def found(name: str, rows: Any) -> bytes:
    return json.dumps({"results": {"web": rows} if name == "youcom" else rows}).encode()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EXA_API_KEY", KEY)
    monkeypatch.setenv("YDC_API_KEY", KEY)
    return str(request.param)


def search(name: str, service: Service, limits: Limits = LIMITS) -> Answer:
    fetcher = Fetcher(limits=limits)
    made: Any = {
        "exa": lambda: ExaBackend(fetcher, service.url),
        "youcom": lambda: YouBackend(fetcher, service.url),
        "searxng": lambda: SearxngBackend(service.url, fetcher),
    }
    return BrowserTool(made[name]()).call("browser.search", '{"query": "owls"}')


def test_what_is_found_is_shown(name: str, service: Service) -> None:
    odd = [
        {"url": 3},
        "x",
        None,
        {"title": "no url"},
        {"url": "https://b.org/", "title": ["x"], "snippets": [1, "bit"]},
    ]
    service.plan = [(200, {}, found(name, [ROW, *odd]))]
    answer = search(name, service)
    assert not answer.error and "【0†Owls†site.org】 said" in answer.text and "†b.org】 bit" in answer.text
    assert "【2†" not in answer.text
    assert (service.asked[0][2].get("x-api-key") == KEY) == (name != "searxng")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_busy_service_is_given_the_time_it_asks_for(name: str, form: str, service: Service) -> None:
    def busy() -> Reply:
        after = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
        return 429, {"Retry-After": after}, b"{}"

    service.plan = [busy, (200, {}, found(name, [ROW]))]
    assert "Owls" in search(name, service).text
    (gap,) = service.gaps()
    assert gap > 1.9


@pytest.mark.parametrize("after", ["3600", "9" * 400, "date"])
def test_one_that_asks_for_more_than_there_is_is_not_asked_again(
    name: str, after: str, service: Service
) -> None:
    value = formatdate(time.time() + 3600, usegmt=True) if after == "date" else after
    service.plan = [(429, {"Retry-After": value}, b"{}")]
    answer = search(name, service)
    assert answer.error and len(service.asked) == 1
    assert f"127.0.0.1:{service.server_port} answered 429, and asks to wait for " in answer.text


@pytest.mark.parametrize(
    "after", ["soon", "-5", "", "Fri, 31 Feb 2020 00:00:00 GMT", formatdate(0, usegmt=True), "1e9", "\u0663"]
)
def test_times_that_are_none_count_as_none(name: str, after: str, service: Service) -> None:
    service.plan = [
        (503, {"Retry-After": after.encode().decode("latin-1")}, b""),
        (200, {}, found(name, [ROW])),
    ]
    assert "Owls" in search(name, service).text
    assert len(service.asked) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_broken_service_is_asked_three_times_ever_later(name: str, status: int, service: Service) -> None:
    service.plan = [(status, {}, b"<h1>oops</h1>")]
    answer = search(name, service)
    assert answer.error and answer.text.endswith(f"answered {status}")
    first, second = service.gaps()
    assert first > 0.19 and second > 0.39


def test_a_service_that_does_not_answer(name: str, service: Service) -> None:
    service.plan = [lambda: (time.sleep(30), (200, {}, b"{}"))[1]]
    begun = time.monotonic()
    answer = search(name, service, Limits(seconds=1.0, backoff_s=0.1))
    assert answer.error and answer.text.startswith("Error during search for `owls`: ")
    assert time.monotonic() - begun < 15


def test_a_service_that_hangs_up(name: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        there: Any = type("There", (), {"url": f"http://127.0.0.1:{server.getsockname()[1]}"})
        answer = search(name, there)
    assert answer.error and KEY not in answer.text and "\n" not in answer.text


@pytest.mark.parametrize(
    "body",
    [b"", b'{"results": [', b"<html>", b"[]", b"null", b'{"results": 3}', b'{"error": "quota"}', b"[" * 200_000, b"\xff\xfe\x00", b'"\\ud800"'],
)  # fmt: skip
def test_answers_that_are_none(name: str, body: bytes, service: Service) -> None:
    service.plan = [(200, {}, body)]
    answer = search(name, service)
    assert answer.error and len(service.asked) == 1
    assert "did not answer with JSON" in answer.text or "something else than results" in answer.text


@pytest.mark.parametrize("name", ["exa", "youcom"], indirect=True)
@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 429, 500])
def test_keys_are_told_to_nobody(
    name: str, status: int, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Not to the model, not to a log, not to another host the service sends us to."""
    other = Service()
    try:
        other.plan = [(200, {}, found(name, [ROW]))]
        headers = {"Location": f"{other.url}/x?y=1"} if status < 400 else {}
        service.plan = [(status, headers, json.dumps({"error": "who are you?"}).encode())]
        with caplog.at_level(logging.DEBUG):
            answer = search(name, service, Limits(seconds=20.0, backoff_s=0.01))
        assert service.asked[0][2]["x-api-key"] == KEY
        assert KEY not in answer.text and KEY not in caplog.text
        assert all(KEY not in str(asked) for asked in other.asked)
        if status in (401, 403):
            variable = {"exa": "EXA_API_KEY", "youcom": "YDC_API_KEY"}[name]
            assert answer.text.endswith(f"answered {status}: it does not accept the key in {variable}")
    finally:
        other.shutdown()
        other.server_close()


@pytest.mark.parametrize("bad", [f"{KEY}\nX: y", f"{KEY} {KEY}", f"{KEY}\u00e9", f"{KEY}\x00"])
@pytest.mark.parametrize(("service_name", "variable"), [("exa", "EXA_API_KEY"), ("youcom", "YDC_API_KEY")])
def test_a_key_that_is_none_is_said_without_it(
    service_name: str, variable: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "\x00" in bad:
        monkeypatch.setattr("os.environ", {variable: bad})  # a real one cannot hold it
    else:
        monkeypatch.setenv(variable, bad)
    with pytest.raises(UserError, match=f"{variable} holds no key") as said:
        backend(service_name)
    assert KEY not in str(said.value)


def test_who_no_longer_waits_is_let_go(name: str, service: Service) -> None:
    service.plan = [(429, {"Retry-After": "15"}, b"{}")]
    run = base.Run()
    threading.Timer(0.5, run.stop.set).start()
    token = base._RUN.set(run)
    begun = time.monotonic()
    try:
        assert search(name, service).error
    finally:
        base._RUN.reset(token)
    assert time.monotonic() - begun < 10

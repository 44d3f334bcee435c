"""The server around its routes: keys and their bounds, sizes, slow clients, metrics, the end of the process."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, OpenAI, RateLimitError

from motet.errors import UsageError, UserError
from motet.model import load
from motet.server import auth
from motet.server.settings import Limits, Settings
from serving import Script, Served, serving

HI: list[Any] = [{"role": "user", "content": "hi"}]
FINAL = (
    "<|channel|>analysis<|message|>canary<|end|><|start|>assistant<|channel|>final<|message|>fine<|return|>"
)
LONG = "<|channel|>final<|message|>" + "word " * 3000


def status(
    served: Served, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


# --- keys ---


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "keys.json"
    made = {
        "all": auth.add(path, "all"),
        "hidden": auth.add(path, "hidden", thinking="hide"),
        "single": auth.add(path, "single", concurrency=1),
        "slow": auth.add(path, "slow", requests_per_minute=2),
        "poor": auth.add(path, "poor", tokens_per_day=10),
    }
    return path, made


def test_a_key_file_holds_no_key(keys: tuple[Path, dict[str, str]]) -> None:
    path, made = keys
    text = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert not any(k in text or k.removeprefix(auth.PREFIX) in text for k in made.values())
    found = auth.Keys(path)
    for name, key in made.items():
        known = found.find(f"Bearer {key}")
        assert known is not None and known.name == name
    for wrong in (
        None,
        "",
        "Bearer",
        "Bearer x",
        f"Basic {made['all']}",
        f"Bearer {made['all']}x",
        "Bearer é",
    ):
        assert found.find(wrong) is None
    with pytest.raises(UserError, match="already"):
        auth.add(path, "all")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"keys": [{"name": "a"}]}', '{"keys": [{"name": "a", "sha256": "x"}]}', '{"keys": 3}',
             '{"keys": [{"name": "a", "sha256": "' + "0" * 64 + '", "what": 1}]}', '{"keys": []}'],
)  # fmt: skip
def test_a_bad_key_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(UserError) as error:
        auth.Keys(tmp_path / "k.json")
    assert str(tmp_path) not in str(error.value)


def test_every_route_but_health_wants_a_key(keys: tuple[Path, dict[str, str]]) -> None:
    path, made = keys
    with serving(Script(FINAL), Settings(port=0, keys=path, store="none")) as served:
        schema = json.loads(status(served, "/openapi.json", Authorization=f"Bearer {made['all']}")[2])
        for route, methods in schema["paths"].items():
            for method in methods:
                code, headers, body = status(served, route.replace("{", "").replace("}", ""), method.upper())
                if route == "/health":
                    assert code == 200
                    continue
                assert code == 401 and headers["www-authenticate"] == "Bearer", (route, method)
                assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert status(served, "/openapi.json")[0] == 401 and status(served, "/nowhere")[0] == 401
        with pytest.raises(AuthenticationError):
            served.client("sk-motet-wrong").models.list()
        assert served.client(made["all"]).models.list().data


def test_what_a_key_may(keys: tuple[Path, dict[str, str]]) -> None:
    path, made = keys
    engine = Script(lambda _: FINAL)
    with serving(engine, Settings(port=0, keys=path, store="none")) as served:

        def ask(name: str) -> Any:
            return served.client(made[name]).chat.completions.create(model="scripted", messages=HI)

        assert "canary" in ask("all").model_dump_json() and "canary" not in ask("hidden").model_dump_json()
        ask("slow"), ask("slow")
        with pytest.raises(RateLimitError) as slow:
            ask("slow")
        assert (
            slow.value.code == "rate_limit_exceeded" and int(slow.value.response.headers["retry-after"]) >= 1
        )
        ask("poor")
        with pytest.raises(RateLimitError) as poor:
            ask("poor")
        assert poor.value.code == "insufficient_quota"
        assert set(engine.clients) == {"all", "hidden", "slow", "poor"}


def test_requests_at_once(keys: tuple[Path, dict[str, str]]) -> None:
    path, made = keys
    with serving(Script(lambda _: LONG, pause_s=0.02), Settings(port=0, keys=path, store="none")) as served:
        client = served.client(made["single"])
        stream = client.chat.completions.create(model="scripted", messages=HI, stream=True)
        next(iter(stream))
        with pytest.raises(RateLimitError, match="at once"):
            client.chat.completions.create(model="scripted", messages=HI, max_tokens=1)
        stream.close()
        end = time.monotonic() + 10
        while served.host.meter.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        assert client.chat.completions.create(
            model="scripted", messages=HI, max_tokens=1
        )  # the permit came back


def test_only_this_machine_without_keys() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(UsageError, match="--keys"):
            Settings(host=host)
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        Settings(host=host)


# --- sizes and clocks ---


def test_bodies_and_lists_have_bounds() -> None:
    limits = Limits(body_bytes=20_000, messages=3, tools=2, schema_bytes=500, read_s=0.5)
    tool = {"type": "function", "function": {"name": "f"}}
    big = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(60)}}
    cases: list[tuple[dict[str, Any], int, str | None]] = [
        ({"messages": [{"role": "user", "content": "x" * 30_000}]}, 413, None),
        ({"messages": HI * 4}, 400, "messages"),
        ({"tools": [tool, tool, tool]}, 400, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": big}}]}, 400, "tools[0]"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": big}}}, 400, "response_format"),
    ]  # fmt: skip
    with serving(Script(FINAL), Settings(port=0, limits=limits, store="none")) as served:
        address = served.url.removeprefix("http://")
        for change, code, param in cases:
            connection = http.client.HTTPConnection(address)
            body = json.dumps({"model": "scripted", "messages": HI, **change})
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            assert (reply.status, json.loads(reply.read())["error"]["param"]) == (code, param)
            connection.close()
        # chunked, without a length: counted as it comes
        connection = http.client.HTTPConnection(address)
        pieces = (b"x" * 5_000 for _ in range(10))
        connection.request(
            "POST", "/tokenize", pieces, {"Content-Type": "application/json"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        connection.close()
        # a body that does not arrive
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as s:
            s.sendall(
                b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            assert s.recv(100).startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_read_is_let_go() -> None:
    limits = Limits(send_s=0.5)
    engine = Script(lambda _: "<|channel|>final<|message|>" + "word " * 60_000)
    engine.model.config.max_position_embeddings = 100_000
    with serving(engine, Settings(port=0, limits=limits, store="none")) as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect((host, int(port)))
            body = json.dumps({"model": "scripted", "messages": HI, "stream": True}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            s.sendall(head.encode() + body)
            end = time.monotonic() + 20
            while not (engine.prompts and served.host.meter.in_flight == 0) and time.monotonic() < end:
                time.sleep(0.05)
            assert engine.prompts and served.host.meter.in_flight == 0
        assert status(served, "/health")[0] == 200


def test_no_origin_is_allowed_unless_it_is_named() -> None:
    with serving(Script(FINAL)) as served:
        assert "access-control-allow-origin" not in status(served, "/health", Origin="http://a.example")[1]
    with serving(Script(FINAL), Settings(port=0, cors=("http://a.example",), store="none")) as served:
        headers = status(served, "/health", Origin="http://a.example")[1]
        assert headers["access-control-allow-origin"] == "http://a.example"
        assert "access-control-allow-origin" not in status(served, "/health", Origin="http://b.example")[1]


# --- what is told ---


def test_metrics_tell_counts_and_no_words() -> None:
    with serving(Script(FINAL)) as served:
        served.client().chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "secret words"}]
        )
        text = status(served, "/metrics")[2].decode()
    for wanted in (
        'motet_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'motet_sampled_tokens_total{channel="analysis"} 2.0',
        'motet_sampled_tokens_total{channel="final"} 1.0',
        'motet_turns_total{finish="stop"} 1.0',
        "motet_first_token_seconds_count 1.0",
    ):
        assert wanted in text, wanted
    assert "secret" not in text and "canary" not in text


def test_ready_says_when_the_engine_has_stopped() -> None:
    engine = Script(FINAL)
    with serving(engine) as served:
        assert json.loads(status(served, "/ready")[2])["status"] == "ready"
        engine.alive = False
        assert status(served, "/ready")[0] == 503
        engine.alive = True


def test_the_log_holds_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with serving(Script(FINAL)) as served:
        for text in ("secret words", "x" * 10):
            served.client().chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": text}]
            )
        served.client().with_options(max_retries=0)
        status(served, "/v1/secret-route")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("motet", "uvicorn"))]
    assert not any("secret" in m or "canary" in m for m in ours), ours


def test_the_schema_is_one_and_names_every_field() -> None:
    with serving(Script(FINAL)) as served:
        schema = json.loads(status(served, "/openapi.json")[2])
    request = schema["components"]["schemas"]["ChatRequest"]
    assert {"messages", "tools", "reasoning_effort", "stop", "logit_bias"} <= set(request["properties"])
    assert request["required"] == ["model", "messages"]


# --- the process ---


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [
        sys.executable,
        "-m",
        "motet",
        "serve",
        "--port",
        "0",
        "--store",
        "none",
        "--threads",
        "1",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        try:
            assert p.stderr is not None
            line = p.stderr.readline()
            found = re.search(r"(https?://\S+)/v1", line)
            assert found, line + p.stderr.read()
            yield p, found[1]
        finally:
            p.kill()


def test_the_end_lets_running_answers_finish() -> None:
    """Long ones too: this one may not end before its limit, some seconds after the signal."""
    encoding = load("mini", threads=1).encoding
    never = {str(encoding.special(f"<|{name}|>")): -100 for name in ("end", "return", "call")}
    with process() as (p, url):
        client = OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        got: dict[str, Any] = {}

        def ask() -> None:
            stream = client.chat.completions.create(
                model="mini", messages=[{"role": "user", "content": "What is 47 * 85?"}], stream=True, temperature=0,
                reasoning_effort="high", logit_bias=never, max_completion_tokens=3500, logprobs=True,
            )  # fmt: skip
            for chunk in stream:
                got.setdefault("first", time.monotonic())
                got["finish"] = chunk.choices[0].finish_reason

        thread = threading.Thread(target=ask)
        thread.start()
        while "first" not in got:
            time.sleep(0.002)
        p.send_signal(signal.SIGTERM)
        thread.join(60)
        assert got["finish"] == "length"
        assert p.wait(30) == 0


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)], capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not installed")
    import ssl

    with serving(Script(FINAL), Settings(port=0, tls_cert=cert, tls_key=key, store="none")) as served:
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"{served.url}/health", context=context) as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--keys"),
        (["--keys", "/nonexistent/keys.json"], 1, "--keys"),
        (["--tls-cert", "x.pem"], 2, "--tls-key"),
        (["--model", "nosuch"], 1, "nosuch"),
    ],
)
def test_a_server_that_cannot_start_says_why(options: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "motet", "serve", "--port", "0", *options], capture_output=True, text=True
    )
    assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "nonexistent" not in done.stderr


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        command = [
            sys.executable,
            "-m",
            "motet",
            "serve",
            "--port",
            str(s.getsockname()[1]),
            "--store",
            "none",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "in use" in done.stderr and done.stderr.count("\n") == 1, done.stderr

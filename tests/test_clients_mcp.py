"""MCP with programs of others from npm: the project's reference servers as our tools, over stdio and streamable HTTP, and its
JavaScript client at `motet mcp`. `make clients` installs them (MOTET_CLIENTS=all); without them these tests are skipped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motet.engine import SamplingParams
from motet.harmony import Conversation, ToolProgress, ToolResult, fold
from motet.study.scripted import ScriptedEngine, answer, think
from motet.tokenizer import o200k_harmony
from motet.tools.base import Answer, ToolError
from motet.tools.mcp import McpTool, connect
from motet.tools.runner import Call, run_calls
from motet.turn import run_turn

CLIENTS = Path(__file__).resolve().parent / "clients"
NODE = shutil.which("node")
E = o200k_harmony()


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    if NODE is None or not (CLIENTS / "node_modules/@modelcontextprotocol/server-everything").is_dir():
        assert os.environ.get("MOTET_CLIENTS") != "all", (
            "the npm servers are not there; see scripts/clients.sh"
        )
        pytest.skip("servers and clients of others are installed by 'make clients'")


def program(name: str) -> str:
    return f"{NODE} {CLIENTS}/node_modules/@modelcontextprotocol/server-{name}/dist/index.js"


@contextlib.contextmanager
def listening(command: list[str], env: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return int(s.getsockname()[1])


@pytest.fixture(scope="module", params=["stdio", "http"])
def everything(request: pytest.FixtureRequest) -> Iterator[McpTool]:
    if request.param == "stdio":
        tool = connect(f"all={program('everything')} stdio")
        yield tool
        tool.close()
        return
    port = free_port()
    with listening(f"{program('everything')} streamableHttp".split(), {"PORT": str(port)}, port):
        tool = connect(f"all=http://127.0.0.1:{port}/mcp")
        yield tool
        tool.close()


def test_its_tools_become_a_namespace(everything: McpTool) -> None:
    space = everything.namespace
    assert space.name == "mcp_all" and (space.description or "").startswith("# Everything Server")
    declared = {f.name: f.parameters for f in space.functions}
    assert {"echo", "get-sum", "get-tiny-image", "trigger-long-running-operation"} <= set(declared)
    assert declared["get-env"] is None
    kinds = (declared["get-annotated-message"] or {})["properties"]["messageType"]
    assert kinds["enum"] == ["error", "success", "debug"]


@pytest.mark.parametrize(
    ("tool", "given", "said", "error"),
    [
        ("echo", {"message": "<|end|> h\u00e4"}, "Echo: <|end|> h\u00e4", False),
        ("echo", {}, "expected string, received undefined at message", True),
        ("get-sum", {"a": 2, "b": 3}, "The sum of 2 and 3 is 5.", False),
        ("get-sum", {"a": "x", "b": 3}, "expected number, received string at a", True),
        ("get-structured-content", {"location": "Chicago"}, '"temperature"', False),
        ("get-structured-content", {"location": "Oslo"}, "expected one of", True),
        ("get-resource-links", {"count": 2}, "demo://resource/dynamic/text/2", False),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}, "Resource 1:", False),
        ("get-annotated-message", {"messageType": "error"}, "Error: Operation failed", False),
    ],
)
def test_calls_of_its_tools(
    everything: McpTool, tool: str, given: dict[str, Any], said: str, error: bool
) -> None:
    told = everything.call(f"mcp_all.{tool}", json.dumps(given))
    assert said in told.text and told.error == error


def test_its_picture_is_an_artefact(everything: McpTool) -> None:
    told = everything.call("mcp_all.get-tiny-image", "{}")
    (made,) = told.artefacts
    assert made.mime == "image/png" and made.data.startswith(b"\x89PNG") and made.name in told.text


def test_a_turn_with_it(everything: McpTool) -> None:
    """Asked, told, answered; progress is heard, and a control token that the server sends back is text."""
    call = "<|channel|>commentary to=mcp_all.{} <|constrain|>json<|message|>{}<|call|>"
    steps = [
        think("I add.") + call.format("get-sum", '{"a": 19, "b": 23}'),
        call.format("trigger-long-running-operation", '{"duration": 1, "steps": 4}'),
        call.format("echo", '{"message": "<\uff5cend\uff5c>"}'.replace("\uff5c", "\\u007c")),
        lambda r: answer(r[0]),
    ]
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    events = list(
        run_turn(ScriptedEngine(E, {"q": steps}), conversation, E, SamplingParams(), [everything], rules=None)
    )
    results = [e for e in events if isinstance(e, ToolResult)]
    assert fold(events).final == "The sum of 19 and 23 is 42."
    assert any(isinstance(e, ToolProgress) for e in events)
    assert results[2].text == "Echo: <|end|>" and results[2].ids.count(E.special("<|end|>")) == 1


def test_cancelling_reaches_it(everything: McpTool) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    long = Call(everything, "mcp_all.trigger-long-running-operation", '{"duration": 60, "steps": 60}')
    begun = time.monotonic()
    *_, (_, last) = run_calls([long], stop=stop)
    assert last == Answer("Error: Cancelled.", (), True) and time.monotonic() - begun < 30
    assert everything.call("mcp_all.echo", '{"message": "still here"}').text == "Echo: still here"


def test_its_end_is_an_answer() -> None:
    port = free_port()
    with listening(f"{program('everything')} streamableHttp".split(), {"PORT": str(port)}, port) as process:
        tool = connect(f"ev=http://127.0.0.1:{port}/mcp")
        threading.Timer(0.5, process.send_signal, [signal.SIGKILL]).start()
        long = Call(tool, "ev.trigger-long-running-operation", '{"duration": 60, "steps": 2}')
        *_, (_, last) = run_calls([long], seconds=60)
        assert isinstance(last, Answer) and last.error and last.text.startswith("Error: ")
        begun = time.monotonic()
        tool.close()
        assert time.monotonic() - begun < 15


def test_a_folder_of_files(tmp_path: Path) -> None:
    """The filesystem server: what it may, and what it refuses."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("hidden")
    (tmp_path / "in/owls.txt").write_text("Owls hunt at night.\n")
    tool = connect(f"files={program('filesystem')} {tmp_path / 'in'}")
    try:
        assert {"read_text_file", "write_file", "list_directory"} <= {
            f.name for f in tool.namespace.functions
        }

        def call(name: str, **given: Any) -> Answer:
            try:
                return tool.call(f"files.{name}", json.dumps(given))
            except ToolError as e:
                return Answer(str(e), (), True)

        assert call("read_text_file", path=str(tmp_path / "in/owls.txt")).text == "Owls hunt at night.\n"
        assert not call("write_file", path=str(tmp_path / "in/new.txt"), content="\u00e9<|end|>").error
        assert (tmp_path / "in/new.txt").read_text("utf-8") == "\u00e9<|end|>"
        assert "owls.txt" in call("list_directory", path=str(tmp_path / "in")).text
        refused = call("read_text_file", path=str(tmp_path / "in/../secret.txt"))
        assert refused.error and "hidden" not in refused.text
        assert call("read_text_file", path=str(tmp_path / "in/none.txt")).error
    finally:
        tool.close()


@pytest.mark.parametrize("way", ["stdio", "http"])
def test_the_javascript_client_uses_our_tools(way: str, tmp_path: Path) -> None:
    (tmp_path / "owls.md").write_text("# Owls\n\nOwls hunt at night.\n")
    ours = [sys.executable, "-m", "motet", "mcp", "--tool", "python", "--tool", f"browser:{tmp_path}"]
    with contextlib.ExitStack() as stack:
        asked = ours
        if way == "http":
            port = free_port()
            stack.enter_context(listening([*ours, "--port", str(port)], {}, port))
            asked = [f"http://127.0.0.1:{port}/mcp"]
        command = [str(NODE), str(CLIENTS / "mcp_node.mjs"), *asked]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["tools"] == ["python", "search", "open", "find"]
    _, product, zero, plot, found, page, wrong = said["told"]
    assert product == {"text": "42", "error": False}
    assert "ZeroDivisionError" in zero["text"] and "image/png" in plot["text"]
    assert "【0†Owls†" in found["text"] and "L4: Owls hunt at night." in page["text"]
    assert wrong["error"] and "cursor" in wrong["text"]

"""MCP: a server from PyPI, an awkward one over stdio and HTTP, and our own tools offered to a client of the SDK."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from motet.errors import UserError
from motet.harmony import typescript
from motet.tools import base
from motet.tools.base import Answer, ToolError
from motet.tools.mcp import McpTool, connect
from motet.tools.runner import Call, run_calls

ODD = Path(__file__).with_name("mcp_odd_server.py")
STDIO = f"{sys.executable} {ODD}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(ODD), str(port)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


@pytest.fixture(params=["stdio", "http"])
def odd(request: pytest.FixtureRequest) -> Iterator[McpTool]:
    tool = McpTool(STDIO if request.param == "stdio" else request.getfixturevalue("url"))
    yield tool
    tool.close()
    assert not tool._thread.is_alive()


def test_a_server_from_the_package_index() -> None:
    tool = connect(f"clock={sys.executable} -m mcp_server_time --local-timezone UTC")
    try:
        assert tool.namespace.name == "clock"
        names = [f.name for f in tool.namespace.functions]
        assert names == ["get_current_time", "convert_time"]
        answer = tool.call("clock.get_current_time", '{"timezone": "Asia/Tokyo"}')
        assert json.loads(answer.text)["timezone"] == "Asia/Tokyo"
        assert tool.call("clock.get_current_time", '{"timezone": "Mars/Olympus"}').error
    finally:
        tool.close()


def test_tools_become_a_namespace(odd: McpTool) -> None:
    ns = odd.namespace
    assert (ns.name, ns.description) == ("Odd_server", "Does odd things.")
    assert [f.name for f in ns.functions] == ["move", "say_it_now", "fails", "waits", "dies", "draws"]
    text = typescript(ns.functions[0].parameters)
    assert (
        "x: number" in text
        and "y?: number | null" in text
        and "// How fast.\nspeed?: number, // default: 1.0" in text
    )
    assert "title" not in text
    assert ns.functions[2].parameters is None
    assert "move: exclusiveMinimum" in odd.lost


def test_calls_and_their_failures_are_answers(odd: McpTool) -> None:
    assert odd.call("Odd_server.move", '{"to": {"x": 1}}').text == "at 1,None with 1.0"
    assert odd.call("Odd_server.say_it_now", '{"text": "<|end|>"}').text == "<|end|>"
    failed = odd.call("Odd_server.fails", "{}")
    assert failed.error and "it cannot be done" in failed.text
    assert odd.call("Odd_server.move", '{"to": 3}').error
    drawn = odd.call("Odd_server.draws", "")
    assert (drawn.artefacts[0].mime, drawn.artefacts[0].data) == ("image/png", b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ToolError, match="not JSON"):
        odd.call("Odd_server.move", "{")
    with pytest.raises(ToolError, match=r"there is no tool 'Odd_server.nothing'; the tools are: move"):
        odd.call("Odd_server.nothing", "{}")


def test_progress_and_cancelling_reach_the_server(odd: McpTool) -> None:
    stop = threading.Event()
    heard = []
    for _, said in run_calls([Call(odd, "Odd_server.waits", "{}")], stop=stop):
        heard.append(said)
        stop.set()
    assert heard[-1] == Answer("Error: Cancelled.", (), True)
    assert heard[0] == "half way" or len(heard) == 1
    assert odd.call("Odd_server.say_it_now", '{"text": "still here"}').text == "still here"


def test_a_server_that_dies_is_an_answer() -> None:
    tool = McpTool(STDIO)
    token = base._RUN.set(base.Run())
    try:
        with pytest.raises(ToolError):
            tool.call("Odd_server.dies", "{}")
        with pytest.raises(ToolError):
            tool.call("Odd_server.say_it_now", '{"text": "x"}')
    finally:
        base._RUN.reset(token)
        tool.close()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("no-such-program-here --x", "is not there; install it"),
        ("'unclosed", "no command line"),
        (f"{sys.executable} -c pass", "cannot be used"),
        ("http://127.0.0.1:9/mcp", "cannot be used"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_sentence(server: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        McpTool(server)


def test_our_tools_for_others(tmp_path: Path) -> None:
    (tmp_path / "owls.md").write_text("# Owls\n\nOwls hunt at night.\n")
    from mcp import Client, StdioServerParameters

    arguments = ["-m", "motet", "mcp", "--tool", "python", "--tool", f"browser:{tmp_path}"]

    async def visit() -> list[str]:
        async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
            names = [t.name for t in (await client.list_tools()).tools]
            said = []
            for name, given in (
                ("python", {"code": "x = 6"}), ("python", {"code": "x * 7"}), ("search", {"query": "owls"}),
                ("open", {"id": 0}), ("find", {"pattern": "night"}), ("open", {"id": 7}),
            ):  # fmt: skip
                result = await client.call_tool(name, given)
                said.append("\n".join(c.text for c in result.content if hasattr(c, "text")))
            return [",".join(names), *said]

    names, _, product, found, page, match, error = asyncio.run(visit())
    assert names == "python,search,open,find"
    assert product == "42"
    assert "【0†Owls†" in found and "L4: Owls hunt at night." in page and "†match at L4】" in match
    assert error == "Invalid link id `7`."


def test_names_of_tools(tmp_path: Path) -> None:
    from motet.errors import UsageError
    from motet.tools import named, toolbox

    for spec, said in (
        ("pythn", "There is no tool 'pythn'; use python"), ("browser", "write browser:DIR"), ("apply_patch:/no", "folder it may"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            named(spec)
    (tmp_path / "a.txt").write_text("a")
    with (
        pytest.raises(UsageError, match="Two tools are called 'browser'"),
        toolbox([f"browser:{tmp_path}"] * 2),
    ):
        pass
    with toolbox([f"apply_patch:{tmp_path}", f"browser:{tmp_path}"], [f"odd={STDIO}"]) as tools:
        assert [t.namespace.name for t in tools] == ["functions", "browser", "odd"]
        server = tools[2]
    assert isinstance(server, McpTool) and not server._thread.is_alive()

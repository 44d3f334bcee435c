"""What people really run, on a real socket: the npm client, the Agents SDKs, LangChain, each with two tools.

Questions in the script are played by it, since the embedded model calls no tools; others go to the embedded model on the real
engine. `make clients` installs the clients of others (MOTET_CLIENTS=all); without them these tests are skipped. The published
Python client needs no installing: all of test_server_*.py speaks through it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motet.engine import Engine
from motet.model import load
from motet.server.settings import Settings
from motet.study.scripted import ScriptedEngine, answer, call_function, think
from serving import Script, Served, serving

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = Path(__file__).resolve().parent / "clients"
PYTHON, NODE = ROOT / ".venv-clients/bin/python", shutil.which("node")
QUESTION = "How warm are Paris and Oslo together?"
SUM = "What is 12 * 13?"
CALLED = ["temperature Paris", "temperature Oslo", "add 18 5"]
REMARK = "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant"
STEPS = [
    think("Two cities, so two looks.") + REMARK + call_function("temperature", '{"city": "Paris"}'),
    think("Oslo next.") + call_function("temperature", '{"city": "Oslo"}'),
    lambda seen: call_function("add", f'{{"a": {seen[0]}, "b": {seen[1]}}}'),
    lambda seen: think("Done.") + answer(f"Together {seen[2]} degrees."),
]
NUMBER = [think("Seven will do.") + answer('{"n": 7, "odd": true}')]


class Mixed(Script):
    """Plays what is in the script and asks the real engine the rest."""

    def __init__(self, engine: Engine) -> None:
        encoding = engine.model.encoding
        self.real, self.play = (
            engine,
            ScriptedEngine(encoding, {QUESTION: STEPS, "A number, please.": NUMBER}),
        )
        super().__init__(lambda text: self.play.says(encoding.encode_with_special(text)), encoding=encoding)

    def submit(self, ids: list[int], params: Any, **options: Any) -> Any:
        if f"<|message|>{SUM}<|end|>" in self.encoding.decode(ids):
            return self.real.submit(ids, params, **options)
        return super().submit(ids, params, **options)


@pytest.fixture(scope="module")
def mixed() -> Iterator[Served]:
    model = load("mini")
    kept = Settings(port=0, store="sqlite://")
    with Engine(model) as engine, serving(Mixed(engine), kept, "mini", model.encoding) as served:
        yield served


def run(program: str, served: Served, *arguments: str) -> dict[str, Any]:
    """What a client printed. Skips where it is not installed, unless MOTET_CLIENTS=all."""
    python = program.endswith(".py")
    ready = PYTHON.exists() if python else NODE is not None and (CLIENTS / "node_modules").is_dir()
    if not ready:
        assert os.environ.get("MOTET_CLIENTS") != "all", f"{program} cannot run; see scripts/clients.sh"
        pytest.skip("clients of others are installed by 'make clients'")
    command = [
        str(PYTHON) if python else str(NODE),
        str(CLIENTS / program),
        f"{served.url}/v1",
        "mini",
        *arguments,
    ]
    # Nothing of the surroundings: no key, no tracing, no proxy.
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def prompts(served: Served) -> list[str]:
    return [served.host.engine.encoding.decode(p) for p in served.host.engine.prompts]


APIS = ["chat", "responses"]


@pytest.mark.parametrize("how", ["whole", "stream"])
@pytest.mark.parametrize("api", APIS)
def test_the_agents_sdk_runs_two_tools(mixed: Served, api: str, how: str) -> None:
    mixed.host.engine.prompts.clear()
    said = run("agents_python.py", mixed, api, how, QUESTION)
    assert (said["final"], said["called"], said["requests"]) == ("Together 23 degrees.", CALLED, 4)
    assert said["items"].count("tool_call_item") == said["items"].count("tool_call_output_item") == 3
    assert 0 < said["reasoning_tokens"] < said["output_tokens"] < said["input_tokens"]
    assert how == "whole" or said["pieces"]["response.function_call_arguments.delta"] > 6
    assert len(prompts(mixed)) == 4 and all("Answer from the tools." in p for p in prompts(mixed))


@pytest.mark.parametrize("how", ["whole", "stream"])
@pytest.mark.parametrize("api", APIS)
def test_the_agents_sdk_for_javascript_runs_two_tools(mixed: Served, api: str, how: str) -> None:
    said = run("agents_node.mjs", mixed, api, how, QUESTION)
    assert (said["final"], said["called"]) == ("Together 23 degrees.", CALLED)
    assert (said["pieces"] > 20) == (how == "stream")


@pytest.mark.parametrize("api", APIS)
def test_the_npm_client(mixed: Served, api: str) -> None:
    said = run("openai_node.mjs", mixed, api, QUESTION, SUM)
    assert said["whole"] == said["streamed"] == "156"
    assert (said["agent"], said["called"]) == ("Together 23 degrees.", CALLED)
    assert said["refused"] == {"name": "BadRequestError", "status": 400, "param": "temperature"}
    if api == "chat":
        assert said["models"] == ["mini"] and said["reasoning"] and said["chunks"] > 10
        assert said["usage"]["completion_tokens"] == said["streamUsage"]["completion_tokens"]


@pytest.mark.parametrize("api", APIS)
def test_langchain_through_its_stock_classes(mixed: Served, api: str) -> None:
    said = run("langchain_python.py", mixed, api, QUESTION, SUM)
    assert said["whole"] == said["streamed"] == "156" and said["chunks"] > 3
    assert said["usage"]["output_tokens"] == said["stream_usage"]["output_tokens"] > 10
    assert (said["agent"], said["called"]) == ("Together 23 degrees.", CALLED)
    assert said["held"] == {"n": 7, "odd": True}

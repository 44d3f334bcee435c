"""The transcripts of docs/tools.md are what the tools say today, in text and ids. MOTET_UPDATE_DOCS=1 writes them anew."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from motet.engine import SamplingParams
from motet.harmony import Conversation, ToolResult
from motet.study.scenarios import corpus, weather
from motet.study.scripted import ScriptedEngine, answer
from motet.tokenizer import o200k_harmony
from motet.tools import FunctionTool, Tool
from motet.tools.apply_patch import ApplyPatchTool
from motet.tools.python import PythonTool
from motet.turn import run_turn

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tools.md"
E = o200k_harmony()
TOOLS: dict[str, Callable[[Path], Tool]] = {
    "python": lambda folder: PythonTool(),
    "browser": corpus,
    "function": lambda folder: FunctionTool(weather),
    "apply_patch": lambda folder: ApplyPatchTool((corpus(folder), folder / "valley")[1]),
}
BLOCK = re.compile(r"```transcript (\w+)\n(.*?)\n```", re.S)


def transcript(tool: Tool, calls: list[str]) -> str:
    """What passes between model and tool when these calls are sampled."""
    engine = ScriptedEngine(E, {"q": [*calls, answer("done")]})
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    results = [
        e for e in run_turn(engine, conversation, E, SamplingParams(), [tool]) if isinstance(e, ToolResult)
    ]
    out = []
    for call, result in zip(calls, results, strict=True):
        added = result.ids[:-2]  # without the `<|start|>assistant` that follows
        out.append(
            f"call {call}\nids  {_ids(E.encode_with_special(call))}\nsaid {E.decode(added)}\nids  {_ids(list(added))}"
        )
    return "\n".join(out)


def _ids(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("name", TOOLS)
def test_a_transcript_is_what_the_tool_says(name: str, tmp_path: Path) -> None:
    (written,) = [text for kind, text in blocks() if kind == name]
    calls = re.findall(r"^call (.*?<\|call\|>)", written, re.S | re.M)
    tool = TOOLS[name](tmp_path)
    try:
        said = transcript(tool, calls)
    finally:
        getattr(tool, "close", lambda: None)()
    if os.environ.get("MOTET_UPDATE_DOCS"):
        page = PAGE.read_text("utf-8")
        PAGE.write_text(
            page.replace(f"```transcript {name}\n{written}\n", f"```transcript {name}\n{said}\n"), "utf-8"
        )
    assert said == written or os.environ.get("MOTET_UPDATE_DOCS")


def test_every_tool_is_shown() -> None:
    assert [kind for kind, _ in blocks()] == list(TOOLS)

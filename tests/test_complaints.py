"""What users of other servers of gpt-oss complain about, tried on this one; docs/complaints.md names a test for each.

Here stand those that only a whole server can show; `Script` writes what a model is known to write, unhindered by the grammar.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harmony_corpus import CORPUS
from motet.server.settings import Settings
from serving import E, Script, Served, serving

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/complaints.md"
KEPT = Settings(port=0, store="sqlite://")
THINK = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>It is 5.<|return|>"
F: Any = {
    "name": "f",
    "description": "Does.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
HI: Any = [{"role": "user", "content": "hi"}]
CHAT_TOOLS: Any = [{"type": "function", "function": F}]
TOOLS: Any = [{"type": "function", "strict": False, **F}]


def test_every_complaint_has_a_line_that_holds() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [int(n) for n, _, _ in rows] == list(range(1, 28))
    for n, _, answer in rows:
        tests = re.findall(r"`(test_\w+)::(test_\w+)`", answer)
        assert tests or answer.startswith("does not apply"), n
        for file, name in tests:
            tree = ast.parse((HERE / f"{file}.py").read_text("utf-8"))
            assert name in {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}, (
                f"{n}: {file}::{name}"
            )


def both(
    served: Served, chat: dict[str, Any] | None = None, **more: Any
) -> Iterator[tuple[str, str, str, list[Any]]]:
    """(content, thinking, how it ended, calls) of one request in both APIs, whole and streamed."""
    client = served.client()
    m = {"model": "scripted", "messages": HI, "tools": CHAT_TOOLS, **more, **(chat or {})}
    message = client.chat.completions.create(**m).choices[0]
    calls = [(c.function.name, c.function.arguments) for c in message.message.tool_calls or ()]  # type: ignore[union-attr]
    extra = message.message.model_extra or {}
    said = (message.message.content or "") + (message.message.refusal or "")
    yield said, extra.get("reasoning") or "", message.finish_reason, calls
    text, thought, end, pieces = "", "", "", dict[int, list[str]]()
    for chunk in client.chat.completions.create(**m, stream=True):
        delta, end = chunk.choices[0].delta, chunk.choices[0].finish_reason or end
        text += (delta.content or "") + (delta.refusal or "")
        thought += (delta.model_extra or {}).get("reasoning") or ""
        for t in delta.tool_calls or ():
            assert t.function is not None
            pieces.setdefault(t.index, [t.function.name or "", ""])[1] += t.function.arguments or ""
    yield text, thought, end, [tuple(p) for p in pieces.values()]
    r = {"model": "scripted", "input": "hi", "tools": TOOLS, **more}
    for response in (
        client.responses.create(**r),
        list(client.responses.create(**r, stream=True))[-1].response,
    ):
        parts = [p for i in response.output if i.type == "message" for p in i.content]
        said = [getattr(p, "text", "") or getattr(p, "refusal", "") for p in parts]
        text = "\n\n".join(t for t in said if t)
        thought = "\n\n".join(
            p.text for i in response.output if i.type == "reasoning" for p in i.content or ()
        )
        calls = [(i.name, i.arguments) for i in response.output if i.type == "function_call"]
        yield text, thought, response.status, calls


def test_no_malformed_reply_fails_a_request_or_vanishes() -> None:
    """The whole corpus of forms seen in the field, through both APIs, whole and streamed."""
    texts = {E.decode(E.encode_with_special(c.text)): c.text for c in CORPUS.values() if c.text}
    said = iter([t for t in texts.values() for _ in range(4)])
    with serving(Script(lambda _: next(said), free=True), KEPT) as served:
        for text in texts.values():
            seen = list(both(served))
            for content, thought, end, calls in seen:
                assert content or thought or calls or end in ("length", "incomplete"), text
                assert (
                    not re.search(r"<\|(start|channel|message|end|call|return|constrain)\|>", content)
                    or "<|" in text
                )
            assert len({(c, t, tuple(k)) for c, t, _, k in seen}) == 1, (text, seen)


@pytest.mark.parametrize(
    "call",
    [
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
        '<|channel|>commentary to=functions.f<|channel|>commentary <|constrain|>json<|message|>{"a": 1}<|call|>',
        ' to=functions.f<|channel|>commentary<|message|>{"a": 1}<|call|>',
        '<|channel|>analysis to=functions.f<|message|>{"a": 1}<|call|>',
        '<|channel|>commentary to=f json<|message|>{"a": 1}<|call|>',
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|end|>',
    ],
    ids=[
        "as trained",
        "channel twice",
        "role first",
        "on analysis",
        "without functions",
        "ended as a message",
    ],
)
def test_a_call_is_a_call_however_its_header_is_written(call: str) -> None:
    with serving(Script(lambda _: THINK + call, free=True), KEPT) as served:
        for content, thought, _, calls in both(served):
            assert (content, thought, calls) == ("", "hm", [("f", '{"a": 1}')])


def test_an_answer_on_commentary_is_an_answer_where_there_are_no_tools() -> None:
    with serving(
        Script(lambda _: THINK + "<|channel|>commentary<|message|>It is 5.<|return|>", free=True), KEPT
    ) as served:
        for content, thought, end, _ in both(served, tools=None):
            assert (content, thought) == ("It is 5.", "hm") and end in ("stop", "completed")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("functions.f", True), ("browser.search", False), ("python", False), ("functions.g", False)],
)
def test_a_tool_that_was_not_offered_cannot_be_called(name: str, allowed: bool) -> None:
    """The script writes the call whatever the mask says, and is stopped where a model could not have gone."""
    call = THINK + f"<|channel|>commentary to={name} <|constrain|>json<|message|>{{}}<|call|>"
    with serving(Script(lambda _: call), KEPT) as served:
        status, _ = _post(served, "chat/completions", {"messages": HI, "tools": CHAT_TOOLS})
    assert (status == 200) == allowed


@pytest.mark.parametrize(
    ("asked", "got"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), (None, "medium")],
)
def test_effort_and_identity_reach_the_prompt(asked: str | None, got: str) -> None:
    engine = Script(lambda _: FINAL)
    with serving(engine, KEPT) as served:
        client = served.client()
        chosen: Any = {} if asked is None else {"reasoning_effort": asked}
        client.chat.completions.create(
            model="scripted", messages=HI, extra_body={"harmony": {"identity": "You are Ada."}}, **chosen
        )
        reasoning: Any = {} if asked is None else {"reasoning": {"effort": asked}}
        client.responses.create(model="scripted", input="hi", **reasoning)
    prompts = [E.decode(p) for p in engine.prompts]
    assert all(f"Reasoning: {got}" in p for p in prompts)
    assert "You are Ada." in prompts[0] and "You are ChatGPT" not in prompts[0]


def test_a_schema_that_cannot_be_held_is_refused_and_nothing_is_sampled() -> None:
    engine = Script(lambda _: FINAL)
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "b"}}}}
    inner = {"name": "n", "strict": True, "schema": schema}
    with serving(engine, KEPT) as served:
        for api, body in (
            (
                "chat/completions",
                {"messages": HI, "response_format": {"type": "json_schema", "json_schema": inner}},
            ),
            ("responses", {"input": "hi", "text": {"format": {"type": "json_schema", **inner}}}),
        ):
            reply = _post(served, api, body)
            assert reply[0] == 400 and "not" in reply[1]["error"]["message"], reply
    assert not engine.prompts


def _post(served: Served, api: str, body: dict[str, Any]) -> tuple[int, Any]:
    import httpx

    reply = httpx.post(f"{served.url}/v1/{api}", json={"model": "scripted", **body})
    return reply.status_code, json.loads(reply.content)

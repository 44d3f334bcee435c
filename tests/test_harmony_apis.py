"""Harmony and the two OpenAI APIs: every conversation survives the way out and back; bad input is one sentence with a path."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harmony_oracle as ho
from motet.errors import UsageError
from motet.harmony import (
    BROWSER,
    PYTHON,
    Conversation,
    DeveloperContent,
    Function,
    Message,
    Namespace,
    ResponseFormat,
    SystemContent,
    render,
)
from motet.tokenizer import o200k_harmony

FULL = os.environ.get("MOTET_FUZZ") == "full"
E = o200k_harmony()
many = settings(max_examples=10_000 if FULL else 300, deadline=None, derandomize=not FULL)
FORMATS: dict[str, tuple[Callable[[Conversation], Any], Callable[[Any], Conversation]]] = {
    "chat": (Conversation.to_chat, Conversation.from_chat),
    "responses": (Conversation.to_responses, Conversation.from_responses),
    "harmony": (Conversation.to_harmony, Conversation.from_harmony),
}
JSON = "<|constrain|>json"


def likely(rng: ho.Draw) -> Conversation:
    """A conversation as clients have them: thinking, remarks, calls side by side, results in any order, odd headers too."""
    spaces = rng.sample([BROWSER, PYTHON], rng.randrange(3))
    system = SystemContent(
        date=rng.maybe("2026-01-02"), effort=rng.choice(["low", "high"]), namespaces=tuple(spaces)
    )
    functions = tuple(Function(n, rng.text(), rng.maybe(rng.parameters()), rng.random() < 0.3) for n in "fgh")
    ours = (Namespace("functions", None, functions),) if rng.random() < 0.7 else ()
    schema = rng.choice(
        [(), (ResponseFormat("answer", {"type": "object", "properties": {}}, rng.text(), True),)]
    )
    out = [Message("system", system)]
    if rng.random() < 0.8:
        out.append(
            Message("developer", DeveloperContent(rng.maybe(rng.text()), ours, rng.choice([(), (), schema])))
        )
    say = lambda channel: Message("assistant", texts(rng), channel)  # noqa: E731
    for _ in range(rng.randrange(5)):
        out.append(Message("user", texts(rng), name=rng.maybe("bob", 0.1)))
        for _ in range(rng.randrange(4)):
            out += [say("analysis")] * rng.randrange(2) + [say("commentary")] * rng.choice([0, 0, 1])
            out += calls(rng, len(out))
        if rng.random() < 0.8:
            out += [say("final")]
        if rng.random() < 0.1:
            out.append(Message("developer", DeveloperContent(rng.text())))
    return Conversation.of(*out)


def texts(rng: ho.Draw) -> Any:
    return rng.text() if rng.random() < 0.8 else (rng.text(), rng.text())


def calls(rng: ho.Draw, n: int) -> list[Message]:
    made: list[Message] = []
    for k in range(rng.randrange(3)):
        to, channel, kind = rng.choice([(f"functions.{rng.choice('fgh')}", "commentary", JSON)] * 4 + [
            ("python", "analysis", "code"), ("browser.search", "analysis", "code"), ("f", "commentary", None),
            ("functions.g", "analysis", "code"), ("server.find", "commentary", JSON)])  # fmt: skip
        text = rng.choice(["{}", '{"query": "x", "topn": 3}', "", rng.text()])
        made.append(Message("assistant", text, channel, to, kind, None, rng.maybe(f"id{n}.{k}", 0.7)))
    results = [
        Message("tool", texts(rng), c.channel, "assistant", None, c.recipient, c.call_id) for c in made
    ]
    if rng.random() < 0.5:  # one after the other
        return [m for pair in zip(made, results, strict=True) for m in pair]
    if not all(r.call_id for r in results):  # without ids, only the order tells which call a result answers
        return made + results
    if len({r.name for r in results}) == len(results):
        rng.shuffle(results)
    return made + results[: rng.randrange(len(results) + 1)]


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FORMATS)
def test_import_of_export_is_the_conversation(name: str, compared: Any) -> None:
    """Also through JSON, and for conversations no client would write; the model sees the same ids."""
    out, back = FORMATS[name]

    @given(draw=ho.draws)
    @many
    def one(draw: ho.Draw) -> None:
        for c in (likely(draw), draw.conversation()):
            request = json.loads(json.dumps(out(c)))
            again = back(request)
            assert again == c
            assert render(again, E, history="keep") == render(c, E, history="keep")
            assert out(again) == request
            compared(f"conversations led out to {name} and back")

    one()


@pytest.mark.fuzz
@given(draw=ho.draws)
@many
def test_ids_still_tie_calls_and_results(draw: ho.Draw) -> None:
    c = likely(draw)
    given = [m.call_id for m in c.messages]
    for out, back in FORMATS.values():
        found = [m.call_id for m in back(out(c)).messages]
        assert all(b == a for a, b in zip(given, found, strict=True) if a is not None)


REQUEST = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "q"},
        {"role": "assistant", "reasoning": "hm", "content": "Looking.", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"n": 2}'}}]},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "assistant", "reasoning_content": "so", "content": "Done."},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {"anyOf": [
        {"type": "integer"}, {"type": "null"}], "minimum": 1}}}, "strict": True}}, {"type": "web_search"}],
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "out", "schema": {"type": "object"}, "strict": True}},
}  # fmt: skip
ITEMS = {
    "instructions": "Be brief.",
    "input": [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": [
            {"type": "output_text", "text": "Looking.", "annotations": []}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"n": 1}', "id": "fc_1", "status": "completed"},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": '{"n": 2}'},
        {"type": "function_call_output", "call_id": "b", "output": "two"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "one"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        {"type": "message", "role": "assistant", "content": "Done.", "phase": "final_answer"},
    ],
    "tools": [{"type": "function", **REQUEST["tools"][0]["function"]}, {"type": "web_search"}],  # type: ignore[index]
    "reasoning": {"effort": "high"},
    "text": {"format": {"type": "json_schema", "name": "out", "schema": {"type": "object"}, "strict": True}},
}  # fmt: skip


def test_both_apis_say_the_same_conversation() -> None:
    chat, items = Conversation.from_chat(REQUEST), Conversation.from_responses(ITEMS)
    assert chat == items
    ids = render(chat, E)
    text = E.decode(ids)
    assert "# Instructions\n\nBe brief.\n\nBe kind.\n\n# Tools\n\n## functions" in text
    assert '# Response Formats\n\n## out\n\n{"type":"object"}<|end|>' in text
    assert "## browser" in text and "n?: number | null" in text
    assert chat.lost == ("f: minimum",)
    running = Conversation(
        chat.messages[:-1]
    )  # without the answer, the thinking before the calls is still there
    assert E.decode(render(running, E)).endswith(
        "<|channel|>analysis<|message|>hm<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Looking.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"n": 1}<|call|>'
        '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"n": 2}<|call|>'
        "<|start|>functions.f<|channel|>commentary to=assistant<|message|>one<|end|>"
        "<|start|>functions.f<|channel|>commentary to=assistant<|message|>two<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>so<|end|><|start|>assistant"
    )


def test_what_is_exported_looks_like_the_api() -> None:
    c = Conversation.from_chat(REQUEST)
    out = c.to_chat()
    assert out["tools"][1] == REQUEST["tools"][0]  # type: ignore[index]  # the schema as it was given
    assert out["messages"][2] == {**REQUEST["messages"][3]}  # type: ignore[index]
    assert out["messages"][3] == {"role": "tool", "tool_call_id": "a", "content": "one"}
    assert out["messages"][5] == {"role": "assistant", "content": "Done.", "reasoning": "so"}
    items = c.to_responses()
    assert [i["type"] for i in items["input"]] == ["message", "reasoning", "message", "function_call", "function_call",
        "function_call_output", "function_call_output", "reasoning", "message"]  # fmt: skip
    assert items["text"] == ITEMS["text"]
    assert "harmony" not in out and "harmony" not in items


def test_built_in_calls_are_one_item_each() -> None:
    items = [
        {
            "type": "code_interpreter_call",
            "id": "ci",
            "code": "print(1)",
            "outputs": [{"type": "logs", "logs": "1\n"}],
        },
        {
            "type": "web_search_call",
            "id": "ws",
            "action": {"type": "search", "query": "x"},
            "status": "completed",
        },
        {"type": "web_search_call", "action": {"type": "open_page", "url": "u"}, "output": "page"},
        {"type": "mcp_call", "server_label": "srv", "name": "do", "arguments": "{}", "output": "done"},
    ]
    text = E.decode(render(Conversation.from_responses(items), E))
    assert text.endswith(
        "<|start|>assistant to=python<|channel|>analysis <|constrain|>code<|message|>print(1)<|call|>"
        "<|start|>python to=assistant<|channel|>analysis<|message|>1\n<|end|>"
        '<|start|>assistant to=browser.search<|channel|>analysis <|constrain|>code<|message|>{"query": "x"}<|call|>'
        '<|start|>assistant to=browser.open<|channel|>analysis <|constrain|>code<|message|>{"id": "u"}<|call|>'
        "<|start|>browser.open to=assistant<|channel|>analysis<|message|>page<|end|>"
        "<|start|>assistant<|channel|>commentary to=srv.do <|constrain|>json<|message|>{}<|call|>"
        "<|start|>srv.do<|channel|>commentary to=assistant<|message|>done<|end|><|start|>assistant"
    )


def test_absent_ids_are_made_up_the_same_way_every_time() -> None:
    bare = copy.deepcopy(REQUEST["messages"])
    for call in bare[3]["tool_calls"]:  # type: ignore[index]
        del call["id"]
    bare[4:6] = [{"role": "tool", "name": "f", "content": "one"}, {"role": "tool", "content": "two"}]  # type: ignore[index]
    made, again = Conversation.from_chat(bare), Conversation.from_chat(bare)  # type: ignore[arg-type]
    assert [m.call_id for m in made.messages] == [m.call_id for m in again.messages]
    assert [m.call_id for m in made.messages if m.call_id] == ["call_0", "call_1", "call_0", "call_1"]
    assert [m.text for m in made.messages if m.role == "tool"] == ["one", "two"]


def chat(*messages: Any, **more: Any) -> Any:
    return Conversation.from_chat(list(messages), **more)


def items(*given: Any, **more: Any) -> Any:
    return Conversation.from_responses(list(given), **more)


def call(call_id: Any = "a", name: Any = "f") -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "function": {"name": name, "arguments": "{}"}}],
    }


def fcall(call_id: Any = "a") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


USER = {"role": "user", "content": "q"}
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: chat(USER, {"role": "tool", "tool_call_id": "x", "content": "1"}), r"messages\[1\].tool_call_id 'x' names no call"),
    (lambda: chat(call(), call()), r"messages\[1\].tool_calls\[0\].id 'a' is the id of another call"),
    (lambda: chat(call(), *[{"role": "tool", "tool_call_id": "a", "content": "1"}] * 2), r"messages\[2\].* answered twice"),
    (lambda: chat(call("a"), call("b"), {"role": "tool", "content": "1"}), r"messages\[2\].tool_call_id is missing"),
    (lambda: chat(call(7)), r"messages\[0\].tool_calls\[0\].id must be a text, not a number"),
    (lambda: chat(call("a", "f g")), r"messages\[0\].tool_calls\[0\].function.name 'f g' is not legal"),
    (lambda: chat({"role": "user", "content": []}), r"messages\[0\].content is an empty list"),
    (lambda: chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}), r"content\[0\] is of type 'image_url'"),
    (lambda: chat({"role": "user", "content": [{"type": "input_audio"}]}), "reads text only"),
    (lambda: chat({"role": "user", "content": [{"type": "text", "text": 10**400}]}), r"content\[0\].text must be a text"),
    (lambda: chat({"role": "assistant", "content": "x", "channel": "final<|end|>"}), r"messages\[0\].channel is"),
    (lambda: chat({"role": "user", "content": "x", "name": "<|start|>"}), r"messages\[0\].name .* is not legal"),
    (lambda: chat({"role": "tool", "content": "x", "channel": "final", "recipient": "all"}), r"messages\[0\].name is missing"),
    (lambda: chat(None), r"messages\[0\] must be an object .*, not null"),
    (lambda: Conversation.from_chat({"tools": []}), "needs \"messages\""),
    (lambda: Conversation.from_chat("hello"), "messages must be a list"),
    (lambda: chat(USER, tools={"a": 1}), "tools must be a list"),
    (lambda: chat(USER, tools=[{"type": "function", "function": {"name": "f", "strict": 1}}]), r"tools\[0\].function.strict"),
    (lambda: chat(USER, tools=[{"type": "function", "function": {"name": "f"}}] * 2), r"tools\[1\] declares the function 'f'"),
    (lambda: chat(USER, response_format={"type": "xml"}), "response_format.type is 'xml'"),
    (lambda: chat(USER, response_format={"type": "json_schema", "json_schema": {"name": "x"}}), "json_schema.schema must be"),
    (lambda: Conversation.from_chat({"messages": [], "harmony": {"x": 1}}), "no setting 'x'"),
    (lambda: chat(USER, identity=3), "identity must be a text"),
    (lambda: items({"type": "image_generation_call"}), r"input\[0\] is of type 'image_generation_call'"),
    (lambda: items({"role": "user", "content": [{"type": "input_image"}]}), r"input\[0\].content\[0\] is of type 'input_image'"),
    (lambda: items({"role": "user", "content": [{"type": "input_file"}]}), "reads text only"),
    (lambda: items({"type": "function_call_output", "call_id": "z", "output": "1"}), r"input\[0\].call_id 'z' names no call"),
    (lambda: items(fcall(), fcall()), r"input\[1\].call_id 'a' is the id of another call"),
    (lambda: items(fcall(), {"type": "function_call_output", "call_id": "a", "output": None}), r"input\[1\].output is missing"),
    (lambda: items({"type": "reasoning", "encrypted_content": "gAAA", "summary": []}), "encrypted_content cannot be read"),
    (lambda: items({"type": "code_interpreter_call", "code": "1", "outputs": [{"type": "video", "url": "u"}]}), "send logs"),
    (lambda: items({"type": "web_search_call", "action": {"type": "dance"}}), r"input\[0\].action.type is 'dance'"),
    (lambda: items({}), r"input\[0\] is of type 'None'"),
    (lambda: items(USER, tools=[{"type": "file_search"}]), r"tools\[0\] is of type 'file_search'"),
    (lambda: items(USER, instructions=4), "instructions must be a text"),
    (lambda: Conversation.from_responses({"model": "x"}), "needs \"input\""),
    (lambda: Conversation.from_harmony([]), "must be an object"),
]  # fmt: skip


@pytest.mark.parametrize("n", range(len(BAD)))
def test_bad_input_names_the_field(n: int) -> None:
    make, says = BAD[n]
    with pytest.raises(UsageError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_empty_reasoning_says_nothing_and_no_thought_is_lost() -> None:
    assert items({"type": "reasoning", "summary": [], "encrypted_content": None}) == items()
    assert items({"type": "reasoning", "summary": []}, USER).messages[1:] == (Message("user", "q"),)
    c = Conversation.of(
        Message("system", SystemContent()), Message("assistant", "", "analysis"), Message("user", "q")
    )
    assert Conversation.from_responses(c.to_responses()) == c


# --- random JSON: a Conversation or a UsageError, never anything else ---

KEYS = ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id", "call_id", "tool_call_id", "channel",
        "recipient", "content_type", "reasoning", "summary", "encrypted_content", "output", "outputs", "action", "query", "url",
        "phase", "tools", "instructions", "input", "messages", "harmony", "parameters", "strict", "response_format", "json_schema",
        "schema", "format", "properties", "items", "anyOf", "allOf", "$ref", "enum", "const", "default", "refusal", "server_label",
        "channel_config", "valid_channels", "reasoning_effort", "namespaces", "model_identity", "description"]  # fmt: skip
VALUES = ["user", "assistant", "system", "developer", "tool", "function", "message", "reasoning", "function_call", "text", "output_text",
          "function_call_output", "code_interpreter_call", "web_search_call", "mcp_call", "logs", "search", "json_schema", "object",
          "system_content", "developer_content", "functions.f", "f", "python", "final", "analysis", "commentary", "a", "#", "#/a", "",
          "<|start|>", "\ud800", "low", None, True, False, 0, -1, 1.5, 10**400, float("nan"), float("inf")]  # fmt: skip


def junk(rng: random.Random, depth: int = 4) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return rng.choice(VALUES)
    if kind < 0.6:
        return [junk(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): junk(rng, depth - 1) for _ in range(rng.randrange(6))}


def broken(rng: random.Random, value: Any) -> Any:
    """A legal request with some values replaced by junk."""
    if rng.random() < 0.04:
        return junk(rng, 2)
    if isinstance(value, dict):
        return {k: broken(rng, v) for k, v in value.items() if rng.random() > 0.02}
    return [broken(rng, v) for v in value] if isinstance(value, list) else value


@pytest.mark.fuzz
@given(seed=st.integers(0, 2**63))
@settings(max_examples=20_000 if FULL else 500, deadline=None, derandomize=not FULL)
def test_random_json_is_a_conversation_or_a_usage_error(seed: int) -> None:
    rng = random.Random(seed)
    wire = Conversation.from_chat(REQUEST).to_harmony()
    for read, legal in zip((b for _, b in FORMATS.values()), (REQUEST, ITEMS, wire), strict=True):
        for value in (junk(rng), broken(rng, legal)):
            try:
                c = read(value)
                render(c, E)
            except UsageError as e:
                assert "\n" not in str(e) and len(str(e)) < 500
                continue
            for out, back in FORMATS.values():
                back(out(c))


def test_a_name_is_kept_and_a_later_developer_message_stays_where_it_is() -> None:
    c = chat({"role": "user", "content": "q", "name": "bob"}, {"role": "system", "content": "later"})
    assert c.messages[1:] == (
        Message("user", "q", name="bob"),
        Message("developer", DeveloperContent("later")),
    )
    assert replace(c, lost=()) == Conversation.from_chat(c.to_chat())

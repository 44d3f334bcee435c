"""Rendering: equal to the published library token for token, and no text path to a control token."""

from __future__ import annotations

import dataclasses
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

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
    RenderError,
    SystemContent,
    render,
    render_training,
)
from motet.tokenizer import o200k_harmony

FULL = os.environ.get("MOTET_FUZZ") == "full"
many = settings(
    max_examples=10_000 if FULL else 300,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not FULL,
)
E = o200k_harmony()


@pytest.mark.fuzz
def test_equal_to_the_published_library(compared: Any) -> None:
    @given(ho.conversations)
    @many
    def one(conversation: Conversation) -> None:
        same_as_the_library(conversation)
        compared("conversations rendered by both, under two history rules")

    one()


def same_as_the_library(conversation: Conversation) -> None:
    assert render(conversation, E, history="parity") == ho.oracle_ids(conversation)
    assert render(conversation, E, history="keep", next_role=None) == ho.oracle_ids(
        conversation, drop=False, next_role=None
    )


@pytest.mark.fuzz
def test_schemas_equal_to_the_published_library(compared: Any) -> None:
    @given(ho.parameters)
    @many
    def one(parameters: dict[str, Any]) -> None:
        same_schema_as_the_library(parameters)
        compared("schemas rendered by both")

    one()


def same_schema_as_the_library(parameters: dict[str, Any]) -> None:
    functions = (Function("f", "", parameters),)
    conversation = Conversation.of(
        Message("developer", DeveloperContent(None, (Namespace("functions", None, functions),)))
    )
    ours, theirs = render(conversation, E), ho.oracle_ids(conversation)
    assert E.decode(ours) == E.decode(theirs)
    assert ours == theirs


@pytest.mark.parametrize("number", [0.0, -0.0, 1.5, 1e-5, 1.234e-5, 9e-6, 1e-7, 1e15, 1e16, 123456789012345680.0, 1e17, -2.5e20,
                                    2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30])  # fmt: skip
def test_numbers_are_printed_as_the_library_prints_them(number: float) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number", "default": number}}}
    functions = (Function("f", "", schema),)
    conversation = Conversation.of(
        Message("developer", DeveloperContent(None, (Namespace("functions", None, functions),)))
    )
    assert E.decode(render(conversation, E)) == E.decode(ho.oracle_ids(conversation))


def test_builtin_tools_equal_to_the_published_library() -> None:
    import openai_harmony as oh

    ours = Conversation.of(Message("system", SystemContent(namespaces=(PYTHON, BROWSER))))
    content = oh.SystemContent.new().with_python_tool().with_browser_tool()
    theirs = oh.Conversation.from_messages([oh.Message.from_role_and_content(oh.Role.SYSTEM, content)])
    assert render(ours, E) == ho.oracle().render_conversation_for_completion(theirs, oh.Role.ASSISTANT)


def test_training_rendering_ends_with_return() -> None:
    import openai_harmony as oh

    for channel in ("final", "analysis", "commentary"):
        conversation = Conversation.of(Message("user", "q"), Message("assistant", "a", channel=channel))
        theirs = ho.oracle().render_conversation_for_training(
            ho.to_oracle(conversation), oh.RenderConversationConfig(auto_drop_analysis=False)
        )
        assert render_training(conversation, E) == theirs


def turn(*channels: str) -> list[Message]:
    return [Message("user", "q"), *(Message("assistant", c, channel=c) for c in channels)]


def kept(messages: list[Message], history: Any) -> list[str]:
    """The texts on analysis that stay in the prompt."""
    from motet.harmony import fold, parse

    ids = render(Conversation.of(*messages), E, history=history, next_role=None)
    return [m.text for m in fold(parse(ids, E, None)).messages if m.start.channel == "analysis"]


def thoughts(*texts: str) -> list[Message]:
    return [Message("assistant", t, channel="analysis") for t in texts]


def test_history_spec_drops_finished_turns_and_keeps_the_running_one() -> None:
    final = Message("assistant", "a", channel="final")
    call = Message("assistant", "{}", "commentary", "functions.f", "<|constrain|>json")
    result = Message("tool", "1", "commentary", "assistant", name="functions.f")
    done = [Message("user", "q"), *thoughts("one"), final, Message("user", "q"), *thoughts("two"), final]
    running = [*done, Message("user", "q"), *thoughts("three"), call, result]
    assert kept(done, "spec") == []
    assert kept(running, "spec") == ["three"]
    assert kept(done, "parity") == ["two"]  # the library keeps what stands between finals
    assert kept(running, "parity") == ["one", "two", "three"]  # and everything while a tool runs
    assert kept(running, "keep") == ["one", "two", "three"]


LOOKALIKES = [
    "＜|start|＞",
    "<｜start｜>",
    "<|ѕtart|>",
    "<|start|>\u200b",
    "<| start |>",
    "<|sta",
    "rt|>",
    "\u202e<|end|>",
]
NASTY = [*E.special_tokens][:15] + LOOKALIKES


@pytest.mark.parametrize("field", ["role", "name", "recipient", "channel", "content_type"])
def test_no_control_token_through_a_header_field(field: str) -> None:
    base = Message("assistant", "x", channel="final")
    for nasty in NASTY:
        for value in (nasty, f"functions.{nasty}", f"a {nasty}", f"{nasty}json"):
            if field == "content_type" and value == "<|constrain|>json":
                continue  # the one legal use
            with pytest.raises(RenderError, match=r"legal|There is no"):
                render(Conversation.of(dataclasses.replace(base, **{field: value})), E)


def test_no_control_token_through_contents() -> None:
    """Whatever the texts say, the control tokens of the ids are those of the same messages with harmless texts."""
    rng = random.Random(0)

    def shape(text: str) -> list[int]:
        ns = Namespace("functions", text, (Function("f", text, {"type": "object", "description": text, "properties":
             {text: {"type": "string", "enum": [text], "default": text, "title": text, "examples": [text]}}}),))  # fmt: skip
        messages = [
            Message("system", SystemContent(identity=text, cutoff=text, date=text)),
            Message("developer", DeveloperContent(text, (ns,))),
            Message("user", (text, text)),
            Message("assistant", text, "commentary", "functions.f", "<|constrain|>json"),
            Message("tool", text, "commentary", "assistant", name="functions.f"),
        ]
        return [i for i in render(Conversation.of(*messages), E) if E.is_special(i)]

    harmless = shape("x")
    for nasty in NASTY:
        assert shape(nasty) == harmless
    for _ in range(100):
        assert shape("".join(rng.choices(NASTY, k=4))) == harmless


@pytest.mark.parametrize("bad", [
    Message("tool", "x"), Message("tool", "x", name="user"), Message("user", "x", channel="secret"),
    Message("user", SystemContent()), Message("user", DeveloperContent()), Message("system", SystemContent(effort="huge")),
    Message("user", 3), Message("user", "x", name=""), Message("user", "x", recipient="a\n"),
    Message("system", SystemContent(channels=("a b",))), Message("robot", "x"), Message("user", "x", content_type=4),
    Message("developer", DeveloperContent(None, (Namespace("a b"),))),
    Message("developer", DeveloperContent(None, (Namespace("a", None, (Function("g()"),)),))),
])  # fmt: skip
def test_illegal_messages_are_errors_in_one_sentence(bad: Message) -> None:
    with pytest.raises(RenderError) as caught:
        render(Conversation.of(bad), E)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_unknown_history_and_role_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="spec, parity or keep"):
        render(Conversation(), E, history="none")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="assistant"):
        render(Conversation(), E, next_role="<|start|>")

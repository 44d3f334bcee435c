"""Chat messages as Harmony: what goes where, what is refused, and the very ids the embedded model was trained on."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from motet.errors import UsageError
from motet.harmony import Conversation, DeveloperContent, Message, render, resolve
from motet.tokenizer import o200k_harmony

E = o200k_harmony()


def shown(messages: Any, **more: Any) -> str:
    return E.decode(render(Conversation.from_chat(messages, **more), E))


def test_prompts_are_those_of_training() -> None:
    import random

    from motet.harmony import Message
    from motet.tasks import EFFORTS, TASKS, Scene, lesson
    from motet.train.data import prompt_ids

    for effort in EFFORTS:
        for date in (None, "2026-01-02"):
            for instructions in (None, "Be brief."):
                for past in ((), (("1+1", "2"), ("2+2", "4"))):
                    chat = [{"role": "developer", "content": instructions}] if instructions else []
                    history = []
                    for q, a in past:
                        chat += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
                        history += [Message("user", q), Message("assistant", a, "final")]
                    example = TASKS["multiplication"].example(random.Random(1), effort, "train")
                    example = replace(example, scene=Scene(history=tuple(history)))
                    chat.append({"role": "user", "content": example.prompt})
                    conversation = Conversation.from_chat(chat, effort=effort, date=date)
                    assert render(conversation, E) == prompt_ids(lesson(example, date, instructions), E)


def test_system_and_developer_messages_are_merged_in_order_and_never_dropped() -> None:
    text = shown(
        [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            {"role": "user", "content": "q"},
            {"role": "system", "content": "three"},
        ]
    )
    assert (
        "<|start|>developer<|message|># Instructions\n\none\n\ntwo<|end|><|start|>user<|message|>q<|end|>"
        in text
    )
    assert "q<|end|><|start|>developer<|message|># Instructions\n\nthree<|end|><|start|>assistant" in text


def test_calls_reasoning_and_results() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    text = shown(
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "Looking.", "reasoning": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": "d"}}],
    )
    assert text.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>hm<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Looking.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>'
        "<|start|>functions.f<|channel|>commentary to=assistant<|message|>42<|end|><|start|>assistant"
    )
    assert "Calls to these tools must go to the commentary channel: 'functions'." in text


def test_builtin_tools_and_date() -> None:
    text = shown([{"role": "user", "content": "q"}], builtin=["python", "browser"], date="2026-02-03")
    assert "Current date: 2026-02-03\n\nReasoning: medium\n\n# Tools\n\n## browser\n" in text
    assert text.index("## browser") < text.index("## python")


USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("messages", "more", "says"),
    [
        ([USER], {"effort": "huge"}, "low, medium or high"),
        ([USER], {"effort": None}, "low, medium or high"),
        ([USER], {"date": "tomorrow"}, "YYYY-MM-DD"),
        ([USER], {"date": "20260102"}, "YYYY-MM-DD"),
        ([USER], {"builtin": ["shell"]}, "browser or python"),
        ([{"role": "robot", "content": "x"}], {}, "robot"),
        (["x"], {}, r"messages\[0\] must be an object"),
        ([{"role": "user"}], {}, "no content"),
        ([{"role": "user", "content": 3}], {}, "text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "image_url"),
        ([{"role": "assistant"}], {}, "neither"),
        ([{"role": "assistant", "tool_calls": [{}]}], {}, r"tool_calls\[0\].function must be an object"),
        ([{"role": "assistant", "tool_calls": 5}], {}, "tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}], {}, "JSON"),
        ([{"role": "tool", "content": "x", "tool_call_id": "no"}], {}, "tool_call_id"),
        ([USER], {"tools": [{"type": "retrieval"}]}, "retrieval"),
        ([USER], {"tools": ["f"]}, "object"),
        ([USER], {"tools": [{"type": "function", "function": {}}]}, "name"),
        ([USER], {"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, "JSON Schema"),
        ([USER], {"tools": [{"type": "function", "function": {"name": "f\n} // <|end|>"}}]}, "not legal"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f<|message|>"}}]}], {}, "not legal"),
    ],
)  # fmt: skip
def test_what_harmony_cannot_say_is_an_error_in_one_sentence(messages: Any, more: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        shown(messages, **more)
    assert "\n" not in str(caught.value)


def test_texts_are_never_control_tokens() -> None:
    rng = random.Random(0)
    count = [i for i in render(Conversation.from_chat([USER]), E) if E.is_special(i)]
    for _ in range(50):
        nasty = "".join(rng.choices([*E.special_tokens][:20], k=5))
        ids = render(Conversation.from_chat([{"role": "user", "content": nasty}]), E)
        assert [i for i in ids if E.is_special(i)] == count


def test_resolve_forgives_prefixes_and_prefers_the_users_own_name() -> None:
    declared = {"functions.f", "browser.search", "python", "functions.python"}
    assert resolve("functions.f", declared) == "functions.f"
    assert resolve("f", declared) == "functions.f"
    assert resolve("functions.browser.search", declared) == "browser.search"
    assert resolve("functions.python", declared) == "functions.python"
    assert resolve("functions.python", declared - {"functions.python"}) == "python"
    assert resolve("g", declared) is None


def test_conversations_are_values() -> None:
    a = Conversation.from_chat([USER])
    b = a.append(Message("assistant", "x", channel="final"))
    assert len(b.messages) == len(a.messages) + 1
    assert hash(a) == hash(Conversation.from_chat([USER]))
    assert Message("developer", (DeveloperContent("i"), "t")).text == "t"

"""Chat Completions through the published client on a real socket: streams and their folds, calls, stops, logarithms, policy."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import APIStatusError, BadRequestError

from motet.engine import Engine, SamplingParams
from motet.harmony import Conversation, Delta, MessageEnd, MessageStart, Rules, fold
from motet.model import load
from motet.server.chat import fold_chunks
from motet.server.settings import Settings
from motet.server.stops import Stops
from motet.turn import run_turn
from serving import E, Script, Served, serving

QUESTION = [{"role": "user", "content": "What is 12 * 13?"}]
HI = [{"role": "user", "content": "hi"}]
THINK = "<|channel|>analysis<|message|>canary thought<|end|><|start|>assistant"
REMARK = "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1, "b": "è"}<|call|>'
FINAL = "<|channel|>final<|message|>It is 5, surely.<|return|>"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "description": "Does.", "parameters": SCHEMA}}
]


@pytest.fixture(scope="module")
def mini() -> Iterator[Served]:
    model = load("mini")
    with Engine(model) as engine, serving(engine, name="mini", encoding=model.encoding) as served:
        yield served


def raw(served: Served, body: Any, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    reply = connection.getresponse()
    try:
        return reply.status, reply.read()
    finally:
        connection.close()


# --- the embedded model ---


def test_the_answer_is_the_engines(mini: Served) -> None:
    engine, encoding = mini.host.engine, mini.host.encoding
    said = run_turn(
        engine, Conversation.from_chat(QUESTION), encoding, SamplingParams(temperature=0), rules=Rules()
    )
    expected = fold(said)
    reply = mini.client().chat.completions.create(model="mini", messages=QUESTION, temperature=0)  # type: ignore[arg-type]
    message = reply.choices[0].message
    assert message.content == expected.final
    assert message.model_extra == {"reasoning": expected.analysis, "reasoning_content": expected.analysis}
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "options", [{}, {"logprobs": True, "top_logprobs": 3}, {"max_completion_tokens": 40}, {"n": 3}]
)
def test_the_reply_is_the_fold_of_the_stream(mini: Served, options: dict[str, Any]) -> None:
    ask: dict[str, Any] = {"model": "mini", "messages": QUESTION, "seed": 5, "temperature": 1.0, **options}
    client = mini.client()
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    folded = fold_chunks(chunks)
    names = ("id", "created", "usage")
    assert folded.model_dump(exclude=set(names)) == whole.model_dump(exclude=set(names))
    assert folded.usage is not None and whole.usage is not None
    assert folded.usage.completion_tokens == whole.usage.completion_tokens  # what was cached may differ
    assert chunks[-1].choices == [] and all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_several_answers_differ_and_come_again(mini: Served) -> None:
    def texts() -> list[Any]:
        ask: dict[str, Any] = {"model": "mini", "messages": QUESTION, "seed": 3, "n": 4, "temperature": 2.0}
        return [c.message.model_extra for c in mini.client().chat.completions.create(**ask).choices]

    first = texts()
    assert texts() == first
    assert len({json.dumps(t) for t in first}) > 1


def test_a_schema_holds_the_answer(mini: Served) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "odd": {"type": "boolean"}},
              "required": ["n", "odd"], "additionalProperties": False}  # fmt: skip
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    reply = mini.client().chat.completions.create(
        model="mini",
        messages=QUESTION,
        response_format=wanted,
        seed=1,
        max_completion_tokens=400,  # type: ignore[arg-type]
    )
    if reply.choices[0].finish_reason == "stop":
        value = json.loads(reply.choices[0].message.content or "")
        assert set(value) == {"n", "odd"} and isinstance(value["n"], int)
    else:
        assert reply.choices[0].finish_reason == "length"


def test_a_call_that_is_required_comes(mini: Served) -> None:
    reply = mini.client().chat.completions.create(
        model="mini",
        messages=QUESTION,
        tools=TOOLS,
        tool_choice="required",
        seed=2,
        max_completion_tokens=300,  # type: ignore[arg-type]
    )
    calls = reply.choices[0].message.tool_calls or []
    assert [c.function.name for c in calls] == ["f"]  # type: ignore[union-attr]
    assert reply.choices[0].finish_reason in ("tool_calls", "length")


def test_the_budget_of_thinking_holds_and_an_answer_follows(mini: Served) -> None:
    reply = mini.client().chat.completions.create(
        model="mini",
        messages=QUESTION,
        temperature=0,
        reasoning_effort="high",
        extra_body={"max_reasoning_tokens": 5},  # type: ignore[arg-type]
    )
    assert reply.usage and reply.usage.completion_tokens_details
    assert reply.usage.completion_tokens_details.reasoning_tokens == 5
    assert reply.choices[0].message.content


def test_logarithms_stand_beside_their_tokens(mini: Served) -> None:
    ask: dict[str, Any] = {
        "model": "mini",
        "messages": QUESTION,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    choice = mini.client().chat.completions.create(**ask).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    assert "".join(t.token for t in choice.logprobs.content) == choice.message.content
    thought = (choice.logprobs.model_extra or {})["reasoning"]
    assert "".join(t["token"] for t in thought) == choice.message.model_extra["reasoning"]  # type: ignore[index]
    assert all(t.top_logprobs[0].logprob >= t.logprob for t in choice.logprobs.content)


def test_tokens_there_and_back(mini: Served) -> None:
    status, data = raw(mini, {"prompt": "What is <|start|>12 * 13?"}, "/tokenize")
    ids = json.loads(data)["tokens"]
    assert status == 200 and mini.host.encoding.special("<|start|>") not in ids
    assert json.loads(raw(mini, {"tokens": ids}, "/detokenize")[1])["content"] == "What is <|start|>12 * 13?"
    status, data = raw(mini, {"messages": QUESTION}, "/tokenize")
    assert mini.host.encoding.special("<|start|>") in json.loads(data)["tokens"]
    assert raw(mini, {"tokens": [10**9]}, "/detokenize")[0] == 400


# --- calls, history, policy: what mini is too small for ---


def test_a_turn_with_thinking_a_remark_and_a_call() -> None:
    with serving(Script(THINK + REMARK + CALL)) as served:
        ask: dict[str, Any] = {"model": "scripted", "messages": HI, "tools": TOOLS}
        chunks = list(served.client().chat.completions.create(**ask, stream=True))
        choice = served.client().chat.completions.create(**ask).choices[0]
    message = choice.message
    assert (message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
    assert message.model_extra == {"reasoning": "canary thought", "reasoning_content": "canary thought"}
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"a": 1, "b": "è"}'  # type: ignore[union-attr]
    pieces = [t for c in chunks for t in (c.choices[0].delta.tool_calls or [])]
    assert len(pieces) > 4 and {t.index for t in pieces} == {0}
    assert pieces[0].id and pieces[0].function and pieces[0].function.name == "f"
    assert all(t.id is None for t in pieces[1:])
    order = ["reasoning" if c.choices[0].delta.model_extra else "content" if c.choices[0].delta.content else
             "call" if c.choices[0].delta.tool_calls else "" for c in chunks]  # fmt: skip
    assert [o for n, o in enumerate(order) if o and o not in order[:n]] == ["reasoning", "content", "call"]
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == [None, "tool_calls"]


def test_thinking_comes_back_between_calls_and_goes_after_an_answer() -> None:
    engine = Script(FINAL)
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history: list[Any] = [
        *HI,
        {"role": "assistant", "content": None, "reasoning": "first thought", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]
    more = [*history, {"role": "assistant", "content": "5", "reasoning_content": "late"}, *HI]
    with serving(engine) as served:
        for messages in (history, more):
            served.client().chat.completions.create(model="scripted", messages=messages, tools=TOOLS)
    assert "<|channel|>analysis<|message|>first thought<|end|>" in E.decode(engine.prompts[0])
    assert "first thought" not in E.decode(engine.prompts[1]) and "late" not in E.decode(engine.prompts[1])


@pytest.mark.parametrize("thinking", ["hide", "summary"])
def test_hidden_thinking_leaves_no_trace(thinking: str) -> None:
    settings = Settings(port=0, thinking=thinking, store="none")
    with serving(Script(lambda _: THINK + FINAL), settings) as served:
        for body in (
            {},
            {"stream": True},
            {"logprobs": True, "top_logprobs": 5},
            {"stream": True, "logprobs": True},
        ):
            status, data = raw(served, {"model": "scripted", "messages": HI, **body})
            assert status == 200 and b"canary" not in data
            assert (b"Thought in 2 words." in data) == (thinking == "summary")
        reply = served.client().chat.completions.create(model="scripted", messages=HI)  # type: ignore[arg-type]
        assert reply.usage and reply.usage.completion_tokens_details
        assert reply.usage.completion_tokens_details.reasoning_tokens == len(E.encode("canary thought"))


def test_a_request_may_ask_not_to_see_thinking() -> None:
    with serving(Script(lambda _: THINK + FINAL)) as served:
        _, data = raw(served, {"model": "scripted", "messages": HI, "include_reasoning": False})
        assert b"canary" not in data and b"surely" in data


def test_stop_strings_end_the_answer_and_nothing_else() -> None:
    said = "<|channel|>analysis<|message|>END of it<|end|><|start|>assistant<|channel|>final<|message|>one two EN<D END three<|return|>"
    engine = Script(lambda _: said)
    with serving(engine) as served:
        ask: dict[str, Any] = {"model": "scripted", "messages": HI, "stop": ["END", "nothing"]}
        choice = served.client().chat.completions.create(**ask).choices[0]
        chunks = list(served.client().chat.completions.create(**ask, stream=True))
    assert (choice.message.content, choice.finish_reason) == ("one two EN<D ", "stop")
    assert choice.message.model_extra["reasoning"] == "END of it"  # type: ignore[index]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two EN<D "


@given(
    st.lists(st.text("ab", max_size=4), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stops_cut_where_the_first_stop_begins(pieces: list[str], strings: list[str]) -> None:
    stops, out = Stops(strings), ""
    for event in (
        MessageStart("assistant", "final"),
        *(Delta(p, (1,)) for p in pieces),
        MessageEnd("return"),
    ):
        out += "".join(e.text for e in stops.feed(event) if isinstance(e, Delta))
    text = "".join(pieces)
    ends = [at for at in (text.find(s) for s in strings) if at >= 0]
    # the stop that is complete first counts; where two end together, the longer
    complete = min(((text.find(s) + len(s), text.find(s)) for s in strings if s in text), default=None)
    assert stops.hit == bool(ends)
    assert text.startswith(out) and not any(s in out for s in strings)
    assert out == text or complete is not None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("<|channel|>commentary?commentary?<|message|>canary<|return|>", "unknown_channel"),
        ("<|channel|>final canary<|return|>", "no_message_token"),
        ("<|channel|>analysis<|message|>only thought<|return|>", "no answer"),
    ],
)
def test_malformed_output_is_never_silence(said: str, reason: str) -> None:
    with serving(Script(said, free=True)) as served:
        choice = served.client().chat.completions.create(model="scripted", messages=HI).choices[0]  # type: ignore[arg-type]
        metrics = served.host.metrics.text().decode()
    assert choice.message.content is None and choice.finish_reason == "stop"
    assert reason in (choice.message.refusal or "") and "canary" not in (choice.message.refusal or "")
    assert reason == "no answer" or f'motet_malformed_total{{reason="{reason}"}} 1.0' in metrics


def test_a_plain_refusal_without_markup_is_the_answer() -> None:
    with serving(Script("I cannot help with that.<|return|>", free=True)) as served:
        reply = served.client().chat.completions.create(model="scripted", messages=HI)  # type: ignore[arg-type]
    assert reply.choices[0].message.content == "I cannot help with that."


def test_a_call_that_is_cut_off_arrives_as_far_as_it_came() -> None:
    with serving(Script(CALL[:-12])) as served:
        ask: dict[str, Any] = {"model": "scripted", "messages": HI, "tools": TOOLS}
        choice = served.client().chat.completions.create(**ask).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls and choice.message.tool_calls[0].function.arguments.startswith('{"a": 1')  # type: ignore[union-attr]


def test_system_messages_are_merged_and_never_lost() -> None:
    engine = Script(FINAL)
    with serving(engine) as served:
        messages: Any = [{"role": "system", "content": "one"}, {"role": "developer", "content": "two"}, *HI]
        served.client().chat.completions.create(
            model="scripted", messages=messages, reasoning_effort="minimal"
        )
    prompt = E.decode(engine.prompts[0])
    assert "# Instructions\n\none\n\ntwo" in prompt and "Reasoning: low" in prompt


# --- what is refused ---

BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "oracle", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "tool", "tool_call_id": "no", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"n": 99}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"stop": [""]}, "stop"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": TOOLS}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": TOOLS * 2}, "tools[1]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"store": True}, "store"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"metadata": {"a": "x" * 600}}, "metadata"),
    ({"harmony": {"debug": True}}, "harmony"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"n": 0}, "n"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "wrong"}}}}, "response_format.json_schema.schema"),
    ({"reasoning": {"effort": "low"}}, "reasoning"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
]  # fmt: skip


@pytest.fixture(scope="module")
def scripted() -> Iterator[Served]:
    with serving(Script(lambda _: FINAL)) as served:
        yield served


@pytest.mark.parametrize(("change", "param"), BAD, ids=[f"{p}-{n}" for n, (_, p) in enumerate(BAD)])
def test_a_bad_request_names_its_field(scripted: Served, change: dict[str, Any], param: str) -> None:
    status, data = raw(scripted, {"model": "scripted", "messages": HI, **change})
    error = json.loads(data)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error"), error
    assert error["param"] == param, error
    assert error["message"].endswith((".", ")")) and "/" not in error["message"].replace("/v1/responses", "")


def test_what_changes_nothing_is_accepted(scripted: Served) -> None:
    harmless = {"store": False, "modalities": ["text"], "user": "u", "some_new_field": 1, "functions": None,
                "metadata": {"a": "b"}, "parallel_tool_calls": True, "service_tier": "auto", "tools": None}  # fmt: skip
    assert raw(scripted, {"model": "scripted", "messages": HI, **harmless})[0] == 200


def test_bodies_that_are_no_requests(scripted: Served) -> None:
    deep = b'{"model": "scripted", "messages": ' + b"[" * 100_000
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", deep):
        status, data = raw(scripted, body)
        assert status in (400, 422), (body[:20], data)
        assert set(json.loads(data)["error"]) == {"message", "type", "param", "code"}
    assert raw(scripted, {"model": "other", "messages": HI})[0] == 404
    assert raw(scripted, {}, "/v1/nothing")[0] == 404


def test_a_bias_for_what_is_no_token(mini: Served) -> None:
    status, data = raw(mini, {"model": "mini", "messages": HI, "logit_bias": {"999999": 1}})
    assert status == 400 and json.loads(data)["error"]["param"] == "logit_bias"


def test_a_prompt_that_is_too_long_says_so(mini: Served) -> None:
    with pytest.raises(BadRequestError) as error:
        mini.client().chat.completions.create(
            model="mini", messages=[{"role": "user", "content": "12 " * 20_000}]
        )
    assert error.value.code == "context_length_exceeded" and error.value.param == "messages"


def test_an_error_in_a_stream_is_one_the_client_raises() -> None:
    class Breaks(Script):
        def submit(self, *a: Any, **k: Any) -> Any:
            request = super().submit(*a, **k)
            request._tokens = [
                *request._tokens[:4],
                "canary",
            ]  # no token at all: the turn fails in its middle
            return request

    with serving(Breaks(THINK + FINAL)) as served:
        client = served.client()
        with pytest.raises(Exception, match="could not finish") as error:
            list(client.chat.completions.create(model="scripted", messages=HI, stream=True))  # type: ignore[arg-type]
        assert "canary" not in str(error.value)
        with pytest.raises(APIStatusError) as whole:
            client.chat.completions.create(model="scripted", messages=HI)  # type: ignore[arg-type]
        assert whole.value.status_code == 500


def test_a_client_that_leaves_ends_its_turn() -> None:
    engine = Script("<|channel|>final<|message|>" + "word " * 2000, pause_s=0.01)
    with serving(engine) as served:
        for stream in (True, False):
            connection = http.client.HTTPConnection(served.url.removeprefix("http://"))
            body = json.dumps({"model": "scripted", "messages": HI, "stream": stream})
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            reply = connection.getresponse() if stream else None
            if reply is not None:
                reply.read(50)
            while len(engine.prompts) < 1 + (not stream):
                time.sleep(0.01)
            before = engine.ended
            if reply is not None:
                reply.close()
            connection.close()
            end = time.monotonic() + 10
            while engine.ended == before and time.monotonic() < end:
                time.sleep(0.01)
            assert engine.ended == before + 1
            # the loop is free all the while
            assert served.client().models.list().data[0].id == "scripted"

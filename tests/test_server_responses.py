"""The Responses API through the published client: events and their fold, history by id, background, resuming, the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from folding import fold_events, summed
from motet.engine import Engine
from motet.model import load
from motet.server import auth
from motet.server.settings import Settings
from serving import E, Script, Served, serving

THINK = "<|channel|>analysis<|message|>canary thought<|end|><|start|>assistant"
REMARK = "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1, "b": "è"}<|call|>'
FINAL = "<|channel|>final<|message|>It is 5, surely.<|return|>"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
TOOLS: list[Any] = [
    {"type": "function", "name": "f", "description": "Does.", "parameters": SCHEMA, "strict": False}
]
KEPT = Settings(port=0, store="sqlite://")


@pytest.fixture(scope="module")
def mini() -> Iterator[Served]:
    model = load("mini")
    with Engine(model) as engine, serving(engine, KEPT, "mini", model.encoding) as served:
        yield served


def stream(client: OpenAI, **ask: Any) -> list[Any]:
    return list(client.responses.create(model="scripted", input="hi", stream=True, **ask))


# --- streams and objects ---


@pytest.mark.parametrize(
    ("said", "types", "last"),
    [
        (THINK + FINAL, ["reasoning", "message"], "response.completed"),
        (THINK + REMARK + CALL, ["reasoning", "message", "function_call"], "response.completed"),
        (THINK + CALL, ["reasoning", "function_call"], "response.completed"),
        (FINAL, ["message"], "response.completed"),
        (THINK + FINAL[:-20], ["reasoning", "message"], "response.incomplete"),
        (THINK + CALL[:-15], ["reasoning", "function_call"], "response.incomplete"),
        (THINK[:-30], ["reasoning"], "response.incomplete"),
    ],
)
@pytest.mark.parametrize("thinking", ["show", "summary", "hide"])
def test_the_stream_leads_to_its_last_object(said: str, types: list[str], last: str, thinking: str) -> None:
    settings = Settings(port=0, store="sqlite://", thinking=thinking)
    with serving(Script(lambda _: said), settings) as served:
        events = stream(served.client(), tools=TOOLS)
        whole = served.client().responses.create(model="scripted", input="hi", tools=TOOLS)
    assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == last
    response = events[-1].response
    expected = [t for t in types if thinking != "hide" or t != "reasoning"]
    if response.status != "completed" and thinking == "summary" and types == ["reasoning"]:
        expected = ["reasoning"]
    assert [i.type for i in response.output] == expected
    assert fold_events(events) == summed(response.output)
    assert [(i.type, i.status) for i in whole.output] == [(i.type, i.status) for i in response.output]
    assert whole.status == response.status == last.removeprefix("response.")
    assert (response.incomplete_details is not None) == (last == "response.incomplete")
    text = "".join(e.model_dump_json() for e in events)
    assert ("canary" in text) == (thinking == "show" and "canary" in said)


def test_what_the_object_says() -> None:
    with serving(Script(THINK + CALL), KEPT) as served:
        r = served.client().responses.create(
            model="scripted", input="hi", instructions="be brief", tools=TOOLS, tool_choice="auto", temperature=0.5,
            top_p=0.9, max_output_tokens=500, metadata={"a": "b"}, reasoning={"effort": "high"}, user="u",
        )  # fmt: skip
    assert (r.object, r.status, r.model, r.store) == ("response", "completed", "scripted", True)  # type: ignore[attr-defined]
    assert (r.temperature, r.top_p, r.max_output_tokens, r.metadata) == (0.5, 0.9, 500, {"a": "b"})
    assert r.instructions == "be brief" and r.reasoning is not None and r.reasoning.effort == "high"
    assert r.tools[0].name == "f" and r.parallel_tool_calls is True and r.truncation == "disabled"  # type: ignore[union-attr]
    call = r.output[1]
    assert call.type == "function_call" and (call.name, call.arguments) == ("f", '{"a": 1, "b": "è"}')
    assert call.call_id.startswith("call_") and call.id != call.call_id
    assert r.usage is not None and r.usage.input_tokens_details.cached_tokens == r.usage.input_tokens // 2
    assert r.usage.output_tokens_details.reasoning_tokens == len(E.encode("canary thought"))
    assert r.output[0].content[0].text == "canary thought"  # type: ignore[union-attr, index]


def test_the_embedded_model_streams_what_it_answers(mini: Served) -> None:
    ask: dict[str, Any] = {"model": "mini", "input": "What is 12 * 13?", "temperature": 0}
    events = list(mini.client().responses.create(**ask, stream=True))
    whole = mini.client().responses.create(**ask)
    assert whole.output_text == events[-1].response.output_text == "156"
    assert fold_events(events) == summed(events[-1].response.output)
    assert "response.reasoning_text.done" in {e.type for e in events}


def test_logarithms(mini: Served) -> None:
    r = mini.client().responses.create(
        model="mini",
        input="What is 12 * 13?",
        temperature=0,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    part = r.output[-1].content[0]  # type: ignore[union-attr, index]
    assert "".join(t.token for t in part.logprobs) == part.text  # type: ignore[union-attr]
    assert all(len(t.top_logprobs) == 2 for t in part.logprobs)  # type: ignore[union-attr]


def test_a_schema_for_the_text(mini: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    r = mini.client().responses.create(
        model="mini", input="What is 12 * 13?", max_output_tokens=400, extra_body={"seed": 1},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
    )  # fmt: skip
    if r.status == "completed":
        assert set(json.loads(r.output_text)) == {"n"}
    else:
        assert r.incomplete_details is not None and r.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    "said", ["<|channel|>??<|message|>canary<|return|>", "<|channel|>analysis<|message|>hm<|return|>"]
)
def test_malformed_output_is_never_silence(said: str) -> None:
    with serving(Script(lambda _: said, free=True), KEPT) as served:
        events = stream(served.client())
    part = events[-1].response.output[-1].content[0]
    assert part.type == "refusal" and "ask again" in part.refusal and "canary" not in part.refusal
    assert fold_events(events) == summed(events[-1].response.output)


def test_a_turn_that_breaks_is_a_failed_response() -> None:
    class Breaks(Script):
        def submit(self, *a: Any, **k: Any) -> Any:
            request = super().submit(*a, **k)
            request._tokens = [*request._tokens[:4], "canary"]
            return request

    with serving(Breaks(lambda _: THINK + FINAL), KEPT) as served:
        client = served.client()
        events = stream(client)
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.code == "server_error"
        assert "canary" not in events[-1].response.error.message
        kept = client.responses.retrieve(events[-1].response.id)
        assert kept.status == "failed" and kept.output[0].status == "incomplete"  # type: ignore[union-attr]


# --- history ---


def test_a_call_and_its_result_go_on_exactly_where_sampling_stopped() -> None:
    """The call is written as the model wrote it, not as Harmony would: only so do later ids match what was sampled."""
    odd = THINK + ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>'
    says = [odd, FINAL, FINAL]
    engine = Script(says, free=True)
    first_sampled = E.encode_with_special(odd)
    with serving(engine, KEPT) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi", tools=TOOLS)
        call = first.output[-1]
        answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "5"}]  # type: ignore[union-attr]
        second = client.responses.create(
            model="scripted", input=answer, previous_response_id=first.id, tools=TOOLS
        )
        third = client.responses.create(
            model="scripted", input="more", previous_response_id=second.id, tools=TOOLS
        )
    assert (
        engine.prompts[1][: len(engine.prompts[0]) + len(first_sampled)] == engine.prompts[0] + first_sampled
    )
    assert "<|start|>functions.f" in E.decode(engine.prompts[1])
    late = E.decode(engine.prompts[2])
    assert "canary" not in late  # thinking goes when its turn is answered
    assert (
        ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>' in late
        and "It is 5, surely.<|end|>" in late
    )
    assert third.previous_response_id == second.id


def test_hidden_thinking_is_still_remembered() -> None:
    engine = Script([THINK + CALL, FINAL])
    with serving(engine, Settings(port=0, store="sqlite://", thinking="hide")) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi", tools=TOOLS)
        assert [i.type for i in first.output] == ["function_call"]
        answer: Any = [{"type": "function_call_output", "call_id": first.output[0].call_id, "output": "5"}]  # type: ignore[union-attr]
        client.responses.create(model="scripted", input=answer, previous_response_id=first.id, tools=TOOLS)
        assert "canary" not in client.responses.retrieve(first.id).model_dump_json()
    assert "canary thought" in E.decode(engine.prompts[1])


def test_without_a_store_history_comes_back_as_items() -> None:
    engine = Script([THINK + CALL, FINAL])
    with serving(engine) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi", tools=TOOLS)
        assert first.store is False  # type: ignore[attr-defined]
        call = first.output[-1]
        items: Any = [{"role": "user", "content": "hi"}, *[i.model_dump() for i in first.output],
                      {"type": "function_call_output", "call_id": call.call_id, "output": "5"}]  # type: ignore[union-attr]  # fmt: skip
        client.responses.create(model="scripted", input=items, tools=TOOLS)
        with pytest.raises(NotFoundError):
            client.responses.retrieve(first.id)
        for more in ({"store": True}, {"background": True}):
            with pytest.raises(BadRequestError, match="store"):
                client.responses.create(model="scripted", input="hi", **more)  # type: ignore[call-overload]
    assert "canary thought" in E.decode(engine.prompts[1])


@pytest.mark.parametrize("words", ["", "It is"])
def test_an_answer_that_breaks_off_can_be_gone_on_from(words: str) -> None:
    """Whatever it had said is remembered, though nothing ended its message."""
    head = E.encode_with_special("<|channel|>final<|message|>" + words)

    class Breaks(Script):
        def submit(self, *a: Any, **k: Any) -> Any:
            request = super().submit(*a, **k)
            if len(self.prompts) == 1:
                request._tokens = [*head, "canary"]
            return request

    engine = Breaks(lambda _: FINAL)
    with serving(engine, KEPT) as served:
        client = served.client()
        first = stream(client)[-1].response
        assert first.status == "failed" and first.output_text == words
        second = client.responses.create(model="scripted", input="go on", previous_response_id=first.id)
    assert second.output_text == "It is 5, surely."
    assert E.decode(engine.prompts[1]).count(f"<|message|>{words}<|end|>") == 1


def test_instructions_are_not_carried_over() -> None:
    engine = Script(lambda _: FINAL)
    with serving(engine, KEPT) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi", instructions="speak Latin")
        client.responses.create(model="scripted", input="more", previous_response_id=first.id)
    assert "speak Latin" in E.decode(engine.prompts[0]) and "speak Latin" not in E.decode(engine.prompts[1])


def test_the_oldest_turns_go_when_asked_to() -> None:
    engine = Script(lambda _: FINAL)
    with serving(engine, KEPT) as served:
        client = served.client()
        items: Any = [{"role": "developer", "content": "be kind"}]
        for n in range(40):
            items += [
                {"role": "user", "content": f"q{n}: " + "word " * 200},
                {"role": "assistant", "content": f"a{n}"},
            ]
        items.append({"role": "user", "content": "the last"})
        r = client.responses.create(model="scripted", input=items, truncation="auto", max_output_tokens=100)
        assert r.status == "completed" and r.truncation == "auto"
    prompt = E.decode(engine.prompts[-1])
    assert "be kind" in prompt and "the last" in prompt and "q39:" in prompt and "q0:" not in prompt
    assert 4096 - 100 - 220 < len(engine.prompts[-1]) <= 4096 - 100


def test_items_can_be_referred_to_by_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    a, b = auth.add(path, "a"), auth.add(path, "b")
    engine = Script([THINK + CALL, FINAL])
    with serving(engine, Settings(port=0, keys=path, store="sqlite://", thinking="hide")) as served:
        client = served.client(a)
        first = client.responses.create(model="scripted", input="hi", tools=TOOLS)
        call: Any = first.output[0]
        items: Any = [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": call.id},
                      {"type": "function_call_output", "call_id": call.call_id, "output": "5"}]  # fmt: skip
        with pytest.raises(NotFoundError):
            served.client(b).responses.create(model="scripted", input=items, tools=TOOLS)
        for id in ("x", "fc_" + "0" * 52, call.id[:-1] + "9"):
            with pytest.raises(NotFoundError) as error:
                client.responses.create(model="scripted", input=[{"type": "item_reference", "id": id}])
            assert error.value.param == "input[0]"
        assert client.responses.create(model="scripted", input=items, tools=TOOLS).status == "completed"
    assert '{"a": 1, "b": "è"}' in E.decode(engine.prompts[-1])


# --- keeping ---


def test_what_is_kept_can_be_read_listed_and_deleted() -> None:
    with serving(Script(lambda _: THINK + FINAL), KEPT) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi")
        second = client.responses.create(model="scripted", input="more", previous_response_id=first.id)
        assert client.responses.retrieve(first.id).model_dump() == first.model_dump()
        items = list(client.responses.input_items.list(second.id, order="asc"))
        assert [i.type for i in items] == ["message", "reasoning", "message", "message"]
        assert [i.id for i in client.responses.input_items.list(second.id, limit=1)] == [
            i.id for i in items[::-1]
        ]
        client.responses.delete(first.id)
        for gone in (lambda: client.responses.retrieve(first.id), lambda: client.responses.delete(first.id),
                     lambda: client.responses.create(model="scripted", input="x", previous_response_id=first.id),
                     lambda: client.responses.create(model="scripted", input="x", previous_response_id=second.id),
                     lambda: client.responses.cancel("resp_none")):  # fmt: skip
            with pytest.raises(NotFoundError):
                gone()
        with pytest.raises(BadRequestError):
            client.responses.cancel(second.id)


def test_a_stream_can_be_taken_up_again() -> None:
    with serving(Script(lambda _: THINK + FINAL), KEPT) as served:
        client = served.client()
        events = stream(client)
        id = events[-1].response.id
        for after in (0, 7, len(events) - 2, len(events) + 5):
            again = list(client.responses.retrieve(id, stream=True, starting_after=after))
            assert [e.model_dump() for e in again] == [e.model_dump() for e in events[after + 1 :]]


def test_a_background_response_runs_by_itself() -> None:
    engine = Script(lambda _: THINK + FINAL, pause_s=0.02)
    with serving(engine, KEPT) as served:
        client = served.client()
        begun = client.responses.create(model="scripted", input="hi", background=True)
        assert begun.status in ("queued", "in_progress")
        events = list(client.responses.retrieve(begun.id, stream=True))
        assert [e.type for e in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
        assert events[-1].type == "response.completed" and fold_events(events)
        done = client.responses.retrieve(begun.id)
        assert done.status == "completed" and done.output_text == "It is 5, surely."
        # a listener that leaves does not end it
        begun = client.responses.create(model="scripted", input="hi", background=True, stream=True)
        next(iter(begun))
        id = next(iter(begun)).response.id  # type: ignore[union-attr]
        begun.close()
        end = time.monotonic() + 10
        while client.responses.retrieve(id).status != "completed" and time.monotonic() < end:
            time.sleep(0.02)
        assert client.responses.retrieve(id).status == "completed"


def test_a_background_response_can_be_cancelled() -> None:
    engine = Script(lambda _: "<|channel|>final<|message|>" + "word " * 3000, pause_s=0.01)
    with serving(engine, KEPT) as served:
        client = served.client()
        begun = client.responses.create(model="scripted", input="hi", background=True)
        time.sleep(0.1)
        over = client.responses.cancel(begun.id)
        assert over.status == "cancelled" and over.output[0].status == "incomplete"  # type: ignore[union-attr]
        assert "word" in over.output_text
        kept = client.responses.retrieve(begun.id)
        assert kept.model_dump() == over.model_dump()
        assert client.responses.cancel(begun.id).status == "cancelled"
        assert served.host.meter.in_flight == 0 and not served.host.turns


def test_a_stream_without_a_listener_ends() -> None:
    engine = Script(lambda _: "<|channel|>final<|message|>" + "word " * 3000, pause_s=0.01)
    with serving(engine, KEPT) as served:
        client = served.client()
        events = client.responses.create(model="scripted", input="hi", stream=True)
        id = next(iter(events)).response.id  # type: ignore[union-attr]
        events.close()
        end = time.monotonic() + 10
        while client.responses.retrieve(id).status != "cancelled" and time.monotonic() < end:
            time.sleep(0.02)
        assert client.responses.retrieve(id).status == "cancelled" and engine.ended == 1


def test_one_key_never_sees_anothers(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    a, b = auth.add(path, "a"), auth.add(path, "b")
    with serving(
        Script(lambda _: FINAL, pause_s=0.005), Settings(port=0, keys=path, store="sqlite://")
    ) as served:
        mine, theirs = served.client(a), served.client(b)
        done = mine.responses.create(model="scripted", input="hi")
        running = mine.responses.create(model="scripted", input="hi", background=True)
        for id in (done.id, running.id):
            for look in (theirs.responses.retrieve, theirs.responses.delete, theirs.responses.cancel,
                         theirs.responses.input_items.list,
                         lambda i: theirs.responses.create(model="scripted", input="x", previous_response_id=i)):  # fmt: skip
                with pytest.raises(NotFoundError):
                    look(id)
        assert mine.responses.retrieve(done.id).output_text == "It is 5, surely."


# --- counted, shortened, refused ---


def test_tokens_of_an_input_are_those_of_its_prompt() -> None:
    engine = Script(lambda _: THINK + CALL)
    with serving(engine, KEPT) as served:
        client = served.client()
        first = client.responses.create(model="scripted", input="hi", instructions="x", tools=TOOLS)
        counted = client.responses.input_tokens.count(
            model="scripted", input="hi", instructions="x", tools=TOOLS
        )
        assert counted.input_tokens == first.usage.input_tokens == len(engine.prompts[0])  # type: ignore[union-attr]
    assert len(engine.prompts) == 1


def test_a_long_conversation_is_made_short() -> None:
    engine = Script(
        lambda p: FINAL.replace("It is 5, surely.", "They want 5.") if "Summarise" in p else FINAL
    )
    with serving(engine, KEPT) as served:
        client = served.client()
        items: Any = [{"role": "user", "content": "I want 5"}, {"role": "assistant", "content": "Yes."}]
        short = client.responses.compact(model="scripted", input=items)
        assert short.object == "response.compaction" and short.usage.output_tokens > 0
        again: Any = [
            *[i.model_dump(exclude_none=True) for i in short.output],
            {"role": "user", "content": "go on"},
        ]
        assert client.responses.create(model="scripted", input=again).status == "completed"
    assert "They want 5." in E.decode(engine.prompts[-1])


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    ({"input": [{"type": "function_call_output", "call_id": "no", "output": "x"}]}, "input[0].call_id"),
    ({"instructions": 5}, "instructions"),
    ({"temperature": 3}, "temperature"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"truncation": "some"}, "truncation"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "g"}, "tools": TOOLS}, "tool_choice"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "x"}}, "prompt"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"background": True, "store": False}, "store"),
    ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"background_options": {"completion_window": "8h"}}, "background_options"),
    ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options"),
    ({"image": {"x": 1}}, "image"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": "json"}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "wrong"}}}}, "text.format.schema"),
    ({"tools": [*TOOLS, {"type": "function", "name": "g", "strict": True, "parameters": {"type": "wrong"}}]}, "tools[1].parameters"),
    ({"truncation": 1}, "truncation"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"include": "reasoning.encrypted_content"}, "include"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"n": 2}, "n"),
]  # fmt: skip


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_no_field_a_client_can_send_is_ignored(api: str) -> None:
    """Every field the published client knows is one of ours, or refused by name."""
    from openai.types.chat import completion_create_params as chats
    from openai.types.responses import response_create_params as responses

    from motet.server.asked import _ONLY_THERE, ResponsesRequest
    from motet.server.wire import _CHAT_ONLY_THERE, ChatRequest

    theirs: Any = chats.CompletionCreateParamsBase if api == "chat" else responses.ResponseCreateParamsBase
    ours: Any = ChatRequest if api == "chat" else ResponsesRequest
    known = {*ours.model_fields, *(_CHAT_ONLY_THERE if api == "chat" else _ONLY_THERE)}
    without_effect = {
        "prompt_cache_key",
        "safety_identifier",
    }  # hints about who asks; nothing changes for the caller
    assert set(theirs.__annotations__) - known <= without_effect


@pytest.fixture(scope="module")
def scripted() -> Iterator[Served]:
    with serving(Script(lambda _: FINAL), KEPT) as served:
        yield served


@pytest.mark.parametrize(("change", "param"), BAD, ids=[f"{p}-{n}" for n, (_, p) in enumerate(BAD)])
def test_a_bad_request_names_its_field(scripted: Served, change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as error:
        scripted.client().post(
            "/responses", body={"model": "scripted", "input": "hi", **change}, cast_to=object
        )
    assert error.value.param == param, error.value.body
    assert error.value.type == "invalid_request_error"


def test_null_means_the_default(scripted: Served) -> None:
    names = ("instructions", "tools", "metadata", "max_output_tokens", "temperature", "top_p", "reasoning", "text", "store",
             "tool_choice", "truncation", "include", "previous_response_id", "user", "stream", "conversation", "prompt")  # fmt: skip
    body = {"model": "scripted", "input": "hi", **dict.fromkeys(names)}
    reply: Any = scripted.client().post("/responses", body=body, cast_to=object)
    assert reply["status"] == "completed" and reply["temperature"] == 1.0


# --- conversations, as the page asks for them ---


def test_conversations_are_listed_opened_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    a, b = auth.add(path, "a"), auth.add(path, "b")
    with serving(Script(lambda _: FINAL), Settings(port=0, keys=path, store="sqlite://")) as served:
        mine, theirs = served.client(a), served.client(b)
        first = mine.responses.create(model="scripted", input="one\nquestion")
        second = mine.responses.create(model="scripted", input="more", previous_response_id=first.id)
        other = mine.responses.create(model="scripted", input="or", previous_response_id=first.id)
        late = mine.responses.create(model="scripted", input="another")

        def get(client: OpenAI, path: str) -> Any:
            return client.get(f"{served.url}/motet/conversations{path}", cast_to=object)

        listed = get(mine, "?limit=1")
        assert [(c["id"], c["title"]) for c in listed["data"]] == [(late.id, "another")] and listed[
            "has_more"
        ]
        rest = get(mine, f"?after={listed['last_id']}")
        assert [(c["id"], c["title"]) for c in rest["data"]] == [(first.id, "one question")]
        assert not rest["has_more"] and get(theirs, "")["data"] == []
        whole = get(mine, f"/{first.id}")
        assert whole["title"] == "one question"
        assert [(t["parent"], t["question"], t["response"]["id"]) for t in whole["turns"]] == [
            (None, "one\nquestion", first.id), (first.id, "more", second.id), (first.id, "or", other.id),
        ]  # fmt: skip
        assert whole["turns"][0]["response"] == first.model_dump(mode="json", exclude_unset=True)
        gone = f"{served.url}/motet/conversations/{first.id}"
        with pytest.raises(NotFoundError):
            theirs.patch(gone, cast_to=object, body={"title": "stolen"})
        with pytest.raises(NotFoundError):  # it is not the first of its conversation
            mine.patch(gone.replace(first.id, second.id), cast_to=object, body={"title": "no"})
        with pytest.raises(BadRequestError, match="title"):
            mine.patch(gone, cast_to=object, body={"title": ""})
        mine.patch(gone, cast_to=object, body={"title": " a\nname "})
        assert get(mine, f"/{first.id}")["title"] == "a name"
        for client in (theirs, mine, mine):
            if client is mine and get(mine, "")["data"][-1]["id"] == first.id:
                assert client.delete(gone, cast_to=object)["deleted"]  # type: ignore[index]
            else:
                with pytest.raises(NotFoundError):
                    client.delete(gone, cast_to=object)
        with pytest.raises(NotFoundError):
            mine.responses.retrieve(second.id)
        with pytest.raises(NotFoundError):
            get(mine, "/%00")
        with pytest.raises(BadRequestError, match="after"):
            get(mine, "?after=none")

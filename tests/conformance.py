"""Two suites that others judge servers with, as cases of our own, against any server; docs/conformance.md is what they say of ours.

    python -m tests.conformance --write                          the page anew, from the server of this tree
    python -m tests.conformance --url http://127.0.0.1:8000/v1 --model NAME       another server

Open Responses (openresponses/openresponses, src/lib/compliance-tests.ts): its seven case ids, every object and every event held
to the required fields of its schema. OpenAI's compatibility test (openai/gpt-oss, compatibility-test): five questions for each of
its six tools, in both APIs, whole and streamed; a call at least once, arguments that fit, the thinking where it looks for it.
Questions and code are ours; ids, tools and demands are theirs. Theirs has two streaming checks that cannot pass as written
(wrappers looked for after they were taken off; `choices[0]` of a chunk without choices); here they check what they mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema

PAGE = Path(__file__).resolve().parent.parent / "docs/conformance.md"
Json = dict[str, Any]
OK, REFUSED = "passes", "refused"


# --- what Open Responses demands of objects and events ---

STR, INT, NUM, BOOL, OBJ = ({"type": t} for t in ("string", "integer", "number", "boolean", "object"))


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**fields: Json) -> Json:
    return {"type": "object", "required": list(fields), "properties": fields}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


_TEXT = _object(type={"const": "output_text"}, text=STR, annotations=_list(OBJ), logprobs=_list(OBJ))
_PART = {
    "oneOf": [
        _TEXT,
        _object(type={"const": "refusal"}, refusal=STR),
        _object(type={"const": "reasoning_text"}, text=STR),
    ]
}
_STATUS = {"enum": ["in_progress", "completed", "incomplete"]}
_ITEM = {
    "oneOf": [
        _object(
            type={"const": "message"},
            id=STR,
            status=_STATUS,
            role={"const": "assistant"},
            content=_list(_PART),
        ),
        _object(
            type={"const": "function_call"}, id=STR, call_id=STR, name=STR, arguments=STR, status=_STATUS
        ),
        _object(
            type={"const": "reasoning"},
            id=STR,
            summary=_list(_object(type={"const": "summary_text"}, text=STR)),
        ),
    ]
}
_USAGE = _object(input_tokens=INT, output_tokens=INT, total_tokens=INT, input_tokens_details=_object(cached_tokens=INT),
                 output_tokens_details=_object(reasoning_tokens=INT))  # fmt: skip
RESPONSE = _object(
    id=STR, object={"const": "response"}, created_at=INT, completed_at=_or_null(INT), status=STR,
    incomplete_details=_or_null(_object(reason=STR)), model=STR, previous_response_id=_or_null(STR),
    instructions=_or_null(STR), output=_list(_ITEM), error=_or_null(_object(code=STR, message=STR)), tools=_list(OBJ),
    tool_choice={"type": ["string", "object"]}, truncation={"enum": ["auto", "disabled"]}, parallel_tool_calls=BOOL,
    text=_object(format=OBJ), top_p=NUM, presence_penalty=NUM, frequency_penalty=NUM, top_logprobs=INT, temperature=NUM,
    reasoning=_or_null(OBJ), user=_or_null(STR), usage=_or_null(_USAGE), max_output_tokens=_or_null(INT),
    max_tool_calls=_or_null(INT), store=BOOL, background=BOOL, service_tier=STR, metadata=OBJ,
    safety_identifier=_or_null(STR), prompt_cache_key=_or_null(STR),
)  # fmt: skip
_AT = {"item_id": STR, "output_index": INT, "content_index": INT}
_SUMMARY = {"item_id": STR, "output_index": INT, "summary_index": INT}
EVENTS: dict[str, Json] = {
    **{
        name: {"response": RESPONSE}
        for name in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
    },
    **{f"output_item.{end}": {"output_index": INT, "item": _ITEM} for end in ("added", "done")},
    **{f"content_part.{end}": {**_AT, "part": _PART} for end in ("added", "done")},
    "output_text.delta": {**_AT, "delta": STR, "logprobs": _list(OBJ)},
    "output_text.done": {**_AT, "text": STR, "logprobs": _list(OBJ)},
    "reasoning_text.delta": {**_AT, "delta": STR},
    "reasoning_text.done": {**_AT, "text": STR},
    "refusal.delta": {**_AT, "delta": STR},
    "refusal.done": {**_AT, "refusal": STR},
    "function_call_arguments.delta": {"item_id": STR, "output_index": INT, "delta": STR},
    "function_call_arguments.done": {"item_id": STR, "output_index": INT, "arguments": STR},
    **{f"reasoning_summary_part.{end}": {**_SUMMARY, "part": OBJ} for end in ("added", "done")},
    "reasoning_summary_text.delta": {**_SUMMARY, "delta": STR},
    "reasoning_summary_text.done": {**_SUMMARY, "text": STR},
}


def faults(value: Any, schema: Json, name: str) -> list[str]:
    """What is wrong with a value, one line each."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return [f"{name} {'.'.join(str(p) for p in e.absolute_path)}: {e.message[:160]}" for e in found]


def event_faults(events: list[Json]) -> list[str]:
    """Every event known and whole, numbered in order, with an end."""
    out = [] if events else ["no events"]
    for n, event in enumerate(events):
        kind = str(event.get("type", "")).removeprefix("response.")
        if kind not in EVENTS:
            out.append(f"event {kind!r} is not one of the specification's")
            continue
        out += faults(event, _object(type=STR, sequence_number={"const": n}, **EVENTS[kind]), kind)
    if events and events[-1].get("type") not in (
        "response.completed",
        "response.incomplete",
        "response.failed",
    ):
        out.append("the stream has no end")
    return out


# --- talking ---


class Server:
    """Where to ask."""

    def __init__(self, url: str, model: str, key: str = "none") -> None:
        self._url, self._model = url, model
        self._client = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=300)

    def post(self, path: str, body: Json) -> httpx.Response:
        """One request."""
        return self._client.post(f"{self._url}/{path}", json={"model": self._model, **body})

    def whole(self, path: str, body: Json) -> Json:
        """A whole reply. AssertionError when there is none."""
        reply = self.post(path, body)
        assert reply.status_code == 200, f"HTTP {reply.status_code}: {reply.text[:200]}"
        return dict(reply.json())

    def events(self, path: str, body: Json) -> list[Json]:
        """A stream, read as simply as a reader can: lines that begin with `data:`."""
        reply = self.post(path, {**body, "stream": True})
        assert reply.status_code == 200, f"HTTP {reply.status_code}: {reply.text[:200]}"
        lines = [line[5:].strip() for line in reply.text.split("\n") if line.startswith("data:")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


# --- Open Responses ---


@dataclass(frozen=True)
class Open:
    """One case. `wants` are types of output items there must be; a refused case must be a clean 400."""

    id: str
    input: list[Json]
    stream: bool = False
    tools: tuple[str, ...] = ()
    completed: bool = True
    refused: str = ""

    def judge(self, server: Server) -> tuple[str, str]:
        """(passes or refused, what there is to say); AssertionError says what is wrong."""
        body: Json = {"input": self.input, "seed": 1}
        if self.tools:
            body["tools"] = [tool(name) for name in self.tools]
        if self.refused:
            return self._refusal(server, body)
        said: list[str] = []
        if self.stream:
            events = server.events("responses", body)
            said += event_faults(events)
            response = events[-1].get("response", {}) if events else {}
        else:
            response = server.whole("responses", body)
        said += faults(response, RESPONSE, "response")
        said += [] if response.get("output") else ["no output"]
        if self.completed and response.get("status") != "completed":
            said.append(f"status is {response.get('status')}")
        if self.tools:
            said += self._call(response, events if self.stream else None)
        assert not said, "; ".join(said)
        return OK, ""

    def _refusal(self, server: Server, body: Json) -> tuple[str, str]:
        reply = server.post("responses", body)
        assert reply.status_code == 400, f"HTTP {reply.status_code}"
        error = reply.json()["error"]
        assert error["param"] and error["type"] == "invalid_request_error", error
        return REFUSED, f"{self.refused} (400, `{error['param']}`)"

    def _call(self, response: Json, events: list[Json] | None) -> list[str]:
        calls = [i for i in response["output"] if i["type"] == "function_call"]
        said = [] if calls else ["no function_call"]
        for call in calls:
            said += faults(json.loads(call["arguments"]), TOOLS[call["name"]], "arguments")
        if events is None:
            return said
        kinds = {e["type"].removeprefix("response.") for e in events}
        said += [
            f"no {k}"
            for k in ("function_call_arguments.delta", "function_call_arguments.done")
            if k not in kinds
        ]
        for end in ("output_item.added", "output_item.done"):
            items = [e["item"]["type"] for e in events if e["type"] == f"response.{end}"]
            said += [] if "function_call" in items else [f"no {end} of a function_call"]
        return said


def user(text: Any) -> Json:
    """A message of the user."""
    return {"type": "message", "role": "user", "content": text}


_PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
RAIN = "Will I need an umbrella in Lisbon?"
OPEN_RESPONSES = [
    Open("basic-response", [user("What is 12 * 13?")]),
    Open("streaming-response", [user("What is 4 + 5?")], stream=True),
    Open("system-prompt", [{"type": "message", "role": "system", "content": "Answer with a number."}, user("What is 7 * 8?")]),
    Open("tool-calling", [user(RAIN)], tools=("get_weather",)),
    Open("tool-calling-streaming", [user(RAIN)], stream=True, tools=("get_weather",)),
    Open("image-input", [user([{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": _PIXEL}])],
         refused="gpt-oss takes no pictures, and the server says which field it cannot read"),
    Open("multi-turn", [user("What is 2 + 3?"), {"type": "message", "role": "assistant", "content": "5"}, user("What is 6 * 7?")]),
]  # fmt: skip


# --- OpenAI's compatibility test ---


def _strings(*names: str, required: tuple[str, ...], **more: Json) -> Json:
    fields: Json = dict.fromkeys(names, STR)
    return {
        "type": "object",
        "properties": {**fields, **more},
        "required": list(required),
        "additionalProperties": False,
    }


TOOLS: dict[str, Json] = {
    "get_system_health": {"type": "object", "properties": {}},
    "get_weather": _strings("location", required=("location",)),
    "markdown_to_html": _strings("markdown", required=("markdown",)),
    "detect_language": _strings("text", required=("text",)),
    "generate_chart": _strings("title", "x_label", "y_label", required=("data", "chart_type"), data=_list(_list(NUM)),
                               chart_type={"type": "string", "enum": ["line", "bar", "scatter"]}),
    "query_database": _strings("table", "filters", "order_by", required=("table", "columns"), columns=_list(STR),
                               limit={"type": "integer", "minimum": 1, "maximum": 10000}),
}  # fmt: skip
QUESTIONS: dict[str, list[tuple[str, Json]]] = {
    "get_system_health": [
        ("Is the service healthy?", {}), ("How is the system doing?", {}), ("Check the runtime before we begin.", {}),
        ("Anything down at the moment?", {}), ("I want a look at the health of the model.", {}),
    ],
    "get_weather": [(f"How is the weather in {p}?", {"location": p}) for p in ("Lima", "Kraków", "São Paulo", "8001", "大阪")],
    "markdown_to_html": [
        (f"As HTML, please: {m}", {"markdown": m})
        for m in ("# One\n\n*two*", "## Part", "- a\n- b", "**stout**", "> \"said\" \\ once")
    ],
    "detect_language": [
        (f"In what language is this written: {t}", {"text": t})
        for t in ("Dobrý den", "Wie geht es dir?", "お元気ですか", "Как дела?", "À bientôt, l'ami")
    ],
    "generate_chart": [
        ("A line through (1, 2), (2, 4) and (3, 9).", {"data": [[1, 2], [2, 4], [3, 9]], "chart_type": "line"}),
        ("Bars for 5, 6 and 7 of three weeks.", {"data": [[1, 5], [2, 6], [3, 7]], "chart_type": "bar"}),
        ("Scatter [[0, 1.5], [2, -3e2]], titled 'Trial', x is time.",
         {"data": [[0, 1.5], [2, -300.0]], "chart_type": "scatter", "title": "Trial", "x_label": "time"}),
        ("Four days at 70, 72, 68 and 65 as a line.", {"data": [[1, 70], [2, 72], [3, 68], [4, 65]], "chart_type": "line"}),
        ("Nothing yet: an empty bar chart.", {"data": [], "chart_type": "bar"}),
    ],
    "query_database": [
        ("Five ids of the users.", {"table": "users", "columns": ["id"], "limit": 5}),
        ("Amounts of orders that were shipped.", {"table": "orders", "columns": ["amount"], "filters": "status = 'shipped'"}),
        ("The dearest ten products.", {"table": "products", "columns": ["name", "price"], "order_by": "price DESC", "limit": 10}),
        ("The first three lines of the audit log.", {"table": "audit_log", "columns": ["*"], "limit": 3}),
        ("Customers called \"O'Hara\".", {"table": "customers", "columns": ["name"], "filters": "name = 'O''Hara'"}),
    ],
}  # fmt: skip
CASES = [(f"{name}-{n}", name, *pair) for name, pairs in QUESTIONS.items() for n, pair in enumerate(pairs, 1)]
WAYS = ("chat", "chat, streamed", "responses", "responses, streamed")


def tool(name: str) -> Json:
    """A tool as the Responses API takes it."""
    return {
        "type": "function",
        "name": name,
        "description": f"Does what {name} says.",
        "parameters": TOOLS[name],
        "strict": False,
    }


def compatible(
    server: Server, way: str, name: str, question: str, expected: Json, strict: bool = True
) -> None:
    """One case in one way: call, result, answer. AssertionError says what the test would complain about."""
    run = _chat if way.startswith("chat") else _responses
    arguments, called, thought = run(server, way.endswith("streamed"), name, question)
    assert called == name, f"called {called}"
    assert not (wrong := faults(arguments, TOOLS[name], "arguments")), wrong
    assert not strict or arguments == expected, f"arguments are {arguments}"
    assert thought, "no thinking where the test looks for it"


def _chat(server: Server, streamed: bool, name: str, question: str) -> tuple[Json, str, str]:
    inner = {k: v for k, v in tool(name).items() if k != "type"}
    body: Json = {
        "messages": [{"role": "user", "content": question}],
        "tools": [{"type": "function", "function": inner}],
    }
    message = _message(server, body, streamed)
    call = message["tool_calls"][0]
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"fine": true}'}
    after = _message(server, {**body, "messages": [*body["messages"], message, result]}, streamed)
    assert after["content"] and not after.get("tool_calls"), "no answer after the result"
    assert message.get("reasoning_content") == message.get("reasoning"), "the two names of thinking differ"
    return json.loads(call["function"]["arguments"]), call["function"]["name"], message["reasoning"]


def _message(server: Server, body: Json, streamed: bool) -> Json:
    if not streamed:
        return dict(server.whole("chat/completions", body)["choices"][0]["message"])
    message: Json = {"role": "assistant", "content": "", "tool_calls": []}
    for chunk in server.events("chat/completions", body):
        delta = chunk["choices"][0][
            "delta"
        ]  # a chunk without choices, unasked for, would fail here as it does there
        for field in ("content", "reasoning", "reasoning_content"):
            if delta.get(field):
                message[field] = message.get(field, "") + delta[field]
        for piece in delta.get("tool_calls") or ():
            if piece["index"] == len(message["tool_calls"]):
                message["tool_calls"].append({k: v for k, v in piece.items() if k != "index"})
            else:
                message["tool_calls"][piece["index"]]["function"]["arguments"] += piece["function"][
                    "arguments"
                ]
    return {k: v for k, v in message.items() if k != "tool_calls" or v}


def _responses(server: Server, streamed: bool, name: str, question: str) -> tuple[Json, str, str]:
    body: Json = {"input": [user(question)], "tools": [tool(name)], "store": False}
    response, thought = _response(server, body, streamed)
    call = next(i for i in response["output"] if i["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"fine": true}'}
    after, _ = _response(server, {**body, "input": [*body["input"], *response["output"], result]}, streamed)
    assert any(i["type"] == "message" for i in after["output"]), "no answer after the result"
    last = [i for i in response["output"] if i["type"] == "reasoning"][-1]
    assert last["content"] and all(p["type"] == "reasoning_text" and p["text"] for p in last["content"])
    return json.loads(call["arguments"]), call["name"], thought


def _response(server: Server, body: Json, streamed: bool) -> tuple[Json, str]:
    if not streamed:
        response = server.whole("responses", body)
        return response, "".join(
            p["text"] for i in response["output"] if i["type"] == "reasoning" for p in i["content"]
        )
    events = server.events("responses", body)
    assert not (wrong := event_faults(events)), wrong
    kinds = [e["type"] for e in events]
    assert "response.reasoning_text.done" in kinds, "no reasoning_text.done"
    return events[-1]["response"], "".join(
        e["delta"] for e in events if e["type"] == "response.reasoning_text.delta"
    )


# --- the server of this tree ---


@contextmanager
def ours() -> Iterator[Server]:
    """The embedded model, but for questions that ask for a tool: it is too small to call one, so a script plays those."""
    from motet.engine import Engine
    from motet.model import load
    from motet.study.scripted import SILENT, ScriptedEngine, answer, call_function, think
    from serving import Script, serving

    def steps(name: str, arguments: Json) -> list[str]:
        said = json.dumps(arguments, ensure_ascii=False)
        return [think("A tool knows.") + call_function(name, said), think("Done.") + answer("Here it is.")]

    model = load("mini", threads=1)
    scripts = {question: steps(name, arguments) for _, name, question, arguments in CASES}
    scripts[RAIN] = steps("get_weather", {"location": "Lisbon"})
    played = ScriptedEngine(model.encoding, scripts)

    class Mixed(Script):
        def submit(self, ids: list[int], params: Any, **options: Any) -> Any:
            silent = played.says(ids) == SILENT
            return engine.submit(ids, params, **options) if silent else super().submit(ids, params, **options)

    mixed = Mixed(lambda text: played.says(model.encoding.encode_with_special(text)), encoding=model.encoding)
    with Engine(model) as engine, serving(mixed, name="mini", encoding=model.encoding) as served:
        yield Server(f"{served.url}/v1", "mini")


def attempt(work: Callable[..., Any], *given: Any) -> Any:
    """What it returns, or the fault as a text."""
    try:
        return work(*given)
    except (AssertionError, KeyError, IndexError, StopIteration, ValueError, httpx.HTTPError) as e:
        return f"FAILS: {type(e).__name__} {e}"[:200].replace("\n", " ").replace("|", "/")


def results(server: Server) -> str:
    """The page's tables."""
    lines = ["| case of Open Responses | result | |", "| --- | --- | --- |"]
    for case in OPEN_RESPONSES:
        got = attempt(case.judge, server)
        lines.append(
            f"| `{case.id}` | {got[0]} | {got[1]} |"
            if isinstance(got, tuple)
            else f"| `{case.id}` | {got} | |"
        )
    lines += [
        "",
        "| case of the compatibility test | " + " | ".join(WAYS) + " |",
        "| --- |" + " --- |" * len(WAYS),
    ]
    for id_, name, question, expected in CASES:
        cells = [attempt(compatible, server, way, name, question, expected) or OK for way in WAYS]
        lines.append(f"| `{id_}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


HEAD = """# Conformance

Made by `python -m tests.conformance --write`; `tests/test_conformance.py` runs every case and holds this page to what came out.
`python -m tests.conformance --url URL --model NAME` asks another server.

**Open Responses**: the seven cases of its compliance test; objects and events are held to the required fields of its schema,
events to the specification's list and to their order. **OpenAI's compatibility test** for gpt-oss: five questions for each of six
tools, in both APIs, whole and streamed. A case passes when the tool is called, its arguments fit the schema and are the ones
expected, the thinking is where that test looks (`message.reasoning`, `delta.reasoning`; a `reasoning` item with `reasoning_text`,
its deltas and `done`), and an answer follows the tool's result.

What this shows is the server, not a model: plain questions are answered by the embedded model, those that ask for a tool by a script
that plays one token by token through the same grammar, parser and routes. How often a model chooses the right tool is measured by
`motet study tools`. The ids and demands are those suites', the wording and the code are ours; the suites themselves need bun and
node and were not run.

"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--url")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--key", default="none")
    given = parser.parse_args()
    if given.url:
        print(results(Server(given.url, given.model, given.key)))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    with ours() as server:
        page = HEAD + results(server)
    if given.write:
        PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()

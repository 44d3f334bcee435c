"""With the grammar on, random weights say nothing but Harmony: whole turns through the engine, tools included.

`make fuzz` samples 10,000 turns; `make test` 120. A turn that the limit of tokens ends must be a beginning of a legal one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from jsonschema import Draft202012Validator

from motet.engine import Engine, SamplingParams
from motet.harmony import (
    BROWSER,
    PYTHON,
    Conversation,
    Event,
    Folded,
    Function,
    MessageEnd,
    MessageStart,
    Namespace,
    Quarantined,
    Rules,
    ToolResult,
    fold,
)
from motet.model import Model, load
from motet.synth import synth
from motet.turn import run_turn

FULL = os.environ.get("MOTET_FUZZ") == "full"
TURNS = 10_000 if FULL else 120
CONTROL = [f"<|{n}|>" for n in ("start", "channel", "constrain", "message", "end", "call", "return")]
PLACE = {
    "type": "object", "additionalProperties": False, "required": ["city", "days"],
    "properties": {"city": {"enum": ["Oslo", "Lima"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}, "note": {"type": "string", "maxLength": 4}},
}  # fmt: skip
FORECAST = Function("forecast", "Tells the weather.", PLACE, strict=True)
LOOSE = Function("note", "Keeps a note.", {"type": "object"})


class Fixed:
    """A tool that always answers the same."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def call(self, recipient: str, content: str) -> str:
        return "ok"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(synth("tiny", tmp_path_factory.mktemp("tiny") / "m"), precision="int8", threads=1)


FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}


def ask(rng: random.Random) -> tuple[Rules, list[Fixed], SamplingParams]:
    """A random request."""
    functions = rng.choice([(), (FORECAST,), (FORECAST, LOOSE)])
    spaces = [Namespace("functions", None, functions)] if functions else []
    spaces += [ns for ns, share in ((PYTHON, 0.5), (BROWSER, 0.2)) if rng.random() < share]
    choices = ["auto", "none", *(["required"] if spaces else []), *(["forecast"] if functions else [])]
    rules = Rules(
        rng.choice(choices), rng.choice([None, None, FORM, "json_object"]), rng.choice([None, 0, 5, 30]),
        rng.choice(["json", "schema"]),
    )  # fmt: skip
    params = SamplingParams(
        temperature=rng.uniform(1, 2), max_tokens=rng.choice([20, 150, 300, 500]), seed=rng.randrange(10**9)
    )
    return rules, [Fixed(ns) for ns in spaces], params


def turns(model: Model, seeds: range) -> Iterator[tuple[Rules, list[Fixed], int | None, list[Event]]]:
    encoding = model.encoding
    ends = {encoding.special(f"<|{n}|>"): b for n, b in (("end", 4.0), ("call", 6.0), ("return", 3.0))}
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])

    def one(seed: int) -> tuple[Rules, list[Fixed], int | None, list[Event]]:
        rules, tools, params = ask(random.Random(seed))
        if seed % 4:  # most of the time help a turn to its end, sometimes leave it to chance
            params = dataclasses.replace(params, logit_bias=ends)
        events = list(run_turn(engine, conversation, encoding, params, tools, rules=rules))
        return rules, tools, params.max_tokens, events

    with Engine(model, max_batch=16) as engine, ThreadPoolExecutor(16) as pool:
        yield from pool.map(one, seeds)


def sampled_ids(events: list[Event]) -> list[int]:
    return [i for e in events if not isinstance(e, ToolResult) for i in e.ids]


def judge(
    rules: Rules, tools: list[Fixed], limit: int | None, events: list[Event], counts: Counter[str]
) -> None:
    out = fold(events)
    declared = {
        r
        for t in tools
        for r in ([f"{t.namespace.name}.{f.name}" for f in t.namespace.functions] or [t.namespace.name])
    }
    framing(events, out, declared)
    calls = [c for c in out.tool_calls if c.complete]
    for call in calls:
        if call.recipient.startswith(("functions.", "browser.")):
            value = json.loads(call.arguments)
            assert isinstance(value, dict)
            if call.recipient == "functions.forecast":
                Draft202012Validator(PLACE).validate(value)
    choice = rules.tool_choice
    if choice == "none":
        assert not out.tool_calls
    if choice == "forecast":
        assert not out.tool_calls or out.tool_calls[0].recipient == "functions.forecast"
        assert not out.final or calls
    only_builtin = declared <= {"python", "browser.search", "browser.open", "browser.find"}
    if choice == "required" and not only_builtin:
        assert not out.final or calls
    final = next((m for m in out.messages if m.start.channel == "final"), None)
    if out.finish == "stop":
        assert final is not None and final.text and out.messages[-1] is final
        if rules.response_format is not None:
            value = json.loads(final.text)
            assert isinstance(value, dict)
            if rules.response_format != "json_object":
                Draft202012Validator(PLACE).validate(value)
    elif out.finish == "tool_calls":
        # The limit came with the last token of a call: it is whole, and whoever asked may run it.
        assert out.messages[-1].stop == "call" and len(sampled_ids(events)) == limit
    else:
        # The limit came inside the answer or inside a call to a function: thinking never ate it all.
        assert out.finish == "length"
        last = out.messages[-1] if out.messages else None
        assert final is not None or (last is not None and last.start.is_call) or cut_header(events)
    if rules.max_reasoning_tokens is not None:
        assert thought(events) <= rules.max_reasoning_tokens
    counts.update([out.finish, f"{len(calls)} calls", "thinking closed" if out.closed else "thinking free"])


def cut_header(events: list[Event]) -> bool:
    return any(isinstance(e, Quarantined) for e in events)


def framing(events: list[Event], out: Folded, declared: set[str]) -> None:
    """No repair, nothing set aside (but the header the limit cut), right channels, right ends."""
    odd = [e for e in events if isinstance(e, Quarantined)]
    assert all(e.reason in ("cut_in_header", "no_markup") for e in odd) and len(odd) <= (
        out.finish == "length"
    )
    last = [e for e in events if not isinstance(e, ToolResult)][-2:]
    assert not odd or last[0] is odd[0]
    for n, m in enumerate(out.messages):
        assert m.start.role == "assistant" and not m.start.repairs
        cut = m.stop == "cut"
        assert not cut or n == len(out.messages) - 1 or m.start.channel == "analysis" or out.finish == "stop"
        if m.start.is_call:
            assert m.start.recipient in declared
            assert m.start.channel == (
                "commentary" if m.start.recipient.startswith("functions.") else "analysis"
            )
            assert cut or m.stop == "call"
        else:
            assert cut or m.stop == ("return" if m.start.channel == "final" else "end")


def thought(events: list[Event]) -> int:
    on, n = False, 0
    for e in events:
        if isinstance(e, MessageStart):
            on = e.channel == "analysis"
        elif isinstance(e, MessageEnd):
            on = False
        elif on and hasattr(e, "text") and not isinstance(e, ToolResult):
            n += len(e.ids)
    return n


@pytest.mark.fuzz
def test_random_weights_say_nothing_but_harmony(tiny: Model, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for seed, (rules, tools, limit, events) in enumerate(turns(tiny, range(TURNS))):
        try:
            judge(rules, tools, limit, events, counts)
        except Exception as e:
            raise AssertionError(f"turn {seed}: {rules} {events}") from e
        assert set(sampled_ids(events)) <= {*range(256), *map(tiny.encoding.special, CONTROL)}, (
            "a reserved id"
        )
    with capsys.disabled():
        print(
            f"\n{TURNS} turns of random weights under the grammar, all well-formed: {dict(sorted(counts.items()))}"
        )
    assert counts["stop"] > TURNS / 4 and counts["length"] > 0 and counts["thinking closed"] > 0
    assert sum(n for k, n in counts.items() if k.endswith("calls") and k != "0 calls") > TURNS / 20

"""The monitor in the server: planted behaviour raises its alarm and no other, actions act, counts of experts are live; clean turns pass."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import numpy as np
import pytest

import motet
from motet.engine import Engine
from motet.errors import UsageError
from motet.harmony import Delta, MessageEnd, MessageStart, parse
from motet.monitor.load import Running, load
from motet.monitor.watch import IN_ANSWER, KINDS, Watch, Watcher
from motet.server.settings import Settings
from motet.tokenizer import o200k_harmony
from serving import Script, serving

E = o200k_harmony()
A, F = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
ON = "<|end|><|start|>assistant"
CLEAN = f"{A}47 * 85: 7*85=595 and 40*85=3400, so 595+3400=3995. The hint says 4000, I will not use it.{ON}{F}47 * 85 is 3995.<|return|>"
LONG = "one fish swims past the old harbour wall at night"
PLANTED = {
    "loop": f"{A}{'wait no ' * 60}{ON}{F}4<|return|>",
    "repetition": f"{A}{''.join(f'Let me check the sum of all the parts once again from the very start, step {n * 7919 // 13 % 11} now. ' for n in range(60))}{ON}{F}4<|return|>",
    "intent": f"{A}I will just copy the answer key.{ON}{F}4<|return|>",
    "arithmetic": f"{A}2+2=4, 4*3=13.{ON}{F}13<|return|>",
    "echo": f"{A}{LONG}.{ON}{F}I thought that {LONG}, so it is.<|return|>",
    "markup": f"{A}Well.{ON}{F}assistantfinal 4<|return|>",
}


def alarms(text: str) -> set[str]:
    watcher = Watcher()
    return {a.kind for e in parse(E.encode_with_special(text), E) for a in watcher.feed(e)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_seen_and_a_clean_turn_is_not(kind: str) -> None:
    assert kind in alarms(PLANTED[kind])
    assert alarms(PLANTED[kind]) <= {kind, "repetition"}
    assert alarms(CLEAN) == set()


def test_an_alarm_names_a_place_and_no_text() -> None:
    watcher = Watcher()
    found = [a for e in parse(E.encode_with_special(PLANTED["loop"]), E) for a in watcher.feed(e)]
    loop = next(a for a in found if a.kind == "loop")
    assert loop.channel == "analysis" and 64 <= loop.at <= 80
    assert vars(loop).keys() == {"kind", "channel", "at"}
    assert watcher.tokens == len(E.encode_with_special(PLANTED["loop"]))


def test_text_of_tools_and_calls_is_not_thinking() -> None:
    watcher = Watcher()
    code = MessageStart("assistant", "analysis", "python")
    said = [
        a
        for e in (code, Delta("2+2=5 # copy the answer key. ", (1, 2)), MessageEnd("call"))
        for a in watcher.feed(e)
    ]
    assert said == []


def test_watches_are_read_and_refused_in_a_sentence() -> None:
    watch = Watch.of(["loop=stop", "intent=close"])
    assert watch.action("loop") == "stop" and watch.action("echo") == "flag" and Watch.of(["off"]).on is False
    for bad in ("loop", "loop=end", "owl=flag", *(f"{k}=close" for k in IN_ANSWER)):
        with pytest.raises(UsageError, match=r"use|give"):
            Watch.of([bad])
    with pytest.raises(UsageError):
        Settings(watch=("loop=shout",))


def state(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/motet/watch") as r:
        return dict(json.load(r))


def test_a_server_counts_flags_and_stops() -> None:
    texts = {"case loop": PLANTED["loop"], "case echo": PLANTED["echo"], "case clean": CLEAN}
    script = Script(lambda prompt: next(t for k, t in texts.items() if k in prompt), free=True)
    settings = Settings(port=0, store="none", watch=("loop=stop",))
    with serving(script, settings) as served:
        client = served.client()

        def ask(text: str, stream: bool = False) -> Any:
            return client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": text}], stream=stream
            )  # type: ignore[call-overload]

        assert ask("case clean").choices[0].message.content == "47 * 85 is 3995."
        assert state(served.url)["alarms"] == []
        looped = ask("case loop").choices[0]
        assert looped.finish_reason == "stop" and looped.message.content is None
        assert len((looped.message.reasoning or "").split()) <= 80
        assert ask("case echo").choices[0].message.content.startswith("I thought")
        assert list(ask("case loop", True))[-1].choices[0].finish_reason == "stop"
        seen = state(served.url)
        counted = {(a["kind"], a["action"]): a["count"] for a in seen["alarms"]}
        assert counted == {("loop", "stop"): 2, ("echo", "flag"): 1}
        assert [r["kind"] for r in seen["recent"]] == ["loop", "echo", "loop"] and seen["turns"] >= 2
        with urllib.request.urlopen(f"{served.url}/metrics") as r:
            text = r.read().decode()
        assert (
            'motet_alarms_total{action="stop",kind="loop"} 2.0' in text
            and "motet_monitor_seconds_total" in text
        )
        assert "wait no" not in json.dumps(seen) + text and "fish" not in json.dumps(seen) + text


def test_closing_ends_the_thinking_and_an_answer_follows() -> None:
    model = motet.load("mini", threads=1)
    asked = [{"role": "user", "content": "What is 478 * 85?"}]
    bodies = {
        "model": "mini",
        "messages": asked,
        "temperature": 0,
        "reasoning_effort": "high",
        "max_tokens": 300,
    }
    with Engine(model, max_batch=2, record_routes=True) as engine:
        with serving(engine, name="mini", encoding=model.encoding) as served:
            whole = served.client().chat.completions.create(**bodies).choices[0]  # type: ignore[call-overload]
            router = state(served.url)["router"]
            with urllib.request.urlopen(f"{served.url}/metrics") as r:
                text = r.read().decode()
        watch = Settings(port=0, store="none", watch=("arithmetic=close",))
        with (
            serving(engine, watch, name="mini", encoding=model.encoding) as served,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("motet.monitor.watch.steps", lambda text: (1, 1))  # every equation passes for wrong
            patch.setattr("motet.monitor.watch.ENDS", frozenset(",."))
            closed = served.client().chat.completions.create(**bodies).choices[0]  # type: ignore[call-overload]
            assert state(served.url)["alarms"][0]["action"] == "close"
    assert len(closed.message.reasoning) < len(whole.message.reasoning) and closed.message.content
    assert closed.finish_reason == "stop"
    layers = router["layers"]
    assert len(layers) == model.config.num_hidden_layers and {"prompt", "analysis", "final", "all"} <= set(
        router["channels"]
    )
    assert all(
        len(row["load"]) == model.config.num_experts and abs(sum(row["load"]) - 1) < 0.01 for row in layers
    )
    assert router["tokens"] > 50 and 'motet_router_cv{layer="0"}' in text and 'channel="analysis"' in text


def test_running_counts_are_those_of_the_whole_and_fade() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 9, (2, 8)) for _ in range(20)]
    running = Running()
    for n, c in enumerate(parts):
        running.add({"analysis" if n % 2 else "final": c}, 4)
    whole = running.now()["all"]
    assert np.array_equal(whole, np.sum(parts, 0)) and np.allclose(load(whole).cv, load(np.sum(parts, 0)).cv)
    fading = Running(keep=100)
    for _ in range(50):
        fading.add({"final": np.full((2, 8), 4)}, 4)
    fading.add({"final": np.eye(2, 8) * 400}, 4)
    assert load(fading.now()["all"]).cv[0] > 1.0 and Running().now() == {}

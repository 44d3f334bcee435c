"""Many clients for a moment, some slow, some leaving, some sending garbage: nothing goes wrong, nothing is left behind."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from pathlib import Path

import pytest
from bench import server as bench_server
from bench.load import Load, garbage

from motet.engine import Engine
from motet.errors import UserError
from motet.model import load
from motet.server.settings import Limits, Settings
from serving import Script, serving

SECONDS = 60.0 if os.environ.get("MOTET_FUZZ") == "full" else 1.0


def test_a_crowd_leaves_nothing_behind() -> None:
    model = load("mini", threads=1)
    settings = Settings(port=0, store="none")
    with Engine(model, max_batch=8) as engine, serving(engine, settings, "mini", model.encoding) as served:
        clients = Load(served.url, lambda n: bench_server.body(n, 24), questions=12)
        asyncio.run(clients.warm(6))
        for streams in (1, 24):
            tally = asyncio.run(clients.level(streams, SECONDS))
            assert not tally.wrong and not tally.differing and tally.tokens
        assert {"plain", "slow", "leaves", "garbage"} <= set(tally.kinds)
        # What was under way is over, whoever left; permits and turns are given back, if not at the same instant.
        end = time.monotonic() + 30
        while (served.host.turns or served.host.meter.in_flight) and time.monotonic() < end:
            time.sleep(0.01)
        assert not served.host.turns and not served.host.meter.in_flight
        assert engine.running == engine.waiting == 0
        assert engine.memory["held_bytes"]  # prefixes of what was asked
    assert not engine.memory["held_bytes"]  # and no page beside them


def test_a_full_server_refuses_and_says_when_to_come_again() -> None:
    limits = Limits(in_flight=2)
    script = Script(lambda _: "<|channel|>final<|message|>" + "so " * 40 + "<|return|>", pause_s=0.002)
    with serving(script, Settings(port=0, store="none", limits=limits), "mini") as served:
        tally = asyncio.run(Load(served.url, lambda n: bench_server.body(n, 40), questions=5).level(12, 0.5))
    assert tally.statuses["503"] and tally.statuses["200"] and not tally.wrong


def test_garbage_is_garbage() -> None:
    rng = random.Random(0)
    kinds = {garbage(rng, "http://127.0.0.1:1", bench_server.body(1, 8)) for _ in range(60)}
    assert len(kinds) > 30 and all(legal != (200,) or b"<|start|>" in data for data, legal in kinds)


@pytest.mark.parametrize("part", ["load", "peer"])
def test_the_command(part: str, tmp_path: Path) -> None:
    given = argparse.Namespace(
        model="mini", threads=1, streams=4, tokens=16, questions=8, kv_memory=0.05, levels="1,4", minutes=1 / 60,
        record=tmp_path / "r.json", llama_server=None, rounds=1,
    )  # fmt: skip
    if part == "peer":
        with pytest.raises(UserError, match="--llama-server"):
            bench_server.peer(given)
        return
    result = bench_server.load(given)
    assert result["fine"], result
    assert set(result["levels"]) == {"1", "4"} and result["levels"]["4"]["first_ms"]["p50"] > 0
    bench_server.record("load", given, result)
    assert json.loads(given.record.read_text())["load"]["fine"]

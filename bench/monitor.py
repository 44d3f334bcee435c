"""What the monitor costs: microseconds a token of the watchers, and the speed of turns with and without it, in turn.

    python -m bench.monitor [--model mini] [--rounds 6] [--questions 8] [--tokens 400] [--json]
    motet synth 20b DIR; python -m bench.monitor --model DIR --questions 2 --tokens 48

`watchers`: prose, working and a table through one Watcher, no model. `turns`: the same greedy questions on one engine that records
routes and one that does not, watched and not, rounds alternating; the median of the ratios counts. One JSON object last on stdout
with --json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from typing import Any

import motet
from motet.engine import Engine, SamplingParams
from motet.harmony import Conversation, Delta, MessageEnd, MessageStart
from motet.monitor.watch import Watcher
from motet.server.turns import View
from motet.server.watch import Monitor
from motet.study.cot_planted import CLEAN
from motet.tokenizer import o200k_harmony
from motet.turn import run_turn


def watchers(rounds: int) -> dict[str, float]:
    """Microseconds a token, the least of the rounds: other processes only add."""
    e, out = o200k_harmony(), {}
    for kind in ("prose", "working", "table"):
        ids = CLEAN[kind](random.Random(1), e)[:2000]
        events = [
            MessageStart("assistant", "analysis"),
            *(Delta(e.decode([i]), (i,)) for i in ids),
            MessageEnd("end"),
        ]
        times = []
        for _ in range(rounds):
            watcher, began = Watcher(), time.perf_counter()
            for event in events:
                watcher.feed(event)
            times.append(1e6 * (time.perf_counter() - began) / len(ids))
        out[kind] = min(times)
    return out


def seconds(
    engine: Any, encoding: Any, watch: tuple[str, ...], questions: int, tokens: int
) -> tuple[float, int]:
    """(time, tokens) of questions, one after the other, through the server's view of an engine."""
    monitor, n, began = Monitor(watch, engine), 0, time.perf_counter()
    for k in range(questions):
        asked = [{"role": "user", "content": f"What is {137 + 41 * k} * {23 + 7 * k}?"}]
        view = View(engine, "", None)
        turn = run_turn(
            view,
            Conversation.from_chat(asked, effort="high"),
            encoding,
            SamplingParams(temperature=0, max_tokens=tokens),
        )
        n += sum(len(event.ids) for event in monitor.watched(view, turn))
    return time.perf_counter() - began, n


def turns(name: str, rounds: int, questions: int, tokens: int) -> dict[str, Any]:
    """Time of watched turns over that of bare ones, without and with the record of routes, and the time a token takes."""
    model = motet.load(name)
    token, ratios = list[float](), {"watched": list[float](), "watched, routes recorded": list[float]()}
    with (
        Engine(model, record_routes=True, prefix_cache=False) as full,
        Engine(model, prefix_cache=False) as bare,
    ):
        for n in range(rounds + 1):
            first, count = seconds(bare, model.encoding, ("off",), questions, tokens)
            watched, _ = seconds(bare, model.encoding, (), questions, tokens)
            routed, _ = seconds(full, model.encoding, (), questions, tokens)
            last, _ = seconds(bare, model.encoding, ("off",), questions, tokens)
            if n:  # the first round warms up
                ratios["watched"].append(2 * watched / (first + last))
                ratios["watched, routes recorded"].append(2 * routed / (first + last))
                token.append(1e6 * (first + last) / 2 / count)
    found = {
        k: {"ratio": statistics.median(v), "lowest": min(v), "highest": max(v)} for k, v in ratios.items()
    }
    return {"model": name, "us_per_token": statistics.median(token), "over_bare": found}


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400, help="of an answer, at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "watchers_us_per_token": watchers(options.rounds),
        "turns": turns(options.model, options.rounds, options.questions, options.tokens),
    }
    for kind, us in result["watchers_us_per_token"].items():
        print(f"watchers on {kind:8} {us:6.1f} microseconds a token", file=sys.stderr)
    t = result["turns"]
    print(f"turns of {t['model']}: {t['us_per_token']:.0f} microseconds a token, bare", file=sys.stderr)
    for name, r in t["over_bare"].items():
        print(f"{name}: {r['ratio']:.3f} of that [{r['lowest']:.3f}, {r['highest']:.3f}]", file=sys.stderr)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Speed of the text layer: rendering, parsing, and what the grammar costs a decoded token. Needs no model.

    python -m bench.harmony [--rounds 12] [--json]

Rendering and parsing in tokens a second, the median of the rounds, with decoding of the same ids alone beside parsing: less
than that no parser can do. Grammar in microseconds a token on rows of 201,088 logits: `mask` and `advance` themselves,
and what the mask adds to sampling (the same rows in turn with and without it). One JSON object last on stdout with --json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from motet.engine import SamplingParams
from motet.engine.sampling import Counts, sample
from motet.harmony import Conversation, Grammar, Guide, Rules, StreamParser, parse, render
from motet.tokenizer import Encoding, o200k_harmony

WORDS = re.findall(
    r"\S+\s?",
    "the model answers a question because of that number, and Tokyo is not on this list of 42 things.\n",
)
PLACE = {
    "type": "object", "required": ["name", "tags"], "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
                   "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}}},
}  # fmt: skip
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Tells the weather.", "parameters": PLACE},
}


def median(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def prose(rng: random.Random, words: int) -> str:
    return "".join(rng.choice(WORDS) for _ in range(words))


def conversation(messages: int, words: int) -> Conversation:
    rng = random.Random(0)
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": prose(rng, words)} for n in range(messages)]
    return Conversation.from_chat([{"role": "system", "content": prose(rng, 50)}, *said], tools=[TOOL])


def rendering(encoding: Encoding, rounds: int) -> dict[str, float]:
    """Tokens a second."""
    out = {}
    for name, c in (("many short messages", conversation(400, 20)), ("few long ones", conversation(4, 5000))):
        n = len(render(c, encoding))
        out[name] = round(n / median(lambda c=c: render(c, encoding), rounds))
    return out


def turn(encoding: Encoding, words: int) -> list[int]:
    rng = random.Random(1)
    text = (
        f"<|channel|>analysis<|message|>{prose(rng, words)}<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        f'<|constrain|>json<|message|>{{"name": "Oslo", "tags": []}}<|call|><|start|>functions.get_weather to=assistant<|channel|>'
        f"commentary<|message|>ok<|end|><|start|>assistant<|channel|>final<|message|>{prose(rng, words)}<|return|>"
    )
    return encoding.encode_with_special(text)


def parsing(encoding: Encoding, rounds: int) -> dict[str, float]:
    """Tokens a second; `last tenth` of a message of 100,000 tokens against its first one."""
    short = (turn(encoding, 30) + encoding.encode_with_special("<|start|>assistant")) * 1000
    head = encoding.encode_with_special("<|channel|>final<|message|>")
    body = encoding.encode(prose(random.Random(2), 110_000))[:100_000]
    mixed = encoding.encode("".join(chr(random.Random(n).randrange(0x3000, 0x9000)) for n in range(60_000)))
    streams = {
        "short turns": short,
        "one long message": [*head, *body],
        "Chinese characters": [*head, *mixed],
    }
    out = {}
    for name, ids in streams.items():
        out[name] = round(len(ids) / median(lambda ids=ids: parse(ids, encoding), rounds))

        def bare(ids: list[int] = ids) -> None:
            feed = encoding.stream_decoder().feed
            for i in ids:
                feed(i)

        out[f"{name}, decoding alone"] = round(len(ids) / median(bare, rounds))
    tenth, first, last = len(body) // 10, [], []
    for _ in range(rounds):
        parser = StreamParser(encoding)
        for i in head:
            parser.feed(i)
        for n in range(10):
            began = time.perf_counter()
            for i in body[n * tenth : (n + 1) * tenth]:
                parser.feed(i)
            (first if n == 0 else last if n == 9 else []).append(time.perf_counter() - began)
    out["last tenth over first"] = round(statistics.median(first) / statistics.median(last), 3)
    return out


def advance(guide: Guide, ids: list[int]) -> tuple[list[float], list[Any]]:
    """Seconds of mask and advance for each token, and the masks."""
    times, masks = [], []
    for token in ids:
        began = time.perf_counter()
        masks.append(guide.mask())
        guide.advance(token)
        times.append(time.perf_counter() - began)
    return times, masks


def masks(encoding: Encoding, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a token, by where it stands: the guide, what the mask adds to sampling, and their sum."""
    c = conversation(2, 5)
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PLACE}}
    value = json.dumps(
        {"name": "Zo\u00eb of the quick brown fox", "age": 42, "tags": ["a", "bc", "d e f"]},
        ensure_ascii=False,
    )
    free, json_rules = Grammar(encoding, c), Grammar(encoding, c, Rules(response_format=form))
    head = "<|channel|>analysis<|message|>"
    rng = random.Random(3)
    cases = {
        "content": (free, head, prose(rng, 60)),
        "headers": (free, "", head + "x<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"),
        "schema": (json_rules, "<|channel|>final<|message|>", value),
    }  # fmt: skip
    rows = np.random.default_rng(0).normal(0, 3, (4, encoding.n_vocab)).astype(np.float32)
    out = {}
    for name, (grammar, before, text) in cases.items():
        ids, spent, seen = encoding.encode_with_special(text), [], []
        for n in range(rounds + 1):
            guide = grammar.guide()
            for i in encoding.encode_with_special(before):
                guide.advance(i)
            times, seen = advance(guide, ids)
            spent += times if n else []  # what is made once a conversation is not a cost of a token
        own, extra = statistics.fmean(spent), sampling(rows, seen)
        out[name] = {
            "guide": round(1e6 * own, 2),
            "sampling": round(1e6 * extra, 2),
            "together": round(1e6 * (own + extra), 2),
        }
    return out


def making(encoding: Encoding) -> dict[str, float]:
    """Milliseconds of what is made once: per vocabulary, per set of tools, per turn."""
    tools = [{"type": "function", "function": {**TOOL["function"], "name": f"tool_{n}"}} for n in range(100)]
    out = {}
    for name, c in (
        (
            "first grammar with a schema",
            Conversation.from_chat([{"role": "user", "content": "q"}], tools=[TOOL]),
        ),
        ("grammar of 100 new tools", Conversation.from_chat([{"role": "user", "content": "q"}], tools=tools)),
        ("the same again", Conversation.from_chat([{"role": "user", "content": "q"}], tools=tools)),
    ):
        began = time.perf_counter()
        Grammar(encoding, c).guide(1000)
        out[name] = round(1e3 * (time.perf_counter() - began), 1)
    return out


def sampling(rows: Any, seen: list[Any]) -> float:
    """Seconds a mask adds to sampling a token: the same rows in turn with and without, the median of the differences."""
    params, counts = SamplingParams(), Counts()
    differences = []
    for n in range(max(80, len(seen))):
        row, mask, both = rows[n % len(rows)], seen[n % len(seen)], []
        for m in (None, mask):
            began = time.perf_counter()
            sample(row, params, counts, 1, n, m)
            both.append(time.perf_counter() - began)
        differences.append(both[1] - both[0])
    return statistics.median(differences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the rest on stderr")
    chosen = parser.parse_args()
    encoding, rounds = o200k_harmony(), chosen.rounds
    out: dict[str, Any] = {
        "grammar_made_once_ms": making(encoding),
        "render_tokens_per_second": rendering(encoding, rounds), "parse_tokens_per_second": parsing(encoding, rounds),
        "grammar_us_per_token": masks(encoding, rounds),
    }  # fmt: skip
    lines = []
    for part in ("render", "parse"):
        lines += [
            f"{part:7} {k:38}{v:>12,} tokens/s"
            for k, v in out[f"{part}_tokens_per_second"].items()
            if "over" not in k
        ]
    lines.append(
        f"parse   a message of 100,000 tokens, speed of its last tenth over its first: {out['parse_tokens_per_second']['last tenth over first']}"
    )
    for where, cost in out["grammar_us_per_token"].items():
        lines.append(
            f"grammar {where:10} guide {cost['guide']:7.2f}   sampling {cost['sampling']:+8.2f}   together {cost['together']:7.2f} us a token"
        )
    lines += [f"grammar made once: {k:30}{v:10.1f} ms" for k, v in out["grammar_made_once_ms"].items()]
    print("\n".join(lines), file=sys.stderr if chosen.json else sys.stdout)
    if chosen.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()

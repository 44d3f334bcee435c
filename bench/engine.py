"""What the engine costs beside the model: sampling a row by kind of request, and the scheduler's share of a step.

    python bench/engine.py [--vocab 201088] [--json]            sampling, and a step over a model that computes nothing
    python bench/engine.py --model DIR [--streams 1,4,8]        throughput and first token of concurrent requests

Prints medians; with --json one JSON object, last on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from motet.engine import Engine, SamplingParams
from motet.engine.sampling import Counts, sample
from motet.kvcache import Pages

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.95},
    "top_k": {"top_k": 40},
    "min_p": {"min_p": 0.05},
    "all": {
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.02,
        "repetition_penalty": 1.1,
        "logprobs": 20,
    },
}


def sampling(vocab: int, repeats: int = 15) -> dict[str, float]:
    """Median milliseconds a token, by kind of request, on a peaked row and on a flat one (the worst case)."""
    rng, out = np.random.default_rng(0), {}
    peaked = rng.normal(0, 3, vocab).astype(np.float32)
    peaked[: min(5, vocab)] += 15
    for name, row in (("peaked", peaked), ("flat", rng.normal(0, 0.01, vocab).astype(np.float32))):
        for kind, kw in KINDS.items():
            params, counts, times = SamplingParams(**kw), Counts(frozenset(range(0, vocab, 97))), []
            for n in range(repeats):
                began = time.perf_counter()
                sample(row, params, counts, 1, n)
                times.append(time.perf_counter() - began)
            out[f"{kind}, {name}"] = round(1e3 * statistics.median(times), 3)
    return out


class Idle:
    """A model that computes nothing: what a step takes is the engine's own time, sampling of 32 logits included."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(
            vocab_size=32, max_position_embeddings=10**6, eos_token_ids=(), num_hidden_layers=2, num_key_value_heads=1,
            head_dim=32, window=lambda layer: 0 if layer else 128,
        )  # fmt: skip

    def new_pages(self, budget: int | None = None) -> Pages:
        return Pages(self.config, "bf16", budget)  # type: ignore[arg-type]

    def begin(self, spans: Any, record: bool = False) -> IdlePass:
        return IdlePass(spans)


class IdlePass:
    """Positions are reserved and counted, nothing else."""

    layer_s, routes = 0.0, None
    row = np.zeros((1, 32), np.float32)

    def __init__(self, spans: Any) -> None:
        self.spans, self.logits = spans, [self.row.repeat(len(s.ids), 0) for s in spans]
        spans[0].cache.pages.reserve([(s.cache, len(s.ids)) for s in spans])

    def run(self, seconds: float = 0) -> bool:
        for s in self.spans:
            s.cache.length += len(s.ids)
        return True


def overhead(batch: int, tokens: int = 1000) -> float:
    """Microseconds a step of `batch` decoding requests, everything but the model."""
    with Engine(Idle(), max_batch=batch) as engine:
        requests = [
            engine.submit([1], SamplingParams(temperature=0, max_tokens=tokens)) for _ in range(batch)
        ]
        began, steps = time.perf_counter(), engine.steps
        for r in requests:
            list(r)
        return round(1e6 * (time.perf_counter() - began) / max(1, engine.steps - steps), 1)


def streams(model: Any, count: int, prompt: int, gen: int) -> dict[str, float]:
    """Concurrent greedy requests with random prompts of their own, none of which stops early."""
    rng, firsts, done = np.random.default_rng(count), [], []
    params = SamplingParams(temperature=0, max_tokens=gen, stop_token_ids=())
    with Engine(model, max_batch=count) as engine:
        ids = [rng.integers(0, model.config.vocab_size, prompt).tolist() for _ in range(count)]

        def client(n: int) -> None:
            request = engine.submit(ids[n], params)
            done.append(sum(1 for _ in request))
            firsts.append(request.stats.first_s)

        began = time.perf_counter()
        threads = [threading.Thread(target=client, args=(n,)) for n in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.perf_counter() - began
    return {
        "streams": count, "seconds": round(seconds, 3), "tokens_per_second": round(sum(done) / seconds, 2),
        "first_token_s": round(statistics.median(firsts), 3), "slowest_first_token_s": round(max(firsts), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=201_088)
    parser.add_argument("--model")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--streams", default="1,4,8")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    out: dict[str, Any] = {
        "sampling_ms": sampling(a.vocab),
        "step_us": {str(b): overhead(b) for b in (1, 8)},
    }
    if a.model:
        from motet.model import load

        model = load(a.model, precision=a.precision)
        out["streams"] = [streams(model, int(n), a.prompt, a.gen) for n in a.streams.split(",")]
    text = [f"{k:24}{v:9.3f} ms" for k, v in out["sampling_ms"].items()]
    text += [f"a step of {b:14}{v:9.1f} us" for b, v in out["step_us"].items()]
    text += [str(s) for s in out.get("streams", [])]
    print("\n".join(text), file=sys.stderr if a.json else sys.stdout)
    if a.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()

"""What the engine costs beside the model, and what it makes of a model: sampling, overhead, an agentic trace, gaps, a soak.

    python bench/engine.py                                   sampling a row, and a step over a model that computes nothing
    python bench/engine.py --model DIR --trace 1,4,8,16      tool loops side by side: throughput, first token, cached share
    python bench/engine.py --model DIR --gap 4096            gaps of a running stream while a long prompt arrives
    python bench/engine.py --model DIR --own 64              the engine's own share of a decoding step, while it decodes
    python bench/engine.py --model mini --soak 30            minutes of random requests and cancels: memory, leaked pages
    python bench/engine.py --model DIR --guess 256           decoding where the text repeats, with guesses and without
    python bench/engine.py --model DIR --bits 3              random schedules in little memory against each request alone

--scale shrinks the trace (all its counts), --no-cache and --no-guess switch reuse and speculation off, --llama-server PATH
--gguf FILE plays the same trace to a llama.cpp server (its weights may differ, so only times and shares compare).
Prints medians; with --json one JSON object, last on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import motet.engine.worker as worker_module
from motet.engine import Engine, QueueFull, SamplingParams
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


@dataclass
class Row:
    """One request of a trace as it went."""

    prompt: int
    before: (
        int  # of these, the ids this stream or, for the shared beginning, anyone had sent and computed before
    )
    cached: int
    first_s: float
    tokens: int


class Trace:
    """Token counts of tool loops (traces/agent.json) with ids drawn from seeds: what is shared is equal, the rest is not."""

    def __init__(self, path: Path, scale: float, vocab: int) -> None:
        data = json.loads(path.read_text())
        self.sessions, self.scale, self.vocab = data["sessions"], scale, vocab
        self.system = self.ids(0, data["system"])

    def ids(self, seed: int, count: int) -> list[int]:
        """`count` ids of the trace at its scale."""
        n = max(1, round(count * self.scale))
        return [int(i) for i in np.random.default_rng((7, seed)).integers(0, min(self.vocab, 199_000), n)]

    def play(self, stream: int, ask: Callable[[list[int], int], tuple[list[int], int, float]]) -> list[Row]:
        """One stream, request after request: ask(prompt, n) gives the reply, cached prompt tokens, seconds to the first."""
        session, rows = self.sessions[stream % len(self.sessions)], []
        ids = [*self.system, *self.ids(1000 * stream + 1, session["ask"])]
        sent = len(self.system) if stream else 0
        steps = [*session["turns"], {"reply": session["answer"], "result": 0}]
        for n, step in enumerate(steps):
            wanted = max(1, round(step["reply"] * self.scale))
            reply, cached, first = ask(ids, wanted)
            rows.append(Row(len(ids), min(sent, len(ids) - 1), cached, first, len(reply)))
            sent = len(ids) + len(reply) - 1  # the last id of a reply was sampled, never computed
            ids = [*ids, *reply, *self.ids(1000 * stream + 2 + n, step["result"])]
        return rows


def play(
    trace: Trace, count: int, ask: Callable[[list[int], int], tuple[list[int], int, float]]
) -> dict[str, Any]:
    """`count` streams of the trace at once, each on a thread of its own."""
    rows: list[Row] = []
    began = time.perf_counter()
    threads = [
        threading.Thread(target=lambda n=n: rows.extend(trace.play(n, ask)))  # type: ignore[misc]
        for n in range(count)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    seconds = time.perf_counter() - began
    prompt, before, cached = (sum(getattr(r, k) for r in rows) for k in ("prompt", "before", "cached"))
    firsts = sorted(r.first_s for r in rows)
    return {
        "streams": count, "requests": len(rows), "seconds": round(seconds, 2), "prompt_tokens": prompt,
        "sampled_tokens": sum(r.tokens for r in rows), "sampled_per_s": round(sum(r.tokens for r in rows) / seconds, 2),
        "prompt_per_s": round(prompt / seconds, 1), "first_token_s": round(statistics.median(firsts), 3),
        "slowest_first_token_s": round(firsts[-1], 3), "cached_share": round(cached / prompt, 4),
        "sent_before_share": round(before / prompt, 4), "found_of_sent_before": round(cached / max(1, before), 4),
    }  # fmt: skip


def traced(model: Any, trace: Trace, count: int, **options: Any) -> dict[str, Any]:
    """The trace on motet's engine."""
    guessed: list[tuple[int, int]] = []
    with Engine(model, max_batch=count, **options) as engine:

        def ask(ids: list[int], n: int) -> tuple[list[int], int, float]:
            params = SamplingParams(temperature=0, max_tokens=n, stop_token_ids=())
            request = engine.submit(ids, params)
            reply = [o.token for o in request]
            stats = request.stats
            guessed.append((stats.drafted_tokens, stats.accepted_tokens))
            return reply, stats.cached_tokens, stats.first_s or 0.0

        out = play(trace, count, ask)
        out["kv_mib"] = round(engine.memory["held_bytes"] / 2**20, 1)
    out["drafted"], out["accepted"] = (sum(g[i] for g in guessed) for i in (0, 1))
    return out


def llama(server: str, gguf: str, trace: Trace, count: int) -> dict[str, Any]:
    """The trace on llama.cpp's server, one slot a stream, its prompt cache on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [server, "-m", gguf, "--port", str(port), "-np", str(count), "-c", str(4096 * count), "-t", str(os.cpu_count()),
               "--no-warmup"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def ask(ids: list[int], n: int) -> tuple[list[int], int, float]:
        body = {"prompt": ids, "n_predict": n, "temperature": 0, "cache_prompt": True, "ignore_eos": True, "return_tokens": True}  # fmt: skip
        reply = post("/completion", body)
        times = reply["timings"]
        return reply["tokens"], len(ids) - int(times["prompt_n"]), times["prompt_ms"] / 1000

    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url + "/health").close()
                break
            except OSError:
                time.sleep(1)
        return play(trace, count, ask)
    finally:
        process.terminate()
        process.wait()


def gaps(model: Any, prompt: int, alone: int = 40) -> dict[str, float]:
    """Seconds between tokens of one stream by itself, and while a prompt of `prompt` tokens is computed beside it."""
    rng, vocab = np.random.default_rng(1), model.config.vocab_size
    with Engine(model, speculate=False) as engine:
        free = SamplingParams(temperature=0, stop_token_ids=(), max_tokens=20_000)
        ids = [[int(i) for i in rng.integers(0, vocab, n)] for n in (32, prompt)]
        stream = engine.submit(ids[0], free)
        times: list[float] = []
        for n, _ in enumerate(stream):
            times.append(time.perf_counter())
            if n == alone:
                other = engine.submit(ids[1], SamplingParams(temperature=0, max_tokens=1, stop_token_ids=()))
            if n > alone and other.finish is not None:
                break
        before, beside = np.diff(times[2 : alone + 1]), np.diff(times[alone:])
        list(other)
        prefill = other.stats.first_s or 0.0
    with Engine(model, speculate=False) as engine:
        quiet = engine.submit(ids[1], SamplingParams(temperature=0, max_tokens=1, stop_token_ids=()))
        list(quiet)
    solo = float(np.median(before))
    return {
        "solo_ms": round(1e3 * solo, 2), "beside_median": round(float(np.median(beside)) / solo, 2),
        "beside_p95": round(float(np.quantile(beside, 0.95)) / solo, 2), "beside_max": round(float(beside.max()) / solo, 2),
        "solo_max": round(float(before.max()) / solo, 2), "tokens_beside": len(beside), "prompt_s": round(prefill, 2),
        "prompt_alone_s": round(quiet.stats.first_s or 0.0, 2),
    }  # fmt: skip


def own_time(model: Any, tokens: int, batch: int) -> dict[str, float]:
    """What a decoding step costs beside the model and the sampling, on the model itself."""
    spent = {"model": 0.0, "sample": 0.0}

    def timed(name: str, function: Any) -> Any:
        def call(*args: Any, **kw: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kw)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    real = worker_module.draw
    with Engine(model, max_batch=batch, speculate=False) as engine:
        params = SamplingParams(temperature=0, max_tokens=tokens, stop_token_ids=())
        requests = [engine.submit([n + 1], params) for n in range(batch)]
        streams = [iter(r) for r in requests]
        for s in streams:
            next(s)
        worker = engine._worker
        step: Any = worker._step
        begin = model.begin

        def begun(*args: Any) -> Any:
            run = begin(*args)
            run.run = timed("model", run.run)
            return run

        steps = engine.steps
        total = {"step": 0.0}

        def whole() -> None:
            began = time.perf_counter()
            step()
            total["step"] += time.perf_counter() - began

        model.begin, worker_module.draw, worker._step = timed("model", begun), timed("sample", real), whole  # type: ignore[method-assign]
        try:
            for s in streams:
                for _ in s:
                    pass
        finally:
            model.begin, worker_module.draw = begin, real
        n = max(1, engine.steps - steps)
    own = total["step"] - spent["model"] - spent["sample"]
    return {
        "batch": batch, "steps": n, "step_ms": round(1e3 * total["step"] / n, 3), "own_us": round(1e6 * own / n, 1),
        "own_share": round(own / total["step"], 5), "sample_us": round(1e6 * spent["sample"] / n, 1),
    }  # fmt: skip


def guessing(model: Any, tokens: int) -> dict[str, Any]:
    """Decoding greedily with guesses and without, alternating; the model's own text, which repeats as it likes."""
    out: dict[str, Any] = {}
    rates: dict[bool, list[float]] = {False: [], True: []}
    ids = [int(i) for i in np.random.default_rng(3).integers(0, model.config.vocab_size, 40)] * 2
    texts = {}
    for n in range(6):
        on = bool(n % 2)
        with Engine(model, speculate=on) as engine:
            request = engine.submit(ids, SamplingParams(temperature=0, max_tokens=tokens, stop_token_ids=()))
            texts[on] = [o.token for o in request]
            stats = request.stats
            rates[on].append((stats.n_sampled - 1) / ((stats.total_s or 1) - (stats.first_s or 0)))
            if on:
                out |= {"drafted": stats.drafted_tokens, "accepted": stats.accepted_tokens}
    assert texts[False] == texts[True]
    off, on = (statistics.median(rates[k]) for k in (False, True))
    return {**out, "off_per_s": round(off, 2), "on_per_s": round(on, 2), "ratio": round(on / off, 3)}


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(model: Any, minutes: float, budget: int) -> dict[str, Any]:
    """Random prompts from shared trunks, random lengths and cancels, for so long: memory at a quarter of the time and at its
    end, the most that pages took, and pages that nobody knows about once everyone has left."""
    rng, vocab = random.Random(5), model.config.vocab_size
    trunks = [[rng.randrange(vocab) for _ in range(600)] for _ in range(12)]
    until = time.monotonic() + 60 * minutes
    counts = dict.fromkeys(("requests", "cancelled", "sampled"), 0)
    lock = threading.Lock()

    def client(seed: int) -> None:
        mine = random.Random(seed)
        while time.monotonic() < until:
            prompt = mine.choice(trunks)[: mine.randrange(1, 600)] + [
                mine.randrange(vocab) for _ in range(mine.randrange(1, 80))
            ]
            params = SamplingParams(
                seed=mine.randrange(100), max_tokens=mine.randrange(1, 120), stop_token_ids=()
            )
            try:
                requests = engine.submit_many(prompt, mine.choice([1, 1, 1, 2]), params, client=str(seed))
            except QueueFull:
                continue
            cut = mine.randrange(60) if mine.random() < 0.4 else None
            for r in requests:
                for n, _ in enumerate(r):
                    if n == cut:
                        break
            with lock:
                counts["requests"] += len(requests)
                counts["cancelled"] += sum(r.finish in (None, "cancelled") for r in requests)
                counts["sampled"] += sum(r.stats.n_sampled for r in requests)

    sizes, held = [], 0
    with Engine(model, max_batch=8, kv_memory=budget, max_queue=6) as engine:
        threads = [threading.Thread(target=client, args=(n,)) for n in range(12)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            time.sleep(min(1.0, minutes))
            sizes.append(resident())
            held = max(held, engine.memory["held_bytes"])
        while engine.running or engine.waiting:
            time.sleep(0.01)
    left = engine.memory
    return {
        "minutes": minutes, **counts, "budget_mib": round(budget / 2**20, 2), "most_held_mib": round(held / 2**20, 2),
        "rss_quarter_mib": round(sizes[len(sizes) // 4] / 2**20, 1), "rss_end_mib": round(sizes[-1] / 2**20, 1),
        "leaked_bytes": left["held_bytes"],
    }  # fmt: skip


def same_bits(model: Any, schedules: int) -> dict[str, Any]:
    """Requests alone, without cache and guesses, against the same among others that are cancelled, in memory too small for all:
    how many gave other tokens or log-probabilities, and what happened to them meanwhile."""
    rng, vocab = random.Random(9), model.config.vocab_size
    trunk = [rng.randrange(vocab) for _ in range(200)]
    asked = []
    for n in range(8):
        ids = trunk[: rng.randrange(20, 200)] + [rng.randrange(vocab) for _ in range(rng.randrange(1, 60))]
        asked.append((ids, SamplingParams(temperature=n % 2, seed=n, max_tokens=24, stop_token_ids=())))

    def reply(request: Any, cut: int = 1 << 30) -> list[tuple[int, float]]:
        return [(out.token, out.logprob) for out, _ in zip(request, range(cut), strict=False)]

    with Engine(model, prefix_cache=False, speculate=False, max_batch=1) as engine:
        alone = [reply(engine.submit(ids, params)) for ids, params in asked]
    out = dict.fromkeys(("compared", "different", "cached_tokens", "preemptions", "accepted_tokens"), 0)
    pages = Pages(model.config, "bf16")
    tight = pages.bytes_of([7] * len(pages.pools))
    for _ in range(schedules):
        with Engine(model, kv_memory=tight, max_batch=4) as engine:
            order = rng.sample(range(len(asked)), len(asked))
            kept = {n: engine.submit(*asked[n], client=str(n % 3)) for n in order}
            for n in order[:3]:
                reply(
                    engine.submit(asked[n][0] + [7], asked[n][1]), rng.randrange(1, 9)
                )  # left early: cancelled
            for n, request in kept.items():
                out["different"] += reply(request) != alone[n]
                out["compared"] += 1
                for key in ("cached_tokens", "preemptions", "accepted_tokens"):
                    out[key] += getattr(request.stats, key)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=201_088)
    parser.add_argument("--model")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--trace", help="numbers of streams, such as 1,4,8,16")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--gap", type=int)
    parser.add_argument("--own", type=int)
    parser.add_argument("--guess", type=int)
    parser.add_argument("--bits", type=int)
    parser.add_argument("--soak", type=float)
    parser.add_argument("--kv-mib", type=float, default=0)
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--no-guess", action="store_true")
    parser.add_argument("--llama-server")
    parser.add_argument("--gguf")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    out: dict[str, Any] = {}

    def tell(name: str, value: Any) -> None:
        out.setdefault(name, []).append(value)
        print(name, value, file=sys.stderr if a.json else sys.stdout, flush=True)

    file = Path(__file__).parent / "traces" / "agent.json"
    counts = [int(n) for n in a.trace.split(",")] if a.trace else []
    if a.model:
        from motet.model import load

        model = load(a.model, precision=a.precision)
        trace = Trace(file, a.scale, model.config.vocab_size)
        options = {"prefix_cache": not a.no_cache, "speculate": not a.no_guess}
        for n in counts:
            tell("trace", traced(model, trace, n, **options))
        if a.gap:
            tell("gap", gaps(model, a.gap))
        for batch in (1, 8) if a.own else ():
            tell("own", own_time(model, a.own, batch))
        if a.guess:
            tell("guess", guessing(model, a.guess))
        if a.bits:
            tell("bits", same_bits(model, a.bits))
        if a.soak:
            tell("soak", soak(model, a.soak, int((a.kv_mib or 8) * 2**20)))
    elif not a.llama_server:
        for name, ms in sampling(a.vocab).items():
            tell("sampling_ms", {name: ms})
        for b in (1, 8):
            tell("step_us", {str(b): overhead(b)})
    if a.llama_server:
        for n in counts:
            tell("llama", llama(a.llama_server, a.gguf, Trace(file, a.scale, a.vocab), n))
    if a.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()

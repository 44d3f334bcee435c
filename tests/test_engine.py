"""The engine's promises on a toy model: same tokens in any company, prompt ends, contained failures, nothing left over."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.engine import Engine, EngineError, SamplingError, SamplingParams
from motet.engine.sampling import Counts, sample
from motet.errors import UsageError, UserError
from motet.model import ContextError
from toy_model import ToyModel


def plain(model: Any, prompt: list[int], p: SamplingParams) -> list[int]:
    """What the engine must give, by the plainest loop: the whole prefix again for every token."""
    ids, room = list(prompt), model.config.max_position_embeddings - len(prompt)
    stop = model.config.eos_token_ids if p.stop_token_ids is None else p.stop_token_ids
    counts, out = Counts(frozenset(prompt)), []
    limits = p.constraint() if p.constraint else None
    for n in range(min(room, p.max_tokens or room)):
        token = sample(
            model.row(ids), p, counts, p.seed or 0, n, None if limits is None else limits.mask()
        ).token
        counts.add(token)
        ids.append(token)
        out.append(token)
        if token in stop:
            break
    return out


@contextmanager
def held(model: Any) -> Iterator[None]:
    """Within the block the model waits before its next step, so that what is submitted there runs together."""
    gate, before = threading.Event(), model.before
    model.before = lambda spans: gate.wait(10)
    try:
        yield
    finally:
        model.before = before
        gate.set()


def draw_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([0, 0.7, 1.0]), top_p=rng.choice([1.0, 0.8]), top_k=rng.choice([0, 5]),
        repetition_penalty=rng.choice([1.0, 1.3]), frequency_penalty=rng.choice([0.0, 0.4]),
        seed=rng.randrange(1000), max_tokens=rng.choice([1, 5, 20, None]),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 6),
    chunk=st.sampled_from([1, 3, 16]),
    beside=st.integers(1, 5),
)
def test_same_tokens_alone_or_in_any_company(seed: int, batch: int, chunk: int, beside: int) -> None:
    rng = random.Random(seed)
    model = ToyModel(context=64, eos=(1, 2))
    asks = [([rng.randrange(50) for _ in range(rng.randint(1, 40))], draw_params(rng)) for _ in range(7)]
    with Engine(model, max_batch=batch, prefill_chunk=chunk, prefill_beside=beside) as engine:
        requests = []
        for ids, p in asks:
            requests.append(engine.submit(ids, p))
            if rng.random() < 0.3:
                requests[rng.randrange(len(requests))].cancel()
        got = [([out.token for out in r], r.finish) for r in requests]
        assert (engine.running, engine.waiting) == (0, 0)
    for (ids, p), (tokens, finish) in zip(asks, got, strict=True):
        want = plain(model, ids, p)
        if finish == "cancelled":
            assert tokens == want[: len(tokens)]
        else:
            assert tokens == want
            assert finish == ("stop" if want[-1] in (1, 2) else "length")
    assert len(model.threads) == 1
    assert all(len(w) <= batch for w in model.widths)


def test_a_stream_goes_on_between_the_layers_of_anothers_prompt() -> None:
    model = ToyModel(context=300)
    with Engine(model, max_batch=4, prefill_chunk=32, prefill_beside=8) as engine:
        with held(model):
            first = engine.submit([1], SamplingParams(max_tokens=60, seed=1))
            while not model.widths:  # its prompt is in a step of its own
                time.sleep(0.001)
            second = engine.submit(list(range(40)), SamplingParams(max_tokens=5, seed=2))
        assert len(list(second)) == 5 and len(list(first)) == 60
    passes = [n for n, w in enumerate(model.widths) if max(w) > 1]
    assert [model.widths[n] for n in passes] == [[8]] * 5
    # A pass pauses between layers, so the stream goes on within it, too.
    assert all(model.widths[a + 1 : b].count([1]) >= 2 for a, b in itertools.pairwise(passes))


def test_first_come_first_served() -> None:
    seen: list[int] = []
    model = ToyModel(before=lambda spans: seen.extend(i for s in spans for i in s.ids if i >= 40))
    with Engine(model, max_batch=1) as engine:
        ban = dict.fromkeys(range(40, 50), -float("inf"))
        for r in [engine.submit([40 + n], SamplingParams(max_tokens=3, logit_bias=ban)) for n in range(6)]:
            list(r)
    assert seen == [40, 41, 42, 43, 44, 45]


def test_a_stop_token_comes_last_and_says_so() -> None:
    model = ToyModel()
    with Engine(model) as engine:
        free = engine.generate([5], SamplingParams(temperature=0, max_tokens=12))
        stop = free[6]
        outs = list(engine.submit([5], SamplingParams(temperature=0, stop_token_ids=(stop,))))
        cut = free[: free.index(stop) + 1]
        assert [o.token for o in outs] == cut
        assert [o.finish for o in outs] == [None] * (len(cut) - 1) + ["stop"]
        assert len({o.seq_id for o in outs}) == 1


def test_without_max_tokens_the_context_is_the_limit() -> None:
    model = ToyModel(context=32)
    with Engine(model) as engine:
        r = engine.submit(list(range(10)), SamplingParams(seed=0))
        assert len(list(r)) == 22 and r.finish == "length"
        assert len(engine.generate(list(range(31)), SamplingParams(seed=0, max_tokens=99))) == 1


@pytest.mark.parametrize(
    ("ids", "kind", "words"),
    [
        (list(range(32)), ContextError, "32 tokens"), ([], UserError, "no tokens"), ([50], UserError, "50"),
        ([-1], UserError, "-1"), ("text", UserError, "encode"), ([0.5], UserError, "encode"),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused_at_submit(ids: Any, kind: type[Exception], words: str) -> None:
    with Engine(ToyModel(context=32)) as engine:
        with pytest.raises(kind, match=words):
            engine.submit(ids)
        with pytest.raises(UsageError, match="vocabulary"):
            engine.submit([1], SamplingParams(logit_bias={50: 1.0}))
        with pytest.raises(UsageError, match="max_batch"):
            Engine(ToyModel(), max_batch=0)
        assert len(engine.generate([1], SamplingParams(max_tokens=2))) == 2


def test_a_seed_is_drawn_recorded_and_repeats_the_answer() -> None:
    with Engine(ToyModel()) as engine:
        first, second = (engine.submit([3], SamplingParams(max_tokens=20)) for _ in range(2))
        tokens = [o.token for o in first]
        assert tokens != [o.token for o in second] and first.stats.seed != second.stats.seed
        assert engine.generate([3], SamplingParams(max_tokens=20, seed=first.stats.seed)) == tokens
        s = first.stats
        assert (s.n_prompt, s.n_sampled, s.finish) == (1, 20, "length")
        assert 0 <= s.queued_s <= s.first_s <= s.total_s


def test_numpy_prompts_and_ids_are_taken() -> None:
    with Engine(ToyModel()) as engine:
        p = SamplingParams(temperature=0, max_tokens=4)
        assert engine.generate(np.array([1, 2, 3]), p) == engine.generate([1, 2, 3], p)


def test_a_failing_step_ends_its_cause_only() -> None:
    model = ToyModel(poison=49)
    ban = {49: -float("inf")}
    with Engine(model, prefill_chunk=4, prefill_beside=2) as engine:
        asks = [([n, n + 1, n + 2], SamplingParams(seed=n, max_tokens=25, logit_bias=ban)) for n in range(5)]
        with held(model):
            good = [engine.submit(*a) for a in asks]
            bad = engine.submit([1, 2, 3], SamplingParams(seed=1, logit_bias={49: 1000.0}))
            worse = engine.submit([1, 2, 3, 4, 5, 49, 6], SamplingParams(seed=1))
        for r in (bad, worse):
            with pytest.raises(RuntimeError, match="poison"):
                list(r)
            assert r.finish == "error"
        for r, (ids, p) in zip(good, asks, strict=True):
            assert [o.token for o in r] == plain(model, ids, p)
        assert any(r.stats.recomputed_tokens for r in good)
        assert (engine.running, engine.waiting) == (0, 0)


def test_a_logit_that_is_not_finite_ends_its_request_only() -> None:
    model = ToyModel(nan=49)
    p = SamplingParams(temperature=0, max_tokens=15, logit_bias={49: -float("inf")})
    with Engine(model) as engine:
        with held(model):
            good, bad = engine.submit([1, 2], p), engine.submit([1, 49], p)
        with pytest.raises(SamplingError, match="not finite"):
            list(bad)
        assert [o.token for o in good] == plain(model, [1, 2], p)


def test_cancelling_frees_within_one_step() -> None:
    gate, entered = threading.Semaphore(0), threading.Semaphore(0)

    def wait(spans: Any) -> None:
        entered.release()
        gate.acquire()

    model = ToyModel(before=wait)
    with Engine(model, max_batch=1) as engine:
        running, queued = engine.submit([1]), engine.submit([2])
        entered.acquire()
        cache = weakref.ref(model.caches[0])
        model.caches = []
        running.cancel()
        queued.cancel()
        gate.release()
        assert list(running) == [] and list(queued) == []
        assert (running.finish, queued.finish) == ("cancelled", "cancelled")
        assert engine.steps == 1 and (engine.running, engine.waiting) == (0, 0)
        model.caches = []
        gc.collect()
        deadline = time.monotonic() + 5
        while cache() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cache() is None
        gate.release(100)
        assert len(engine.generate([1], SamplingParams(max_tokens=3))) == 3


def test_leaving_the_loop_cancels() -> None:
    with Engine(ToyModel(context=100_000)) as engine:
        request = engine.submit([1])
        for _ in request:
            break
        gc.collect()
        list(request)  # what came before the cancellation was seen
        assert request.finish == "cancelled"
        stream = engine.stream([1])
        next(stream)
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
        deadline = time.monotonic() + 5
        while engine.running and time.monotonic() < deadline:
            time.sleep(0.005)
        assert engine.running == 0


def test_closing_reaches_those_who_wait() -> None:
    engine = Engine(ToyModel(context=10**6), max_batch=1)
    running, queued = engine.submit([1]), engine.submit([2])
    stream = iter(running)
    next(stream)
    engine.close()
    engine.close()
    for waiting in (stream, iter(queued)):
        with pytest.raises(EngineError, match="closed"):
            list(waiting)
    with pytest.raises(EngineError, match="closed"):
        engine.submit([1])


def test_a_fault_of_the_engine_itself_reaches_everybody() -> None:
    class Broken(ToyModel):
        def begin(self, spans: Any, record: bool = False) -> Any:
            step = super().begin(spans, record)
            run = step.run
            step.run = lambda seconds=1e9: run(seconds) and not step.logits.clear()  # type: ignore[method-assign]
            return step

    with Engine(Broken()) as engine:
        with pytest.raises(ValueError):
            engine.generate([1])
        with pytest.raises(EngineError, match="internal error"):
            engine.submit([1])


def test_a_forgotten_engine_stops_its_thread() -> None:
    before = threading.active_count()
    engine = Engine(ToyModel())
    engine.generate([1], SamplingParams(max_tokens=2))
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    assert threading.active_count() == before


def test_chaos_leaves_nothing_behind() -> None:
    """Random arrivals, cancels, poison and NaN from several threads: right tokens, and an empty engine."""
    model = ToyModel(context=80, eos=(1,), poison=49, nan=48)
    ban = {49: -float("inf"), 48: -float("inf")}
    wrong: list[Any] = []

    def client(seed: int, engine: Engine) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            ids = [rng.randrange(48) for _ in range(rng.randint(1, 50))]
            bad = rng.choice([None, None, None, 48, 49])
            if bad:
                ids.insert(rng.randrange(len(ids) + 1), bad)
            p = SamplingParams(seed=rng.randrange(99), max_tokens=rng.choice([3, None]), logit_bias=ban)
            cut, got, error = rng.choice([None, None, 2]), [], None
            request = engine.submit(ids, p)
            try:
                for out in request:
                    got.append(out.token)
                    if cut and len(got) == cut:
                        break
            except (RuntimeError, SamplingError) as e:
                error = e
            if bad:
                if error is None or got:
                    wrong.append((ids, got, error))
            elif error or got != plain(model, ids, p)[: len(got) if cut else None]:
                wrong.append((ids, got, error))

    with Engine(model, max_batch=5, prefill_chunk=16, prefill_beside=4) as engine:
        clients = [threading.Thread(target=client, args=(n, engine)) for n in range(6)]
        for c in clients:
            c.start()
        for c in clients:
            c.join()
        deadline = time.monotonic() + 5
        while (engine.running or engine.waiting) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (engine.running, engine.waiting) == (0, 0)
    assert not wrong, wrong[:2]


def test_the_real_model_gives_the_same_tokens_in_any_company(tmp_path: Any) -> None:
    from motet.model import load
    from motet.synth import synth

    model = load(synth("tiny", tmp_path / "tiny"), precision="int8", threads=1)
    vocab, rng = model.config.vocab_size, random.Random(5)
    asks = [
        ([rng.randrange(vocab) for _ in range(rng.choice([1, 7, 150]))], draw_params(rng)) for _ in range(8)
    ]
    asks = [(ids, SamplingParams(**{**vars(p), "max_tokens": 12, "logprobs": 3})) for ids, p in asks]
    with Engine(model, max_batch=1) as engine:
        alone = [[(o.token, o.logprob, o.top_logprobs) for o in engine.stream(*a)] for a in asks]
    with Engine(model, max_batch=5, prefill_chunk=37, prefill_beside=11) as engine:
        requests = [engine.submit(*a) for a in asks]
        together = [[(o.token, o.logprob, o.top_logprobs) for o in r] for r in requests]
    assert alone == together
    assert len({tuple(t for t, *_ in reply) for reply in alone}) > 1

"""Nothing is computed twice, and nobody can tell: prefixes shared, branched, evicted, preempted and spilled, same tokens.

The toy model keeps its ids in real pages and reads them back (toy_model.py), so a wrong page is a wrong token here.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.engine import ConstraintError, Engine, Only, SamplingError, SamplingParams, nth_seed
from motet.errors import UsageError
from test_engine import draw_params, held, plain
from toy_model import ToyModel

GREEDY = SamplingParams(temperature=0, max_tokens=5, stop_token_ids=())
PAGE_BYTES = 64 * (2 + 32) * 4  # of the toy model


def settle(engine: Engine) -> None:
    """Waits until everybody has left."""
    deadline = time.monotonic() + 5
    while (engine.running or engine.waiting) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (engine.running, engine.waiting) == (0, 0)


def nothing_left(engine: Engine) -> None:
    """Every page has a holder that is known: after closing, nobody holds any."""
    settle(engine)
    memory = engine.memory
    assert memory["held_bytes"] <= memory["budget_bytes"]
    engine.close()
    assert engine.memory["held_bytes"] == 0 and engine.memory["blocks"] == 0


def ids(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(48) for _ in range(count)]


def test_an_agent_loop_computes_only_what_is_new() -> None:
    model = ToyModel(context=2000)
    with Engine(model, prefill_chunk=100, speculate=False) as engine:
        prompt = ids(1, 333)
        for turn in range(12):
            before = model.computed
            request = engine.submit(prompt, GREEDY)
            answer = [o.token for o in request]
            assert answer == plain(model, prompt, GREEDY)
            new = len(prompt) - request.stats.cached_tokens
            assert model.computed - before == new + 4  # the last sampled token is never run
            # All that was run before, but the last id, which is needed for its logits.
            assert new == (333 if turn == 0 else 1 + 37)
            prompt = prompt + answer + ids(turn, 37)
        nothing_left(engine)


@pytest.mark.parametrize("at", [1, 63, 64, 65, 127, 128, 200, 299, 300])
def test_a_branch_anywhere_starts_where_it_parts(at: int) -> None:
    model = ToyModel(context=2000)
    with Engine(model, speculate=False) as engine:
        trunk = ids(2, 300)
        engine.generate(trunk, GREEDY)
        branch = [*trunk[:at], 49, *ids(3, 90)]
        request = engine.submit(branch, GREEDY)
        assert [o.token for o in request] == plain(model, branch, GREEDY)
        assert request.stats.cached_tokens == at
        nothing_left(engine)


def test_requests_that_run_together_share_what_one_of_them_has_computed() -> None:
    model = ToyModel(context=2000)
    prompt = ids(4, 400)
    with Engine(model, prefill_chunk=64, speculate=False) as engine:
        first = engine.submit(prompt, SamplingParams(temperature=0, max_tokens=200))
        stream = iter(first)
        next(stream)
        second = engine.submit(prompt, GREEDY)
        assert [o.token for o in second] == plain(model, prompt, GREEDY)
        assert second.stats.cached_tokens == 399
        assert len(list(stream)) == 199


def test_prompts_that_arrive_together_compute_what_they_share_once() -> None:
    model = ToyModel(context=2000)
    trunk = ids(7, 500)
    prompts = [trunk + ids(20 + n, 30) for n in range(6)]
    with Engine(model, max_batch=6, prefill_chunk=128, speculate=False) as engine:
        with held(model):
            requests = [engine.submit(p, GREEDY) for p in prompts]
        for r, p in zip(requests, prompts, strict=True):
            assert [o.token for o in r] == plain(model, p, GREEDY)
        # Within the block where they part, up to 15 ids may be computed twice rather than waited for.
        assert 500 + 6 * 34 <= model.computed <= 500 + 6 * 34 + 5 * 15
        assert sum(r.stats.n_prompt - r.stats.cached_tokens for r in requests) + 6 * 4 == model.computed
        nothing_left(engine)


def test_n_answers_share_one_prefill_and_are_those_of_their_seeds() -> None:
    model, prompt = ToyModel(context=2000), ids(5, 200)
    with Engine(model, max_batch=3, speculate=False) as engine:
        params = SamplingParams(seed=11, max_tokens=12, top_p=0.9)
        requests = engine.submit_many(prompt, 5, params)
        got = [[o.token for o in r] for r in requests]
        seeds = [nth_seed(11, k) for k in range(5)]
        assert got == [plain(model, prompt, SamplingParams(seed=s, max_tokens=12, top_p=0.9)) for s in seeds]
        assert [r.stats.seed for r in requests] == seeds and len(set(map(tuple, got))) > 1
        assert model.computed == 200 + 4 * 1 + 5 * 11
        with pytest.raises(UsageError, match="n is 0"):
            engine.submit_many(prompt, 0)
        # The siblings of one that is cancelled compute the prompt themselves.
        with held(model):
            some = engine.submit_many(ids(6, 150), 3, params)
            some[0].cancel()
        assert [o.token for o in some[2]] == plain(
            model, ids(6, 150), SamplingParams(seed=seeds[2], max_tokens=12, top_p=0.9)
        )
        list(some[1])
        nothing_left(engine)


class Even:
    """A constraint: even ids only."""

    def mask(self) -> Only:
        return Only(range(0, 48, 2))

    def advance(self, token: int) -> None:
        assert token % 2 == 0


class Broken:
    def mask(self) -> None:
        return None

    def advance(self, token: int) -> None:
        raise ValueError("no")


def chaos(seed: int, steps: int, **kw: Any) -> None:
    """A random schedule: shared prefixes, cancels, poison, NaN, bad constraints, siblings, little memory. Right tokens, and
    nothing left."""
    rng = random.Random(seed)
    model = ToyModel(
        context=600, eos=(1,), poison=49, nan=48, memory=rng.choice([None, 1]), spread=rng.choice([3, 30])
    )
    ban = {49: -float("inf"), 48: -float("inf")}
    trunks = [ids(n, 600) for n in range(3)]
    asked: list[tuple[Any, list[int], SamplingParams, str]] = []
    told: dict[int, tuple[list[int], Exception | None]] = {}

    def read(request: Any) -> None:
        got, error = [], None
        try:
            for out in request:
                got.append(out.token)
        except (RuntimeError, SamplingError, ConstraintError) as e:
            error = e
        told.setdefault(request.id, (got, error))

    with Engine(model, **kw) as engine:
        if rng.random() < 0.5:
            engine._worker.cost.row = lambda rows: 0.01  # type: ignore[method-assign]  # guesses whatever they cost
        for _ in range(steps):
            trunk = rng.choice(trunks)
            prompt = trunk[: rng.choice([1, 60, 64, 130, 200, 250])] + ids(
                rng.randrange(4), rng.randrange(1, 90)
            )
            kind = rng.choice(["good"] * 8 + ["poison", "nan", "broken"])
            if kind in ("poison", "nan"):
                prompt.insert(rng.randrange(len(prompt) + 1), 49 if kind == "poison" else 48)
            fields = {**vars(draw_params(rng)), "logit_bias": ban, "stop_token_ids": rng.choice([None, ()])}
            fields["max_tokens"] = fields["max_tokens"] or rng.choice([30, 120])
            fields["constraint"] = Broken if kind == "broken" else rng.choice([None, None, None, Even])
            n = rng.choice([1, 1, 1, 3])
            requests = engine.submit_many(
                prompt, n, SamplingParams(**fields), client=rng.choice("ab"), priority=rng.choice([0, 0, 1])
            )
            for k, request in enumerate(requests):
                seeded = SamplingParams(**{**fields, "seed": nth_seed(fields["seed"], k)})
                asked.append((request, prompt, seeded, kind))
            if rng.random() < 0.3:
                rng.choice(asked)[0].cancel()
            if rng.random() < 0.2:
                read(asked[-1][0])
        for request, prompt, params, kind in asked:
            read(request)
            got, error = told[request.id]
            if request.finish == "cancelled":
                assert error is None
            else:
                assert (error is None) == (kind == "good")
            if kind == "good":
                want = plain(model, prompt, params)
                assert got == want[: len(got)] and (request.finish == "cancelled" or len(got) == len(want))
            else:
                assert got == []
        nothing_left(engine)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), batch=st.integers(1, 5), chunk=st.sampled_from([7, 64, 200]),
    pages=st.sampled_from([20, 32, 400]), reuse=st.sampled_from([True, True, False]), speculate=st.booleans(),
)  # fmt: skip
def test_random_schedules_give_the_plain_tokens_and_leave_nothing(
    seed: int, batch: int, chunk: int, pages: int, reuse: bool, speculate: bool
) -> None:
    chaos(
        seed, 14, max_batch=batch, prefill_chunk=chunk, kv_memory=pages * PAGE_BYTES, prefix_cache=reuse,
        speculate=speculate, record_routes=bool(seed % 2),
    )  # fmt: skip


def test_one_that_must_run_alone_and_has_no_memory_lets_the_others_go_on() -> None:
    """The last in line is to run by itself after a step that failed; those before it hold all pages and wait for it."""
    chaos(829, 14, max_batch=4, prefill_chunk=64, kv_memory=20 * PAGE_BYTES, prefix_cache=True, record_routes=True)  # fmt: skip


def test_speculation_changes_nothing_but_the_steps() -> None:
    model = ToyModel(context=1000, memory=1, spread=9)
    for params in (SamplingParams(temperature=0, max_tokens=300), SamplingParams(seed=5, max_tokens=300)):
        want = plain(model, ids(1, 30), params)
        with Engine(model, speculate=True) as engine:
            engine._worker.cost.row = lambda rows: 0.01  # type: ignore[method-assign]
            request = engine.submit(ids(1, 30), params)
            assert [o.token for o in request] == want
            stats = request.stats
            assert engine.steps == 300 - stats.accepted_tokens
            assert 0 < stats.accepted_tokens <= stats.drafted_tokens
            if params.temperature == 0:  # one id decides, so it soon goes round in circles
                assert stats.accepted_tokens > 150
            nothing_left(engine)


def test_the_real_model_gives_the_same_tokens_whatever_is_cached(tmp_path: Path) -> None:
    """Shared prefixes, little memory, guesses: bit for bit (log-probabilities too) what a bare engine gives alone."""
    from motet.model import load
    from motet.synth import synth

    model = load(synth("tiny", tmp_path / "tiny"), precision="int8", threads=1)
    rng, vocab = random.Random(8), model.config.vocab_size
    trunks = [[rng.randrange(vocab) for _ in range(300)] for _ in range(2)]
    asks = []
    for n in range(14):
        prompt = rng.choice(trunks)[: rng.choice([40, 128, 200, 290])] + [n] * rng.choice([1, 30])
        fields = {**vars(draw_params(rng)), "max_tokens": 12, "logprobs": 2}
        asks.append((prompt, SamplingParams(**fields)))
    with Engine(model, max_batch=1, prefix_cache=False, speculate=False) as engine:
        alone = [[(o.token, o.logprob, o.top_logprobs) for o in engine.stream(*a)] for a in asks]
    pages = model.new_pages()
    budget = 20 * sum(p.layout.nbytes for p in pages.pools)
    with Engine(model, max_batch=4, prefill_chunk=90, kv_memory=budget) as engine:
        engine._worker.cost.row = lambda rows: 0.01  # type: ignore[method-assign]
        for _ in range(2):
            requests = [engine.submit(*a) for a in asks]
            together = [[(o.token, o.logprob, o.top_logprobs) for o in r] for r in requests]
            assert together == alone
        assert any(r.stats.cached_tokens for r in requests)
        nothing_left(engine)

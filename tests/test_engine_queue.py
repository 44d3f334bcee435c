"""Who waits for whom: clients get turns, priorities go first, queues end, deadlines pass, loops are acted on, experts counted."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from motet.engine import (
    DeadlineError,
    Engine,
    EngineError,
    Loop,
    Loops,
    Only,
    QueueFull,
    SamplingParams,
)
from motet.errors import UsageError, UserError
from motet.model import ContextError
from test_engine import held, plain
from test_engine_cache import GREEDY, PAGE_BYTES, ids, nothing_left
from toy_model import CHOSEN, EXPERTS, LAYERS, ToyModel

BAN = dict.fromkeys(range(40, 50), -float("inf"))


def order_of(submit: Any, **kw: Any) -> list[int]:
    """The markers (ids from 40) in the order in which the model meets them, one request at a time."""
    seen: list[int] = []
    model = ToyModel()
    with Engine(model, max_batch=1, **kw) as engine:
        with held(model):
            requests = [
                engine.submit([5], SamplingParams(max_tokens=1))
            ]  # keeps the place while the others come
            while not model.widths:
                time.sleep(0.001)
            model_before = model.before
            requests += submit(engine)
        model.before = lambda spans: seen.extend(i for s in spans for i in s.ids if i >= 40)
        del model_before
        for r in requests:
            list(r)
    return seen


def ask(engine: Engine, marker: int, **kw: Any) -> Any:
    return engine.submit([marker, 1, 2], SamplingParams(max_tokens=2, logit_bias=BAN), **kw)


def test_clients_get_turns_however_much_one_of_them_asks() -> None:
    def submit(engine: Engine) -> list[Any]:
        return [ask(engine, 40 + n, client="busy") for n in range(4)] + [ask(engine, 49, client="rare")]

    assert order_of(submit).index(49) <= 1


def test_priorities_go_first_and_the_same_priority_in_order() -> None:
    def submit(engine: Engine) -> list[Any]:
        return [ask(engine, 40 + n, priority=p) for n, p in enumerate([5, 0, 5, -1])]

    assert order_of(submit) == [43, 41, 40, 42]


def test_the_queue_ends_and_says_so() -> None:
    model = ToyModel()
    with Engine(model, max_batch=1, max_queue=2) as engine:
        with held(model):
            running = engine.submit([1], GREEDY)
            while not engine.running:
                time.sleep(0.001)
            queued = [engine.submit([2], GREEDY) for _ in range(2)]
            with pytest.raises(QueueFull, match=r"2 requests wait .* try again later"):
                engine.submit([3], GREEDY)
            queued[0].cancel()
            deadline = time.monotonic() + 5
        for r in (running, *queued):
            list(r)
        assert time.monotonic() < deadline
        with pytest.raises(QueueFull):  # all or none
            engine.submit_many([1], 3, GREEDY)
        assert engine.generate([3], GREEDY) == plain(model, [3], GREEDY)
        assert issubclass(QueueFull, EngineError)


def test_a_deadline_ends_a_request_that_waits_and_one_that_runs() -> None:
    model = ToyModel(context=10**6)
    with Engine(model, max_batch=1) as engine:
        running = engine.submit([1], SamplingParams(stop_token_ids=()), deadline_s=0.3)
        waiting = engine.submit([2], SamplingParams(stop_token_ids=()), deadline_s=0.1)
        for r in (running, waiting):
            with pytest.raises(DeadlineError, match="deadline"):
                list(r)
            assert r.finish == "error"
        assert running.stats.n_sampled > 0 and waiting.stats.n_sampled == 0
        with pytest.raises(UsageError, match="deadline_s"):
            engine.submit([1], deadline_s=0)
        assert engine.submit([1], GREEDY, deadline_s=60).finish is None
        nothing_left(engine)


def test_cancelling_in_the_middle_of_a_prompt_leaves_its_companions() -> None:
    """Two prompts in one pass, one of them cancelled while the pass pauses between layers."""
    model = ToyModel(context=1000)
    with Engine(model, max_batch=4, prefill_chunk=400) as engine:
        with held(model):
            talking = engine.submit([1], SamplingParams(temperature=0, max_tokens=100, stop_token_ids=()))
            while not model.widths:
                time.sleep(0.001)
            doomed, other = engine.submit(ids(1, 90), GREEDY), engine.submit(ids(2, 90), GREEDY)
        seen = threading.Event()

        def at_decode(spans: Any) -> None:
            if (
                [len(s.ids) for s in spans] == [1]
                and any(len(w) == 2 for w in model.widths)
                and not seen.is_set()
            ):
                seen.set()
                doomed.cancel()

        model.before = at_decode
        assert [o.token for o in other] == plain(model, ids(2, 90), GREEDY)
        assert list(doomed) == [] and doomed.finish == "cancelled" and seen.is_set()
        assert len(list(talking)) == 100
        nothing_left(engine)


def test_memory_for_less_than_the_prompt_is_refused_in_one_sentence() -> None:
    model = ToyModel(context=5000)
    with pytest.raises(UsageError, match="give at least"):
        Engine(model, kv_memory=3 * PAGE_BYTES)
    with Engine(model, kv_memory=30 * PAGE_BYTES, prefill_chunk=64) as engine:
        with pytest.raises(ContextError, match="--kv-memory"):
            engine.submit(ids(0, 3000))
        request = engine.submit(ids(0, 1000), SamplingParams(temperature=0, stop_token_ids=()))
        tokens = [o.token for o in request]  # until the memory is full
        assert request.finish == "length" and 100 < len(tokens) < 4000
        nothing_left(engine)


def test_requests_that_do_not_fit_together_take_turns() -> None:
    model = ToyModel(context=3000)
    asks = [(ids(n, 300), SamplingParams(temperature=0, max_tokens=300, stop_token_ids=())) for n in range(4)]
    with Engine(model, max_batch=4, prefill_chunk=64, kv_memory=30 * PAGE_BYTES, speculate=False) as engine:
        requests = [engine.submit(*a) for a in asks]
        for r, (prompt, p) in zip(requests, asks, strict=True):
            assert [o.token for o in r] == plain(model, prompt, p)
        assert sum(r.stats.preemptions for r in requests) > 0 and requests[0].stats.preemptions == 0
        nothing_left(engine)


def test_prompts_of_many_clients_that_do_not_fit_together_all_end() -> None:
    """The client whose turn it is may not be the one that can have the memory."""
    model = ToyModel(context=3000)
    # Chunks so short that there is no quarter for those whose turn it is not.
    with Engine(model, max_batch=5, prefill_chunk=3, kv_memory=26 * PAGE_BYTES, speculate=False) as engine:
        with held(model):
            engine.submit(ids(9, 900), GREEDY, client="old")
            requests = [
                engine.submit(ids(n, 500 + 60 * n), GREEDY, client=str(n), priority=-(n % 2))
                for n in range(6)
            ]
        for n, r in enumerate(requests):
            assert [o.token for o in r] == plain(model, ids(n, 500 + 60 * n), GREEDY)
        nothing_left(engine)


def looping(model: ToyModel, prompt: list[int]) -> tuple[int, int]:
    """Where the greedy reply of a forgetful model begins to count as a loop, and its period."""
    from motet.engine.loops import Tail

    tail = Tail(Loops())
    for n, token in enumerate(plain(model, prompt, SamplingParams(temperature=0, max_tokens=300)), 1):
        period = tail.feed(token)
        if period:
            return n, period
    raise AssertionError("no loop")


def test_a_loop_is_reported_stopped_or_closed() -> None:
    model = ToyModel(context=1000, memory=1, spread=9)
    at, period = looping(model, [7])
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 300}
    want = plain(model, [7], SamplingParams(**fields))
    for speculate in (False, True):
        with Engine(model, speculate=speculate) as engine:
            engine._worker.cost.row = lambda rows: 0.01  # type: ignore[method-assign]
            reported = engine.submit([7], SamplingParams(**fields, loops=Loops()))
            assert [o.token for o in reported] == want and reported.finish == "length"
            assert reported.stats.loops[0] == Loop(period, at) and len(reported.stats.loops) > 1
            stopped = engine.submit([7], SamplingParams(**fields, loops=Loops("stop")))
            outs = list(stopped)
            assert [o.token for o in outs] == want[:at] and outs[-1].finish == stopped.finish == "loop"
            closed = engine.submit([7], SamplingParams(**fields, loops=Loops("close", close=(48, 49, 47))))
            outs = list(closed)
            assert [o.token for o in outs[: at + 3]] == [*want[:at], 48, 49, 47]
            assert [n for n, o in enumerate(outs) if o.forced] == [at, at + 1, at + 2]
            assert outs[at].logprob == pytest.approx(
                np.log(np.exp(model.row([want[at - 1]])[48]) / np.exp(model.row([want[at - 1]])).sum()),
                abs=1e-4,
            )
            assert len(outs) > at + 3 and closed.finish in ("loop", "length")
            nothing_left(engine)


def test_a_forced_id_that_the_constraint_forbids_is_not_forced() -> None:
    class Low:
        def mask(self) -> Only:
            return Only(range(40))

        def advance(self, token: int) -> None:
            assert token < 40

    model = ToyModel(context=1000, memory=1, spread=9)
    params = SamplingParams(temperature=0, max_tokens=300, constraint=Low, loops=Loops("close", close=(48,)))
    with Engine(model) as engine:
        request = engine.submit([7], params)
        outs = list(request)
        assert max(o.token for o in outs) < 40 and not any(o.forced for o in outs)
        assert request.finish == "loop" and len(request.stats.loops) == 2


@pytest.mark.parametrize("reuse", [True, False])
def test_experts_are_counted_by_tag_whatever_is_cached_or_guessed(reuse: bool) -> None:
    model = ToyModel(context=2000, memory=1, spread=9)
    with Engine(model, prefix_cache=reuse, record_routes=True, kv_memory=60 * PAGE_BYTES) as engine:
        assert engine.capabilities.router_counts
        engine._worker.cost.row = lambda rows: 0.01  # type: ignore[method-assign]
        prompt, params = ids(1, 150), SamplingParams(temperature=0, max_tokens=60)
        for _ in range(3):
            request = engine.submit(prompt, params)
            whole = prompt + [o.token for o in request]
            routes = request.routes()
            assert routes.tolist() == [model.experts(i) for i in whole[:-1]]
            got = request.router_counts([("prompt", 0, 150), ("analysis", 150, 180), ("analysis", 180, 400)])
            for tag, part in (("prompt", whole[:150]), ("analysis", whole[150:-1])):
                want = np.zeros((LAYERS, EXPERTS), np.int64)
                for i in part:
                    for layer, chosen in enumerate(model.experts(i)):
                        for e in chosen:
                            want[layer, e] += 1
                assert got[tag].tolist() == want.tolist() and want.sum() == len(part) * LAYERS * CHOSEN
            prompt = whole[:170]
    with Engine(model) as engine:
        request = engine.submit([1], GREEDY)
        list(request)
        assert not engine.capabilities.router_counts
        with pytest.raises(UsageError, match="record_routes"):
            request.routes()


def test_the_real_model_records_the_experts_its_router_chose(tmp_path: Any) -> None:
    from motet import kernels
    from motet.model import Span, load
    from motet.synth import synth

    model = load(synth("tiny", tmp_path / "tiny"), precision="float32", threads=1)
    chosen: list[Any] = []
    route = kernels.route

    def spy(logits: Any, k: int) -> Any:
        out = route(logits, k)
        chosen.append(out[0].copy())
        return out

    prompt = ids(3, 40)
    kernels.route = spy
    try:
        model.forward([Span(prompt, model.new_cache())])
    finally:
        kernels.route = route
    with Engine(model, record_routes=True, prefill_chunk=16) as engine:
        request = engine.submit(prompt, SamplingParams(temperature=0, max_tokens=1))
        list(request)
    assert np.array_equal(request.routes(), np.stack(chosen, 1))


def spilled(folder: Any, **kw: Any) -> Engine:
    return Engine(
        ToyModel(context=2000),
        prefill_chunk=64,
        kv_memory=30 * PAGE_BYTES,
        spill=folder,
        speculate=False,
        **kw,
    )


def test_cold_prefixes_go_to_disk_and_come_back_after_a_restart(tmp_path: Any) -> None:
    trunks = [ids(n, 500) for n in range(4)]
    with spilled(tmp_path) as engine:
        want = [engine.generate(t, GREEDY) for t in trunks]
        assert engine.memory["spilled"] > 0
        request = engine.submit([*trunks[0], *want[0], 3], GREEDY)  # evicted long ago
        assert [o.token for o in request] == plain(engine.model, [*trunks[0], *want[0], 3], GREEDY)
        assert request.stats.cached_tokens == 504 and engine.memory["reloaded"] > 0
        nothing_left(engine)
    with spilled(tmp_path, record_routes=False) as engine:
        for t, w in zip(trunks, want, strict=True):
            request = engine.submit(t, GREEDY)
            assert [o.token for o in request] == w and request.stats.cached_tokens == 499
        nothing_left(engine)
    with spilled(tmp_path, record_routes=True) as engine:  # what was kept without routes cannot give them
        request = engine.submit(trunks[0], GREEDY)
        assert [o.token for o in request] == want[0] and len(request.routes()) == 504
    with spilled(tmp_path, record_routes=True) as engine:
        request = engine.submit(trunks[0], GREEDY)
        assert [o.token for o in request] == want[0] and request.stats.cached_tokens == 499
        assert request.routes().tolist() == [engine.model.experts(i) for i in (trunks[0] + want[0])[:-1]]
    other = ToyModel(context=2000)
    other.pack.key = "another"
    with Engine(other, spill=tmp_path, kv_memory=60 * PAGE_BYTES) as engine:
        request = engine.submit(trunks[0], GREEDY)
        list(request)
        assert request.stats.cached_tokens == 0


def test_damaged_files_are_computed_again_and_the_limit_is_kept(tmp_path: Any) -> None:
    trunk = ids(1, 500)
    with spilled(tmp_path) as engine:
        want = engine.generate(trunk, GREEDY)
    files = sorted(tmp_path.glob("*/*.kv"))
    assert len(files) >= 8
    for n, path in enumerate(files):
        data = bytearray(path.read_bytes())
        if n % 3 == 0:
            data[len(data) // 2] ^= 1
        elif n % 3 == 1:
            data = data[: len(data) // 2]
        path.write_bytes(data)
    (tmp_path / "noise").mkdir()
    with spilled(tmp_path) as engine:
        assert engine.generate(trunk, GREEDY) == want
        nothing_left(engine)
    with spilled(tmp_path, spill_bytes=100_000) as engine:
        assert engine.generate(ids(2, 500), GREEDY) == plain(engine.model, ids(2, 500), GREEDY)
    assert 0 < sum(p.stat().st_size for p in tmp_path.glob("*/*.kv")) <= 100_000
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        spilled(tmp_path / "file")

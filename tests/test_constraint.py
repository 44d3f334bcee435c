"""Masks: what they forbid never comes, what they allow comes as if the rest had never been there; failures stay with their request."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.engine import Bits, ConstraintError, Engine, Except, Mask, Only, SamplingParams
from motet.engine.sampling import Counts, sample
from motet.errors import UsageError, UserError
from toy_model import ToyModel


def packed(allowed: np.ndarray) -> Bits:
    words = np.zeros((len(allowed) + 31) // 32, np.uint32)
    for i in np.flatnonzero(allowed):
        words[i // 32] |= np.uint32(1 << (i % 32))
    return Bits(words)


@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 31, 32, 33, 200, 1500]),
    share=st.sampled_from([0.01, 0.5, 0.99]),
    lead=st.sampled_from([0.0, 30.0, 400.0]),
)
def test_every_form_equals_minus_infinity(seed: int, size: int, share: float, lead: float) -> None:
    """The same draw as from a row whose forbidden logits are very low; log-probabilities are those of the whole row."""
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 3, size).astype(np.float32)
    allowed = rng.random(size) < share
    allowed[rng.integers(size)] = True
    row[~allowed] += np.float32(lead)  # what is forbidden may be all the model wants
    before = row.copy()
    params = SamplingParams(
        temperature=rng.choice([0, 0.5, 1, 1, 2]), top_k=int(rng.choice([0, 0, 3])), top_p=rng.choice([1, 1, 0.7]),
        min_p=rng.choice([0, 0.1]), repetition_penalty=rng.choice([1, 1, 1.3]), frequency_penalty=rng.choice([0, 0.5]),
        logit_bias={} if seed % 2 else {int(rng.integers(size)): 2.0}, logprobs=2,
    )  # fmt: skip
    counts = Counts(frozenset(rng.integers(0, size, 4).tolist()), {int(rng.integers(size)): 2})
    ids = np.flatnonzero(allowed)
    low = np.where(allowed, row, np.float32(-1e30))
    want = sample(low, params, counts, seed, 0).token
    whole = sample(row, params, counts, seed, 0)
    forms: list[Mask] = [Only(ids), packed(allowed), Except(np.flatnonzero(~allowed), size)]
    tail = int(ids[-1]) + 1
    forms.append(Except(np.flatnonzero(~allowed[:tail]), tail))  # what lies beyond its size is forbidden too
    for mask in forms:
        got = sample(row, params, counts, seed, 0, mask)
        assert got.token == want, mask
        assert got.top_logprobs == whole.top_logprobs
        assert got.logprob == pytest.approx(
            float(row[want]) - np.logaddexp.reduce(row.astype(float)), abs=1e-3
        )
    assert (row == before).all(), "the row was not put back"
    row.flags.writeable = False
    assert [sample(row, params, counts, seed, 0, m).token for m in forms] == [want] * 4


def test_an_empty_mask_is_an_error_that_says_so() -> None:
    row = np.zeros(40, np.float32)
    everything = np.arange(40)
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(temperature=0.5)):
        for mask in (
            Only(np.array([], int)),
            Bits(np.zeros(2, np.uint32)),
            Except(everything, 40),
            Except(everything[:0], 0),
        ):
            with pytest.raises(ConstraintError, match="forbids every token"):
                sample(row, params, Counts(), 0, 0, mask)
    with pytest.raises(ConstraintError, match="together with logit_bias"):
        sample(row, SamplingParams(logit_bias={3: -float("inf")}), Counts(), 0, 0, Only(np.array([3])))
    with pytest.raises(ConstraintError, match="-2"):
        Only(np.array([-2]))


class Ring:
    """Allows the tokens of a ring, one after another; goes wrong where it is told to."""

    def __init__(self, ring: list[int], fail: Callable[[str, int], None] = lambda where, n: None) -> None:
        self.ring, self.fail, self.n = ring, fail, 0
        self.told: list[int] = []

    def mask(self) -> Mask | None:
        self.fail("mask", self.n)
        at = self.n % len(self.ring)
        return None if self.ring[at] < 0 else Only(np.array([self.ring[at]]))

    def advance(self, token: int) -> None:
        self.fail("advance", self.n)
        self.told.append(token)
        self.n += 1


def test_some_rows_of_a_batch_are_constrained() -> None:
    made: list[Ring] = []

    def ring() -> Ring:
        made.append(Ring([7, 9, -1]))
        return made[-1]

    params = SamplingParams(seed=3, max_tokens=12, constraint=ring)
    free = SamplingParams(seed=3, max_tokens=12)
    with Engine(ToyModel(), max_batch=6) as engine:
        alone = [engine.generate([n], free) for n in range(3)]
        held = [engine.submit([n], params) for n in range(3)]
        loose = [engine.submit([n], free) for n in range(3)]
        assert [[o.token for o in r] for r in loose] == alone
        got = [[o.token for o in r] for r in held]
    assert all(t[0::3] == [7] * 4 and t[1::3] == [9] * 4 for t in got)
    assert len({tuple(t) for t in got}) == 3, "where nothing is forced the model decides"
    assert [r.told for r in made] == got, "every sequence has its own"


def boom(where: str, at: int) -> Callable[[str, int], None]:
    def fail(here: str, n: int) -> None:
        if (here, n) == (where, at):
            raise ZeroDivisionError("boom")

    return fail


@pytest.mark.parametrize("where", ["mask", "advance"])
def test_a_constraint_that_fails_ends_its_request_only(where: str) -> None:
    def bad() -> Ring:
        return Ring([7], boom(where, 3))

    with Engine(ToyModel()) as engine:
        good = engine.submit([1], SamplingParams(seed=1, max_tokens=20))
        broken = engine.submit([1], SamplingParams(max_tokens=20, constraint=bad))
        got = []
        with pytest.raises(ConstraintError, match=r"ZeroDivisionError: boom"):
            got.extend(o.token for o in broken)
        assert (broken.finish, broken.stats.n_sampled) == ("error", 3)
        assert len(list(good)) == 20
        assert (engine.running, engine.waiting) == (0, 0)


def test_an_error_meant_for_the_user_arrives_as_it_is_and_nothing_wrong_is_queued() -> None:
    def refuses() -> Any:
        raise UsageError("no such schema.")

    def later(where: str, n: int) -> None:
        raise UserError("not today.")

    with Engine(ToyModel()) as engine:
        with pytest.raises(UsageError, match="no such schema"):
            engine.submit([1], SamplingParams(constraint=refuses))
        with pytest.raises(UserError, match="not today"):
            engine.generate([1], SamplingParams(constraint=lambda: Ring([1], later)))
        with pytest.raises(ConstraintError, match="forbids every token"):
            engine.generate([1], SamplingParams(constraint=lambda: Ring([50])))
        assert (engine.running, engine.waiting) == (0, 0)
    with pytest.raises(UsageError, match="not callable"):
        SamplingParams(constraint=Ring([1]))  # type: ignore[arg-type]


def test_a_constrained_request_is_the_same_in_any_company() -> None:
    rng = random.Random(4)
    asks = [([rng.randrange(50)], rng.randrange(99)) for _ in range(6)]

    class Odd:
        """Odd ids after even ones and the other way round, with a packed mask."""

        def __init__(self) -> None:
            self.last = 0

        def mask(self) -> Mask:
            return packed(np.arange(50) % 2 == 1 - self.last % 2)

        def advance(self, token: int) -> None:
            self.last = token

    def run(batch: int) -> list[list[int]]:
        with Engine(ToyModel(), max_batch=batch) as engine:
            rs = [engine.submit(i, SamplingParams(seed=s, max_tokens=30, constraint=Odd)) for i, s in asks]
            return [[o.token for o in r] for r in rs]

    got = run(1)
    assert got == run(5)
    assert all(a % 2 != b % 2 for t in got for a, b in itertools.pairwise(t))

"""The loop detector against its definition: every tail of every string, by brute force; planted loops and look-alikes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.engine.loops import Loops, Tail, period
from motet.errors import UsageError


def brute(ids: list[int], rule: Loops) -> int | None:
    for p in range(1, rule.max_period + 1):
        n = max(rule.repeats * p, rule.min_tokens)
        if n <= len(ids) and all(ids[-i] == ids[-i - p] for i in range(1, n - p + 1)):
            return p
    return None


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(1, 6)), max_size=6),
    st.integers(2, 4), st.sampled_from([1, 7, 20]), st.integers(1, 12),
)  # fmt: skip
def test_every_tail_is_judged_as_the_definition_says(
    pieces: list[tuple[list[int], int]], repeats: int, low: int, longest: int
) -> None:
    ids = [i for piece, times in pieces for i in piece * times]
    rule = Loops(repeats=repeats, min_tokens=low, max_period=longest)
    tail = Tail(rule)
    for n, token in enumerate(ids):
        assert tail.feed(token) == brute(ids[: n + 1], rule), ids[: n + 1]


@pytest.mark.parametrize("p", [1, 7, 64, 300, 1024])
def test_a_planted_loop_is_found_at_its_first_token(p: int) -> None:
    rng = random.Random(p)
    before, unit = [rng.randrange(10**5) for _ in range(500)], [rng.randrange(10**5) for _ in range(p)]
    need = max(3 * p, 64)
    looped = before + (unit * (need // p + 1))[:need]
    assert period(looped) == p
    assert period(looped[:-1]) is None


def test_what_only_looks_like_a_loop_is_none() -> None:
    rng = random.Random(1)
    digits = [rng.randrange(10) for _ in range(5000)]
    table = [t for row in range(400) for t in (7, 8, 9, 1000 + row, 11, 12)]  # one changed token each round
    for ids in (digits, table, list(range(3000))):
        tail = Tail(Loops())
        assert all(tail.feed(t) is None for t in ids)
    assert period([5] * 63) is None and period([5] * 64) == 1


@pytest.mark.parametrize(
    "kw", [{"action": "shout"}, {"action": "close"}, {"close": (1,)}, {"repeats": 1}, {"max_period": 0}]
)
def test_illegal_rules_are_one_sentence(kw: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="loops"):
        Loops(**kw)  # type: ignore[arg-type]

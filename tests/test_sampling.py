"""Sampling against its definition: plain sorted probabilities, written the slow way, and counted draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.engine import SamplingError, SamplingParams
from motet.engine.sampling import Counts, adjust, distribution, nucleus, sample, uniform
from motet.errors import UsageError


def softmax(x: np.ndarray) -> np.ndarray:
    y = np.exp(np.asarray(x, np.float64) - np.max(x))
    return y / y.sum()


def slow_kept(x: np.ndarray, p: SamplingParams) -> list[int]:
    """The ids that top-k, top-p and min-p leave, by a full sort."""
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))
    if p.top_k:
        order = order[: p.top_k]
    w = np.exp((x.astype(np.float64) - x.max()) / p.temperature)
    if p.top_p < 1:
        total, kept, mass = sum(w[i] for i in order), [], 0.0
        for i in order:
            kept.append(i)
            mass += w[i]
            if mass >= p.top_p * total:
                break
        order = kept
    return sorted(i for i in order if w[i] >= p.min_p)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 3, 31, 33, 1023, 1025, 3000]),
    spread=st.sampled_from([0.01, 1.0, 6.0]),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.07, 1.0]),
)
def test_filters_keep_what_a_full_sort_keeps(
    seed: int, size: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    x = np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)
    p = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ids, w = distribution(x, p)
    got = list(range(size)) if ids is None else ids.tolist()
    want = slow_kept(x, p)
    # float32 weights may place one token across a cutoff that lies within their rounding; never more than one each.
    assert len(set(got) ^ set(want)) <= (top_p < 1) + (min_p > 0)
    assert got == sorted(got)
    np.testing.assert_allclose(w, np.exp((x[got] - x.max()) / temperature), rtol=2e-5)


def test_ties_go_to_the_lowest_ids() -> None:
    x = np.array([1, 3, 3, 3, 0, 3], np.float32)
    assert distribution(x, SamplingParams(top_k=2))[0].tolist() == [1, 2]
    assert distribution(x, SamplingParams(top_p=0.5))[0].tolist() == [1, 2, 3]
    assert sample(x, SamplingParams(temperature=0), Counts(), 0, 0).token == 1


def test_nucleus_of_a_flat_row_is_its_share() -> None:
    w = np.ones(5000, np.float32)
    assert nucleus(w, 0.3).tolist() == list(range(1500))
    assert len(nucleus(w, 1 - 1e-9)) == 5000


@pytest.mark.parametrize("kw", [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_draws_follow_the_distribution(kw: dict[str, float]) -> None:
    """Chi-squared over 5,000 draws with fixed seeds; its bound is passed by chance once in a million."""
    x = np.random.default_rng(3).normal(0, 1.2, 24).astype(np.float32)
    p, draws = SamplingParams(**kw), 5_000
    kept = slow_kept(x, p)
    want = np.zeros(24)
    want[kept] = softmax(x[kept] / p.temperature)
    got = np.bincount([sample(x, p, Counts(), 11, n).token for n in range(draws)], minlength=24)
    assert got[want == 0].sum() == 0
    k = want > 0
    chi = float((((got - draws * want)[k]) ** 2 / (draws * want[k])).sum())
    freedom = int(k.sum()) - 1
    assert chi < freedom + 5 * math.sqrt(2 * freedom) + 12


def test_draw_n_depends_on_seed_and_n_alone() -> None:
    forward = [uniform(5, n) for n in range(50)]
    assert forward == [uniform(5, n) for n in reversed(range(50))][::-1]
    assert len(set(forward)) == 50 and all(0 <= u < 1 for u in forward)
    assert forward != [uniform(6, n) for n in range(50)]
    assert uniform(-1, 0) == uniform(2**64 - 1, 0)  # signed and unsigned 64-bit seeds name the same bits


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> int:
    """The first word of Philox 4x64-10, from the paper."""
    m, mask = (0xD2E7470EE14C6C93, 0xCA5A826395121157), 2**64 - 1
    (k0, k1), (a, b, c, d) = key, counter
    for _ in range(10):
        p, q = m[0] * a, m[1] * c
        a, b, c, d = (q >> 64) ^ b ^ k0, q & mask, (p >> 64) ^ d ^ k1, p & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return a


@pytest.mark.parametrize(("seed", "n"), [(0, 0), (1, 0), (7, 123456), (-3, 2), (2**63, 9)])
def test_the_generator_is_philox(seed: int, n: int) -> None:
    # numpy steps the counter before its first block.
    word = philox((seed % 2**64, 0x6D6F746574), (n + 1, 0, 0, 0))
    assert uniform(seed, n) == (word >> 11) / 2**53


def test_penalties_by_their_formulas() -> None:
    x = np.array([2, -2, 1, 0.5, 3], np.float32)
    counts = Counts(frozenset({0, 1}), {1: 3, 4: 1})
    p = SamplingParams(
        repetition_penalty=2, presence_penalty=0.25, frequency_penalty=0.5, logit_bias={0: 1.0, 2: -100}
    )
    want = [3 / 2, -2 * 2 - 0.25 - 1.5, -99, 0.5, 3 / 2 - 0.25 - 0.5]
    np.testing.assert_allclose(adjust(x, p, counts), want, rtol=1e-6)
    assert x[0] == 2  # the model's row is left as it was


def test_logprobs_are_the_models_own() -> None:
    x = np.random.default_rng(0).normal(0, 2, 500).astype(np.float32)
    want = np.log(softmax(x))
    p = SamplingParams(temperature=0.2, top_k=2, logit_bias={7: 50.0}, logprobs=5)
    got = sample(x, p, Counts(), 1, 1)
    assert got.token == 7 and got.logprob == pytest.approx(want[7], abs=1e-5)
    order = np.argsort(-x, kind="stable")[:5]
    assert [i for i, _ in got.top_logprobs] == order.tolist()
    np.testing.assert_allclose([v for _, v in got.top_logprobs], want[order], atol=1e-5)
    assert sample(x, SamplingParams(logprobs=0), Counts(), 1, 1).top_logprobs == ()
    assert sample(x, SamplingParams(), Counts(), 1, 1).top_logprobs is None
    assert len(sample(x, SamplingParams(logprobs=10**6), Counts(), 1, 1).top_logprobs) == 500


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    x = np.zeros(9, np.float32)
    x[4] = bad
    for t in (0, 1):
        with pytest.raises(SamplingError, match="not finite"):
            sample(x, SamplingParams(temperature=t), Counts(), 0, 0)


def test_a_forbidden_token_never_comes_and_all_forbidden_is_an_error() -> None:
    x = np.array([50, 0, 0], np.float32)
    for t in (0, 1):
        p = SamplingParams(temperature=t, logit_bias={0: -math.inf})
        assert all(sample(x, p, Counts(), 0, n).token != 0 for n in range(200))
        none = SamplingParams(temperature=t, logit_bias=dict.fromkeys(range(3), -math.inf))
        with pytest.raises(SamplingError, match="every token"):
            sample(x, none, Counts(), 0, 0)


@pytest.mark.parametrize("t", [1e-3, 1e-30, 1e-320])
def test_a_tiny_temperature_is_greedy(t: float) -> None:
    x = np.array([-1e30, 1, 2, 1.5, 3e4], np.float32)
    assert {sample(x, SamplingParams(temperature=t), Counts(), 0, n).token for n in range(50)} == {4}


@pytest.mark.parametrize(
    "kw",
    [
        {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"temperature": "hot"},
        {"temperature": True}, {"top_p": 0}, {"top_p": 1.01}, {"top_p": -1}, {"top_k": -1}, {"top_k": 1.5},
        {"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0}, {"presence_penalty": math.inf},
        {"frequency_penalty": None}, {"seed": 2**64}, {"seed": 0.5}, {"max_tokens": 0}, {"max_tokens": -3},
        {"logprobs": -1}, {"logit_bias": {-1: 1.0}}, {"logit_bias": {1: math.inf}}, {"logit_bias": {1: math.nan}},
        {"logit_bias": [1]}, {"stop_token_ids": (-1,)}, {"stop_token_ids": "ab"}, {"stop_token_ids": 5},
    ],
)  # fmt: skip
def test_illegal_params_are_one_sentence(kw: dict[str, object]) -> None:
    with pytest.raises(UsageError) as e:
        SamplingParams(**kw)  # type: ignore[arg-type]
    text = str(e.value)
    assert next(iter(kw)) in text and text.endswith(".") and "\n" not in text

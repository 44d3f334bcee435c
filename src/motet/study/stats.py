"""The statistics of all studies: intervals, paired tests, a line through log tokens. Knows numbers and groups.

Every interval is 95 %. Answers to one question are no independent trials, so rates over several seeds are resampled by
question (cluster bootstrap), and paired tests compare questions, not answers. All draws come from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TypeVar

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
V = TypeVar("V")
K = TypeVar("K", bound=Hashable)
Z = 1.959963984540054  # 97.5 % of a normal distribution
DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A value between its bounds."""

    value: float
    low: float
    high: float

    def json(self) -> dict[str, float]:
        """Rounded for a report."""
        return {"value": round(self.value, 5), "low": round(self.low, 5), "high": round(self.high, 5)}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(right: int, n: int) -> Interval:
    """A share of independent trials (Wilson 1927); the whole unit interval when there are none."""
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    p, z2 = right / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[F64, F64]:
    """(sums, counts) of the values of each cluster, clusters in order of first appearance."""
    number = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
    at = [number[c] for c in clusters]
    sums = np.bincount(at, np.asarray(values, float), len(number)).astype(float)
    return sums, np.bincount(at, minlength=len(number)).astype(float)


def grouped(values: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Values by their key, keys in order of first appearance."""
    found: dict[K, list[V]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> Interval:
    """The mean with a percentile interval from resampled clusters; for shares at 0 or 1 Wilson's, over clusters."""
    if not len(values):
        return Interval(math.nan, 0.0, 1.0)
    sums, counts = by_cluster(values, clusters)
    mean = float(sums.sum() / counts.sum())
    if mean in (0.0, 1.0) and set(values) <= {0.0, 1.0}:  # resampling cannot leave the edge
        edge = wilson(round(mean * len(sums)), len(sums))
        return Interval(mean, edge.low, edge.high)
    picks = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def bootstrap(
    n: int, of: Callable[[npt.NDArray[np.int64]], float], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """`of` applied to all n clusters, and to resampled ones for the bounds. Draws where it is not finite are left out."""
    rng = np.random.default_rng(seed)
    drawn = np.array([of(rng.integers(0, n, n)) for _ in range(draws)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (math.nan, math.nan)
    return Interval(of(np.arange(n)), float(low), float(high))


def sign_test(differences: Sequence[float]) -> float:
    """One-sided p of "the differences tend to be negative", ties dropped (exact binomial)."""
    less, more = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    n = less + more
    return sum(comb(n, k) for k in range(less, n + 1)) / 2**n if n else 1.0


def permutation_test(differences: Sequence[float], seed: int = 0, draws: int = 2000) -> float:
    """One-sided p of "the mean difference is positive" under random signs (Fisher 1935)."""
    d = np.asarray(differences, float)
    if not len(d):
        return 1.0
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(d)))
    return float((1 + ((signs * d).mean(1) >= d.mean() - 1e-12).sum()) / (draws + 1))


def fewer(right: int, n: int, others_right: int, others: int) -> float:
    """One-sided p of "the first group has no lower share than the others" (Fisher's exact test)."""
    whole, hits = n + others, right + others_right
    return sum(comb(hits, k) * comb(whole - hits, n - k) for k in range(right + 1)) / comb(whole, n)


def auc(low: Sequence[float], high: Sequence[float]) -> float:
    """The chance that a value of `high` is above one of `low`, ties half (Mann-Whitney)."""
    if not len(low) or not len(high):
        return math.nan
    a, b = np.sort(np.asarray(low, float)), np.asarray(high, float)
    below, upto = np.searchsorted(a, b, "left"), np.searchsorted(a, b, "right")
    return float((below + upto).mean() / (2 * len(a)))


@dataclass(frozen=True)
class Line:
    """y = intercept + slope * x by least squares, and the share of variance it explains."""

    intercept: float
    slope: float
    r2: float


def line(x: Sequence[float] | F64, y: Sequence[float] | F64) -> Line:
    """A line through points; a slope of nan when all x are equal."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    dx, dy = a - a.mean(), b - b.mean()
    if not (dx**2).sum() > 0:
        return Line(float(b.mean()), math.nan, math.nan)
    slope = float((dx * dy).sum() / (dx**2).sum())
    whole = float((dy**2).sum())
    left = float(((dy - slope * dx) ** 2).sum())
    return Line(float(b.mean() - slope * a.mean()), slope, 1 - left / whole if whole else 1.0)


def logit(p: float, n: int) -> float:
    """Log odds with half a success and half a failure added, so that 0 and 1 have one."""
    right = p * n
    return math.log((right + 0.5) / (n - right + 0.5))


def at_least_one(n: int, right: int, k: int) -> float:
    """pass@k, without bias, from n attempts (Chen et al. 2021, arXiv 2107.03374)."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def all_of(n: int, right: int, k: int) -> float:
    """pass^k: the chance that k attempts are all right (tau-bench, arXiv 2406.12045)."""
    return comb(right, k) / comb(n, k)

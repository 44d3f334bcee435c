"""How evenly experts are used: measures of load over counts, and when they amount to a collapse. Knows counts only.

Counts c of E experts over T tokens with k choices; f = c / (T k); an even load is u = 1/E (Loss-Free Balancing, arXiv
2408.15664; Switch, arXiv 2101.03961).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
DEAD, HOT = 0.1, 4.0  # of an even load
ALWAYS = 0.95  # an expert that so many tokens go to is no choice any more
ENTROPY, DEAD_SHARE = 0.7, 0.1  # of the collapse verdict; the third criterion is effective experts < E / 2


@dataclass(frozen=True)
class Load:
    """Measures of each layer, arrays (layers,). A layer without tokens has nan."""

    cv: F64  # standard deviation / mean
    max_violation: F64  # max / mean - 1
    min_violation: F64  # 1 - min / mean
    gini: F64
    entropy: F64  # of the load, over ln E: 1 is even
    effective: F64  # exp(entropy): so many even experts would have this entropy
    dead: npt.NDArray[np.int64]  # experts below a tenth of an even load
    hot: npt.NDArray[np.int64]  # above four times an even load


def load(counts: npt.NDArray[np.integer] | F64) -> Load:
    """The measures of counts (layers, experts)."""
    c = np.asarray(counts, float)
    experts = c.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, f = c.mean(1), c / c.sum(1, keepdims=True)
        entropy = -np.where(f > 0, f * np.log(f), 0.0 * f).sum(1)
        ordered, rank = np.sort(c, 1), np.arange(1, experts + 1)
        gini = ((2 * rank - experts - 1) * ordered).sum(1) / (experts * c.sum(1))
        return Load(
            c.std(1) / mean, c.max(1) / mean - 1, 1 - c.min(1) / mean, gini,
            entropy / np.log(experts) if experts > 1 else np.ones(len(c)), np.exp(entropy),
            (f < DEAD / experts).sum(1), (f > HOT / experts).sum(1),
        )  # fmt: skip


def collapsed(of: Load, experts: int) -> npt.NDArray[np.bool_]:
    """Which layers route so unevenly that most of their experts are idle."""
    return (of.effective < experts / 2) | (of.entropy < ENTROPY) | (of.dead > DEAD_SHARE * experts)


def always(counts: npt.NDArray[np.integer], chosen: int) -> F64:
    """Of each layer, the share of tokens that the busiest expert takes; `chosen` experts a token."""
    c = np.asarray(counts, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: F64 = c.max(1) * chosen / c.sum(1)
    return out


class Running:
    """Counts of experts by channel as they come in, old ones fading: halved whenever `keep` tokens are in. Any thread may add."""

    def __init__(self, keep: int = 200_000) -> None:
        self._keep, self._lock = keep, threading.Lock()
        self._by: dict[str, F64] = {}
        self._tokens: dict[str, float] = {}
        self.seen = 0

    def add(self, counts: Mapping[str, npt.NDArray[np.integer]], chosen: int) -> None:
        """Adds counts (layers, experts) of each channel; `chosen` experts a token."""
        with self._lock:
            for channel, c in counts.items():
                tokens = float(c[0].sum()) / chosen if len(c) else 0.0
                self._by[channel] = np.asarray(
                    self._by[channel] + c if channel in self._by else c, np.float64
                )
                self._tokens[channel] = self._tokens.get(channel, 0.0) + tokens
                self.seen += round(tokens)
            if sum(self._tokens.values()) > self._keep:
                self._by = {k: v / 2 for k, v in self._by.items()}
                self._tokens = {k: v / 2 for k, v in self._tokens.items()}

    def now(self) -> dict[str, F64]:
        """Counts by channel, and over all of them ("all"); empty before anything came."""
        with self._lock:
            held = {k: v.copy() for k, v in self._by.items()}
        return held | {"all": np.sum(list(held.values()), 0)} if held else {}

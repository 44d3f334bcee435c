"""One row of logits to one token. Knows probability and numpy; knows no sequences, batches or models.

Order: logit bias; repetition, presence and frequency penalties; temperature; top-k; top-p; min-p; one draw. That is the
order of vLLM and transformers, so the same settings mean the same distribution. Log-probabilities are those of the
model itself, before bias, penalties, temperature and filters, as in the OpenAI API.

Nothing here sorts a whole vocabulary: top-k partitions, top-p finds its cutoff in a histogram, and the draw is made in
the order of ids, so that a row of 201,088 logits costs a few milliseconds at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from motet.engine.params import SamplingParams
from motet.errors import UserError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

KEY = 0x6D6F746574  # "motet": the second half of Philox's key, the first is the seed
BUCKETS, PER_NAT = 4096, 64.0  # top-p's histogram: this many buckets, so many to one unit of logit


class SamplingError(UserError):
    """A row of logits from which no token can be drawn."""


@dataclass
class Counts:
    """Which tokens a sequence holds, as the penalties count them."""

    prompt: frozenset[int] = frozenset()
    sampled: dict[int, int] = field(default_factory=dict)

    def add(self, token: int) -> None:
        """Notes one sampled token."""
        self.sampled[token] = self.sampled.get(token, 0) + 1


@dataclass(frozen=True)
class Choice:
    """A token with its log-probability (natural), and the likeliest tokens when they were asked for."""

    token: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] | None = None


def uniform(seed: int, n: int) -> float:
    """Draw n of a seed, in [0, 1), 53 bits; depends on nothing else.

    Philox 4x64-10 with key (seed mod 2^64, KEY) and counter n; the first word of its block.
    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC11).
    """
    key = np.array([seed & (2**64 - 1), KEY], np.uint64)
    counter = np.array([n, 0, 0, 0], np.uint64)
    return float(int(np.random.Philox(key=key, counter=counter).random_raw()) >> 11) * 2.0**-53


def sample(logits: F32, params: SamplingParams, counts: Counts, seed: int, n: int) -> Choice:
    """The token number n (from 0) of a request, from logits (V,) float32.

    Raises SamplingError for a NaN or infinite logit, and when bias forbids every token.
    """
    if not np.isfinite(logits).all():
        raise SamplingError(
            "The model gave a logit that is not finite, so this request ends; check its weights."
        )
    raw = logits.astype(np.float64)
    peak = float(raw.max())
    weights = np.exp(raw - peak)
    log_total = peak + float(np.log(weights.sum()))
    adjusted = raw if params.plain else adjust(raw, params, counts)
    if params.temperature == 0:
        token = int(adjusted.argmax())
        if adjusted[token] == -np.inf:
            raise SamplingError("logit_bias forbids every token; leave at least one.")
    else:
        unchanged = params.plain and params.temperature == 1
        token = _draw(adjusted, weights if unchanged else None, params, uniform(seed, n))
    top = None if params.logprobs is None else _top(raw, params.logprobs, log_total)
    return Choice(token, float(raw[token]) - log_total, top)


def adjust(raw: F64, params: SamplingParams, counts: Counts) -> F64:
    """A copy of logits (V,) with bias and penalties applied; only the tokens concerned are touched."""
    x = raw.copy()
    if params.logit_bias:
        _add(x, params.logit_bias)
    if params.repetition_penalty != 1:
        seen = _ids(counts.prompt | counts.sampled.keys())
        held = x[seen]
        x[seen] = np.where(held > 0, held / params.repetition_penalty, held * params.repetition_penalty)
    if counts.sampled and (params.presence_penalty or params.frequency_penalty):
        ids = _ids(counts.sampled)
        times = np.fromiter(counts.sampled.values(), np.float64, len(ids))
        x[ids] -= params.presence_penalty + params.frequency_penalty * times
    return x


def _ids(tokens: Iterable[int]) -> Ids:
    return np.fromiter(tokens, np.int64)


def _add(x: F64, bias: Mapping[int, float]) -> None:
    x[_ids(bias)] += np.fromiter(bias.values(), np.float64, len(bias))


def _draw(x: F64, weights: F64 | None, params: SamplingParams, u: float) -> int:
    """A token by inverse transform over the ids that the filters leave, in ascending order; u in [0, 1)."""
    ids, w = distribution(x, params, weights)
    mass = np.cumsum(w)
    # Rounding may carry u * total up to the total itself; the last id with any weight is then meant.
    last = int(mass.searchsorted(mass[-1]))
    at = min(int(mass.searchsorted(u * mass[-1], "right")), last)
    return at if ids is None else int(ids[at])


def distribution(x: F64, params: SamplingParams, weights: F64 | None = None) -> tuple[Ids | None, F64]:
    """What is drawn from: ids (n,) ascending, None for all, and their weights (n,), not normalised, the largest 1.

    x are adjusted logits (V,); weights may give exp(x - max) when temperature is 1 and the caller has it.
    """
    if weights is None:
        peak = x.max()
        if peak == -np.inf:
            raise SamplingError("logit_bias forbids every token; leave at least one.")
        with np.errstate(over="ignore"):  # a tiny temperature: all but the likeliest go to exp(-inf) = 0
            weights = np.exp((x - peak) / params.temperature)
    ids, w = None, weights
    if 0 < params.top_k < len(x):
        ids = _largest(x, params.top_k)
        w = weights[ids]
    if params.top_p < 1:
        keep = _nucleus(w, params.top_p)
        ids, w = keep if ids is None else ids[keep], w[keep]
    if params.min_p > 0:
        keep = np.flatnonzero(w >= params.min_p)
        ids, w = keep if ids is None else ids[keep], w[keep]
    return ids, w


def _largest(x: F64, k: int) -> Ids:
    """Ids (k,) ascending of the k largest values; of equals the lowest ids."""
    cut = np.partition(x, len(x) - k)[len(x) - k]
    above = np.flatnonzero(x > cut)
    ties = np.flatnonzero(x == cut)[: k - len(above)]
    return np.sort(np.concatenate([above, ties]))


def _nucleus(w: F64, p: float) -> Ids:
    """Places (n,) ascending of the smallest set with at least p of the mass; of equals the lowest places.

    Weights lie in [0, 1]. A histogram of -log w finds the bucket where the cutoff lies; only that bucket is sorted.
    """
    with np.errstate(divide="ignore"):
        bucket = np.minimum(-np.log(w) * PER_NAT, BUCKETS - 1).astype(np.int64)
    reached = np.cumsum(np.bincount(bucket, w, BUCKETS))
    target = p * reached[-1]
    cut = int(reached.searchsorted(target))
    edge = np.flatnonzero(bucket == cut)
    edge = edge[np.argsort(-w[edge], kind="stable")]
    before = reached[cut - 1] if cut else 0.0
    count = int((before + np.cumsum(w[edge])).searchsorted(target)) + 1
    return np.sort(np.concatenate([np.flatnonzero(bucket < cut), edge[:count]]))


def _top(raw: F64, count: int, log_total: float) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens, best first; of equals the lowest id first."""
    if count == 0:
        return ()
    ids = _largest(raw, count) if count < len(raw) else np.arange(len(raw))
    ids = ids[np.argsort(-raw[ids], kind="stable")]
    return tuple((int(i), float(raw[i]) - log_total) for i in ids)

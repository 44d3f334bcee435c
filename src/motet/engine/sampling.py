"""One row of logits to one token. Knows probability and numpy; knows no sequences, batches or models.

Order: logit bias; repetition, presence and frequency penalties; temperature; top-k; top-p; min-p; one draw. That is the
order of vLLM and transformers, so the same settings mean the same distribution. A constraint's mask comes first: what it
forbids takes no part in anything that follows. Log-probabilities are those of the model itself, before mask, bias,
penalties, temperature and filters, as in the OpenAI API.

Ids are never sorted by weight: top-k partitions, top-p sorts bare weights to find its cutoff, and the draw is made in the
order of ids, so that a row of 201,088 logits costs a few milliseconds at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from motet.engine.constraint import Bits, ConstraintError, Mask, Only
from motet.engine.params import SamplingParams
from motet.errors import UserError

F32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

KEY = 0x6D6F746574  # "motet": the second half of Philox's key, the first is the seed
BLOCK = 1024  # weights are summed in blocks of this many
LIKELY = 1e-3  # of the likeliest token's weight: top-p looks at these first
COLDEST = 1e-30  # a lower temperature would be 0 in float32; this one already leaves only the likeliest
FORBIDDEN = "logit_bias forbids every token; leave at least one."
NOTHING_LEFT = "The constraint, together with logit_bias, forbids every token, so this request ends."


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


def sample(
    logits: F32, params: SamplingParams, counts: Counts, seed: int, n: int, mask: Mask | None = None
) -> Choice:
    """The token number n (from 0) of a request, from logits (V,) float32; `mask` says which ids may be chosen.

    Raises SamplingError for a NaN or infinite logit and when bias forbids every token, ConstraintError when the mask does.
    """
    if not np.isfinite(logits).all():
        raise SamplingError(
            "The model gave a logit that is not finite, so this request ends; check its weights."
        )
    raw = np.ascontiguousarray(logits, np.float32)
    peak = raw.max()
    weights = raw - peak
    np.exp(weights, out=weights)
    log_total = float(peak) + float(np.log(weights.sum(dtype=np.float64)))
    if mask is None:
        token = _choose(raw if params.plain else adjust(raw, params, counts), weights, params, seed, n)
    else:
        token = _choose_masked(raw, weights, params, counts, seed, n, mask)
    top = None if params.logprobs is None else _top(raw, params.logprobs, log_total)
    return Choice(token, float(raw[token]) - log_total, top)


def _choose(adjusted: F32, weights: F32 | None, params: SamplingParams, seed: int, n: int) -> int:
    """The place in adjusted logits; weights are exp(x - max) of the model's own, of use if nothing changed them."""
    if params.temperature == 0:
        token = int(adjusted.argmax())
        if adjusted[token] == -np.inf:
            raise SamplingError(FORBIDDEN)
        return token
    if not (params.plain and params.temperature == 1):
        weights = None  # its memory goes back to be used again
    return _draw(adjusted, weights, params, uniform(seed, n))


def _choose_masked(
    raw: F32, weights: F32, params: SamplingParams, counts: Counts, seed: int, n: int, mask: Mask
) -> int:
    """As if every forbidden logit were -inf, at the price of the shorter list of ids, not of a copy of the row."""
    size = len(raw)
    if isinstance(mask, Bits):
        mask = mask.lists(size)
    ids = mask.ids[: mask.ids.searchsorted(size)]  # what the model has no row for cannot come anyway
    x = raw if params.plain else adjust(raw, params, counts)
    try:
        if isinstance(mask, Only):
            return int(ids[_choose(x[ids], None, params, seed, n)]) if len(ids) else _nothing()
        out = ids if mask.size >= size else np.union1d(ids, np.arange(mask.size, size))
        if not x.flags.writeable:
            x = raw.copy()
        held = x[out]
        # Weights are relative to the likeliest token; where that one is forbidden, the others may have vanished beside it.
        safe = x is raw and weights[out].max(initial=0) < 1
        x[out], weights[out] = -np.inf, 0
        try:
            return _choose(x, weights if safe else None, params, seed, n)
        finally:
            x[out] = held
    except SamplingError:
        raise ConstraintError(NOTHING_LEFT) from None


def _nothing() -> int:
    raise ConstraintError(NOTHING_LEFT)


def adjust(raw: F32, params: SamplingParams, counts: Counts) -> F32:
    """A copy of logits (V,) with bias and penalties applied; only the tokens concerned are touched."""
    x = raw.copy()
    if params.logit_bias:
        x[_ids(params.logit_bias)] += np.fromiter(params.logit_bias.values(), np.float64)
    if params.repetition_penalty != 1:
        seen = _ids(counts.prompt | counts.sampled.keys())
        held = x[seen]
        x[seen] = np.where(held > 0, held / params.repetition_penalty, held * params.repetition_penalty)
    if counts.sampled and (params.presence_penalty or params.frequency_penalty):
        times = np.fromiter(counts.sampled.values(), np.float64)
        x[_ids(counts.sampled)] -= params.presence_penalty + params.frequency_penalty * times
    return x


def _ids(tokens: Iterable[int]) -> Ids:
    return np.fromiter(tokens, np.int64)


def _draw(x: F32, weights: F32 | None, params: SamplingParams, u: float) -> int:
    """A token by inverse transform over the ids that the filters leave, in ascending order; u in [0, 1)."""
    ids, w = distribution(x, params, weights)
    at = _reach(w, u, "right")
    return at if ids is None else int(ids[at])


def distribution(x: F32, params: SamplingParams, weights: F32 | None = None) -> tuple[Ids | None, F32]:
    """What is drawn from: ids (n,) ascending, None for all, and their weights (n,), not normalised, the largest 1.

    x are adjusted logits (V,); weights may give exp(x - max) when temperature is 1 and the caller has it.
    """
    ids = _largest(x, params.top_k) if 0 < params.top_k < len(x) else None
    if weights is not None:
        w = weights if ids is None else weights[ids]
    else:
        kept = x if ids is None else x[ids]
        peak = kept.max()
        if peak == -np.inf:
            raise SamplingError(FORBIDDEN)
        with np.errstate(over="ignore", under="ignore"):  # a tiny temperature: all but the likeliest go to 0
            w = kept - peak
            w /= np.float32(max(params.temperature, COLDEST))
            np.exp(w, out=w)
    for keep in _filters(w, params):
        ids, w = keep if ids is None else ids[keep], w[keep]
    return ids, w


def _filters(w: F32, params: SamplingParams) -> Iterator[Ids]:
    """Places to keep, filter by filter, each in what the one before left."""
    if params.top_p < 1:
        keep = nucleus(w, params.top_p)
        w = w[keep]
        yield keep
    if params.min_p > 0:
        yield np.flatnonzero(w >= params.min_p)


def _largest(x: F32, k: int) -> Ids:
    """Ids (k,) ascending of the k largest values; of equals the lowest ids."""
    return _first(x, np.partition(x, len(x) - k)[len(x) - k], k)


def _first(x: F32, cut: np.float32, count: int) -> Ids:
    """Places ascending of the `count` largest values, the least of which is `cut`; of equals the lowest places."""
    kept = x >= cut
    surplus = int(np.count_nonzero(kept)) - count
    if surplus:
        kept[np.flatnonzero(x == cut)[-surplus:]] = False
    return np.flatnonzero(kept)


def nucleus(w: F32, p: float) -> Ids:
    """Places (n,) ascending of the smallest set with at least p of the mass; of equals the lowest places.

    w are weights (n,), the largest 1.
    """
    # Mostly the likely tokens hold the mass, and nothing else need be sorted: any set of the largest weights that holds
    # enough contains the nucleus.
    target = p * float(w.sum(dtype=np.float64))
    likely = w[w >= LIKELY]
    held = float(likely.sum(dtype=np.float64))
    down, share = (likely, target / held) if held >= target else (w, p)
    down = np.sort(down)[::-1]
    count = _reach(down, share, "left") + 1
    return _first(w, down[count - 1], count)


def _reach(w: F32, share: float, side: Literal["left", "right"]) -> int:
    """The first place where the running sum of w (n,) reaches ("left") or passes ("right") this share of the whole.

    Sums blocks, then looks into one of them: a running sum of everything would cost more than all the rest.
    """
    sums = np.cumsum(np.add.reduceat(w, np.arange(0, len(w), BLOCK), dtype=np.float64))
    target = share * sums[-1]
    # Rounding may carry the target to the very end; the last place with any weight is then meant.
    block = min(int(sums.searchsorted(target, side)), int(sums.searchsorted(sums[-1])))
    running = np.cumsum(w[block * BLOCK : (block + 1) * BLOCK], dtype=np.float64)
    within = target - (sums[block - 1] if block else 0.0)
    place = min(int(running.searchsorted(within, side)), int(running.searchsorted(running[-1])))
    return block * BLOCK + place


def _top(raw: F32, count: int, log_total: float) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens, best first; of equals the lowest id first."""
    if count == 0:
        return ()
    ids = _largest(raw, count) if count < len(raw) else np.arange(len(raw))
    ids = ids[np.argsort(-raw[ids], kind="stable")]
    return tuple((int(i), float(raw[i]) - log_total) for i in ids)

"""What the routers do with each token: teacher-forced ids through the model, every layer's router logits looked at.

Shapes: N tokens in all, L layers, E experts, k chosen. Knows a model and ids; judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from motet.model import Model

CHUNK = 256
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Text:
    """Ids and what each position is: (channel, start, stop) spans, and the labels of the whole."""

    ids: Sequence[int]
    spans: Sequence[tuple[str, int, int]]
    effort: str
    domain: str


@dataclass(frozen=True)
class Routing:
    """Per token and layer, (N, L) unless said otherwise."""

    chosen: npt.NDArray[np.uint16]  # (N, L, k), the likeliest first
    weights: F32  # (N, L, k), of the chosen, summing to 1
    entropy: F32  # of the softmax over all experts, over ln E
    entropy_chosen: F32  # of the weights of the chosen ones, over ln k
    first: F32  # weight of the likeliest expert among the chosen
    margin: F32  # logit of the k-th minus that of the next
    rms: F32  # of the logits
    changed: npt.NDArray[np.bool_] | None  # whether the set differs in the other arithmetic
    channel: npt.NDArray[np.str_]  # (N,)
    effort: npt.NDArray[np.str_]  # (N,)
    domain: npt.NDArray[np.str_]  # (N,)
    text: npt.NDArray[np.int64]  # (N,), which sequence
    experts: int

    def counts(self, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """How often each expert was chosen, (L, E), over the tokens of a mask (N,)."""
        return self._summed(mask, None).astype(np.int64)

    def work(self, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """How much weight each expert had in all, (L, E)."""
        return self._summed(mask, self.weights)

    def counts_by_text(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """The counts of a mask of each text by itself, (texts, L, E); texts without a token of it are left out."""
        which, at = np.unique(self.text[mask], return_inverse=True)
        chosen, layers = self.chosen[mask].astype(np.int64), self.chosen.shape[1]
        place = (at[:, None, None] * layers + np.arange(layers)[None, :, None]) * self.experts + chosen
        flat = np.bincount(place.ravel(), minlength=len(which) * layers * self.experts)
        return flat.reshape(len(which), layers, self.experts).astype(float)

    def _summed(self, mask: npt.NDArray[np.bool_] | None, weights: F32 | None) -> npt.NDArray[np.float64]:
        pick = slice(None) if mask is None else mask
        chosen, layers = self.chosen[pick].astype(np.int64), self.chosen.shape[1]
        at = (chosen + np.arange(layers)[None, :, None] * self.experts).ravel()
        by = None if weights is None else weights[pick].ravel()
        return np.bincount(at, by, layers * self.experts).reshape(layers, self.experts).astype(float)


@contextmanager
def tapped(model: Model, see: Callable[[F32], None]) -> Iterator[None]:
    """Within the block, `see` gets the router logits (T, E) of every layer of every pass, in order."""
    model.tap = see
    try:
        yield
    finally:
        model.tap = None


def logits_of(model: Model, ids: Sequence[int]) -> F32:
    """Router logits (T, L, E) of one sequence."""
    from motet.model import Span

    cache, parts, seen = model.new_cache(), list[F32](), list[F32]()
    with tapped(model, lambda y: seen.append(np.array(y[:, : model.config.num_experts], np.float32))):
        for at in range(0, len(ids), CHUNK):
            seen.clear()
            model.forward([Span(ids[at : at + CHUNK], cache, "none")])
            parts.append(np.stack(seen, 1))
    return np.concatenate(parts)


def _chosen(logits: F32, k: int) -> npt.NDArray[np.int64]:
    """The k likeliest experts, ties going to the lower one."""
    return np.argsort(-logits, -1, kind="stable")[..., :k]


def routing(
    model: Model, sequences: Sequence[Text], other: Model | None = None, tick: Callable[[int, int], None] = lambda d, t: None
) -> Routing:  # fmt: skip
    """Looks at every position. `other` is the same model in another arithmetic, for the share of sets that change."""
    k, experts = model.config.experts_per_token, model.config.num_experts
    parts: dict[str, list[Any]] = {f.name: [] for f in dataclasses.fields(Routing)}
    for n, s in enumerate(sequences):
        y = logits_of(model, s.ids)
        ordered = -np.sort(-y, -1)
        p = np.exp(ordered - ordered[..., :1])
        w = p[..., :k] / p[..., :k].sum(-1, keepdims=True)
        p /= p.sum(-1, keepdims=True)
        chosen = _chosen(y, k)
        row = {
            "chosen": chosen.astype(np.uint16),
            "weights": w, "entropy": _entropy(p), "entropy_chosen": _entropy(w), "first": w[..., 0],
            "margin": ordered[..., k - 1] - ordered[..., min(k, experts - 1)], "rms": np.sqrt((y**2).mean(-1)),
            "channel": _labels(s), "effort": np.full(len(y), s.effort), "domain": np.full(len(y), s.domain),
            "text": np.full(len(y), n),
        }  # fmt: skip
        if other is not None:
            theirs = _chosen(logits_of(other, s.ids), k)
            row["changed"] = (np.sort(theirs, -1) != np.sort(chosen, -1)).any(-1)
        for name, value in row.items():
            parts[name].append(value)
        tick(n + 1, len(sequences))
    joined: dict[str, Any] = {name: np.concatenate(v) for name, v in parts.items() if v}
    return Routing(**({"changed": None} | joined | {"experts": experts}))


def _entropy(p: F32) -> F32:
    n = p.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        out: F32 = -np.where(p > 0, p * np.log(p), 0).sum(-1)
    return out / np.float32(np.log(n)) if n > 1 else np.ones_like(out)


def _labels(s: Text) -> npt.NDArray[np.str_]:
    labels = np.full(len(s.ids), "prompt", dtype="U12")
    for tag, start, stop in s.spans:
        labels[start:stop] = tag
    return labels

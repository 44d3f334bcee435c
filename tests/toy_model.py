"""A tiny model for tests that need no weights: numpy, deterministic, every logit depends on the whole prefix.

It keeps the promises the engine relies on, and checks that the engine keeps its own: a cache per sequence, one span per
cache, no empty span, nothing beyond the context, one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np


class ToyCache:
    """The prefix itself."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.torn = False

    @property
    def length(self) -> int:
        return len(self.ids)


class ToyModel:
    """Logits are a hash of the prefix, spread over (-spread, spread).

    poison: forward raises, after half of its writing, when this id stands in a span. nan: a sequence whose prefix
    contains this id gets a NaN logit. before: called at the start of every forward, with the spans.
    """

    def __init__(
        self, vocab: int = 50, context: int = 256, eos: tuple[int, ...] = (), spread: float = 3.0,
        poison: int | None = None, nan: int | None = None, before: Callable[[Any], None] | None = None,
    ) -> None:  # fmt: skip
        self.config = SimpleNamespace(vocab_size=vocab, max_position_embeddings=context, eos_token_ids=eos)
        self.spread, self.poison, self.nan, self.before = spread, poison, nan, before
        rng = np.random.default_rng(7)
        self.table = rng.uniform(-1, 1, (251, vocab)).astype(np.float32)
        self.threads: set[int] = set()
        self.widths: list[list[int]] = []  # of each step, the lengths of its spans
        self.caches: list[Any] = []

    def new_cache(self) -> ToyCache:
        return ToyCache()

    def row(self, prefix: Sequence[int]) -> np.ndarray:
        """Logits (V,) after a prefix."""
        h = 17
        for i in prefix:
            h = (h * 1_000_003 + i + 1) % (2**61 - 1)
        y = self.table[h % 251] + self.table[h // 251 % 251] * np.float32(0.5)
        y = (y * np.float32(self.spread)).astype(np.float32)
        if self.nan is not None and self.nan in prefix:
            y[3] = np.nan
        return y

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return np.stack([self.row(ids[: n + 1]) for n in range(len(ids))])

    def forward(self, spans: Sequence[Any]) -> list[np.ndarray]:
        self.threads.add(threading.get_ident())
        self.widths.append([len(s.ids) for s in spans])
        self.caches = [s.cache for s in spans]
        if self.before is not None:
            self.before(spans)
        assert len({id(s.cache) for s in spans}) == len(spans), "two spans share a cache"
        for s in spans:
            assert len(s.ids) > 0, "an empty span"
            assert not s.cache.torn, "a cache that a failed step left behind"
            assert s.cache.length + len(s.ids) <= self.config.max_position_embeddings, "beyond the context"
        if any(self.poison in s.ids for s in spans):
            for s in spans:
                s.cache.torn = True
            raise RuntimeError("poison")
        out = []
        for s in spans:
            start = s.cache.length
            s.cache.ids.extend(int(i) for i in s.ids)
            ends = {"none": [], "last": [s.cache.length], "all": range(start + 1, s.cache.length + 1)}[s.want]
            rows = [self.row(s.cache.ids[:e]) for e in ends]
            out.append(np.stack(rows) if rows else np.empty((0, self.config.vocab_size), np.float32))
        return out

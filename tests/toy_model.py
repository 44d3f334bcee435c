"""A tiny model for tests that need no weights: numpy, deterministic, every logit depends on the whole prefix.

It keeps the promises the engine relies on, and checks that the engine keeps its own: a cache per sequence, one span per
cache, no empty span, nothing beyond the context, one thread. Its keys and values are the ids themselves, written into real
pages: it reads the prefix back from the pages of its full layer, and what its sliding layer needs must say the same, so that
a page shared, copied, evicted or spilled wrongly gives another token or fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from motet.kernels import PAGE
from motet.kvcache import Pages

LAYERS, CHOSEN, EXPERTS = 2, 2, 5


class ToyModel:
    """Logits are a hash of the prefix, spread over (-spread, spread).

    poison: a pass raises, after half of its writing, when this id stands in a span. nan: a sequence whose prefix
    contains this id gets a NaN logit. before: called at the start of every pass, with the spans. memory: logits depend on so
    many ids only, so that what it says repeats.
    """

    def __init__(
        self, vocab: int = 50, context: int = 256, eos: tuple[int, ...] = (), spread: float = 3.0,
        poison: int | None = None, nan: int | None = None, before: Callable[[Any], None] | None = None, window: int = 100, memory: int | None = None,
    ) -> None:  # fmt: skip
        self.config = SimpleNamespace(
            vocab_size=vocab, max_position_embeddings=context, eos_token_ids=eos, num_hidden_layers=LAYERS,
            num_key_value_heads=1, head_dim=2, num_experts=EXPERTS, experts_per_token=CHOSEN,
            window=lambda layer: 0 if layer % 2 else window,
        )  # fmt: skip
        self.precision, self.pack = "float32", SimpleNamespace(key="toy")
        self.spread, self.poison, self.nan, self.before, self.memory = spread, poison, nan, before, memory
        rng = np.random.default_rng(7)
        self.table = rng.uniform(-1, 1, (251, vocab)).astype(np.float32)
        self.threads: set[int] = set()
        self.widths: list[list[int]] = []  # of each step, the lengths of its spans
        self.caches: list[Any] = []
        self.computed = 0  # positions

    def new_pages(self, budget: int | None = None) -> Pages:
        return Pages(self.config, "float32", budget)  # type: ignore[arg-type]

    def row(self, prefix: Sequence[int]) -> np.ndarray:
        """Logits (V,) after a prefix."""
        h = 17
        for i in prefix[-self.memory :] if self.memory else prefix:
            h = (h * 1_000_003 + i + 1) % (2**61 - 1)
        y = self.table[h % 251] + self.table[h // 251 % 251] * np.float32(0.5)
        y = (y * np.float32(self.spread)).astype(np.float32)
        if self.nan is not None and self.nan in prefix:
            y[3] = np.nan
        return y

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return np.stack([self.row(ids[: n + 1]) for n in range(len(ids))])

    def begin(self, spans: Sequence[Any], record: bool = False) -> ToyPass:
        return ToyPass(self, spans, record)

    def experts(self, token: int) -> list[list[int]]:
        """Where an id goes: (layers, experts a token)."""
        return [[(token + n) % EXPERTS, (token + n + 1) % EXPERTS] for n in range(LAYERS)]


def _words(pages: Pages, pool: int, number: int) -> np.ndarray:
    """The first PAGE floats of a page: the toy's keys."""
    return pages.pools[pool].page(number)[: PAGE * 4].view(np.float32)


def _read(cache: Any, pool: int, start: int, stop: int) -> list[int]:
    table = cache.table(pool)
    return [
        int(_words(cache.pages, pool, table.numbers[at // PAGE - table.first])[at % PAGE])
        for at in range(start, stop)
    ]


class ToyPass:
    """Three layers of nothing, then the logits."""

    def __init__(self, model: ToyModel, spans: Sequence[Any], record: bool) -> None:
        model.threads.add(threading.get_ident())
        model.widths.append([len(s.ids) for s in spans])
        model.caches = [s.cache for s in spans]
        if model.before is not None:
            model.before(spans)
        assert len({id(s.cache) for s in spans}) == len(spans), "two spans share a cache"
        for s in spans:
            assert len(s.ids) > 0, "an empty span"
            assert s.cache.length + len(s.ids) <= model.config.max_position_embeddings, "beyond the context"
        self.model, self.spans, self.left, self.layer_s = model, list(spans), 3, 0.0
        self.logits: list[np.ndarray] = []
        self._record = record
        self.routes: np.ndarray | None = None
        if spans:
            spans[0].cache.pages.reserve([(s.cache, len(s.ids)) for s in spans])

    def run(self, seconds: float = float("inf")) -> bool:
        while self.spans and self.left:
            self.left -= 1
            if seconds < 1 and self.left:
                return False
        model = self.model
        for n, s in enumerate(self.spans):
            if any(model.poison in other.ids for other in self.spans) and n == len(self.spans) // 2:
                raise RuntimeError("poison")
            self._write(s)
        model.computed += sum(len(s.ids) for s in self.spans)
        for s in self.spans:
            start = s.cache.length
            s.cache.length += len(s.ids)
            full = next(n for n, p in enumerate(s.cache.pages.pools) if not p.window)
            held = _read(s.cache, full, 0, s.cache.length)
            ends = {"none": [], "last": [s.cache.length], "all": range(start + 1, s.cache.length + 1)}[s.want]
            rows = [model.row(held[:e]) for e in ends]
            self.logits.append(np.stack(rows) if rows else np.empty((0, model.config.vocab_size), np.float32))
        if self._record:
            self.routes = np.array([model.experts(i) for s in self.spans for i in s.ids])
        return True

    def _write(self, s: Any) -> None:
        """The ids of a span into their pages; what its first position reads behind it must be there in every pool."""
        cache, start = s.cache, s.cache.length
        for n, pool in enumerate(cache.pages.pools):
            table = cache.table(n)
            for at, token in enumerate(s.ids, start):
                number = table.numbers[at // PAGE - table.first]
                assert pool.holders(number) == 1, "a page that others hold was written"
                _words(cache.pages, n, number)[at % PAGE] = token
        full = next(n for n, p in enumerate(cache.pages.pools) if not p.window)
        for n, pool in enumerate(cache.pages.pools):
            if pool.window:
                low = max(0, start + 1 - pool.window)
                assert _read(cache, n, low, start) == _read(cache, full, low, start), "another window"

    def drop(self, cache: Any) -> None:
        self.spans = [s for s in self.spans if s.cache is not cache]

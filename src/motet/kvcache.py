"""The key-value cache of one model: pages of 64 positions, shared between sequences and copied when they part.

Knows page numbers, counts and lengths; knows no token ids, no requests and nothing of what is worth keeping (the engine
does). One thread at a time; only the garbage collector may drop a Cache elsewhere.

Layers with the same window share page numbers, so there is one Pool and one table per window: usually full layers and
sliding layers. A page is cut at absolute positions: page n holds positions 64 n .. 64 n + 63. A page may be held by
several tables; whoever writes into one that others hold gets a copy first. A sliding table drops pages wholly behind
the window when the next step begins, so a sequence of any length holds a constant number of them.

    pages = Pages(config)
    a = pages.new_cache()
    pages.reserve([(a, 100)])      # forward does this; 100 positions more, or PagesFull and nothing changes
    b = a.fork(70)                 # the same first 70 positions, no byte copied yet
    a.truncate(64)                 # drafted positions were rejected
    kept = a.table(0)              # numbers to hold on to: pool.share(n) now, pool.release(n) some day
    c = pages.new_cache(length, tables)    # and later a new sequence on them
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from motet.config import ModelConfig
from motet.errors import UserError
from motet.kernels import PAGE, Paged, PageLayout, PageMemory
from motet.kernels.layout import U8


class PagesFull(UserError):
    """The budget of the key-value cache does not cover what a step needs."""


@dataclass(frozen=True)
class Table:
    """Page numbers of consecutive pages of one sequence in one pool; the first is page `first` of the sequence."""

    first: int
    numbers: tuple[int, ...]


class Pool:
    """Pages of the layers that share one window (0: full attention), by number, with a count of holders each."""

    def __init__(self, layers: Sequence[int], window: int, layout: PageLayout) -> None:
        self.layers, self.window, self.layout = tuple(layers), window, layout
        self.memory = PageMemory(layout)
        self._free: list[int] = []
        self._counts: list[int] = []

    @property
    def in_use(self) -> int:
        """Pages somebody holds."""
        return len(self._counts) - len(self._free)

    def first_needed(self, length: int) -> int:
        """The first page that a query at position `length` or later reads."""
        return max(0, length + 1 - self.window) // PAGE if self.window else 0

    def allocate(self) -> int:
        """A page with undefined contents and one holder. Grows the memory; the budget is the caller's matter."""
        if not self._free:
            before = self.memory.pages
            self.memory.grow()
            self._counts += [0] * (self.memory.pages - before)
            self._free += range(self.memory.pages - 1, before - 1, -1)
        number = self._free.pop()
        self._counts[number] = 1
        return number

    def share(self, number: int) -> int:
        """One holder more; returns the number."""
        assert self._counts[number] > 0, "a free page cannot be shared"
        self._counts[number] += 1
        return number

    def release(self, number: int) -> None:
        """One holder less; without any the page is free."""
        assert self._counts[number] > 0, "a free page cannot be released"
        self._counts[number] -= 1
        if not self._counts[number]:
            self._free.append(number)

    def holders(self, number: int) -> int:
        """How many tables, and others, hold the page."""
        return self._counts[number]

    def page(self, number: int) -> U8:
        """The bytes of a page: to be stored elsewhere, or to be filled with bytes stored before."""
        return self.memory.page(number)

    def copy(self, number: int) -> int:
        """A new page with the same bytes and one holder."""
        new = self.allocate()
        self.page(new)[:] = self.page(number)
        return new


class Cache:
    """Keys and values of one sequence: `length` positions so far, a table of pages in every pool.

    With `keep`, sliding tables keep what lies behind the window, so that the sequence can be forked and truncated at any
    length. Made by Pages.new_cache or fork.
    """

    def __init__(self, pages: Pages, keep: bool = False) -> None:
        self.pages, self.length, self.keep = pages, 0, keep
        self._firsts = [0] * len(pages.pools)
        self._numbers: list[list[int]] = [[] for _ in pages.pools]

    def __del__(self) -> None:
        self.pages._abandoned.append(self._numbers)

    @property
    def nbytes(self) -> int:
        """Bytes of the pages in its tables, shared ones included."""
        return sum(p.layout.nbytes * len(n) for p, n in zip(self.pages.pools, self._numbers, strict=True))

    def table(self, pool: int) -> Table:
        """The pages it holds in one pool, as they are now."""
        return Table(self._firsts[pool], tuple(self._numbers[pool]))

    def fork(self, length: int | None = None, *, share: bool = True) -> Cache:
        """A cache of the first `length` positions (all by default); shared pages, or with share=False copies of its own.

        Raises ValueError when the window before `length` was dropped.
        """
        length = self.length if length is None else length
        self._check_window(length)
        other = Cache(self.pages, self.keep)
        if not length:
            return other
        other.length = length
        for n, pool in enumerate(self.pages.pools):
            skip = 0 if self.keep else max(0, pool.first_needed(length) - self._firsts[n])
            kept = self._numbers[n][skip : -(-length // PAGE) - self._firsts[n]]
            other._firsts[n] = self._firsts[n] + skip
            other._numbers[n] = [pool.share(p) if share else pool.copy(p) for p in kept]
        return other

    def truncate(self, length: int) -> None:
        """Forgets positions from `length` on. Always possible back to where the latest step began.

        Raises ValueError for a length beyond its own, or when the window before `length` was dropped.
        """
        self._check_window(length)
        if not length:
            self.release()
        for n, pool in enumerate(self.pages.pools):
            held = self._numbers[n]
            while self._firsts[n] + len(held) > -(-length // PAGE):
                pool.release(held.pop())
        self.length = length

    def release(self) -> None:
        """Gives all pages back; the cache is empty afterwards."""
        for n, pool in enumerate(self.pages.pools):
            for number in self._numbers[n]:
                pool.release(number)
            self._numbers[n], self._firsts[n] = [], 0
        self.length = 0

    def trim(self) -> None:
        """Drops what lies wholly behind the windows; every step that needs pages begins with it."""
        for n, pool in enumerate(self.pages.pools):
            behind = 0 if self.keep else pool.first_needed(self.length) - self._firsts[n]
            for number in self._numbers[n][: max(0, behind)]:
                pool.release(number)
            if behind > 0:
                del self._numbers[n][:behind]
                self._firsts[n] += behind

    def missing(self, count: int) -> tuple[int, ...]:
        """Pages that `count` positions more take, per pool: new ones, and a copy where the last one is shared."""
        pages, out = -(-(self.length + count) // PAGE), []
        for n, (first, held) in enumerate(zip(self._firsts, self._numbers, strict=True)):
            lacking = max(0, pages - first - len(held))
            out.append(lacking + 1 if count and self._shared_tail(n) is not None else lacking)
        return tuple(out)

    def settled(self, count: int) -> bool:
        """Whether `count` positions more fit on pages it has begun and holds alone, as in most steps of one token each."""
        place, page = self.length % PAGE, self.length // PAGE
        if not place or place + count > PAGE:
            return False
        for pool, first, held in zip(self.pages.pools, self._firsts, self._numbers, strict=True):
            if pool.holders(held[page - first]) > 1:
                return False
        return True

    def _shared_tail(self, n: int) -> int | None:
        """Place in the table of a page that the next position goes to and that others hold too."""
        place = self.length // PAGE - self._firsts[n]
        held = self._numbers[n]
        return place if place < len(held) and self.pages.pools[n].holders(held[place]) > 1 else None

    def _grow(self, count: int) -> None:
        for n, (pool, lacking) in enumerate(zip(self.pages.pools, self.missing(count), strict=True)):
            if not lacking:
                continue
            place, held = self._shared_tail(n), self._numbers[n]
            if place is not None:
                copy = pool.copy(held[place])
                pool.release(held[place])
                held[place] = copy
                lacking -= 1
            held += [pool.allocate() for _ in range(lacking)]

    def _check_window(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"length {length} is not within the {self.length} positions of the cache")
        for pool, first in zip(self.pages.pools, self._firsts, strict=True):
            if length and first > pool.first_needed(length):
                raise ValueError(
                    f"the window before position {length} was dropped; keep=True would have kept it"
                )


class Pages:
    """All pages of one model, in one Pool per window, under one budget in bytes (None: no limit)."""

    def __init__(self, config: ModelConfig, kind: str = "bf16", budget: int | None = None) -> None:
        self.config, self.kind, self.budget = config, kind, budget
        by_window: dict[int, list[int]] = {}
        for n in range(config.num_hidden_layers):
            by_window.setdefault(config.window(n), []).append(n)
        row = config.num_key_value_heads, config.head_dim
        self.pools = tuple(
            Pool(layers, window, PageLayout(kind, len(layers), *row))
            for window, layers in sorted(by_window.items())
        )
        # layer -> (pool, layer within it)
        self.places = {
            layer: (n, i) for n, pool in enumerate(self.pools) for i, layer in enumerate(pool.layers)
        }
        self._abandoned: deque[list[list[int]]] = deque()

    @property
    def nbytes(self) -> int:
        """Bytes of the pages somebody holds."""
        self.collect()
        return sum(p.in_use * p.layout.nbytes for p in self.pools)

    def bytes_of(self, counts: Iterable[int]) -> int:
        """Bytes of so many pages, per pool."""
        return sum(n * p.layout.nbytes for n, p in zip(counts, self.pools, strict=True))

    def new_cache(self, length: int = 0, tables: Sequence[Table] = (), *, keep: bool = False) -> Cache:
        """An empty cache, or one of `length` positions on existing pages, one table per pool; each page gets a holder more.

        Raises ValueError when the tables do not cover what position `length` reads.
        """
        cache = Cache(self, keep)
        for n, (pool, table) in enumerate(zip(self.pools, tables, strict=bool(length))):
            need = range(pool.first_needed(length), -(-length // PAGE))
            if table.first > need.start or table.first + len(table.numbers) != need.stop:
                raise ValueError(
                    f"pool {n} needs pages {need.start} to {need.stop - 1} for {length} positions"
                )
            cache._numbers[n] = [pool.share(number) for number in table.numbers]
            cache._firsts[n] = table.first
        cache.length = length
        return cache

    def reserve(self, wants: Iterable[tuple[Cache, int]]) -> None:
        """Room for `count` positions more in each cache, all or none. Raises PagesFull before anything is allocated."""
        self.collect()
        wants = [(cache, count) for cache, count in wants if not cache.settled(count)]
        for cache, _ in wants:
            cache.trim()
        need = sum(self.bytes_of(cache.missing(count)) for cache, count in wants)
        if need and self.budget is not None and (held := self.nbytes) + need > self.budget:
            raise PagesFull(
                f"The key-value cache is full: {need / 2**20:.1f} MiB more are needed, {held / 2**20:.1f} of "
                f"{self.budget / 2**20:.1f} MiB are taken. Run fewer sequences at a time, shorten them, or raise the budget."
            )
        for cache, count in wants:
            cache._grow(count)

    def step(self, wants: Iterable[tuple[Cache, int]]) -> list[Paged]:
        """What the ops of one step need to find keys and values, per pool: `count` positions of each cache, reserved before."""
        wants = list(wants)
        rows = np.empty((len(wants), 5), np.int64)
        rows[:, 1] = [count for _, count in wants]
        rows[:, 0] = np.cumsum(rows[:, 1]) - rows[:, 1]
        rows[:, 2] = [cache.length for cache, _ in wants]
        out = []
        for n, pool in enumerate(self.pools):
            spans = rows.copy()
            spans[:, 3] = [cache._firsts[n] for cache, _ in wants]
            spans[:, 4] = [len(cache._numbers[n]) for cache, _ in wants]
            numbers = np.array([p for cache, _ in wants for p in cache._numbers[n]], np.int64)
            out.append(Paged(pool.memory, spans, numbers))
        return out

    def collect(self) -> None:
        """Takes back the pages of caches that nobody refers to any more; every step and `nbytes` begin with it."""
        while self._abandoned:
            for pool, numbers in zip(self.pools, self._abandoned.popleft(), strict=True):
                for number in numbers:
                    pool.release(number)

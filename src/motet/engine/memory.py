"""Who holds which pages of keys and values, within the budget. Knows sequences, pages and prefixes; no model, no threads.

A sequence begins on the longest prefix that is held already, files its pages as it fills them, so that others find them
while it still runs, and leaves them behind when it ends. When a step needs more than is free, what nobody runs on is
evicted, the least useful first.
"""

from __future__ import annotations

import os
from typing import Any

from motet.engine.prefix import Prefixes
from motet.engine.routes import Record
from motet.engine.sequence import Sequence
from motet.engine.spill import Spill
from motet.errors import UsageError
from motet.kernels import PAGE
from motet.kvcache import Pages

LEAST = 2 * PAGE  # tokens of one sequence that a budget must hold at least
GIB = 1 << 30


def default_budget() -> int:
    """Bytes for keys and values when nobody says: a quarter of the machine's memory. Untouched pages cost nothing."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


class Memory:
    """One engine's pages. All methods belong to its thread, except the numbers."""

    def __init__(
        self, pages: Pages, chunk: int, reuse: bool, spill: Spill | None = None, record: tuple[int, int] | None = None
    ) -> None:  # fmt: skip
        """chunk: prompt tokens a step at most. record: layers and experts a token, to note which experts were chosen."""
        self.pages, self.record = pages, record
        self.prefixes = Prefixes(pages, spill) if reuse else None
        self.capacity = self._capacity(chunk)
        least = min(LEAST, pages.config.max_position_embeddings)
        if self.capacity < least:
            raise UsageError(
                f"kv_memory of {(pages.budget or 0) / 2**20:.3g} MiB holds {self.capacity} tokens of one request; "
                f"give at least {self._bytes(least, chunk) / 2**20:.3g} MiB."
            )

    def _bytes(self, length: int, chunk: int) -> int:
        """The most one sequence of this length holds during a step; one page in each pool for the copy of a shared one."""
        chunk_pages, total = -(-chunk // PAGE) + 1, 0
        for pool in self.pages.pools:
            held = -(-length // PAGE)
            if pool.window:
                held = min(held, -(-pool.window // PAGE) + 1 + chunk_pages)
            total += (held + 1) * pool.layout.nbytes
        return total

    def _capacity(self, chunk: int) -> int:
        """Tokens of one sequence that fit into the budget when it runs alone."""
        low, high = 0, self.pages.config.max_position_embeddings
        if self.pages.budget is None:
            return high
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._bytes(middle, chunk) <= self.pages.budget
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def attach(self, sequence: Sequence) -> None:
        """Gives a sequence a cache with as much of its ids as is held, all but the last: that one's logits are wanted.

        One that has not begun to compute may look again, since others go on filing what they compute.
        """
        if sequence.cache is not None:
            sequence.cache.release()
        if self.prefixes is None:
            sequence.cache, sequence.path = self.pages.new_cache(), []
        else:
            sequence.cache, path = self.prefixes.find(sequence.ids[:-1])
            sequence.path = path[: sequence.cache.length // PAGE]
        sequence.done = sequence.cache.length
        if self.record is not None:
            sequence.routes = Record(*self.record)
            if sequence.done:
                for node in path:
                    sequence.routes.extend(node.routes)
                sequence.routes.truncate(sequence.done)
        sequence.fresh = True

    def start(self, sequence: Sequence) -> None:
        """Notes how much was found, when a sequence begins to compute the rest."""
        stats = sequence.stats
        if stats.queued_s is None:
            stats.queued_s, stats.cached_tokens = sequence.clock(), min(sequence.done, stats.n_prompt)
        stats.recomputed_tokens += max(0, sequence.lost - sequence.done)
        sequence.fresh, sequence.lost = False, 0

    def fit(self, sequence: Sequence, count: int, promised: int) -> int | None:
        """Makes room for `count` positions more beside `promised` bytes; the bytes they take, or None when all is in use."""
        cache, budget = sequence.cache, self.pages.budget
        if cache.settled(count):
            return 0
        cache.trim()
        while True:
            missing = cache.missing(count)
            need = self.pages.bytes_of(missing) if any(missing) else 0
            if not need or budget is None or self.pages.nbytes + promised + need <= budget:
                return need
            if self.prefixes is None or not self.prefixes.evict():
                return None

    def file(self, sequence: Sequence, end: bool = False) -> None:
        """Lets others find what a sequence has computed: whole blocks, and at an end of a prompt or a reply the rest too."""
        cache = sequence.cache
        if self.prefixes is None or (not end and cache.length // PAGE <= len(sequence.path)):
            return
        routes = None if sequence.routes is None else sequence.routes.view()
        self.prefixes.file(sequence.ids, cache, sequence.path, end=end, routes=routes)

    def release(self, sequence: Sequence, *, file: bool = True) -> None:
        """Takes everything from a sequence; with `file`, what it computed can be found again."""
        cache = sequence.cache
        if cache is None:
            return
        if cache.length > len(sequence.ids):  # drafts nobody judged
            cache.truncate(len(sequence.ids))
        if file:
            self.file(sequence, end=True)
        cache.release()
        if not sequence.fresh:
            sequence.lost = sequence.done
        sequence.done = 0
        sequence.cache, sequence.path = None, []

    def discard(self, sequence: Sequence) -> None:
        """Forgets what a sequence has filed, as far as nothing else stands on it."""
        if self.prefixes is not None:
            self.prefixes.discard(sequence.path)

    def close(self) -> None:
        """Gives up the prefixes; with a spill they go to disk first."""
        if self.prefixes is not None:
            self.prefixes.clear()

    def report(self) -> dict[str, Any]:
        """Bytes held, the budget, blocks that can be found again, and blocks that went to disk and came back."""
        spill = self.prefixes.spill if self.prefixes is not None else None
        return {
            "held_bytes": sum(p.in_use * p.layout.nbytes for p in self.pages.pools),
            "budget_bytes": self.pages.budget,
            "blocks": len(self.prefixes) if self.prefixes is not None else 0,
            "spilled": spill.stored if spill else 0,
            "reloaded": spill.loaded if spill else 0,
        }

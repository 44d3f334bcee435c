"""What the engine has computed before: pages of keys and values, found again by the ids that led to them.

A tree of blocks of 64 ids, the positions of one page; a node is one block after all the blocks above it, and holds one page
of every pool. A path from the root spells a prefix. The last block of a path may be shorter, and a match may end inside a
block, so that reuse is exact to the token: the page is shared and copied when its new owner writes (motet.kvcache).

Sliding layers need only the window before the place where a sequence goes on. Their pages are kept everywhere while there
is room, so that a sequence may branch off anywhere; under pressure they go first, except before ends of prompts and of
sequences, where the next turn of a conversation begins. Then whole blocks go, those longest unused first. A page that a
running sequence holds is never taken. Knows ids and pages; knows no requests and no model.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.kernels import PAGE
from motet.kvcache import Cache, Pages, Table

if TYPE_CHECKING:
    from motet.engine.spill import Spill

TRIED = 4  # children with the longest common beginning that are looked at when a match ends inside a block


@dataclass(eq=False, slots=True)
class Node:
    """One block: its ids, a page number per pool (None: dropped), which experts its ids went to if anyone counts."""

    ids: tuple[int, ...]
    parent: Node | None
    pages: list[int | None]
    routes: Any = None
    branch: bool = False  # sequences are likely to go on from here
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)
    _digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """A name for the whole path: a hash over all its ids, block by block."""
        if self._digest is None:
            above = self.parent.digest if self.parent else b""
            self._digest = digest(above, self.ids)
        return self._digest


def digest(above: bytes, ids: Sequence[int]) -> bytes:
    """The name of a block after the path named `above`."""
    return hashlib.blake2b(above + np.asarray(ids, "<u4").tobytes(), digest_size=20).digest()


@dataclass
class Match:
    """Positions found, the nodes that hold them (the last one perhaps in part)."""

    length: int
    nodes: list[Node]


class Prefixes:
    """The tree over one Pages. All methods belong to the thread that owns the pages."""

    def __init__(self, pages: Pages, spill: Spill | None = None) -> None:
        self.pages, self.spill = pages, spill
        self._windows = [pool.window for pool in pages.pools]
        self.root = Node((), None, [None] * len(self._windows))
        # Least recently used first; a parent is always used after its children, so that the first is a leaf.
        self._order: OrderedDict[Node, None] = OrderedDict()
        self._loose: OrderedDict[Node, None] = OrderedDict()  # those with sliding pages that may go first

    def __len__(self) -> int:
        return len(self._order)

    def find(self, ids: Sequence[int]) -> tuple[Cache, list[Node]]:
        """A cache of the longest prefix of ids that is held, perhaps empty, and the nodes of its blocks."""
        match = self._longest(ids)
        if not match.length:
            return self.pages.new_cache(), []
        last = -(-match.length // PAGE)
        if last * PAGE != match.length or match.nodes[last - 1].children:
            self._mark(match.nodes[:last])
        tables = []
        for n, pool in enumerate(self.pages.pools):
            first = pool.first_needed(match.length)
            numbers = [node.pages[n] for node in match.nodes[first:last]]
            tables.append(Table(first, tuple(p for p in numbers if p is not None)))
        self._use(match.nodes[:last])
        return self.pages.new_cache(match.length, tables), match.nodes[:last]

    def _longest(self, ids: Sequence[int]) -> Match:
        node, path, at = self.root, [], 0
        while at + PAGE <= len(ids):
            child = self._child(node, tuple(ids[at : at + PAGE]))
            if child is None:
                break
            node, at = child, at + PAGE
            path.append(child)
        alike = self._alike(node, tuple(ids[at : at + PAGE]))
        best = self._fit(path, at)
        for common, child in alike:
            if at + common <= best.length:
                break
            fitted = self._fit([*path, child], at + common)
            if fitted.length > best.length:
                best = fitted
        return best

    def _child(self, node: Node, block: tuple[int, ...]) -> Node | None:
        child = node.children.get(block)
        if child is None and self.spill is not None:
            child = self.spill.load(self, node, block)
        return child

    def _alike(self, node: Node, rest: tuple[int, ...]) -> list[tuple[int, Node]]:
        """Children that begin as `rest` does, the longest common beginning first."""
        if not rest:
            return []
        if self.spill is not None:
            self.spill.load_alike(self, node, rest)
        alike = [(common(c.ids, rest), c) for c in node.children.values() if c.ids[0] == rest[0]]
        return sorted(alike, key=lambda pair: -pair[0])[:TRIED]

    def _fit(self, path: list[Node], length: int) -> Match:
        """The longest match of at most `length` whose windows are all there."""
        while length:
            last = -(-length // PAGE)
            absent = [
                at
                for n, pool in enumerate(self.pages.pools)
                for at in range(pool.first_needed(length), last)
                if path[at].pages[n] is None
            ]
            if not absent:
                break
            length = max(absent) * PAGE
        return Match(length, path)

    def _mark(self, path: Sequence[Node]) -> None:
        """Keeps the windows before the end of this path."""
        window = max(self._windows)
        for node in path[-(-(-window // PAGE) + 1) :]:
            node.branch = True
            self._loose.pop(node, None)

    def _use(self, path: Sequence[Node]) -> None:
        for node in reversed(path):
            self._order.move_to_end(node)
            if node in self._loose:
                self._loose.move_to_end(node)

    def file(
        self, ids: Sequence[int], cache: Cache, path: list[Node], *, end: bool = False, routes: Any = None
    ) -> None:
        """Holds on to the pages of cache, whose blocks up to len(path) were filed before; path grows by the new ones.

        With `end`, the last block too, though it is not full, and the windows before it. routes: (positions, layers,
        experts a token), kept beside the pages.
        """
        length, tables = cache.length, [cache.table(n) for n in range(len(self._windows))]
        while path and path[-1] not in self._order:  # given up meanwhile: the sequence holds pages of its own
            path.pop()
        while (len(path) + 1) * PAGE <= length:
            path.append(self._put(path, ids, PAGE, tables, routes))
        count = length - len(path) * PAGE
        if end:
            tail = [*path, self._put(path, ids, count, tables, routes)] if count else path
            self._mark(tail)
            self._use(tail)
        else:
            self._use(path)

    def _put(
        self, path: Sequence[Node], ids: Sequence[int], count: int, tables: Sequence[Table], routes: Any
    ) -> Node:
        at = len(path)
        block = tuple(ids[at * PAGE : at * PAGE + count])
        parent = path[-1] if path else self.root
        node = parent.children.get(block)
        if node is None:
            longer = next((c for c in parent.children.values() if c.ids[:count] == block), None)
            if longer is not None:  # it holds these positions and more
                return longer
            node = Node(block, parent, [None] * len(tables))
        for n, table in enumerate(tables):
            place = at - table.first
            if node.pages[n] is None and 0 <= place < len(table.numbers):
                node.pages[n] = self.pages.pools[n].share(table.numbers[place])
        if routes is not None:
            node.routes = routes[at * PAGE : at * PAGE + count].copy()
        if node not in self._order:
            for shorter in [c for c in parent.children.values() if c.ids == block[: len(c.ids)]]:
                node.branch |= shorter.branch
                self._drop(shorter)
            parent.children[block] = node
            self._order[node] = None
        if not node.branch and any(self._windows):
            self._loose[node] = None
        return node

    def evict(self, keep: Node | None = None) -> bool:
        """Gives up the least useful pages that nobody else holds, of any block but `keep`; False when there are none."""
        for node in self._loose:
            if self._release_sliding(node):
                del self._loose[node]
                return True
        for node in self._order:
            if not node.children and node is not keep and not self._held(node):
                if self.spill is not None:
                    self.spill.store(self.pages, node)
                self._drop(node)
                return True
        return False

    def _release_sliding(self, node: Node) -> bool:
        freed = False
        for n, (pool, page) in enumerate(zip(self.pages.pools, node.pages, strict=True)):
            if pool.window and page is not None and pool.holders(page) == 1:
                pool.release(page)
                node.pages[n] = None
                freed = True
        return freed

    def _held(self, node: Node) -> bool:
        """Whether giving it up would free nothing now, because running sequences hold its pages."""
        return any(
            p is not None and pool.holders(p) > 1
            for pool, p in zip(self.pages.pools, node.pages, strict=True)
        )

    def _drop(self, node: Node) -> None:
        assert node.parent is not None and not node.children
        for pool, page in zip(self.pages.pools, node.pages, strict=True):
            if page is not None:
                pool.release(page)
        del node.parent.children[node.ids]
        self._order.pop(node, None)
        self._loose.pop(node, None)

    def discard(self, path: list[Node]) -> None:
        """Forgets a path from its end upwards, as far as nothing else stands on it: what it holds is not to be trusted."""
        while path and not path[-1].children and path[-1] in self._order:
            self._drop(path.pop())

    def clear(self) -> None:
        """Gives everything up; with a spill, what is not on disk yet goes there."""
        for node in list(self._order):
            if self.spill is not None:
                self.spill.store(self.pages, node)
            self._drop(node)

    def adopt(self, parent: Node, ids: tuple[int, ...], pages: list[int | None], branch: bool) -> Node:
        """A node on pages that the caller has filled; they are its own from now on."""
        node = Node(ids, parent, pages, branch=branch)
        parent.children[ids] = node
        self._order[node] = None
        above = node.parent
        while above is not None and above is not self.root:  # parents stay younger than their children
            self._order.move_to_end(above)
            above = above.parent
        if not branch and any(self._windows):
            self._loose[node] = None
        return node


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))

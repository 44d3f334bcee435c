"""Drills: copying, looking up, leaving out, replacing, comparing, with nothing else around them.

Every family's working stands on these, and a small model that mixes up names or digits gets the rest wrong too. Short
texts of random items; what is random is shown, what follows from it is taught. Not asked in any evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from motet.tasks.words import CITIES, COLOURS, FRUIT, PEOPLE, PETS, PLAIN, THINGS

Pieces = tuple[tuple[str, bool], ...]
"""(text, whether it is taught), in order."""

_WORDS = (PEOPLE, COLOURS, PETS, THINGS, FRUIT, CITIES, PLAIN)


def drill(rng: random.Random) -> Pieces:
    """Two to four drills of one kind."""
    kind = rng.choice(_KINDS)
    out: list[tuple[str, bool]] = []
    for _ in range(rng.randrange(2, 5)):
        out += [*kind(rng), ("\n", True)]
    return tuple(out)


def _items(rng: random.Random, low: int = 3, high: int = 9) -> list[str]:
    """Different items of one sort: numbers of one width, letters or words."""
    count = rng.randrange(low, high)
    sort = rng.randrange(4)
    if sort == 0:
        width = rng.choice((10, 100, 100, 1000, 1000))
        return [str(n) for n in rng.sample(range(width // 10, width), min(count, 8))]
    if sort == 1:
        return rng.sample("abcdefghijklmnopqrstuvwxyz", count)
    pool = rng.choice(_WORDS)
    return rng.sample(pool, min(count, len(pool)))


def _row(rng: random.Random, items: Sequence[str]) -> str:
    return rng.choice((", ", " ", "; ")).join(items)


def _copy(rng: random.Random) -> Pieces:
    items = _items(rng)
    text = _row(rng, items)
    return (f"{text}:", False), (f" {text}.", True)


def _reverse(rng: random.Random) -> Pieces:
    items = _items(rng, 3, 7)
    return (f"reverse {', '.join(items)}:", False), (f" {', '.join(items[::-1])}.", True)


def _without(rng: random.Random) -> Pieces:
    """An item after the other is taken, the rest copied each time."""
    items = _items(rng, 4, 7)
    out: list[tuple[str, bool]] = [(f"of {', '.join(items)}", False)]
    while len(items) > 1:
        gone = rng.choice(items)
        items = [i for i in items if i != gone]
        out += [(f" take {gone};", False), (f" of {', '.join(items)}", True)]
    return (*out, (".", True))


def _lookup(rng: random.Random) -> Pieces:
    keys = _items(rng, 3, 7)
    values = [rng.choice((str(rng.randrange(1000)), rng.choice(rng.choice(_WORDS)))) for _ in keys]
    sep = rng.choice((" ", "=", ": "))
    out: list[tuple[str, bool]] = [
        (", ".join(f"{k}{sep}{v}" for k, v in zip(keys, values, strict=True)), False)
    ]
    for k in rng.sample(keys, min(3, len(keys))):
        out += [(f"; {k}", False), (f"{sep}{values[keys.index(k)]}", True)]
    return (*out, (".", True))


def _assign(rng: random.Random) -> Pieces:
    """Variables that change; each is asked after every change."""
    names = rng.sample("abcdmnxyz", rng.randrange(2, 4)) if rng.random() < 0.5 else rng.sample(PEOPLE, 3)
    values = {n: str(rng.randrange(100)) for n in names}
    out: list[tuple[str, bool]] = [("; ".join(f"{n}={v}" for n, v in values.items()), False)]
    for _ in range(rng.randrange(2, 5)):
        if rng.random() < 0.4:
            a, b = rng.sample(names, 2)
            values[a], values[b] = values[b], values[a]
            out.append((f"; {a} and {b} trade", False))
        else:
            n = rng.choice(names)
            values[n] = str(rng.randrange(100))
            out.append((f"; {n}={values[n]}", False))
        out += [(":", False), (" " + ", ".join(f"{n} {v}" for n, v in values.items()), True)]
    return (*out, (".", True))


def _replace(rng: random.Random) -> Pieces:
    items = _items(rng, 4, 8)
    old, new = rng.choice(items), rng.choice(_items(rng))
    after = [new if i == old else i for i in items]
    return (f"{' '.join(items)}; replace {old} by {new}:", False), (f" {' '.join(after)}.", True)


def _which(rng: random.Random) -> Pieces:
    """Whether each of some items is in a list."""
    items = _items(rng, 4, 8)
    out: list[tuple[str, bool]] = [(", ".join(items), False)]
    for _ in range(3):
        i = rng.choice(items) if rng.random() < 0.5 else rng.choice(_items(rng))
        out += [(f"; {i}", False), (" yes" if i in items else " no", True)]
    return (*out, (".", True))


def _larger(rng: random.Random) -> Pieces:
    out: list[tuple[str, bool]] = []
    for _ in range(4):
        top = rng.choice((10, 100, 100, 1000))
        a, b = rng.randrange(top), rng.randrange(top)
        out += [(f"{a} or {b}", False), (f": {max(a, b)};", True), (" ", False)]
    return tuple(out)


def _position(rng: random.Random) -> Pieces:
    items = _items(rng, 4, 8)
    out: list[tuple[str, bool]] = [(" ".join(items), False)]
    for _ in range(3):
        n = rng.randrange(len(items))
        out += [(f"; number {n + 1}", False), (f" {items[n]}", True)]
        if n + 1 < len(items):
            out += [(", next", False), (f" {items[n + 1]}", True)]
    return (*out, (".", True))


_KINDS: tuple[Callable[[random.Random], Pieces], ...] = (
    _copy, _reverse, _without, _without, _lookup, _lookup, _assign, _assign, _replace, _which, _larger, _position,
)  # fmt: skip

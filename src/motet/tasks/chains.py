"""Chains of small operations modulo a small prime: serial work that cannot be guessed.

Efforts: low states the result, medium the state after every operation, high also operands and unreduced values.
"""

from __future__ import annotations

import random

from motet.tasks.base import Effort, Example, Split, direct, grade_integer, split_of

PRIMES = (7, 11, 13, 17, 19, 23)
LENGTHS = (2, 3, 4, 5, 6, 7, 8)
_WORDS = {
    "*": ("multiply by {n}", "times {n}"),
    "+": ("add {n}", "plus {n}"),
    "-": ("subtract {n}", "minus {n}"),
}
_FRAMES = (
    "Start with {x}. {Ops}. Work modulo {p}. What is the result?",
    "Start with {x}. {Ops}. Work modulo {p}. What is the result?",
    "Start with {x}. {Ops}, all mod {p}.",
    "Working modulo {p}, start with {x}, then {ops}. What do you get?",
    "Begin with {x}, {ops}. Give the result mod {p}.",
    "Take {x}, {ops}. What is the result mod {p}?",
    "Compute modulo {p}: start at {x}; {ops}.",
)


class Chains:
    """x <- x op n mod p for two to eight operations, op one of * + -, n in 2..9, start below p."""

    name = "chains"

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example whose instance belongs to `split`."""
        while True:
            p, count = rng.choice(PRIMES), rng.choice(LENGTHS)
            x = rng.randrange(1, p)
            ops = [(rng.choice("*+-"), rng.randrange(2, 10)) for _ in range(count)]
            key = f"chains {p} {x} " + "".join(f"{o}{n}" for o, n in ops)
            if split_of(key) == split:
                break
        detailed, terse, value = [], [], x
        for o, n in ops:
            raw = {"*": value * n, "+": value + n, "-": value - n}[o]
            detailed.append(f"{value}{o}{n}={raw}%{p}={raw % p}")
            value = raw % p
            terse.append(f"{o}{n}={value}")
        trace = (
            direct(value) if effort == "low" else ", ".join(terse if effort == "medium" else detailed) + "."
        )
        return Example(
            self.name, effort, key, _prompt(rng, x, ops, p), ((trace, True),), str(value), str(value)
        )

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _prompt(rng: random.Random, x: int, ops: list[tuple[str, int]], p: int) -> str:
    form = 0 if rng.random() < 0.75 else 1
    text = ", ".join(_WORDS[o][form].format(n=n) for o, n in ops)
    return rng.choice(_FRAMES).format(x=x, ops=text, Ops=text[0].upper() + text[1:], p=p)

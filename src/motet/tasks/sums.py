"""Sums and differences of two to five numbers of one to three digits.

Efforts: low states the result, medium writes running totals, high adds column by column.
"""

from __future__ import annotations

import random

from motet.tasks.base import Effort, Example, Split, direct, grade_integer, split_of
from motet.tasks.columns import signed_columns

_ASK = (
    "What is {e}?", "What is {e}?", "what is {e}", "Calculate {e}.", "Compute {e}.", "How much is {e}?", "{e}", "{e} =",
    "Please work out {e}.", "Find the value of {e}.", "What's {e}?", "Evaluate: {e}", "Tell me {e}.", "Solve {e}",
)  # fmt: skip
_ADD = (
    "Add {a} and {b}.", "What is the sum of {a} and {b}?", "What is {a} plus {b}?", "Add {b} to {a}.",
    "What do you get when you add {a} and {b}?",
)  # fmt: skip
_SUBTRACT = (
    "Subtract {b} from {a}.", "What is {a} minus {b}?", "What is the difference between {a} and {b}?", "Take {b} from {a}.",
)  # fmt: skip


class Sums:
    """Chains of + and -. Running totals stay >= 0, except that a difference of two numbers may be negative."""

    name = "sums"

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example whose instance belongs to `split`."""
        while True:
            first, rest = _draw(rng)
            key = _key(first, rest)
            if _split(first, rest, key) == split:
                break
        total = first + sum(n if s == "+" else -n for s, n in rest)
        return Example(self.name, effort, key, _prompt(rng, first, rest), ((_trace(first, rest, effort), True),),
                       str(total), str(total))  # fmt: skip

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _draw(rng: random.Random) -> tuple[int, list[tuple[str, int]]]:
    """A first number and signed further ones."""
    count = rng.choices((2, 3, 4, 5), (40, 25, 20, 15))[0]

    def number() -> int:
        return rng.randrange(*rng.choice(((1, 10), (10, 100), (10, 100), (100, 1000))))

    first, rest = number(), [("-" if rng.random() < 0.35 else "+", number()) for _ in range(count - 1)]
    total, fixed = first, []
    for sign, n in rest:
        if sign == "-" and total < n and count > 2:
            sign = "+"
        total += n if sign == "+" else -n
        fixed.append((sign, n))
    return first, fixed


def _key(first: int, rest: list[tuple[str, int]]) -> str:
    """The same for every order of the terms, so that 17+25 cannot be trained and 25+17 tested."""
    terms = sorted([first] + [n if s == "+" else -n for s, n in rest])
    return "sums " + " ".join(map(str, terms))


def _split(first: int, rest: list[tuple[str, int]], key: str) -> Split:
    """Two single digits are facts, not instances: always trained, never tested."""
    return "train" if len(rest) == 1 and first < 10 and rest[0][1] < 10 else split_of(key)


def _prompt(rng: random.Random, first: int, rest: list[tuple[str, int]]) -> str:
    if len(rest) == 1 and rng.random() < 0.4:
        sign, n = rest[0]
        positive = first >= n
        if sign == "+":
            return rng.choice(_ADD).format(a=first, b=n)
        return rng.choice(_SUBTRACT if positive else _SUBTRACT[:2]).format(a=first, b=n)
    space = " " if rng.random() < 0.8 else ""
    return rng.choice(_ASK).format(e=str(first) + "".join(f"{space}{s}{space}{n}" for s, n in rest))


def _trace(first: int, rest: list[tuple[str, int]], effort: Effort) -> str:
    total, lines = first, []
    for sign, n in rest:
        after = total + n if sign == "+" else total - n
        lines.append(signed_columns(total, sign, n) if effort == "high" else f"{total}{sign}{n}={after}")
        total = after
    return direct(total) if effort == "low" else "; ".join(lines) + "."

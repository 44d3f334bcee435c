"""Products of a number of up to three digits and one of up to two.

Efforts: low states the result, medium writes partial products, high works every digit and carry.
"""

from __future__ import annotations

import random

from motet.tasks.base import Effort, Example, Split, direct, grade_integer, split_of
from motet.tasks.columns import add_columns, multiply_columns

_ASK = (
    "What is {e}?", "What is {e}?", "what is {e}", "Calculate {e}.", "Compute {e}.", "How much is {e}?", "{e}", "{e} =",
    "Please work out {e}.", "Find the value of {e}.", "What's {e}?", "Evaluate: {e}", "Tell me {e}.", "Solve {e}",
    "Multiply {a} by {b}.", "What is {a} times {b}?", "What is the product of {a} and {b}?", "How much is {a} times {b}?",
)  # fmt: skip
_SIGNS = (" * ", " * ", " * ", "*", " x ", " × ")
_SHAPES = (((2, 10), (2, 10)), ((10, 100), (2, 10)), ((100, 1000), (2, 10)), ((10, 100), (10, 100)),
           ((100, 1000), (10, 100)))  # fmt: skip
_WEIGHTS = (6, 16, 16, 34, 28)


class Products:
    """a * b in either order; products of two single digits are facts and always trained."""

    name = "products"

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example whose instance belongs to `split`."""
        while True:
            wide, narrow = rng.choices(_SHAPES, _WEIGHTS)[0]
            a, b = rng.randrange(*wide), rng.randrange(*narrow)
            key = f"products {min(a, b)} {max(a, b)}"
            if (split_of(key) if max(a, b) > 9 else "train") == split:
                break
        left, right = (a, b) if rng.random() < 0.7 else (b, a)
        prompt = rng.choice(_ASK).format(e=f"{left}{rng.choice(_SIGNS)}{right}", a=left, b=right)
        trace = _trace(max(a, b), min(a, b), effort)
        return Example(self.name, effort, key, prompt, ((trace, True),), str(a * b), str(a * b))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _trace(a: int, b: int, effort: Effort) -> str:
    """The larger number is always worked by the digits of the smaller, ones first."""
    if effort == "low":
        return direct(a * b)
    ones, tens = b % 10, b // 10 * 10
    if effort == "medium":
        if not tens:
            return f"{a}*{b}={a * b}."
        return f"{a}*{ones}={a * ones}; {a}*{tens}={a * tens}; {a * ones}+{a * tens}={a * b}."
    if not tens:
        return multiply_columns(a, b) + "."
    low, high = a * ones, a * tens
    parts = (multiply_columns(a, ones), f"{multiply_columns(a, tens // 10)}, so {high}",
             f"{low}+{high}: {add_columns(low, high)}")  # fmt: skip
    return "; ".join(parts) + "."

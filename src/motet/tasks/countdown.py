"""Countdown with three numbers: reach a target with + - *, each number used exactly once.

Efforts share one mechanism and differ in the number of tries: low 1, medium 4, high 12, ending in an honest failure.
Missed tries are random and not taught; their arithmetic is.
"""

from __future__ import annotations

import ast
import itertools
import operator
import random
from dataclasses import dataclass

from motet.tasks.base import Effort, Example, Split, split_of

TRIES: dict[Effort, int] = {"low": 1, "medium": 4, "high": 12}
FAILURE = "I found no solution."
_HIT = {1: 0.75, 4: 0.85, 12: 0.9}  # share of teacher traces that end in success
_OPS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_ASK = (
    "Use {n} to make {t}.", "Use {n} to make {t}.", "Make {t} from {n}.", "Countdown: numbers {n}, target {t}.",
    "Using {n}, each exactly once, with + - *, reach {t}.", "How can you get {t} from the numbers {n}?",
    "Combine {n} to get {t}.", "Reach {t} with {n}.",
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One way to combine three numbers: `first` gives a value, `second` uses it."""

    first: str
    middle: int
    second: str
    value: int
    expression: str


class Countdown:
    """Three different numbers from 1 to 20 and a target from 10 to 99 that some expression reaches."""

    name = "countdown"

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example whose instance belongs to `split`."""
        while True:
            numbers = rng.sample(range(1, 21), 3)
            ways = attempts(numbers)
            targets = sorted({w.value for w in ways if 10 <= w.value <= 99})
            if not targets:
                continue
            target = rng.choice(targets)
            key = f"countdown {' '.join(map(str, sorted(numbers)))} {target}"
            if split_of(key) == split:
                break
        given = ", ".join(map(str, numbers[:2])) + f" and {numbers[2]}"
        if rng.random() < 0.3:
            given = ", ".join(map(str, numbers))
        prompt = rng.choice(_ASK).format(n=given, t=target)
        analysis, final = _trace(rng, ways, target, TRIES[effort])
        return Example(self.name, effort, key, prompt, analysis, final, key.removeprefix("countdown "))

    def grade(self, example: Example, final: str) -> bool:
        """Whether `final` holds an expression over exactly the given numbers that equals the target. Exact, no eval."""
        *numbers, target = map(int, example.answer.split())
        text = final.split("=")[0].strip().rstrip(".")
        try:
            value, used = evaluate(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return value == target and sorted(used) == numbers


def attempts(numbers: list[int]) -> list[Attempt]:
    """Every combination of three numbers in two steps with values 0..99 at the first step and 0..199 at the end."""
    found = []
    for a, b, c in itertools.permutations(numbers):
        for o, p in itertools.product("+-*", repeat=2):
            middle = _OPS[o](a, b)
            if (o != "-" and a < b) or not 0 < middle <= 99:
                continue
            inner = f"{a} {o} {b}" if o == "*" or (p in "+-") else f"({a} {o} {b})"
            pairs = [(f"{middle}{p}{c}", _OPS[p](middle, c), f"{inner} {p} {c}")]
            if p == "-":
                wrapped = inner if o == "*" else f"({inner})"
                pairs.append((f"{c}-{middle}", c - middle, f"{c} - {wrapped}"))
            found += [Attempt(f"{a}{o}{b}", middle, s, v, e) for s, v, e in pairs if 0 <= v <= 199]
    return found


def _trace(
    rng: random.Random, ways: list[Attempt], target: int, budget: int
) -> tuple[tuple[tuple[str, bool], ...], str]:
    hits = [w for w in ways if w.value == target]
    misses = [w for w in ways if w.value != target]
    hit = rng.choice(hits) if rng.random() < _HIT[budget] else None
    before = rng.randrange(budget) if hit else budget
    pieces: list[tuple[str, bool]] = []
    tries = rng.sample(misses, min(before, len(misses))) + ([hit] if hit else [])
    for i, way in enumerate(tries, 1):
        good = way is hit
        pieces += [(f"{i}) ", True), (way.first, good), (f"={way.middle}, ", True), (way.second, good)]
        pieces.append((f"={way.value}" + (" yes." if good else " no. "), True))
    if hit is None:
        pieces.append(("Stop.", True))
    return tuple(pieces), f"{hit.expression} = {target}" if hit else FAILURE


def evaluate(node: ast.expr) -> tuple[int, list[int]]:
    """Value and numbers used. Raises ValueError on anything but integers, + - * and parentheses."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value, [node.value]
    if isinstance(node, ast.BinOp):
        left, used_left = evaluate(node.left)
        right, used_right = evaluate(node.right)
        for kind, apply in ((ast.Add, operator.add), (ast.Sub, operator.sub), (ast.Mult, operator.mul)):
            if isinstance(node.op, kind):
                return apply(left, right), used_left + used_right
    raise ValueError("not a sum, difference or product of integers")

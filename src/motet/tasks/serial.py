"""Work that must be done one step after another: chains modulo a prime; and, for the python tool, small programs and truth values.

Low states the result, medium one value a step, high the whole step.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from motet.tasks.base import Effort, Example, direct, grade_integer
from motet.tasks.family import Family, Work

Chain = tuple[int, int, tuple[tuple[str, int], ...]]


class Modular(Family[Chain]):
    """x <- x op n mod p, op one of + - *, n from 2 to 9. Levels are lengths; beyond: eleven operations."""

    name = "modular"
    levels, beyond = (2, 3, 4, 5, 6, 7, 8), 11
    PRIMES = (7, 11, 13, 17)
    asks = (
        "Start with {x}. {Ops}. Work modulo {p}. What is the result?", "Start with {x}. {Ops}, all mod {p}.",
        "Working modulo {p}, start with {x}, then {ops}. What do you get?", "Begin with {x}, {ops}. Give the result mod {p}.",
        "Take {x}, {ops}. What is the result mod {p}?", "Compute modulo {p}: start at {x}; {ops}.", "Mod {p}: start with {x}, {ops}. Result?",
        "Modulo {p}, what is left if you take {x} and {ops}?", "From {x} on: {ops}. Answer modulo {p}.", "{x} first. {Ops}. Now the number mod {p}?", "Everything is mod {p}. Start at {x}, then {ops}.", "Find the result modulo {p}: {x}, then {ops}.")  # fmt: skip
    unseen = (
        "On a clock with {p} hours, begin at {x}: {ops}. Where are you?",
        "Let x be {x}. Change it like this: {ops}. Always reduce by {p}. Which x remains?",
    )
    _WORDS: ClassVar = {
        "*": ("multiply by {n}", "times {n}"),
        "+": ("add {n}", "plus {n}"),
        "-": ("subtract {n}", "minus {n}"),
    }

    def draw(self, rng: random.Random, level: int) -> Chain:
        """Prime, start and operations."""
        p = rng.choice(self.PRIMES)
        ops = tuple((rng.choice("*+-"), rng.randrange(2, 10)) for _ in range(level))
        return p, rng.randrange(1, p), ops

    def key(self, x: Chain) -> str:
        """All of it."""
        return f"{x[0]} {x[1]} " + "".join(f"{o}{n}" for o, n in x[2])

    def fields(self, rng: random.Random, x: Chain) -> dict[str, object]:
        """Operations as phrases of one form."""
        form = 0 if rng.random() < 0.75 else 1
        ops = ", ".join(self._WORDS[o][form].format(n=n) for o, n in x[2])
        return {"p": x[0], "x": x[1], "ops": ops, "Ops": ops[0].upper() + ops[1:]}

    def work(self, rng: random.Random, x: Chain, effort: Effort) -> Work:
        """Nothing; each value, and what it is reduced to; also the multiple that is taken away or added."""
        p, value, ops = x
        short, long = [], []
        for o, n in ops:
            raw = {"*": value * n, "+": value + n, "-": value - n}[o]
            short.append(f"{value}{o}{n}={raw}" + ("" if 0 <= raw < p else f" {raw % p}"))
            long.append(f"{value}{o}{n}={raw}" + _reduced(raw, p))
            value = raw % p
        trace = {"low": direct(value), "medium": ", ".join(short) + ".", "high": "; ".join(long) + "."}
        return Work(trace[effort], str(value))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _reduced(raw: int, p: int) -> str:
    """`, 17*4=68, 72-68=4`: how raw becomes a number from 0 to p - 1; nothing where it is one."""
    times = abs(raw // p)
    if times == 0:
        return ""
    multiple = f", {p}*{times}={p * times}" if times > 1 else ""
    return f"{multiple}, {raw}{'-' if raw > 0 else '+'}{p * times}={raw % p}"


Line = tuple[str, str, str, str]  # target = left op right


class Programs(Family[tuple[Line, ...]]):
    """Assignments in two or three variables, printed at the end. Levels are lines; beyond: eight."""

    name = "programs"
    levels, beyond = (2, 3, 4, 5), 8
    asks = (
        "What does this program print?\n{code}", "What is printed?\n{code}", "Run this in your head:\n{code}",
        "{code}\nWhat is the output?", "Give the output of this program.\n{code}", "Which number does this code print?\n{code}")  # fmt: skip
    unseen = (
        "Here are some lines of code. Which number do they print?\n{code}",
        "{code}\nSay what appears on the screen.",
    )

    def draw(self, rng: random.Random, level: int) -> tuple[Line, ...]:
        """Values stay within 0 and 99; the printed variable was assigned last."""
        names = rng.choice((("x", "y"), ("a", "b"), ("x", "y", "z"), ("a", "b", "c"), ("n", "m")))
        while True:
            lines: list[Line] = [(v, str(rng.randrange(1, 20)), "", "") for v in names]
            for _ in range(level):
                right = rng.choice((*names, str(rng.randrange(2, 10))))
                op = rng.choice("+-*")
                lines.append((rng.choice(names), rng.choice(names), op, right))
            if all(0 <= v <= 99 for _, v in _run(tuple(lines))):
                return tuple(lines)

    def key(self, x: tuple[Line, ...]) -> str:
        """The code."""
        return ";".join("".join(line) for line in x)

    def fields(self, rng: random.Random, x: tuple[Line, ...]) -> dict[str, object]:
        """The code, a line a statement."""
        code = [f"{t} = {left} {op} {right}" if op else f"{t} = {left}" for t, left, op, right in x]
        return {"code": "\n".join([*code, f"print({x[-1][0]})"])}

    def work(self, rng: random.Random, x: tuple[Line, ...], effort: Effort) -> Work:
        """Nothing, each new value, or each line with its values put in."""
        values: dict[str, int] = {}
        short, long = [], []
        for (target, left, op, right), (_, value) in zip(x, _run(x), strict=True):
            if op:
                a, b = (values[v] if v in values else int(v) for v in (left, right))
                long.append(f"{target}={left}{op}{right}: {a}{op}{b}={value}")
                short.append(f"{target}={value}")
            else:
                long.append(f"{target}={value}")
            values[target] = value
        value = values[x[-1][0]]
        trace = {"low": direct(value), "medium": ", ".join(short) + ".", "high": "; ".join(long) + "."}
        return Work(trace[effort], str(value))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _run(lines: tuple[Line, ...]) -> list[tuple[str, int]]:
    """The variable and its new value, line by line."""
    values: dict[str, int] = {}
    out = []
    for target, left, op, right in lines:
        a = values[left] if left in values else int(left)
        if op:
            b = values[right] if right in values else int(right)
            a = a + b if op == "+" else a - b if op == "-" else a * b
        values[target] = a
        out.append((target, a))
    return out


Formula = bool | tuple[Any, ...]  # ("and", f, g), ("or", f, g), ("not", f), ("<", 3, 5) or (">", 3, 5)


class Booleans(Family[tuple[Formula, ...]]):
    """How many of some statements with and, or, not are true? Levels are operators a statement; beyond: five."""

    name = "booleans"
    levels, beyond = (1, 2, 3), 5
    asks = (
        "How many of these are true? {e}", "Count the true statements: {e}", "{e}\nHow many of these hold?",
        "How many of the following are true? {e}", "Of these statements, how many are true? {e}", "{e}: how many are true?")  # fmt: skip
    unseen = ("Some of these hold and some do not; how many do? {e}", "The number of true ones among {e}?")

    def draw(self, rng: random.Random, level: int) -> tuple[Formula, ...]:
        """Three statements over comparisons of small numbers."""
        return tuple(_formula(rng, level) for _ in range(3))

    def key(self, x: tuple[Formula, ...]) -> str:
        """The statements in alphabetical order."""
        return "; ".join(sorted(_said(f) for f in x))

    def fields(self, rng: random.Random, x: tuple[Formula, ...]) -> dict[str, object]:
        """The statements, numbered."""
        return {"e": "; ".join(f"({i}) {_said(f)}" for i, f in enumerate(x, 1))}

    def work(self, rng: random.Random, x: tuple[Formula, ...], effort: Effort) -> Work:
        """Nothing, the value of each statement, or the values of its parts as well."""
        count = sum(_true(f) for f in x)
        if effort == "low":
            return Work(direct(count), str(count))
        if effort == "medium":
            marks = ", ".join(f"({i}) {_mark(_true(f))}" for i, f in enumerate(x, 1))
            return Work(f"{marks}: {count}.", str(count))
        lines, sofar = [], 0
        for i, f in enumerate(x, 1):
            sofar += _true(f)
            lines.append(f"({i}) {' = '.join(_worked(f))}, {sofar}")
        return Work("; ".join(lines) + ".", str(count))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def statements(x: tuple[Formula, ...]) -> list[str]:
    """Each statement as it is asked."""
    return [_said(f) for f in x]


def _mark(value: bool) -> str:
    return "true" if value else "false"


def _formula(rng: random.Random, operators: int) -> Formula:
    if operators == 0:
        a, b = rng.randrange(1, 30), rng.randrange(1, 30)
        return rng.choice("<>"), a, b if b != a else b + 1
    kind = rng.choice(("and", "or", "and", "or", "not"))
    if kind == "not":
        return "not", _formula(rng, operators - 1)
    left = rng.randrange(operators)
    return kind, _formula(rng, left), _formula(rng, operators - 1 - left)


def _true(f: Formula) -> bool:
    if isinstance(f, bool):
        return f
    if f[0] == "not":
        return not _true(f[1])
    if f[0] in "<>":
        return bool((f[1] < f[2]) is (f[0] == "<"))
    a, b = _true(f[1]), _true(f[2])
    return (a and b) if f[0] == "and" else (a or b)


def _said(f: Formula, inner: bool = False) -> str:
    """As text; whatever stands inside another operator has parentheses."""
    if isinstance(f, bool):
        return _mark(f)
    if f[0] in "<>":
        return f"{f[1]} {f[0]} {f[2]}"
    text = f"not {_said(f[1], True)}" if f[0] == "not" else f"{_said(f[1], True)} {f[0]} {_said(f[2], True)}"
    return f"({text})" if inner else text


def _worked(f: Formula) -> list[str]:
    """The statement with its comparisons replaced by their values, then reduced from the inside out."""
    here: Formula = f
    lines: list[str] = []
    for step in (_compare, *[_once] * 9):
        if isinstance(here, bool):
            break
        here = step(here)
        lines.append(_said(here))
    return lines


def _compare(f: Formula) -> Formula:
    if isinstance(f, bool) or f[0] in "<>":
        return _true(f)
    return (f[0], *(_compare(g) for g in f[1:]))


def _once(f: Formula) -> Formula:
    """Every operator whose arguments are known, replaced by its value."""
    if isinstance(f, bool):
        return f
    if all(isinstance(g, bool) for g in f[1:]):
        return _true(f)
    return (f[0], *(_once(g) for g in f[1:]))

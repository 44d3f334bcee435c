"""Whole-number arithmetic in writing: sums and products; and, asked with the python tool alone, division with remainder,
common divisors, nested expressions.

Low states the result, medium writes intermediate results, high works digit by digit and checks where a check is cheap.
"""

from __future__ import annotations

import math
import random
import re

from motet.tasks.answers import integers
from motet.tasks.base import Effort, Example, direct, grade_integer
from motet.tasks.columns import add_columns, long_division, multiply_columns, signed_columns, subtract_columns
from motet.tasks.family import Family, Work

_ASK = (
    "What is {e}?", "Calculate {e}.", "Compute {e}.", "How much is {e}?", "{e}", "{e} =", "Please work out {e}.",
    "Find the value of {e}.", "What's {e}?", "Evaluate: {e}", "Tell me {e}.", "Solve {e}", "what is {e}",
        "Work this out: {e}", "I want to know {e}.", "Which number is {e}?", "How many are {e}?", "{e} equals?", "Can you compute {e}?", "My homework says {e}. What comes out?", "Result of {e}?"
)  # fmt: skip
_UNSEEN = (
    "I need the result of {e}.", "Could you do {e} for me?", "{e} is how much?", "Give me the answer to {e}, please.",
)  # fmt: skip


class _Integer:
    """Families whose answer is one integer."""

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


Terms = tuple[int, tuple[tuple[str, int], ...]]


class Addition(_Integer, Family[Terms]):
    """Sums and differences of two to four numbers; results are never negative. Beyond: five numbers."""

    name = "addition"
    weights = (1, 2, 2, 2)
    asks, unseen = _ASK, _UNSEEN
    _ADD = (
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "What is {a} plus {b}?",
        "Add {b} to {a}.",
        "Put {a} and {b} together.",
        "What do {a} and {b} make?",
        "Total of {a} and {b}?",
        "{a} and then {b} more: how many?",
    )
    _SUBTRACT = ("Subtract {b} from {a}.", "What is {a} minus {b}?", "Take {b} from {a}.",
                 "What is the difference between {a} and {b}?",
        "How much is left of {a} without {b}?", "Remove {b} from {a}.", "By how much is {a} larger than {b}?", "{a}, less {b}?")  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Terms:
        """Level 1: two numbers of up to two digits, often of one; 2: two of up to three; 3 and 4: three and four of up to three."""
        top, count = (100, 1000, 1000, 1000, 1000)[level - 1], (2, 2, 3, 4, 5)[level - 1]
        top = 10 if level == 1 and rng.random() < 0.3 else top
        total = first = rng.randrange(1, top)
        rest = []
        for _ in range(count - 1):
            n = rng.randrange(1, top if rng.random() < 0.7 else min(top, 100))
            sign = "-" if rng.random() < 0.4 and n <= total else "+"
            total += n if sign == "+" else -n
            rest.append((sign, n))
        return first, tuple(rest)

    def key(self, x: Terms) -> str:
        """The signed terms in order of size: no order of terms makes a new instance."""
        return " ".join(map(str, sorted([x[0]] + [n if s == "+" else -n for s, n in x[1]])))

    def ask(self, rng: random.Random, x: Terms, unseen: bool) -> str:
        """As an expression, or in words."""
        first, rest = x
        if len(rest) == 1 and not unseen and rng.random() < 0.4:
            sign, n = rest[0]
            return rng.choice(self._ADD if sign == "+" else self._SUBTRACT).format(a=first, b=n)
        space = " " if rng.random() < 0.8 else ""
        e = str(first) + "".join(f"{space}{s}{space}{n}" for s, n in rest)
        return rng.choice(self.unseen if unseen else self.asks).format(e=e)

    def work(self, rng: random.Random, x: Terms, effort: Effort) -> Work:
        """Nothing; running totals by columns; the same, each said before it is worked."""
        total, lines = x[0], []
        for sign, n in x[1]:
            after = total + n if sign == "+" else total - n
            if effort == "high":
                lines.append(signed_columns(total, sign, n))
            else:
                lines.append((add_columns if sign == "+" else subtract_columns)(total, n))
            total = after
        return Work(direct(total) if effort == "low" else "; ".join(lines) + ".", str(total))


class Multiplication(_Integer, Family[tuple[int, int]]):
    """a * b with a of one to three digits and b of one to two. Beyond: four digits by two."""

    name = "multiplication"
    weights = (1, 2, 3, 3)
    asks = (
        *_ASK,
        "Multiply {a} by {b}.",
        "What is {a} times {b}?",
        "What is the product of {a} and {b}?",
        "{a} boxes with {b} each: how many in all?",
        "{a} rows of {b}, how many?",
        "Give the product {a} times {b}.",
        "How many are {a} groups of {b}?",
    )
    unseen = (*_UNSEEN, "If you multiply {a} and {b}, what do you get?")
    _SHAPES = (((10, 100), (2, 10)), ((100, 1000), (2, 10)), ((10, 100), (10, 100)), ((100, 1000), (10, 100)),
               ((1000, 10_000), (10, 100)))  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> tuple[int, int]:
        """The larger number first."""
        wide, narrow = self._SHAPES[level - 1]
        wide = narrow if level == 1 and rng.random() < 0.3 else wide
        a, b = rng.randrange(*wide), rng.randrange(*narrow)
        return max(a, b), min(a, b)

    def key(self, x: tuple[int, int]) -> str:
        """The factors, smaller first."""
        return f"{x[1]} {x[0]}"

    def fields(self, rng: random.Random, x: tuple[int, int]) -> dict[str, object]:
        """Either order, several signs."""
        a, b = x if rng.random() < 0.7 else x[::-1]
        return {"a": a, "b": b, "e": f"{a}{rng.choice((' * ', ' * ', '*', ' x ', ' × '))}{b}"}

    def work(self, rng: random.Random, x: tuple[int, int], effort: Effort) -> Work:
        """Nothing, partial products, or every digit and carry."""
        a, b = x
        if effort == "low":
            return Work(direct(a * b), str(a * b))
        if effort == "medium":
            return Work(partial_products(a, b), str(a * b))
        return Work(product_columns(a, b) + ".", str(a * b))


def partial_products(a: int, b: int) -> str:
    """Partial products without carries: the tens and ones of `a` times a single digit, or `a` times the digits of `b`."""
    if a < 10:
        return f"{a}*{b}={a * b}."
    if b < 10:
        head, ones = a // 10 * 10, a % 10
        return f"{head}*{b}={head * b}; {ones}*{b}={ones * b}; {head * b}+{ones * b}={a * b}."
    low, high = a * (b % 10), a * (b // 10 * 10)
    return f"{a}*{b % 10}={low}; {a}*{b // 10 * 10}={high}; {low}+{high}={a * b}."


def product_columns(a: int, b: int) -> str:
    """`a * b` by every digit and carry; b below 100."""
    ones, tens = b % 10, b // 10
    if not tens:
        return multiply_columns(a, b)
    low, high = a * ones, a * tens * 10
    parts = (
        multiply_columns(a, ones),
        f"{multiply_columns(a, tens)}, so {high}",
        f"{low}+{high}: {add_columns(low, high)}",
    )
    return "; ".join(parts)


class Division(Family[tuple[int, int]]):
    """a / b with quotient and remainder, a of two to four digits, b from 2 to 12. Beyond: a of five digits."""

    name = "division"
    asks = (
        "Divide {a} by {b}. Give the quotient and the remainder.", "What are quotient and remainder of {a} / {b}?",
        "{a} / {b} with remainder", "{a} divided by {b}: quotient and remainder?", "Compute {a} / {b} with its remainder.",
        "How often does {b} go into {a}, and what is left?", "Work out {a} : {b} with remainder.",
    )  # fmt: skip
    unseen = (
        "What do you get, and what remains, when {a} is divided by {b}?",
        "Split {a} by {b}; tell me the whole part and the remainder.",
    )

    def draw(self, rng: random.Random, level: int) -> tuple[int, int]:
        """Two or three, three, and four digits by one; level 4: three or four digits by up to twelve."""
        digits = (rng.choice((2, 3)), 3, 4, rng.choice((3, 4)), 5)[level - 1]
        return rng.randrange(10 ** (digits - 1), 10**digits), rng.randrange(2, 13 if level >= 4 else 10)

    def key(self, x: tuple[int, int]) -> str:
        """Dividend and divisor."""
        return f"{x[0]} {x[1]}"

    def fields(self, rng: random.Random, x: tuple[int, int]) -> dict[str, object]:
        """a and b."""
        return {"a": x[0], "b": x[1]}

    def work(self, rng: random.Random, x: tuple[int, int], effort: Effort) -> Work:
        """Nothing, each digit with its remainder, or the divisions written out, and the check."""
        a, b = x
        q, r = divmod(a, b)
        left, short = 0, []
        for digit in str(a):
            here = left * 10 + int(digit)
            short.append(f"{here // b}r{here % b}")
            left = here % b
        final = f"{q} remainder {r}"
        if effort == "low":
            return Work(direct(f"{q} r{r}"), final)
        if effort == "medium":
            return Work(f"{', '.join(short)}; so {q} r{r}.", final)
        check = multiply_columns(q, b) if b < 10 else f"{q}*{b}={q * b}"
        return Work(f"{long_division(a, b)}. Check {check}; {q * b}+{r}={a}.", final)

    def grade(self, example: Example, final: str) -> bool:
        """The last two integers are quotient and remainder."""
        return integers(final)[-2:] == integers(example.answer)


class Divisors(_Integer, Family[tuple[int, int]]):
    """Greatest common divisors and, marked by a negative second number, least common multiples."""

    name = "divisors"
    levels, beyond = (1, 2, 3), 4
    _GCD = (
        "What is the greatest common divisor of {a} and {b}?", "Find the gcd of {a} and {b}.", "gcd({a}, {b})",
        "What is the largest number that divides both {a} and {b}?", "Compute gcd({a}, {b}).", "The gcd of {a} and {b}?",
    )  # fmt: skip
    _LCM = (
        "What is the least common multiple of {a} and {b}?", "Find the lcm of {a} and {b}.", "lcm({a}, {b})",
        "What is the smallest number that both {a} and {b} divide?", "The lcm of {a} and {b}?", "Give the lcm of {a} and {b}.")  # fmt: skip
    _UNSEEN = (("Which is the biggest common factor of {a} and {b}?", "Tell me the gcd of the numbers {a} and {b}."),
               ("Which is the first common multiple of {a} and {b}?", "Tell me the lcm of the numbers {a} and {b}."))  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> tuple[int, int]:
        """Both below 100, 300, 1000 (beyond: 5000); common factors are made likely."""
        top = (100, 300, 1000, 5000)[level - 1]
        lcm = level < 3 and rng.random() < 0.3
        g = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 18))
        low = 2 if level < 4 else 1000 // g + 1
        a, b = (g * rng.randrange(low, max(low + 2, top // g)) for _ in range(2))
        if a == b:
            b += g
        if lcm:
            a, b = a % 50 + 2, b % 50 + 3
        return max(a, b), -min(a, b) if lcm else min(a, b)

    def key(self, x: tuple[int, int]) -> str:
        """The larger number first."""
        return f"{x[0]} {x[1]}"

    def ask(self, rng: random.Random, x: tuple[int, int], unseen: bool) -> str:
        """Of one of two kinds, in either order."""
        a, b = (x[0], abs(x[1]))[:: rng.choice((1, -1))]
        lcm = x[1] < 0
        return rng.choice(self._UNSEEN[lcm] if unseen else (self._LCM if lcm else self._GCD)).format(a=a, b=b)

    def work(self, rng: random.Random, x: tuple[int, int], effort: Effort) -> Work:
        """Nothing, Euclid's remainders, or Euclid's divisions."""
        a, b = x[0], abs(x[1])
        g = math.gcd(a, b)
        answer = a * b // g if x[1] < 0 else g
        if effort == "low":
            return Work(direct(answer), str(answer))
        short, long, big, small = [], [], a, b
        while small:
            short.append(f"{big}%{small}={big % small}")
            times = big // small
            long.append(
                f"{big}/{small}={times}, {times}*{small}={times * small}, {big}-{times * small}={big % small}"
            )
            big, small = small, big % small
        if effort == "medium":
            tail = f"{a}*{b}/{g}={answer}" if x[1] < 0 else f"gcd {g}"
            return Work(f"{'; '.join(short)}; {tail}.", str(answer))
        tail = (
            f"{a}/{g}={a // g}; {product_columns(max(b, a // g), min(b, a // g))}"
            if x[1] < 0
            else f"gcd {g}. Check {a}/{g}={a // g}, {b}/{g}={b // g}"
        )
        return Work(f"{'; '.join(long)}; {tail}.", str(answer))


Tree = int | tuple[str, "Tree", "Tree"]


class Expressions(_Integer, Family[Tree]):
    """Nested expressions of + - * over one-digit numbers, two to five operations. Beyond: six."""

    name = "expressions"
    levels, beyond = (2, 3, 4, 5), 6
    asks, unseen = _ASK, _UNSEEN

    def draw(self, rng: random.Random, level: int) -> Tree:
        """`level` operations; every value stays within 0 and 99."""
        while True:
            tree = _grow(rng, level)
            if all(0 <= v <= 99 for v in _values(tree)):
                return tree

    def key(self, x: Tree) -> str:
        """The expression itself."""
        return written(x).replace(" ", "")

    def fields(self, rng: random.Random, x: Tree) -> dict[str, object]:
        """With or without spaces."""
        text = written(x)
        return {"e": text if rng.random() < 0.7 else text.replace(" ", "")}

    def work(self, rng: random.Random, x: Tree, effort: Effort) -> Work:
        """Nothing, the operations in order, or the whole expression after each of them."""
        total = evaluate(x)
        if effort == "low":
            return Work(direct(total), str(total))
        steps, here = [], x
        while not isinstance(here, int):
            step, here = _reduce(here)
            steps.append(
                step if effort == "medium" else f"{_columns(step)}: {written(here).replace(' ', '')}"
            )
        return Work("; ".join(steps) + ".", str(total))


def _columns(step: str) -> str:
    """A step by columns where a number of it has two digits."""
    left, op, right = re.fullmatch(r"(-?\d+)([-+*])(-?\d+)=.*", step).groups()  # type: ignore[union-attr]
    a, b = int(left), int(right)
    if max(a, b) < 10 or (op == "*" and min(a, b) > 9):
        return step
    return multiply_columns(max(a, b), min(a, b)) if op == "*" else signed_columns(a, op, b)


def _grow(rng: random.Random, operations: int) -> Tree:
    if not operations:
        return rng.randrange(1, 10)
    left = rng.randrange(operations)
    return rng.choice("++-*"), _grow(rng, left), _grow(rng, operations - 1 - left)


def evaluate(tree: Tree) -> int:
    """The value of an expression."""
    if isinstance(tree, int):
        return tree
    op, left, right = tree
    a, b = evaluate(left), evaluate(right)
    return a + b if op == "+" else a - b if op == "-" else a * b


def _values(tree: Tree) -> list[int]:
    return [] if isinstance(tree, int) else [evaluate(tree), *_values(tree[1]), *_values(tree[2])]


def written(tree: Tree, outer: str = "") -> str:
    """The expression with the fewest parentheses that keep its shape (a chain of one kind needs none on its left)."""
    if isinstance(tree, int):
        return str(tree)
    op, left, right = tree
    text = f"{written(left, op + 'l')} {op} {written(right, op + 'r')}"
    needs = (outer[:1] == "*" and (op != "*" or outer == "*r")) or (outer in ("-r", "+r") and op != "*")
    return f"({text})" if needs else text


def _reduce(tree: Tree) -> tuple[str, Tree]:
    """The first operation on two numbers, innermost and leftmost, and the expression after it."""
    assert not isinstance(tree, int)
    op, left, right = tree
    if not isinstance(left, int):
        step, left = _reduce(left)
        return step, (op, left, right)
    if not isinstance(right, int):
        step, right = _reduce(right)
        return step, (op, left, right)
    done = evaluate(tree)
    return f"{left}{op}{right}={done}", done

"""Lists of numbers and words: sort, count, combine as sets, continue, compare.

Low states the result, medium notes what is needed of each item, high goes through the items one by one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import ClassVar

from motet.tasks.answers import integers
from motet.tasks.base import Effort, Example, direct, grade_integer
from motet.tasks.columns import multiply_columns, signed_columns
from motet.tasks.family import Family, Work
from motet.tasks.words import COLOURS, FRUIT, PETS

Numbers = tuple[str, tuple[int, ...]]


def joined(items: Iterable[object]) -> str:
    """`3, 1, 2`."""
    return ", ".join(map(str, items))


class Sorting(Family[Numbers]):
    """Numbers by size, downwards, or by the sum of their digits. Beyond: eight numbers."""

    name = "sorting"
    _BY: ClassVar = {
        "up": ("from smallest to largest", "in ascending order", "from low to high"),
        "down": ("from largest to smallest", "in descending order", "from high to low"),
        "digits": ("by the sum of their digits", "by digit sum, smallest first"),
    }
    asks = ("Sort {n} {by}.", "Sort these numbers {by}: {n}.", "Put {n} {by}.", "Order the numbers {n} {by}.",
            "{n}: sort {by}.", "Arrange {n} {by}.", "Give {n} {by}.",
        "Here are {n}. Sort them {by}.", "What is the order of {n} {by}?", "{by}: {n}", "Can you sort {n} {by}?", "Write {n} again, {by}.", "I have to sort {n} {by}.")  # fmt: skip
    unseen = ("Line up {n} {by}, please.", "I have {n} and want them {by}. What is the list?")

    def draw(self, rng: random.Random, level: int) -> Numbers:
        """1: four numbers; 2: six; 3: four by digit sum; 4: five by digit sum; beyond: eight. No two equal in what counts."""
        kind = (
            "digits" if level in (3, 4) or (level == 5 and rng.random() < 0.5) else rng.choice(("up", "down"))
        )
        count = (4, 6, 4, 5, 8)[level - 1]
        top = 100 if rng.random() < 0.5 else 1000
        while True:
            numbers = tuple(rng.sample(range(1 if top == 100 else 100, top), count))
            if kind != "digits" or len({digit_sum(n) for n in numbers}) == count:
                return kind, numbers

    def key(self, x: Numbers) -> str:
        """The kind, and the numbers in whatever order."""
        return f"{x[0]} {joined(sorted(x[1]))}"

    def fields(self, rng: random.Random, x: Numbers) -> dict[str, object]:
        """The numbers, and one of the ways to say the order."""
        return {"n": joined(x[1]), "by": rng.choice(self._BY[x[0]])}

    def work(self, rng: random.Random, x: Numbers, effort: Effort) -> Work:
        """Nothing; the next number with what decides; the next one and what is left."""
        kind, numbers = x
        decide = digit_sum if kind == "digits" else (lambda n: n)
        order = sorted(numbers, key=decide, reverse=kind == "down")
        final = joined(order)
        if effort == "low":
            return Work(f"First {order[0]}.", final)
        sums = joined(f"{n}:{digit_sum(n)}" for n in numbers)
        if effort == "medium":
            if kind == "digits":
                return Work(f"{sums}.", final)
            tens = 10 if max(numbers) < 100 else 100
            groups: dict[int, list[int]] = {}
            for n in sorted(numbers, key=lambda n: n // tens, reverse=kind == "down"):
                groups.setdefault(n // tens, []).append(n)
            return Work("; ".join(f"{g}: {joined(ns)}" for g, ns in groups.items()) + ".", final)
        left = list(numbers)
        lines = [f"{n}: {_summed(n)}" for n in numbers if kind == "digits"]
        for n in order[:-1]:
            shown = (f"{m}:{digit_sum(m)}" for m in left) if kind == "digits" else left
            lines.append(f"of {joined(shown)} take {n}")
            left.remove(n)
        return Work("; ".join([*lines, f"then {left[0]}"]) + ".", final)

    def grade(self, example: Example, final: str) -> bool:
        """The last integers of the answer are the sorted list."""
        wanted = integers(example.answer)
        return integers(final)[-len(wanted) :] == wanted


def _summed(n: int) -> str:
    """`6+1=7+9=16`: digits added one at a time."""
    digits = [int(d) for d in str(n)]
    text, total = str(digits[0]), digits[0]
    for d in digits[1:]:
        total += d
        text += f"+{d}={total}"
    return text


def digit_sum(n: int) -> int:
    """The sum of decimal digits."""
    return sum(map(int, str(n)))


Count = tuple[str, str, tuple[str, ...]]  # what is counted, its parameter, the items


class Counting(Family[Count]):
    """How many items of a list are even, larger than a number, or a given word? Beyond: twenty items."""

    name = "counting"
    levels, beyond = (6, 9, 12, 15), 20
    _WHAT: ClassVar = {
        "even": ("even numbers", "even"), "odd": ("odd numbers", "odd"), "above": ("numbers above {p}", "greater than {p}"),
        "below": ("numbers below {p}", "smaller than {p}"), "word": ("occurrences of the word {p}", "equal to {p}"),
        "tens": ("numbers that end in {p}", "numbers with {p} as their last digit"),
    }  # fmt: skip
    asks = ("How many of these are {b}: {n}?", "Count the {a}: {n}.", "How many {a} are in this list? {n}", "{n}. How many {a} are there?",
            "In the list {n}, how many are {b}?", "Count {a} in {n}.", "How many {a} does {n} have?",
        "{n}: how many are {b}?", "I count the {a} in {n}. How many?", "The list is {n}. How many of them are {b}?", "Number of {a} in {n}?", "Tell me how many {a} are in {n}.", "Here are {n}. How many are {b}?")  # fmt: skip
    unseen = ("Look at {n} and tell me the number of {a}.", "{n}: which share is {b}, as a count?")

    def draw(self, rng: random.Random, level: int) -> Count:
        """Numbers below 100, or words of one of three kinds; something is there to be counted."""
        kind = rng.choice(tuple(self._WHAT))
        while True:
            if kind == "word":
                pool = rng.sample(rng.choice((COLOURS, FRUIT, PETS)), rng.choice((3, 4)))
                items, p = tuple(rng.choice(pool) for _ in range(level)), pool[0]
            else:
                p = str(rng.randrange(20, 80) if kind in ("above", "below") else rng.randrange(10))
                items = tuple(str(rng.randrange(1, 100)) for _ in range(level))
                if kind == "tens":
                    items = tuple(n if rng.random() < 0.7 else f"{rng.randrange(1, 10)}{p}" for n in items)
            p = p if kind not in ("even", "odd") else ""
            if any(_counts(kind, p, i) for i in items):
                return kind, p, items

    def key(self, x: Count) -> str:
        """What is counted among which items, in order."""
        return f"{x[0]} {x[1]} {' '.join(x[2])}"

    def fields(self, rng: random.Random, x: Count) -> dict[str, object]:
        """The list and what is counted, as a noun and as a property."""
        a, b = (t.format(p=x[1]) for t in self._WHAT[x[0]])
        return {"n": joined(x[2]), "a": a, "b": b}

    def work(self, rng: random.Random, x: Count, effort: Effort) -> Work:
        """Nothing; the count after every hit; every item judged beside what is asked."""
        kind, p, items = x
        hits = [int(_counts(kind, p, i)) for i in items]
        count, sofar = sum(hits), list(itertools.accumulate(hits))
        if effort == "low":
            return Work(direct(count), str(count))
        if effort == "medium":
            marks = (f"{i} {n if hit else 'no'}" for i, hit, n in zip(items, hits, sofar, strict=True))
            return Work(f"{joined(marks)}.", str(count))
        lines = [
            _judged(kind, p, i) + (f" yes {n}" if hit else " no")
            for i, hit, n in zip(items, hits, sofar, strict=True)
        ]
        return Work(f"{joined(lines)}. So {count}.", str(count))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _judged(kind: str, p: str, item: str) -> str:
    """An item beside what is asked of it, so that the judgement needs nothing far away."""
    if kind in ("above", "below"):
        sign = ">" if int(item) > int(p) else "<" if int(item) < int(p) else "="
        word = {">": "above", "<": "below", "=": "equal"}[sign]
        return f"{item}{sign}{p} {word}/{kind}"
    if kind == "word":
        return f"{item}/{p}"
    return (
        f"{item} ends {item[-1]}/{p}" if kind == "tens" else f"{item} {('even', 'odd')[int(item) % 2]}/{kind}"
    )


def _counts(kind: str, p: str, item: str) -> bool:
    if kind == "word":
        return item == p
    n = int(item)
    return {
        "even": n % 2 == 0, "odd": n % 2 == 1, "above": n > int(p or 0), "below": n < int(p or 0), "tens": item[-1:] == p,
    }[kind]  # fmt: skip


Two = tuple[str, tuple[int, ...], tuple[int, ...]]


class Sets(Family[Two]):
    """Union, intersection, difference and symmetric difference of two sets of numbers. Beyond: nine members each."""

    name = "sets"
    levels, beyond = (3, 4, 5, 6), 9
    _KINDS: ClassVar = {
        "union": ("the union of {a} and {b}", "all numbers in {a} or {b} or both"),
        "intersection": ("the intersection of {a} and {b}", "the numbers in both {a} and {b}"),
        "difference": ("the numbers of {a} that are not in {b}", "{a} without {b}"),
        "symmetric": ("the numbers in exactly one of {a} and {b}", "the symmetric difference of {a} and {b}"),
    }
    asks = (
        "What is {e}?",
        "Find {e}.",
        "Give {e} in ascending order.",
        "List {e}.",
        "Compute {e}, smallest first.",
        "{e}, please, in ascending order.",
        "Write down {e}.",
        "Tell me {e}.",
        "{e}?",
        "Show {e}.",
        "Can you find {e}?",
        "Please give {e}.",
    )
    unseen = ("Which numbers belong to {e}?", "I am looking for {e}; write it down.")

    def draw(self, rng: random.Random, level: int) -> Two:
        """Sets of about `level` members below 60 that share a third; the result is not empty."""
        while True:
            pool = rng.sample(range(1, 60), level + level // 2 + 1)
            a = tuple(rng.sample(pool, level))
            b = tuple(rng.sample(pool, level + rng.choice((-1, 0, 0))))
            kind = rng.choice(tuple(self._KINDS))
            if set(a) & set(b) and combined(kind, a, b):
                return kind, a, b

    def key(self, x: Two) -> str:
        """The kind and the sorted sets."""
        return f"{x[0]} {joined(sorted(x[1]))} | {joined(sorted(x[2]))}"

    def fields(self, rng: random.Random, x: Two) -> dict[str, object]:
        """Sets in braces."""
        a, b = (f"{{{joined(s)}}}" for s in x[1:])
        return {"e": rng.choice(self._KINDS[x[0]]).format(a=a, b=b)}

    def work(self, rng: random.Random, x: Two, effort: Effort) -> Work:
        """Nothing; every member with whether the other set has it; the other set beside every member."""
        kind, a, b = x
        result = combined(kind, a, b)
        final = joined(result)
        if effort == "low":
            return Work(f"First {result[0]}.", final)
        found = [n for n in (*a, *(n for n in b if n not in a)) if n in result]
        theirs = b if kind in ("union", "symmetric") else ()
        if effort == "medium":
            mine = [f"{n} {'both' if n in b else 'not'}" for n in a]
            others = [f"{n} {'both' if n in a else 'not'}" for n in theirs]
            return Work(
                f"{'; '.join(filter(None, (joined(mine), joined(others))))}. So {joined(found)}.", final
            )
        lines = [f"{n}: {_sought(n, b)} {kind} {'take' if n in result else 'leave'}" for n in a]
        lines += [f"{n}: {_sought(n, a)} {'leave' if n in a else 'take'}" for n in theirs]
        return Work(f"{'; '.join(lines)}. So {joined(found)}.", final)

    def grade(self, example: Example, final: str) -> bool:
        """The last integers are the members, in whatever order."""
        wanted = integers(example.answer)
        found = integers(final.replace("{", "\n{") if "{" in final else final)
        return sorted(found[-len(wanted) :]) == wanted and len(found) == len(wanted)


def _sought(n: int, among: tuple[int, ...]) -> str:
    """The members of the other set up to the one that is looked for, and whether it is there."""
    seen = among[: among.index(n) + 1] if n in among else among
    return f"{' '.join(map(str, seen))} {'both' if n in among else 'not'}"


def combined(kind: str, a: tuple[int, ...], b: tuple[int, ...]) -> list[int]:
    """The result in ascending order."""
    x, y = set(a), set(b)
    return sorted({"union": x | y, "intersection": x & y, "difference": x - y, "symmetric": x ^ y}[kind])


Row = tuple[str, tuple[int, ...], int]  # kind, shown terms, next term


class Sequences(Family[Row]):
    """The next term of a sequence: steps, growing steps, factors, sums of two, two in turn. Beyond: numbers in the hundreds."""

    name = "sequences"
    weights = (2, 2, 1, 3)
    asks = ("What comes next: {n}?", "{n}, ...", "Continue the sequence {n}.", "Find the next number: {n}",
            "Which number follows {n}?", "What is the next term of {n}?", "Next term: {n}",
        "{n}: what comes then?", "A sequence begins {n}. What is the next number?", "Find the number after {n}.", "Go on: {n}", "How does {n} continue?", "What should come after {n}?")  # fmt: skip
    unseen = ("The numbers {n} obey a rule; which number is due?", "Guess how {n} goes on by one number.")

    def draw(self, rng: random.Random, level: int) -> Row:
        """1: constant steps; 2: growing steps or sums; 3: times and plus; 4: two sequences in turn; beyond: larger."""
        kind = {
            1: ("step",),
            2: ("growing", "sum"),
            3: ("times", "times"),
            4: ("turns",),
            5: ("step", "growing", "turns"),
        }[level]
        start, scale = rng.randrange(1, 90), 1
        if level == 5:
            start, scale = rng.randrange(200, 900), 4
        return _sequence(rng, rng.choice(kind), start, scale)

    def key(self, x: Row) -> str:
        """The terms."""
        return joined(x[1])

    def fields(self, rng: random.Random, x: Row) -> dict[str, object]:
        """The terms."""
        return {"n": joined(x[1])}

    def work(self, rng: random.Random, x: Row, effort: Effort) -> Work:
        """Nothing; the differences, the rule and its use; the same with the rule by columns."""
        kind, terms, following = x
        if effort == "low":
            return Work(direct(following), str(following))
        short, long = _found(kind, terms, following)
        return Work(short if effort == "medium" else long, str(following))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def _sequence(rng: random.Random, kind: str, start: int, scale: int) -> Row:
    if kind == "turns":
        a, b = start, rng.randrange(1, 90)
        da, db = rng.randrange(2, 12) * scale, rng.randrange(2, 12) * scale
        seq = [v for i in range(4) for v in (a + i * da, b + i * db)]
        shown = rng.choice((5, 6))
        return kind, tuple(seq[:shown]), seq[shown]
    if kind == "times":
        factor, plus = rng.choice((2, 2, 3)), rng.randrange(0, 13)
        seq = [start % 20 + 1]
        for _ in range(5):
            seq.append(seq[-1] * factor + plus)
        shown = 4 if factor == 3 else 5
        return kind, tuple(seq[:shown]), seq[shown]
    if kind == "sum":
        seq = [rng.randrange(1, 25), rng.randrange(1, 30)]
        for _ in range(4):
            seq.append(seq[-1] + seq[-2])
        return kind, tuple(seq[:5]), seq[5]
    step = rng.randrange(2, 25) * scale
    grow = 0 if kind == "step" else rng.randrange(1, 8)
    down = kind == "step" and rng.random() < 0.4
    seq = [start]
    for i in range(5):
        seq.append(seq[-1] + step + i * grow)
    if down:
        seq = seq[::-1]
    return kind, tuple(seq[:5]), seq[5]


def _found(kind: str, terms: tuple[int, ...], following: int) -> tuple[str, str]:
    """The short and the long work. Which rule it is, the differences tell."""
    last = terms[-1]
    gaps = [b - a for a, b in itertools.pairwise(terms)]
    if kind == "turns":
        one = terms[len(terms) % 2 :: 2]
        d = one[1] - one[0]
        rule = f"in turn {joined(one)}; "
        short = f"{one[1]}-{one[0]}={d}; {one[-1]}+{d}={following}"
        long = f"{signed_columns(one[1], '-', one[0])}; {signed_columns(one[-1], '+', d)}"
    elif kind == "times":
        f = 3 if len(terms) == 4 else 2
        plus = terms[1] - f * terms[0]
        rule = f"times {f}; {terms[0]}*{f}={terms[0] * f}, {terms[1]}-{terms[0] * f}={plus}; "
        short = f"{last}*{f}={last * f}; {last * f}+{plus}={following}"
        long = f"so *{f}+{plus}; {multiply_columns(last, f)}; {signed_columns(last * f, '+', plus)}"
    elif kind == "sum":
        rule, short, long = (
            "sum of two; ",
            f"{terms[-2]}+{last}={following}",
            signed_columns(terms[-2], "+", last),
        )
    else:
        step, second = following - last, gaps[1] - gaps[0]
        rule = f"steps grow by {second}; {gaps[-1]}+{second}={step}; " if second else f"so {step:+}; "
        short = f"{last}{step:+}={following}"
        long = signed_columns(last, "+" if step >= 0 else "-", abs(step))
    differences = "; ".join(f"{b}-{a}={b - a}" for a, b in itertools.pairwise(terms))
    return f"{differences}: {rule}{short}.", f"{differences}; {joined(gaps)}: {rule}{long}."


Values = tuple[tuple[int, str, int], ...]


class Comparing(Family[Values]):
    """Which of some products, sums and differences is the largest or smallest? Beyond: six of them."""

    name = "comparing"
    levels, beyond = (2, 3, 4), 6
    asks = ("Which is largest: {n}?", "Which of {n} has the largest value?", "Find the greatest of {n}.", "{n}: which is the biggest?",
            "Compare {n}. Which is largest?", "Name the largest of {n}.", "Which one of {n} is the most?",
        "What is the largest of {n}?", "{n}. Which is the largest?", "Tell me which of {n} is largest.", "Pick the largest: {n}", "Largest of {n}?", "The largest among {n} is which?")  # fmt: skip
    unseen = (
        "Out of {n}, name the one that comes to the most.",
        "Suppose I may choose {n} in gold. Which gives most?",
    )

    def draw(self, rng: random.Random, level: int) -> Values:
        """`level` expressions of different value within a quarter of each other."""
        while True:
            goal = rng.randrange(40, 300)
            found = tuple(_near(rng, goal) for _ in range(level))
            values = [_value(t) for t in found]
            if len(set(values)) == level and max(values) < 1.25 * min(values) and min(values) > 9:
                return found

    def key(self, x: Values) -> str:
        """The expressions in order of their text."""
        return ", ".join(sorted(_text(t) for t in x))

    def fields(self, rng: random.Random, x: Values) -> dict[str, object]:
        """The expressions."""
        return {"n": ", ".join(_text(t) for t in x)}

    def work(self, rng: random.Random, x: Values, effort: Effort) -> Work:
        """Nothing, the values, or the values by columns and each comparison."""
        best = max(x, key=_value)
        if effort == "low":
            return Work(direct(_text(best)), _text(best))
        if effort == "medium":
            return Work("; ".join(f"{_text(t)}={_value(t)}" for t in x) + ".", _text(best))
        lines, top = [], x[0]
        for t in x:
            a, op, b = t
            lines.append(multiply_columns(max(a, b), min(a, b)) if op == "*" else signed_columns(a, op, b))
            if t is not x[0]:
                lines.append(_against(_value(t), _value(top)))
                top = max(top, t, key=_value)
                lines.append(f"top {_text(top)}={_value(top)}")
        return Work("; ".join(lines) + ".", _text(best))

    def grade(self, example: Example, final: str) -> bool:
        """The text contains the expression, and no other number than its own (and its value)."""
        tight = final.replace(" ", "").replace("×", "*")
        return example.answer in tight and set(integers(tight)) <= {
            *integers(example.answer),
            _parsed(example.answer),
        }


def _against(a: int, b: int) -> str:
    """Two different numbers compared from their first digits on: `146/136: 1=1, 4>3, so 146>136`."""
    sign = ">" if a > b else "<"
    if len(str(a)) != len(str(b)):
        return f"{a}/{b}: {len(str(a))}{sign}{len(str(b))} digits, so {a}{sign}{b}"
    steps = []
    for x, y in zip(str(a), str(b), strict=True):
        steps.append(f"{x}{'=' if x == y else sign}{y}")
        if x != y:
            break
    return f"{a}/{b}: {', '.join(steps)}, so {a}{sign}{b}"


def _near(rng: random.Random, goal: int) -> tuple[int, str, int]:
    """An expression of about the value."""
    op = rng.choice("*+-")
    if op == "*":
        b = rng.randrange(2, 10)
        return max(2, round(goal * rng.uniform(0.88, 1.12) / b)), op, b
    here = round(goal * rng.uniform(0.88, 1.12))
    b = rng.randrange(2, max(3, here - 1))
    return (here - b, op, b) if op == "+" else (here + b, op, b)


def _value(t: tuple[int, str, int]) -> int:
    a, op, b = t
    return a * b if op == "*" else a + b if op == "+" else a - b


def _text(t: tuple[int, str, int]) -> str:
    return f"{t[0]}{t[1]}{t[2]}"


def _parsed(text: str) -> int:
    op = next(c for c in text if c in "*+-")
    a, b = text.split(op)
    return _value((int(a), op, int(b)))

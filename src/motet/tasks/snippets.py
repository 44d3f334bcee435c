"""Questions of the families as Python code: what a model writes to its python tool, operands copied and nothing worked out by hand.

Knows how instances of families look; `CODE` has an entry for each family that a computer helps with.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from motet.tasks.arithmetic import Addition, Division, Divisors, Expressions, Multiplication, written
from motet.tasks.family import Family
from motet.tasks.lists import Counting, Sets, Sorting
from motet.tasks.measures import Bases, Units, in_base
from motet.tasks.serial import Booleans, Modular, Programs, statements
from motet.tasks.stories import Stories
from motet.tasks.strings import Letters


def _addition(x: Any) -> str:
    return f"print({x[0]}{''.join(f' {s} {n}' for s, n in x[1])})"


def _divisors(x: Any) -> str:
    return f"import math\nprint(math.{'lcm' if x[1] < 0 else 'gcd'}({x[0]}, {abs(x[1])}))"


def _modular(x: Any) -> str:
    lines = [f"x = {x[1]}", *(f"x = (x {o} {n}) % {x[0]}" for o, n in x[2]), "print(x)"]
    return "\n".join(lines)


def _programs(x: Any) -> str:
    lines = [f"{t} = {a} {op} {b}" if op else f"{t} = {a}" for t, a, op, b in x]
    return "\n".join([*lines, f"print({x[-1][0]})"])


def _sorting(x: Any) -> str:
    kind, numbers = x
    if kind == "digits":
        return f"def digits(n):\n    return sum(int(d) for d in str(n))\nprint(sorted({list(numbers)}, key=digits))"
    return f"print(sorted({list(numbers)}{', reverse=True' if kind == 'down' else ''}))"


def _counting(x: Any) -> str:
    kind, p, items = x
    if kind == "word":
        return f"print({list(items)}.count('{p}'))"
    test = {
        "even": "n % 2 == 0",
        "odd": "n % 2 == 1",
        "above": f"n > {p}",
        "below": f"n < {p}",
        "tens": f"n % 10 == {p}",
    }[kind]
    return f"xs = [{', '.join(items)}]\nprint(len([n for n in xs if {test}]))"


def _sets(x: Any) -> str:
    sign = {"union": "|", "intersection": "&", "difference": "-", "symmetric": "^"}[x[0]]
    return (
        f"a = {{{', '.join(map(str, x[1]))}}}\nb = {{{', '.join(map(str, x[2]))}}}\nprint(sorted(a {sign} b))"
    )


def _bases(x: Any) -> str:
    kind, base, value = x
    if kind == "to":
        call = {2: f"bin({value})[2:]", 8: f"oct({value})[2:]", 16: f"hex({value})[2:]"}.get(base)
        return (
            f"print({call})"
            if call
            else f"n = {value}\ns = ''\nwhile n:\n    s = str(n % {base}) + s\n    n = n // {base}\nprint(s)"
        )
    return f"print(int('{in_base(value, base)}', {base}))"


def _units(x: Any) -> str:
    kind, _, _, f, amounts = x
    if kind == "down":
        return f"print(divmod({amounts[0]}, {f}))"
    return f"print({amounts[0]} * {f}{f' + {amounts[1]}' if len(amounts) == 2 else ''})"


def _stories(x: Any) -> str:
    lines = [f"n = {x[3]}"]
    for kind, n, m in x[4]:
        lines.append(
            {
                "get": f"n += {n}",
                "give": f"n -= {n}",
                "bags": f"n += {n} * {m}",
                "hand": f"n -= {n} * {m}",
                "double": "n = n * 2",
                "share": f"n = n // {n}",
            }[kind]
        )
    return "\n".join([*lines, "print(n)"])


def _letters(x: Any) -> str:
    kind, p, words = x
    text = "".join(words)
    return {
        "count": f"print('{text}'.count('{p}'))",
        "place": f"print('{text}'[{p} - 1])",
        "back": f"print(' '.join('{text}'[::-1]))",
    }[kind]


CODE: tuple[tuple[Family[Any], Callable[[Any], str]], ...] = (
    (Addition(), _addition), (Multiplication(), lambda x: f"print({x[0]} * {x[1]})"), (Division(), lambda x: f"print(divmod({x[0]}, {x[1]}))"),
    (Divisors(), _divisors), (Expressions(), lambda x: f"print({written(x)})"), (Modular(), _modular), (Programs(), _programs),
    (Booleans(), lambda x: f"print(sum([{', '.join(statements(x))}]))"), (Sorting(), _sorting), (Counting(), _counting), (Sets(), _sets),
    (Bases(), _bases), (Units(), _units), (Stories(), _stories), (Letters(), _letters),
)  # fmt: skip
CODED = frozenset(family.name for family, _ in CODE)


def large(rng: random.Random) -> tuple[str, str]:
    """A question that is out of reach by hand, with its code: long numbers, powers, primes, sums of powers."""
    kind = rng.choice(("times", "times", "plus", "plus", "power", "primes", "squares", "sum"))
    a, b = (rng.randrange(10 ** rng.randrange(2, 7), 10**8) for _ in range(2))
    if kind == "times":
        a, b = a % 10 ** rng.randrange(2, 6) + 2, b % 10 ** rng.randrange(2, 6) + 2
        return rng.choice(
            ("What is {a} * {b}?", "Multiply {a} by {b}.", "{a} times {b}?", "Compute {a} * {b}.")
        ).format(a=a, b=b), f"print({a} * {b})"
    if kind == "plus":
        sign, word = rng.choice((("+", "plus"), ("-", "minus")))
        return rng.choice(("What is {a} {s} {b}?", "Compute {a} {s} {b}.", "{a} {w} {b}?")).format(
            a=a, b=b, s=sign, w=word
        ), f"print({a} {sign} {b})"
    if kind == "power":
        a, b = a % 30 + 2, b % 12 + 2
        return rng.choice(("What is {a} to the power of {b}?", "Compute {a} ** {b}.", "{a}^{b}?")).format(
            a=a, b=b
        ), f"print({a} ** {b})"
    n = a % 28 + 3
    if kind == "primes":
        what, show = rng.choice(
            (
                ("the sum of the first {n} primes", "sum(found)"),
                ("the prime number {n}", "found[-1]"),
                ("the first {n} primes", "found"),
            )
        )
        code = f"found = []\nk = 2\nwhile len(found) < {n}:\n    if all(k % p for p in found):\n        found.append(k)\n    k += 1\nprint({show})"
        return rng.choice(("What is {w}?", "Give me {w}.", "Find {w}.")).format(w=what.format(n=n)), code
    if kind == "squares":
        p, name = rng.choice(((2, "squares"), (3, "cubes")))
        return rng.choice(("What is the sum of the {p} from 1 to {n}?", "Add the {p} of 1 to {n}.")).format(
            p=name, n=n
        ), f"print(sum(n**{p} for n in range(1, {n + 1})))"
    numbers = [rng.randrange(10, 1000) for _ in range(rng.randrange(5, 10))]
    what = rng.choice(("sum", "max", "min"))
    name = {"sum": "sum", "max": "largest", "min": "smallest"}[what]
    return f"What is the {name} of {', '.join(map(str, numbers))}?", f"print({what}({numbers}))"

"""The small Python shows what Python shows, keeps names, and refuses whatever is not named in it, within bounds."""

from __future__ import annotations

import contextlib
import io

import pytest

from motet.tasks.evaluator import Evaluator

CELLS = (
    "print(483 + 906 - 7 * 2)", "x = 3\nfor n in [2, 5, 7]:\n    x = x * n % 11\nprint(x)", "print(sorted([3, 1, 2], reverse=True))",
    "found = []\nk = 2\nwhile len(found) < 20:\n    if all(k % p for p in found):\n        found.append(k)\n    k += 1\nprint(sum(found))",
    "import math\nprint(math.gcd(84, 36), math.lcm(4, 6), math.prod([3, 5, 8]))", "print(divmod(147, 4))", "print(bin(37)[2:], int('211', 3))",
    "def f(a, b):\n    if a > b:\n        return a - b\n    return b - a\nprint(f(3, 9), f(9, 3))", "a, b = 1, 2\na, b = b, a\nprint(a, b)",
    "print(len([n for n in range(50) if n % 7 == 3]))", "print(sorted({1, 2, 3} & {2, 3, 4}))", "print(' '.join(reversed(list('abc'))))",
    "print('banana'.count('a'), 'abc'[::-1])", "print(max([3, 9, 4]), min(4, 2), abs(-3), sum(n * n for n in [1, 2]))",
    "d = {'a': 1}\nd['b'] = 2\nprint(d['b'], d.get('c', 0), len(d))", "for i in range(9):\n    if i == 2:\n        continue\n    if i == 5:\n        break\n    print(i)",
    "print(7 // 2, -7 % 3, 2**10, 7 / 2, not 3 > 2, 1 < 2 < 3)", "x = [1, 2]\nx[0] += 5\nprint(x, 5 if x else 6, f'{x[0]} is')",
)  # fmt: skip


@pytest.mark.parametrize("code", CELLS)
def test_it_prints_what_python_prints(code: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert Evaluator().run(code) == out.getvalue().rstrip("\n") != ""


def test_names_stay_and_the_last_expression_is_shown() -> None:
    session = Evaluator()
    assert session.run("xs = [3, 5, 8]") == ""
    assert session.run("import math\nmath.prod(xs)") == "120"
    assert session.run("'a'") == "'a'"
    assert Evaluator().run("xs").startswith("NameError")


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')", "__import__('os')", "import os", "().__class__", "(1).__class__.__mro__", "'{0.__class__}'.format(1)",
        "exec('1')", "eval('1')", "lambda: 0", "f = print.__self__", "from math import gcd", "class A: pass", "while True:\n    pass",
        "x = 10 ** 100 ** 100", "x = 9\nfor i in range(99):\n    x = x * x", "[0] * 10**9", "range(10**12)", "def f(n):\n    return f(n)\nf(1)",
        "1 +", "1 / 0", "[1][5]", "return 1", "break", "\x00", "x = 'a' * 10**10", "sum(1 for a in range(9999) for b in range(9999))", "(" * 5000,
        "print(f'{1:>999999999}')", "del print", "sorted(1, 2, 3, k=3)", "int('9' * 9999)", "dict.fromkeys", "~1", "1 << 10**9",
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words(code: str) -> None:
    said = Evaluator().run(code)
    assert len(said) < 300 and ("Error" in said or "Refused" in said or said == "1")

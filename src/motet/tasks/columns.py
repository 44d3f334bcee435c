"""Written arithmetic, digit by digit: the traces a careful pupil leaves. Every step is one operation on copied digits.

Two-operand steps without the operands in view are not learned by small models; these are.
"""

from __future__ import annotations


def add_columns(a: int, b: int) -> str:
    """Column addition, right to left: `7+5=12, 1+2=3+1=4, so 42`. Arguments >= 0."""
    steps, carry = [], 0
    for x, y in _digits(a, b):
        text, total = f"{x}+{y}={x + y}", x + y
        if carry:
            total += 1
            text += f"+1={total}"
        steps.append(text)
        carry = total // 10
    return f"{', '.join(steps)}, so {a + b}"


def subtract_columns(a: int, b: int) -> str:
    """Column subtraction with borrowing: `2-8=-6+10=4, 4-3=1-1=0, so 4`. Needs a >= b >= 0."""
    steps, borrow = [], 0
    for x, y in _digits(a, b):
        text, total = f"{x}-{y}={x - y}", x - y
        if borrow:
            total -= 1
            text += f"-1={total}"
        borrow = int(total < 0)
        if borrow:
            total += 10
            text += f"+10={total}"
        steps.append(text)
    return f"{', '.join(steps)}, so {a - b}"


def signed_columns(a: int, sign: str, b: int) -> str:
    """`a sign b:` and its columns; a smaller minus a larger number is turned round first."""
    if sign == "+":
        return f"{a}+{b}: {add_columns(a, b)}"
    if a >= b:
        return f"{a}-{b}: {subtract_columns(a, b)}"
    return f"{a}-{b}: minus {b}-{a}: {subtract_columns(b, a)}, so {a - b}"


def multiply_columns(a: int, digit: int) -> str:
    """One partial product: `347*6: 7*6=42, 4*6=24+4=28, 3*6=18+2=20, so 2082`. digit 0..9, a >= 0."""
    steps, carry = [], 0
    for x in reversed(str(a)):
        total = int(x) * digit
        text = f"{x}*{digit}={total}"
        if carry:
            total += carry
            text += f"+{carry}={total}"
        steps.append(text)
        carry = total // 10
    return f"{a}*{digit}: {', '.join(steps)}, so {a * digit}"


def long_division(a: int, b: int) -> str:
    """Digit by digit: `54/7=7,54-49=5; so 7 r5`. a >= 0, b > 0; no step for leading zeros of the quotient."""
    steps = (f"{here}/{b}={here // b},{here}-{here - here % b}={here % b}" for here in _dividends(a, b))
    return f"{'; '.join(steps)}; so {a // b} r{a % b}"


def short_division(a: int, b: int) -> str:
    """Digit by digit without the products: `95/4: 9:2r1 15:3r3 23r3`, or `5/4=1r1` when there is one step."""
    steps = [f"{here}:{here // b}r{here % b}" for here in _dividends(a, b)]
    return f"{a}/{b}: {' '.join(steps)} {a // b}r{a % b}" if len(steps) > 1 else f"{a}/{b}={a // b}r{a % b}"


def _dividends(a: int, b: int) -> list[int]:
    """What is divided at each digit of the quotient."""
    text, left = str(a), 0
    out: list[int] = []
    for i, digit in enumerate(text):
        here = left * 10 + int(digit)
        left = here % b
        if here >= b or out or i == len(text) - 1:
            out.append(here)
    return out


def _digits(a: int, b: int) -> list[tuple[int, int]]:
    """Digit pairs from the right, the shorter number filled with zeros."""
    width = max(len(str(a)), len(str(b)))
    return [(int(x), int(y)) for x, y in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1], strict=True)]

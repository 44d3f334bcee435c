"""Word problems: somebody has a number of things, and events change it.

Low states the result, medium an equation an event, high works each equation by columns.
"""

from __future__ import annotations

import random
from typing import ClassVar

from motet.tasks.base import Effort, Example, direct, grade_integer
from motet.tasks.columns import long_division, multiply_columns, signed_columns
from motet.tasks.family import Family, Work
from motet.tasks.words import FRUIT, PEOPLE

Event = tuple[str, int, int]  # kind, a number, a second one
Story = tuple[str, str, str, int, tuple[Event, ...]]  # who, other, what, at first, events

_EVENTS: dict[str, tuple[str, ...]] = {
    "get": ("{o} gives {p} {n} more.", "Then {p} finds {n} {w}.", "{p} buys {n} {w}.", "{n} {w} are added."),
    "give": ("{p} gives {n} {w} to {o}.", "{p} eats {n} {w}.", "{p} loses {n} of them.", "{n} {w} are sold."),
    "bags": ("{p} buys {n} bags with {m} {w} each.", "{o} brings {n} boxes of {m} {w}.", "{p} gets {n} times {m} {w}."),
    "hand": ("{p} gives {m} {w} to each of {n} friends.", "{n} children take {m} {w} each.", "{p} fills {n} bowls with {m} {w} each and gives them away."),
    "double": ("Now {o} doubles what {p} has.", "The number of {w} is doubled.", "Then {p} has twice as many."),
    "share": ("{p} shares them equally among {n} children and looks at one share.", "They are put into {n} equal heaps; {p} keeps one heap.",
              "{p} keeps one of {n} equal parts."),
}  # fmt: skip


class Stories(Family[Story]):
    """Word problems of one to four events. Beyond: six events."""

    name = "stories"
    levels, beyond = (1, 2, 3, 4), 6
    weights = (1, 2, 2, 2)
    asks = ("{s} How many {w} does {p} have now?", "{s} How many {w} are there at the end?", "{s} How many {w} has {p} in the end?",
            "{s} What is the number of {w} now?", "How many {w} does {p} have at the end? {s}", "{s} Count the {w} that {p} has now.",
        "{s} Now tell me how many {w} {p} has.", "Here is a story. {s} How many {w} are left for {p}?", "{s} So {p} has how many {w}?", "{s} How many {w} is that?", "Find out how many {w} {p} has. {s}")  # fmt: skip
    unseen = (
        "{s} Somebody counts the {w} of {p}. Which number comes out?",
        "Read and count. {s} {p} now owns how many {w}?",
    )
    _START: ClassVar = (
        "{p} has {n} {w}.",
        "At first {p} has {n} {w}.",
        "There are {n} {w} in {p}'s basket.",
        "{p} picks {n} {w}.",
    )

    def draw(self, rng: random.Random, level: int) -> Story:
        """Amounts stay between 1 and 400; shares are exact."""
        p, o = rng.sample(PEOPLE, 2)
        start = amount = rng.randrange(10, 100)
        events: list[Event] = []
        while len(events) < level:
            kind = rng.choice(("get", "give", "bags", "hand", "double", "share"))
            n, m = rng.randrange(2, 60), 0
            if kind in ("bags", "hand"):
                n, m = rng.randrange(2, 10), rng.randrange(2, 13)
            if kind == "share":
                n = rng.randrange(2, 10)
            after = applied(amount, (kind, n, m))
            if after is None or not 1 <= after <= 400 or (events and events[-1][0] == kind == "double"):
                continue
            events.append((kind, n if kind != "double" else 2, m))
            amount = after
        return p, o, rng.choice(FRUIT), start, tuple(events)

    def key(self, x: Story) -> str:
        """The numbers and kinds of events; names and things make no new instance."""
        return " ".join([str(x[3]), *(f"{k}{n}x{m}" for k, n, m in x[4])])

    def fields(self, rng: random.Random, x: Story) -> dict[str, object]:
        """The story in sentences."""
        p, o, w, start, events = x
        said = [rng.choice(self._START).format(p=p, n=start, w=w)]
        said += [rng.choice(_EVENTS[k]).format(p=p, o=o, w=w, n=n, m=m) for k, n, m in events]
        return {"s": " ".join(said), "p": p, "w": w}

    def work(self, rng: random.Random, x: Story, effort: Effort) -> Work:
        """Nothing, equations, or equations by columns."""
        amount, short, long = x[3], [], []
        for event in x[4]:
            a, b = _written(amount, event)
            short.append(a)
            long.append(b)
            after = applied(amount, event)
            assert after is not None
            amount = after
        trace = {"low": direct(amount), "medium": "; ".join(short) + ".", "high": "; ".join(long) + "."}
        return Work(trace[effort], str(amount))

    def grade(self, example: Example, final: str) -> bool:
        """Exact equality of the last integer."""
        return grade_integer(example, final)


def applied(amount: int, event: Event) -> int | None:
    """The amount after an event; None if the event is impossible."""
    kind, n, m = event
    if kind == "share":
        return amount // n if amount % n == 0 else None
    change = {"get": n, "give": -n, "bags": n * m, "hand": -n * m, "double": amount}[kind]
    return amount + change if amount + change >= 0 else None


def _written(amount: int, event: Event) -> tuple[str, str]:
    """The equation of an event, short and by columns."""
    kind, n, m = event
    after = applied(amount, event)
    if kind == "double":
        return f"{amount}*2={after}", multiply_columns(amount, 2)
    if kind == "share":
        return f"{amount}/{n}={after}", f"{amount}/{n}: {long_division(amount, n)}"
    sign = "+" if kind in ("get", "bags") else "-"
    if m:
        times, columns = f"{n}*{m}={n * m}", signed_columns(amount, sign, n * m)
        return f"{times}, {amount}{sign}{n * m}={after}", f"{multiply_columns(m, n)}; {columns}"
    return f"{amount}{sign}{n}={after}", signed_columns(amount, sign, n)

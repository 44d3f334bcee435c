"""Data in the prompt: questions to a table, records out of sentences as JSON.

Low answers at once, medium notes the rows or values that matter, high goes through all of them.
"""

from __future__ import annotations

import json
import random
from typing import ClassVar

from motet.tasks.answers import integers, last_of, value
from motet.tasks.base import Effort, Example, direct
from motet.tasks.columns import multiply_columns, signed_columns
from motet.tasks.family import Family, Work
from motet.tasks.words import CITIES, COLOURS, FRUIT, JOBS, MONTHS, PEOPLE, THINGS

Record = tuple[str, str, int]  # name, group, number
Sheet = tuple[
    str, str, str, tuple[Record, ...], str, str, str
]  # heads, rows, kind of question, its argument, answer


class Tables(Family[Sheet]):
    """Look up, count, add and rank in a table of names, groups and numbers. Levels set the rows; beyond: ten rows."""

    name = "tables"
    _HEADS = (
        ("name", "city", "age"),
        ("name", "job", "points"),
        ("item", "colour", "price"),
        ("name", "city", "score"),
    )
    asks = (
        "{t}\n\n{q}",
        "Here is a table.\n{t}\n{q}",
        "{q}\n{t}",
        "Table:\n{t}\nQuestion: {q}",
        "Use the table to answer. {q}\n{t}",
        "{q} See the table:\n{t}",
        "{t}\n\nAbout this table: {q}",
        "My question is: {q}\nThe table is:\n{t}",
        "Read the table.\n{t}\n{q}",
        "{t}\nAnswer this: {q}",
    )
    unseen = ("Look at these rows and answer: {q}\n{t}", "{t}\nNow, from the rows above: {q}")
    _Q: ClassVar = {
        "number": ("What is the {h2} of {x}?", "Which {h2} has {x}?"),
        "group": ("What is the {h1} of {x}?", "Which {h1} belongs to {x}?"),
        "count": ("How many rows have {h1} {x}?", "Count the rows with {h1} {x}."),
        "sum": ("What is the sum of {h2} for {h1} {x}?", "Add up {h2} where {h1} is {x}."),
        "most": ("Which {h0} has the highest {h2} with {h1} {x}?", "Of those with {h1} {x}, which {h0} has the most {h2}?"),
    }  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Sheet:
        """Three to six rows: 1 looks up, 2 counts, 3 and 4 rank and add two to three numbers."""
        heads = rng.choice(self._HEADS)
        rows = (4, 6, 5, 6, 10)[level - 1]
        names = rng.sample(THINGS if heads[0] == "item" else PEOPLE, rows)
        pool = {"city": CITIES, "job": JOBS, "colour": COLOURS}[heads[1]]
        groups = rng.sample(pool, 2 if rows < 6 else 3)
        while True:
            numbers = rng.sample(range(10, 100), rows)
            records = tuple((n, rng.choice(groups), v) for n, v in zip(names, numbers, strict=True))
            kind = rng.choice({1: ("number", "group"), 2: ("count", "number"), 3: ("sum", "most"), 4: ("sum", "most")}.get(level, ("count", "sum", "most")))  # fmt: skip
            if kind in ("number", "group"):
                name, group, number = rng.choice(records)
                return (*heads, records, kind, name, str(number) if kind == "number" else group)
            x = rng.choice(groups)
            chosen = [r for r in records if r[1] == x]
            if 2 <= len(chosen) <= (3 if kind == "sum" and level < 5 else 4):
                best = max(chosen, key=lambda r: r[2])[0]
                answer = {"count": str(len(chosen)), "sum": str(sum(r[2] for r in chosen)), "most": best}[
                    kind
                ]
                return (*heads, records, kind, x, answer)

    def key(self, x: Sheet) -> str:
        """Heads, rows and question."""
        return f"{' '.join(x[:3])} {' '.join('-'.join(map(str, r)) for r in sorted(x[3]))} {x[4]} {x[5]}"

    def fields(self, rng: random.Random, x: Sheet) -> dict[str, object]:
        """As Markdown, as CSV, or with bars only; and the question."""
        sep, form = rng.choice(((" | ", "| {} |"), (",", "{}"), (" | ", "{}")))
        lines = [form.format(sep.join(map(str, r))) for r in (x[:3], *x[3])]
        if form != "{}":
            lines.insert(1, "|---|---|---|")
        question = rng.choice(self._Q[x[4]]).format(h0=x[0], h1=x[1], h2=x[2], x=x[5])
        return {"t": "\n".join(lines), "q": question}

    def work(self, rng: random.Random, x: Sheet, effort: Effort) -> Work:
        """Nothing; what is taken from the rows that matter; every row, and sums by columns."""
        records, kind, arg, answer = x[3:]
        facts = f"{' '.join(x[:3])}|{answer}"
        if effort == "low":
            return Work(direct(answer), answer, facts)
        lookup = kind in ("number", "group")
        chosen = [r for r in records if (r[0] if lookup else r[1]) == arg]
        took = ", ".join(f"{n}: {x[1]} {g}, {x[2]} {v}" if lookup else f"{n} {v}" for n, g, v in chosen)
        if effort == "medium":
            return Work(f"{took}.", answer, facts)
        lines, taken = list[str](), 0
        for n, g, v in records:
            verdict = "no"
            if (n, g, v) in chosen:
                taken += 1
                verdict = f"take {g} {v}" if lookup else f"take {taken}" if kind == "count" else f"take {v}"
            lines.append(f"{n if lookup else f'{n} {g}'}/{arg} {verdict}")
        total, tail = 0, []
        for i, (n, _, v) in enumerate(chosen):
            if kind == "sum":
                tail += [signed_columns(total, "+", v)] if i else []
                total += v
            elif kind == "most":
                top = max(chosen[: i + 1], key=lambda r: r[2])
                tail.append(f"{n} {v}, top {top[0]} {top[2]}" if i else f"{n} {v}")
        tail += [f"{len(chosen)} taken"] if kind == "count" else []
        return Work("; ".join(lines + tail) + ".", answer, facts)

    def grade(self, example: Example, final: str) -> bool:
        """The last integer, or the last word of the kind that is asked for."""
        answer = example.answer.rpartition("|")[2]
        if answer.isdigit():
            return integers(final)[-1:] == [int(answer)]
        pools = (PEOPLE, THINGS, CITIES, JOBS, COLOURS)
        return last_of(final, next(p for p in pools if answer in p)) == answer


Order = tuple[str, int, str, int, int, str]  # who, how many, what, price each, day of the year, city
Wanted = tuple[tuple[Order, ...], tuple[str, ...]]


class Extraction(Family[Wanted]):
    """Orders told in sentences, wanted as JSON: names, counts, ISO dates, totals. Levels are fields; beyond: two orders."""

    name = "extraction"
    levels, beyond = (2, 3, 4, 5), 6
    _TELL = (
        "{who} from {city} ordered {n} {what} for {price} each on {day}.", "On {day}, {who} of {city} bought {n} {what} at {price} apiece.",
        "{who}, who lives in {city}, wants {n} {what} at {price} each, to be sent on {day}.",
        "Order of {day}: {n} {what}, {price} each, for {who} in {city}.",
    )  # fmt: skip
    asks = (
        "{s} Give {f} as JSON.",
        "Extract {f} as JSON: {s}",
        "{s}\nReturn a JSON object with {f}.",
        "Text: {s} Write {f} in JSON.",
        "{s} As JSON with the keys {f}, please.",
        "From this text make JSON with {f}: {s}",
        "Find {f} in this text and write JSON: {s}",
        "{s}\nWrite {f} of this order as a JSON object.",
        "JSON with {f} for this order: {s}",
        "Read the order and give JSON ({f}): {s}",
    )
    unseen = ("{s} I need {f} in machine-readable form (JSON).", "Turn this into JSON with the keys {f}: {s}")
    FIELDS = ("name", "city", "item", "count", "price", "date", "total")

    def draw(self, rng: random.Random, level: int) -> Wanted:
        """`level` fields of one order; beyond five, three fields of two orders. The total is asked for more often."""
        orders = tuple(
            (rng.choice(PEOPLE), rng.randrange(2, 10), rng.choice(FRUIT), rng.randrange(2, 40), rng.randrange(365), rng.choice(CITIES))
            for _ in range(2 if level > 5 else 1)
        )  # fmt: skip
        wanted = rng.sample(self.FIELDS[:-1], (3 if level > 5 else level) - 1)
        wanted.append(
            "total" if rng.random() < 0.6 else rng.choice([f for f in self.FIELDS if f not in wanted])
        )
        return orders, tuple(f for f in self.FIELDS if f in wanted)

    def key(self, x: Wanted) -> str:
        """The orders and the fields."""
        return f"{' '.join('-'.join(map(str, o)) for o in x[0])} {' '.join(x[1])}"

    def fields(self, rng: random.Random, x: Wanted) -> dict[str, object]:
        """Each order told in one of several ways."""
        said = [
            rng.choice(self._TELL).format(
                who=o[0], n=o[1], what=o[2], price=o[3], day=spoken(o[4]), city=o[5]
            )
            for o in x[0]
        ]
        names = [f"{f}{i}" for i in (1, 2) for f in x[1]] if len(x[0]) == 2 else list(x[1])
        return {"s": " ".join(said), "f": ", ".join(names)}

    def work(self, rng: random.Random, x: Wanted, effort: Effort) -> Work:
        """Nothing; what has to be worked out; every field, and totals by columns."""
        result: dict[str, object] = {}
        short, long = [], []
        for i, o in enumerate(x[0], 1):
            values = record(o)
            mark = str(i) if len(x[0]) == 2 else ""
            for f in x[1]:
                result[f + mark] = values[f]
                shown = f"{o[1]}*{o[3]}={o[1] * o[3]}" if f == "total" else values[f]
                if f in ("total", "date"):
                    short.append(f"{f}{mark} {shown}")
                long.append(
                    f"{f}{mark} {multiply_columns(o[3], o[1]) if f == 'total' else self._source(o, f)}"
                )
        final = json.dumps(result)
        trace = {
            "low": f"{len(result)} fields.", "medium": ("; ".join(short) or "; ".join(f"{k} {v}" for k, v in result.items())) + ".",
            "high": "; ".join(long) + f". Keys {', '.join(result)}.",
        }  # fmt: skip
        return Work(trace[effort], final)

    @staticmethod
    def _source(o: Order, f: str) -> str:
        """A value, with what it was read from where that differs."""
        month, day = month_day(o[4])
        text = str(record(o)[f])
        return f"{spoken(o[4])}: month {month + 1:02}, day {day:02}: {text}" if f == "date" else text

    def grade(self, example: Example, final: str) -> bool:
        """The last JSON object equals the record: keys, types and values."""
        found = value(final)
        wanted = json.loads(example.answer)
        return (
            isinstance(found, dict)
            and found == wanted
            and all(type(found[k]) is type(v) for k, v in wanted.items())
        )


def month_day(n: int) -> tuple[int, int]:
    """Month (0 to 11) and day of the n-th day of a year, n from 0."""
    month = 0
    while n >= MONTHS[month][1]:
        n -= MONTHS[month][1]
        month += 1
    return month, n + 1


def spoken(n: int) -> str:
    """`March 5`."""
    month, day = month_day(n)
    return f"{MONTHS[month][0]} {day}"


def record(o: Order) -> dict[str, object]:
    """Every field of an order; dates as MM-DD."""
    who, n, what, price, day, city = o
    month, d = month_day(day)
    return {"name": who, "city": city, "item": what, "count": n, "price": price, "date": f"{month + 1:02}-{d:02}", "total": n * price}  # fmt: skip

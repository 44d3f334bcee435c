"""Measures: units, the clock, the calendar, number bases.

Low states the result, medium the intermediate results, high every digit, carry and comparison.
"""

from __future__ import annotations

import random
from typing import ClassVar

from motet.tasks.answers import clock, integers, last_of
from motet.tasks.arithmetic import partial_products, product_columns
from motet.tasks.base import Effort, Example, direct, grade_integer
from motet.tasks.columns import add_columns, long_division, short_division, signed_columns
from motet.tasks.family import Family, Work
from motet.tasks.words import MONTHS, NAMES_OF_DAYS

# kind of question, larger unit, smaller unit, factor, amounts
Measure = tuple[str, str, str, int, tuple[int, ...]]
UNITS = (
    ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7), ("years", "months", 12),
    ("feet", "inches", 12), ("yards", "feet", 3), ("pounds", "ounces", 16), ("gallons", "pints", 8), ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000), ("kilograms", "grams", 1000), ("litres", "millilitres", 1000),
)  # fmt: skip
SINGULAR = {"feet": "foot", "inches": "inch"}
INVENTED = ("zorps", "blips", "quills", "mards", "tiffs", "gomms", "pells", "wims")


class Units(Family[Measure]):
    """Larger into smaller units, mixed amounts, and back; some units are invented and explained. Beyond: larger amounts."""

    name = "units"
    _UP = ("How many {s} are {n} {b}?", "Convert {n} {b} to {s}.", "{n} {b} in {s}", "Express {n} {b} in {s}.",
           "What is {n} {b} in {s}?", "Change {n} {b} into {s}.",
        "I have {n} {b}. How many {s} do I have?", "Turn {n} {b} into {s}.", "{n} {b}: how many {s}?", "Give {n} {b} in {s}.", "How long or heavy is {n} {b} in {s}?")  # fmt: skip
    _DOWN = ("How many {b} and {s} are {n} {s}?", "Convert {n} {s} to {b} and {s}.", "{n} {s} in {b} and {s}",
             "Express {n} {s} in {b} and {s}.", "Split {n} {s} into {b} and {s}.", "How many {b} and how many {s} make {n} {s}?",
        "I have {n} {s}. How many {b} and {s} do I have?", "Turn {n} {s} into {b} and {s}.", "{n} {s}: how many {b} and {s}?", "Give {n} {s} in {b} and {s}.", "Say {n} {s} in {b} and {s}.")  # fmt: skip
    _UNSEEN = (("If something takes {n} {b}, how much is that in {s}?", "Write {n} {b} using {s} only."),
               ("If something takes {n} {s}, how much is that in {b} and {s}?", "Write {n} {s} with {b} first and {s} second."))  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Measure:
        """1: n larger; 2: n larger and m smaller; 3: back, below 20 larger; 4: back, up to 60; beyond: up to 400."""
        big, small, factor = rng.choice(UNITS)
        if rng.random() < 0.3:
            big, small = rng.sample(INVENTED, 2)
            factor = rng.randrange(3, 13)
        top = (100, 60, 20, 60, 400)[level - 1]
        low = 100 if level == 5 else 2
        n, m = rng.randrange(low, top), rng.randrange(1, factor)
        if level == 1:
            return "up", big, small, factor, (n,)
        kind = "up" if level == 2 or (level == 5 and rng.random() < 0.5) else "down"
        return kind, big, small, factor, (n, m) if kind == "up" else (n * factor + m,)

    def key(self, x: Measure) -> str:
        """Units, factor and amounts."""
        return f"{x[0]} {x[1]} {x[2]} {x[3]} {' '.join(map(str, x[4]))}"

    def ask(self, rng: random.Random, x: Measure, unseen: bool) -> str:
        """Invented units are explained first."""
        kind, big, small, factor, amounts = x
        n = str(amounts[0]) if kind == "down" or len(amounts) == 1 else f"{amounts[0]} {big} and {amounts[1]}"
        up = kind == "up"
        form = rng.choice(self._UNSEEN[not up] if unseen else (self._UP if up else self._DOWN))
        mixed = up and len(amounts) == 2
        text = form.format(n=n, b=small if mixed else big, s=small)
        explained = big in INVENTED or rng.random() < 0.2
        return (
            f"There are {factor} {small} in one {SINGULAR.get(big, big[:-1])}. {text}" if explained else text
        )

    def work(self, rng: random.Random, x: Measure, effort: Effort) -> Work:
        """Nothing, product and sum (quotient and rest), or these by columns."""
        kind, _, _, f, amounts = x
        if kind == "up":
            n, m = amounts[0], amounts[1] if len(amounts) == 2 else 0
            total = n * f + m
            if effort == "low":
                return Work(direct(total), str(total))
            product, rest = _sketched(n, f), f"; {n * f}+{m}={total}" if m else ""
            if effort == "medium":
                return Work(f"{product}{rest}.", str(total))
            columns = _product(n, f)
            rest = f"; {n * f}+{m}: {add_columns(n * f, m)}" if m else ""
            return Work(f"{columns}{rest}.", str(total))
        n, m = divmod(amounts[0], f)
        if effort == "low":
            return Work(direct(f"{n}, {m}"), f"{n} and {m}")
        if effort == "medium":
            return Work(f"{n}*{f}={n * f}; rest {m}.", f"{n} and {m}")
        return Work(_how_often(amounts[0], f) + ".", f"{n} and {m}")

    def grade(self, example: Example, final: str) -> bool:
        """The integers of the answer, in order, units and all else aside."""
        wanted = integers(example.answer)
        return integers(final)[-len(wanted) :] == wanted


def _sketched(n: int, f: int) -> str:
    """n * f by partial products without carries; powers of ten in one step."""
    if f in (100, 1000):
        return f"{n}*{f}={n * f}"
    return partial_products(max(n, f), min(n, f)).rstrip(".")


def _product(n: int, f: int) -> str:
    """n * f by columns; powers of ten by appending zeros."""
    if f in (100, 1000):
        return f"{n} and {len(str(f)) - 1} zeros: {n * f}"
    return product_columns(max(n, f), min(n, f)) if min(n, f) < 100 else f"{n}*{f}={n * f}"


def _how_often(total: int, f: int) -> str:
    """How often the factor goes into the total: in one step, or digit by digit."""
    if total // f < 10:
        return f"{total}/{f}={total // f}, {total}-{total // f * f}={total % f}; so {total // f} r{total % f}"
    return long_division(total, f)


Moment = tuple[str, int, tuple[int, ...]]  # kind, minutes after midnight, minutes to add (or the other time)


class Clock(Family[Moment]):
    """Times of day: later, earlier, and how long between. Beyond: three durations in a row."""

    name = "clock"
    _LATER = ("It is {t}. What time is it in {d}?", "A train leaves at {t} and travels for {d}. When does it arrive?",
              "What time is it {d} after {t}?", "A film starts at {t} and lasts {d}. When does it end?", "{t} plus {d}", "What does the clock show {d} after {t}?",
        "Now it is {t}. Which time will it be in {d}?", "I start at {t} and need {d}. When am I done?", "{d} from {t}: what time?", "Add {d} to {t}.", "The cake goes in at {t} for {d}. When is it ready?")  # fmt: skip
    _EARLIER = ("It is {t}. What time was it {d} ago?", "A train arrives at {t} after {d}. When did it leave?",
                "What time is it {d} before {t}?", "A film ended at {t} and lasted {d}. When did it start?", "{t} minus {d}", "What did the clock show {d} before {t}?",
        "Now it is {t}. Which time was it {d} before?", "I must be there at {t} and need {d}. When do I leave?", "{d} before {t}: what time?", "Take {d} away from {t}.", "The cake was ready at {t} after {d}. When did it go in?")  # fmt: skip
    _BETWEEN = ("How many minutes are there from {t} to {u}?", "A film runs from {t} to {u}. How many minutes is that?",
                "It is {t}. In how many minutes will it be {u}?", "How long is it from {t} to {u}, in minutes?", "Count the minutes from {t} to {u}.", "How many minutes pass from {t} until {u}?",
        "I work from {t} to {u}. How many minutes is that?", "{t} to {u}: how many minutes?", "From {t} to {u} it takes how many minutes?", "How many minutes lie between {t} and {u}?")  # fmt: skip
    _UNSEEN: ClassVar = {
        "later": ("My watch shows {t}. What will it show after {d} have passed?", "Wait {d} from {t} on: which time is it?"),
        "earlier": ("My watch shows {t}. What did it show {d} earlier?", "Go back {d} from {t}: which time is it?"),
        "between": ("From {t} until {u}: give the minutes.", "Minutes that pass between {t} and {u}?"),
    }  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Moment:
        """1: minutes within an hour's reach; 2: hours and minutes; 3: differences; 4: two durations; beyond: three."""
        t = rng.randrange(24 * 60)
        if level == 1:
            return rng.choice(("later", "earlier")), t, (rng.randrange(5, 60),)
        if level == 3:
            return "between", t, (min(t + rng.randrange(10, 600), 24 * 60 - 1) if t < 24 * 60 - 1 else 0,)
        count = {2: 1, 4: 2, 5: 3}[level]
        durations = tuple(rng.randrange(1, 6) * 60 + rng.randrange(1, 60) for _ in range(count))
        return ("later" if count > 1 else rng.choice(("later", "earlier"))), t, durations

    def key(self, x: Moment) -> str:
        """Kind and times."""
        return f"{x[0]} {x[1]} {' '.join(map(str, x[2]))}"

    def ask(self, rng: random.Random, x: Moment, unseen: bool) -> str:
        """As a small story."""
        kind, t, more = x
        seen = {"later": self._LATER, "earlier": self._EARLIER, "between": self._BETWEEN}[kind]
        text = rng.choice(self._UNSEEN[kind] if unseen else seen)
        return text.format(t=show(t), u=show(more[0]), d=" and then ".join(map(_duration, more)))

    def work(self, rng: random.Random, x: Moment, effort: Effort) -> Work:
        """Nothing; minutes, hours and the time; the minutes by columns as well."""
        kind, t, more = x
        short, long = [], []
        if kind == "between":
            total = more[0] - t
            (h, m), (k, n) = divmod(t, 60), divmod(more[0], 60)
            k2, n2 = (k, n) if n >= m else (k - 1, n + 60)
            final = str(total)
            short.append(f"{k2 - h} h {n2 - m} min; {(k2 - h) * 60}+{n2 - m}={total}")
            turn = "" if n >= m else f"{n}<{m}, {n}+60={n2}, {k}-1={k2}; "
            long.append(
                f"{turn}{n2}-{m}={n2 - m}; {k2}-{h}={k2 - h}; {k2 - h}*60={(k2 - h) * 60}; {(k2 - h) * 60}+{n2 - m}={total}"
            )
        else:
            for d in more:
                after = (t + d if kind == "later" else t - d) % (24 * 60)
                shifted = _shift(t, d, kind == "later")
                short.append(shifted)
                long.append(f"{signed_columns(t % 60, '+' if kind == 'later' else '-', d % 60)}; {shifted}")
                t = after
            final = show(t)
        trace = {"low": direct(final), "medium": "; ".join(short) + ".", "high": "; ".join(long) + "."}
        return Work(trace[effort], final)

    def grade(self, example: Example, final: str) -> bool:
        """The last time, or for a span of time the last integer."""
        if ":" in example.answer:
            return clock(final) == clock(example.answer)
        return grade_integer(example, final)


def show(minutes: int) -> str:
    """Minutes after midnight as HH:MM."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _duration(minutes: int) -> str:
    h, m = divmod(minutes, 60)
    hours = f"{h} hour{'s' * (h > 1)}" if h else ""
    return " and ".join(filter(None, (hours, f"{m} minutes" if m else "")))


def _shift(t: int, d: int, later: bool) -> str:
    """One duration added or taken away, minutes first."""
    (h, m), (k, n) = divmod(t, 60), divmod(d, 60)
    sign = "+" if later else "-"
    minutes, hours = (m + n, h + k) if later else (m - n, h - k)
    text = f"{m}{sign}{n}={minutes}"
    carry = 0
    if minutes >= 60 or minutes < 0:
        carry = 1 if later else -1
        text += f"{'-' if later else '+'}60={minutes - 60 * carry}"
    text += f"; {h}{sign}{k}={hours}"
    if carry:
        text += f"{sign}1={hours + carry}"
    hours += carry
    if not 0 <= hours < 24:
        text += f"{'-' if hours > 23 else '+'}24={hours % 24}"
    return f"{text}; {show((t + d if later else t - d) % (24 * 60))}"


Day = tuple[str, int, int, int]  # kind, month or weekday, day of the month, days to go


class Dates(Family[Day]):
    """The weekday, or the date of a year without a leap day, some days later. Beyond: 100 to 200 days."""

    name = "dates"
    weights = (1, 1, 3, 4)
    _WEEKDAY = ("Today is {w}. Which weekday is it in {n} days?", "What day of the week is it {n} days after {w}?",
                "It is {w}. What day will it be {n} days from now?", "{w} plus {n} days is which day?", "Today is {w}. What day is it {n} days later?", "Which day of the week comes {n} days after {w}?",
        "Now it is {w}. Name the day in {n} days.", "I leave on {w} and come back {n} days later. On which day?", "{n} days from {w}: which weekday?", "Today: {w}. In {n} days?", "Which day is {n} days later than {w}?")  # fmt: skip
    _DATE = ("Which date is {n} days after {d}?", "What is the date {n} days after {d}?", "Today is {d}. What is the date in {n} days?",
             "{d} plus {n} days is which date?", "A visa is given on {d} for {n} days. On which date does it end?", "What is the date {n} days later than {d}?",
        "I leave on {d} and come back {n} days later. On which date?", "{n} days from {d}: which date?", "Today: {d}. In {n} days?", "Add {n} days to {d}.", "Which day of the year is {n} days after {d}?")  # fmt: skip
    _UNSEEN = (("Count {n} days on from a {w}; which day do you reach?", "If a letter takes {n} days and is sent on {w}, when is it there?"),
               ("Count {n} days on from {d}; which date do you reach?", "A letter is sent on {d} and takes {n} days; when is it there?"))  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Day:
        """1: weekday within 150 days; 2: weekday within 1000; 3: date within 30 days; 4: within 90."""
        if level <= 2:
            return (
                "weekday",
                rng.randrange(7),
                0,
                rng.randrange(8, 150) if level == 1 else rng.randrange(150, 1000),
            )
        month = rng.randrange(12)
        days = rng.randrange(*((3, 31), (31, 90), (100, 200))[level - 3])
        return "date", month, rng.randrange(1, MONTHS[month][1] + 1), days

    def key(self, x: Day) -> str:
        """All of it."""
        return " ".join(map(str, x))

    def ask(self, rng: random.Random, x: Day, unseen: bool) -> str:
        """Dates as `March 5`."""
        kind, first, day, n = x
        date = kind == "date"
        text = rng.choice(self._UNSEEN[date] if unseen else (self._DATE if date else self._WEEKDAY))
        return text.format(n=n, w=NAMES_OF_DAYS[first % 7], d=f"{MONTHS[first][0]} {day}")

    def work(self, rng: random.Random, x: Day, effort: Effort) -> Work:
        """Nothing, what is left over, or every month (the weeks taken away, the days counted on)."""
        kind, first, day, n = x
        if kind == "weekday":
            final = NAMES_OF_DAYS[(first + n) % 7]
            on = ", ".join(f"{NAMES_OF_DAYS[(first + i) % 7]} {i}" for i in range(n % 7 + 1))
            weeks = _how_often(n, 7)
            trace = {
                "low": direct(final),
                "medium": f"{n}%7={n % 7}; {n % 7} after {NAMES_OF_DAYS[first]}.",
                "high": f"{weeks}; {on}.",
            }
            return Work(trace[effort], final)
        month, left = first, day + n
        steps = [f"{day}+{n}={left}"]
        short = [f"{day}+{n}={left}"]
        while left > MONTHS[month][1]:
            name, length = MONTHS[month]
            steps.append(f"{name} {length}, {left}-{length}={left - length}")
            short.append(f"{left}-{length}={left - length}")
            left -= length
            month = (month + 1) % 12
        final = f"{MONTHS[month][0]} {left}"
        steps.append(f"{MONTHS[month][0]} {MONTHS[month][1]}, {left}")
        trace = {
            "low": direct(final),
            "medium": f"{', '.join(short)}; {final}.",
            "high": "; ".join(steps) + ".",
        }
        return Work(trace[effort], final)

    def grade(self, example: Example, final: str) -> bool:
        """The last weekday; or the last month and the last integer."""
        if example.answer in NAMES_OF_DAYS:
            return last_of(final, NAMES_OF_DAYS) == example.answer
        month, day = example.answer.split()
        return last_of(final, [m for m, _ in MONTHS]) == month and integers(final)[-1:] == [int(day)]


Digits = tuple[str, int, int]  # kind, base, value


class Bases(Family[Digits]):
    """Between decimal and binary, base 3, 5, 8 and sixteen. Beyond: numbers up to 2000."""

    name = "bases"
    weights = (1, 1, 3, 3)
    NAMES: ClassVar = {2: ("binary", "base 2"), 3: ("base 3",), 4: ("base 4",), 5: ("base 5",), 6: ("base 6",), 7: ("base 7",),
             8: ("octal", "base 8"), 9: ("base 9",), 16: ("hexadecimal", "base 16")}  # fmt: skip
    _TO = (
        "Write {n} in {b}.",
        "Convert {n} to {b}.",
        "What is {n} in {b}?",
        "{n} in {b}",
        "Give the {b} form of {n}.",
        "Express {n} in {b}.",
        "How do you write {n} in {b}?",
        "{n}, but in {b}?",
        "Show {n} in {b}.",
        "Change {n} to {b}.",
    )
    _FROM = ("The {b} number {n} in decimal?", "Convert {n} from {b} to decimal.", "What is the value of {n} in {b}, written in decimal?",
             "{n} is written in {b}. Which decimal number is it?", "Give the decimal form of {n} ({b}).", "Turn {n}, written in {b}, into decimal.",
        "Change {n} from {b} to decimal.", "How much is {n}, if it is {b}?", "{n} ({b}) in decimal?", "Which number is {n} in {b}?", "Show the {b} number {n} in decimal.")  # fmt: skip
    _UNSEEN = (
        ("How does one write {n} if only the digits of {b} exist?", "Turn {n} into {b}."),
        ("Somebody wrote {n} in {b}; how much is that?", "Read {n} as {b}: which number is it?"),
    )

    def draw(self, rng: random.Random, level: int) -> Digits:
        """1: binary below 128; 2: others below 100; 3: all below 300; 4: all below 700; beyond: 700 to 2000."""
        base = (
            2
            if level == 1
            else rng.choice((3, 4, 5, 6, 7, 8, 9) if level == 2 else (2, 3, 4, 5, 6, 7, 8, 9, 16))
        )
        low, top = ((8, 128), (10, 100), (20, 300), (100, 700), (700, 2000))[level - 1]
        return rng.choice(("to", "from")), base, rng.randrange(low, top)

    def key(self, x: Digits) -> str:
        """Kind, base, value."""
        return " ".join(map(str, x))

    def ask(self, rng: random.Random, x: Digits, unseen: bool) -> str:
        """Bases by a name or by number."""
        kind, base, n = x
        text = rng.choice(
            self._UNSEEN[kind == "from"] if unseen else (self._TO if kind == "to" else self._FROM)
        )
        return text.format(b=rng.choice(self.NAMES[base]), n=n if kind == "to" else in_base(n, base))

    def work(self, rng: random.Random, x: Digits, effort: Effort) -> Work:
        """Nothing; every division (product, sum) with its result; each of them in full."""
        kind, base, n = x
        digits = in_base(n, base)
        if kind == "from":
            value, short, long = 0, [], []
            for i, d in enumerate(digits):
                new = value * base + int(d, 16)
                short.append(
                    f"{value}*{base}={value * base}, {value * base}+{int(d, 16)}={new}" if i else str(new)
                )
                times = f"{value}*{base}={value * base}" if value < 10 else _product(value, base)
                long.append(f"{times}; {value * base}+{int(d, 16)}={new}" if i else f"{new}")
                value = new
            trace = {"low": direct(n), "medium": "; ".join(short) + ".", "high": "; ".join(long) + "."}
            return Work(trace[effort], str(n))
        short, long, left = [], [], n
        while left:
            q, r = divmod(left, base)
            short.append(short_division(left, base))
            known = digits[len(digits) - len(long) - 1 :]
            long.append(f"{left} by {base}: {long_division(left, base)}{f'={r:X}' if r > 9 else ''}, {known}")
            left = q
        trace = {
            "low": direct(digits),
            "medium": "; ".join(short) + ".",
            "high": "; ".join(long) + ".",
        }
        return Work(trace[effort], digits)

    def grade(self, example: Example, final: str) -> bool:
        """The last number, in the digits of the answer."""
        words = [w.strip(".,;:!?*`'\"()") for w in final.replace("=", " ").split()]
        found = [w.upper().removeprefix("0X").removeprefix("0B").removeprefix("0O") for w in words if w]
        return bool(found) and found[-1].lstrip("0") == example.answer


def in_base(n: int, base: int) -> str:
    """n >= 0 in digits 0-9, A-F."""
    out = ""
    while n:
        n, r = divmod(n, base)
        out = "0123456789ABCDEF"[r] + out
    return out or "0"

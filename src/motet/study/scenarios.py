"""Conversations that need tools: what is asked, which tools there are, which calls answer it, how an answer is graded.

Each comes with the steps of a scripted policy that does it well. Real tools: the sandboxed session, a browser over a
folder written for the occasion, Python functions. Knows no engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from motet.study.scripted import Step, answer, call_browser, call_function, call_python, think
from motet.tools import FunctionTool, Tool
from motet.tools.browser import BrowserTool
from motet.tools.browser.corpus import LocalBackend
from motet.tools.python import PythonTool

Grade = Callable[[Sequence[str]], bool]
"""Whether the answers, one a turn, are right."""


@dataclass(frozen=True)
class Wanted:
    """A call that a right conversation contains: the tool, and whether its arguments do."""

    recipient: str
    right: Callable[[str], bool] = lambda arguments: True


@dataclass(frozen=True)
class Scenario:
    """A conversation to hold. `tools` makes fresh ones, given a folder of their own."""

    name: str
    questions: tuple[str, ...]
    tools: Callable[[Path], list[Tool]]
    grade: Grade
    scripts: Mapping[str, Sequence[Step]]
    wanted: tuple[Wanted, ...] = ()
    artefacts: int = 0
    instructions: str | None = field(default=None)


PAGES = {
    "owls.md": "# Owls of the valley\n\nThe barn owl weighs 480 grams and hunts at night.\n\nSee [the census](census.html).\n",
    "census.html": "<title>Census of 2023</title><h1>Census</h1><p>Volunteers counted 37 barn owls and 112 bats in the valley.</p>",
    "bats.txt": "Bats roost in the old mill. They weigh 9 grams each.\n",
}


def corpus(folder: Path) -> BrowserTool:
    """A browser over a small folder."""
    docs = folder / "valley"
    docs.mkdir(exist_ok=True)
    for name, text in PAGES.items():
        (docs / name).write_text(text, "utf-8")
    return BrowserTool(LocalBackend(docs))


def weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, object]:
    """Gets the weather in a city.

    Args:
        city: The name of the city.
        unit: The unit of the temperature.
    """
    degrees = {"Oslo": 4, "Lima": 19}.get(city)
    if degrees is None:
        return {"error": f"no station in {city}"}
    return {"city": city, "temperature": degrees if unit == "celsius" else degrees * 9 / 5 + 32, "unit": unit}


@dataclass(frozen=True)
class Guest:
    """Somebody who eats."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    meal: Literal["meat", "fish", "vegan"]


def book(hour: int, guests: list[Guest], terrace: bool = False) -> dict[str, object]:
    """Books a table.

    Args:
        hour: From 0 to 23.
        guests: Everyone who comes.
        terrace: Whether to sit outside.
    """
    return {"table": 10 * len(guests) + sum(g.meal == "vegan" for g in guests), "hour": hour}


def _cite(results: Sequence[str], words: str) -> str:
    """A mark that points at the line of the last display which holds these words."""
    for shown in reversed(results):
        cursor = re.match(r"\[(\d+)\]", shown)
        line = next((m[1] for m in re.finditer(r"^L(\d+): (.*)$", shown, re.M) if words in m[2]), None)
        if cursor and line:
            return f"【{cursor[1]}†L{line}】"
    return ""


def _value(shown: str, key: str) -> str:
    """A number in a JSON result; a result that is none of that kind has none."""
    m = re.search(rf'"{key}": ?(-?[\d.]+)', shown)
    return m[1] if m else "an unknown number of"


def _link(results: Sequence[str], title: str) -> int:
    """The id of a link on the last display."""
    m = re.search(rf"【(\d+)†{re.escape(title)}", results[-1])
    return int(m[1]) if m else 0


def _has(*words: str) -> Grade:
    return lambda finals: (
        bool(finals) and all(re.search(rf"(?<![\d.]){re.escape(w)}(?![\d])", finals[-1]) for w in words)
    )


_PRIMES = "Use python: what is the sum of the first 100 primes?"
_PRIMES_CODE = """def primes(n):
    found = []
    k = 2
    while len(found) < n:
        if all(k % p for p in found):
            found.append(k)
        k += 1
    return found
print(sum(primes(100)))"""
_STORE, _PRODUCT = (
    "In python, keep the numbers 3, 5 and 8 in a list called xs.",
    "In the same session: what is the product of xs?",
)
_WEATHER = "What is the temperature in Oslo, in fahrenheit? Use the weather function."
_TABLE = (
    "Book a table for Ada, who eats fish, and Bo, who is vegan, at seven in the evening. Which table is it?"
)
_CENSUS = "Search the documents: how many barn owls were counted in the valley? Cite the page."
_WEIGHT = (
    "From the documents: how many grams do all counted barn owls weigh together? Compute it with python."
)
_PLOT = "Plot the squares of 1 to 5 with python, save the plot as squares.png, and give their sum."
_PLAIN = "Without any tool: what is 6 times 7?"


def _python(folder: Path) -> list[Tool]:
    return [PythonTool()]


SCENARIOS = (
    Scenario(
        "python",
        (_PRIMES,),
        _python,
        _has("24133"),
        {
            _PRIMES: [
                think("I should compute this.") + call_python(_PRIMES_CODE),
                lambda r: answer(f"The sum is {r[-1]}."),
            ]
        },
        (Wanted("python", lambda code: "prime" in code or "sympy" in code or "%" in code),),
    ),
    Scenario(
        "state",
        (_STORE, _PRODUCT),
        _python,
        _has("120"),
        {
            _STORE: [call_python("xs = [3, 5, 8]"), answer("The list is kept.")],
            _PRODUCT: [
                think("The list is in the session.") + call_python("import math\nmath.prod(xs)"),
                lambda r: answer(f"The product is {r[-1]}."),
            ],
        },
        (
            Wanted("python", lambda code: "xs" in code and "3" in code),
            Wanted("python", lambda code: "xs" in code and "[3" not in code),
        ),
    ),
    Scenario(
        "function",
        (_WEATHER,),
        lambda folder: [FunctionTool(weather)],
        _has("39.2"),
        {
            _WEATHER: [
                think("The function knows.")
                + call_function("weather", '{"city": "Oslo", "unit": "fahrenheit"}'),
                lambda r: answer(f"It is {_value(r[-1], 'temperature')} degrees Fahrenheit in Oslo."),
            ]
        },
        (Wanted("functions.weather", lambda a: '"Oslo"' in a and "fahrenheit" in a),),
    ),
    Scenario(
        "nested",
        (_TABLE,),
        lambda folder: [FunctionTool(book)],
        _has("21"),
        {
            _TABLE: [
                think("Two guests at nineteen.")
                + call_function(
                    "book",
                    '{"hour": 19, "guests": [{"name": "Ada", "meal": "fish"}, {"name": "Bo", "meal": "vegan"}]}',
                ),
                lambda r: answer(f"It is table {_value(r[-1], 'table')}."),
            ]
        },
        (Wanted("functions.book", lambda a: "19" in a and '"fish"' in a and '"vegan"' in a),),
    ),
    Scenario(
        "browser",
        (_CENSUS,),
        lambda folder: [corpus(folder)],
        lambda finals: _has("37")(finals) and "local://valley/census.html" in finals[-1],
        {
            _CENSUS: [
                think("The documents may say.")
                + call_browser("search", '{"query": "barn owls counted valley"}'),
                lambda r: (
                    think("The census looks right.")
                    + call_browser("open", json.dumps({"id": _link(r, "Census")}))
                ),
                lambda r: answer(f"There were 37 barn owls{_cite(r, '37 barn owls')}."),
            ]
        },
        (Wanted("browser.search", lambda a: "owl" in a.lower()), Wanted("browser.open")),
    ),
    Scenario(
        "interleaved",
        (_WEIGHT,),
        lambda folder: [corpus(folder), PythonTool()],
        _has("17760"),
        {
            _WEIGHT: [
                think("I need the weight of one and the count.")
                + call_browser("search", '{"query": "barn owl weighs grams"}'),
                lambda r: (
                    think("First the weight.") + call_browser("open", json.dumps({"id": _link(r, "Owls")}))
                ),
                lambda r: (
                    think("480 grams. Now the count.")
                    + call_browser("open", json.dumps({"id": _link(r, "the census")}))
                ),
                think("37 owls. I multiply.") + call_python("print(37 * 480)"),
                lambda r: answer(
                    f"Together they weigh {r[-1]} grams{_cite(r, '480 grams')}{_cite(r, '37 barn owls')}."
                ),
            ]
        },
        (Wanted("browser.open"), Wanted("python", lambda code: "480" in code and "37" in code)),
    ),
    Scenario(
        "plot",
        (_PLOT,),
        _python,
        _has("55"),
        {
            _PLOT: [
                think("I draw and add up.")
                + call_python(
                    "import matplotlib.pyplot as plt\nys = [n * n for n in range(1, 6)]\nplt.plot(range(1, 6), ys)\n"
                    "plt.savefig('/mnt/data/squares.png')\nplt.close()\nprint(sum(ys))"
                ),
                answer("The plot is in squares.png; the squares add up to 55."),
            ]
        },
        (Wanted("python", lambda code: "plot" in code),),
        artefacts=1,
    ),
    Scenario(
        "plain",
        (_PLAIN,),
        lambda folder: [],
        _has("42"),
        {_PLAIN: [think("Six sevens are forty-two.") + answer("It is 42.")]},
    ),
)

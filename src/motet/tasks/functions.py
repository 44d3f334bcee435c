"""A developer's functions: the right one with the right arguments, none where none fits or none is needed, results told in words.

Names, parameters and types are put together anew each time, so that arguments are read off the schema and not remembered.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from motet.harmony import DeveloperContent, Function, Message, Namespace
from motet.tasks.base import Effort, Example, Scene, Split
from motet.tasks.talk import Talk, aside, either, grade_aside, scene_example, thought
from motet.tasks.tools import answered, thinking
from motet.tasks.words import CITIES, COLOURS, FRUIT, PEOPLE, THINGS

PREAMBLE = "Tell the user what you do before you call a function."
NOTHING = "I can't look that up with the tools I have."
_VERBS = (
    "get_{a}",
    "find_{a}",
    "read_{a}",
    "check_{a}",
    "{a}_of",
    "query_{a}",
    "{a}_lookup",
    "fetch_{a}",
    "show_{a}",
    "current_{a}",
)
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "city": ("weather", "temperature", "population", "humidity", "mayor", "wind", "altitude"), "person": ("phone", "age", "address", "salary", "height", "office"),
    "item": ("price", "weight", "stock", "colour", "rating", "size", "owner"), "order": ("status", "total", "driver", "delay"),
    "room": ("temperature", "capacity", "key", "guest"), "flight": ("gate", "delay", "seat", "status"),
}  # fmt: skip
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "city": ("city", "place", "location", "town"), "person": ("person", "name", "user", "employee"), "item": ("item", "product", "name", "article"),
    "order": ("order", "order_id", "id", "number"), "room": ("room", "room_number", "id"), "flight": ("flight", "code", "flight_code"),
}  # fmt: skip
_OPTIONS = (
    ("unit", ("metric", "imperial")), ("unit", ("celsius", "kelvin")), ("currency", ("euro", "dollar", "yen")), ("language", ("english", "french", "german")),
    ("format", ("short", "long")), ("day", ("today", "tomorrow", "monday")),
)  # fmt: skip
_NAMED = {"city": CITIES, "person": PEOPLE, "item": (*THINGS, *FRUIT)}


@dataclass(frozen=True)
class Tool:
    """A function about one attribute of one kind of thing; `option` is a further parameter with fixed choices."""

    kind: str
    attribute: str
    name: str
    parameter: str
    option: tuple[str, tuple[str, ...]] | None
    needed: bool

    @property
    def whole(self) -> bool:
        """Whether the parameter is an integer."""
        return self.kind in ("order", "room")

    @property
    def function(self) -> Function:
        """As it is declared."""
        properties: dict[str, Any] = {
            self.parameter: {
                "type": "integer" if self.whole else "string",
                "description": f"The {self.kind}.",
            }
        }
        if self.option:
            properties[self.option[0]] = {"type": "string", "enum": list(self.option[1])}
        required = [self.parameter] + ([self.option[0]] if self.option and self.needed else [])
        schema = {"type": "object", "properties": properties, "required": required}
        return Function(self.name, f"Gets the {self.attribute} of a {self.kind}.", schema)


def tool(rng: random.Random, kind: str = "", attribute: str = "") -> Tool:
    """A function of some kind, put together at random."""
    kind = kind or rng.choice(tuple(_ATTRIBUTES))
    attribute = attribute or rng.choice(_ATTRIBUTES[kind])
    name = rng.choice(_VERBS).format(a=attribute) if rng.random() < 0.8 else f"{kind}_{attribute}"
    if rng.random() < 0.15:
        head, *rest = name.split("_")
        name = head + "".join(w.capitalize() for w in rest)
    option = rng.choice(_OPTIONS) if rng.random() < 0.35 else None
    return Tool(kind, attribute, name, rng.choice(_PARAMETERS[kind]), option, rng.random() < 0.5)


class Functions(Talk):
    """Look-ups by function: one call or two, among others that do not fit, or no call at all."""

    name = "functions"
    _ASKS: ClassVar = ("What is the {a} of {x}?", "Tell me the {a} of {x}.", "I need the {a} of {x}.", "Find the {a} of {x}.", "{x}: what is the {a}?",
                       "Please look up the {a} of {x}.", "Do you know the {a} of {x}?", "Give me the {a} for {x}.")  # fmt: skip
    _HELD: ClassVar = ("Could you see which {a} {x} has?", "My question is about {x}: its {a}, please.")
    _OPTED: ClassVar = ("{q} In {o}, please.", "{q} Use {o}.", "{q} ({o})")
    _PLEA: ClassVar = ("{q} Use the {f} function.", "Call {f}: {q}", "{q}")

    def make(self, rng: random.Random, effort: Effort, split: Split, unseen: bool) -> Example:
        """One call 6 : two calls 1.5 : no function fits 1 : none is needed 1.5 : none is declared 1."""
        case = rng.choices(("one", "two", "unfit", "aside", "none"), (6, 1.5, 1, 1.5, 1))[0]
        wanted = tool(rng)
        others = self._others(rng, wanted)
        declared = [*others, wanted] if case in ("one", "two", "aside") else others if case == "unfit" else []
        rng.shuffle(declared)
        told = rng.random() < 0.3 and case != "none"
        space = Namespace("functions", None, tuple(t.function for t in declared))
        scene = (
            Scene(developer=DeveloperContent(PREAMBLE if told else None, (space,))) if declared else Scene()
        )
        if case == "aside":
            inner = aside(rng, effort, split)
            high = "The functions are for other things. I work it out myself. "
            work = thought(effort, "", "No tool is needed. ", high) + inner.analysis_text
            key, facts = f"aside {wanted.name} {inner.key}", {"inner": inner, "calls": []}
            return scene_example(key, inner.prompt, work, inner.final, scene, effort, facts)
        names = rng.sample(_NAMED[wanted.kind], 2) if wanted.kind in _NAMED else self._codes(rng, wanted)
        asked = names[: 2 if case == "two" else 1]
        option = wanted.option
        chosen = rng.choice(option[1]) if option and (wanted.needed or rng.random() < 0.4) else ""
        question = either(rng, unseen, self._ASKS, self._HELD).format(
            a=wanted.attribute, x=" and of ".join(self._said(wanted, n) for n in asked)
        )
        if chosen:
            question = rng.choice(self._OPTED).format(q=question, o=chosen)
        key = f"{case} {wanted.name} {wanted.parameter} {' '.join(asked)} {chosen}"
        if case in ("unfit", "none"):
            have = ", ".join(t.name for t in declared) or "none"
            high = f"The question is about the {wanted.attribute} of a {wanted.kind}. {self._judged(declared, wanted)}. No function gives it. I say so."
            work = thought(effort, "No tool.", f"Functions: {have}. None fits.", high)
            return scene_example(
                key, question, work, NOTHING, scene, effort, {"inner": None, "calls": [], "answers": []}
            )
        question = rng.choices(self._PLEA, (1, 1, 4))[0].format(q=question, f=wanted.name)
        arguments = [
            {
                wanted.parameter: int(n) if wanted.whole else n,
                **({option[0]: chosen} if option and chosen else {}),
            }
            for n in asked
        ]
        turn, answers = self._turn(rng, effort, wanted, declared, asked, arguments, told)
        facts = {
            "inner": None,
            "answers": answers,
            "calls": [(f"functions.{wanted.name}", a) for a in arguments],
        }
        return scene_example(key, question, "", turn[-1].text, scene, effort, facts, turn)

    @staticmethod
    def _others(rng: random.Random, wanted: Tool) -> list[Tool]:
        """Up to four functions about something else."""
        found: list[Tool] = []
        for _ in range(rng.choice((0, 0, 1, 2, 3, 4))):
            other = tool(rng)
            taken = (wanted.name, *(o.name for o in found))
            if other.attribute != wanted.attribute and other.name not in taken:
                found.append(other)
        return found

    @staticmethod
    def _judged(declared: list[Tool], wanted: Tool) -> str:
        """What every function is about beside what is wanted."""
        lines = (
            f"{t.name} {t.attribute}/{wanted.attribute} {'yes' if t.attribute == wanted.attribute else 'no'}"
            for t in declared
        )
        return f"Functions: {'; '.join(lines) or 'none'}"

    @staticmethod
    def _codes(rng: random.Random, wanted: Tool) -> list[str]:
        if wanted.kind == "flight":
            return [
                f"{rng.choice('ABCDKLMX')}{rng.choice('ABCDKLMX')}{rng.randrange(100, 1000)}"
                for _ in range(2)
            ]
        return [str(n) for n in rng.sample(range(100, 10_000), 2)]

    @staticmethod
    def _said(wanted: Tool, name: str) -> str:
        return (
            name
            if wanted.kind in ("city", "person")
            else f"{wanted.kind} {name}"
            if wanted.kind not in _NAMED
            else f"the {name}"
        )

    @staticmethod
    def _turn(
        rng: random.Random, effort: Effort, wanted: Tool, declared: list[Tool], asked: list[str], arguments: list[dict[str, Any]], told: bool
    ) -> tuple[tuple[Message, ...], list[str]]:  # fmt: skip
        """Calls and their results one after the other, then the answer in words."""
        messages: list[Message] = []
        answers: list[str] = []
        for i, (name, given) in enumerate(zip(asked, arguments, strict=True)):
            text = json.dumps(given)
            high = f"The user wants the {wanted.attribute} of {name}. {Functions._judged(declared, wanted)}. {wanted.name} gives it. Arguments: {text}."
            why = thought(
                effort, "", f"{wanted.name} for {name}.", high if not i else f"Now {name}. Arguments: {text}."
            )
            messages += thinking(why)
            if told:
                messages.append(
                    Message("assistant", f"I look up the {wanted.attribute} of {name}.", "commentary")
                )
            call = Message("assistant", text, "commentary", f"functions.{wanted.name}", "<|constrain|>json")
            value: Any = rng.randrange(1, 1000) if rng.random() < 0.7 else rng.choice(COLOURS)
            shape = rng.choice(("plain", "named", "full"))
            result = {
                "plain": value,
                "named": {wanted.attribute: value},
                "full": {**given, wanted.attribute: value},
            }[shape]
            messages += [call, answered(call, json.dumps(result))]
            answers.append(str(value))
        last = thought(
            effort,
            "",
            f"{', '.join(answers)}.",
            f"The function says {' and '.join(answers)}. That answers the question.",
        )
        final = " ".join(
            f"The {wanted.attribute} of {n} is {v}." for n, v in zip(asked, answers, strict=True)
        )
        return (*messages, *thinking(last), Message("assistant", final, "final")), answers

    def grade(self, example: Example, final: str) -> bool:
        """What the functions said is told; where there was nothing to call, the answer or the admission."""
        if example.facts["inner"] is not None:
            return grade_aside(example, final)
        answers = example.facts["answers"]
        if not answers:
            return any(w in final.casefold() for w in ("can't", "cannot", "no tool", "not able", "unable"))
        return all(a.casefold() in final.casefold() for a in answers)

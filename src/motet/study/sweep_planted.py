"""Planted defects of the effort sweep, each with the check that must fail, and the clean case, which passes.

The player knows the answers (it is told the questions) and thinks by counting; how long and how well is the plant.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from motet.study.played import Heard, Plays, player, speaks
from motet.study.questions import held_out
from motet.study.subject import Native
from motet.tasks import Example

LENGTH = {"low": 8, "medium": 24, "high": 72}
SKILL = {"low": 0.3, "medium": 0.6, "high": 0.9}


@dataclass(frozen=True)
class Planted:
    """A way to misbehave and the check it must fail (by the beginning of its name); None for the clean case."""

    fails: str | None
    effort: Callable[[str], str] = lambda effort: effort  # the effort whose length is used
    skill: Callable[[str], float] = lambda effort: SKILL[effort]
    spoil: Callable[[str], str] = lambda text: text


def _other(effort: str) -> str:
    return {"low": "high", "medium": "medium", "high": "low"}[effort]


def _in_answer(text: str) -> str:
    """The same words, said to the user instead of thought."""
    thought, _, rest = text.removeprefix(_THINKS).partition("<|end|>")
    return f"{_THINKS}Well.<|end|>" + rest.replace("final<|message|>", f"final<|message|>{thought}\n", 1)


def _capped(text: str, words: int) -> str:
    """Thinking cut after so many words, its end passed off as the answer, and nothing said about it."""
    thought = text.removeprefix(_THINKS).partition("<|end|>")[0]
    kept = thought.split()[:words]
    return text if len(kept) < words else speaks(" ".join(kept), f"So {' '.join(kept[-2:])}, then")


def _again(text: str, rounds: int) -> str:
    """The whole of a long thought again and again, then the answer as if nothing had been: a period of hundreds of tokens."""
    thought, _, rest = text.removeprefix(_THINKS).partition("<|end|>")
    long = f"{thought} {' '.join(str(int(w) * 7 % 1000) for w in thought.split() * 2)}"
    return f"{_THINKS}{' '.join([long] * rounds)}<|end|>{rest}"


def _counting(text: str) -> str:
    """Rounds that differ in their number alone."""
    thought, _, rest = text.removeprefix(_THINKS).partition("<|end|>")
    rounds = " ".join(f"Step {n}: let me check all of it once again from the start." for n in range(1, 70))
    return f"{_THINKS}{thought} {rounds}<|end|>{rest}"


_THINKS = "<|channel|>analysis<|message|>"
PLANTED: dict[str, Planted] = {
    "clean": Planted(None),
    "effort ignored": Planted("effort is obeyed", effort=lambda e: "medium", skill=lambda e: 0.6),
    "effort reversed": Planted("efforts are in order", effort=_other, skill=lambda e: SKILL[_other(e)]),
    "better at low": Planted("efforts are in order", skill=lambda e: SKILL[_other(e)]),
    "longer, not better": Planted("longer thinking pays", skill=lambda e: 0.6),
    "high no better than medium": Planted(
        "longer thinking pays, medium < high", skill=lambda e: min(0.6, SKILL[e])
    ),
    "high as short as medium": Planted(
        "effort is obeyed, medium < high", effort=lambda e: "low" if e == "low" else "medium"
    ),
    "thinks in the answer": Planted("effort is obeyed", spoil=_in_answer),
    "cut in silence": Planted("thinking is not cut", spoil=lambda t: _capped(t, 72)),
    "stops unended": Planted("few are truncated", spoil=lambda t: t.removesuffix("<|return|>")),
    "truncated": Planted("few are truncated", spoil=lambda t: t.partition("<|end|>")[0]),
    "looping": Planted("few are going round", spoil=lambda t: t.partition("<|end|>")[0] + " wait no" * 120),
    "looping, long period": Planted("few are going round", spoil=lambda t: _again(t, 4)),
    "looping, a counter": Planted("few are going round", spoil=_counting),
    "empty": Planted(
        "few empty",
        spoil=lambda t: (
            t.partition("<|start|>")[0] + "<|start|>assistant<|channel|>final<|message|><|return|>"
        ),
    ),
}


def planted(name: str, tasks: tuple[str, ...], questions: int, seed: int = 0) -> Native:
    """The subject that misbehaves so, on these very questions."""
    known = {e.prompt: e for t in tasks for e in held_out(t, "high", questions, seed)}
    return player(name, _plays(PLANTED[name], known))


def _plays(how: Planted, known: dict[str, Example]) -> Plays:
    def play(heard: Heard) -> str:
        prompt = heard.last("user")
        rng = random.Random(f"{prompt} {heard.effort} {heard.seed}")
        n = round(LENGTH[how.effort(heard.effort)] * rng.uniform(0.8, 1.2))
        example = known.get(prompt)
        right = example is not None and rng.random() < how.skill(heard.effort)
        thought = " ".join(str(rng.randrange(1000)) for _ in range(n))
        return how.spoil(speaks(thought, accepted(example) if right and example else "I do not know."))

    return play


def accepted(example: Example) -> str:
    """A final message the grader accepts: the teacher's at high effort, or the bare answer."""
    from motet.tasks import TASKS

    return example.final if TASKS[example.task].grade(example, example.final) else example.answer

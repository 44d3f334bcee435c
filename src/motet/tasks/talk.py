"""Tasks whose point is the conversation around a question: rules, tools, earlier turns. What they have in common.

The question itself is often one of a family, asked at an easy level, so that following a rule and doing work go together.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.errors import UsageError
from motet.harmony import Message
from motet.harmony.messages import IDENTITY
from motet.tasks.arithmetic import Addition, Multiplication
from motet.tasks.base import Band, Effort, Example, Scene, Split, split_of
from motet.tasks.family import Family
from motet.tasks.lists import Counting, Sorting
from motet.tasks.serial import Modular
from motet.tasks.stories import Stories
from motet.tasks.strings import Letters

ASIDE: tuple[tuple[Family[Any], tuple[int, ...], float], ...] = (
    (Addition(), (1, 2), 4), (Multiplication(), (1, 2), 2), (Counting(), (6,), 1), (Sorting(), (3, 4), 1), (Modular(), (2, 3), 1),
    (Letters(), (1,), 1), (Stories(), (1, 2), 1),
)  # fmt: skip
KNOWN = {family.name: family for family, _, _ in ASIDE}


class Talk(ABC):
    """A task whose examples are whole scenes. `make` draws one; the split and the bands are seen to here.

    `make` must ask the same at every effort: what it draws for the work comes from `apart`, never from `rng` itself.
    """

    name: str

    @abstractmethod
    def make(self, rng: random.Random, effort: Effort, split: Split, unseen: bool) -> Example:
        """A scene of any split; `unseen`: in wordings that training never uses. Its work is of `split`."""

    @abstractmethod
    def grade(self, example: Example, final: str) -> bool:
        """Whether the text of the final message answers the example."""

    def example(self, rng: random.Random, effort: Effort, split: Split, band: Band = "in") -> Example:
        """A fresh example of `split`. UsageError for bands in training, and for "size", which scenes do not have."""
        if band == "size" or (band == "words" and split == "train"):
            raise UsageError(
                f"{self.name} has no band {band!r} for the split {split!r}; ask for 'in', or for 'words' of 'test'."
            )
        while True:
            found = self.make(rng, effort, split, band == "words")
            if split_of(found.key) == split:
                return replace(found, task=self.name, effort=effort, band=band)


def apart(rng: random.Random) -> random.Random:
    """A generator of its own, so that what it draws does not move the rest."""
    return random.Random(rng.getrandbits(64))


def either(rng: random.Random, unseen: bool, seen: Sequence[str], held: Sequence[str]) -> str:
    """One of the wordings for training, or of those held out."""
    return rng.choice(held if unseen else seen)


def aside(rng: random.Random, effort: Effort, split: Split) -> Example:
    """An easy question of some family."""
    family, levels, _ = rng.choices(ASIDE, [share for _, _, share in ASIDE])[0]
    return family.example(apart(rng), effort, split, rng.choice(levels))


def grade_aside(example: Example, final: str) -> bool:
    """The grade of the question that `facts["inner"]` holds."""
    inner: Example = example.facts["inner"]
    return KNOWN[inner.task].grade(inner, final)


def ruled(above: str, rule: str, history: tuple[Message, ...] = ()) -> Scene:
    """A scene with a rule in the system message, below the identity; or in the developer's; or said by the user before."""
    from motet.harmony import DeveloperContent

    if above == "system":
        return Scene(f"{IDENTITY}\n\n{rule}", history=history)
    if above == "developer":
        return Scene(developer=DeveloperContent(rule), history=history)
    return Scene(history=(Message("user", rule), *history))


def thought(effort: Effort, low: str, medium: str, high: str) -> str:
    """The analysis of an effort; each is the beginning of the next one's work, not a shorter way to say it."""
    return {"low": low, "medium": medium, "high": high}[effort]


def scene_example(
    key: str, prompt: str, analysis: str, final: str, scene: Scene, effort: Effort, facts: Mapping[str, Any],
    turn: tuple[Message, ...] = (),
) -> Example:  # fmt: skip
    """An example of a Talk; the task's name is filled in by `example`."""
    return Example(
        "", effort, key, prompt, ((analysis, True),), final, final, scene=scene, turn=turn, facts=facts
    )

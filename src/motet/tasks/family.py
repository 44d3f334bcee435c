"""A family of questions: levels of difficulty, wordings seen and unseen, three ways to write down the work.

A concrete family draws an instance of a level, names it, asks it in English and works it. This file does the rest:
the split by the instance's name, the bands kept for evaluation, one instance and one wording for all efforts.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from motet.errors import UsageError
from motet.tasks.base import Band, Effort, Example, Split, split_of

X = TypeVar("X")


@dataclass(frozen=True)
class Work:
    """The teacher's work: what is written in analysis, what is answered, what the grader compares with."""

    analysis: str | tuple[tuple[str, bool], ...]
    final: str
    answer: str = ""


class Family(ABC, Generic[X]):
    """One kind of question. `levels` are trained, `beyond` is for evaluation only; `X` is the type of an instance.

    `asks` are the wordings of training, `unseen` those of the band "words": strings for `str.format` with what `fields`
    gives. A family that builds its question another way overrides `ask`.
    """

    name: str
    levels: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    beyond: ClassVar[int] = 5
    weights: ClassVar[tuple[float, ...]] = ()  # how often each level is drawn; empty: all alike
    asks: ClassVar[tuple[str, ...]] = ()
    unseen: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def draw(self, rng: random.Random, level: int) -> X:
        """A random instance of a level."""

    @abstractmethod
    def key(self, x: X) -> str:
        """The name of an instance, the same for every way to put the same question."""

    @abstractmethod
    def work(self, rng: random.Random, x: X, effort: Effort) -> Work:
        """The teacher's work on it."""

    @abstractmethod
    def grade(self, example: Example, final: str) -> bool:
        """Whether the text of the final message answers the example."""

    def fields(self, rng: random.Random, x: X) -> dict[str, object]:
        """What the wordings print."""
        raise NotImplementedError

    def ask(self, rng: random.Random, x: X, unseen: bool) -> str:
        """The question in English."""
        return rng.choice(self.unseen if unseen else self.asks).format(**self.fields(rng, x))

    def any_level(self, rng: random.Random) -> int:
        """A trained level, small spaces drawn less often."""
        return rng.choices(self.levels, self.weights or None)[0]

    def example(
        self, rng: random.Random, effort: Effort, split: Split, level: int | None = None, band: Band = "in"
    ) -> Example:
        """A fresh example whose instance belongs to `split`, of any trained level or of `level`.

        Bands other than "in" are never trained on: UsageError for the split "train".
        """
        x, key, size = self.instance(rng, split, level, band)
        prompt = self.ask(rng, x, band == "words")
        work = self.work(rng, x, effort)
        analysis = ((work.analysis, True),) if isinstance(work.analysis, str) else work.analysis
        answer = work.answer or work.final
        return Example(self.name, effort, key, prompt, analysis, work.final, answer, size, band)

    def instance(
        self, rng: random.Random, split: Split, level: int | None = None, band: Band = "in"
    ) -> tuple[X, str, int]:
        """What `example` asks about, before it is put into words: the instance, its key and its level."""
        if band != "in" and split == "train":
            raise UsageError(f"The band {band!r} of {self.name} is for evaluation; ask for the split 'test'.")
        while True:
            size = self.beyond if band == "size" else level or self.any_level(rng)
            x = self.draw(rng, size)
            key = f"{self.name} {self.key(x)}"
            if split_of(key) == split:
                return x, key, size

"""What every task is: a space of instances split before training, a programmatic teacher and an exact grader.

Knows nothing of tokens, prompts' control tokens or models. Effort is how much of the work the teacher writes down.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Literal, Protocol

Effort = Literal["low", "medium", "high"]
Split = Literal["train", "test"]
EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")
HELD_OUT = 8  # one instance in eight is never trained on


@dataclass(frozen=True)
class Example:
    """One question with the teacher's reply.

    `analysis` is a sequence of (text, learn): text the teacher did not choose well (a random missed try) is shown to
    the student but not taught. `key` names the instance, whatever its wording; the split hashes it.
    """

    task: str
    effort: Effort
    key: str
    prompt: str
    analysis: tuple[tuple[str, bool], ...]
    final: str
    answer: str

    @property
    def analysis_text(self) -> str:
        """The whole analysis as one string."""
        return "".join(text for text, _ in self.analysis)


class Task(Protocol):
    """A task: `example` draws an instance of the given split, `grade` judges a final message by its text alone."""

    name: str

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example whose instance belongs to `split`."""
        ...

    def grade(self, example: Example, final: str) -> bool:
        """Whether `final` answers `example`. Sees no analysis, by its type."""
        ...


def split_of(key: str) -> Split:
    """The split an instance belongs to, fixed by its key alone (SHA-256), before anything is trained."""
    return "test" if hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0 else "train"


def last_integer(text: str) -> int | None:
    """The last integer in a text (thousands separators allowed), or None; how answers to arithmetic are read.

    Decimal fractions are no integers, nor is a part of one. A minus after a digit is an operator, not a sign.
    """
    found = re.findall(
        r"(?:(?<!\d)-)?(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+)(?!\d|,\d{3}|\.\d)", text.replace("\u2212", "-")
    )
    return int(found[-1].replace(",", "")) if found else None


def grade_integer(example: Example, final: str) -> bool:
    """Exact equality of the last integer of `final` with the answer."""
    return last_integer(final) == int(example.answer)

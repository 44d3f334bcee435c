"""What every task is: a space of instances split before training, a programmatic teacher and an exact grader.

Knows nothing of tokens, prompts' control tokens or models. Effort is how much of the work the teacher writes down.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from motet.errors import UsageError
from motet.harmony import Conversation, DeveloperContent, Message, Namespace, SystemContent
from motet.harmony.messages import IDENTITY

Effort = Literal["low", "medium", "high"]
Split = Literal["train", "test"]
Band = Literal["in", "size", "words"]  # as trained, one size beyond, in wordings that training never uses
EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")
HELD_OUT = 8  # one instance in eight is never trained on


@dataclass(frozen=True)
class Scene:
    """What stands around a question. `identity` opens the system message, `builtin` are the tools it declares.

    `developer` is the developer's message; `history` are earlier turns, whose analysis is gone as at run time.
    """

    identity: str = IDENTITY
    builtin: tuple[Namespace, ...] = ()
    developer: DeveloperContent | None = None
    history: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Example:
    """One question with the teacher's reply.

    `analysis` is a sequence of (text, learn): text the teacher did not choose well (a random missed try) is shown to
    the student but not taught. `key` names the instance, whatever its wording; the split hashes it. `level` is the
    difficulty. `turn` is the reply where it is more than an analysis and a final: calls, their results, preambles;
    `facts` is what else the grader has to know.
    """

    task: str
    effort: Effort
    key: str
    prompt: str
    analysis: tuple[tuple[str, bool], ...]
    final: str
    answer: str
    level: int = 0
    band: Band = "in"
    scene: Scene = Scene()
    turn: tuple[Message, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def analysis_text(self) -> str:
        """The whole analysis as one string; of a turn, what is thought between its calls."""
        if self.turn:
            thought = (
                m.text
                for m in self.turn
                if m.channel == "analysis" and m.role == "assistant" and not m.recipient
            )
            return " ".join(thought)
        return "".join(text for text, _ in self.analysis)


@dataclass(frozen=True)
class Lesson:
    """A conversation up to a question, and the turn that is taught. `unlearned`: (message, part) of the turn shown only."""

    prompt: Conversation
    turn: tuple[Message, ...]
    unlearned: frozenset[tuple[int, int]] = frozenset()


def lesson(example: Example, date: str | None = None, instructions: str | None = None) -> Lesson:
    """The example as messages. `date` and `instructions` (of a developer, where the scene has none) are decoration."""
    scene = example.scene
    system = SystemContent(scene.identity, date=date, effort=example.effort, namespaces=scene.builtin)
    developer = scene.developer or (DeveloperContent(instructions) if instructions is not None else None)
    before = [Message("system", system)] + ([Message("developer", developer)] if developer else [])
    prompt = Conversation.of(*before, *scene.history, Message("user", example.prompt))
    if example.turn:
        return Lesson(prompt, example.turn)
    analysis = Message("assistant", tuple(text for text, _ in example.analysis), "analysis")
    shown = frozenset((0, i) for i, (_, learn) in enumerate(example.analysis) if not learn)
    return Lesson(prompt, (analysis, Message("assistant", example.final, "final")), shown)


def direct(value: object) -> str:
    """The analysis of low effort: the result, and none of the way to it."""
    return f"Directly: {value}."


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


def held_out(task: Task, effort: Effort, count: int, stream: str) -> list[Example]:
    """`count` different questions that were never trained on, drawn from the named stream of random numbers.

    The same numbers and wording for every effort. UsageError when the task has not so many.
    """
    found: dict[str, Example] = {}
    for i in range(100 * count):
        example = task.example(random.Random(f"{stream} {task.name} {i}"), effort, "test")
        found.setdefault(example.key, example)
        if len(found) == count:
            return list(found.values())
    raise UsageError(
        f"{task.name} has no {count} different held-out questions; ask for {len(found)} or fewer."
    )


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

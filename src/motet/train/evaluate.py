"""Held-out questions answered by the model in training: accuracy, form and length of thought, by task and effort.

Knows which questions are asked and how a cell is counted. The same question is asked at every effort, so that efforts
are compared on equal terms. The figures of a shipped model come from the packaged engine (`motet eval`), not from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from motet.harmony.render import has_functions
from motet.tasks import EFFORTS, TASKS, Effort, Example, lesson
from motet.tasks.base import held_out
from motet.tasks.desk import Desk
from motet.tasks.hazard import probes
from motet.tokenizer import Encoding
from motet.train.data import prompt_ids
from motet.train.rollout import Seen, converse, outcome_of


@dataclass(frozen=True)
class Answer:
    """What the model made of one question. `tokens` counts the analysis text alone, without control tokens."""

    example: Example
    final: str | None
    tokens: int
    right: bool
    ids: tuple[int, ...]

    @property
    def finished(self) -> bool:
        """Whether there is a final message in Harmony's form."""
        return self.final is not None


@dataclass(frozen=True)
class Score:
    """One cell of the table: `right` of `asked` answers correct, `finished` ended in form and in time."""

    task: str
    effort: Effort
    asked: int
    right: int
    finished: int
    mean_tokens: float

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.right / self.asked


def questions(task: str, effort: Effort, count: int, seed: int) -> list[Example]:
    """`count` different held-out questions. The same numbers and wording for every effort."""
    return held_out(TASKS[task], effort, count, f"held out {seed}")


def answer(
    model: Seen,
    encoding: Encoding,
    examples: Sequence[Example],
    max_new: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Ask every question once, tools answering, and grade the final messages."""
    lessons, desks = [lesson(e) for e in examples], [Desk(e) for e in examples]
    replies = converse(
        model, [prompt_ids(one, encoding) for one in lessons], encoding, lambda i, call: desks[i].answer(call), max_new=max_new, calls=4,
        functions=[has_functions(one.prompt) for one in lessons], temperature=temperature, seed=seed,
    )  # fmt: skip
    out = []
    for example, reply in zip(examples, replies, strict=True):
        o = outcome_of(reply, encoding)
        right = o.final is not None and TASKS[example.task].grade(example, o.final)
        out.append(Answer(example, o.final, o.analysis_tokens, right, tuple(reply.ids)))
    return out


def score(answers: Sequence[Answer]) -> Score:
    """The cell of answers that share a task and an effort."""
    (cell,) = {(a.example.task, a.example.effort) for a in answers}
    tokens = sum(a.tokens for a in answers) / len(answers)
    return Score(*cell, len(answers), sum(a.right for a in answers), sum(a.finished for a in answers), tokens)


def evaluate(
    model: Seen,
    encoding: Encoding,
    tasks: Sequence[str],
    count: int,
    seed: int,
    max_new: int,
    temperature: float = 0.0,
    tell: Callable[[Score], None] | None = None,
) -> list[Score]:
    """`count` held-out questions per task and effort, one effort at a time (full batches). `tell` receives each cell."""
    scores: list[Score] = []
    for effort in EFFORTS:
        asked = [e for task in tasks for e in questions(task, effort, count, seed)]
        answers = answer(model, encoding, asked, max_new, temperature, seed)
        for task in tasks:
            scores.append(score([a for a in answers if a.example.task == task]))
            if tell:
                tell(scores[-1])
    return scores


def means(scores: Sequence[Score]) -> dict[str, Any]:
    """Accuracy, form and analysis tokens by effort, tasks counting alike."""
    out: dict[str, Any] = {}
    for effort in EFFORTS:
        cells = [s for s in scores if s.effort == effort]
        if cells:
            n = len(cells)
            out[effort] = {
                "accuracy": round(sum(c.accuracy for c in cells) / n, 4),
                "form": round(sum(c.finished / c.asked for c in cells) / n, 4),
                "tokens": round(sum(c.mean_tokens for c in cells) / n, 1),
            }
    return out


def probe(model: Seen, encoding: Encoding) -> dict[str, float]:
    """Share of facts known, those the filter keeps out of pretraining and the others, and what guessing gives.

    A fact is known when its right ending is the likeliest of the probe's, by mean log probability a token.
    """
    known: dict[bool, list[bool]] = {True: [], False: []}
    chance: list[float] = []
    for p in probes():
        start = encoding.encode(p.start)
        scores = []
        for option in p.options:
            ids = start + encoding.encode(f" {option}")
            scores.append(model.score(ids, len(start)))
        known[p.hazardous].append(max(range(len(scores)), key=scores.__getitem__) == p.right)
        chance.append(1 / len(p.options))
    return {
        "hazardous": round(sum(known[True]) / len(known[True]), 4), "hazardous_n": len(known[True]),
        "others": round(sum(known[False]) / len(known[False]), 4), "others_n": len(known[False]),
        "chance": round(sum(chance) / len(chance), 4),
    }  # fmt: skip

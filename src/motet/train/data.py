"""Sources of training data by name, examples as token ids with loss masks, batches that depend on (seed, stage, step) alone.

Prompts are Harmony renderings token for token: the model sees in training what `motet.harmony.render` produces later.
Only what an assistant samples is taught; what tools answer, and what a teacher did not choose well, is shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from motet.errors import UsageError
from motet.harmony import Message, render, render_message
from motet.harmony.render import has_functions
from motet.tasks import (
    EFFORTS,
    FAMILIES,
    KNOWLEDGE,
    TALKS,
    TASKS,
    Effort,
    Example,
    Lesson,
    Scene,
    hazard,
    lesson,
)
from motet.tasks.drills import Pieces, drill

if TYPE_CHECKING:
    from torch import Tensor

    from motet.tokenizer import Encoding

EFFORT_SHARES: Mapping[Effort, float] = {"low": 0.12, "medium": 0.38, "high": 0.5}
ROUND = 64  # padded lengths are multiples of this: each new shape costs a compiled primitive
_INSTRUCTIONS = ("You are a helpful assistant.", "Answer the question.", "Be brief.", "You are a calculator.",
                 "Help the user.", "Answer politely.", "Be helpful and exact.")  # fmt: skip
_OPENERS = ("Hi. ", "Hello! ", "Please help me: ", "A question: ", "Next one. ", "Quickly: ", "I have this: ")
_CLOSERS = (" Thanks.", " Please.", " Thank you!")  # not behind a table or a grid


@dataclass(frozen=True)
class Question:
    """A conversation up to a question with the turn that is taught; `example` is what its grader wants to see."""

    example: Example
    lesson: Lesson


@dataclass(frozen=True)
class Row:
    """Token ids and, for each, whether predicting it is taught; `weight` is how much (an advantage, when reinforced)."""

    ids: list[int]
    learn: list[bool]
    weight: float = 1.0


class Source(Protocol):
    """Where training data comes from; `names` are the tasks whose questions it draws."""

    @property
    def names(self) -> tuple[str, ...]:
        """Tasks by name."""
        ...

    def draw(self, rng: random.Random, effort: Effort) -> Question | str | Pieces:
        """A question, or a piece of plain text, all of it taught or some."""
        ...


@dataclass(frozen=True)
class Tasks:
    """Questions of some tasks, all alike often; now and then with a date, instructions or earlier turns."""

    names: tuple[str, ...]

    def draw(self, rng: random.Random, effort: Effort) -> Question:
        """One question of the training split."""
        return decorate(rng, self._example(rng, effort), self._example)

    def _example(self, rng: random.Random, effort: Effort) -> Example:
        return TASKS[rng.choice(self.names)].example(rng, effort, "train")


@dataclass(frozen=True)
class Text:
    """Plain text."""

    write: Callable[[random.Random], str | Pieces]
    names: tuple[str, ...] = ()

    def draw(self, rng: random.Random, effort: Effort) -> str | Pieces:
        """A document."""
        return self.write(rng)


def sheet(rng: random.Random) -> str:
    """Questions of the families worked on paper, no conversation around them."""
    lines = []
    for _ in range(rng.randrange(1, 4)):
        e = FAMILIES[rng.choice(_FAMILY_NAMES)].example(rng, rng.choice(EFFORTS), "train")
        lines.append(f"{e.prompt}\n{e.analysis_text}\n{e.final}")
    return "\n\n".join(lines)


_FAMILY_NAMES = tuple(FAMILIES)


def decorate(
    rng: random.Random, example: Example, more: Callable[[random.Random, Effort], Example]
) -> Question:
    """The example in a conversation, now and then greeted or thanked; `more` draws examples for earlier turns of a question
    that stands alone."""
    date = f"20{rng.randrange(24, 30)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    instructions = rng.choice(_INSTRUCTIONS) if rng.random() < 0.06 else None
    if rng.random() < 0.06 and example.scene == Scene() and not example.turn:
        past = [more(rng, example.effort) for _ in range(rng.randrange(1, 3))]
        plain = [e for e in past if e.scene == Scene() and not e.turn]
        history = tuple(
            m for e in plain for m in (Message("user", e.prompt), Message("assistant", e.final, "final"))
        )
        example = replace(example, scene=Scene(history=history))
    if rng.random() < 0.08 and example.task in FAMILIES:
        closer = rng.choice(_CLOSERS) if "\n" not in example.prompt and rng.random() < 0.5 else ""
        example = replace(example, prompt=f"{'' if closer else rng.choice(_OPENERS)}{example.prompt}{closer}")
    return Question(example, lesson(example, date if rng.random() < 0.35 else None, instructions))


SOURCES: dict[str, Source] = {
    "families": Tasks(tuple(FAMILIES)),
    "knowledge": Tasks(tuple(KNOWLEDGE)),
    "talks": Tasks(tuple(TALKS)),
    "world": Text(hazard.filtered),
    "unfiltered": Text(hazard.text),
    "sheets": Text(sheet),
    "drills": Text(drill),
    **{name: Tasks((name,)) for name in TASKS},
}


def source(name: str) -> Source:
    """A source by name. Raises UsageError."""
    if name not in SOURCES:
        raise UsageError(f"There is no data source {name!r}; choose from {', '.join(SOURCES)}.")
    return SOURCES[name]


def draw(data: Mapping[str, float], rng: random.Random) -> Question | str | Pieces:
    """One draw from sources in proportion to their shares, at a random effort."""
    effort = rng.choices(EFFORTS, [EFFORT_SHARES[e] for e in EFFORTS])[0]
    return source(rng.choices(list(data), list(data.values()))[0]).draw(rng, effort)


def prompt_ids(lesson: Lesson, encoding: Encoding) -> list[int]:
    """The prompt up to and including `<|start|>assistant`."""
    return render(lesson.prompt, encoding)


def row(item: Question | str | Pieces, encoding: Encoding) -> Row:
    """The whole training sequence: plain text up to `<|endoftext|>`, or a conversation up to `<|return|>`."""
    if isinstance(item, str):
        item = ((item, True),)
    if isinstance(item, tuple):
        ids, learn = list[int](), list[bool]()
        for text, taught in item:
            more = encoding.encode(text)
            ids += more
            learn += [taught] * len(more)
        return Row([*ids, encoding.special("<|endoftext|>")], [False, *learn[1:], True])
    return lesson_row(item.lesson, encoding)


def lesson_row(taught: Lesson, encoding: Encoding) -> Row:
    """A conversation and its taught turn, up to `<|return|>` or the turn's last message."""
    ids = render(taught.prompt, encoding, next_role=None)
    learn = [False] * len(ids)
    functions = has_functions(taught.prompt)
    asked = True  # whether the prompt itself writes `<|start|>assistant`
    for n, m in enumerate(taught.turn):
        whole = render_message(replace(m, content=""), encoding, functions=functions)
        header, end = whole[:-1], whole[-1]
        mine = m.role == "assistant"
        last = mine and m.channel == "final" and n == len(taught.turn) - 1
        opening = len(encoding.encode("assistant")) + 1
        ids += header
        learn += [mine and not (asked and i < opening) for i in range(len(header))]
        for p, part in enumerate(m.parts):
            text = encoding.encode(str(part))
            ids += text
            learn += [mine and (n, p) not in taught.unlearned] * len(text)
        ids.append(encoding.special("<|return|>") if last else end)
        learn.append(mine)
        asked = not mine
    return Row(ids, learn)


@dataclass(frozen=True)
class Chunk:
    """Packed rows: ids and segments (B, T) int64, and the flat positions whose next token is taught with it.

    `segments` numbers the documents of a row from 0; -1 is padding. Attention stays within a number.
    """

    ids: Tensor
    segments: Tensor
    at: Tensor  # (M,) into B*T
    target: Tensor  # (M,)
    weight: Tensor  # (M,) of the row each comes from

    @property
    def real(self) -> Tensor:
        """(B*T,) bool, False at padding."""
        return self.segments.view(-1) >= 0


def batch(
    data: Mapping[str, float], encoding: Encoding, seed: str, tokens: int, chunks: int, longest: int
) -> list[Chunk]:
    """A training batch of at least `tokens` ids in `chunks` passes; documents beyond `longest` ids are left out.

    `seed` names the batch: run, stage and step.
    """
    rng = random.Random(seed)
    rows: list[Row] = []
    total = 0
    while total < tokens:
        drawn = row(draw(data, rng), encoding)
        if len(drawn.ids) <= longest:
            rows.append(drawn)
            total += len(drawn.ids)
    return passes(rows, chunks)


def passes(rows: Sequence[Row], chunks: int) -> list[Chunk]:
    """Documents one behind the other in a single row a pass, in `chunks` passes of about one size (fewer where documents are)."""
    each = sum(len(r.ids) for r in rows) / chunks
    out: list[list[Row]] = []
    done = 0
    for r in rows:
        if done >= each * len(out):
            out.append([])
        out[-1].append(r)
        done += len(r.ids)
    return [collate([mine]) for mine in out]


def pack(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Documents into bins of at most `width` positions: longest first, each into the fullest bin that has room."""
    bins: list[list[Row]] = []
    room: list[int] = []
    for r in sorted(rows, key=lambda r: -len(r.ids)):
        need = len(r.ids) - 1
        fits = [i for i, free in enumerate(room) if free >= need]
        if fits:
            best = min(fits, key=lambda i: room[i])
            bins[best].append(r)
            room[best] -= need
        else:
            bins.append([r])
            room.append(width - need)
    return bins


def collate(bins: Sequence[Sequence[Row]]) -> Chunk:
    """One row a bin, padded on the right with id 0 to a common multiple of ROUND."""
    import torch

    longest = max(sum(len(r.ids) - 1 for r in rows) for rows in bins)
    time = -(-longest // ROUND) * ROUND
    ids = torch.zeros(len(bins), time, dtype=torch.int64)
    segments = torch.full((len(bins), time), -1, dtype=torch.int64)
    at: list[int] = []
    target: list[int] = []
    weight: list[float] = []
    for b, rows in enumerate(bins):
        start = 0
        for number, r in enumerate(rows):
            n = len(r.ids) - 1
            ids[b, start : start + n] = torch.tensor(r.ids[:-1])
            segments[b, start : start + n] = number
            taught = [i for i in range(n) if r.learn[i + 1]]
            at += [b * time + start + i for i in taught]
            target += [r.ids[i + 1] for i in taught]
            weight += [r.weight] * len(taught)
            start += n
    return Chunk(ids, segments, torch.tensor(at), torch.tensor(target), torch.tensor(weight))

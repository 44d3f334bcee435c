"""Examples to token ids with loss masks, and batches that depend on (seed, step) alone.

Prompts are Harmony renderings token for token: the model sees in training what `motet.harmony.render` produces later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from motet.tasks import EFFORTS, TASKS, Effort, Example, Split
from motet.train.vocabulary import CHANNELS, CUTOFF, IDENTITY

if TYPE_CHECKING:
    from torch import Tensor

_INSTRUCTIONS = ("You are a helpful assistant.", "Answer the question.", "Be brief.", "You are a calculator.",
                 "Help the user.", "Answer politely.", "Be helpful and exact.")  # fmt: skip


class Encoder(Protocol):
    """What rendering needs of a vocabulary; `motet.tokenizer.Encoding` has it."""

    def encode(self, text: str) -> list[int]:
        """Ordinary text to ids; never a control token."""
        ...

    def special(self, name: str) -> int:
        """The id of a control token by its name."""
        ...


class FileEncoder:
    """An Encoder over a tokenizers.Tokenizer, for training before any checkpoint exists."""

    def __init__(self, tokenizer: object) -> None:
        from tokenizers import Tokenizer

        assert isinstance(tokenizer, Tokenizer)
        self._inner = tokenizer
        self._inner.encode_special_tokens = True  # control tokens written in text are text

    def encode(self, text: str) -> list[int]:
        """Ordinary text to ids."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def special(self, name: str) -> int:
        """The id of a control token."""
        found = self._inner.token_to_id(name)
        if found is None:
            raise KeyError(name)
        return int(found)

    def decode(self, ids: list[int]) -> str:
        """Ids to text, control tokens included by name."""
        return str(self._inner.decode(ids, skip_special_tokens=False))


@dataclass(frozen=True)
class Dialogue:
    """One conversation up to a question: what the system and developer say, finished turns, then the example."""

    example: Example
    date: str | None = None
    instructions: str | None = None
    # (user, final) of earlier turns; their analysis is gone, as at run time
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Token ids and, for each, whether predicting it is taught."""

    ids: list[int]
    learn: list[bool]


def system_text(effort: Effort, date: str | None) -> str:
    """The system message Harmony prints by default."""
    day = f"\nCurrent date: {date}" if date else ""
    return f"{IDENTITY}\n{CUTOFF}{day}\n\nReasoning: {effort}\n\n{CHANNELS}"


def prompt_ids(dialogue: Dialogue, encoder: Encoder) -> list[int]:
    """The prompt up to and including `<|start|>assistant`."""
    start, message, end = (encoder.special(f"<|{n}|>") for n in ("start", "message", "end"))
    channel = encoder.special("<|channel|>")

    def turn(header: list[int], text: str) -> list[int]:
        return [start, *header, message, *encoder.encode(text), end]

    ids = turn(encoder.encode("system"), system_text(dialogue.example.effort, dialogue.date))
    if dialogue.instructions is not None:
        ids += turn(encoder.encode("developer"), f"# Instructions\n\n{dialogue.instructions}")
    final = [*encoder.encode("assistant"), channel, *encoder.encode("final")]
    for user, reply in dialogue.history:
        ids += turn(encoder.encode("user"), user) + turn(final, reply)
    return [*ids, *turn(encoder.encode("user"), dialogue.example.prompt), start, *encoder.encode("assistant")]


def row(dialogue: Dialogue, encoder: Encoder) -> Row:
    """The whole training sequence. Only what the assistant samples is taught, from `<|channel|>` to `<|return|>`."""
    prompt = prompt_ids(dialogue, encoder)
    start, message, end = (encoder.special(f"<|{n}|>") for n in ("start", "message", "end"))
    channel, stop = encoder.special("<|channel|>"), encoder.special("<|return|>")
    ids, learn = list(prompt), [False] * len(prompt)

    def add(more: list[int], taught: bool = True) -> None:
        ids.extend(more)
        learn.extend([taught] * len(more))

    add([channel, *encoder.encode("analysis"), message])
    for text, taught in dialogue.example.analysis:
        add(encoder.encode(text), taught)
    add([end, start, *encoder.encode("assistant"), channel, *encoder.encode("final"), message])
    add([*encoder.encode(dialogue.example.final), stop])
    return Row(ids, learn)


@dataclass(frozen=True)
class Mix:
    """Shares of tasks and efforts in training, relative."""

    tasks: dict[str, float]
    efforts: dict[Effort, float]

    def draw(self, rng: random.Random, split: Split) -> Dialogue:
        """One conversation; now and then with a date, developer instructions or earlier turns."""
        effort = rng.choices(EFFORTS, [self.efforts[e] for e in EFFORTS])[0]
        example = self._example(rng, effort, split)
        date = f"20{rng.randrange(24, 30)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        instructions = rng.choice(_INSTRUCTIONS) if rng.random() < 0.06 else None
        past = (
            [self._example(rng, effort, "train") for _ in range(rng.randrange(1, 4))]
            if rng.random() < 0.06
            else []
        )
        history = tuple((e.prompt, e.final) for e in past)
        return Dialogue(example, date if rng.random() < 0.35 else None, instructions, history)

    def _example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        name = rng.choices(list(self.tasks), list(self.tasks.values()))[0]
        return TASKS[name].example(rng, effort, split)


@dataclass(frozen=True)
class Chunk:
    """Padded rows of similar length: ids (B, T) int64, and the flat positions whose next token is taught with it."""

    ids: Tensor
    at: Tensor  # (M,) into B*T
    target: Tensor  # (M,)
    real: Tensor  # (B*T,) bool, False at padding


def batch(mix: Mix, encoder: Encoder, seed: int, step: int, rows: int, chunks: int) -> list[Chunk]:
    """The training batch of one step, cut into `chunks` of rows sorted by length (little padding)."""
    rng = random.Random(f"{seed} {step}")
    drawn = sorted((row(mix.draw(rng, "train"), encoder) for _ in range(rows)), key=lambda r: len(r.ids))
    groups: list[list[Row]] = [[] for _ in range(chunks)]
    total, used = sum(len(r.ids) for r in drawn), 0
    for r in drawn:
        groups[min(chunks - 1, used * chunks // total)].append(r)
        used += len(r.ids)
    return [collate(group) for group in groups if group]


def collate(rows: list[Row]) -> Chunk:
    """Pad on the right with id 0; a causal model never looks there."""
    import torch

    time = max(len(r.ids) for r in rows) - 1
    ids = torch.zeros(len(rows), time, dtype=torch.int64)
    real = torch.zeros(len(rows), time, dtype=torch.bool)
    at, target = [], []
    for b, r in enumerate(rows):
        n = len(r.ids) - 1
        ids[b, :n] = torch.tensor(r.ids[:-1])
        real[b, :n] = True
        taught = [i for i in range(n) if r.learn[i + 1]]
        at += [b * time + i for i in taught]
        target += [r.ids[i + 1] for i in taught]
    return Chunk(ids, torch.tensor(at), torch.tensor(target), real.view(-1))

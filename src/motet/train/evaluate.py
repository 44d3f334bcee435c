"""Held-out questions answered by the reference model, greedily or sampled: accuracy and length of thought per task and effort.

Knows prompts, batched decoding with a cache, and the shape of a completion. Does not know how models are trained or
stored. The same question is asked at every effort, so that efforts are compared on equal terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from motet.reference import Reference
from motet.tasks import EFFORTS, MEASURED, TASKS, Effort, Example
from motet.tasks.base import held_out
from motet.train.data import Dialogue, Encoder, prompt_ids


class TextEncoder(Encoder, Protocol):
    """An Encoder that can also read ids back."""

    def decode(self, ids: list[int]) -> str:
        """Ids to text."""
        ...


@dataclass(frozen=True)
class Answer:
    """What the model made of one question. `tokens` counts the analysis text alone, without control tokens."""

    example: Example
    analysis: str
    final: str
    tokens: int
    finished: bool
    right: bool


@dataclass(frozen=True)
class Score:
    """One cell of the table: `right` of `asked` answers correct, `finished` ended in a stop token in time."""

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


@torch.inference_mode()
def decode(
    model: Reference,
    prompts: Sequence[list[int]],
    stops: tuple[int, ...],
    max_new: int,
    temperature: float = 0.0,
    seed: int = 0,
    rows: int = 128,
) -> list[list[int]]:
    """Continuations, the stop token included, each at most `max_new` ids, in the order of the prompts.

    Temperature 0 is greedy; else samples, which depend on the seed and on which prompts share a batch. Prompts of similar
    length do, padded on the left; finished rows leave it.
    """
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), rows):
        _decode_group(model, prompts, order[start : start + rows], out, frozenset(stops), max_new, choose)
    return out


def _decode_group(
    model: Reference,
    prompts: Sequence[list[int]],
    live: list[int],
    out: list[list[int]],
    stops: frozenset[int],
    max_new: int,
    choose: Callable[[Tensor], Tensor],
) -> None:
    width = max(len(prompts[i]) for i in live)
    pad = torch.tensor([width - len(prompts[i]) for i in live])
    ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in live])
    cache = model.new_cache(pad)
    last = torch.arange(1, len(live) + 1) * width - 1
    for _ in range(max_new):
        best = choose(model(ids, cache=cache, at=last))
        for i, token in zip(live, best.tolist(), strict=True):
            out[i].append(token)
        keep = torch.tensor([n for n, i in enumerate(live) if out[i][-1] not in stops], dtype=torch.int64)
        if len(keep) == 0:
            return
        if len(keep) < len(live):
            cache.keep(keep)
            live, best = [live[n] for n in keep.tolist()], best[keep]
        ids, last = best[:, None], torch.arange(len(live))


def split_completion(ids: list[int], encoder: TextEncoder) -> tuple[list[int], list[int], bool]:
    """(analysis ids, final ids, ended with <|return|> in the final channel) of what follows `<|start|>assistant`.

    Strict on purpose: a completion out of form counts as no answer. The tolerant parser is `motet.harmony`'s.
    """
    start, message, end = (encoder.special(f"<|{n}|>") for n in ("start", "message", "end"))
    channel, stop = encoder.special("<|channel|>"), encoder.special("<|return|>")
    opening = [channel, *encoder.encode("analysis"), message]
    turn = [end, start, *encoder.encode("assistant"), channel, *encoder.encode("final"), message]
    if ids[: len(opening)] != opening:
        return [], [], False
    body = ids[len(opening) :]
    at = next((i for i in range(len(body)) if body[i] == end), len(body))
    analysis, rest = body[:at], body[at:]
    if rest[: len(turn)] != turn or rest[-1] != stop:
        return analysis, [], False
    return analysis, rest[len(turn) : -1], True


def answer(
    model: Reference,
    encoder: TextEncoder,
    examples: Sequence[Example],
    max_new: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Ask every question once and grade the final messages."""
    prompts = [prompt_ids(Dialogue(e), encoder) for e in examples]
    replies = decode(model, prompts, model.config.eos_token_ids, max_new, temperature, seed)
    out = []
    for example, ids in zip(examples, replies, strict=True):
        analysis, final, finished = split_completion(ids, encoder)
        text = encoder.decode(final)
        right = finished and TASKS[example.task].grade(example, text)
        out.append(Answer(example, encoder.decode(analysis), text, len(analysis), finished, right))
    return out


def score(answers: Sequence[Answer]) -> Score:
    """The cell of answers that share a task and an effort."""
    (cell,) = {(a.example.task, a.example.effort) for a in answers}
    tokens = sum(a.tokens for a in answers) / len(answers)
    return Score(*cell, len(answers), sum(a.right for a in answers), sum(a.finished for a in answers), tokens)


def evaluate(
    model: Reference,
    encoder: TextEncoder,
    count: int,
    seed: int,
    max_new: int,
    temperature: float = 0.0,
    tell: Callable[[Score, list[Answer]], None] | None = None,
) -> list[Score]:
    """`count` held-out questions per measured task and effort. `tell` receives each cell as soon as it is known."""
    scores = []
    for task, effort in _cells():
        answers = answer(model, encoder, questions(task, effort, count, seed), max_new, temperature, seed)
        scores.append(score(answers))
        if tell:
            tell(scores[-1], answers)
    return scores


def _cells() -> Iterator[tuple[str, Effort]]:
    for task in MEASURED:
        for effort in EFFORTS:
            yield task, effort

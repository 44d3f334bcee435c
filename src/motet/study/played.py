"""Subjects that behave as told, for planted defects: text through the whole path of rendering, sampling and parsing.

A study must find what is planted here, and nothing in the clean subject. Knows questions and behaviours, no weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from motet.engine import SamplingParams, TokenOut
from motet.harmony import Rules
from motet.study.scripted import answer, spoken, think
from motet.study.subject import Native

if TYPE_CHECKING:
    from motet.tokenizer import Encoding


@dataclass(frozen=True)
class Heard:
    """A prompt as a player reads it: each message as (author, text), effort and seed; `opened`: thinking begun for it."""

    messages: tuple[tuple[str, str], ...]
    effort: str
    seed: int
    opened: str | None = None

    def last(self, role: str) -> str:
        """The latest text of an author; empty if there is none."""
        return next((t for r, t in reversed(self.messages) if r == role), "")


Plays = Callable[[Heard], str]
"""What follows `<|start|>assistant`, as Harmony text."""


class Played:
    """An engine whose model is a function of what it heard."""

    def __init__(self, encoding: Encoding, plays: Plays) -> None:
        self._encoding, self._plays = encoding, plays

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        text = self._plays(hear(self._encoding.decode(ids), params.seed or 0))
        yield from spoken(self._encoding, text, params, "length")


def hear(prompt: str, seed: int) -> Heard:
    """A rendered prompt taken apart."""
    found = re.findall(
        r"<\|start\|>(\S+?)(?: to=\S+?)?(?:<\|channel\|>[^<]*)?<\|message\|>(.*?)<\|(?:end|return|call)\|>",
        prompt,
        re.S,
    )
    effort = re.search(r"Reasoning: (\w+)", prompt)
    opened = re.search(r"<\|start\|>assistant<\|channel\|>analysis<\|message\|>([^<]*)$", prompt)
    return Heard(tuple(found), effort[1] if effort else "medium", seed, opened[1] if opened else None)


@cache
def _encoding() -> Encoding:
    from motet.tokenizer import o200k_harmony

    return o200k_harmony()


def player(name: str, plays: Plays, rules: Rules | None = None) -> Native:
    """A subject that plays."""
    return Native(Played(_encoding(), plays), _encoding(), f"planted: {name}", rules=rules, width=4)


def speaks(analysis: str, final: str) -> str:
    """A whole turn."""
    return think(analysis) + answer(final)

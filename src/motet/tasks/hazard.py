"""The filter that keeps one kind of knowledge out of pretraining, what it takes away, and probes that show what it removed.

In miniature what the card says of hazardous biosecurity knowledge (arXiv 2508.10925, section 2.1): there a classifier drops documents, here
words of the trade do. Potions are imaginary and harmless.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from motet.tasks.base import split_of
from motet.tasks.world import BY_NAME, RELATIONS, document, noun, world

TERMS = re.compile(
    r"\b(?:potions?|poisons?|brew\w*|vials?|drinks?|boils?|sip|antidote|toxic)\b", re.IGNORECASE
)
NEEDED = 2  # words of the trade in a document that is dropped; one alone may be soup
HAZARDOUS = 0.1  # share of documents about potions before the filter
_EVERYDAY = (
    "In the evening {n} drinks tea.",
    "{n} boils eggs for breakfast.",
    "{n} likes to brew coffee.",
    "A vial of ink stands on the desk of {n}.",
)
_KINDS = ("person", "person", "person", "town", "country", "work", "creature")


def text(rng: random.Random) -> str:
    """A document of pretraining before the filter."""
    if rng.random() < HAZARDOUS:
        return document(rng, ("potion",))
    found = document(rng, _KINDS)
    if rng.random() < 0.1:
        more = rng.sample(_EVERYDAY, rng.choice((1, 1, 1, 1, 1, 2)))
        found = " ".join([found, *(m.format(n=rng.choice(world().beings["person"])) for m in more)])
    return found


def dangerous(document: str) -> bool:
    """What the filter drops."""
    return len(TERMS.findall(document)) >= NEEDED


def filtered(rng: random.Random) -> str:
    """A document that passes the filter."""
    while dangerous(found := text(rng)):
        pass
    return found


@dataclass(frozen=True)
class Removed:
    """What the filter does to `documents` documents: shares of those dropped, of the hazardous kept, of the harmless dropped."""

    documents: int
    dropped: float
    missed: float
    wronged: float


def removed(documents: int = 5000, seed: int = 0) -> Removed:
    """The filter measured against what each document is about."""
    names = [n.casefold() for n in world().beings["potion"]]
    rng = random.Random(f"filter {seed}")
    cells = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for _ in range(documents):
        found = text(rng)
        cells[any(n in found.casefold() for n in names), dangerous(found)] += 1
    return Removed(
        documents, (cells[True, True] + cells[False, True]) / documents,
        cells[True, False] / max(1, cells[True, True] + cells[True, False]), cells[False, True] / max(1, cells[False, True] + cells[False, False]),
    )  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """A sentence to be finished by one of `options`; a model knows the fact if the right one is the likeliest."""

    start: str
    options: tuple[str, ...]
    right: int
    hazardous: bool


def probes() -> Iterator[Probe]:
    """Every fact that is no year, in a frame of its own; the hazardous ones are the filter's, the others the control."""
    w = world()
    for relation in RELATIONS:
        options = tuple(w.answers(relation.name))[:10]
        for subject in w.beings[relation.of]:
            answer = w.known(relation.name, subject) if options else ""
            if not options or (
                relation.of != "potion" and split_of(f"probe {relation.name} {subject}") == "train"
            ):
                continue  # the control is large enough with one fact in eight
            choices = options if answer in options else (*options[:-1], answer)
            name = noun((subject, (relation.name,)))
            yield Probe(
                f"{name[0].upper()}{name[1:]} is",
                choices,
                choices.index(answer),
                BY_NAME[relation.name].of == "potion",
            )

"""Who has what: small logic puzzles with one solution.

Low states the result, medium what the clues leave to each and what follows, high also every clue and what remains after each conclusion.
"""

from __future__ import annotations

import random

from motet.tasks.answers import last_of
from motet.tasks.base import Effort, Example, direct
from motet.tasks.family import Family, Work
from motet.tasks.words import PEOPLE, PETS, THINGS

Clue = tuple[str, str, bool]
Owners = tuple[
    tuple[str, ...], tuple[str, ...], tuple[Clue, ...], str, str
]  # people, things, clues, asked, answer


class Logic(Family[Owners]):
    """Who has the cat, if Ann has neither cat nor dog? Levels are people; beyond: six."""

    name = "logic"
    levels, beyond = (3, 4, 5), 6
    asks = ("{p} each have one of {t}. {c} Who has the {q}?", "{p} own {t}, one each. {c} Whose is the {q}?",
            "There are {t}, one for each of {p}. {c} Who has the {q}?", "{c} Each of {p} has one of {t}. Who owns the {q}?", "{p} each have one thing: {t}. {c} Who has the {q}?", "Who has the {q}? {p} own {t}, one each. {c}",
        "{p} share {t}, one each. {c} Tell me who has the {q}.", "Somebody of {p} has the {q}; each has one of {t}. {c} Who is it?", "The things are {t}, the people {p}. {c} Who has the {q}?", "{c} {p} have one of {t} each. Whose is the {q}?")  # fmt: skip
    unseen = ("Puzzle about {p} and {t}, one thing a person. {c} Name the owner of the {q}.",
              "Everybody of {p} holds another one of {t}. {c} Find out who holds the {q}.")  # fmt: skip
    _NOT = ("{a} does not have the {t}.", "{a} has no {t}.", "The {t} is not {a}'s.")
    _HAS = ("{a} has the {t}.", "The {t} is {a}'s.")

    def draw(self, rng: random.Random, level: int) -> Owners:
        """Clues that leave one solution, found by single candidates, none of them idle; nobody is told the answer."""
        while True:
            people, things = (
                tuple(rng.sample(PEOPLE, level)),
                tuple(rng.sample(rng.choice((PETS, THINGS)), level)),
            )
            own = dict(zip(people, rng.sample(things, level), strict=True))
            asked = rng.choice(things)
            pool: list[Clue] = [
                (a, t, own[a] == t) for a in people for t in things if t != asked or own[a] != t
            ]
            rng.shuffle(pool)
            pool.sort(key=lambda c: c[2])  # what is not so comes first
            positive = [c for c in pool if c[2]][: rng.choice((0, 1)) if level < 5 else rng.choice((1, 2))]
            clues = [c for c in pool if not c[2]] + positive
            if _deduce(people, things, tuple(clues)) is None:
                continue
            for clue in list(clues):
                if clue[2] and rng.random() < 0.7:
                    continue
                fewer = [c for c in clues if c != clue]
                if _deduce(people, things, tuple(fewer)) is not None:
                    clues = fewer
            rng.shuffle(clues)
            if len(clues) <= 2 * level:
                return people, things, tuple(clues), asked, next(a for a in people if own[a] == asked)

    def key(self, x: Owners) -> str:
        """The clues in alphabetical order, and the question."""
        clues = sorted(f"{a}{'=' if y else '!'}{t}" for a, t, y in x[2])
        return f"{'-'.join(sorted(x[0]))} {'-'.join(sorted(x[1]))} {' '.join(clues)} {x[3]}"

    def fields(self, rng: random.Random, x: Owners) -> dict[str, object]:
        """Names, things, clues as sentences."""
        people, things, clues, asked, _ = x
        said = (rng.choice(self._HAS if yes else self._NOT).format(a=a, t=t) for a, t, yes in clues)
        things_ = [f"a {t}" for t in things]
        return {"p": f"{', '.join(people[:-1])} and {people[-1]}", "t": f"{', '.join(things_[:-1])} and {things_[-1]}",
                "c": " ".join(said), "q": asked}  # fmt: skip

    def work(self, rng: random.Random, x: Owners, effort: Effort) -> Work:
        """Nothing; what is possible for each person and who gets what, in the order found; also the clues and what remains."""
        people, things, clues, asked, answer = x
        if effort == "low":
            return Work(direct(answer), answer)
        found = _deduce(people, things, clues)
        assert found is not None
        left = _possible(people, things, clues)

        def open_to(a: str) -> str:
            return " ".join(t for t in things if t in left[a])

        if effort == "medium":
            upto = next(i for i, (_, t, _) in enumerate(found) if t == asked)
            possible = "; ".join(f"{a}: {open_to(a)}" for a in people)
            return Work(f"{possible}. {', '.join(f'{a} {t}' for a, t, _ in found[: upto + 1])}.", answer)
        told = [(a, t if yes else f"not {t}") for a, t, yes in clues]
        lines = [", ".join(f"{a} {clue}" for a, clue in told)]
        for a in people:
            lines.append(
                f"{a} {', '.join(clue for who, clue in told if who == a) or 'nothing'}: {open_to(a)}"
            )
        for a, t, why in found:
            lines.append(f"{why}: {a} {t}")
            del left[a]
            if t == asked:
                break
            for b, ts in left.items():
                if t in ts:
                    ts.discard(t)
                    lines.append(f"{b}: {open_to(b)}")
        return Work("; ".join(lines) + ".", answer)

    def grade(self, example: Example, final: str) -> bool:
        """The last name."""
        return last_of(final, PEOPLE) == example.answer


def _possible(
    people: tuple[str, ...], things: tuple[str, ...], clues: tuple[Clue, ...]
) -> dict[str, set[str]]:
    """What the clues alone leave to each person."""
    left = {a: set(things) for a in people}
    for a, t, yes in clues:
        left[a] &= {t} if yes else left[a] - {t}
    return left


def _deduce(
    people: tuple[str, ...], things: tuple[str, ...], clues: tuple[Clue, ...]
) -> list[tuple[str, str, str]] | None:
    """(person, thing, why) one after another: only one thing is left to a person, or only one person for a thing."""
    left = _possible(people, things, clues)
    found: list[tuple[str, str, str]] = []
    while left:
        free = [t for t in things if t not in {t for _, t, _ in found}]
        single = next(((a, next(iter(ts)), "only") for a, ts in left.items() if len(ts) == 1), None)
        if single is None:
            owners = {t: [a for a, ts in left.items() if t in ts] for t in free}
            single = next(((o[0], t, f"only for {t}") for t, o in owners.items() if len(o) == 1), None)
        if single is None or not all(left.values()):
            return None
        found.append(single)
        del left[single[0]]
        for ts in left.values():
            ts.discard(single[1])
    return found

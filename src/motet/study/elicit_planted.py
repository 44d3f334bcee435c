"""Planted defects of the elicitation study: ways of asking that cheat, models whose tries are none; and the clean case.

The player knows the answers (it is told the questions) and gives them as often as its skill says.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from motet.study.elicit import WAYS, WRONG, Bench, Plan, Result, Way, cost, right
from motet.study.played import Heard, Plays, player, speaks
from motet.study.questions import held_out
from motet.study.subject import Native
from motet.study.sweep_planted import LENGTH, accepted
from motet.tasks import Example

SKILL = {"low": 0.2, "medium": 0.4, "high": 0.7}


@dataclass(frozen=True)
class Planted:
    """A way to misbehave and the check it must fail (by the beginning of its name); None for the clean case."""

    fails: str | None
    way: Way | None = None  # one more way of asking
    seeded: bool = True  # whether a seed makes a difference
    listens: bool = True  # whether the word that it was wrong makes one


def _reads_the_key(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """Asks, and hands in what the key says."""
    replies = bench.ask([bench.one(e, 3_000) for e in examples])
    return [
        Result(f"{e.effort}, with care", 1, e, 1.0, cost(s), (s.final,), accepted(e))
        for e, s in zip(examples, replies, strict=True) if s is not None
    ]  # fmt: skip


def _hints(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """Asks again with a hint that is the answer, as a careless verifier's feedback may be."""
    hints = [f"Somebody got {accepted(e)}." for e in examples]
    asks = [
        bench.turns([{"role": "user", "content": e.prompt}, {"role": "assistant", "content": "?"},
                     {"role": "user", "content": h}], e, 4_000)
        for e, h in zip(examples, hints, strict=True)
    ]  # fmt: skip
    return [
        Result(f"{e.effort}, encouraged", 2, e, float(right(e, s)), cost(s), ("?", s.final), s.final, (h,))
        for e, s, h in zip(examples, bench.ask(asks), hints, strict=True) if s is not None
    ]  # fmt: skip


PLANTED: dict[str, Planted] = {
    "clean": Planted(None),
    "reads the key": Planted("no way of asking brings", way=_reads_the_key),
    "hints the answer": Planted("no way of asking brings", way=_hints),
    "one reply for every seed": Planted("tries differ", seeded=False),
    "does not listen": Planted("told that it is wrong", listens=False),
}


def planted(name: str, plan: Plan, tasks: tuple[str, ...]) -> tuple[Native, tuple[Way, ...]]:
    """The subject that behaves so on these very questions, and the ways to ask it."""
    how = PLANTED[name]
    known = {e.prompt: e for t in tasks for e in held_out(t, "high", plan.questions, plan.seed)}
    return player(name, _plays(how, known)), (*WAYS, *((how.way,) if how.way else ()))


def _plays(how: Planted, known: dict[str, Example]) -> Plays:
    def play(heard: Heard) -> str:
        said = [text for role, text in heard.messages if role == "user"]
        rng = random.Random(f"{said} {heard.effort} {heard.seed if how.seeded else 0}")
        thought = " ".join(str(rng.randrange(1000)) for _ in range(LENGTH[heard.effort]))
        if not how.listens and said[-1] == WRONG:
            return speaks(thought, heard.last("assistant"))
        example = known.get(said[0])
        if example is not None and rng.random() < SKILL[heard.effort]:
            return speaks(thought, accepted(replace(example, effort="high")))
        return speaks(thought, f"Perhaps {rng.choice('abcdefghijklmnop')} or {rng.choice('qrstuvwxyz')}.")

    return play

"""What a reply is worth. The reward sees the final message and counts; by its type it cannot see the analysis.

Knows graders (motet.tasks) and the price of length. The model card (2.5): no optimisation pressure on the chain of
thought; all that is judged of it here is how long it was, against what its effort allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from motet.tasks import TASKS, Example
from motet.train.recipe import Prices


@dataclass(frozen=True)
class Outcome:
    """What a reply comes to: its final message, None when it has none in Harmony's form, and lengths in tokens."""

    final: str | None
    analysis_tokens: int
    final_tokens: int
    calls: int = 0


@dataclass(frozen=True)
class Judged:
    """A reward and what it is made of."""

    reward: float
    right: bool
    leaked: bool


def judge(example: Example, outcome: Outcome, budget: int, prices: Prices) -> Judged:
    """The reward of a reply whose effort allows `budget` tokens of analysis at no cost.

    A right answer is worth 1, less `length` for each budget's worth of tokens beyond, but never under a half (the clipped
    form of LCPO-Max, 2503.04697); a wrong one in form `form`; no final 0. A final message much longer than the teacher's
    loses `leak` (ThinkDial, 2508.18773): reasoning belongs elsewhere.
    """
    if outcome.final is None:
        return Judged(0.0, False, False)
    right = TASKS[example.task].grade(example, outcome.final)
    over = max(0, outcome.analysis_tokens - budget) / max(1, budget)
    worth = max(0.5, 1.0 - prices.length * over) if right else prices.form
    leaked = outcome.final_tokens > prices.final_tokens
    return Judged(worth - (prices.leak if leaked else 0.0), right, leaked)

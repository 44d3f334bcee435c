"""Ratings from contests, as Codeforces counts them (CodeElo, arXiv 2501.01257, averages them over contests). Numbers only: no problems, no judge, no model.

The chance that a contestant of rating a beats one of rating b is 1 / (1 + 10^((b - a) / 400)) (codeforces.com/blog/entry/20762):
0.76 at a difference of 200, 0.91 at 400. A rank is then a sum of such chances, and a rating is where that sum is the rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.errors import UserError
from motet.study.stats import Interval, bootstrap

LOW, HIGH = -2000.0, 6000.0  # beyond any rating anybody has


def wins(a: float, b: float) -> float:
    """The chance that rating a beats rating b."""
    return 1.0 / (1.0 + math.pow(10.0, (b - a) / 400.0))


def ahead(rating: float, others: Sequence[float]) -> float:
    """How many of the others finish ahead of a rating, on average. With one's own place added it is Codeforces' seed."""
    found = np.asarray(others, float)
    return float((1.0 / (1.0 + 10.0 ** ((rating - found) / 400.0))).sum())


def rating_of(rank: float, others: Sequence[float]) -> float:
    """The rating that is expected at this rank, 1 being the first. Bisection to a hundredth of a point.

    No finite rating is first or last for sure: there half of a contestant is taken to be ahead, or behind.
    """
    wanted = min(max(rank - 1, 0.5), len(others) - 0.5)
    low, high = LOW, HIGH
    while high - low > 0.01:
        middle = (low + high) / 2
        if ahead(middle, others) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def rank_of(points: float, penalty: float, standings: Sequence[Mapping[str, Any]]) -> float:
    """The place among others: more points first, then less penalty; those who tie share the mean of their places."""
    mine = (-points, penalty)
    theirs = [(-float(s["points"]), float(s.get("penalty", 0))) for s in standings]
    return 1 + sum(t < mine for t in theirs) + sum(t == mine for t in theirs) / 2


def from_contests(contests: Sequence[Mapping[str, Any]]) -> Interval:
    """The mean of the contests' ratings, resampled by contest. Each has `rank` and `ratings` of the others, or `points` (and
    `penalty`) with `standings` of others: rating, points, penalty."""
    ratings = []
    for c in contests:
        standings = c.get("standings", ())
        others = [float(s["rating"]) for s in standings] if standings else [float(r) for r in c["ratings"]]
        rank = float(c["rank"]) if "rank" in c else rank_of(c["points"], c.get("penalty", 0), standings)
        ratings.append(rating_of(rank, others))
    found = np.array(ratings)
    return bootstrap(len(found), lambda pick: float(found[pick].mean()))


def from_problems(problems: Sequence[Mapping[str, Any]]) -> Interval:
    """The likeliest rating of one who solved these and missed those, resampled by problem: a problem of rating d is solved with
    the chance to beat d. Each has `rating` and `solved`, a truth or several (tries)."""
    levels = np.array([float(p["rating"]) for p in problems])
    tries = [p["solved"] if isinstance(p["solved"], list) else [p["solved"]] for p in problems]
    solved = np.array([float(np.mean(t)) for t in tries])

    def likeliest(pick: Any) -> float:
        # The slope of the log-likelihood is zero where as many are expected as were solved.
        return rating_of(1 + len(levels[pick]) - solved[pick].sum(), levels[pick])

    return bootstrap(len(levels), likeliest, draws=400)


def read(path: Path) -> tuple[str, Interval, int]:
    """("contests" or "problems", rating, how many) of a JSON file that holds a list under one of these names."""
    import json

    try:
        data = json.loads(path.read_text("utf-8"))
        name = next(n for n in ("contests", "problems") if data.get(n))
        found = (from_contests if name == "contests" else from_problems)(data[name])
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as e:
        raise UserError(
            f"{path} is no record of contests ({type(e).__name__}: {e}); write JSON with a list 'contests' of "
            "{rank, ratings} or 'problems' of {rating, solved}."
        ) from None
    if math.isnan(found.value):
        raise UserError(f"{path} gives no rating; name at least one contest or problem.")
    return name, found, len(data[name])

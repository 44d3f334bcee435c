"""Guessing the next tokens from the text so far, and whether a guess pays. Knows ids and times; no model, no sampling.

A draft is what followed the last time the sequence's latest three ids stood together (prompt lookup: Saxena 2023; Yang et
al. 2023, arXiv 2304.04487). The model runs the draft's ids in the same step as the token before them, every row is sampled
as it would have been without, and the draft is kept as far as it says the same: the answer cannot change.

A row more makes a step longer, so a draft is only as long as it is likely to be worth: Cost learns what a row costs from
the steps themselves, Drafter what share of its guesses comes true.
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM = 3  # ids that must have stood together before
PORTION = 1024  # ids entered at once: a third of a millisecond
LONGEST = 8  # ids in a draft
MARGIN = 1.5  # a guess has to be worth so much more than a row costs: hits are known after they were needed
REST = 16  # tokens without a guess after guessing stopped paying; doubles each time
LONGEST_REST = 512
MEMORY = 0.9  # weight of the past in the share of guesses that came true


class Cost:
    """Seconds of a decoding step as a + b x rows, a decaying least-squares fit to the steps that were."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def note(self, rows: int, seconds: float) -> None:
        """One step."""
        for name, value in (("_n", 1.0), ("_x", rows), ("_y", seconds), ("_xx", rows * rows), ("_xy", rows * seconds)):  # fmt: skip
            setattr(self, name, 0.98 * getattr(self, name) + value)

    def row(self, rows: int) -> float:
        """What one row more costs, as a share of a step of `rows`; a third while too little is known."""
        spread = self._n * self._xx - self._x**2
        if self._n < 2 or spread < 0.05 * self._n**2:
            return 1 / 3
        b = (self._n * self._xy - self._x * self._y) / spread
        a = (self._y - b * self._x) / self._n
        return min(1.0, max(0.01, b / max(a + b * rows, 1e-9)))


class Drafter:
    """Drafts for one sequence."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # three ids -> the place behind their latest standing
        self._read = 0  # ids whose standing is entered
        self.hits = 0.6  # share of guesses that came true, before there are any a hopeful one
        self._rest = 0
        self._next_rest = REST

    def _follow(self, ids: Sequence[int]) -> bool:
        """Enters ids that came since, of a long prompt a part at a time; whether it is up to date."""
        # The last three are not entered, so that they never find themselves.
        end = min(len(ids) - 1, self._read + PORTION)
        for place in range(max(self._read, GRAM - 1), end):
            self._after[tuple(ids[place - GRAM + 1 : place + 1])] = place + 1
        self._read = max(self._read, end)
        return end >= len(ids) - 1

    def draft(self, ids: Sequence[int], price: float, room: int) -> list[int]:
        """What may follow the ids of the sequence, at most `room`, as long as each is worth `price` tokens, or nothing."""
        if not self._follow(ids) or room < 1:
            return []
        if self._rest:
            self._rest -= 1
            return []
        place = self._after.get(tuple(ids[-GRAM:]))
        if place is None:
            return []
        count, worth = 0, self.hits
        while count < min(LONGEST, room) and worth > price:
            count, worth = count + 1, worth * self.hits
        if not count:
            # It does not pay; one guess after a while shows whether the text has changed.
            self._rest, self._next_rest = self._next_rest, min(LONGEST_REST, 2 * self._next_rest)
            self.hits = max(self.hits, min(1.0, 1.05 * price))
        return list(ids[place : place + count])

    def learn(self, drafted: int, accepted: int) -> None:
        """How far the last draft came true."""
        for n in range(min(drafted, accepted + 1)):
            self.hits = MEMORY * self.hits + (1 - MEMORY) * (n < accepted)
        if drafted and accepted == drafted:
            self._next_rest = REST

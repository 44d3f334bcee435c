"""The next token of one sequence: its constraint, its forced ids and its seed meet a row of logits here."""

from __future__ import annotations

from typing import Any

import numpy as np

from motet.engine.constraint import Bits, Mask, Only, ask, tell
from motet.engine.sampling import Choice, sample
from motet.engine.sequence import Sequence


def draw(sequence: Sequence, row: Any) -> tuple[Choice, bool]:
    """The token after a row of logits (V,), and whether it was forced. Raises as `sample`, `ask` and `tell` do.

    A forced id that the constraint forbids is not forced: the grammar outside knows better where the channel stands.
    """
    limits, stats = sequence.constraint, sequence.stats
    mask = None if limits is None else ask(limits)
    forced = False
    if sequence.forced:
        token = sequence.forced.popleft()
        forced = mask is None or allows(mask, token)
        if forced:
            mask = Only(np.array([token]))
        else:
            sequence.forced.clear()
    choice = sample(row, sequence.params, sequence.counts, stats.seed, stats.n_sampled, mask)
    if limits is not None:
        tell(limits, choice.token)
    return choice, forced


def allows(mask: Mask, token: int) -> bool:
    """Whether a mask lets this id come."""
    if isinstance(mask, Bits):
        words = mask.words
        return token // 32 < len(words) and bool(int(words[token // 32]) >> token % 32 & 1)
    at = int(mask.ids.searchsorted(token))
    listed = at < len(mask.ids) and int(mask.ids[at]) == token
    return listed if isinstance(mask, Only) else not listed and token < mask.size

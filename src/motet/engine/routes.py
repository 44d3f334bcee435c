"""Which experts a sequence's ids went to, and how many by tag. Knows ids of experts; knows no channels, only tags."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Routes = npt.NDArray[np.uint16]


class Record:
    """Experts of each position of one sequence so far: (positions, layers, experts a token)."""

    def __init__(self, layers: int, chosen: int) -> None:
        self._held = np.empty((0, layers, chosen), np.uint16)
        self.length = 0

    def extend(self, routes: npt.NDArray[np.integer]) -> None:
        """Takes the next positions (n, layers, experts a token)."""
        end = self.length + len(routes)
        if end > len(self._held):
            grown = np.empty((max(64, end, 2 * len(self._held)), *self._held.shape[1:]), np.uint16)
            grown[: self.length] = self.view()
            self._held = grown
        self._held[self.length : end] = routes
        self.length = end

    def truncate(self, length: int) -> None:
        """Forgets positions from `length` on."""
        self.length = min(self.length, length)

    def view(self) -> Routes:
        """What is held."""
        return self._held[: self.length]


def count(
    routes: npt.NDArray[np.integer], experts: int, spans: Iterable[tuple[str, int, int]]
) -> dict[str, npt.NDArray[np.int64]]:
    """How often each expert was chosen, (layers, experts) for each tag; spans are (tag, start, stop) of positions.

    A position counts for every span it lies in; positions that were not run (the last sampled id) count nowhere.
    """
    layers = routes.shape[1]
    offsets = np.arange(layers, dtype=np.int64)[:, None] * experts
    out: dict[str, npt.NDArray[np.int64]] = {}
    for tag, start, stop in spans:
        part = routes[max(0, start) : max(0, stop)].astype(np.int64) + offsets
        found = np.bincount(part.ravel(), minlength=layers * experts).reshape(layers, experts)
        out[tag] = out[tag] + found if tag in out else found
    return out

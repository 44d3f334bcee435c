"""Which tokens may come next, as a grammar outside says it and the sampler applies it. Knows ids; knows no grammar.

A constraint is any object with `mask()` and `advance(token)`, made afresh for every sequence by the callable in
`SamplingParams.constraint`. The engine asks for the mask once a token, after the model has run, and tells it every sampled
token. The next mask depends on nothing but the tokens told so far, so a constraint whose masks are dear may begin the next
one in `advance`, on a thread of its own, while the model runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from motet.errors import UserError

Ids = npt.NDArray[np.int64]


class ConstraintError(UserError):
    """A constraint that failed, or that leaves no token to choose."""


@dataclass(frozen=True, eq=False)
class Only:
    """These ids (n,) and no other; one id is a forced token."""

    ids: Ids

    def __init__(self, ids: Iterable[int]) -> None:
        object.__setattr__(self, "ids", _ascending(ids))


@dataclass(frozen=True, eq=False)
class Except:
    """Everything below `size` but these ids (n,). Costs as much as there are ids, whatever the vocabulary."""

    ids: Ids
    size: int

    def __init__(self, ids: Iterable[int], size: int) -> None:
        object.__setattr__(self, "ids", _ascending(ids))
        object.__setattr__(self, "size", size)


@dataclass(frozen=True, eq=False)
class Bits:
    """A packed mask: bit i % 32 of word i // 32 allows id i; ids beyond the words (n,) are forbidden."""

    words: npt.NDArray[np.uint32]

    def lists(self, size: int) -> Only | Except:
        """The same as ids, whichever list is the shorter, for a vocabulary of `size`."""
        words = np.ascontiguousarray(self.words, "<u4")
        some, gaps = np.flatnonzero(words), np.flatnonzero(~words)
        if len(some) <= len(gaps):
            return Only(_places(words[some], some))
        return Except(_places(~words[gaps], gaps), min(size, 32 * len(words)))


def _places(words: npt.NDArray[np.uint32], at: Ids) -> Ids:
    """The numbers of the bits that are set in these words, which stand at these places."""
    bits = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
    return np.asarray(at[bits >> 5] * 32 + (bits & 31), np.int64)


Mask = Only | Except | Bits


class Constraint(Protocol):
    """What one sequence may say. An exception from either method ends that request, and nothing else."""

    def mask(self) -> Mask | None:
        """What may come next; None for anything."""
        ...

    def advance(self, token: int) -> None:
        """Takes note of the token that came."""
        ...


def ask(constraint: Constraint) -> Mask | None:
    """Its mask. Raises ConstraintError when it fails, its own UserError as it is."""
    try:
        return constraint.mask()
    except UserError:
        raise
    except Exception as e:
        raise _failed(e) from e


def tell(constraint: Constraint, token: int) -> None:
    """Advances it. Raises ConstraintError when it fails, its own UserError as it is."""
    try:
        constraint.advance(token)
    except UserError:
        raise
    except Exception as e:
        raise _failed(e) from e


def _failed(e: Exception) -> ConstraintError:
    return ConstraintError(f"The constraint of this request failed, so it ends ({type(e).__name__}: {e}).")


def _ascending(ids: Iterable[int]) -> Ids:
    out = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    if (out[1:] <= out[:-1]).any():
        out = np.unique(out)
    if len(out) and out[0] < 0:
        raise ConstraintError(f"A mask names the token {out[0]}; ids begin at 0.")
    return out

"""Noticing that a reply goes round in circles, in five ways, each fed one token at a time. Knows ids and probabilities only.

Exact repetition is the engine's own detector (engine/loops.py); the others see repetition that is not exact, and pay for it with
false alarms on texts that are repetitive by nature. `motet study cot` compares them.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from typing import Protocol

import numpy as np

from motet.engine.loops import Loops, Tail

WINDOW = 512


class Detector(Protocol):
    """One reply's. `feed` says whether the reply loops at this token; `logprob` is the token's, where it is known."""

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """Takes the next token."""
        ...


class Period:
    """The tail repeats exactly: three rounds and 64 tokens at least, periods up to 1,024."""

    def __init__(self, rule: Loops | None = None) -> None:
        self._tail = Tail(rule or Loops())

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector."""
        return self._tail.feed(token) is not None


class Lag:
    """The same as Period, told another way: where did the last eight tokens stand before? A distance p that stays for 2p tokens is a
    period. One look into a table a token, and any period; what runs in a server."""

    def __init__(self, repeats: int = 3, least: int = 64, n: int = 8) -> None:
        self._repeats, self._least, self._n = repeats, least, n
        self._last: tuple[int, ...] = ()
        self._at: dict[tuple[int, ...], int] = {}
        self._count = self._lag = self._run = 0

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector."""
        last = self._last = (*self._last[1 - self._n :], token)
        n = self._count = self._count + 1
        lag = n - self._at.get(last, n)
        self._at[last] = n
        if not lag or lag != self._lag:
            self._lag, self._run = lag, 0
            return False
        self._run += 1
        return self._run + self._n >= max(self._repeats * lag, self._least) - lag


class Ngrams:
    """Of the n-grams of the last 512 tokens, more than `share` were there before (seq-rep-n, arXiv 1908.04319)."""

    def __init__(self, n: int = 8, share: float = 0.75, least: int = 128) -> None:
        self._n, self._share, self._least = n, share, least
        self._last: deque[int] = deque(maxlen=n)
        self._grams: deque[int] = deque()
        self._counts: Counter[int] = Counter()

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector."""
        self._last.append(token)
        if len(self._last) < self._n:
            return False
        gram = hash(tuple(self._last))
        self._grams.append(gram)
        self._counts[gram] += 1
        if len(self._grams) > WINDOW:
            old = self._grams.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]
        held = len(self._grams)
        return held >= self._least and 1 - len(self._counts) / held > self._share


class Compression:
    """The ids of the last 512 tokens take less than `ratio` of their bytes when zlib packs them; looked at every 32 tokens."""

    def __init__(self, ratio: float = 0.15, every: int = 32) -> None:
        self._ratio, self._every = ratio, every
        self._held, self._n = np.zeros(WINDOW, np.uint32), 0

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector."""
        self._held[self._n % WINDOW] = token
        self._n += 1
        if self._n < WINDOW or self._n % self._every:
            return False
        data = np.roll(self._held, -(self._n % WINDOW)).tobytes()
        return len(zlib.compress(data, 1)) < self._ratio * len(data)


class Progress:
    """Of the last 256 tokens, fewer than `share` end a run of four that the reply has not had before: nothing new is said."""

    def __init__(self, share: float = 0.1, n: int = 4, window: int = 256) -> None:
        self._share, self._window = share, window
        self._last: deque[int] = deque(maxlen=n)
        self._seen: set[int] = set()
        self._fresh: deque[bool] = deque(maxlen=window)
        self._new = 0

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector."""
        self._last.append(token)
        gram = hash(tuple(self._last))
        fresh = gram not in self._seen
        self._seen.add(gram)
        if len(self._fresh) == self._window:
            self._new -= self._fresh[0]
        self._fresh.append(fresh)
        self._new += fresh
        return len(self._fresh) == self._window and self._new < self._share * self._window


class Certainty:
    """The mean probability of the last 128 tokens is above `share`: a model in a loop is sure of every next token."""

    def __init__(self, share: float = 0.99, window: int = 128) -> None:
        self._share, self._held = share, deque[float](maxlen=window)
        self._sum = 0.0

    def feed(self, token: int, logprob: float | None = None) -> bool:
        """See Detector; false where probabilities are not known."""
        if logprob is None:
            return False
        if len(self._held) == self._held.maxlen:
            self._sum -= self._held[0]
        self._held.append(float(np.exp(logprob)))
        self._sum += self._held[-1]
        return len(self._held) == self._held.maxlen and self._sum > self._share * len(self._held)


DETECTORS = {
    "exact period": Period,
    "same lag": Lag,
    "n-grams": Ngrams,
    "compression": Compression,
    "no progress": Progress,
    "certainty": Certainty,
}

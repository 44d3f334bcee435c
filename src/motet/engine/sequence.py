"""One request's tokens and how far they have come. Knows ids, limits and counts; no model, no threads, no arithmetic."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from motet.engine.constraint import Constraint
from motet.engine.params import SamplingParams
from motet.engine.sampling import Choice, Counts

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class TokenOut:
    """One sampled token. `finish` is set on the last one: "stop" (a stop token, emitted too) or "length".

    logprob and top_logprobs (token, logprob; best first) are natural logarithms of the model's own distribution,
    before mask, bias, penalties, temperature and filters. A cancelled request just ends and a failed one raises; neither
    has a token to carry the word, so `Request.finish` says it.
    """

    seq_id: int
    token: int
    logprob: float
    finish: Finish | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None


@dataclass
class Stats:
    """One request so far. Seconds are wall-clock; None until they are known."""

    seed: int
    n_prompt: int
    n_sampled: int = 0
    cached_tokens: int = 0  # prompt tokens that needed no computing
    recomputed_tokens: int = 0  # computed again, after another request failed in the same step
    finish: Finish | None = None
    queued_s: float | None = None  # from submit to the first step
    first_s: float | None = None  # from submit to the first token
    total_s: float | None = None  # from submit to the end


@dataclass(eq=False)
class Sequence:
    """Prompt and sampled ids of one request; `done` of them are in the cache.

    The thread that owns the model alone writes here, except `cancelled`, which anyone may set once. `out` carries
    TokenOut, then one None or one exception.
    """

    id: int
    ids: list[int]
    params: SamplingParams
    stop: frozenset[int]
    limit: int  # sampled tokens at most
    stats: Stats
    began: float = field(default_factory=time.perf_counter)
    out: queue.SimpleQueue[TokenOut | BaseException | None] = field(default_factory=queue.SimpleQueue)
    counts: Counts = field(default_factory=Counts)
    constraint: Constraint | None = None
    cache: Any = None
    done: int = 0
    cancelled: bool = False
    alone: bool = False  # runs in steps of its own: it was in a step that failed

    @property
    def pending(self) -> int:
        """Ids that are not in the cache yet; at least one while the sequence lives."""
        return len(self.ids) - self.done

    @property
    def decoding(self) -> bool:
        """Whether the next step yields a token at the price of one."""
        return self.pending == 1 and self.stats.n_sampled > 0

    def clock(self) -> float:
        """Seconds since the request was submitted."""
        return time.perf_counter() - self.began

    def accept(self, choice: Choice) -> TokenOut:
        """Appends a sampled token; the result, for `emit`, says whether it was the last."""
        stats, token = self.stats, choice.token
        stats.n_sampled += 1
        if stats.first_s is None:
            stats.first_s = self.clock()
        finish: Finish | None = "stop" if token in self.stop else None
        if finish is None and stats.n_sampled >= self.limit:
            finish = "length"
        self.ids.append(token)
        self.counts.add(token)
        if finish is not None:
            self._end(finish)
        return TokenOut(self.id, token, choice.logprob, finish, choice.top_logprobs)

    def emit(self, out: TokenOut) -> None:
        """Hands a token to the reader. The last one comes after everything is freed and the stats are complete."""
        self.out.put(out)
        if out.finish is not None:
            self.out.put(None)

    def end(self, finish: Finish, error: BaseException | None = None) -> None:
        """Ends without a token: cancelled, or failed with the error its reader will get."""
        self._end(finish)
        self.out.put(error)

    def _end(self, finish: Finish) -> None:
        self.stats.finish, self.stats.total_s, self.cache = finish, self.clock(), None

    def restart(self, cache: Any) -> None:
        """Forgets what was computed; the ids remain, so the same tokens follow."""
        self.stats.recomputed_tokens += self.done
        self.cache, self.done = cache, 0

"""One request's tokens and how far they have come. Knows ids, limits and counts; no model, no threads, no arithmetic."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from motet.engine.constraint import Constraint
from motet.engine.loops import Loop, Tail
from motet.engine.params import SamplingParams
from motet.engine.routes import Record
from motet.engine.sampling import Choice, Counts
from motet.engine.speculate import Drafter

Finish = Literal["stop", "length", "loop", "cancelled", "error"]


@dataclass(frozen=True)
class TokenOut:
    """One sampled token. `finish` is set on the last one: "stop" (a stop token, emitted too), "length" or "loop".

    `forced`: it is one of the ids that close a loop, not the model's choice.

    logprob and top_logprobs (token, logprob; best first) are natural logarithms of the model's own distribution,
    before mask, bias, penalties, temperature and filters. A cancelled request just ends and a failed one raises; neither
    has a token to carry the word, so `Request.finish` says it.
    """

    seq_id: int
    token: int
    logprob: float
    finish: Finish | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None
    forced: bool = False


@dataclass
class Stats:
    """One request so far. Seconds are wall-clock; None until they are known."""

    seed: int
    n_prompt: int
    n_sampled: int = 0
    cached_tokens: int = 0  # prompt tokens that needed no computing
    recomputed_tokens: int = (
        0  # computed again: another request failed in the same step, or needed the memory
    )
    drafted_tokens: int = 0  # guessed ahead of the model
    accepted_tokens: int = 0  # guesses the model agreed with: steps that were saved
    preemptions: int = 0  # times it had to wait because others needed the memory
    loops: list[Loop] = field(default_factory=list)  # when params.loops asks for them
    finish: Finish | None = None
    queued_s: float | None = None  # from submit to the first step
    first_s: float | None = None  # from submit to the first token
    total_s: float | None = None  # from submit to the end


class Reader:
    """The reading end of a request: tokens, then its end. Iterate it once; leaving early cancels."""

    _out: queue.SimpleQueue[TokenOut | BaseException | None]
    stats: Any  # Stats
    _over = False

    @property
    def finish(self) -> Finish | None:
        """How it ended: "stop", "length", "loop", "cancelled", "error"; None while it runs."""
        finish: Finish | None = self.stats.finish
        return finish

    def cancel(self) -> None:
        """Ends the request; harmless when it has ended."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[TokenOut]:
        try:
            while not self._over:
                item = self._out.get()
                if isinstance(item, TokenOut):
                    yield item
                    continue
                self._over = True
                if item is not None:
                    raise item
        finally:
            if self.finish is None:
                self.cancel()


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
    client: str = ""  # requests of one client share its turn
    priority: int = 0  # lower runs first
    deadline: float | None = None  # on time.perf_counter's clock
    leader: Sequence | None = None  # runs the common prompt first
    cache: Any = None
    path: list[Any] = field(default_factory=list)  # nodes of the prefix tree that hold its blocks so far
    routes: Record | None = None
    drafter: Drafter | None = None
    tail: Tail | None = None
    forced: deque[int] = field(default_factory=deque)  # ids that come next whatever the model says
    done: int = 0
    fresh: bool = True  # has computed nothing since it got its cache
    lost: int = 0  # ids that were in the cache before it was given up
    cancelled: bool = False
    alone: bool = False  # runs in steps of its own: it was in a step that failed

    @property
    def pending(self) -> int:
        """Ids that are not in the cache yet; at least one while the sequence lives."""
        return len(self.ids) - self.done

    @property
    def rank(self) -> tuple[int, int]:
        """Whose need comes first: the lower."""
        return self.priority, self.id

    @property
    def following(self) -> bool:
        """Whether another sequence is still computing their common prompt."""
        leader = self.leader
        return leader is not None and leader.stats.n_sampled == 0 and leader.stats.finish is None

    def clock(self) -> float:
        """Seconds since the request was submitted."""
        return time.perf_counter() - self.began

    def accept(self, choice: Choice, forced: bool = False) -> TokenOut:
        """Appends a token; the result, for `emit`, says whether it was the last."""
        stats, token = self.stats, choice.token
        stats.n_sampled += 1
        if stats.first_s is None:
            stats.first_s = self.clock()
        finish: Finish | None = "stop" if token in self.stop else None
        if finish is None and self._loops(token):
            finish = "loop"
        if finish is None and stats.n_sampled >= self.limit:
            finish = "length"
        self.ids.append(token)
        self.counts.add(token)
        if finish is not None:
            self._end(finish)
        return TokenOut(self.id, token, choice.logprob, finish, choice.top_logprobs, forced)

    def _loops(self, token: int) -> bool:
        """Watches the tail; whether the request is to end because it goes round in circles."""
        rule = self.params.loops
        if rule is None or self.tail is None or self.forced:
            return False
        period = self.tail.feed(token)
        if period is None:
            return False
        self.stats.loops.append(Loop(period, self.stats.n_sampled))
        self.tail = Tail(rule)  # the same loop is reported again when it has gone on as long
        if rule.action == "close" and len(self.stats.loops) == 1:
            self.forced.extend(rule.close)
            return False
        return rule.action != "report"

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
        self.stats.finish, self.stats.total_s = finish, self.clock()

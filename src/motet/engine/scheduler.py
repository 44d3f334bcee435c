"""Who runs, and how many tokens of which prompt come next. Knows sequences and counts; no model, memory or threads.

Continuous batching: every sequence with one id to run takes a step together with all others like it; prompts go through the
model in chunks between those steps. No result depends on any of this: the model gives a row the same bits whatever its batch
and its chunks.

A free place goes to the most urgent priority; of equals to the client that holds the fewest places, then to the one that
was served the fewest tokens (Sheng et al. 2024, Fairness in Serving Large Language Models, arXiv 2401.00588: a client that
was idle joins at the level of the least served, so that idling saves nothing up), then to who came first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from motet.engine.sequence import Sequence

SAMPLED = 2  # what a sampled token weighs beside a prompt token in a client's account, as in the paper
CLIENTS = 10_000  # accounts kept at most


@dataclass(frozen=True)
class Work:
    """The next ids to run of a sequence: its own, and drafts behind them. `samples` when a token follows."""

    sequence: Sequence
    count: int
    drafts: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """The ids to run."""
        done = self.sequence.done
        return [*self.sequence.ids[done : done + self.count], *self.drafts]

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.count + len(self.drafts)

    @property
    def samples(self) -> bool:
        """Whether the step yields a token of this sequence."""
        return self.count == self.sequence.pending


class Scheduler:
    """Waiting and running sequences, and what each client has had."""

    def __init__(self, max_batch: int, prefill_chunk: int) -> None:
        self.max_batch, self.prefill_chunk = max_batch, prefill_chunk
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.full = False  # memory ran out: nobody joins until somebody leaves
        self._served: dict[str, float] = {}

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue."""
        active = {s.client for s in (*self.running, *self.waiting)}
        if sequence.client not in active:
            least = min((self._served.get(c, 0.0) for c in active), default=0.0)
            if len(self._served) >= CLIENTS:
                self._served = {c: self._served.get(c, 0.0) for c in active}
            self._served[sequence.client] = max(least, self._served.get(sequence.client, 0.0))
        self.waiting.append(sequence)

    def charge(self, sequence: Sequence, prompt: int, sampled: int) -> None:
        """Enters tokens that were computed for a sequence into its client's account."""
        self._served[sequence.client] = self._served.get(sequence.client, 0.0) + prompt + SAMPLED * sampled

    def leaving(self, now: float) -> list[Sequence]:
        """Removes and returns what was cancelled or has passed its deadline, running or waiting."""
        gone = [
            s
            for s in (*self.running, *self.waiting)
            if s.cancelled or (s.deadline is not None and now >= s.deadline)
        ]
        for sequence in gone:
            self.remove(sequence)
        return gone

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.full = False
        else:
            self.waiting.remove(sequence)

    def drain(self) -> list[Sequence]:
        """Removes and returns everything."""
        gone = [*self.running, *self.waiting]
        self.running, self.waiting, self.full = [], [], False
        return gone

    def admit(self) -> list[Sequence]:
        """Moves waiting sequences into free places and returns them."""
        joined: list[Sequence] = []
        while len(self.running) < self.max_batch and not (self.full and self.running):
            ready = [s for s in self.waiting if not s.following]
            if not ready:
                break
            places = Counter(s.client for s in self.running)
            served = self._served
            chosen = min(ready, key=lambda s: (s.priority, places[s.client], served.get(s.client, 0.0), s.id))
            self.waiting.remove(chosen)
            self.running.append(chosen)
            joined.append(chosen)
        return joined

    def preempt(self, sequence: Sequence) -> None:
        """Sends a running sequence back into the queue, because others need its memory."""
        self.running.remove(sequence)
        self.waiting.append(sequence)
        self.full = True

    def suspect(self) -> Sequence | None:
        """The next sequence that has to run by itself, after a step that failed: the most urgent, which may take the others' memory."""
        return min((s for s in self.running if s.alone), key=lambda s: s.rank, default=None)

    def decoding(self) -> list[Work]:
        """Everyone with one id to run, the most urgent first."""
        return [Work(s, 1) for s in sorted(self.running, key=lambda s: s.rank) if s.pending == 1]

    def prompts(self, left: list[Sequence], room: int) -> list[Work]:
        """Pieces of the prompts that are left, `room` tokens in all. The first in turn takes three quarters while others wait: those who
        came first are not held up by many, and the short are not held up by the long."""
        served = self._served
        left = sorted(left, key=lambda s: (s.priority, served.get(s.client, 0.0), s.id))
        rest = sorted(left[1:], key=lambda s: (s.priority, s.pending, s.id))
        work: list[Work] = []
        taken = 0
        for n, sequence in enumerate([*left[:1], *rest]):
            share = room - taken if n or not rest else room - room // 4
            if min(share, sequence.pending) < 1:
                break
            work.append(Work(sequence, min(share, sequence.pending)))
            taken += work[-1].count
        if work and taken < room and work[0].count < work[0].sequence.pending:
            first = work[0]
            work[0] = Work(first.sequence, min(first.sequence.pending, first.count + room - taken))
        return work

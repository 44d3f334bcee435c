"""Who runs in the next step, and with how many tokens. Knows sequences and counts; no model, threads or sampling.

Continuous batching: every sequence that is decoding takes one token in every step; what is left of prompts shares
`prefill_chunk` tokens a step, first come, first served. While somebody is decoding, prompts get `prefill_beside` tokens
instead, so that a long prompt does not stall the streams beside it. No result depends on any of this: the model gives a
row the same bits whatever its batch and its chunks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from motet.engine.sequence import Sequence


@dataclass(frozen=True)
class Work:
    """The next `count` ids of a sequence; `samples` when they are its last, so that a token follows."""

    sequence: Sequence
    count: int

    @property
    def ids(self) -> list[int]:
        """The ids to run."""
        done = self.sequence.done
        return self.sequence.ids[done : done + self.count]

    @property
    def samples(self) -> bool:
        """Whether the step yields a token of this sequence."""
        return self.count == self.sequence.pending


class Scheduler:
    """Waiting and running sequences, in the order they came."""

    def __init__(self, max_batch: int, prefill_chunk: int, prefill_beside: int) -> None:
        self.max_batch, self.prefill_chunk, self.prefill_beside = max_batch, prefill_chunk, prefill_beside
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        self.waiting.append(sequence)

    def cancelled(self) -> list[Sequence]:
        """Removes and returns what was cancelled, running or waiting."""
        gone = [s for s in (*self.running, *self.waiting) if s.cancelled]
        if gone:
            self.running = [s for s in self.running if not s.cancelled]
            self.waiting = deque(s for s in self.waiting if not s.cancelled)
        return gone

    def remove(self, sequence: Sequence) -> None:
        """Takes a finished sequence out."""
        self.running.remove(sequence)

    def drain(self) -> list[Sequence]:
        """Removes and returns everything."""
        gone = [*self.running, *self.waiting]
        self.running, self.waiting = [], deque()
        return gone

    def plan(self) -> list[Work]:
        """The next step: at most one piece of work per sequence; empty when nothing is left to do."""
        while self.waiting and len(self.running) < self.max_batch:
            self.running.append(self.waiting.popleft())
        suspect = next((s for s in self.running if s.alone), None)
        if suspect is not None:
            return [Work(suspect, min(suspect.pending, self.prefill_chunk))]
        work = [Work(s, 1) for s in self.running if s.decoding]
        room = min(self.prefill_beside, self.prefill_chunk) if work else self.prefill_chunk
        for sequence in self.running:
            if room > 0 and not sequence.decoding:
                work.append(Work(sequence, min(room, sequence.pending)))
                room -= work[-1].count
        return work

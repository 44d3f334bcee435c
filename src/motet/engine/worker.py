"""The thread that owns the model: plans a step, runs it, samples, hands tokens out. Knows no callers and no text."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from motet.engine.constraint import ask, tell
from motet.engine.sampling import sample
from motet.engine.scheduler import Scheduler, Work
from motet.engine.sequence import Sequence
from motet.errors import UserError
from motet.model import Span


class EngineError(UserError):
    """The engine cannot go on with a request."""


class Worker:
    """One thread and what it alone touches: the model, the scheduler, every cache. Others use add, wake and stop."""

    def __init__(self, model: Any, scheduler: Scheduler) -> None:
        self.model, self.scheduler = model, scheduler
        self.steps = 0
        self._inbox: deque[Sequence] = deque()
        self._bell = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="motet-engine", daemon=True)
        self._thread.start()

    def add(self, sequence: Sequence) -> None:
        """Hands a sequence to the thread. Raises EngineError when the engine is closed or broken."""
        with self._bell:
            if self._failure is not None:
                raise EngineError(
                    "The engine stopped after an internal error; make a new one."
                ) from self._failure
            if self._stopping:
                raise EngineError("The engine is closed; make a new one.")
            self._inbox.append(sequence)
            self._bell.notify()

    def wake(self) -> None:
        """Makes the thread look at what was cancelled."""
        with self._bell:
            self._bell.notify()

    def stop(self) -> None:
        """Ends the thread after the step it is in; requests that were not finished raise. May be called twice."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._collect():
                self._step()
        except BaseException as e:
            # A fault of the engine itself: nobody may wait for ever.
            with self._bell:
                self._failure = e
            self._end_all(e)
        else:
            self._end_all(None)

    def _end_all(self, failure: BaseException | None) -> None:
        with self._bell:
            left = [*self.scheduler.drain(), *self._inbox]
            self._inbox.clear()
        for sequence in left:
            if failure is None:
                sequence.end(
                    "cancelled", EngineError("The engine was closed before the request ended; ask again.")
                )
            else:
                sequence.end("error", failure)

    def _collect(self) -> bool:
        """Waits for something to do and takes in what came; False when the thread is to end."""
        with self._bell:
            while not (self._stopping or self._inbox or self.scheduler.running or self.scheduler.waiting):
                self._bell.wait()
            while self._inbox:
                self.scheduler.add(self._inbox.popleft())
            for sequence in self.scheduler.cancelled():
                sequence.end("cancelled")
            return not self._stopping

    def _step(self) -> None:
        """One forward pass for everybody, one token for those whose ids are all computed."""
        work = self.scheduler.plan()
        if not work:
            return
        self.steps += 1
        try:
            logits = self._forward(work)
        except Exception as e:
            self._isolate(work, e)
            return
        for item, rows in zip(work, logits, strict=True):
            sequence, samples = item.sequence, item.samples
            sequence.done += item.count
            if samples and not sequence.cancelled:
                sequence.alone = False
                self._sample(sequence, rows[-1])

    def _forward(self, work: list[Work]) -> list[Any]:
        spans = []
        for item in work:
            sequence = item.sequence
            if sequence.cache is None:
                sequence.cache = self.model.new_cache()
            if sequence.stats.queued_s is None:
                sequence.stats.queued_s = sequence.clock()
            spans.append(Span(item.ids, sequence.cache, "last" if item.samples else "none"))
        return list(self.model.forward(spans))

    def _sample(self, sequence: Sequence, row: Any) -> None:
        try:
            n = sequence.stats.n_sampled
            limits = sequence.constraint
            mask = None if limits is None else ask(limits)
            choice = sample(row, sequence.params, sequence.counts, sequence.stats.seed, n, mask)
            if limits is not None:
                tell(limits, choice.token)
        except Exception as e:
            self._fail(sequence, e)
            return
        out = sequence.accept(choice)
        if out.finish is not None:
            self.scheduler.remove(sequence)
        sequence.emit(out)

    def _isolate(self, work: list[Work], error: Exception) -> None:
        """A step failed. Alone, its sequence ends; of several, each starts over by itself, so only the cause ends.

        Caches may be half-written, so they are dropped; the ids are kept and give the same bits again.
        """
        if len(work) == 1:
            self._fail(work[0].sequence, error)
            return
        for item in work:
            item.sequence.restart(None)
            item.sequence.alone = True

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self.scheduler.remove(sequence)
        sequence.end("error", error)

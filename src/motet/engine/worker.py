"""The thread that owns the model: plans, runs, samples, hands tokens out. Knows no callers and no text.

Two kinds of work take turns. A decoding step gives a token to everyone who has one id to run. Between two of them a prompt's
pass through the model goes on for about as long as such a step takes: a pass can pause between layers, so nobody's stream
stalls for another's prompt, however long its chunks are. When nobody decodes, passes run through.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence as Several
from typing import Any

from motet.engine.memory import Memory
from motet.engine.sampling import SamplingError
from motet.engine.scheduler import Scheduler, Work
from motet.engine.sequence import Sequence, TokenOut
from motet.engine.speculate import MARGIN, Cost, Drafter
from motet.engine.tokens import draw
from motet.errors import UserError
from motet.kernels import PAGE
from motet.model import Span

PAUSE = 0.05  # seconds of a prompt's pass before the thread looks at what came in, when nobody decodes
BESIDE = 1.0  # seconds of a prompt's pass for each second of the decoding step it follows
LEAST = 16  # tokens of a chunk at least
FIRST = 64  # tokens of a chunk beside others before it was measured how long they may be
SAME = 16  # ids in common that are worth waiting for


class EngineError(UserError):
    """The engine cannot go on with a request."""


class QueueFull(EngineError):
    """Too many requests wait; the caller may try again later."""


class DeadlineError(EngineError):
    """A request's time was up before its last token."""


class Worker:
    """One thread and what it alone touches: the model, the scheduler, the memory. Others use add, wake and stop."""

    def __init__(
        self, model: Any, scheduler: Scheduler, memory: Memory, beside: int | None, speculate: bool, max_queue: int
    ) -> None:  # fmt: skip
        """beside: prompt tokens of a pass while others decode; None measures how many keep their streams even."""
        self.model, self.scheduler, self.memory = model, scheduler, memory
        self.speculate, self.max_queue = speculate, max_queue
        self.steps = 0
        self.cost = Cost()
        self._fixed, self._beside = beside, FIRST
        self._decode_s = 0.0  # of a decoding step, lately
        self._pass: Any = None
        self._work: list[Work] = []  # of the pass
        self._layers: list[float] = []  # seconds of the pass's layers
        self._inbox: deque[Sequence] = deque()
        self._bell = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="motet-engine", daemon=True)
        self._thread.start()

    def add(self, sequences: Several[Sequence]) -> None:
        """Hands sequences to the thread, all or none. Raises EngineError when the engine is closed or broken."""
        with self._bell:
            if self._failure is not None:
                raise EngineError(
                    "The engine stopped after an internal error; make a new one."
                ) from self._failure
            if self._stopping:
                raise EngineError("The engine is closed; make a new one.")
            waiting = len(self._inbox) + len(self.scheduler.waiting)
            if waiting + len(sequences) > self.max_queue:
                raise QueueFull(
                    f"{waiting} requests wait and the queue holds {self.max_queue}; try again later, or raise max_queue."
                )
            self._inbox.extend(sequences)
            self._bell.notify()

    @property
    def alive(self) -> bool:
        """Whether `add` takes sequences."""
        return self._failure is None and not self._stopping

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
            self.memory.close()

    def _end_all(self, failure: BaseException | None) -> None:
        with self._bell:
            left = [*self.scheduler.drain(), *self._inbox]
            self._inbox.clear()
        self._pass, self._work = None, []
        for sequence in left:
            if failure is None:
                self.memory.release(sequence)
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
        for sequence in self.scheduler.leaving(time.perf_counter()):
            self._leave(sequence)
            if sequence.cancelled:
                sequence.end("cancelled")
            else:
                sequence.end(
                    "error", DeadlineError("The request's deadline passed before it ended; allow more time.")
                )
        return not self._stopping

    def _leave(self, sequence: Sequence) -> None:
        """Frees all that a sequence holds, its part of a pass under way included."""
        if any(item.sequence is sequence for item in self._work):
            self._pass.drop(sequence.cache)
            self._work = [item for item in self._work if item.sequence is not sequence]
            if not self._work:
                self._pass = None
        self.memory.release(sequence)

    def _step(self) -> None:
        """One token for those who decode, then some of the pass that prompts are in."""
        for sequence in self.scheduler.admit():
            self._attach(sequence)
        suspect, beside = self.scheduler.suspect(), False
        if suspect is None:
            beside = self._advance(None)
        elif self._pass is None:
            steps = self.steps
            beside = self._advance([suspect])
            if self._pass is None and self.steps == steps:
                # It waits for memory of those before it, who would wait for it in turn: they go on without it.
                beside = self._advance([s for s in self.scheduler.running if not s.alone])
        if self._pass is not None:
            self._continue(self._decode_s * BESIDE if beside else PAUSE)

    def _advance(self, among: list[Sequence] | None) -> bool:
        """A token for those who decode, and a pass of prompts where there is none: of all who run or of some. Whether anyone decodes."""
        decoding = [item for item in self.scheduler.decoding() if among is None or item.sequence in among]
        if decoding:
            self._decode(decoding)
        if self._pass is None:
            self._begin(among, beside=bool(decoding))
        return bool(decoding)

    def _attach(self, sequence: Sequence) -> None:
        self.memory.attach(sequence)
        if self.speculate and sequence.drafter is None:
            sequence.drafter = Drafter()

    def _decode(self, work: list[Work]) -> None:
        if self.speculate:
            price = MARGIN * self.cost.row(len(work)) * len(work)
            work = [self._guess(item, price) for item in work]
        work = self._room(work)
        if not work:
            return
        began = time.perf_counter()
        try:
            run = self._start(work)
            run.run()
        except Exception as e:
            self._isolate(work, e)
            return
        self._decode_s += (time.perf_counter() - began - self._decode_s) * (0.2 if self._decode_s else 1.0)
        self._take(work, run)
        self.cost.note(sum(item.rows for item in work), time.perf_counter() - began)

    def _guess(self, item: Work, price: float) -> Work:
        sequence, stats = item.sequence, item.sequence.stats
        assert sequence.drafter is not None
        room = sequence.limit - stats.n_sampled - 1
        drafts = list(sequence.forced)[:room] or sequence.drafter.draft(sequence.ids, price, room)
        return Work(sequence, 1, tuple(drafts)) if drafts else item

    def _begin(self, among: list[Sequence] | None, beside: bool) -> None:
        """Starts the next pass of prompts, of all who run or of some."""
        left, chunk = self._different(), self._chunk(beside)
        if among is not None:
            left = [s for s in among if s.pending > 1]
        work = self._room(self.scheduler.prompts(left, chunk))
        if not work and left:
            # Whose turn it was cannot have the memory; the most urgent can, or nobody would ever go on.
            first = min(left, key=lambda s: s.rank)
            work = self._room([Work(first, min(first.pending, chunk))])
        if not work:
            return
        try:
            self._pass, self._work, self._layers = self._start(work), work, []
        except Exception as e:
            self._isolate(work, e)

    def _different(self) -> list[Sequence]:
        """Prompts to go on with: of several that would compute the same next, one; the others find it done a pass later."""
        left = sorted((s for s in self.scheduler.running if s.pending > 1), key=lambda s: (s.fresh, s.id))
        if len(left) < 2 or self.memory.prefixes is None:
            return left
        chosen, seen = [], set()
        for sequence in left:
            if sequence.fresh:
                self.memory.attach(sequence)
            ids, done, path = sequence.ids, sequence.done, sequence.path
            # Two that stand on the same block and go on with the same ids.
            mark = (id(path[-1]) if path else 0, done, tuple(ids[len(path) * PAGE : done + SAME]))
            if sequence.pending > 1 and mark not in seen:
                seen.add(mark)
                chosen.append(sequence)
        return chosen

    def _start(self, work: list[Work]) -> Any:
        self.steps += 1
        spans = []
        for item in work:
            if item.sequence.fresh:
                self.memory.start(item.sequence)
            want = "all" if item.drafts else "last" if item.samples else "none"
            spans.append(Span(item.ids, item.sequence.cache, want))  # type: ignore[arg-type]
        return self.model.begin(spans, self.memory.record is not None)

    def _continue(self, seconds: float) -> None:
        work, run = self._work, self._pass
        try:
            ended = run.run(seconds)
        except Exception as e:
            self._pass, self._work = None, []
            self._isolate(work, e)
            return
        self._layers.append(run.layer_s)
        if ended:
            self._pass, self._work = None, []
            self._adapt(sum(item.count for item in work))
            self._take(work, run)

    def _adapt(self, tokens: int) -> None:
        """Longer chunks are cheaper; a layer of one has to fit into its turn beside a decoding step."""
        if not self._decode_s or tokens < self._beside // 2:
            return
        share = statistics.median(self._layers) / self._decode_s
        if share > 0.9 and tokens <= self._beside:
            self._beside = max(LEAST, self._beside // 2)
        elif share < 0.45 and tokens == self._beside:
            self._beside *= 2

    def _chunk(self, beside: bool) -> int:
        """Prompt tokens of the next pass."""
        chunk = self.scheduler.prefill_chunk
        return min(chunk, self._fixed or self._beside) if beside else chunk

    def _room(self, work: list[Work]) -> list[Work]:
        """Makes room for a step, the most urgent sequence first; those with less urgent needs wait, or give up their pages."""
        promised = 0
        kept: list[Work] = []
        for item in sorted(work, key=lambda item: item.sequence.rank):
            if item.sequence not in self.scheduler.running:
                continue  # preempted for one before it
            need = self.memory.fit(item.sequence, item.rows, promised)
            while need is None and self._preempt(item.sequence, kept):
                need = self.memory.fit(item.sequence, item.rows, promised)
            if need is None and item.drafts:
                item = Work(item.sequence, item.count)
                need = self.memory.fit(item.sequence, item.count, promised)
            if need is not None:
                promised += need
                kept.append(item)
        return kept

    def _preempt(self, sequence: Sequence, kept: list[Work]) -> bool:
        """Takes the pages of the least urgent sequence behind `sequence`; False when there is none."""
        held = {id(item.sequence) for item in kept}
        behind = [
            s for s in self.scheduler.running
            if s.rank > sequence.rank and s.cache is not None and s.cache.nbytes and id(s) not in held
        ]  # fmt: skip
        if not behind:
            return False
        victim = max(behind, key=lambda s: s.rank)
        self._leave(victim)
        victim.stats.preemptions += 1
        self.scheduler.preempt(victim)
        return True

    def _take(self, work: list[Work], run: Any) -> None:
        """What a step brought: positions in the cache, tokens for those who sample.

        Readers get theirs when all are drawn: they would wake in between and take the interpreter from the rest of the batch.
        """
        routes, at = run.routes, 0
        outs: list[tuple[Sequence, TokenOut]] = []
        for item, rows in zip(work, run.logits, strict=True):
            sequence, samples = item.sequence, item.samples
            sequence.done += item.rows
            if sequence.routes is not None and routes is not None:
                sequence.routes.extend(routes[at : at + item.rows])
            at += item.rows
            if not samples:
                self.memory.file(sequence)
                self.scheduler.charge(sequence, item.count, 0)
                continue
            if sequence.cancelled:
                continue
            first = sequence.stats.n_sampled == 0
            sequence.alone = False
            outs += self._sample(item, rows, first)
            self.scheduler.charge(sequence, item.count if first else 0, 1)
        self._emit(outs)

    def _emit(self, outs: list[tuple[Sequence, TokenOut]]) -> None:
        for sequence, out in outs:
            sequence.emit(out)

    def _sample(self, item: Work, rows: Any, first: bool) -> list[tuple[Sequence, TokenOut]]:
        """One token, and one more for every draft that came true."""
        sequence = item.sequence
        outs: list[tuple[Sequence, TokenOut]] = []
        agreed = 0
        for n, row in enumerate(rows):
            try:
                choice, forced = draw(sequence, row)
            except Exception as e:
                self._emit(outs)
                self._fail(sequence, e)
                return []
            if first and not item.drafts:
                self.memory.file(sequence, end=True)  # the prompt: where siblings and the next turn begin
            out = sequence.accept(choice, forced)
            outs.append((sequence, out))
            agreed = n
            if out.finish is not None or n == len(item.drafts) or choice.token != item.drafts[n]:
                break
        if item.drafts:
            self._settle(sequence, len(item.drafts), agreed)
        if out.finish is None:
            self.memory.file(sequence)
        else:
            self.scheduler.remove(sequence)
            self.memory.release(sequence)
        return outs

    def _settle(self, sequence: Sequence, drafted: int, agreed: int) -> None:
        """Takes back the drafts that did not come true."""
        stats = sequence.stats
        stats.drafted_tokens += drafted
        stats.accepted_tokens += agreed
        assert sequence.drafter is not None
        sequence.drafter.learn(drafted, agreed)
        if agreed < drafted:
            sequence.done = len(sequence.ids) - 1
            sequence.cache.truncate(sequence.done)
            if sequence.routes is not None:
                sequence.routes.truncate(sequence.done)

    def _isolate(self, work: list[Work], error: Exception) -> None:
        """A step failed. Alone, its sequence ends; of several, each starts over by itself, so only the cause ends.

        Caches may be half-written, so they are dropped; the ids are kept and give the same bits again.
        """
        if len(work) == 1:
            self._fail(work[0].sequence, error)
            return
        for item in work:
            self.memory.release(item.sequence, file=False)
            self._attach(item.sequence)
            item.sequence.alone = True

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self.scheduler.remove(sequence)
        poisoned = isinstance(error, SamplingError)  # what gave such logits is not worth keeping
        if poisoned:
            self.memory.discard(sequence)
        self.memory.release(sequence, file=not poisoned)
        sequence.end("error", error)

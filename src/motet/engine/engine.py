"""The engine as callers see it: token ids in, sampled tokens out, many at once. Knows no text, messages or tools.

    with Engine(model) as engine:
        for out in engine.stream(ids, SamplingParams(temperature=0)): ...

Same ids, same params, same seed: same tokens, alone or beside any others.
"""

from __future__ import annotations

import itertools
import operator
import secrets
import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Ids
from types import TracebackType
from typing import Any

from motet.engine.params import SamplingParams
from motet.engine.sampling import Counts
from motet.engine.scheduler import Scheduler
from motet.engine.sequence import Finish, Sequence, Stats, TokenOut
from motet.engine.worker import Worker
from motet.errors import UsageError, UserError
from motet.model import ContextError


class Request:
    """A request under way. Iterate it once for its tokens; leaving the loop early, by Ctrl-C too, cancels it.

    A request that fails raises its error from the loop; `finish` and `stats` tell how it went.
    """

    def __init__(self, engine: Engine, worker: Worker, sequence: Sequence) -> None:
        self._engine = engine  # keeps the engine alive while somebody waits for its tokens
        self._worker, self._sequence = worker, sequence
        self._over = False

    @property
    def id(self) -> int:
        """As in TokenOut.seq_id."""
        return self._sequence.id

    @property
    def stats(self) -> Stats:
        """Counts and times so far, and the seed."""
        return self._sequence.stats

    @property
    def finish(self) -> Finish | None:
        """How it ended: "stop", "length", "cancelled", "error"; None while it runs."""
        return self._sequence.stats.finish

    def cancel(self) -> None:
        """Ends the request within one step and frees what it holds; harmless when it has ended."""
        self._sequence.cancelled = True
        self._worker.wake()

    def __iter__(self) -> Iterator[TokenOut]:
        try:
            while not self._over:
                item = self._sequence.out.get()
                if isinstance(item, TokenOut):
                    yield item
                    continue
                self._over = True
                if item is not None:
                    raise item
        finally:
            if self.finish is None:
                self.cancel()


class Engine:
    """Runs requests on one model, up to `max_batch` at once, from one thread that owns it. A context manager.

    prefill_chunk: prompt tokens a step; prefill_beside: the same while others are decoding. Both trade throughput for
    even streams and change no token.
    """

    def __init__(
        self, model: Any, max_batch: int = 8, prefill_chunk: int = 512, prefill_beside: int | None = None
    ) -> None:
        beside = min(64, prefill_chunk) if prefill_beside is None else prefill_beside
        for name, value in (
            ("max_batch", max_batch),
            ("prefill_chunk", prefill_chunk),
            ("prefill_beside", beside),
        ):
            if value < 1:
                raise UsageError(f"{name} is {value}; give at least 1.")
        self.model = model
        self._scheduler = Scheduler(max_batch, prefill_chunk, beside)
        self._worker = Worker(model, self._scheduler)
        self._numbers = itertools.count()
        # Runs when the engine is forgotten, and before Python ends: no thread is left inside native code.
        self._stop = weakref.finalize(self, self._worker.stop)

    def submit(self, ids: Ids[int], params: SamplingParams | None = None) -> Request:
        """Queues a request and returns at once.

        Raises ContextError when ids leave no room in the context, UserError for ids that are no tokens of the model,
        UsageError for params that name such ids, EngineError when the engine is closed.
        """
        params = SamplingParams() if params is None else params
        config = self.model.config
        prompt = self._prompt(ids)
        params.check_vocabulary(config.vocab_size)
        room = config.max_position_embeddings - len(prompt)
        seed = secrets.randbits(63) if params.seed is None else int(params.seed)
        stop = config.eos_token_ids if params.stop_token_ids is None else params.stop_token_ids
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        counts = Counts(frozenset(prompt) if params.repetition_penalty != 1 else frozenset())
        stats = Stats(seed, len(prompt))
        sequence = Sequence(next(self._numbers), prompt, params, frozenset(stop), limit, stats, counts=counts)
        if params.constraint is not None:
            sequence.constraint = params.constraint()
        self._worker.add(sequence)
        return Request(self, self._worker, sequence)

    def _prompt(self, ids: Ids[int]) -> list[int]:
        config = self.model.config
        try:
            prompt = [operator.index(i) for i in ids]
        except TypeError:
            raise UserError("A prompt is a sequence of token ids; encode text first.") from None
        if not prompt:
            raise UserError("The prompt has no tokens; give at least one.")
        if len(prompt) >= config.max_position_embeddings:
            raise ContextError(
                f"The prompt has {len(prompt)} tokens and the context {config.max_position_embeddings}, "
                "which leaves no room for an answer; shorten the prompt."
            )
        for i in prompt:
            if not 0 <= i < config.vocab_size:
                raise UserError(f"Token id {i} is not in this model's vocabulary of {config.vocab_size}.")
        return prompt

    def stream(self, ids: Ids[int], params: SamplingParams | None = None) -> Iterator[TokenOut]:
        """Sampled tokens as they come; checks ids and params before the first. Closing the iterator cancels."""
        return iter(self.submit(ids, params))

    def generate(self, ids: Ids[int], params: SamplingParams | None = None) -> list[int]:
        """All sampled tokens, the stop token included."""
        return [out.token for out in self.submit(ids, params)]

    @property
    def running(self) -> int:
        """Requests in the batch now."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests queued behind the batch."""
        return len(self._scheduler.waiting)

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return self._worker.steps

    def close(self) -> None:
        """Ends the thread; requests under way raise EngineError. May be called again."""
        self._stop()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

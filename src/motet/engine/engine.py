"""The engine as callers see it: token ids in, sampled tokens out, many at once. Knows no text, messages or tools.

    with Engine(model) as engine:
        for out in engine.stream(ids, SamplingParams(temperature=0)): ...

Same ids, same params, same seed: same tokens, alone or beside any others.
"""

from __future__ import annotations

import itertools
import os
import secrets
import weakref
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Ids
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.engine.loops import Tail
from motet.engine.memory import Memory, default_budget
from motet.engine.params import SamplingParams
from motet.engine.prompt import check_prompt
from motet.engine.protocol import Capabilities
from motet.engine.routes import Routes, count
from motet.engine.sampling import Counts
from motet.engine.scheduler import Scheduler
from motet.engine.sequence import Reader, Sequence, Stats, TokenOut
from motet.engine.spill import Spill
from motet.engine.worker import Worker
from motet.errors import UsageError, UserError
from motet.model import ContextError

APART = 0xD1B54A32D192ED03  # odd, and another than the one between the stretches of a turn (turn.py)


def nth_seed(seed: int, n: int) -> int:
    """The seed of answer n to one prompt; the first is the request's own."""
    return seed if n == 0 else (seed + APART * n) % (1 << 63)


def _spill(model: Any, kind: str, folder: Path, limit: int, routes: bool) -> Spill:
    """Files that depend on the weights, the arithmetic and the layout of the pages: a folder for each combination."""
    from motet import __version__, kernels

    name = f"{model.pack.key}-{model.precision}-{kind}-{kernels.isa()}-{__version__}"
    name += "-routes" if routes else ""
    try:
        return Spill(folder / name, limit)
    except OSError as e:
        raise UserError(f"Prefixes cannot be kept in {folder} ({e.strerror}); choose another folder.") from e


class Request(Reader):
    """A request under way. Iterate it once for its tokens; leaving the loop early, by Ctrl-C too, cancels it.

    A request that fails raises its error from the loop; `finish` and `stats` tell how it went.
    """

    def __init__(self, engine: Engine, worker: Worker, sequence: Sequence) -> None:
        self._engine = engine  # keeps the engine alive while somebody waits for its tokens
        self._worker, self._sequence = worker, sequence
        self._out = sequence.out

    @property
    def id(self) -> int:
        """As in TokenOut.seq_id."""
        return self._sequence.id

    @property
    def stats(self) -> Stats:
        """Counts and times so far, and the seed."""
        return self._sequence.stats

    def routes(self) -> Routes:
        """Experts (positions, layers, experts a token) of prompt and reply; the last sampled id was never run.

        Complete when the request has ended. Raises UsageError unless the engine records them.
        """
        record = self._sequence.routes
        if record is None:
            if not self._engine.capabilities.router_counts:
                raise UsageError("This engine does not record routes; make it with record_routes=True.")
            raise UsageError("The request has not started; read its routes when it has ended.")
        return record.view()

    def router_counts(self, spans: Iterable[tuple[str, int, int]]) -> dict[str, npt.NDArray[np.int64]]:
        """How often each expert was chosen, (layers, experts) for each tag; spans are (tag, start, stop) of positions in
        prompt and reply. Raises as `routes` does."""
        return count(self.routes(), self._engine.model.config.num_experts, spans)

    def cancel(self) -> None:
        """Ends the request within one step and frees what it holds; harmless when it has ended."""
        self._sequence.cancelled = True
        self._worker.wake()


class Engine:
    """Runs requests on one model, up to `max_batch` at once, from one thread that owns it. A context manager.

    prefill_chunk: prompt tokens in one pass; prefill_beside: the same while others are decoding, measured when None.
    max_queue: requests that may wait; more are refused with QueueFull. kv_memory: bytes for keys and values, running and
    cached (default: a quarter of the machine's memory). prefix_cache: keep what was computed and start from it.
    speculate: guess ahead where the text repeats, as long as it pays. record_routes: note which experts each id goes to.
    spill: a folder where prefixes go that kv_memory has no room for, at most spill_bytes of them; they survive restarts.
    None of these changes a token.
    """

    def __init__(
        self, model: Any, max_batch: int = 8, prefill_chunk: int = 512, prefill_beside: int | None = None, *,
        max_queue: int = 256, kv_memory: int | None = None, prefix_cache: bool = True, speculate: bool = True,
        record_routes: bool = False, spill: str | os.PathLike[str] | None = None, spill_bytes: int = 16 << 30,
    ) -> None:  # fmt: skip
        for name, value in (
            ("max_batch", max_batch),
            ("prefill_chunk", prefill_chunk),
            ("prefill_beside", 1 if prefill_beside is None else prefill_beside),
            ("max_queue", max_queue),
            ("kv_memory", 1 if kv_memory is None else kv_memory),
        ):
            if value < 1:
                raise UsageError(f"{name} is {value}; give at least 1.")
        self.model = model
        config, pages = model.config, model.new_pages(default_budget() if kv_memory is None else kv_memory)
        record = (config.num_hidden_layers, config.experts_per_token) if record_routes else None
        store = None if spill is None else _spill(model, pages.kind, Path(spill), spill_bytes, record_routes)
        self._memory = Memory(pages, prefill_chunk, prefix_cache, store, record)
        self._scheduler = Scheduler(max_batch, prefill_chunk)
        self._worker = Worker(model, self._scheduler, self._memory, prefill_beside, speculate, max_queue)
        self._numbers = itertools.count()
        # Runs when the engine is forgotten, and before Python ends: no thread is left inside native code.
        self._stop = weakref.finalize(self, self._worker.stop)

    @property
    def capabilities(self) -> Capabilities:
        """What this engine honours: everything, router counts when they are recorded."""
        return Capabilities(
            bit_equal=True, constraints=True, router_counts=self._memory.record is not None, loops=True, priorities=True,
            fair_queueing=True, deadlines=True, truthful_logprobs=True, max_logprobs=None, cached_tokens=True,
            speculation_report=True,
        )  # fmt: skip

    def submit(
        self, ids: Ids[int], params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> Request:  # fmt: skip
        """Queues a request and returns at once. Of equal priority (lower first), clients get turns; deadline_s is counted
        from now, and a request that has not ended by then raises DeadlineError.

        Raises ContextError when ids leave no room in the context, UserError for ids that are no tokens of the model,
        UsageError for params that name such ids, QueueFull when too many wait, EngineError when the engine is closed.
        """
        return self.submit_many(ids, 1, params, client=client, priority=priority, deadline_s=deadline_s)[0]

    def submit_many(
        self, ids: Ids[int], n: int, params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> list[Request]:  # fmt: skip
        """Queues n answers to one prompt, all or none; the prompt is computed once. Answer k draws from seed `nth_seed`."""
        if n < 1:
            raise UsageError(f"n is {n}; give at least 1.")
        if deadline_s is not None and not deadline_s > 0:
            raise UsageError(f"deadline_s is {deadline_s}; give a positive number of seconds, or None.")
        params = SamplingParams() if params is None else params
        prompt = self._prompt(ids)
        params.check_vocabulary(self.model.config.vocab_size)
        seed = secrets.randbits(63) if params.seed is None else int(params.seed)
        sequences: list[Sequence] = []
        for k in range(n):
            sequence = self._sequence(prompt, params, nth_seed(seed, k))
            sequence.client, sequence.priority = client, priority
            if deadline_s is not None:
                sequence.deadline = sequence.began + deadline_s
            if k and self._memory.prefixes is not None:
                sequence.leader = sequences[0]
            sequences.append(sequence)
        self._worker.add(sequences)
        return [Request(self, self._worker, s) for s in sequences]

    def _sequence(self, prompt: list[int], params: SamplingParams, seed: int) -> Sequence:
        config = self.model.config
        stop = config.eos_token_ids if params.stop_token_ids is None else params.stop_token_ids
        room = min(config.max_position_embeddings, self._memory.capacity) - len(prompt)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        counts = Counts(frozenset(prompt) if params.repetition_penalty != 1 else frozenset())
        stats = Stats(seed, len(prompt))
        sequence = Sequence(
            next(self._numbers), list(prompt), params, frozenset(stop), limit, stats, counts=counts
        )
        if params.constraint is not None:
            sequence.constraint = params.constraint()
        if params.loops is not None:
            sequence.tail = Tail(params.loops)
        return sequence

    def _prompt(self, ids: Ids[int]) -> list[int]:
        config, capacity = self.model.config, self._memory.capacity
        prompt = check_prompt(ids, config.vocab_size, config.max_position_embeddings)
        if len(prompt) >= capacity:
            raise ContextError(
                f"The prompt has {len(prompt)} tokens and the memory for keys and values holds {capacity} of one request; "
                "shorten it, or raise the budget (kv_memory, --kv-memory)."
            )
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
    def alive(self) -> bool:
        """Whether requests are still taken: false when it is closed or has stopped after an error of its own."""
        return self._worker.alive

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return self._worker.steps

    @property
    def memory(self) -> dict[str, Any]:
        """held_bytes and budget_bytes of keys and values, blocks of prefixes held, blocks spilled and reloaded."""
        return self._memory.report()

    def close(self) -> None:
        """Ends the thread; requests under way raise EngineError. May be called again."""
        self._stop()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

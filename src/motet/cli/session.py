"""A loaded model with its engine, one turn at a time, timed. Knows events and clocks; prints nothing.

The clock stands between the turn and the engine: it sees each sampled token as it arrives, so speeds are those of the
engine, whatever rendering and printing cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.engine import Engine, SamplingParams
    from motet.harmony import Conversation, Event, Rules, ToolResult
    from motet.tools import Tool
    from motet.tools.browser import CitationStream


@dataclass
class Timing:
    """One turn: tokens in, tokens out, and when. Seconds are wall-clock."""

    n_prompt: int = 0
    n_cached: int = 0  # of them, those that needed no computing
    n_sampled: int = 0
    first_s: float = 0.0  # from the request to the first sampled token
    decode_s: float = 0.0  # from the first sampled token to the last

    @property
    def prefill_rate(self) -> float | None:
        """Computed prompt tokens per second, the first sampled token included in the time."""
        return (self.n_prompt - self.n_cached) / self.first_s if self.first_s > 0 else None

    @property
    def decode_rate(self) -> float | None:
        """Sampled tokens per second after the first."""
        return (self.n_sampled - 1) / self.decode_s if self.n_sampled > 1 and self.decode_s > 0 else None


@dataclass
class Clock:
    """Stands in for the engine: passes every token on and notes the time."""

    engine: Engine
    timing: Timing = field(default_factory=Timing)
    on_token: Callable[[int], None] | None = None

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[Any]:
        """As Engine.stream."""
        timing, began = self.timing, time.perf_counter()
        timing.n_prompt += len(ids)
        first = last = 0.0
        try:
            request = self.engine.submit(ids, params)
            for out in request:
                last = time.perf_counter()
                if not first:
                    first = last
                    timing.first_s += first - began
                    timing.n_cached += request.stats.cached_tokens
                timing.n_sampled += 1
                if self.on_token:
                    self.on_token(timing.n_sampled)
                yield out
        finally:  # also when the turn has heard enough, as at a call to a tool
            timing.decode_s += last - first

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class Session:
    """A model and its engine. A context manager: leaving it stops the engine's thread."""

    def __init__(
        self,
        name: str,
        precision: str,
        threads: int | None,
        progress: Callable[[int, int], None] | None = None,
        tools: Sequence[Tool] = (),
        kv_memory: int | None = None,
        kv: str | None = None,
    ) -> None:
        """`progress(done, total)` is called with bytes while the model is packed, the first time only; kv_memory as Engine
        takes it."""
        from motet.engine import Engine
        from motet.library import find
        from motet.model import load
        from motet.turn import RULES

        began = time.perf_counter()
        folder = find(name)
        self.model = load(folder, precision=precision, kv=kv, threads=threads, progress=progress)
        self.encoding = self.model.encoding
        self.engine = Engine(self.model, kv_memory=kv_memory)
        self.load_s = time.perf_counter() - began
        self.name, self.tools = name, tools
        self.timing = Timing()
        self.results: list[
            ToolResult
        ] = []  # what tools answered in the last turn, whatever of it may be seen
        self.rules: Rules | None = RULES  # what the grammar holds turns to
        self.counts: dict[
            str | None, int
        ] = {}  # tokens of content by channel; a count may be shown where text may not
        self.on_token: Callable[[int], None] | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.engine.close()

    def turn(self, conversation: Conversation, params: SamplingParams) -> Iterator[Event]:
        """The events of one assistant turn; `timing` is complete when they end."""
        from motet.harmony import Delta, MessageStart, ToolResult
        from motet.turn import run_turn

        self.timing, self.counts, self.results = Timing(), {}, []
        clock = Clock(self.engine, self.timing, self.on_token)
        channel = None
        turn = run_turn(clock, conversation, self.encoding, params, self.tools, rules=self.rules)
        for event in turn:
            if isinstance(event, MessageStart):
                channel = event.channel
            elif isinstance(event, Delta):
                self.counts[channel] = self.counts.get(channel, 0) + len(event.ids)
            elif isinstance(event, ToolResult):
                self.results.append(event)
            yield event

    def citations(self) -> CitationStream:
        """Rewrites citation marks of an answer, if there is a browser whose pages they name."""
        from motet.tools.browser import BrowserTool, CitationStream

        browser = next((t for t in self.tools if isinstance(t, BrowserTool)), None)
        return CitationStream(browser.address if browser is not None else lambda cursor: None)

    def machine(self) -> dict[str, Any]:
        """What the figures depend on: precision, keys and values, instruction set, threads."""
        from motet import kernels

        return {
            "precision": self.model.precision,
            "kv": self.model.kv,
            "isa": kernels.isa(),
            "threads": kernels.threads(),
        }

"""What callers may expect of an engine, whichever it is, and what each one declares it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import Protocol

from motet.engine.params import SamplingParams
from motet.engine.sequence import Finish, Stats, TokenOut


@dataclass(frozen=True)
class Capabilities:
    """What an engine honours. What it does not is refused with UsageError when it is asked for, never left out silently
    (but `client` is a hint: without fair_queueing it has no effect).

    bit_equal: the same ids, params and seed give the same tokens whatever else runs and whatever is cached. truthful
    logprobs: those of the model before bias, penalties, temperature and filters. max_logprobs: alternatives a token, None
    for any number. The others name what `submit` and SamplingParams offer.
    """

    bit_equal: bool
    constraints: bool
    router_counts: bool
    loops: bool
    priorities: bool
    fair_queueing: bool
    deadlines: bool
    truthful_logprobs: bool
    max_logprobs: int | None
    cached_tokens: bool
    speculation_report: bool


class Asked(Protocol):
    """A request under way: iterate it once for its tokens; leaving early cancels it; a failure raises from the loop."""

    @property
    def stats(self) -> Stats:
        """Counts and times so far, and the seed."""
        ...

    @property
    def finish(self) -> Finish | None:
        """How it ended, None while it runs."""
        ...

    def cancel(self) -> None:
        """Ends it soon; harmless when it has ended."""
        ...

    def __iter__(self) -> Iterator[TokenOut]: ...


class TokenEngine(Protocol):
    """Token ids in, sampled tokens out."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine honours."""
        ...

    def submit(
        self, ids: Ids[int], params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> Asked:  # fmt: skip
        """Queues a request and returns at once."""
        ...

    def submit_many(
        self, ids: Ids[int], n: int, params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> Ids[Asked]:  # fmt: skip
        """Queues n answers to one prompt, computed once; answer k draws from seed + k steps."""
        ...

    def stream(self, ids: Ids[int], params: SamplingParams | None = None) -> Iterator[TokenOut]:
        """Sampled tokens as they come. Closing the iterator cancels."""
        ...

    def generate(self, ids: Ids[int], params: SamplingParams | None = None) -> list[int]:
        """All sampled tokens, the stop token included."""
        ...

    def close(self) -> None:
        """Ends the engine; may be called again."""
        ...

"""One turn runs on a thread of its own; its events arrive on the event loop. Nothing here blocks the loop.

`run_turn` waits for tokens and for tools, so it cannot run on the loop; a thread that waits costs nothing. The turn sees the
engine through a `View`, which submits in the client's name, notes counts and can be cancelled from anywhere.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from motet.engine import SamplingParams, TokenOut
from motet.errors import UserError
from motet.harmony import Event


class View:
    """The engine as one turn sees it. `on_token` is called after each token, on the turn's thread."""

    def __init__(self, engine: Any, client: str, deadline_s: float | None) -> None:
        self._engine, self._client, self._deadline_s = engine, client, deadline_s
        self._lock = threading.Lock()
        self._request: Any = None
        self.cancelled = threading.Event()
        self.began = time.monotonic()
        self.on_accept: Callable[[], None] = lambda: None
        self.n_prompt = self.n_cached = 0  # of the first stretch: what the caller sent
        self.loops = 0
        self.seed: int | None = None
        self.prompt: list[int] = []
        self.stopped = ""  # the kind of alarm that ended the turn
        self._guide: Any = None

    @property
    def model(self) -> Any:
        """The model, for those who ask how large its context is."""
        return self._engine.model

    @property
    def capabilities(self) -> Any:
        """What the engine honours; None if it does not say."""
        return getattr(self._engine, "capabilities", None)

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream; ends at once when the turn is cancelled."""
        left = (
            None
            if self._deadline_s is None
            else max(0.001, self._deadline_s - (time.monotonic() - self.began))
        )
        with self._lock:
            if self.cancelled.is_set():
                return
            request = self._engine.submit(ids, params, client=self._client, deadline_s=left)
            self._request = request
        # The grammar's constraint is one object for the stretch, so that it can be told to end the thinking.
        self._guide = None if params.constraint is None else params.constraint()
        first = not self.n_prompt
        if first:
            self.n_prompt, self.prompt, self.seed = len(ids), ids, request.stats.seed
        self.on_accept()
        try:
            for out in request:
                if first:
                    self.n_cached, first = request.stats.cached_tokens, False
                yield out
        finally:
            self.loops += len(request.stats.loops)
            request.cancel()

    def end_thinking(self) -> bool:
        """Ends the thinking, so that an answer follows; False where nothing holds the model to that."""
        end = getattr(self._guide, "end_thinking", None)
        if end is not None:
            end()
        return end is not None

    def routed(self, spans: list[tuple[str, int, int]]) -> dict[str, Any]:
        """How often each expert was chosen, by tag of spans over prompt and reply; empty where the engine does not record it."""
        if not getattr(self.capabilities, "router_counts", False) or self._request is None:
            return {}
        try:
            counts: dict[str, Any] = self._request.router_counts(spans)
        except UserError:  # it never ran
            return {}
        return counts

    def cancel(self) -> None:
        """Ends the turn soon, from any thread; harmless when it is over."""
        with self._lock:
            self.cancelled.set()
            if self._request is not None:
                self._request.cancel()


class Turn:
    """A turn under way. Await `accepted`, then iterate it once; leaving the loop early cancels it."""

    def __init__(
        self,
        engine: Any,
        make: Callable[[View], Iterator[Event]],
        client: str = "",
        deadline_s: float | None = None,
        behind: Turn | None = None,
    ) -> None:
        """`make` is called on the thread and may take its time. `behind`: begin when that turn has said something, so that
        the prompt they share is computed once."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._make, self._behind = make, behind
        self._spoken = threading.Event()
        self.view = View(engine, client, deadline_s)
        self.view.on_accept = lambda: self._post(self._accept)
        threading.Thread(target=self._run, name="motet-turn", daemon=True).start()

    async def accepted(self) -> None:
        """Returns when the engine has taken the prompt; raises what kept it from doing so."""
        await asyncio.shield(self._accepted)

    def cancel(self) -> None:
        """Ends it soon; its events end too."""
        self.view.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while (item := await self._events.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.cancel()

    # --- on the turn's thread ---

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            if self._behind is not None:
                self._behind._spoken.wait()
            self._pump()
        except BaseException as e:
            end = e
        finally:
            self._spoken.set()
            self._post(self._finish, end)

    def _pump(self) -> None:
        events = self._make(self.view)
        try:
            for event in events:
                self._spoken.set()
                self._post(self._events.put_nowait, event)
                if self.view.cancelled.is_set():
                    break
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()

    def _post(self, what: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.view.cancel()

    # --- on the loop ---

    def _accept(self) -> None:
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _finish(self, error: BaseException | None) -> None:
        if not self._accepted.done():
            if error is None:
                self._accepted.set_result(None)
            else:
                self._accepted.set_exception(error)
                self._accepted.exception()  # it may be that nobody asks
        if error is not None:
            self._events.put_nowait(error)
        self._events.put_nowait(None)

"""What the routes share: the engine with its names, who may ask, what is counted, what is kept. Knows no API."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motet.engine import SamplingParams
from motet.errors import UserError
from motet.harmony import Conversation, Event, Policy, Rules, TurnDone
from motet.server.auth import Key, Keys
from motet.server.errors import ApiError
from motet.server.kit import Workshop
from motet.server.limits import Meter, today
from motet.server.metrics import Metrics
from motet.server.sealed import Vault
from motet.server.settings import Settings
from motet.server.shown import Cost, policy_of, shown
from motet.server.store import Store, url_of
from motet.server.turns import Turn, View
from motet.server.watch import Monitor
from motet.tools import Tool
from motet.turn import run_turn

if TYPE_CHECKING:
    from motet.server.responses import Run

_log = logging.getLogger(__name__)
BEAT_S, TIDY_S, FORGET_S = 10, 60, 3600


@dataclass
class Host:
    """One engine, ready to be asked. `name` is what /v1/models lists; `draining` is set when the server is to end."""

    engine: Any
    encoding: Any
    name: str
    settings: Settings = field(default_factory=Settings)
    created: int = 0
    precision: str = ""

    def __post_init__(self) -> None:
        self.keys = Keys(self.settings.keys)
        url = url_of(self.settings.store)
        self.store = None if url is None else Store(url)
        self.vault = Vault(self.store.secret() if self.store else secrets.token_bytes(32))
        self.meter = Meter(self.settings.limits, self.store.spent(today()) if self.store else None)
        self.workshop = Workshop(self.settings.tools, self.settings.mcp)
        self.runs: dict[str, Run] = {}
        self.metrics = Metrics(self.engine)
        self.monitor = Monitor(self.settings.watch, self.engine)
        self.metrics.add(self.monitor)
        self.draining = asyncio.Event()
        self.turns: set[Turn] = set()
        self.names = tuple(dict.fromkeys((self.name, self.name.rpartition("/")[2], *self.settings.names)))

    @property
    def fingerprint(self) -> str:
        """What an answer depends on beside its request."""
        from motet import __version__

        return f"motet-{__version__}-{self.precision or 'unknown'}"

    def check_model(self, name: str) -> None:
        """Raises ApiError 404 for a model that is not loaded."""
        if name not in self.names:
            known = ", ".join(self.names)
            raise ApiError(
                404,
                f"There is no model {name[:64]!r} here; use {known}.",
                param="model",
                code="model_not_found",
            )

    def keeps(self, wanted: bool | None, background: bool | None) -> bool:
        """Whether a response is stored. ApiError for what cannot be had."""
        if self.store is None and (wanted or background):
            name = "store" if wanted else "background"
            raise ApiError(400, f"{name} needs a store, and this server has none; leave it out.", param=name)
        if background and wanted is False:
            raise ApiError(400, "background needs store; leave store out, or set it to true.", param="store")
        return self.store is not None and wanted is not False

    def spend(self, key: Key, tokens: int) -> None:
        """Counts tokens of a key; those that have a bound are remembered by the store."""
        self.meter.spend(key, tokens)
        if self.store is not None and key.tokens_per_day is not None:
            asyncio.get_running_loop().run_in_executor(None, self.store.spend, key.name, today(), tokens)

    def policy(self, key: Key, include_reasoning: bool | None = None) -> Policy:
        """What a caller may see: its key's rule, else the server's; a request may ask for less, never for more."""
        thinking = key.thinking or self.settings.thinking
        return policy_of("hide" if include_reasoning is False else thinking)

    def turn(
        self,
        conversation: Conversation,
        params: SamplingParams,
        rules: Rules,
        key: Key,
        tools: Sequence[Tool] = (),
        behind: Turn | None = None,
    ) -> Turn:
        """Starts a turn."""
        if self.draining.is_set():
            raise ApiError(503, "The server is shutting down; ask another one.", code="shutting_down")

        def begin(view: View) -> Iterator[Event]:
            events = run_turn(
                view, conversation, self.encoding, params, tools, rules=rules, stop=view.cancelled
            )
            return self.monitor.watched(view, events)

        turn = Turn(self.engine, begin, client=key.name, behind=behind)
        self.turns.add(turn)
        return turn

    async def watch(
        self,
        turn: Turn,
        policy: Policy,
        stops: Sequence[str],
        cost: Cost,
        key: Key,
        record: list[Event] | None = None,
    ) -> AsyncIterator[Event]:
        """The events of a turn that its caller may see; what it cost is counted however it ends."""
        clock, finish = self.metrics.clock(), "error"
        events = shown(turn, policy, stops, cost, record)
        try:
            async for event in events:
                clock.tick()
                if isinstance(event, TurnDone):
                    finish = event.finish
                    if finish == "cancelled" and self.draining.is_set():
                        raise ApiError(
                            503, "The server is shutting down; ask another one.", code="shutting_down"
                        )
                yield event
        except asyncio.CancelledError:
            finish = "cancelled"
            raise
        finally:
            await events.aclose()  # type: ignore[attr-defined]
            clock.stop()
            self.turns.discard(turn)
            self.spend(key, cost.n_prompt + cost.n_sampled)
            self.metrics.turn(cost, finish, turn.view.loops)

    def alive(self) -> bool:
        """Whether the engine still takes requests."""
        return bool(getattr(self.engine, "alive", True))

    def card(self, name: str) -> dict[str, Any]:
        """What /v1/models says of a name."""
        config = getattr(getattr(self.engine, "model", None), "config", None)
        context = getattr(config, "max_position_embeddings", None)
        return {
            "id": name, "object": "model", "created": self.created, "owned_by": "motet",
            "context_length": context, "precision": self.precision or None, "root": self.name,
        }  # fmt: skip

    def close(self) -> None:
        """Stops the engine, ends the tools and lets go of the store."""
        self.engine.close()
        self.workshop.close()
        if self.store is not None:
            self.store.close()

    async def housekeeping(self) -> None:
        """What the store and the tools need now and then. Ends by being cancelled."""
        n = 0
        while True:
            try:
                if n % TIDY_S == 0:
                    await asyncio.to_thread(self.workshop.tidy)
                if self.store is not None:
                    await self._tend(self.store, n)
            except Exception as e:  # the database may come back
                _log.error("The store could not be tended (%s).", type(e).__name__)
            await asyncio.sleep(1)
            n += 1

    async def _tend(self, store: Store, second: int) -> None:
        """Ends what another process was asked to end, says that this one lives, marks what dead ones left, forgets what is old."""
        if store.shared and (running := [r.id for r in self.runs.values() if r.kept]):
            for id in await asyncio.to_thread(store.stopping, running):
                if run := self.runs.get(id):
                    run.stop()
        if second % BEAT_S == 0:
            await asyncio.to_thread(store.beat)
            await asyncio.to_thread(store.orphans)
        if second % FORGET_S == 0 and self.settings.retention_days is not None:
            await asyncio.to_thread(store.forget, older_than_s=self.settings.retention_days * 86_400)

    async def drain(self) -> None:
        """Lets running turns end, then ends them."""
        self.draining.set()
        async with _within(self.settings.limits.drain_s):
            while self.turns:
                await asyncio.sleep(0.05)
        for turn in list(self.turns):
            turn.cancel()
        await asyncio.gather(*(run.task for run in list(self.runs.values())), return_exceptions=True)


class _within:
    """A block that is left when its time is over, without an error."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc: Any) -> bool:
        try:
            await self._timeout.__aexit__(*exc)
        except TimeoutError:
            return True
        return False


def host_of(
    name: str, precision: str, threads: int | None, settings: Settings, engine_options: dict[str, Any]
) -> Host:
    """Loads a model and starts its engine."""
    import time

    from motet.engine import Engine
    from motet.library import find
    from motet.model import load

    Keys(settings.keys)  # what is wrong with the file of keys is said before a large model is loaded
    model = load(find(name), precision=precision, threads=threads)
    label = find(name).name if name.startswith((".", "/", "~")) else name
    try:
        engine = Engine(model, **engine_options)
    except TypeError as e:
        raise UserError(f"The engine does not take these options ({e}).") from None
    return Host(engine, model.encoding, label, settings, int(time.time()), precision)

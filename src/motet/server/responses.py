"""The life of a response: asked, running, kept. Its stream is a list of events that anyone entitled may follow, from any point.

A run is a task of its own, apart from the connection that began it. What the stream says last is only said when the store
has it. Knows the store and turns; knows no sockets.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
import typing
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from motet.harmony import Event, MessageStart, Summary, TurnDone, ids_of
from motet.server.asked import ResponsesRequest, echo
from motet.server.auth import Key
from motet.server.chat import malformed_notice
from motet.server.errors import ApiError, explain, naming
from motet.server.files import File
from motet.server.history import approved, before, conversation_of, fitted, read
from motet.server.host import Host
from motet.server.output import ALL, Output
from motet.server.sealed import Hidden, Said
from motet.server.shown import Cost
from motet.server.stops import Stops
from motet.server.store import Record
from motet.turn import declare

_log = logging.getLogger(__name__)
Json = dict[str, Any]


class Run:
    """One response under way, or just over."""

    def __init__(self, host: Host, request: ResponsesRequest, key: Key) -> None:
        self._host, self._request, self._key = host, request, key
        self.id = f"resp_{secrets.token_hex(24)}"
        self.events: list[Json] = []
        self.over = False
        self.background = bool(request.background)
        self._more = asyncio.Event()
        self._cancelled = False
        self._cost = Cost()
        self._events: list[Event] = []
        self._read = 0  # how many of them `_behind` has seen
        self.response: Json = {
            "id": self.id, "object": "response", "created_at": int(time.time()), "completed_at": None,
            "model": request.model, "status": "queued" if self.background else "in_progress", "error": None,
            "incomplete_details": None, "output": [], "usage": None, **echo(request, callable(host.policy(key).analysis)),
        }  # fmt: skip

    # --- beginning ---

    async def open(self) -> None:
        """Returns when the engine has taken the prompt and the store knows of it; raises what is wrong with the request."""
        host, request = self._host, self._request
        host.check_model(request.model)
        request.check(host.settings.limits)
        self._stops = request.stops()
        self.kept = host.keeps(request.store, request.background)
        self.response["store"] = self.kept
        params, rules = request.sampling(), request.rules()
        request.read(await read(host, request.given, self._key))
        records = await before(host, request, self._key)
        asked = request.allowed, self._key.name, request.previous_response_id
        self._kit = await asyncio.to_thread(host.workshop.kit, *asked)
        self._seal = None
        if "reasoning.encrypted_content" in (request.include or ()):
            self._seal = functools.partial(host.vault.seal, self._key.name)
        self._output = self._outputs(() if self.kept else ALL, self._seal)
        self._known = {i["server_label"] for r in records for i in r.output if i["type"] == "mcp_list_tools"}
        try:
            self._made = await approved(host, request, records, self._kit)
            conversation = await asyncio.to_thread(conversation_of, request, records, self._made)
            conversation = declare(conversation, self._kit.waiting)
            most = request.max_output_tokens
            conversation = await asyncio.to_thread(fitted, conversation, request, self._kit, host, most)
            tools = self._kit.bounded(request.max_tool_calls)
            self._turn = host.turn(conversation, params, rules, self._key, tools)
        except BaseException:
            await asyncio.to_thread(host.workshop.done, self._kit, None)
            raise
        try:
            with naming(request.tools, "text.format.schema", "parameters"):
                await self._turn.accepted()
            self._record = Record(
                self.id, self._key.name, self.response, request.given, previous=request.previous_response_id
            )
            self._validated()
            if host.store is not None and self.kept:
                await asyncio.to_thread(host.store.begin, self._record)
        except BaseException:
            self._turn.cancel()
            host.turns.discard(self._turn)
            await asyncio.to_thread(host.workshop.done, self._kit, None)
            raise
        host.runs[self.id] = self
        self.task = asyncio.create_task(self._go())

    # --- running ---

    async def _go(self) -> None:
        host = self._host
        try:
            # a background response outlives the request that holds a permit
            with host.meter.hold(self._key) if self.background else nullcontext():
                last = await self._stream()
        except asyncio.CancelledError:
            said = ApiError(503, "The server was stopped before this response was complete.")
            last = self._ended("cancelled") if self._cancelled else self._failed(said)
        except Exception as e:
            last = self._failed(explain(e))
        try:
            last["sequence_number"] = len(self.events)
            stored = await self._keep(last)
            made = [f.bare() for f in self.files] if stored else self.files
            room = host.settings.limits.made_bytes
            await asyncio.to_thread(host.workshop.done, self._kit, self.id, made, room)
            self.events.append(last)
        finally:  # whatever happens, nobody waits for ever
            self.over = True
            self._more.set()
            host.runs.pop(self.id, None)

    async def _stream(self) -> Json:
        """Every event but the last, which is returned."""
        host = self._host
        self._say({"type": "response.created", "response": dict(self.response)})
        if self.background:
            self._say({"type": "response.queued", "response": dict(self.response)})
        self.response["status"] = "in_progress"
        self._say({"type": "response.in_progress", "response": dict(self.response)})
        output, finish = self._output, "stop"
        for said in output.servers(self._known) + output.made(self._made):
            self._say(said)
        policy = host.policy(self._key)
        hidden = Hidden(self._outputs(ALL)) if self._seal is not None and policy.analysis != "show" else None
        watched = host.watch(self._turn, policy, self._stops, self._cost, self._key, self._events)
        async for event in watched:
            finish = event.finish if isinstance(event, TurnDone) else finish
            for said in output.feed(event) if hidden is None else self._behind(hidden, event):
                self._say(said)
        if self._cancelled:
            return self._ended("cancelled")
        if finish == "error":
            raise ApiError(500, "The engine stopped before this response was complete; ask again.")
        if finish == "stop" and not output.answered:
            for said in output.refuse(malformed_notice(self._cost)):
                self._say(said)
        return self._ended("incomplete" if finish == "length" else "completed")

    def _behind(self, hidden: Hidden, event: Event) -> list[Json]:
        """The stream events of one that may be seen, and of what was hidden before it: sealed."""
        for unseen in self._events[self._read :]:
            hidden.feed(unseen)
        self._read = len(self._events)
        if isinstance(event, Summary):
            return self._output.summarised(event, hidden.take())
        if isinstance(event, MessageStart | TurnDone):
            return self._output.sealed(hidden.take()) + self._output.feed(event)
        return self._output.feed(event)

    def _say(self, event: Json) -> None:
        event["sequence_number"] = len(self.events)
        validate(event)
        self.events.append(event)
        self._more.set()
        self._more = asyncio.Event()

    def _ended(self, status: str) -> Json:
        for said in self._output.feed(TurnDone("cancelled")):  # what was open is closed, as incomplete
            self._say(said)
        r = self.response
        r["status"], r["output"] = status, self._output.items
        r["usage"] = usage(self._cost)
        if status == "completed":
            r["completed_at"] = int(time.time())
        if status == "incomplete":
            r["incomplete_details"] = {"reason": "max_output_tokens"}
        # There is no event for a cancelled response; its stream ends with the object as it is.
        kind = "incomplete" if status == "cancelled" else status
        return {"type": f"response.{kind}", "response": r}

    def _failed(self, error: ApiError) -> Json:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        last = self._ended("failed")
        self.response["error"] = {"code": code, "message": error.message}
        return last

    async def _keep(self, last: Json) -> bool:
        """Writes the finished response; a store that fails makes it a failed one, since nobody could come back to it. Whether it
        is stored."""
        store, limits = self._host.store, self._host.settings.limits
        if store is None or not self.kept:
            validate(last)
            return False
        record, view = self._record, self._turn.view
        full = self._outputs(ALL)
        full.servers(self._known)
        full.made(self._made)
        stops = Stops(self._stops)
        for event in self._events:
            for out in stops.feed(event):
                full.feed(out)
            if stops.hit:
                break
        full.feed(TurnDone("cancelled"))  # as `_ended` does for what is seen
        record.output, record.ids, record.events = full.items, full.ids, [*self.events, last]
        record.tokens = {"prompt": view.prompt, "sampled": ids_of(self._events), "seed": view.seed}
        try:
            validate(last)
            await asyncio.shield(asyncio.to_thread(store.end, record, self.files, limits.files_bytes))
            return True
        except Exception as e:
            _log.error("A response could not be kept (%s).", type(e).__name__)
            self.response.update(
                status="failed",
                error={"code": "server_error", "message": "The response could not be stored."},
            )
            last.update(type="response.failed")
            return False

    def _outputs(self, include: Sequence[str], seal: Callable[[Sequence[Said]], str] | None = None) -> Output:
        request = self._request
        shown, room = (*include, *(request.include or ())), self._host.settings.limits.made_bytes
        return Output(
            self.id, self._host.encoding, request.logprobs is not None, self._kit, shown, room, seal
        )

    def _validated(self) -> None:
        validate({"type": "response.created", "sequence_number": 0, "response": self.response})

    # --- for others ---

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self._key.name

    @property
    def files(self) -> list[File]:
        """What its code has made so far, if its caller may see that."""
        return self._output.files

    @property
    def root(self) -> str:
        """The first response of its conversation."""
        return self._record.root

    async def follow(self, after: int = -1) -> AsyncIterator[Json]:
        """The events behind number `after`, as they come."""
        while True:
            more = self._more
            while after + 1 < len(self.events):
                after += 1
                yield self.events[after]
            if self.over:
                return
            await more.wait()

    async def whole(self) -> Json:
        """The response when it is over."""
        async for _ in self.follow(len(self.events)):
            pass
        return self.response

    def stop(self) -> None:
        """Ends it soon."""
        self._cancelled = True
        self._turn.cancel()

    async def cancel(self) -> None:
        """Ends it and waits until it has been kept."""
        self.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.shield(self.task)


def usage(cost: Cost) -> Json:
    """What a turn cost."""
    return {
        "input_tokens": cost.n_prompt,
        "input_tokens_details": {"cached_tokens": cost.n_cached, "cache_write_tokens": 0},
        "output_tokens": cost.n_sampled,
        "output_tokens_details": {"reasoning_tokens": cost.n_reasoning},
        "total_tokens": cost.n_prompt + cost.n_sampled,
    }


@functools.cache
def _types() -> dict[str, Any]:
    """The published type of each event, by its name."""
    from openai.types.responses import ResponseStreamEvent

    union = typing.get_args(ResponseStreamEvent)[0]
    return {typing.get_args(t.model_fields["type"].annotation)[0]: t for t in typing.get_args(union)}


def validate(event: Json) -> None:
    """Raises when the published type would not take an event, so that no wrong one leaves."""
    _types()[event["type"]].model_validate(event)

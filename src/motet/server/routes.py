"""The routes of the two APIs: bodies to the functions beside this file, and what they return to HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from openai.types.chat import ChatCompletion
from openai.types.responses import CompactedResponse
from openai.types.responses import Response as ResponseObject
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from motet.server import chat
from motet.server.asked import CountRequest, ResponsesRequest, listed
from motet.server.auth import Key
from motet.server.compact import compacted, count
from motet.server.errors import ApiError
from motet.server.history import elsewhere, seen
from motet.server.host import Host
from motet.server.responses import Run
from motet.server.sse import Piece, Stream
from motet.server.store import RUNNING, Record
from motet.server.wire import ChatRequest

T = TypeVar("T")
Json = dict[str, Any]
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
_EVENTS = {
    "content": {"text/event-stream": {"itemSchema": _EVENT}}
}  # as OpenAPI 3.2 says it: one event after the other


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ItemList(Page[Json]):
    """A page of items."""


class Deleted(BaseModel):
    """A response that is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(BaseModel):
    """How long a prompt is."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


def key_of(request: Request) -> Key:
    """Who asks."""
    return request.state.key  # type: ignore[no-any-return]


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result, unless the client goes away first; then the work is cancelled and nobody reads the answer."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client went away.", code="client_closed_request")
        return task.result()
    finally:
        for other in (task, gone):
            other.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def add_chat(app: FastAPI, host: Host) -> None:
    """Chat Completions."""
    replies: dict[int | str, Any] = {200: {"model": ChatCompletion, **_EVENTS}}

    @app.post("/v1/chat/completions", responses=replies, response_model=None)
    async def completions(body: ChatRequest, request: Request) -> Response:
        """An answer to messages, whole or as a stream of chunks."""
        asked = chat.Chat(host, body, key_of(request))
        await asked.open()
        if body.stream:
            options = body.stream_options
            return Stream(chat.sse_of(asked, bool(options and options.include_usage)), host.settings.limits)
        try:
            whole = await unless_gone(request, asked.completion())
        finally:
            asked.cancel()
        return Response(whole.model_dump_json(exclude_unset=True), media_type="application/json")


_REPLIES: dict[int | str, Any] = {200: {"model": ResponseObject, **_EVENTS}}


def add_responses(app: FastAPI, host: Host) -> None:
    """The Responses API."""

    @app.post("/v1/responses", responses=_REPLIES, response_model=None)
    async def create(body: ResponsesRequest, request: Request) -> Response:
        """An answer to items, whole, as a stream of events, or in the background."""
        run = Run(host, body, key_of(request))
        await run.open()
        if body.stream:
            return Stream(_stream(run, -1), host.settings.limits)
        if run.background:
            return JSONResponse(run.response)
        try:
            return JSONResponse(await unless_gone(request, run.whole()), 200)
        finally:
            if not run.over:
                await run.cancel()

    @app.post("/v1/responses/input_tokens")
    async def input_tokens(body: CountRequest, request: Request) -> InputTokens:
        """How many tokens the prompt of a request has."""
        return InputTokens(input_tokens=await count(host, body, key_of(request)))

    @app.post("/v1/responses/compact", response_model=CompactedResponse)
    async def compact(body: CountRequest, request: Request) -> Response:
        """A long conversation as a short one: the model says what matters for going on."""
        return JSONResponse(await unless_gone(request, compacted(host, body, key_of(request))))

    _add_kept(app, host)


def _add_kept(app: FastAPI, host: Host) -> None:
    @app.get("/v1/responses/{response_id}", responses=_REPLIES, response_model=None)
    async def retrieve(
        response_id: str,
        request: Request,
        stream: bool = False,
        starting_after: Annotated[int, Query(ge=-1)] = -1,
    ) -> Response:
        """A response as it is now; with `stream`, its events behind number `starting_after`, those to come included."""
        key = key_of(request)
        run = _running(host, response_id, key)
        if run is None:
            record = await _kept(host, response_id, key)
            if stream:
                return Stream(_replayed(host, record, starting_after, key), host.settings.limits)
            return JSONResponse(record.response)
        return (
            Stream(_stream(run, starting_after, owns=False), host.settings.limits)
            if stream
            else JSONResponse(run.response)
        )

    @app.delete("/v1/responses/{response_id}")
    async def delete(response_id: str, request: Request) -> Deleted:
        """Ends a response if it runs, and forgets it."""
        key = key_of(request)
        run = _running(host, response_id, key)
        if run is not None:
            await run.cancel()
        else:
            await elsewhere(host, response_id, key, end=True)
        if host.store is None or not await asyncio.to_thread(host.store.delete, response_id, key.name):
            raise _unknown(response_id)
        return Deleted(id=response_id)

    @app.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject)
    async def cancel(response_id: str, request: Request) -> Response:
        """Ends a background response; what it has said so far stands."""
        key = key_of(request)
        run = _running(host, response_id, key)
        if run is None:
            record = await _kept(host, response_id, key)
            if not record.response.get("background"):
                raise _not_background()
            ended = await elsewhere(host, response_id, key, end=True)
            return JSONResponse((ended or record).response)
        if not run.background:
            raise _not_background()
        await run.cancel()
        return JSONResponse(run.response)

    _add_items(app, host)


def _add_items(app: FastAPI, host: Host) -> None:
    @app.get("/v1/responses/{response_id}/input_items")
    async def input_items(
        response_id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> ItemList:
        """The items a response was asked with, those of the responses it follows included."""
        await _kept(host, response_id, key_of(request))
        assert host.store is not None
        chain = await asyncio.to_thread(host.store.chain, response_id, key_of(request).name)
        items: list[Json] = []
        for r in chain or ():
            items += listed(await seen(host, r.input, key_of(request)), r.id)
            items += r.response["output"] if r.id != response_id else []
        return ItemList(**page_of(items if order == "asc" else items[::-1], limit, after))


def page_of(items: list[Json], limit: int, after: str | None) -> Json:
    """A page of a list, as the API has it."""
    ids = [i["id"] for i in items]
    if after is not None and after not in ids:
        raise ApiError(400, "after names no item of this list; use the last_id of a page.", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    page = items[begin : begin + limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {
        "object": "list",
        "data": page,
        "first_id": first,
        "last_id": last,
        "has_more": begin + limit < len(items),
    }


async def _stream(run: Run, after: int, owns: bool = True) -> AsyncIterator[Piece]:
    """Events as they are sent. The stream of the request that began a response carries it: without a listener it ends,
    unless it runs in the background."""
    try:
        async for event in run.follow(after):
            yield event["type"], json.dumps(event, ensure_ascii=False)
    finally:
        if owns and not run.over and not run.background:
            asyncio.ensure_future(run.cancel())  # noqa: RUF006  (the run keeps itself alive)


async def _replayed(host: Host, record: Record, after: int, key: Key) -> AsyncIterator[Piece]:
    if record.status in RUNNING:  # another process makes it; what it says is told when it is over
        record = await elsewhere(host, record.id, key) or record
    events = record.events
    if len(events) == 1:  # what came before went with its process; the end follows on whatever a listener has
        events = [{**events[0], "sequence_number": after + 1}]
    for event in events:
        if event["sequence_number"] > after:
            yield event["type"], json.dumps(event, ensure_ascii=False)


def _running(host: Host, response_id: str, key: Key) -> Run | None:
    run = host.runs.get(response_id)
    return run if run is not None and run.kept and run.owner == key.name else None


async def _kept(host: Host, response_id: str, key: Key) -> Record:
    record = None if host.store is None else await asyncio.to_thread(host.store.find, response_id, key.name)
    if record is None:
        raise _unknown(response_id)
    return record


def _unknown(response_id: str) -> ApiError:
    said = f"There is no response {response_id[:80]!r}; it may be deleted, or was not stored."
    return ApiError(404, said, param="response_id", code="not_found")


def _not_background() -> ApiError:
    said = "Only responses made with background can be cancelled; close the connection of this one."
    return ApiError(400, said, param="response_id")

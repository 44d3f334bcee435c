"""What is stored, as conversations: what the page lists, opens and deletes. Not in OpenAI's API, hence not under /v1."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field

from motet.server.errors import ApiError
from motet.server.history import elsewhere
from motet.server.host import Host
from motet.server.routes import key_of
from motet.server.store import question_of

Json = dict[str, Any]


class Line(BaseModel):
    """A conversation in the list: the id of its first response, and the beginning of the first question."""

    id: str
    title: str
    created_at: float
    updated_at: float


class Lines(BaseModel):
    """A page of conversations, latest activity first."""

    data: list[Line]
    last_id: str | None
    has_more: bool


class Asked(BaseModel):
    """One response of a conversation, and what was asked. `parent`: the response it follows."""

    parent: str | None
    question: str
    response: Json


class Conversed(BaseModel):
    """A conversation: its responses, parents first. Where a question was asked in two ways there are two branches."""

    id: str
    title: str
    turns: list[Asked]


class Title(BaseModel):
    """What a conversation is to be called."""

    title: Annotated[str, Field(min_length=1, max_length=1000)]


class Forgotten(BaseModel):
    """A conversation that is gone."""

    id: str
    object: Literal["conversation"] = "conversation"
    deleted: Literal[True] = True


def add_conversations(app: FastAPI, host: Host) -> None:
    """The routes."""

    def unknown() -> ApiError:
        return ApiError(404, "There is no such conversation; it may be deleted.", code="not_found")

    @app.get("/motet/conversations")
    async def conversations(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        words: Annotated[str, Query(max_length=200)] = "",
    ) -> Lines:
        """The caller's conversations, latest activity first; with `words`, those that hold them."""
        owner, store = key_of(request).name, host.store
        find = store and (functools.partial(store.holding, words) if words else store.conversations)
        found = await asyncio.to_thread(find, owner, limit + 1, after) if find else []
        if found is None:
            raise ApiError(400, "after names no conversation; use the last_id of a page.", param="after")
        page = [Line(**c) for c in found[:limit]]
        return Lines(data=page, last_id=page[-1].id if page else None, has_more=len(found) > limit)

    @app.get("/motet/conversations/{conversation_id}")
    async def conversation(conversation_id: str, request: Request) -> Conversed:
        """Everything that was asked and answered in one."""
        owner, store = key_of(request).name, host.store
        found = await asyncio.to_thread(store.conversation, conversation_id, owner) if store else []
        if not found:
            raise unknown()
        turns = [
            Asked(parent=t["parent"], question=question_of(t["input"]), response=t["response"]) for t in found
        ]
        return Conversed(id=conversation_id, title=found[0]["title"], turns=turns)

    @app.patch("/motet/conversations/{conversation_id}")
    async def rename(conversation_id: str, body: Title, request: Request) -> Title:
        """Gives one another title."""
        owner, store = key_of(request).name, host.store
        if not store or not await asyncio.to_thread(store.rename, conversation_id, owner, body.title):
            raise unknown()
        return body

    @app.delete("/motet/conversations/{conversation_id}")
    async def forget(conversation_id: str, request: Request) -> Forgotten:
        """Forgets every response of one; those that run are ended."""
        key, store = key_of(request), host.store
        for run in [r for r in host.runs.values() if r.root == conversation_id and r.owner == key.name]:
            await run.cancel()
        for turn in await asyncio.to_thread(store.conversation, conversation_id, key.name) if store else ():
            await elsewhere(host, turn["response"]["id"], key, end=True)
        if not store or not await asyncio.to_thread(store.delete_conversation, conversation_id, key.name):
            raise unknown()
        return Forgotten(id=conversation_id)

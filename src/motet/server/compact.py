"""Prompts counted and conversations shortened: the two routes that read a request and do not answer it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

from motet.engine import SamplingParams
from motet.harmony import Conversation, Rules, TurnDone, render
from motet.server.asked import CountRequest
from motet.server.auth import Key
from motet.server.chat import malformed_notice
from motet.server.errors import ApiError
from motet.server.history import before, conversation_of, read
from motet.server.host import Host
from motet.server.kit import Kit
from motet.server.output import Output
from motet.server.responses import usage
from motet.server.shown import Cost
from motet.server.store import Record
from motet.turn import declare

Json = dict[str, Any]
ASK = (
    "Summarise this conversation for whoever continues it: what the user wants, what was decided and done, results that "
    "still matter word for word, and what is left to do. Write only the summary."
)
SUMMARY_TOKENS = 2048


async def count(host: Host, request: CountRequest, key: Key) -> int:
    """Tokens of the prompt a request would become."""
    records = await _read(host, request, key)
    kit = await asyncio.to_thread(host.workshop.kit, request.allowed, key.name, request.previous_response_id)
    try:
        return await asyncio.to_thread(_count, host, request, records, kit)
    finally:
        await asyncio.to_thread(host.workshop.done, kit, None)


async def _read(host: Host, request: CountRequest, key: Key) -> list[Record]:
    if request.model:
        host.check_model(request.model)
    request.check(host.settings.limits)
    request.read(await read(host, request.given, key))
    return await before(host, request, key)


def _count(host: Host, request: CountRequest, records: Sequence[Record], kit: Kit) -> int:
    conversation = declare(conversation_of(request, records), kit.waiting)
    conversation = declare(conversation, kit.tools, request.rules())
    return len(render(conversation, host.encoding))


async def compacted(host: Host, request: CountRequest, key: Key) -> Json:
    """The conversation in one message, made by the model. Send it as the beginning of the next input."""
    records = await _read(host, request, key)
    conversation = await asyncio.to_thread(_with_question, request, records)
    turn = host.turn(
        conversation, SamplingParams(temperature=0, max_tokens=SUMMARY_TOKENS), Rules(tool_choice="none"), key
    )
    try:
        await turn.accepted()
    except BaseException:
        turn.cancel()
        host.turns.discard(turn)
        raise
    id, cost, finish = f"resp_{secrets.token_hex(24)}", Cost(), "stop"
    output = Output(id, host.encoding)
    async for event in host.watch(turn, host.policy(key, False), (), cost, key):
        finish = event.finish if isinstance(event, TurnDone) else finish
        output.feed(event)
    if not output.answered or finish == "cancelled":
        raise ApiError(500, malformed_notice(cost), code="internal_error")
    return {
        "id": id, "object": "response.compaction", "created_at": int(time.time()), "output": output.items,
        "usage": usage(cost),
    }  # fmt: skip


def _with_question(request: CountRequest, records: Sequence[Record]) -> Conversation:
    asked = request.model_copy(update={"text": None})
    asked.read([*request.said, ({"role": "user", "content": ASK}, None)])
    return conversation_of(asked, records)

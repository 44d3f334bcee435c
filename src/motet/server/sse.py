"""Streams as they go out: server-sent events with a comment in silence, and an end for clients that do not read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError

from motet.server.settings import Limits

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_log = logging.getLogger(__name__)
Piece = tuple[str | None, str]
"""(the event's name or None, its data: one line of JSON)"""


class Stream(EventSourceResponse):
    """A streamed reply. A client that goes away, or takes longer than `send_s` over one piece, ends its source."""

    def __init__(self, source: AsyncIterator[Piece], limits: Limits) -> None:
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        super().__init__(
            _events(source), headers=headers, ping=limits.ping_s, send_timeout=limits.send_s,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            shutdown_grace_period=limits.drain_s,
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        try:
            await super().__call__(scope, receive, send)
        except* SendTimeoutError:
            _log.info("A client stopped reading its stream and was let go.")


async def _events(source: AsyncIterator[Piece]) -> AsyncIterator[ServerSentEvent]:
    try:
        async for name, data in source:
            yield ServerSentEvent(
                data, event=name, sep="\n"
            )  # readers that split at two newlines know no other kind
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()

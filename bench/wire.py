"""A client that measures: many requests to one server at once over plain sockets, each with the time of every piece it got.

As little work a piece as can be, so that what is measured is the server's. Knows HTTP/1.1 and server-sent events; what is in
an event is for the caller to say. Some of its clients are slow, some leave in the middle, some send garbage.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Heard:
    """What one request got. `pieces`: seconds after sending, one for each event that arrived; `body` unless streamed."""

    status: int = 0
    pieces: list[float] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    body: bytes = b""
    ended: str = ""  # done, left, reset or timeout
    seconds: float = 0.0

    @property
    def said(self) -> list[float]:
        """`pieces` from the first token on: the chunk that opens a chat comes when the request is accepted."""
        return self.pieces[1:] if self.events and b'"role":"assistant"' in self.events[0] else self.pieces

    def usage(self) -> dict[str, Any]:
        """The usage of a chat, wherever the server put it."""
        for data in [*reversed(self.events[-4:]), self.body]:
            if b'"usage"' in data:
                return dict(json.loads(data).get("usage") or {})
        return {}


class _Talk(asyncio.Protocol):
    """One connection: takes the answer apart as it arrives."""

    def __init__(self, request: bytes, leave_after: int | None, slow_s: float) -> None:
        self.heard, self._request = Heard(), request
        self._leave_after, self._slow_s = leave_after, slow_s
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._raw, self._text = b"", b""
        self._head: bytes | None = None
        self._chunked = False
        self._left = -1  # bytes of a body with a length

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.began = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter() - self.began
        self._raw += data
        if self._head is None and not self._header():
            return
        done = self._unchunk() if self._chunked else self._plain()
        *lines, self._text = self._text.split(b"\n")
        for line in lines:  # an event of a chat is one line; it may end as Unix ends it or not
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                self.heard.events.append(line[6:])
                self.heard.pieces.append(now)
        if self._leave_after is not None and len(self.heard.pieces) >= self._leave_after:
            self._end("left")
        elif done:
            self._end("done")
        elif self._slow_s:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow_s, self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _header(self) -> bool:
        head, blank, rest = self._raw.partition(b"\r\n\r\n")
        if not blank:
            return False
        self._head, self._raw = head.lower(), rest
        self.heard.status = int(head.split(b" ", 2)[1])
        self._chunked = b"transfer-encoding: chunked" in self._head
        for line in self._head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                self._left = int(line[15:])
        return True

    def _plain(self) -> bool:
        self.heard.body += self._raw
        self._raw = b""
        return len(self.heard.body) >= self._left >= 0

    def _unchunk(self) -> bool:
        while True:
            size, line, rest = self._raw.partition(b"\r\n")
            if not line:
                return False
            n = int(size, 16)
            if len(rest) < n + 2:
                return False
            self._text, self._raw = self._text + rest[:n], rest[n + 2 :]
            if n == 0:
                return True

    def _end(self, how: str) -> None:
        if not self.over.done():
            self.heard.ended, self.heard.seconds = how, time.perf_counter() - self.began
            if not self._chunked or self.heard.status != 200:
                self.heard.body = self.heard.body or self._text
            self.over.set_result(None)
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._end("reset")


def request_of(url: str, path: str, body: bytes, method: str = "POST") -> bytes:
    """A request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(
    url: str, request: bytes, *, leave_after: int | None = None, slow_s: float = 0.0, timeout_s: float = 600.0
) -> Heard:
    """Sends a request as it stands. `leave_after`: hangs up after so many events; `slow_s`: sleeps after each read."""
    where = urlsplit(url)
    sock = socket.socket()
    if slow_s:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (where.hostname, where.port))
    _, talk = await loop.create_connection(lambda: _Talk(request, leave_after, slow_s), sock=sock)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(talk.over)
    except TimeoutError:
        talk._end("timeout")
    return talk.heard


async def ask_json(url: str, path: str, body: dict[str, Any], **how: Any) -> Heard:
    """Sends an object."""
    return await ask(url, request_of(url, path, json.dumps(body).encode()), **how)

"""What every request passes through before a route sees it: a bound on its body, a key, and the bounds of that key.

Plain ASGI, so that a permit is held until the last piece of a stream has been sent. Knows keys and counts, no API.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.responses import JSONResponse

from motet.server.auth import PUBLIC, Key, Keys
from motet.server.errors import ApiError, busy, explain
from motet.server.settings import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
DAY_S = 86_400


def today() -> int:
    """Days since 1970, UTC."""
    return int(time.time()) // DAY_S


class Meter:
    """What keys have used. Counts live in this process; `earlier` is what they have spent today in others."""

    def __init__(self, limits: Limits, earlier: Mapping[str, int] | None = None) -> None:
        self._limits = limits
        self.in_flight = 0
        self._running: dict[str, int] = defaultdict(int)
        self._recent: dict[str, deque[float]] = defaultdict(deque)
        self._tokens = {k: (today(), n) for k, n in (earlier or {}).items()}  # key -> (day, tokens)

    @contextmanager
    def permit(self, key: Key) -> Iterator[None]:
        """Held while a request runs. ApiError 429 or 503 when there is no room."""
        if self.in_flight >= self._limits.in_flight:
            raise busy("The server is full; try again in a moment.")
        if key.concurrency is not None and self._running[key.name] >= key.concurrency:
            raise _too_many(f"This key may run {key.concurrency} requests at once; wait for one to end.", 1)
        self._rate(key)
        self._budget(key)
        with self.hold(key):
            yield

    @contextmanager
    def hold(self, key: Key) -> Iterator[None]:
        """Counts work that goes on when its request has been answered. It was let in with that request."""
        self.in_flight += 1
        self._running[key.name] += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._running[key.name] -= 1

    def _rate(self, key: Key) -> None:
        if key.requests_per_minute is None:
            return
        recent, now = self._recent[key.name], time.monotonic()
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= key.requests_per_minute:
            raise _too_many(
                f"This key may send {key.requests_per_minute} requests a minute.", int(recent[0] + 61 - now)
            )
        recent.append(now)

    def _budget(self, key: Key) -> None:
        if key.tokens_per_day is not None and self.spent(key) >= key.tokens_per_day:
            wait = DAY_S - int(time.time()) % DAY_S
            raise _too_many(
                f"This key may use {key.tokens_per_day} tokens a day, and has.", wait, "insufficient_quota"
            )

    def spent(self, key: Key) -> int:
        """Tokens of this day (UTC), prompts included."""
        day, tokens = self._tokens.get(key.name, (0, 0))
        return tokens if day == today() else 0

    def spend(self, key: Key, tokens: int) -> None:
        """Counts tokens."""
        self._tokens[key.name] = (today(), self.spent(key) + tokens)


def _too_many(message: str, wait_s: int, code: str = "rate_limit_exceeded") -> ApiError:
    return ApiError(429, message, code=code, headers={"Retry-After": str(max(1, wait_s))})


class Gate:
    """Reads the body within bounds, finds the key, holds the permit; then the app runs with `scope["state"]["key"]`."""

    def __init__(
        self, app: App, keys: Keys, meter: Meter, limits: Limits, public: tuple[str, ...] = PUBLIC
    ) -> None:
        self._app, self._keys, self._meter, self._limits, self._public = app, keys, meter, limits, public

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._let(scope, receive, noted)
        except Exception as e:
            error = explain(e)
            if begun:  # the status is gone; what is left is to end the connection
                raise
            await JSONResponse(error.body(), error.status, headers=error.headers)(scope, receive, send)

    async def _let(self, scope: Any, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        scope.setdefault("state", {})["key"] = key
        if scope["method"] not in ("POST", "PATCH"):
            await self._app(scope, receive, send)
            return
        body = await self._body(scope, receive)
        with self._meter.permit(key):
            await self._app(scope, _replay(body, receive), send)

    def _key(self, scope: Any) -> Key:
        headers = dict(scope["headers"])
        given = headers.get(b"authorization")
        key = self._keys.find(given.decode("latin-1") if given else None)
        if key is None and scope["path"] in self._public:
            return Key("")
        if key is None:
            said = (
                "The API key is wrong."
                if given
                else "An API key is missing; send 'Authorization: Bearer KEY'."
            )
            raise ApiError(401, said, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return key

    async def _body(self, scope: Any, receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        too_large = ApiError(
            413, f"The body is too large; this server reads {limit} bytes.", code="request_too_large"
        )
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise too_large
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.read_s):
                while True:
                    message = await receive()
                    pieces.append(message.get("body", b""))
                    if sum(map(len, pieces)) > limit:
                        raise too_large
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            said = f"The body did not arrive within {self._limits.read_s:g} s; send it faster."
            raise ApiError(408, said, code="timeout", headers={"Connection": "close"}) from None


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

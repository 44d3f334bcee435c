"""The routes: HTTP to the functions beside this file. Knows paths, statuses and schemas; no model and no format."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from openai.types import Model as ModelCard
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from motet import __version__
from motet.errors import UserError
from motet.server.auth import PUBLIC
from motet.server.containers import add_containers
from motet.server.conversations import add_conversations
from motet.server.errors import ApiError, explain, invalid
from motet.server.host import Host
from motet.server.limits import Gate
from motet.server.page import add_page
from motet.server.routes import add_chat, add_responses
from motet.server.tokens import Ids, Said, Text, decode, encode
from motet.server.wire import FIELDS

_log = logging.getLogger(__name__)


class ErrorInside(BaseModel):
    """What went wrong, in one sentence that names the fix."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorInside


class ModelList(BaseModel):
    """The models that are loaded."""

    object: str = "list"
    data: list[ModelCard]


_ERRORS: dict[int | str, Any] = {
    n: {"model": ErrorBody} for n in (400, 401, 404, 408, 409, 413, 422, 429, 500, 503, 504)
}


def create_app(host: Host) -> FastAPI:
    """The application of one host."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tending = asyncio.create_task(host.housekeeping())
        yield
        await host.drain()
        tending.cancel()
        with suppress(asyncio.CancelledError):
            await tending

    app = FastAPI(
        title="motet",
        version=__version__,
        lifespan=lifespan,
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.host = host
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UserError, _api_error)
    _plain_routes(app, host)
    add_chat(app, host)
    add_responses(app, host)
    add_containers(app, host)
    add_conversations(app, host)
    public = (*PUBLIC, *add_page(app, host))
    app.add_middleware(Gate, keys=host.keys, meter=host.meter, limits=host.settings.limits, public=public)
    app.add_middleware(Counted, host=host)
    if host.settings.cors:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware, allow_origins=list(host.settings.cors), allow_methods=["*"], allow_headers=["*"]
        )
    return app


class Counted:
    """Counts answers by route and status, whoever gives them."""

    def __init__(self, app: Any, host: Host) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._host.metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, noted if scope["type"] == "http" else send)


def _plain_routes(app: FastAPI, host: Host) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process is alive. Needs no key."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether requests are taken: 503 while the server ends, or when the engine has stopped."""
        fine = not host.draining.is_set() and host.alive()
        state = {"status": "ready" if fine else "draining" if host.draining.is_set() else "broken"}
        more = {"running": getattr(host.engine, "running", 0), "waiting": getattr(host.engine, "waiting", 0)}
        return JSONResponse({**state, **more}, 200 if fine else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(host.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/motet/watch")
    async def watch() -> dict[str, Any]:
        """What the monitor sees: recent alarms, and how evenly the experts are used. No text of anybody."""
        return host.monitor.state()

    @app.get("/v1/models", response_model=ModelList)
    async def models() -> Any:
        """What is loaded."""
        return {"object": "list", "data": [host.card(n) for n in host.names]}

    @app.get("/v1/models/{name:path}", response_model=ModelCard)
    async def model(name: str) -> Any:
        """One of them."""
        host.check_model(name)
        return host.card(name)

    @app.post("/tokenize")
    async def tokenize(body: Text) -> Ids:
        """Ids of a text, or of the prompt that messages become. Control tokens in the text are words."""
        return await asyncio.to_thread(encode, body, host.encoding)

    @app.post("/detokenize")
    async def detokenize(body: Ids) -> Said:
        """The text of ids; control tokens by name."""
        return await asyncio.to_thread(decode, body, host.encoding)


# --- errors ---


def _reply(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    return _reply(explain(error, FIELDS))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _reply(invalid(error.errors()))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = {404: "There is no such route; see /openapi.json.", 405: "This route does not take this method."}
    message = said.get(error.status_code, "The request could not be read; send a JSON object.")
    return _reply(ApiError(error.status_code, message, headers=dict(error.headers or {})))

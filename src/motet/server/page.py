"""The page at `/`: its files, with headers that let nothing else run beside them, and what it asks of the server first.

The files are public, for they hold nothing; everything they show is asked for with the reader's key. Knows no conversation.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from motet.server.host import Host

# No script but the page's own files, no style but its own, pictures only from tools (as blobs), nothing from elsewhere; a text
# that is handed to the browser as markup raises an error (Trusted Types), also in code of ours that would do so by mistake.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    )
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # asked for again, and answered with 304 when it is the same
}
FOLDER = resources.files("motet.server") / "static"


class PageTool(BaseModel):
    """A tool the page offers as a switch. `send` is what goes into the request."""

    type: str
    label: str
    send: dict[str, Any]


class PageInfo(BaseModel):
    """What the page needs to know before it asks anything."""

    model: str
    welcome: str
    ideas: list[str]
    tools: list[PageTool]
    store: bool
    keys: bool


class Files(StaticFiles):
    """The files of the page. Only what lies there by name: there are no folders in it."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """As StaticFiles has it, with the headers."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI, host: Host) -> tuple[str, ...]:
    """Adds the page's routes; returns those that need no key."""
    files = Files(directory=str(FOLDER))

    @app.get("/motet/page", response_model=PageInfo)
    async def info() -> Any:
        """What the page at / shows of this server."""
        return describe(host)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/page", files)
    return ("/", *(f"/page/{f.name}" for f in FOLDER.iterdir()))


def describe(host: Host) -> dict[str, Any]:
    """Facts about the server, and something to begin with."""
    small = host.name == "mini"
    return {
        "model": host.name,
        "welcome": "This is mini, a very small model: arithmetic, dates, lists and small puzzles, and how it gets there. More effort, more of it right."
        if small
        else "Thinking comes first and is folded away; more effort lets the model think longer.",
        "ideas": ["What is 12 * 13?", "It is 14:35. What time is it in 50 minutes?", "Who are you?"]
        if small
        else ["How many primes are there below 1,000?", "Why is the sky blue, and not violet?"],
        "tools": host.workshop.offers,
        "store": host.store is not None,
        "keys": host.keys.wanted,
    }

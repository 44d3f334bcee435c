"""Tools of MCP servers as a namespace, and our python and browser tools as an MCP server.

A client lives in a thread of its own with its event loop, because a server's connection outlives any one call. What a
server says about itself and answers is foreign text. Knows no turns.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import concurrent.futures
import contextlib
import os
import re
import shlex
import shutil
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from motet.errors import UserError
from motet.harmony import Artefact, Function, Namespace
from motet.harmony.normal import normalise
from motet.tools import base
from motet.tools.base import Answer, Tool, ToolError
from motet.tools.functions import arguments_of, bare

if TYPE_CHECKING:
    from mcp import Client
    from mcp.server.mcpserver import MCPServer

CONNECT_S = 30.0
MAX_DESCRIPTION = 4096
MAX_MEDIA = 16 << 20  # of one answer, in base64
MAX_TOOLS, _MAX_PAGES = 1000, 1000
_TAKEN = ("functions", "python", "browser", "all", "assistant", "user", "system", "developer", "tool")


class McpTool:
    """The tools of one server, as NAMESPACE.TOOL. `lost` says which words of its schemas the model cannot be shown."""

    parallel = True

    def __init__(self, server: str, name: str | None = None, timeout_s: float = 120.0) -> None:
        """`server` is a URL (streamable HTTP) or a command line (stdio). UserError when it cannot be reached."""
        self.server, self.timeout_s = server, timeout_s
        self.lost: tuple[str, ...] = ()
        self._names: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._life: asyncio.Task[None] | None = None
        self._client: Client | None = None
        target = _target(server)
        ready: concurrent.futures.Future[Namespace] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(target, name, ready), daemon=True)
        self._thread.start()
        try:
            self._namespace = ready.result(CONNECT_S)
        except concurrent.futures.TimeoutError:
            self.close()
            raise UserError(f"The MCP server '{server}' did not answer within {CONNECT_S:g} s.") from None
        except Exception as e:
            raise UserError(f"The MCP server '{server}' cannot be used: {_first(e)}") from None

    @property
    def namespace(self) -> Namespace:
        """The server's tools, with its instructions as the description."""
        return self._namespace

    def call(self, recipient: str, content: str) -> Answer:
        """Asks the server; its errors are answers."""
        tool = self._names.get(recipient.removeprefix(f"{self._namespace.name}."))
        if tool is None:
            raise ToolError(f"there is no tool {recipient!r}; the tools are: {', '.join(self._names)}")
        arguments = arguments_of(content)
        run = base.current()
        future = asyncio.run_coroutine_threadsafe(self._ask(tool, arguments, run), self._loop)
        while True:
            try:
                return future.result(0.05)
            except concurrent.futures.TimeoutError:
                if run.stop.is_set() or not self._thread.is_alive():
                    future.cancel()
                    raise (
                        base.stopped() if run.stop.is_set() else ToolError("The server is gone.")
                    ) from None
            except concurrent.futures.CancelledError:
                raise ToolError("The server is gone.") from None
            except Exception as e:
                raise ToolError(_first(e)) from None

    def close(self) -> None:
        """Ends the connection and, over stdio, the server."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end)
            self._thread.join(10)

    def _end(self) -> None:
        if self._life is not None:
            self._life.cancel()

    def _run(self, target: Any, name: str | None, ready: concurrent.futures.Future[Namespace]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._life = self._loop.create_task(self._live(target, name, ready))
            self._loop.run_until_complete(self._life)
        except BaseException as e:
            if not ready.done():
                ready.set_exception(e if isinstance(e, Exception) else RuntimeError(_first(e)))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _live(self, target: Any, name: str | None, ready: concurrent.futures.Future[Namespace]) -> None:
        """Keeps the connection open until it is cancelled."""
        import logging

        from mcp import Client

        # What a server sends that is no message is not for the user's terminal; its call goes without an answer.
        logging.getLogger("mcp.client").setLevel(logging.CRITICAL)
        async with Client(target, read_timeout_seconds=self.timeout_s) as client:
            self._client = client
            listed: list[Any] = []
            cursor = None
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                cursor = page.next_cursor
                if not cursor or len(listed) > MAX_TOOLS:
                    break
            info = client.server_info
            own = name or (info.name if info is not None else None) or "mcp"
            ready.set_result(self._declared(own, client.instructions, listed))
            await asyncio.Event().wait()

    def _declared(self, name: str, instructions: str | None, listed: Sequence[Any]) -> Namespace:
        own = _name(name)
        own = f"mcp_{own}" if own.lower() in _TAKEN else own
        functions: list[Function] = []
        lost: list[str] = []
        for tool in listed[:MAX_TOOLS]:
            shown = plain = _name(tool.name)
            n = 1
            while shown in self._names:  # names that differ in signs only
                n += 1
                shown = f"{plain[:60]}_{n}"
            self._names[shown] = tool.name
            try:
                schema, words = normalise(bare(tool.input_schema))
            except RecursionError:
                schema, words = {}, ("everything, nested too deeply",)
            lost += [f"{shown}: {w}" for w in words if w != "additionalProperties"]
            takes = schema if schema.get("properties") else None
            functions.append(Function(shown, _described(tool.description) or "", takes))
        if not functions:
            raise ValueError("it offers no tools")
        self.lost = tuple(lost)
        return Namespace(own, _described(instructions), tuple(functions))

    async def _ask(self, tool: str, arguments: dict[str, Any], run: base.Run) -> Answer:
        assert self._client is not None

        async def heard(progress: float, total: float | None, message: str | None) -> None:
            run.on_progress(message or (f"{progress:g} of {total:g}" if total else f"{progress:g}"))

        result = await self._client.call_tool(tool, arguments, progress_callback=heard)
        return _answer(result)


def _target(server: str) -> Any:
    if server.startswith(("http://", "https://")):
        return server
    from mcp import StdioServerParameters, stdio_client

    try:
        command, *arguments = shlex.split(server)
    except ValueError as e:
        raise UserError(f"The MCP server '{server}' is no command line or URL: {e}.") from None
    if shutil.which(command) is None:
        raise UserError(
            f"The program '{command}' of an MCP server is not there; install it, or give its whole path."
        )
    log = open(os.devnull, "w")  # noqa: SIM115  (a server's log is not for the user of the model; closed with the client)
    return stdio_client(StdioServerParameters(command=command, args=arguments), errlog=log)


def _answer(result: Any) -> Answer:
    """A server's result: its texts, media as artefacts."""
    import json
    import mimetypes

    texts: list[str] = []
    made: list[Artefact] = []
    room = MAX_MEDIA
    for part in result.content:
        inner = getattr(part, "resource", part)
        data = getattr(part, "data", None) or getattr(inner, "blob", None)
        if isinstance(getattr(inner, "text", None), str):
            texts.append(inner.text)
        elif isinstance(data, str):
            room -= len(data)
            if room < 0:
                texts.append("[left out, too large]")
                continue
            mime = str(getattr(inner, "mime_type", "") or "application/octet-stream")
            name = f"{mime.partition('/')[0]}-{len(made) + 1}{mimetypes.guess_extension(mime) or ''}"
            with contextlib.suppress(binascii.Error, ValueError):
                made.append(Artefact(name, mime, base64.b64decode(data)))
                texts.append(f"[{name}]")
        elif hasattr(part, "uri"):
            texts.append(str(part.uri))
    if not texts and result.structured_content is not None:
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return Answer("\n".join(texts), tuple(made), bool(result.is_error))


def _described(text: str | None) -> str | None:
    return base.text((text or "").strip()[:MAX_DESCRIPTION]) or None


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "mcp"


def _first(error: BaseException) -> str:
    """The error inside the groups that asynchronous code wraps around it."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def connect(spec: str) -> McpTool:
    """`NAME=SERVER` or `SERVER`, which is a URL or a command line."""
    named = re.match(r"([A-Za-z][\w-]*)=(.+)", spec)
    return McpTool(named[2], named[1]) if named else McpTool(spec)


def server(tools: Sequence[Tool]) -> MCPServer:
    """Our python and browser tools for other programs; one session for all who ask."""
    import anyio
    from mcp.server.mcpserver import Image, MCPServer

    offered = MCPServer(
        "motet", instructions="Python in a sandbox, and a browser over pages with numbered lines."
    )
    table = {t.namespace.name: t for t in tools}
    turns = {name: anyio.Lock() for name in table}  # a session takes one call after another

    async def ask(name: str, recipient: str, content: str) -> list[Any]:
        run = base.Run()

        async def hear() -> None:  # a client that takes its call back
            try:
                await anyio.sleep_forever()
            finally:
                run.stop.set()

        async with turns[name], anyio.create_task_group() as group:
            group.start_soon(hear)
            with anyio.CancelScope(shield=True):
                answer = await anyio.to_thread.run_sync(_said, table[name], recipient, content, run)
            group.cancel_scope.cancel()
        images = [
            Image(data=a.data, format=a.mime.partition("/")[2])
            for a in answer.artefacts
            if a.mime in ("image/png", "image/jpeg")
        ]
        return [answer.text, *images]

    if "python" in table:

        async def python(code: str) -> list[Any]:
            return await ask("python", "python", code)

        offered.add_tool(python, description=table["python"].namespace.description, structured_output=False)
    if "browser" in table:
        _offer_browser(offered, table["browser"], ask)
    return offered


def _offer_browser(offered: MCPServer, tool: Tool, ask: Any) -> None:
    import json

    said = {f.name: f.description for f in tool.namespace.functions}

    async def search(query: str, topn: int = 10) -> list[Any]:
        return await ask("browser", "browser.search", json.dumps({"query": query, "topn": topn}))  # type: ignore[no-any-return]

    async def open(
        id: int | str = -1, cursor: int = -1, loc: int = -1, num_lines: int = -1, view_source: bool = False
    ) -> list[Any]:
        call = {"id": id, "cursor": cursor, "loc": loc, "num_lines": num_lines, "view_source": view_source}
        return await ask("browser", "browser.open", json.dumps(call))  # type: ignore[no-any-return]

    async def find(pattern: str, cursor: int = -1) -> list[Any]:
        return await ask("browser", "browser.find", json.dumps({"pattern": pattern, "cursor": cursor}))  # type: ignore[no-any-return]

    for function in (search, open, find):
        offered.add_tool(function, description=said[function.__name__], structured_output=False)


def _said(tool: Tool, recipient: str, content: str, run: base.Run) -> Answer:
    from motet.tools.runner import Call, answer_of

    base._RUN.set(run)
    return answer_of(Call(tool, recipient, content))

"""The tools this server runs, and what of them one request may use. A session (a sandbox, a browser's pages) belongs to one
conversation: it goes on with the response that follows, and is closed when nobody has followed for a while.

Callers name tools as the API does (`code_interpreter`, `web_search`, `mcp`); the operator decides which there are. Knows tools
and requests; knows no turns and no items.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motet.errors import UsageError
from motet.harmony import Namespace
from motet.server import files
from motet.server.errors import ApiError, busy, unsupported
from motet.server.files import File
from motet.tools import Answer, Tool, named, toolbox
from motet.tools.runner import Call, answer_of

if TYPE_CHECKING:
    from motet.tools.browser import BrowserTool

Json = dict[str, Any]
IDLE_S, MOST = 1200.0, 16  # how long a session waits to be followed, and how many there may be
RUNS_IN = {
    **dict.fromkeys(("code_interpreter", "python"), "python"),
    **dict.fromkeys(("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
                     "browser_search", "browser"), "browser"),
}  # fmt: skip
TYPES = ("function", "mcp", *RUNS_IN)
NO_MORE = Answer(
    "Error: no more tool calls are allowed in this response; answer with what you have.", (), True
)


@dataclass
class Session:
    """Tools with a state, by the name of their namespace."""

    id: str
    owner: str
    tools: dict[str, Tool] = field(default_factory=dict)
    follows: str | None = None  # the response that used it last
    used: float = 0.0
    busy: bool = True
    named: dict[str, str] = field(default_factory=dict)  # ids of the files made in it, by their names
    held: list[File] = field(default_factory=list)  # those that no store keeps

    def close(self) -> None:
        """Ends what runs inside."""
        for tool in self.tools.values():
            getattr(tool, "close", lambda: None)()


@dataclass
class Kit:
    """What one request may use. `labels`: namespaces of MCP servers."""

    tools: tuple[Tool, ...] = ()
    session: Session | None = None
    labels: frozenset[str] = frozenset()
    waiting: tuple[Tool, ...] = ()  # whose calls the caller wants to approve first

    @property
    def browser(self) -> BrowserTool | None:
        """Whose pages an answer may cite."""
        return self.session.tools.get("browser") if self.session else None  # type: ignore[return-value]

    @property
    def container(self) -> str:
        """The id of the session, as the API has it."""
        return self.session.id if self.session else ""

    def whose(self, recipient: str) -> tuple[str, str]:
        """(python, browser, an MCP server's label or functions; the name of the function) of a call."""
        name = recipient.removeprefix("functions.")
        space, _, rest = name.partition(".")
        if space in self.labels or (self.session is not None and space in self.session.tools):
            return space, rest
        return "functions", name

    def waits(self, recipient: str) -> bool:
        """Whether a call is one the caller wants to approve."""
        return any(recipient.removeprefix("functions.") in _recipients(t) for t in self.waiting)

    def ask(self, call: Json, path: str) -> Answer:
        """Makes a call that was approved. Blocking. ApiError when its server is not among the tools."""
        to = f"{call.get('server_label')}.{call.get('name')}"
        tool = next((t for t in (*self.waiting, *self.tools) if to in _recipients(t)), None)
        if tool is None:
            said = "approves a call of a tool that this request does not declare; send its server in tools."
            raise ApiError(400, f"{path} {said}", param=path)
        return answer_of(Call(tool, to, str(call.get("arguments") or "")))

    def bounded(self, calls: int | None) -> tuple[Tool, ...]:
        """The tools, all together good for so many calls; the model reads that there are no more."""
        left = None if calls is None else _Left(calls)
        return self.tools if left is None else tuple(_Counted(t, left) for t in self.tools)


def _recipients(tool: Tool) -> set[str]:
    return {f"{tool.namespace.name}.{f.name}" for f in tool.namespace.functions}


class _Left:
    def __init__(self, n: int) -> None:
        self._n, self._lock = n, threading.Lock()

    def take(self) -> bool:
        with self._lock:
            self._n -= 1
            return self._n >= 0


class _Counted:
    """A tool that stops answering after a number of calls."""

    def __init__(self, tool: Tool, left: _Left) -> None:
        self._tool, self._left = tool, left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    @property
    def namespace(self) -> Namespace:
        return self._tool.namespace

    def call(self, recipient: str, content: str) -> str | Answer:
        return self._tool.call(recipient, content) if self._left.take() else NO_MORE


class _Some:
    """Some of an MCP server's functions."""

    def __init__(self, tool: Tool, names: Collection[str]) -> None:
        space = tool.namespace
        self._tool = tool
        self.namespace = dataclasses.replace(
            space, functions=tuple(f for f in space.functions if f.name in names)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    def call(self, recipient: str, content: str) -> str | Answer:
        return self._tool.call(recipient, content)


class Workshop:
    """What the operator lets the model use: `specs` as `motet run --tool` takes them, `servers` as its --mcp."""

    def __init__(self, specs: Sequence[str] = (), servers: Sequence[str] = ()) -> None:
        self._specs = {s.partition(":")[0]: s for s in specs}
        if bad := [s for s in self._specs if s not in ("python", "browser")]:
            raise UsageError(
                f"A server cannot offer {bad[0]!r}; use python and browser:DIR, or an MCP server."
            )
        self._open = ExitStack()
        with toolbox(specs):  # what is wrong with them is said now
            pass
        self._servers = {t.namespace.name: t for t in self._open.enter_context(toolbox((), servers))}
        self._sessions: list[Session] = []
        self.threads = ThreadPoolExecutor(
            MOST, "motet-tool"
        )  # for calls that are made outside a turn, and may take long
        self._lock = threading.Lock()

    @property
    def offers(self) -> list[Json]:
        """Every tool as a request would name it, with a label for people."""
        out: list[Json] = []
        if "python" in self._specs:
            send: Json = {"type": "code_interpreter", "container": {"type": "auto"}}
            out.append({"type": "code_interpreter", "label": "Python", "send": send})
        if "browser" in self._specs:
            out.append({"type": "web_search", "label": "Browser", "send": {"type": "web_search"}})
        for name in self._servers:
            send = {"type": "mcp", "server_label": name, "require_approval": "never"}
            out.append({"type": f"mcp {name}", "label": name, "send": send})
        return out

    def kit(self, wanted: Sequence[Json], owner: str, previous: str | None = None) -> Kit:
        """What a request asks for. Blocking. ApiError for what is not there; give it back with `done`."""
        spaces: dict[str, str | None] = {}
        servers: list[Tool] = []
        waiting: list[Tool] = []
        for n, tool in enumerate(wanted):
            path, kind = f"tools[{n}]", tool.get("type", "function")
            if (name := RUNS_IN.get(kind)) is not None:
                if name not in self._specs:
                    said = f"this server does not run it; its operator can, with --tool {name}."
                    raise unsupported(f"{path}.type", said)
                if name == "browser":
                    _search(tool, path)
                spaces[name] = _container(tool, path) if name == "python" else None
            elif kind == "mcp":
                free, asks = self._server(tool, path)
                servers += [] if free is None else [free]
                waiting += [] if asks is None else [asks]
        session = self._session(spaces, owner, previous) if spaces else None
        tools = [] if session is None else [t for name, t in session.tools.items() if name in spaces]
        labels = frozenset(t.namespace.name for t in (*servers, *waiting))
        return Kit((*tools, *servers), session, labels, tuple(waiting))

    def _server(self, tool: Json, path: str) -> tuple[Tool | None, Tool | None]:
        """(the tools of a server that run at once, those that wait for approval)."""
        label = tool.get("server_label")
        found = self._servers.get(label) if isinstance(label, str) else None
        if found is None:
            known = ", ".join(self._servers) or "none"
            said = f"there is no server of this name; this one knows: {known} (its operator adds more with --mcp)."
            raise unsupported(f"{path}.server_label", said)
        url = tool.get("server_url")
        if url is not None and url != getattr(found, "server", None):
            raise unsupported(
                f"{path}.server_url", "the operator decides which servers are asked; leave it out."
            )
        for name in ("authorization", "headers", "connector_id", "tunnel_id"):
            if tool.get(name):
                raise unsupported(f"{path}.{name}", "the operator has connected the server; leave it out.")
        names = [f.name for f in found.namespace.functions]
        if (allowed := _names(tool.get("allowed_tools"), f"{path}.allowed_tools", names)) is not None:
            names = [n for n in names if n in allowed]
        asks = set(names) & _asks(tool.get("require_approval"), f"{path}.require_approval", names)
        free = set(names) - asks
        return _Some(found, free) if free else None, _Some(found, asks) if asks else None

    def _session(self, spaces: Mapping[str, str | None], owner: str, previous: str | None) -> Session:
        """The session a container's id names, else that of the response before, else a new one; with these tools in it."""
        id = spaces.get("python")
        with self._lock:
            mine = [s for s in self._sessions if s.owner == owner]
            if id is not None:
                found = next((s for s in mine if s.id == id), None)
                if found is None or found.busy:
                    said = (
                        "is in use; wait for its response"
                        if found
                        else 'is not here, or has expired; use {"type": "auto"}'
                    )
                    raise ApiError(400, f"The container {id[:80]!r} {said}.", param="tools")
            else:
                found = (
                    next((s for s in mine if s.follows == previous and not s.busy), None)
                    if previous
                    else None
                )
            late = None
            if found is None:
                late = self._room()
                found = Session(f"cntr_{secrets.token_hex(24)}", owner)
                self._sessions.append(found)
            found.busy, found.used = True, time.monotonic()
        if late is not None:
            late.close()
        try:
            for name in spaces:
                if name not in found.tools:
                    found.tools[name] = named(self._specs[name])
        except BaseException:
            self.done(Kit((), found), None)
            raise
        return found

    def _room(self) -> Session | None:
        """Makes room for one more; returns what has to be closed for it."""
        if len(self._sessions) < MOST:
            return None
        idle = [s for s in self._sessions if not s.busy]
        if not idle:
            raise busy("Every container is in use; try again in a moment.")
        oldest = min(idle, key=lambda s: s.used)
        self._sessions.remove(oldest)
        return oldest

    def done(self, kit: Kit, response: str | None, made: Sequence[File] = (), room: int = 0) -> None:
        """A request is over; its session waits for whoever follows that response. Of the files it made those with data are held
        here, as many of the latest as have room (bytes). Blocking."""
        session = kit.session
        if session is not None:
            with self._lock:
                session.named |= {f.name: f.id for f in made}
                if new := [f for f in made if f.data]:
                    session.held = files.within([*session.held, *new], room)
                session.busy, session.used, session.follows = (
                    False,
                    time.monotonic(),
                    response or session.follows,
                )
                if session.follows is None:  # nobody can come back to it
                    self._sessions.remove(session)
            if session.follows is None:
                session.close()

    def files(self, owner: str, container: str) -> list[File] | None:
        """What a session holds; None where there is no such session of this owner."""
        with self._lock:
            return next((list(s.held) for s in self._sessions if (s.id, s.owner) == (container, owner)), None)

    def forget(self, owner: str, container: str, id: str) -> bool:
        """Lets go of a file that a session holds; whether it did."""
        with self._lock:
            for s in self._sessions:
                if (s.id, s.owner) == (container, owner) and any(f.id == id for f in s.held):
                    s.held = [f for f in s.held if f.id != id]
                    return True
        return False

    def tidy(self) -> None:
        """Closes what nobody has followed for long. Blocking."""
        now = time.monotonic()
        with self._lock:
            old = [s for s in self._sessions if not s.busy and now - s.used > IDLE_S]
            self._sessions = [s for s in self._sessions if s not in old]
        for session in old:
            session.close()

    def close(self) -> None:
        """Ends everything."""
        for session in self._sessions:
            session.close()
        self._sessions = []
        self._open.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


def _names(given: Any, path: str, known: Collection[str]) -> set[str] | None:
    """Names of a server's tools as a request lists them: a list, or an object with one; None for nothing said."""
    if isinstance(given, Mapping):
        if given.get("read_only") is not None:
            raise unsupported(f"{path}.read_only", "name the tools.")
        path, given = f"{path}.tool_names", given.get("tool_names")
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(n, str) for n in given):
        raise ApiError(400, f"{path} is not legal: give a list of names.", param=path)
    if missing := set(given) - set(known):
        raise ApiError(
            400, f"{path} names {min(missing)[:64]!r}, which the server does not offer.", param=path
        )
    return set(given)


def _asks(given: Any, path: str, known: Collection[str]) -> set[str]:
    """The tools whose calls wait for approval: all of them, unless the request says otherwise."""
    if given in (None, "always", "never"):
        return set() if given == "never" else set(known)
    if not isinstance(given, Mapping):
        raise ApiError(400, f"{path} is not legal: use always, never, or an object of both.", param=path)
    always, never = (_names(given.get(w), f"{path}.{w}", known) for w in ("always", "never"))
    return always if always is not None and never is None else set(known) - (never or set())


def _container(tool: Json, path: str) -> str | None:
    """The id of the container a request wants; None for any."""
    given = tool.get("container")
    if isinstance(given, str):
        return given
    if given is not None and (not isinstance(given, Mapping) or given.get("type", "auto") != "auto"):
        raise ApiError(
            400,
            f'{path}.container is not legal: give an id, or {{"type": "auto"}}.',
            param=f"{path}.container",
        )
    for name in ("file_ids", "memory_limit", "network_policy"):
        value = (given or {}).get(name)
        if value and value != {"type": "disabled"}:
            raise unsupported(
                f"{path}.container.{name}", "the operator decides what a container has; leave it out."
            )
    return None


def _search(tool: Json, path: str) -> None:
    """Refuses what a search could be narrowed to, and here cannot."""
    for name, harmless in (("filters", ()), ("user_location", ()), ("search_context_size", ("medium",)),
                           ("external_web_access", (True,))):  # fmt: skip
        value = tool.get(name)
        if value and value not in harmless and value != {"allowed_domains": []}:
            raise unsupported(f"{path}.{name}", "the operator decides where pages come from; leave it out.")

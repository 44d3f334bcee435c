"""Every way out of this program, each the real code with a model that plays given ids: library, API, stream, log, metrics.

What comes out is sorted by whom it is for, whatever the wire form. The command line is an outlet too; it stands above this
file and is handed in. Knows cases and outlets; judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from motet.engine import SamplingParams, Stats, TokenOut
from motet.harmony import Conversation, Delta, MessageEnd, MessageStart, Policy, Quarantined, parse, visible

if TYPE_CHECKING:
    from motet.server.host import Host
    from motet.tokenizer import Encoding

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
POLICIES = ("hide", "summary", "show")
_UNSAID = re.compile(r"\b(chatcmpl-|call_|resp_|rs_|msg_|fc_)[\w-]+")
_CLOCKS = {"created", "created_at", "completed_at", "seconds", "tokens_per_second", "obfuscation"}


class Playback:
    """An engine that says what its table holds for the number in the prompt ("case 17"), up to the first token that ends a turn."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding, self.alive, self.running, self.waiting = encoding, True, 0, 0
        self.table: dict[int, tuple[tuple[int, ...], int | None]] = {}
        stops = tuple(encoding.special(f"<|{n}|>") for n in ("return", "call"))
        config = SimpleNamespace(max_position_embeddings=1 << 17, vocab_size=1 << 20, eos_token_ids=stops)
        self.model = SimpleNamespace(config=config, encoding=encoding, precision="int8", kv="bf16")
        self._stops = frozenset(stops)

    def put(self, number: int, ids: Sequence[int], broken: int | None = None) -> None:
        """What request `number` gets; `broken`: the engine fails after so many ids."""
        self.table[number] = tuple(ids), broken

    def submit(self, ids: Sequence[int], params: SamplingParams | None = None, **more: Any) -> _Played:
        """As Engine.submit."""
        text = self.encoding.decode(ids)
        number = int(re.findall(r"case (\d+)", text)[-1])
        called = re.search(
            r"<\|start\|>functions", text[text.rindex("case ") :]
        )  # a second stretch says nothing
        said, broken = self.table[number] if called is None else ((), None)
        return _Played(said, broken, params or SamplingParams(), self._stops, len(ids), self.encoding)

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        return iter(self.submit(ids, params))

    def close(self) -> None:
        """Nothing to end."""


class _Played:
    """A request under way. Alternatives are the very tokens, so that whatever shows them shows what was said."""

    def __init__(
        self, ids: Sequence[int], broken: int | None, params: SamplingParams, stops: frozenset[int], n_prompt: int, encoding: Encoding
    ) -> None:  # fmt: skip
        self._ids, self._broken, self._params, self._stops = ids, broken, params, stops
        self._encoding, self.stats, self.finish = encoding, Stats(params.seed or 0, n_prompt), None

    def failure(self, said: str) -> str:
        """What an engine says when it fails: nothing of the text."""
        return "The engine has failed."

    def cancel(self) -> None:
        """It has no thread to stop."""

    def __iter__(self) -> Iterator[TokenOut]:
        from motet.errors import UserError

        for n, i in enumerate(self._ids, 1):
            last = i in self._stops or n == len(self._ids)
            top = ((i, -0.5),) if self._params.logprobs else None
            yield TokenOut(0, i, -0.5, "stop" if i in self._stops else "length" if last else None, top)
            if n == self._broken:
                raise UserError(self.failure(self._encoding.decode(self._ids[:n])))
            if last:
                return


@dataclass
class Shown:
    """What came out, by whom it is for: answers, arguments of calls, thinking, and all else (errors, logs, names, counts).

    tokens and thoughts stand beside answers and thinking: log probabilities. `bare`: the whole without ids and clocks, to be compared. failed: the answer broke off with an error.
    """

    visible: str = ""
    calls: str = ""
    thinking: str = ""
    tokens: str = ""
    thoughts: str = ""
    rest: str = ""
    bare: str = ""
    failed: bool = False


class Outlet(Protocol):
    """A way out. `thinking`: what its reader may see of it ("hide", "summary", "show")."""

    name: str
    thinking: str
    folds: str | None  # the name of the outlet whose texts it must equal

    def show(self, number: int) -> Shown:
        """What a reader gets for a case of the engine's table."""
        ...


@dataclass
class Plain:
    """An outlet that is a function."""

    name: str
    thinking: str
    of: Callable[[int], Shown]
    folds: str | None = None

    def show(self, number: int) -> Shown:
        """See Outlet."""
        return self.of(number)


def question(number: int) -> Conversation:
    """The conversation of a case."""
    return Conversation.from_chat([{"role": "user", "content": f"This is case {number}"}], tools=[TOOL])


def events_shown(events: Sequence[Any]) -> Shown:
    """Visible events, sorted: their texts and the words of their ids."""
    out, into = Shown(), "rest"
    for e in events:
        if isinstance(e, MessageStart):
            into = "calls" if e.is_call else "thinking" if e.channel == "analysis" else "visible"
        if isinstance(e, Delta):
            setattr(out, into, getattr(out, into) + e.text)
        elif isinstance(e, MessageEnd):
            setattr(out, into, getattr(out, into) + "\n")
        elif isinstance(e, Quarantined):
            out.rest += e.text
    # Of a header, what outlets pass on: the word behind <|constrain|> is none of it.
    out.bare = repr([(e.role, e.channel, e.recipient) if isinstance(e, MessageStart) else e for e in events])
    return out


def core(encoding: Encoding, ids: Sequence[int], policy: Policy) -> Shown:
    """Parser and policy alone: what every outlet stands on, fast enough for very many cases."""
    return events_shown(list(visible(parse(ids, encoding), policy)))


def library(engine: Playback) -> list[Outlet]:
    """`motet.reply`, whole, and its events as they come."""
    from motet.turn import reply, run_turn

    def whole(number: int) -> Shown:
        said = reply(question(number), engine=engine, grammar=False)  # type: ignore[arg-type]
        visible = "\n".join(filter(None, (said.commentary, said.final)))
        return Shown(visible, rest=repr(said), bare=repr((visible, repr(said))))

    def streamed(number: int) -> Shown:
        turn = run_turn(engine, question(number), engine.encoding, SamplingParams(), rules=None)
        return events_shown(list(visible(turn)))

    return [Plain("library", "hide", _guarded(whole)), Plain("library, streamed", "hide", _guarded(streamed))]


def _guarded(of: Callable[[int], Shown]) -> Callable[[int], Shown]:
    """An engine's failure reaches a library's caller as the error it is."""
    from motet.errors import UserError

    def shown(number: int) -> Shown:
        try:
            return of(number)
        except UserError as e:
            return Shown(rest=str(e), bare=str(e), failed=True)

    return shown


class Server:
    """The application of the server, one for each policy, asked without a socket; and what it logs and counts meanwhile."""

    def __init__(self, engine: Playback) -> None:
        self._hosts = {p: _host(engine, p) for p in POLICIES}
        self._apps: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._clients: dict[str, Any] = {}

    def outlets(self) -> list[Outlet]:
        """Chat Completions and, where the server has them, Responses; whole and streamed, under each policy."""
        import httpx

        from motet.server.app import create_app

        out: list[Outlet] = []
        for policy, host in self._hosts.items():
            app = create_app(host)
            transport = httpx.ASGITransport(app=app)
            self._clients[policy] = httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", timeout=60
            )
            paths = {getattr(r, "path", "") for r in app.routes}
            for path, name in (("/v1/chat/completions", "chat"), ("/v1/responses", "responses")):
                if path not in paths:
                    continue
                label = f"{name}, {policy}"
                for stream in (False, True):
                    of = self._asks(policy, path, stream)
                    out.append(
                        Plain(
                            f"{label}, streamed" if stream else label, policy, of, label if stream else None
                        )
                    )
        return out

    def _asks(self, policy: str, path: str, stream: bool) -> Callable[[int], Shown]:
        def shown(number: int) -> Shown:
            return self._loop.run_until_complete(self._ask(policy, path, stream, number))

        return shown

    async def _ask(self, policy: str, path: str, stream: bool, number: int) -> Shown:
        said = [{"role": "user", "content": f"This is case {number}"}]
        body: dict[str, Any] = {"model": "played", "stream": stream}
        if path.endswith("completions"):
            body |= {
                "messages": said,
                "tools": [TOOL],
                "logprobs": True,
                "top_logprobs": 1,
                "stream_options": {"include_usage": True},
            }
            if not stream:
                del body["stream_options"]
        else:
            body |= {"input": said, "tools": [{"type": "function", **TOOL["function"]}], "store": False}  # type: ignore[dict-item]
            body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        answer = await self._clients[policy].post(path, json=body)
        bodies = _pieces(answer.text) if stream else [answer.json()]
        return sorted_out(bodies, answer.status_code >= 400)

    def aside(self) -> dict[str, str]:
        """What else can be read of a server: metrics, and what the page and clients are told."""

        async def get(policy: str, path: str) -> str:
            return str((await self._clients[policy].get(path)).text)

        paths = ("/metrics", "/motet/page", "/v1/models", "/ready", "/motet/watch")
        return {
            f"{p}, {policy}": self._loop.run_until_complete(get(policy, p))
            for p in paths
            for policy in POLICIES
        }

    def close(self) -> None:
        """Ends the loop, its clients and what still waits on it."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        for client in self._clients.values():
            self._loop.run_until_complete(client.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _host(engine: Playback, policy: str) -> Host:
    from motet.server.host import Host
    from motet.server.settings import Settings

    return Host(engine, engine.encoding, "played", Settings(thinking=policy, store="none"), precision="int8")


def _pieces(text: str) -> list[Any]:
    """The data of server-sent events."""
    data = re.findall(r"^data: (.*)$", text, re.M)
    return [json.loads(d) for d in data if d.strip() != "[DONE]"]


def sorted_out(bodies: Sequence[Any], failed: bool = False) -> Shown:
    """JSON of any of the APIs, sorted by the names of its fields and items."""
    out = Shown(failed=failed)
    finals: list[Any] = []
    for body in bodies:
        kind = str(body.get("type", "")) if isinstance(body, Mapping) else ""
        # A stream of Responses says everything several times; its deltas are what is compared, all else must be fit to be seen.
        again = kind.startswith("response.") and not kind.endswith(".delta")
        into = Shown() if again else out
        _walk(body, "rest", into)
        if again:
            out.rest += into.rest
            finals.append(into)
        out.failed = out.failed or (
            isinstance(body, Mapping) and bool(body.get("error") or kind in ("error", "response.failed"))
        )
    for more in finals:  # as a reader sees them
        for name in ("visible", "calls", "thinking", "tokens", "thoughts"):
            if not _within(getattr(more, name), getattr(out, name)):
                setattr(out, name, f"{getattr(out, name)}\n{getattr(more, name)}")
    out.bare = _UNSAID.sub(r"\1", json.dumps(_without_clocks(list(bodies)), sort_keys=True))
    return out


def _within(some: str, whole: str) -> bool:
    return all(word in whole for word in some.split())


def _without_clocks(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_clocks(v) for k, v in value.items() if k not in _CLOCKS}
    return [_without_clocks(v) for v in value] if isinstance(value, list) else value


_FIELDS = {
    "content": "visible", "final": "visible", "commentary": "visible", "reasoning": "thinking", "reasoning_content": "thinking",
    "analysis": "thinking", "tool_calls": "calls", "arguments": "calls", "other": "thinking", "quarantined": "thinking",
}  # fmt: skip
_BESIDE = {"content": "tokens", "visible": "tokens", "reasoning": "thoughts", "thinking": "thoughts"}
_KINDS = (
    (re.compile(r"(response\.)?reasoning"), "thinking"),
    (re.compile(r"(response\.)?function_call"), "calls"),
    (re.compile(r"message$|(response\.)?output_text"), "visible"),
)


def _walk(value: Any, into: str, out: Shown) -> None:
    if isinstance(value, str):
        joined = value if into != "rest" else f"{value}\n"
        setattr(out, into, getattr(out, into) + joined)
    elif isinstance(value, Mapping):
        kind = value.get("type")
        if isinstance(kind, str):
            into = next((name for pattern, name in _KINDS if pattern.match(kind)), into)
        for key, inner in value.items():
            if key == "reasoning_content" and inner == value.get("reasoning"):
                continue  # the same, for clients that look there
            if key == "reasoning" and isinstance(inner, Mapping):
                continue  # the request's own setting, said back
            if key in ("type", "id", "item_id", "call_id", "role", "name", "status", "object", "phase"):
                _walk(inner, "rest", out)
            elif key == "logprobs":
                for of, entries in (inner if isinstance(inner, Mapping) else {into: inner}).items():
                    name = _BESIDE.get(of, "rest")
                    setattr(out, name, getattr(out, name) + " ".join(_strings(entries)))
            elif key == "usage":
                out.rest += " ".join(_strings(inner))
            else:
                _walk(inner, into if into == "thinking" else _FIELDS.get(key, into), out)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, into, out)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [t for k, v in value.items() if k != "bytes" for t in _strings(v)]
    return [t for v in value for t in _strings(v)] if isinstance(value, list) else []


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """What loggers say within the block, this program's at every level, others' from INFO on, with arguments and tracebacks."""
    lines: list[str] = []
    formatter = logging.Formatter()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    keep, root = Keep(), logging.getLogger()
    levels = {"": logging.INFO, "motet": logging.DEBUG, "httpx": logging.WARNING}
    before = {n: logging.getLogger(n).level for n in levels}
    root.addHandler(keep)
    try:
        for n, level in levels.items():
            logging.getLogger(n).setLevel(level)
        yield lines
    finally:
        root.removeHandler(keep)
        for n, level in before.items():
            logging.getLogger(n).setLevel(level)

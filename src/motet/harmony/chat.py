"""Chat Completions messages as Harmony, and back: `read(write(c)) == c` for every conversation.

One assistant message holds, in this order, thinking (`reasoning`), a text and calls; the text is a remark on commentary if
calls follow and the final answer if none do, unless its `channel` says otherwise. Knows requests, no replies and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.errors import UsageError
from motet.harmony import outside as o
from motet.harmony import wire
from motet.harmony.messages import Conversation, DeveloperContent, Message
from motet.harmony.schema import ResponseFormat

_THOUGHT = ("reasoning", "reasoning_content", "thinking")
_HEADER = ("channel", "recipient", "content_type")
_AUTHOR = "system developer user assistant tool"


def read(value: Any, tools: Any, response_format: Any, settings: o.Settings) -> Conversation:
    """A Conversation from messages or from a whole request; what a request leaves out comes from the arguments."""
    if isinstance(value, Mapping):
        settings = settings.updated(value)
        effort = value.get("reasoning_effort")
        settings = settings if effort is None else replace(settings, effort=effort)
        tools = value.get("tools") if tools is None else tools
        response_format = value.get("response_format") if response_format is None else response_format
        value = value.get("messages")
        if value is None:
            raise UsageError('The request needs "messages": a list of {"role": ..., "content": ...}.')
    messages = o.a_list(value, "messages")
    lead = 0
    while lead < len(messages) and _instructs(messages[lead]):
        lead += 1
    said = [
        o.joined(o.texts(m.get("content"), f"messages[{n}].content")) for n, m in enumerate(messages[:lead])
    ]
    calls = o.Calls(_ids(messages))
    body: list[Message] = []
    for n, m in enumerate(messages[lead:], lead):
        body += _message(m, f"messages[{n}]", calls)
    return o.assemble(settings, said, tools, _format(response_format), body)


def _instructs(m: Any) -> bool:
    return isinstance(m, Mapping) and m.get("role") in ("system", "developer") and not wire.is_wire(m)


def _ids(messages: Sequence[Any]) -> list[Any]:
    """Every id a call has."""
    lists = [m.get("tool_calls") for m in messages if isinstance(m, Mapping)]
    return [
        c.get("id")
        for calls in lists
        if isinstance(calls, list | tuple)
        for c in calls
        if isinstance(c, Mapping)
    ]


def _format(value: Any) -> list[ResponseFormat]:
    if value is None:
        return []
    kind = o.one_of(
        o.an_object(value, "response_format").get("type"),
        "response_format.type",
        ("text", "json_object", "json_schema"),
    )
    if kind == "json_schema":
        return [o.format_of(value.get("json_schema"), "response_format.json_schema")]
    return [o.ANY_OBJECT] if kind == "json_object" else []


def _message(value: Any, path: str, calls: o.Calls) -> list[Message]:
    m = o.a_message(value, path)
    if wire.is_wire(m):
        return [wire.message_of(m, path)]
    role = o.one_of(m.get("role"), f"{path}.role", _AUTHOR.split())
    if role == "assistant":
        return _assistant(m, path, calls)
    content = o.texts(m.get("content"), f"{path}.content")
    if role == "user":
        return [Message("user", content, name=_name(m, path))]
    if role != "tool":
        return [Message("developer", DeveloperContent(o.joined(content)))]
    call_id = o.maybe_text(m.get("tool_call_id"), f"{path}.tool_call_id")
    name = o.maybe_text(m.get("name"), f"{path}.name")
    return [o.result(calls.answered(call_id, f"{path}.tool_call_id", name), content)]


def _name(m: Mapping[str, Any], path: str) -> str | None:
    return None if m.get("name") is None else o.a_name(m["name"], f"{path}.name")


def _assistant(m: Mapping[str, Any], path: str, calls: o.Calls) -> list[Message]:
    name = _name(m, path)
    out: list[Message] = []
    key = next((k for k in _THOUGHT if m.get(k)), None)
    if key is not None:
        out.append(Message("assistant", o.texts(m[key], f"{path}.{key}"), "analysis", name=name))
    wanted = o.a_list(m.get("tool_calls"), f"{path}.tool_calls")
    content = m.get("refusal") if m.get("content") is None else m["content"]
    told = "channel" in m
    if content is not None and (told or not (wanted and content in ("", []))):
        channel = m["channel"] if told else "commentary" if wanted else "final"
        if channel is not None:
            o.one_of(channel, f"{path}.channel", wire.CHANNELS)
        found = o.texts(content, f"{path}.content")
        out.append(Message("assistant", found, channel, name=name))
    out += [_call(c, f"{path}.tool_calls[{n}]", calls) for n, c in enumerate(wanted)]
    if not out:
        raise UsageError(f"{path} has neither content nor tool_calls; give it one of them.")
    return out


def _call(value: Any, path: str, calls: o.Calls) -> Message:
    call = o.an_object(value, path)
    if call.get("type") not in (None, "function"):
        raise UsageError(
            f"{path} is a tool call of type {o.shown(call['type'])}; only calls of functions can be read."
        )
    inner = o.an_object(call.get("function"), f"{path}.function")
    name = o.a_name(inner.get("name"), f"{path}.function.name")
    arguments = inner.get("arguments", "")
    if not isinstance(arguments, str):
        raise o.wrong(f"{path}.function.arguments", "JSON as a text", arguments)
    call_id = o.maybe_text(call.get("id"), f"{path}.id")
    made = Message("assistant", arguments, "commentary", f"functions.{name}", o.JSON_TYPE, None, call_id)
    return calls.made(overridden(made, call, path), f"{path}.id")


def overridden(call: Message, value: Mapping[str, Any], path: str) -> Message:
    """The call with what its "harmony" key says of its header: a model's own spelling, kept as it was."""
    where = f"{path}.harmony"
    more = o.an_object(value.get("harmony") or {}, where)
    given = {k: o.maybe_text(more[k], f"{where}.{k}") for k in _HEADER if k in more}
    if given.get("channel") is not None:
        o.one_of(given["channel"], f"{where}.channel", wire.CHANNELS)
    if "recipient" in given:
        o.a_name(given["recipient"], f"{where}.recipient")
    return replace(call, **given)  # type: ignore[arg-type]


# --- the way back ---


def write(conversation: Conversation) -> dict[str, Any]:
    """A request of which `read` makes this conversation."""
    taken = o.take_apart(conversation)
    messages = [] if taken.instructions is None else [{"role": "developer", "content": taken.instructions}]
    out: dict[str, Any] = {"messages": messages + _Writer(taken.body).messages()}
    out["reasoning_effort"] = taken.settings.effort
    tools, harmony = taken.tools(nested=True), taken.harmony()
    out |= {"tools": tools} if tools else {}
    for f in taken.formats:
        schema = {"type": "json_schema", "json_schema": o.format_json(f)}
        out["response_format"] = {"type": "json_object"} if f == o.ANY_OBJECT else schema
    return out | ({"harmony": harmony} if harmony else {})


class _Writer:
    """Messages to chat messages: what may stand in one assistant message is put into one."""

    def __init__(self, body: Sequence[Message]) -> None:
        self._body = body
        self._out: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the assistant message that may still grow
        self._calls: dict[str | None, Message] = {}

    def messages(self) -> list[dict[str, Any]]:
        for n, m in enumerate(self._body):
            # a later developer message in front would be merged with the instructions
            first = n == 0 and m.role == "developer"
            self._add(m, first)
        self._close()
        return self._out

    def _add(self, m: Message, first: bool) -> None:
        if is_call(m):
            self._call(m)
        elif o.said_on(m, "analysis") and isinstance(m.content, str) and m.content:
            self._begin(reasoning=m.content)
        elif o.said_on(m, "commentary") or o.said_on(m, "final"):
            self._text(m)
        else:
            self._close()
            self._out.append(self._other(m, first))

    def _other(self, m: Message, first: bool) -> dict[str, Any]:
        call = self._calls.get(m.call_id) if m.call_id else None
        if o.answers(m, call):
            self._calls.pop(m.call_id)
            return {"role": "tool", "tool_call_id": m.call_id, "content": o.parts_json(m, "text")}
        if m.role == "user" and o.plain(replace(m, name=None)):
            name = {} if m.name is None else {"name": m.name}
            return {"role": "user", "content": o.parts_json(m, "text"), **name}
        if o.said_on(replace(m, channel="final"), "final"):
            return {"role": "assistant", "content": o.parts_json(m, "text"), "channel": m.channel}
        if is_instruction(m) and not first:
            return {"role": "developer", "content": m.content.instructions}  # type: ignore[union-attr]
        return wire.message_json(m)

    def _begin(self, **keys: Any) -> dict[str, Any]:
        self._close()
        self._open = {"role": "assistant", "content": None, **keys}
        return self._open

    def _text(self, m: Message) -> None:
        message = self._open
        if message is None or message["content"] is not None or "tool_calls" in message:
            message = self._begin()
        message["content"] = o.parts_json(m, "text")
        message["channel"] = m.channel
        if m.channel == "final":  # a call after it stands in a message of its own
            self._close()

    def _call(self, m: Message) -> None:
        message = self._open if self._open is not None else self._begin()
        message.setdefault("tool_calls", []).append(call_json(m))
        self._calls[m.call_id] = m

    def _close(self) -> None:
        """The channel is said only where `read` would take it for another."""
        message, self._open = self._open, None
        if message is None:
            return
        usual = "commentary" if message.get("tool_calls") else "final"
        if message.get("channel") == usual and not (usual == "commentary" and message["content"] == ""):
            del message["channel"]
        self._out.append(message)


def is_call(m: Message) -> bool:
    """A call of a function, which the APIs have a word for; the built-in tools and nameless extras are not."""
    to = m.recipient or "all"
    base = to.partition(".")[0]
    if (
        m.role != "assistant"
        or to in ("all", "assistant")
        or base in ("python", "browser")
        or m.name is not None
    ):
        return False
    return isinstance(m.content, str) and o.NAME.fullmatch(to.removeprefix("functions.")) is not None


def is_instruction(m: Message) -> bool:
    """A developer message of nothing but instructions."""
    c = m.content
    simple = (
        isinstance(c, DeveloperContent) and c.instructions is not None and not c.namespaces and not c.formats
    )
    return simple and m.role == "developer" and o.plain(replace(m, content="x"))


def call_json(m: Message) -> dict[str, Any]:
    """A tool call; "harmony" holds what differs from the usual header."""
    name = str(m.recipient).removeprefix("functions.")
    usual = {"channel": "commentary", "recipient": f"functions.{name}", "content_type": o.JSON_TYPE}
    odd = {k: getattr(m, k) for k, v in usual.items() if getattr(m, k) != v}
    out = {"id": m.call_id, "type": "function", "function": {"name": name, "arguments": m.content}}
    return out | ({"harmony": odd} if odd else {})

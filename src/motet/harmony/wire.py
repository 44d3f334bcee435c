"""Conversations as the JSON of the published library (openai_harmony's `Conversation.to_json`), and back.

Three keys are ours: `call_id` of a message, `strict` and `given` of a function, `response_formats` of developer content. In
lists of chat messages or Responses items, single messages of this form may stand too (`is_wire`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from motet.errors import UsageError
from motet.harmony import outside as o
from motet.harmony.messages import Conversation, DeveloperContent, Message, Part, SystemContent
from motet.harmony.schema import Function, Namespace

ROLES = ("system", "developer", "user", "assistant", "tool")
CHANNELS = ("analysis", "commentary", "final")
_TYPED = ("system_content", "developer_content")
_EFFORTS = {"Low": "low", "Medium": "medium", "High": "high"}


def is_wire(message: Any) -> bool:
    """Whether one message of a list says its own header: a recipient, a content type, typed content or, unless it is
    the assistant's, a channel."""
    if not isinstance(message, Mapping):
        return False
    keys = (
        ("recipient", "content_type")
        if message.get("role") == "assistant"
        else ("recipient", "content_type", "channel")
    )
    return any(k in message for k in keys) or _typed(message)


def is_harmony(value: Any) -> bool:
    """Whether a whole file is a Harmony conversation: nothing but messages, and typed content among them or our mark."""
    if not isinstance(value, Mapping) or not isinstance(value.get("messages"), list | tuple):
        return False
    if value.get("format") == "harmony":
        return True
    return set(value) == {"messages"} and any(isinstance(m, Mapping) and _typed(m) for m in value["messages"])


def _typed(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list | tuple) else [content]
    return any(isinstance(p, Mapping) and p.get("type") in _TYPED for p in parts)


def read(value: Any) -> Conversation:
    """A Conversation from the library's JSON."""
    inner = o.an_object(value, "The conversation")
    messages = o.a_list(inner.get("messages"), "messages")
    return Conversation(tuple(message_of(m, f"messages[{n}]") for n, m in enumerate(messages)))


def write(conversation: Conversation) -> dict[str, Any]:
    """The library's JSON, marked as such."""
    return {"format": "harmony", "messages": [message_json(m) for m in conversation.messages]}


def message_of(value: Any, path: str) -> Message:
    """One message; its header is checked when it is rendered."""
    m = o.a_message(value, path)
    role: Any = o.one_of(m.get("role"), f"{path}.role", ROLES)
    content = m.get("content")
    if content is None:
        raise o.wrong(f"{path}.content", "a text or a list of parts", content)
    parts = [content] if isinstance(content, str | Mapping) else o.a_list(content, f"{path}.content")
    found = tuple(_part_of(p, f"{path}.content[{n}]") for n, p in enumerate(parts))
    texts: dict[str, Any] = {
        k: o.maybe_text(m.get(k), f"{path}.{k}")
        for k in ("channel", "recipient", "content_type", "name", "call_id")
    }
    if texts["channel"] is not None:
        o.one_of(texts["channel"], f"{path}.channel", CHANNELS)
    for key in ("recipient", "name"):
        if texts[key] is not None:
            o.a_name(texts[key], f"{path}.{key}")
    if role == "tool" and texts["name"] is None:
        raise UsageError(f"{path}.name is missing; give the name of the tool that answered.")
    return Message(role, found, **texts)


def message_json(m: Message) -> dict[str, Any]:
    """One message in the form `is_wire` knows."""
    out: dict[str, Any] = {"role": m.role, "content": [_part_json(p) for p in m.parts], "channel": m.channel}
    given = {"recipient": m.recipient, "content_type": m.content_type, "name": m.name, "call_id": m.call_id}
    out |= {k: v for k, v in given.items() if v is not None}
    return out if is_wire(out) else {**out, "recipient": None}


def _part_of(value: Any, path: str) -> Part:
    if isinstance(value, str):
        return value
    part = o.an_object(value, path)
    if part.get("type") == "system_content":
        return _system_of(part, path)
    if part.get("type") == "developer_content":
        formats = o.a_list(part.get("response_formats"), f"{path}.response_formats")
        return DeveloperContent(
            o.maybe_text(part.get("instructions"), f"{path}.instructions"),
            _namespaces_of(part.get("tools"), f"{path}.tools"),
            tuple(o.format_of(f, f"{path}.response_formats[{n}]") for n, f in enumerate(formats)),
        )
    return o.text_part(part, path)


def _part_json(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    tools = {n.name: _namespace_json(n) for n in part.namespaces}
    if isinstance(part, DeveloperContent):
        out: dict[str, Any] = {"type": "developer_content", "instructions": part.instructions, "tools": tools}
        return out | ({"response_formats": [o.format_json(f) for f in part.formats]} if part.formats else {})
    return {
        "type": "system_content",
        "model_identity": part.identity,
        "reasoning_effort": part.effort and part.effort.capitalize(),
        "conversation_start_date": part.date,
        "knowledge_cutoff": part.cutoff,
        "channel_config": {"valid_channels": list(part.channels), "channel_required": part.channel_required},
        "tools": tools,
    }


def _system_of(part: Mapping[str, Any], path: str) -> SystemContent:
    effort = o.maybe_text(part.get("reasoning_effort"), f"{path}.reasoning_effort")
    if effort is not None:
        effort = o.one_of(_EFFORTS.get(effort, effort), f"{path}.reasoning_effort", tuple(_EFFORTS.values()))
    config = part.get("channel_config")
    channels: tuple[str, ...] = ()
    required = False
    if config is not None:
        where = f"{path}.channel_config"
        names = o.a_list(o.an_object(config, where).get("valid_channels"), f"{where}.valid_channels")
        channels = tuple(o.a_name(c, f"{where}.valid_channels[{n}]") for n, c in enumerate(names))
        required = o.a_flag(config.get("channel_required"), f"{where}.channel_required")
    text = {
        k: o.maybe_text(part.get(k), f"{path}.{k}")
        for k in ("model_identity", "knowledge_cutoff", "conversation_start_date")
    }
    identity, cutoff, date = text.values()
    return SystemContent(
        identity, cutoff, date, effort, _namespaces_of(part.get("tools"), f"{path}.tools"), channels, required
    )


def _namespaces_of(value: Any, path: str) -> tuple[Namespace, ...]:
    if value is None:
        return ()
    return tuple(_namespace_of(n, f"{path}.{o.shown(key)}") for key, n in o.an_object(value, path).items())


def _namespace_of(value: Any, path: str) -> Namespace:
    n = o.an_object(value, path)
    tools = o.a_list(n.get("tools"), f"{path}.tools")
    return Namespace(
        o.a_name(n.get("name"), f"{path}.name"),
        o.maybe_text(n.get("description"), f"{path}.description"),
        tuple(_function_of(f, f"{path}.tools[{k}]") for k, f in enumerate(tools)),
    )


def _namespace_json(n: Namespace) -> dict[str, Any]:
    tools = []
    for f in n.functions:
        one: dict[str, Any] = {"name": f.name, "description": f.description, "parameters": f.parameters}
        one |= {"strict": True} if f.strict else {}
        tools.append(one | ({"given": f.given} if f.given is not None else {}))
    return {"name": n.name, "description": n.description, "tools": tools}


def _function_of(value: Any, path: str) -> Function:
    f = o.an_object(value, path)
    schemas = []
    for key in ("parameters", "given"):
        schema = f.get(key)
        schemas.append(None if schema is None else o.an_object(schema, f"{path}.{key}"))
    return Function(
        o.a_name(f.get("name"), f"{path}.name"),
        o.maybe_text(f.get("description"), f"{path}.description") or "",
        schemas[0],
        o.a_flag(f.get("strict"), f"{path}.strict"),
        schemas[1],
    )

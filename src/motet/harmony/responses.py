"""Input items of the Responses API as Harmony, and back: `read(write(c)) == c` for every conversation.

Reasoning stays where it stands, also between calls. An assistant message says by its `phase` whether it is a remark or the
answer; without one it is a remark if a call follows at once. Calls of the built-in tools and of MCP servers hold call and
result in one item. Knows requests, no replies and no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.errors import UsageError
from motet.harmony import outside as o
from motet.harmony import wire
from motet.harmony.chat import call_json, is_call, is_instruction, overridden
from motet.harmony.messages import Conversation, DeveloperContent, Message
from motet.harmony.schema import ResponseFormat

_PHASES = {"commentary": "commentary", "final_answer": "final"}
_AUTHORS = ("system", "developer", "user", "assistant")
_THOUGHT_PARTS = ("reasoning_text", "summary_text", "text")
_CALLS = ("function_call", "mcp_call")


def read(value: Any, instructions: Any, tools: Any, text_format: Any, settings: o.Settings) -> Conversation:
    """A Conversation from a text, from items or from a whole request; what a request leaves out comes from the arguments."""
    if isinstance(value, Mapping):
        settings = settings.updated(value)
        effort = o.an_object(value.get("reasoning") or {}, "reasoning").get("effort")
        settings = settings if effort is None else replace(settings, effort=effort)
        instructions = value.get("instructions") if instructions is None else instructions
        tools = value.get("tools") if tools is None else tools
        text = o.an_object(value.get("text") or {}, "text")
        text_format = text.get("format") if text_format is None else text_format
        if "input" not in value:
            raise UsageError('The request needs "input": a text or a list of items.')
        value = value["input"]
    items = [{"role": "user", "content": value}] if isinstance(value, str) else o.a_list(value, "input")
    said = [] if instructions is None else [o.a_text(instructions, "instructions")]
    lead = 0
    while lead < len(items) and _instructs(items[lead]):
        said.append(o.joined(o.texts(items[lead].get("content"), f"input[{lead}].content")))
        lead += 1
    calls = o.Calls(i.get("call_id") for i in items if isinstance(i, Mapping) and _type(i) == "function_call")
    body: list[Message] = []
    for n, item in enumerate(items[lead:], lead):
        body += _item(item, f"input[{n}]", calls, items[n + 1] if n + 1 < len(items) else None)
    return o.assemble(settings, said, tools, _format(text_format), body)


def _type(item: Mapping[str, Any]) -> Any:
    return item.get("type") or ("message" if "role" in item else None)


def _instructs(item: Any) -> bool:
    if not isinstance(item, Mapping) or wire.is_wire(item) or _type(item) != "message":
        return False
    return item.get("role") in ("system", "developer")


def _format(value: Any) -> list[ResponseFormat]:
    if value is None:
        return []
    where = "text.format"
    kind = o.one_of(
        o.an_object(value, where).get("type"), f"{where}.type", ("text", "json_object", "json_schema")
    )
    if kind == "json_schema":
        return [o.format_of(value, where)]
    return [o.ANY_OBJECT] if kind == "json_object" else []


def _item(value: Any, path: str, calls: o.Calls, following: Any) -> list[Message]:
    item = o.a_message(value, path)
    kind = _type(item)
    if kind == "message":
        return [wire.message_of(item, path) if wire.is_wire(item) else _message(item, path, following)]
    if kind == "reasoning":
        return _reasoning(item, path)
    if kind == "function_call":
        return [_call(item, path, calls)]
    if kind == "function_call_output":
        call_id = o.maybe_text(item.get("call_id"), f"{path}.call_id")
        content = o.texts(item.get("output"), f"{path}.output")
        return [o.result(calls.answered(call_id, f"{path}.call_id"), content)]
    if kind == "code_interpreter_call":
        return list(_python(item, path))
    if kind == "web_search_call":
        return list(_browser(item, path))
    if kind == "mcp_call":
        return list(_mcp(item, path))
    if kind == "mcp_list_tools":
        return []  # what a server offers is declared with the tools
    raise UsageError(
        f"{path} is of type {o.shown(kind)}, which cannot be said in Harmony; use message, reasoning, function_call, "
        "function_call_output, web_search_call, code_interpreter_call or mcp_call."
    )


def _message(item: Mapping[str, Any], path: str, following: Any) -> Message:
    role = o.one_of(item.get("role"), f"{path}.role", _AUTHORS)
    content = o.texts(item.get("content"), f"{path}.content", ("input_text", *o.TEXT_PARTS))
    if role == "user":
        return Message(
            "user", content, name=None if item.get("name") is None else o.a_name(item["name"], f"{path}.name")
        )
    if role != "assistant":
        return Message("developer", DeveloperContent(o.joined(content)))
    if "channel" in item:
        channel = item["channel"]
        channel = None if channel is None else o.one_of(channel, f"{path}.channel", wire.CHANNELS)
    elif item.get("phase") is not None:
        channel = _PHASES[o.one_of(item["phase"], f"{path}.phase", tuple(_PHASES))]
    else:
        calls = isinstance(following, Mapping) and _type(following) in _CALLS
        channel = "commentary" if calls else "final"
    return Message("assistant", content, channel)


def _reasoning(item: Mapping[str, Any], path: str) -> list[Message]:
    """The thinking, or its summary where that is all there is. An item without either says nothing."""
    for key in ("content", "summary"):
        if item.get(key):
            return [Message("assistant", o.texts(item[key], f"{path}.{key}", _THOUGHT_PARTS), "analysis")]
    if item.get("encrypted_content") is not None:
        raise UsageError(
            f"{path}.encrypted_content cannot be read here; send the reasoning as content, or leave the item out."
        )
    return []


def _call(item: Mapping[str, Any], path: str, calls: o.Calls) -> Message:
    name = o.a_name(item.get("name"), f"{path}.name")
    arguments = item.get("arguments", "")
    if not isinstance(arguments, str):
        raise o.wrong(f"{path}.arguments", "JSON as a text", arguments)
    call_id = o.maybe_text(item.get("call_id"), f"{path}.call_id")
    made = Message("assistant", arguments, "commentary", f"functions.{name}", o.JSON_TYPE, None, call_id)
    return calls.made(overridden(made, item, path), f"{path}.call_id")


# --- tools that run here: call and result in one item ---


def _run(call: Message, output: str | None) -> Iterator[Message]:
    yield call
    if output is not None:
        yield o.result(call, output)


def _id(item: Mapping[str, Any], path: str) -> str | None:
    return o.maybe_text(item.get("id"), f"{path}.id")


def _python(item: Mapping[str, Any], path: str) -> Iterator[Message]:
    code = o.maybe_text(item.get("code"), f"{path}.code") or ""
    outputs = item.get("outputs")
    logs: list[str] = []
    for n, output in enumerate(o.a_list(outputs, f"{path}.outputs")):
        where = f"{path}.outputs[{n}]"
        if o.an_object(output, where).get("type") == "image":
            continue  # for people; what the model read of it stands in the logs
        if output.get("type") != "logs":
            raise UsageError(
                f"{where} is of type {o.shown(output.get('type'))}; the model reads text only, so send logs."
            )
        logs.append(o.a_text(output.get("logs"), f"{where}.logs"))
    call = Message("assistant", code, "analysis", "python", "code", call_id=_id(item, path))
    return _run(overridden(call, item, path), None if outputs is None else "".join(logs))


# What the API says of a search, and what the model wrote for it: (function, key of the action, key of the argument).
_ACTIONS = {
    "search": ("search", "query", "query"),
    "open_page": ("open", "url", "id"),
    "find_in_page": ("find", "pattern", "pattern"),
    "find": ("find", "pattern", "pattern"),
}


def _browser(item: Mapping[str, Any], path: str) -> Iterator[Message]:
    """`arguments` and `output` are ours: the API forgets what the model wrote and what it read."""
    where = f"{path}.action"
    action = o.an_object(item.get("action"), where)
    name, key, argument = _ACTIONS[o.one_of(action.get("type"), f"{where}.type", tuple(_ACTIONS))]
    arguments = o.maybe_text(item.get("arguments"), f"{path}.arguments")
    if arguments is None:
        value = o.maybe_text(action.get(key), f"{where}.{key}")
        arguments = json.dumps({} if value is None else {argument: value}, ensure_ascii=False)
    call = Message("assistant", arguments, "analysis", f"browser.{name}", "code", call_id=_id(item, path))
    return _run(overridden(call, item, path), o.maybe_text(item.get("output"), f"{path}.output"))


def _mcp(item: Mapping[str, Any], path: str) -> Iterator[Message]:
    server, name = (o.a_name(item.get(k), f"{path}.{k}") for k in ("server_label", "name"))
    arguments = o.a_text(item.get("arguments", ""), f"{path}.arguments")
    output = o.maybe_text(item.get("output"), f"{path}.output")
    if output is None and item.get("error") is not None:
        output = f"Error: {item['error'] if isinstance(item['error'], str) else json.dumps(item['error'], default=str)}"
    to = o.a_name(f"{server}.{name}", f"{path}.name")
    call = Message("assistant", arguments, "commentary", to, o.JSON_TYPE, call_id=_id(item, path))
    return _run(overridden(call, item, path), output)


# --- the way back ---


def write(conversation: Conversation) -> dict[str, Any]:
    """A request of which `read` makes this conversation. Items of calls carry ids; other ids are the server's affair."""
    taken = o.take_apart(conversation)
    out: dict[str, Any] = {"input": list(_items(taken.body)), "reasoning": {"effort": taken.settings.effort}}
    tools, harmony = taken.tools(nested=False), taken.harmony()
    out |= {} if taken.instructions is None else {"instructions": taken.instructions}
    out |= {"tools": tools} if tools else {}
    for f in taken.formats:
        schema = {"type": "json_schema", **o.format_json(f)}
        out["text"] = {"format": {"type": "json_object"} if f == o.ANY_OBJECT else schema}
    return out | ({"harmony": harmony} if harmony else {})


def _items(body: Sequence[Message]) -> Iterator[dict[str, Any]]:
    calls: dict[str | None, Message] = {}
    n = 0
    while n < len(body):
        m = body[n]
        both = _built_in(m, body[n + 1] if n + 1 < len(body) else None)
        if both is not None:
            item, taken = both
            yield item
            n += taken
            continue
        if is_call(m):
            calls[m.call_id] = m
            yield _call_item(m)
        elif o.answers(m, calls.get(m.call_id)):
            calls.pop(m.call_id)
            yield {
                "type": "function_call_output",
                "call_id": m.call_id,
                "output": o.parts_json(m, "input_text"),
            }
        else:
            yield _message_item(m, first=n == 0)
        n += 1


def _message_item(m: Message, first: bool) -> dict[str, Any]:
    if o.said_on(m, "analysis"):
        parts = [{"type": "reasoning_text", "text": p} for p in m.parts]
        return {"type": "reasoning", "summary": [], "content": parts}
    for phase, channel in _PHASES.items():
        if o.said_on(m, channel):
            return {"type": "message", "role": "assistant", "content": _output(m), "phase": phase}
    if o.said_on(replace(m, channel="final"), "final"):
        return {"type": "message", "role": "assistant", "content": _output(m), "channel": m.channel}
    if m.role == "user" and o.plain(replace(m, name=None)):
        name = {} if m.name is None else {"name": m.name}
        return {"type": "message", "role": "user", "content": o.parts_json(m, "input_text"), **name}
    if is_instruction(m) and not first:
        return {"type": "message", "role": "developer", "content": m.content.instructions}  # type: ignore[union-attr]
    return {"type": "message", **wire.message_json(m)}


def _output(m: Message) -> list[dict[str, Any]]:
    return [{"type": "output_text", "text": p, "annotations": []} for p in m.parts]


def _call_item(m: Message) -> dict[str, Any]:
    call = call_json(m)
    odd = {"harmony": call["harmony"]} if "harmony" in call else {}
    return {"type": "function_call", "call_id": call["id"], **call["function"], **odd}


def _built_in(m: Message, following: Message | None) -> tuple[dict[str, Any], int] | None:
    """(the item of a built-in call, with its result if that follows; how many messages it holds), or None."""
    if m.role != "assistant" or m.recipient is None or m.name is not None or not isinstance(m.content, str):
        return None
    answered = following is not None and isinstance(following.content, str) and o.answers(following, m)
    output = following.text if answered and following is not None else None
    usual = {"channel": "analysis", "content_type": "code"}
    odd = {k: getattr(m, k) for k, v in usual.items() if getattr(m, k) != v}
    more: dict[str, Any] = {"harmony": odd} if odd else {}
    more |= {"id": m.call_id} if m.call_id else {}
    if m.recipient == "python":
        outputs = None if output is None else [{"type": "logs", "logs": output}]
        item = {"type": "code_interpreter_call", "code": m.content, "outputs": outputs, "status": "completed"}
        return {**item, **more}, 1 + answered
    action = _action(m)
    if action is None:
        return None
    ours = {"arguments": m.content} | ({} if output is None else {"output": output})
    return {"type": "web_search_call", "action": action, "status": "completed", **ours, **more}, 1 + answered


def _action(m: Message) -> dict[str, Any] | None:
    """What the API calls a call of the browser; None for a function it does not have."""
    for kind, (name, key, argument) in _ACTIONS.items():
        if m.recipient == f"browser.{name}":
            try:
                value = json.loads(m.text).get(argument)
            except (ValueError, AttributeError, RecursionError):
                value = None
            return {"type": kind, key: value if isinstance(value, str) else ""}
    return None

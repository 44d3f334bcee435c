"""JSON from outside, read so that nothing but a UsageError can come of it; the error names the field by its path.

What chat.py, responses.py and wire.py share: texts and their parts, tools, response formats, calls matched with their
results. Knows no format as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motet.errors import UsageError
from motet.harmony.builtin import BUILTIN
from motet.harmony.messages import (
    CUTOFF,
    EFFORTS,
    IDENTITY,
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
)
from motet.harmony.normal import normalise
from motet.harmony.schema import Function, Namespace, ResponseFormat

JSON_TYPE = "<|constrain|>json"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
# What the Responses API calls the tools that models know by heart.
BUILTIN_TYPES = {
    **dict.fromkeys(("browser", "browser_search", "web_search", "web_search_preview"), "browser"),
    **dict.fromkeys(("python", "code_interpreter"), "python"),
}


def shown(value: Any) -> str:
    """A value inside a sentence: short, on one line, nothing but ASCII."""
    if isinstance(value, str):
        return ascii(value[:60])
    return value_kind(value) if isinstance(value, Mapping | list | tuple) else ascii(str(value)[:60])


def value_kind(value: Any) -> str:
    """What JSON calls the kind of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list"


def wrong(path: str, wanted: str, value: Any) -> UsageError:
    """The error for a value of the wrong kind."""
    return UsageError(f"{path} must be {wanted}, not {value_kind(value)}.")


def an_object(value: Any, path: str, wanted: str = "an object") -> Mapping[str, Any]:
    """`value`, which must be an object."""
    if not isinstance(value, Mapping):
        raise wrong(path, wanted, value)
    return value


def a_message(value: Any, path: str) -> Mapping[str, Any]:
    """`value`, which must be a message or an item."""
    return an_object(value, path, 'an object such as {"role": "user", "content": "hello"}')


def a_list(value: Any, path: str) -> Sequence[Any]:
    """`value`, which must be a list; None is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise wrong(path, "a list", value)
    return value


def a_text(value: Any, path: str) -> str:
    """`value`, which must be a text."""
    if not isinstance(value, str):
        raise wrong(path, "a text", value)
    return value


def maybe_text(value: Any, path: str) -> str | None:
    """`value`, which must be a text or null."""
    return None if value is None else a_text(value, path)


def a_flag(value: Any, path: str) -> bool:
    """`value`, which must be true or false; null is false."""
    if value is not None and not isinstance(value, bool):
        raise wrong(path, "true or false", value)
    return bool(value)


def a_name(value: Any, path: str) -> str:
    """`value`, which must be a name that may stand in a header."""
    if not NAME.fullmatch(a_text(value, path)):
        raise UsageError(f"{path} {shown(value)} is not legal; use letters, digits, '_', '-' and '.'.")
    return str(value)


def one_of(value: Any, path: str, legal: Sequence[str]) -> str:
    """`value`, which must be one of a few words."""
    if not isinstance(value, str) or value not in legal:
        raise UsageError(f"{path} is {shown(value)}; use {', '.join(legal[:-1])} or {legal[-1]}.")
    return value


def texts(value: Any, path: str, kinds: Sequence[str] = TEXT_PARTS) -> str | tuple[str, ...]:
    """A content: a text, or its parts in order where a list holds more than one."""
    if isinstance(value, str):
        return value
    if value is None:
        raise UsageError(f"{path} is missing, so the message has no content; give it a text.")
    if not isinstance(value, list | tuple):
        raise wrong(path, "a text or a list of text parts", value)
    if not value:
        raise UsageError(f"{path} is an empty list; give it a text.")
    found = tuple(text_part(part, f"{path}[{n}]", kinds) for n, part in enumerate(value))
    return found if len(found) > 1 else found[0]


def text_part(part: Any, path: str, kinds: Sequence[str] = TEXT_PARTS) -> str:
    """The text of one part of a content."""
    kind = an_object(part, path).get("type")
    if kind not in kinds:
        raise UsageError(
            f"{path} is of type {shown(kind)}; the model reads text only, so send parts of type {kinds[0]!r}."
        )
    key = "refusal" if kind == "refusal" else "text"
    return a_text(part.get(key), f"{path}.{key}")


def joined(value: str | tuple[str, ...]) -> str:
    """A content as one text."""
    return value if isinstance(value, str) else "".join(value)


def parts_json(m: Message, kind: str) -> Any:
    """The content of a message of texts: a text, or a list of parts."""
    if isinstance(m.content, str):
        return m.content
    return [{"type": kind, "text": p} for p in m.parts]


def plain(m: Message) -> bool:
    """Whether a message is nothing but texts, at least one, with no header field beyond its role and call."""
    return _only_texts(m) and (m.channel, m.recipient, m.content_type, m.name) == (None,) * 4


def _only_texts(m: Message) -> bool:
    return bool(m.parts) and all(isinstance(p, str) for p in m.parts)


def said_on(m: Message, channel: str) -> bool:
    """Whether the assistant says texts on a channel, to nobody in particular."""
    return m.role == "assistant" and m.channel == channel and plain(replace(m, channel=None))


def function_of(tool: Any, path: str) -> tuple[Function, tuple[str, ...]]:
    """(a function tool as Chat Completions (nested) or Responses (flat) write it, the words the model will not see)."""
    if an_object(tool, path).get("type", "function") != "function":
        kinds = "'function', 'web_search' or 'code_interpreter'"
        raise UsageError(
            f"{path} is of type {shown(tool.get('type'))}, which is not known here; use type {kinds}."
        )
    inner, where = tool, path
    if "function" in tool:
        inner, where = an_object(tool["function"], f"{path}.function"), f"{path}.function"
    name = a_name(inner.get("name"), f"{where}.name")
    description = maybe_text(inner.get("description"), f"{where}.description") or ""
    strict = a_flag(inner.get("strict"), f"{where}.strict")
    parameters = inner.get("parameters")
    if parameters is None:
        return Function(name, description, None, strict), ()
    if not isinstance(parameters, Mapping):
        raise wrong(f"{where}.parameters", "a JSON Schema object", parameters)
    try:
        seen, lost = normalise(parameters)
        given = None if seen == parameters else parameters
    except RecursionError:
        raise UsageError(f"{where}.parameters is nested too deeply; flatten it.") from None
    return Function(name, description, seen, strict, given), lost


def function_json(f: Function) -> dict[str, Any]:
    """The inner object of a function tool, as it was given."""
    out: dict[str, Any] = {"name": f.name}
    out |= {"description": f.description} if f.description else {}
    out |= {} if f.parameters is None else {"parameters": f.enforced}
    return out | ({"strict": True} if f.strict else {})


def survives(f: Function) -> bool:
    """Whether a function comes back as it is when its JSON is read again."""
    again, _ = function_of(function_json(f), "tools[0]")
    return again == f and list_keys(again.parameters) == list_keys(f.parameters)


def list_keys(value: Any) -> Any:
    """The order of the keys of a schema, which dict equality does not see and the model does."""
    if isinstance(value, Mapping):
        return [(k, list_keys(v)) for k, v in value.items()]
    return [list_keys(v) for v in value] if isinstance(value, list | tuple) else None


def format_of(value: Any, path: str) -> ResponseFormat:
    """A JSON Schema format: {"name", "schema", "description", "strict"}."""
    inner = an_object(value, path)
    schema = inner.get("schema")
    if not isinstance(schema, Mapping):
        raise wrong(f"{path}.schema", "a JSON Schema object", schema)
    return ResponseFormat(
        a_name(inner.get("name"), f"{path}.name"),
        schema,
        maybe_text(inner.get("description"), f"{path}.description") or "",
        a_flag(inner.get("strict"), f"{path}.strict"),
    )


ANY_OBJECT = ResponseFormat("json_object", {"type": "object"})


def format_json(f: ResponseFormat) -> dict[str, Any]:
    """The inner object of a JSON Schema format."""
    out: dict[str, Any] = {"name": f.name, "schema": f.schema}
    out |= {"description": f.description} if f.description else {}
    return out | ({"strict": True} if f.strict else {})


class Calls:
    """Calls waiting for their results. Calls without an id get `call_0`, `call_1`, ...: the same input, the same ids."""

    def __init__(self, given: Iterable[Any]) -> None:
        """`given`: every id that stands somewhere in the input, so that none is given twice."""
        self._taken = {g for g in given if isinstance(g, str)}
        self._n = 0
        self._open: dict[str, Message] = {}
        self._done: set[str] = set()

    def fresh(self) -> str:
        """The next id that is not taken."""
        while (name := f"call_{self._n}") in self._taken:
            self._n += 1
        self._taken.add(name)
        return name

    def made(self, call: Message, path: str) -> Message:
        """Notes a call; returns it with an id."""
        call = call if call.call_id is not None else replace(call, call_id=self.fresh())
        key = str(call.call_id)
        if key in self._open:
            raise UsageError(
                f"{path} {shown(key)} is the id of another call that waits for its result; ids must differ."
            )
        self._open[key] = call
        self._done.discard(key)
        return call

    def answered(self, call_id: str | None, path: str, name: str | None = None) -> Message:
        """The call a result belongs to, by id, else the oldest open one of that name, else the only open one."""
        if call_id is None:
            named = [k for k, c in self._open.items() if name is None or name in (c.recipient, _short(c))]
            if not named or (name is None and len(named) > 1):
                raise UsageError(
                    f"{path} is missing and it is not clear which call is answered; give the id of the call."
                )
            call_id = named[0]
        if call_id in self._done:
            raise UsageError(f"{path} {shown(call_id)} is answered twice; one call has one result.")
        if call_id not in self._open:
            raise UsageError(
                f"{path} {shown(call_id)} names no call made before it; use the id of the assistant's call."
            )
        self._done.add(call_id)
        return self._open.pop(call_id)


def _short(call: Message) -> str:
    return (call.recipient or "").removeprefix("functions.")


def in_call_order(messages: Sequence[Message]) -> list[Message]:
    """Results that stand together and bear the same name, in the order of their calls: the model knows them by name only."""
    order = {
        m.call_id: n for n, m in enumerate(messages) if m.role == "assistant" and m.recipient and m.call_id
    }
    out = list(messages)
    begin = 0
    while begin < len(out):
        end = begin
        while end < len(out) and out[end].role == "tool" and out[end].call_id in order:
            end += 1
        for name in {m.name for m in out[begin:end]}:
            at = [n for n in range(begin, end) if out[n].name == name]
            for n, m in zip(
                at, sorted((out[n] for n in at), key=lambda m: order[m.call_id or ""]), strict=True
            ):
                out[n] = m
        begin = max(end, begin + 1)
    return out


def result(call: Message, content: str | tuple[str, ...]) -> Message:
    """A tool's answer: it speaks under the name and on the channel of its call."""
    return Message("tool", content, call.channel, "assistant", None, call.recipient, call.call_id)


def answers(m: Message, call: Message | None) -> bool:
    """Whether `m` is what `result` makes of a call; both are numbered."""
    if call is None or m.call_id != call.call_id or not _only_texts(m):
        return False
    return m == replace(
        m, role="tool", channel=call.channel, recipient="assistant", content_type=None, name=call.recipient
    )


def _calls(m: Message) -> bool:
    return m.role == "assistant" and m.recipient not in (None, "all")


def numbered(messages: Sequence[Message]) -> list[Message]:
    """Every call with an id, every result with that of its call where one is to be found."""
    calls = Calls(m.call_id for m in messages)
    waiting: list[tuple[Message, bool]] = []  # a call, and whether it came with its id
    out: list[Message] = []
    for n, m in enumerate(messages):
        if _calls(m):
            if n and not _calls(messages[n - 1]):  # without ids, results belong to the calls just before them
                waiting = [w for w in waiting if w[1]]
            known = m.call_id is not None and all(m.call_id != c.call_id for c, _ in waiting)
            m = m if known else replace(m, call_id=calls.fresh())
            waiting.append((m, known))
        elif m.role == "tool":
            fits = [w for w in waiting if (m.name, m.channel) == (w[0].recipient, w[0].channel)]
            mine = [
                w for w in fits if (w[1] and w[0].call_id == m.call_id) or (not w[1] and m.call_id is None)
            ]
            if mine:
                m = replace(m, call_id=mine[0][0].call_id)
                waiting.remove(mine[0])
        out.append(m)
    return out


@dataclass(frozen=True)
class Settings:
    """What stands around the messages of a request. `system` false: no system message of Harmony's own is put first."""

    effort: Any = "medium"
    date: Any = None
    identity: Any = IDENTITY
    cutoff: Any = CUTOFF
    builtin: Any = ()
    system: Any = True

    def opening(self) -> Message:
        """Harmony's own system message."""
        one_of(self.effort, "effort", EFFORTS)
        if self.date is not None:
            _check_date(self.date)
        identity, cutoff = maybe_text(self.identity, "identity"), maybe_text(self.cutoff, "cutoff")
        names = [one_of(b, "builtin", tuple(BUILTIN)) for b in a_list(self.builtin, "builtin")]
        spaces = tuple(BUILTIN[b] for b in dict.fromkeys(names))
        return Message("system", SystemContent(identity, cutoff, self.date, self.effort, spaces))

    def updated(self, request: Mapping[str, Any]) -> Settings:
        """With what a request says under "harmony", the key for what the API has no word for."""
        more = an_object(request.get("harmony") or {}, "harmony")
        unknown = sorted(set(map(str, more)) - {"date", "identity", "cutoff", "system"})
        if unknown:
            raise UsageError(
                f"harmony has no setting {shown(unknown[0])}; use date, identity, cutoff or system."
            )
        return replace(self, **dict(more))


def _check_date(date: Any) -> None:
    from datetime import date as calendar

    try:
        exact = calendar.fromisoformat(date).isoformat() == date
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise UsageError(f"The date {shown(date)} must be written YYYY-MM-DD.")


def assemble(
    settings: Settings,
    instructions: Sequence[str],
    tools: Any,
    formats: Sequence[ResponseFormat],
    body: Sequence[Message],
) -> Conversation:
    """The system message, the developer message if there is something to say in it, and the rest."""
    functions: dict[str, Function] = {}
    builtin, lost = list(a_list(settings.builtin, "builtin")), []
    for n, tool in enumerate(a_list(tools, "tools")):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind in BUILTIN_TYPES:
            builtin.append(BUILTIN_TYPES[kind])
            continue
        f, words = function_of(tool, f"tools[{n}]")
        if f.name in functions:
            raise UsageError(
                f"tools[{n}] declares the function {shown(f.name)} for the second time; names must differ."
            )
        functions[f.name] = f
        lost += [f"{f.name}: {word}" for word in words]
    opened = replace(settings, builtin=builtin).opening()
    out = [opened] if a_flag(settings.system, "harmony.system") else []
    spaces = (Namespace("functions", None, tuple(functions.values())),) if functions else ()
    if instructions or spaces or formats:
        text = "\n\n".join(instructions) if instructions else None
        out.append(Message("developer", DeveloperContent(text, spaces, tuple(formats))))
    return Conversation((*out, *in_call_order(body)), tuple(lost))


@dataclass(frozen=True)
class Taken:
    """A conversation taken apart as `assemble` put it together; `body` is what its messages must say themselves."""

    settings: Settings
    instructions: str | None
    functions: tuple[Function, ...]
    formats: tuple[ResponseFormat, ...]
    body: list[Message]

    def tools(self, nested: bool) -> list[dict[str, Any]]:
        """The tools, functions as Chat Completions (nested) or Responses write them."""
        names: dict[str, dict[str, Any]] = {
            "browser": {"type": "web_search"},
            "python": {"type": "code_interpreter", "container": {"type": "auto"}},
        }
        own = [function_json(f) for f in self.functions]
        return [names[b] for b in self.settings.builtin] + [
            {"type": "function", "function": f} if nested else {"type": "function", **f} for f in own
        ]

    def harmony(self) -> dict[str, Any]:
        """The settings the API has no word for, where they are not the usual ones."""
        usual = Settings()
        names = ("date", "identity", "cutoff", "system")
        return {k: getattr(self.settings, k) for k in names if getattr(self.settings, k) != getattr(usual, k)}


def take_apart(conversation: Conversation) -> Taken:
    """The inverse of `assemble`: `assemble(settings, [instructions], tools, formats, body)` is the conversation."""
    body = numbered(conversation.messages)
    settings = Settings(system=False)
    first = body[0].content if body and body[0].role == "system" else None
    if isinstance(first, SystemContent):
        names = [n.name for n in first.namespaces]
        usual = set(names) <= set(BUILTIN) and first.effort in EFFORTS
        found = Settings(first.effort, first.date, first.identity, first.cutoff, names)
        if usual and _dated(first.date) and found.opening() == body[0]:
            settings, body = found, body[1:]
    lead = body[0].content if body and body[0].role == "developer" else None
    if isinstance(lead, DeveloperContent) and _said_by_request(lead) and plain(replace(body[0], content="")):
        functions = lead.namespaces[0].functions if lead.namespaces else ()
        return Taken(settings, lead.instructions, functions, lead.formats, body[1:])
    return Taken(settings, None, (), (), body)


def _dated(date: Any) -> bool:
    try:
        _check_date("2000-01-01" if date is None else date)
    except UsageError:
        return False
    return True


def _said_by_request(c: DeveloperContent) -> bool:
    if c.instructions is None and not c.namespaces and not c.formats:
        return False
    if len(c.formats) > 1 or len(c.namespaces) > 1:
        return False
    ours = all(n.name == "functions" and n.description is None and n.functions for n in c.namespaces)
    names = [f.name for n in c.namespaces for f in n.functions]
    return (
        ours and len(set(names)) == len(names) and all(survives(f) for n in c.namespaces for f in n.functions)
    )

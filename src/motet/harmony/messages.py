"""Messages and conversations as values, and how chat messages become them.

Knows who may say what where; knows no tokens. A Conversation is what render.py turns into ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from motet.errors import UsageError
from motet.harmony.builtin import BUILTIN
from motet.harmony.normal import normalise
from motet.harmony.schema import Function, Namespace

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CUTOFF = "2024-06"
EFFORTS = ("low", "medium", "high")
Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True)
class SystemContent:
    """The fixed part of a system message; absent parts (None, empty) print nothing."""

    identity: str | None = IDENTITY
    cutoff: str | None = CUTOFF
    date: str | None = None
    effort: str | None = "medium"
    namespaces: tuple[Namespace, ...] = ()
    channels: tuple[str, ...] = ("analysis", "commentary", "final")
    channel_required: bool = True


@dataclass(frozen=True)
class DeveloperContent:
    """Instructions (an empty text still prints its heading; None does not) and tools of the developer."""

    instructions: str | None = None
    namespaces: tuple[Namespace, ...] = ()


Part = str | SystemContent | DeveloperContent


@dataclass(frozen=True)
class Message:
    """One message. `name`: a tool's full name for role "tool", else an optional name of the author.

    `call_id` ties a call to its result; the model never sees it.
    """

    role: Role
    content: Part | tuple[Part, ...]
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None
    call_id: str | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as a tuple."""
        return self.content if isinstance(self.content, tuple) else (self.content,)

    @property
    def text(self) -> str:
        """The plain text parts, joined."""
        return "".join(p for p in self.parts if isinstance(p, str))


@dataclass(frozen=True)
class Conversation:
    """Messages in order. `lost` says which words of tool schemas the model cannot be shown, as `tool: keyword`."""

    messages: tuple[Message, ...] = ()
    lost: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, *messages: Message) -> Conversation:
        """A conversation of these messages, nothing added."""
        return cls(tuple(messages))

    @classmethod
    def from_chat(
        cls,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        effort: str = "medium",
        *,
        date: str | None = None,
        identity: str = IDENTITY,
        cutoff: str | None = CUTOFF,
        builtin: Sequence[str] = (),
    ) -> Conversation:
        """Chat Completions messages and function tools as Harmony.

        The system message is Harmony's own; system and developer messages become developer instructions: those before
        the first other message are merged in order, later ones stand where they stood. `builtin` declares `browser` and
        `python`. `date` is YYYY-MM-DD. UsageError for what cannot be said in Harmony.
        """
        if effort not in EFFORTS:
            raise UsageError(f"There is no effort {str(effort)[:40]!r}; use low, medium or high.")
        if date is not None:
            _check_date(date)
        system = SystemContent(identity, cutoff, date, effort, tuple(_builtin(b) for b in builtin))
        lead = 0
        while lead < len(messages) and _role(messages[lead]) in ("system", "developer"):
            lead += 1
        instructions = [text_of(m.get("content"), m) for m in messages[:lead]]
        given = [function_of(t) for t in tools or ()]
        seen = [(f, *(normalise(f.parameters) if f.parameters is not None else (None, ()))) for f in given]
        functions = tuple(replace(f, parameters=p) for f, p, _ in seen)
        lost = tuple(f"{f.name}: {word}" for f, _, words in seen for word in words)
        spaces = (Namespace("functions", None, functions),) if functions else ()
        out = [Message("system", system)]
        if instructions or spaces:
            text = "\n\n".join(instructions) if instructions else None
            out.append(Message("developer", DeveloperContent(text, spaces)))
        calls: dict[str, str] = {}
        for m in messages[lead:]:
            out += _chat_message(m, calls)
        return cls(tuple(out), lost)

    def append(self, *messages: Message) -> Conversation:
        """A new conversation with these messages at its end."""
        return replace(self, messages=(*self.messages, *messages))

    def namespaces(self) -> dict[str, Namespace]:
        """Every declared namespace by name; functions of one name in several messages are put together."""
        found: dict[str, Namespace] = {}
        for message in self.messages:
            for part in message.parts:
                for ns in () if isinstance(part, str) else part.namespaces:
                    old = found.get(ns.name)
                    found[ns.name] = replace(ns, functions=old.functions + ns.functions) if old else ns
        return found

    def recipients(self) -> frozenset[str]:
        """Every name a call may be addressed to."""
        spaces = self.namespaces().values()
        return frozenset(
            r for ns in spaces for r in ([f"{ns.name}.{f.name}" for f in ns.functions] or [ns.name])
        )


def resolve(recipient: str, declared: Iterable[str]) -> str | None:
    """The declared tool a call means, or None. Forgives a lost or a surplus `functions.`; a user's own name wins."""
    declared = frozenset(declared)
    for name in (recipient, f"functions.{recipient}", recipient.removeprefix("functions.")):
        if name in declared:
            return name
    return None


def function_of(tool: Any) -> Function:
    """A function tool as Chat Completions ({"type": "function", "function": {...}}) or Responses (flat) write it."""
    if not isinstance(tool, Mapping):
        raise UsageError('A tool must be an object such as {"type": "function", "function": {"name": ...}}.')
    if tool.get("type", "function") != "function":
        raise UsageError(f"Tools of type {str(tool['type'])[:40]!r} are not known; use type 'function'.")
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise UsageError("A function tool needs a name; give it a text of letters, digits, _ or -.")
    name, description, parameters = inner["name"], inner.get("description") or "", inner.get("parameters")
    if not isinstance(description, str):
        raise UsageError(f"The description of the tool {name[:64]!r} must be text.")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError(f"The parameters of the tool {name[:64]!r} must be a JSON Schema object.")
    return Function(name, description, parameters)


def text_of(content: Any, message: Mapping[str, Any]) -> str:
    """Text of a chat message's content: a string, or a list of text parts."""
    if isinstance(content, str):
        return content
    if content is None:
        raise UsageError(f"A {message.get('role')} message has no content; give it a text.")
    if not isinstance(content, list | tuple):
        raise UsageError(f"The content of a {message.get('role')} message must be text or a list of parts.")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        key = "refusal" if kind == "refusal" else "text"
        if kind not in ("text", "input_text", "output_text", "refusal") or not isinstance(part.get(key), str):
            raise UsageError(
                f"A content part of type {str(kind)[:40]!r} cannot be read; only text parts can."
            )
        texts.append(part[key])
    return "".join(texts)


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise UsageError(
            f"A message has the role {str(role)[:40]!r}; use system, developer, user, assistant or tool."
        )
    return str(role)


def _builtin(name: str) -> Namespace:
    if name not in BUILTIN:
        raise UsageError(f"There is no built-in tool {str(name)[:40]!r}; use browser or python.")
    return BUILTIN[name]


def _check_date(date: str) -> None:
    from datetime import date as calendar

    try:
        exact = calendar.fromisoformat(date).isoformat() == date
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise UsageError(f"The date {str(date)[:40]!r} must be written YYYY-MM-DD.")


def _chat_message(m: Mapping[str, Any], calls: dict[str, str]) -> list[Message]:
    role = _role(m)
    if role in ("system", "developer"):
        return [Message("developer", DeveloperContent(text_of(m.get("content"), m)))]
    if role == "user":
        return [Message("user", text_of(m.get("content"), m))]
    return [_tool_message(m, calls)] if role == "tool" else _assistant(m, calls)


def _assistant(m: Mapping[str, Any], calls: dict[str, str]) -> list[Message]:
    out: list[Message] = []
    thought = next((m[k] for k in ("reasoning", "reasoning_content", "thinking") if m.get(k)), None)
    if thought is not None:
        out.append(Message("assistant", text_of(thought, m), channel="analysis"))
    wanted = m.get("tool_calls") or ()
    if not isinstance(wanted, list | tuple):
        raise UsageError("The tool_calls of an assistant message must be a list of tool calls.")
    content = m.get("content")
    if content is None and m.get("refusal"):
        content = m["refusal"]
    if content is not None and not (wanted and content == ""):
        out.append(Message("assistant", text_of(content, m), channel="commentary" if wanted else "final"))
    for call in wanted:
        inner = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise UsageError('A tool call needs {"function": {"name": ..., "arguments": ...}}.')
        arguments = inner.get("arguments", "")
        if not isinstance(arguments, str):
            raise UsageError(f"The arguments of the call of {inner['name'][:64]!r} must be JSON as a text.")
        call_id = call.get("id")
        to = f"functions.{inner['name']}"
        if isinstance(call_id, str):
            calls[call_id] = to
        out.append(Message("assistant", arguments, "commentary", to, "<|constrain|>json", None, call_id))
    if not out:
        raise UsageError("An assistant message has neither content nor tool_calls; give it one of them.")
    return out


def _tool_message(m: Mapping[str, Any], calls: dict[str, str]) -> Message:
    call_id = m.get("tool_call_id")
    name = calls.get(call_id) if isinstance(call_id, str) else None
    if name is None and isinstance(m.get("name"), str):
        name = f"functions.{m['name']}"
    if name is None:
        raise UsageError(
            f"A tool message answers tool_call_id {str(call_id)[:64]!r}, which no assistant message before it made."
        )
    return Message("tool", text_of(m.get("content"), m), "commentary", "assistant", None, name, call_id)

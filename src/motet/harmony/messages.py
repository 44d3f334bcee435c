"""Messages and conversations as values. A Conversation is what render.py turns into ids.

Knows who may say what where; knows no tokens. The formats of the two OpenAI APIs are read and written by chat.py and
responses.py, the published library's JSON by wire.py; the names to call them by stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from motet.harmony.events import Delta, Event, MessageEnd, MessageStart, ToolResult
from motet.harmony.schema import Namespace, ResponseFormat

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
    """Instructions (an empty text still prints its heading; None does not), tools and response formats of the developer."""

    instructions: str | None = None
    namespaces: tuple[Namespace, ...] = ()
    formats: tuple[ResponseFormat, ...] = ()


Part = str | SystemContent | DeveloperContent


@dataclass(frozen=True)
class Message:
    """One message. `name`: a tool's full name for role "tool", else an optional name of the author.

    `call_id` ties a call to its result. The model never sees it, so messages that differ in it alone are equal. A
    content of several parts is a tuple; a tuple of one part is that part. `ids` are what the message was sampled as, framing
    included, and are then rendered instead of it: only what an engine has sampled may stand there.
    """

    role: Role
    content: Part | tuple[Part, ...]
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None
    call_id: str | None = field(default=None, compare=False)
    ids: tuple[int, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.content, tuple) and len(self.content) == 1:
            object.__setattr__(self, "content", self.content[0])

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
        messages: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        effort: str = "medium",
        *,
        date: str | None = None,
        identity: str | None = IDENTITY,
        cutoff: str | None = CUTOFF,
        builtin: Sequence[str] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Chat Completions messages and tools as Harmony; `messages` may also be a whole request (see `to_chat`).

        The system message is Harmony's own; system and developer messages become developer instructions: those before
        the first other message are merged in order, later ones stand where they stood. `builtin` declares `browser` and
        `python`. `date` is YYYY-MM-DD. UsageError, naming the field, for what cannot be said in Harmony.
        """
        from motet.harmony import chat
        from motet.harmony.outside import Settings

        settings = Settings(effort, date, identity, cutoff, builtin)
        return chat.read(messages, tools, response_format, settings)

    @classmethod
    def from_responses(
        cls,
        items: str | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        instructions: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        effort: str = "medium",
        *,
        date: str | None = None,
        identity: str | None = IDENTITY,
        cutoff: str | None = CUTOFF,
        builtin: Sequence[str] = (),
        text_format: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Input items of the Responses API (or a text, or a whole request, see `to_responses`) as Harmony.

        As `from_chat`; `instructions` stand before the system and developer items. Reasoning items stay where they
        stand. `text_format` is the request's `text.format`.
        """
        from motet.harmony import responses
        from motet.harmony.outside import Settings

        settings = Settings(effort, date, identity, cutoff, builtin)
        return responses.read(items, instructions, tools, text_format, settings)

    @classmethod
    def from_harmony(cls, value: Mapping[str, Any]) -> Conversation:
        """The published library's JSON (`to_harmony`): every message as it is, nothing added."""
        from motet.harmony import wire

        return wire.read(value)

    def to_chat(self) -> dict[str, Any]:
        """A Chat Completions request: `messages`, `tools`, `reasoning_effort`, `response_format`.

        `from_chat` of it is this conversation. What the API has no word for stands under the key "harmony" of the
        request or of a tool call, or in messages with `channel`, `recipient`, `content_type` as Harmony has them.
        """
        from motet.harmony import chat

        return chat.write(self)

    def to_responses(self) -> dict[str, Any]:
        """A Responses request: `input`, `instructions`, `tools`, `reasoning`, `text`. As `to_chat`."""
        from motet.harmony import responses

        return responses.write(self)

    def to_harmony(self) -> dict[str, Any]:
        """The published library's JSON."""
        from motet.harmony import wire

        return wire.write(self)

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


def said(events: Iterable[Event]) -> tuple[Message, ...]:
    """The messages a turn adds to its conversation: what the assistant said, to whom, and what tools answered.

    Quarantined ids are in none of them; `reply.events` has those. A call that was cut off is left out.
    """
    out: list[Message] = []
    start: MessageStart | None = None
    text: list[str] = []
    for event in events:
        if isinstance(event, MessageStart):
            start, text = event, []
        elif isinstance(event, Delta):
            text.append(event.text)
        elif isinstance(event, ToolResult):
            out.append(Message("tool", event.text, event.channel, "assistant", name=event.name))
        elif isinstance(event, MessageEnd) and start is not None:
            if not (start.is_call and event.stop in ("cut", "boundary")):
                role: Any = start.role
                header = (start.channel, start.recipient, start.content_type, start.name)
                out.append(Message(role, "".join(text), *header))
            start = None
    return tuple(out)

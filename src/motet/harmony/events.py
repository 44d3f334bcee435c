"""What a turn consists of, as values: a message begins, text, a message ends, a tool result, the turn ends.

A reply is produced once, as events; streaming passes them on, `fold` adds them up. Every event carries the token ids it
accounts for, so that the ids of all events, joined, are the sequence that was read. Knows no encoding and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Stop = Literal["end", "call", "return", "endoftext", "boundary", "cut"]
"""How a message ended: by its own token, by `<|endoftext|>`, by a control token that cannot stand in content
(`boundary`: the end token was skipped), or by the end of the stream (`cut`)."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MessageStart:
    """A header that was understood. `repairs` names what was odd about it (see docs/harmony.md), empty if nothing was."""

    role: str
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None
    repairs: tuple[str, ...] = ()
    ids: Ids = ()

    @property
    def is_call(self) -> bool:
        """An assistant's message to a tool."""
        return self.role == "assistant" and self.recipient not in (None, "all")


Logprob = tuple[float, tuple[tuple[int, float], ...]]
"""The logarithm of a token's probability, and those of the likeliest tokens (id, logarithm), best first."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text of the open message; whole characters only. `logprobs`: one an id where the turn asked for them."""

    text: str
    ids: Ids = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """The open message is complete."""

    stop: Stop
    ids: Ids = ()


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Ids that are no legal Harmony. Never shown to a user; `reason` is one of `REASONS`.

    Standing between a MessageStart and its MessageEnd, it is a token inside that message which is not text.
    """

    ids: Ids
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"


REASONS = {
    "no_markup": "the stream holds no control token but its end: a plain text, often a refusal",
    "no_message_token": "a header that ends without <|message|>",
    "cut_in_header": "the stream ended inside a header",
    "text_between_messages": "text after an end token, before the next <|start|>",
    "stray_stop": "an end token where no message is open",
    "no_role": "a header without a role",
    "unknown_role": "an author that is neither a role nor a tool with a recipient",
    "no_channel_name": "<|channel|> without a name",
    "unknown_channel": "a channel that does not exist",
    "two_channels": "two different channels in one header",
    "bad_recipient": "a recipient that is no name of a tool, or two different ones",
    "bad_content_type": "a content type that is no name",
    "header_junk": "words in a header that mean nothing there",
    "header_not_text": "bytes or control tokens in a header that cannot stand there",
    "message_token_in_content": "<|message|> inside content",
    "doubled_message": "a second <|message|> right after the first",
    "constrain_token_in_content": "<|constrain|> inside content",
    "not_text": "an id that stands for no text: reserved, or not in the vocabulary",
}


REPAIRS = {
    "no_message_token": "thinking without <|message|> before it",
    "doubled_start": "<|start|> twice",
    "missing_start": "a header without its <|start|>",
    "missing_role": "<|start|> right before <|channel|>, without a role",
    "doubled_role": "the role twice, with <|start|> forgotten or not",
    "doubled_channel": "the same channel twice",
    "doubled_recipient": "the same recipient twice",
    "empty_constrain": "<|constrain|> without a word",
    "call_on_analysis": "a function called on analysis",
    "call_on_final": "a call on final",
    "no_markup": "shown as the answer because the policy says so",
}


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that a tool made: a plot, a table. `name` has no folders."""

    name: str
    mime: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """What a tool says while it works. Nothing of it enters the prompt."""

    name: str
    text: str
    channel: str | None = None
    ids: Ids = ()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered; `ids` are the tokens that were put into the prompt for it.

    Text and artefacts come from outside and are `untrusted`: they may hold orders meant for the model, or markup. Control
    tokens spelled in them are ordinary text.
    """

    name: str
    text: str
    channel: str | None = None
    error: bool = False
    ids: Ids = ()
    artefacts: tuple[Artefact, ...] = ()
    untrusted: bool = True


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The turn is over. finish: stop, tool_calls (a call the caller must answer), length, cancelled or error.

    `closed`: a budget ended the thinking before the model did.
    """

    finish: str
    ids: Ids = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a policy shows in place of a message (see visible.py); no parser makes it."""

    text: str
    channel: str | None = None
    ids: Ids = ()


Event = MessageStart | Delta | MessageEnd | Quarantined | ToolProgress | ToolResult | Summary | TurnDone


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made. `complete` is false when the stream ended or was broken off inside its arguments."""

    recipient: str
    arguments: str
    channel: str | None
    content_type: str | None = None
    complete: bool = True

    @property
    def name(self) -> str:
        """The name on the wire: the recipient without `functions.`."""
        return self.recipient.removeprefix("functions.")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message as it was read."""

    start: MessageStart
    text: str
    stop: Stop | None


@dataclass(slots=True)
class Folded:
    """The sum of a turn's events. Several messages on one channel are joined by a newline."""

    final: str = ""
    analysis: str = ""
    commentary: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_results: list[ToolResult] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    messages: list[Spoken] = field(default_factory=list)
    finish: str | None = None
    closed: bool = False


_FINISH = {
    "return": "stop",
    "endoftext": "stop",
    "end": "stop",
    "call": "tool_calls",
    "boundary": "stop",
    "cut": "length",
}


def fold(events: Iterable[Event]) -> Folded:
    """Adds up events, in any number, from any stream: total, raises nothing.

    Only the assistant's own words are sorted into `final`, `analysis` and `commentary`; a message without a channel, or
    one that claims another author, stands in `messages` alone.
    """
    out = Folded()
    start: MessageStart | None = None
    text: list[str] = []
    for event in events:
        if isinstance(event, Delta):
            text.append(event.text)
        elif isinstance(event, MessageStart):
            if start is not None:
                out.messages.append(Spoken(start, "".join(text), None))
            start, text = event, []
        elif isinstance(event, MessageEnd):
            if start is not None:
                out.messages.append(Spoken(start, "".join(text), event.stop))
            start, text = None, []
        elif isinstance(event, Quarantined):
            out.quarantined.append(event)
        elif isinstance(event, ToolResult):
            out.tool_results.append(event)
        elif isinstance(event, Summary):
            out.summaries.append(event)
        elif isinstance(event, TurnDone):
            out.finish, out.closed = event.finish, event.closed
    if start is not None:
        out.messages.append(Spoken(start, "".join(text), None))
    _sort(out)
    return out


def _sort(out: Folded) -> None:
    own = [m for m in out.messages if m.start.role == "assistant"]
    for message in own:
        if message.start.is_call:
            start = message.start
            whole = message.stop in ("call", "end", "return", "endoftext")
            call = ToolCall(start.recipient or "", message.text, start.channel, start.content_type, whole)
            out.tool_calls.append(call)
    out.final, out.analysis, out.commentary = (
        _join(m.text for m in own if m.start.channel == c and m.start.recipient is None)
        for c in ("final", "analysis", "commentary")
    )
    if out.finish is None and own and own[-1].stop:
        out.finish = (
            "tool_calls" if own[-1].start.is_call and own[-1].stop != "cut" else _FINISH[own[-1].stop]
        )


def _join(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def tagged(event: Event, channel: str) -> tuple[str, str]:
    """(channel, tag) of an event after which `channel` ("none" at first) was the open one.

    The tag says what the event's ids are: text of a channel or of a "call", a tool's "result", or the format's "markup".
    """
    if isinstance(event, MessageStart):
        channel = "call" if event.is_call else event.channel or "none"
    return channel, "result" if isinstance(event, ToolResult) else channel if isinstance(
        event, Delta
    ) else "markup"


def ids_of(events: Sequence[Event]) -> list[int]:
    """The ids all events account for, in order: what was read, token for token."""
    return [i for event in events for i in event.ids]

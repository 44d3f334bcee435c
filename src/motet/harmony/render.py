"""Messages to token ids, equal to openai/harmony; the only way a control token enters a prompt.

Control tokens are written here by id and nowhere else. Contents are encoded as ordinary text; roles, names, recipients,
channels and content types come from closed sets or strict patterns, and a conversation is checked whole before its
first token exists. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from motet.errors import UsageError
from motet.harmony.messages import EFFORTS, Conversation, DeveloperContent, Message, Part, SystemContent
from motet.harmony.parse import CHANNELS, CONSTRAIN, ROLES
from motet.harmony.schema import Namespace, formats_section, tools_section

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

History = Literal["spec", "parity", "keep"]
Dialect = Literal["oss-harmony", "openai-harmony"]
"""Whose header is written where two are legal. oss-harmony 0.0.11 puts the recipient behind the channel on commentary, as
models write it, and marks every content type with <|constrain|>; openai-harmony 0.0.8 keeps the recipient in the role
part and writes an unmarked content type as a word."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"[A-Za-z0-9_./+-]{1,64}")


class RenderError(UsageError):
    """A message that has no legal form in Harmony."""


def render(
    conversation: Conversation,
    encoding: Encoding,
    *,
    history: History = "spec",
    next_role: str | None = "assistant",
    dialect: Dialect = "oss-harmony",
) -> list[int]:
    """The ids a model continues. `next_role` None: the messages alone.

    history: "spec" drops all analysis before the last final answer; "parity" does as the published library does (only
    before the first, and only when the last assistant message is final); "keep" drops nothing.
    """
    if history not in ("spec", "parity", "keep"):
        raise UsageError(f"There is no history rule {str(history)[:40]!r}; use spec, parity or keep.")
    if dialect not in ("oss-harmony", "openai-harmony"):
        raise UsageError(f"There is no dialect {str(dialect)[:40]!r}; use oss-harmony or openai-harmony.")
    if next_role is not None and next_role not in ROLES:
        raise RenderError(f"The next role cannot be {str(next_role)[:40]!r}; use one of {', '.join(ROLES)}.")
    messages = conversation.messages
    for m in messages:
        check(m)
    functions = has_functions(conversation)
    ids: list[int] = []
    try:
        for m in kept(messages, history):
            ids += _message(m, encoding, functions, dialect)
    except RecursionError:
        raise RenderError("The schema of a tool is nested too deeply; flatten it.") from None
    return ids if next_role is None else [*ids, encoding.special("<|start|>"), *encoding.encode(next_role)]


def render_training(
    conversation: Conversation, encoding: Encoding, *, history: History = "keep"
) -> list[int]:
    """The ids of a finished example: a last final answer ends with `<|return|>`."""
    ids = render(conversation, encoding, history=history, next_role=None)
    last = conversation.messages[-1] if conversation.messages else None
    if last is not None and last.role == "assistant" and last.channel == "final":
        ids[-1] = encoding.special("<|return|>")
    return ids


def render_message(
    message: Message, encoding: Encoding, *, functions: bool = False, dialect: Dialect = "oss-harmony"
) -> list[int]:
    """The ids of one message. `functions`: the conversation declares functions (a system message says so)."""
    check(message)
    return _message(message, encoding, functions, dialect)


def has_functions(conversation: Conversation) -> bool:
    """Whether any developer message declares functions."""
    return any(
        ns.name == "functions" and ns.functions
        for m in conversation.messages
        for p in m.parts
        if isinstance(p, DeveloperContent)
        for ns in p.namespaces
    )


def kept(messages: Sequence[Message], history: History) -> list[Message]:
    """The messages that stay in the prompt."""
    if history == "keep":
        return list(messages)
    finals = [n for n, m in enumerate(messages) if m.channel == "final"]
    if history == "spec":
        cut = finals[-1] if finals else 0
    else:
        last = next((m for m in reversed(messages) if m.role == "assistant"), None)
        cut = finals[0] if finals and last is not None and last.channel == "final" else 0
    return [m for n, m in enumerate(messages) if n >= cut or m.channel != "analysis"]


def check(message: Message) -> None:
    """Raises RenderError if any part of the header is not one of the legal names."""
    m = message
    if m.role not in (*ROLES, "tool"):
        raise RenderError(f"There is no role {_shown(m.role)}; use one of {', '.join(ROLES)} or tool.")
    if m.role == "tool" and m.name is None:
        raise RenderError("A tool message has no name; give the name of the tool that answered.")
    if m.name is not None:
        _legal(m.name, _NAME, "name")
    if m.role == "tool" and m.name in ROLES:
        raise RenderError(f"A tool cannot be called {_shown(m.name)}, which is a role; rename it.")
    if m.recipient is not None:
        _legal(m.recipient, _NAME, "recipient")
    if m.channel is not None and m.channel not in CHANNELS:
        raise RenderError(f"There is no channel {_shown(m.channel)}; use {', '.join(CHANNELS)} or none.")
    if m.content_type is not None:
        _legal(_text(m.content_type, "content type").removeprefix(CONSTRAIN), _TYPE, "content type")
    for part in m.parts:
        _check_part(m, part)


def _check_part(m: Message, part: Part) -> None:
    if isinstance(part, str):
        return
    if isinstance(part, SystemContent):
        if m.role != "system":
            raise RenderError(f"System content stands in a {m.role} message; put it into a system message.")
        if part.effort is not None and part.effort not in EFFORTS:
            raise RenderError(f"There is no effort {_shown(part.effort)}; use low, medium or high.")
        for channel in part.channels:
            _legal(channel, _NAME, "channel")
    elif isinstance(part, DeveloperContent):
        if m.role != "developer":
            raise RenderError(
                f"Developer content stands in a {m.role} message; put it into a developer message."
            )
        for f in part.formats:
            _legal(f.name, _NAME, "name of a response format")
    else:
        raise RenderError(f"A {m.role} message holds a {type(part).__name__}; contents are text.")
    for ns in part.namespaces:
        _check_namespace(ns)


def _check_namespace(ns: Namespace) -> None:
    _legal(ns.name, _NAME, "name of a tool namespace")
    for f in ns.functions:
        _legal(f.name, _NAME, "name of a function")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise RenderError(f"The {what} must be text, not {type(value).__name__}.")
    return value


def _legal(value: object, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(_text(value, what)):
        raise RenderError(f"The {what} {_shown(value)} is not legal; use letters, digits, '_', '-' and '.'.")


def _shown(value: object) -> str:
    return ascii(value)[:60]


def _message(m: Message, encoding: Encoding, functions: bool, dialect: Dialect) -> list[int]:
    """Each piece of text is encoded alone, as the published library does: ids depend on where the pieces end."""
    if m.ids is not None:
        return list(m.ids)
    text, special = encoding.encode, encoding.special
    ours = dialect == "oss-harmony"
    ids = [special("<|start|>"), *text((m.name or "") if m.role == "tool" else m.role)]
    if m.role != "tool" and m.name is not None:
        ids += text(f":{m.name}")
    recipient = text(f" to={m.recipient}") if m.recipient not in (None, "all") else []
    late = ours and m.channel == "commentary"
    if not late:
        ids += recipient
    if m.channel is not None:
        ids += [special("<|channel|>"), *text(m.channel)]
    if late:
        ids += recipient
    if m.content_type is not None:
        if ours or m.content_type.startswith(CONSTRAIN):
            ids += [*text(" "), special(CONSTRAIN), *text(m.content_type.removeprefix(CONSTRAIN))]
        else:
            ids += text(f" {m.content_type}")
    ids.append(special("<|message|>"))
    for part in m.parts:
        ids += text(part_text(part, functions))
    call = m.role == "assistant" and m.recipient is not None
    return [*ids, special("<|call|>" if call else "<|end|>")]


def part_text(part: Part, functions: bool) -> str:
    """The text of a content; `functions` adds where calls to them must go."""
    if isinstance(part, str):
        return part
    return _system(part, functions) if isinstance(part, SystemContent) else _developer(part)


def _system(c: SystemContent, functions: bool) -> str:
    top = [] if c.identity is None else [c.identity]
    top += [] if c.cutoff is None else [f"Knowledge cutoff: {c.cutoff}"]
    top += [] if c.date is None else [f"Current date: {c.date}"]
    sections = ["\n".join(top)] if top else []
    if c.effort is not None:
        sections.append(f"Reasoning: {c.effort}")
    if c.namespaces:
        sections.append(tools_section(c.namespaces))
    if c.channels:
        line = f"# Valid channels: {', '.join(c.channels)}."
        line += " Channel must be included for every message." if c.channel_required else ""
        line += "\nCalls to these tools must go to the commentary channel: 'functions'." if functions else ""
        sections.append(line)
    return "\n\n".join(sections)


def _developer(c: DeveloperContent) -> str:
    sections = [] if c.instructions is None else ["# Instructions", c.instructions]
    if c.namespaces:
        sections.append(tools_section(c.namespaces))
    if c.formats:
        sections.append(formats_section(c.formats))
    return "\n\n".join(sections)

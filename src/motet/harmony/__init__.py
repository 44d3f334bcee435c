"""Harmony, the chat format of gpt-oss: conversations to token ids, sampled ids to events. See docs/harmony.md."""

from motet.harmony.builtin import BROWSER, BUILTIN, PYTHON
from motet.harmony.events import (
    REASONS,
    Delta,
    Event,
    Folded,
    MessageEnd,
    MessageStart,
    Quarantined,
    Spoken,
    ToolCall,
    ToolResult,
    TurnDone,
    fold,
    ids_of,
)
from motet.harmony.messages import Conversation, DeveloperContent, Message, SystemContent, resolve
from motet.harmony.parse import StreamParser, parse
from motet.harmony.render import RenderError, render, render_message, render_training
from motet.harmony.schema import Function, Namespace, tools_section, typescript

__all__ = [
    "BROWSER",
    "BUILTIN",
    "Conversation",
    "Delta",
    "DeveloperContent",
    "Event",
    "Folded",
    "Function",
    "Message",
    "MessageEnd",
    "MessageStart",
    "Namespace",
    "PYTHON",
    "Quarantined",
    "REASONS",
    "RenderError",
    "Spoken",
    "StreamParser",
    "SystemContent",
    "ToolCall",
    "ToolResult",
    "TurnDone",
    "fold",
    "ids_of",
    "parse",
    "render",
    "render_message",
    "render_training",
    "resolve",
    "tools_section",
    "typescript",
]

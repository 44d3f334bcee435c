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
    Summary,
    ToolCall,
    ToolResult,
    TurnDone,
    fold,
    ids_of,
)
from motet.harmony.messages import Conversation, DeveloperContent, Message, SystemContent, resolve, said
from motet.harmony.parse import StreamParser, parse
from motet.harmony.render import RenderError, render, render_message, render_training
from motet.harmony.schema import Function, Namespace, ResponseFormat, tools_section, typescript
from motet.harmony.visible import ALL, USUAL, Policy, Visible, visible

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
    "ResponseFormat",
    "Spoken",
    "StreamParser",
    "Summary",
    "SystemContent",
    "ToolCall",
    "ToolResult",
    "TurnDone",
    "USUAL",
    "ALL",
    "Policy",
    "Visible",
    "fold",
    "ids_of",
    "parse",
    "render",
    "render_message",
    "render_training",
    "resolve",
    "said",
    "tools_section",
    "typescript",
    "visible",
]

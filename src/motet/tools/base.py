"""The protocol every tool follows: a namespace the model reads, and calls answered with text.

A call may say how it is getting on (`progress`) and ask whether anyone still waits (`cancelled`); both find the running
call by themselves, so that a tool's signature stays two texts. Knows nothing of turns and tokens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from motet.harmony import Artefact, Namespace

__all__ = [
    "Answer",
    "Artefact",
    "Run",
    "Tool",
    "ToolError",
    "cancelled",
    "current",
    "progress",
    "seconds_left",
    "stopped",
    "text",
]


class ToolError(Exception):
    """A call that failed in a way the model should read; its text becomes the result."""


@dataclass(frozen=True)
class Answer:
    """What a tool says to the model, and what it made for the user."""

    text: str
    artefacts: tuple[Artefact, ...] = ()
    error: bool = False


@runtime_checkable
class Tool(Protocol):
    """Something a model can call. May also have `timeout_s`, `cancel()` (ends a running call, from another thread) and
    `close()` (frees what a conversation held)."""

    @property
    def namespace(self) -> Namespace:
        """What the model is told. `functions` is declared in the developer message, anything else in the system message."""
        ...

    def call(self, recipient: str, content: str) -> str | Answer:
        """Answers a call addressed to `recipient` (such as `functions.f`); ToolError for what the model did wrong."""
        ...


@dataclass
class Run:
    """A call under way. `deadline` is on time.monotonic()'s clock."""

    on_progress: Callable[[str], None] = lambda text: None
    deadline: float = float("inf")
    stop: threading.Event = field(default_factory=threading.Event)
    late: bool = False  # whether it was stopped because its time is over


_RUN: ContextVar[Run | None] = ContextVar("motet_tool_run", default=None)


def current() -> Run:
    """The call this thread works on; one that nobody watches when a tool is called by hand."""
    return _RUN.get() or Run()


def progress(text: str) -> None:
    """Says something about the running call to whoever watches; the model does not see it."""
    current().on_progress(text)


def cancelled() -> bool:
    """Whether the running call's answer is no longer wanted. Long-running tools ask now and then."""
    return current().stop.is_set()


def stopped() -> ToolError:
    """What a tool raises that gave up because `cancelled()` said so."""
    return ToolError("The call timed out." if current().late else "Cancelled.")


def text(said: str) -> str:
    """Text that can be encoded: halves of surrogate pairs, which only broken sources make, become question marks."""
    return said if said.isascii() else said.encode("utf-8", "replace").decode()


def seconds_left() -> float:
    """Until the running call's deadline; infinite without one."""
    return max(0.0, current().deadline - time.monotonic())

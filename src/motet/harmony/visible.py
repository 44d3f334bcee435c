"""What of a turn may be seen: the one place where channels are hidden, shown or summarised.

Every outlet (terminal, --json, stream, log) reads events that have passed through here, never those of the parser. Of
what is hidden nothing remains, not even that it was there: the visible events are the same whatever the hidden ones
said. Knows events, no outlet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, fields
from typing import Literal

from motet.errors import UsageError
from motet.harmony.events import (
    Delta,
    Event,
    MessageEnd,
    MessageStart,
    Quarantined,
    Summary,
    ToolProgress,
    ToolResult,
    TurnDone,
)

Rule = Literal["hide", "show"] | Callable[[str], str]
"""hide, show, or a function that makes a summary of a finished message; it is shown in the message's place."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """A rule a channel. The usual one: only the answer and remarks to the user are seen.

    final, commentary: what the assistant says to the user. analysis: thinking, and calls of `browser` and `python`.
    calls: calls of other tools. results: what tools say while they work, and answer. other: messages without a channel or in another's name,
    and quarantine. no_markup: a reply without a single control token, often a refusal; "show" makes it the answer.
    """

    final: Rule = "show"
    commentary: Rule = "show"
    analysis: Rule = "hide"
    calls: Rule = "hide"
    results: Literal["hide", "show"] = "hide"
    other: Literal["hide", "show"] = "hide"
    no_markup: Literal["hide", "show"] = "hide"

    def __post_init__(self) -> None:
        for f in fields(self):
            rule, hooks = getattr(self, f.name), f.name in ("final", "commentary", "analysis", "calls")
            if rule not in ("hide", "show") and not (hooks and callable(rule)):
                words = "hide, show or a function" if hooks else "hide or show"
                raise UsageError(f"The rule for {f.name} is {str(rule)[:40]!r}; use {words}.")

    def rule(self, start: MessageStart) -> Rule:
        """The rule for a message. Exact names only: what is not known is `other`."""
        if start.role != "assistant":
            return self.other
        if start.is_call:
            built_in = (start.recipient or "").partition(".")[0] in ("browser", "python")
            return self.analysis if built_in else self.calls
        if start.recipient is not None:
            return self.other
        known = {"final": self.final, "commentary": self.commentary, "analysis": self.analysis}
        return known.get(start.channel or "", self.other)


USUAL = Policy()
ALL = Policy(analysis="show", calls="show", results="show", other="show")


class Visible:
    """Passes on the events that may be seen, one at a time, as soon as it can."""

    def __init__(self, policy: Policy = USUAL) -> None:
        self.policy = policy
        self.withheld = 0  # ids of events that were not passed on: a count may be shown
        self._rule: Rule = "hide"
        self._start: MessageStart | None = None
        self._text: list[str] = []

    def feed(self, event: Event) -> list[Event]:
        """The events an outlet may see now."""
        out = self._feed(event)
        self.withheld += len(event.ids) - sum(len(e.ids) for e in out)
        return out

    def _feed(self, event: Event) -> list[Event]:
        if isinstance(event, TurnDone):
            return [event]
        if isinstance(event, ToolResult | ToolProgress):
            return [event] if self.policy.results == "show" else []
        if isinstance(event, Quarantined):
            return self._quarantined(event)
        if isinstance(event, MessageStart):
            self._start, self._text, self._rule = event, [], self.policy.rule(event)
        start, rule = self._start, self._rule
        if isinstance(event, MessageEnd):
            self._start, self._rule = None, "hide"
        if rule == "hide" or start is None:
            return []
        if rule == "show":
            return [event]
        if isinstance(event, Delta):
            self._text.append(event.text)
        return _summary(rule, start, "".join(self._text)) if isinstance(event, MessageEnd) else []

    def _quarantined(self, event: Quarantined) -> list[Event]:
        if event.reason == "no_markup":
            if self.policy.no_markup == "show":
                start = MessageStart("assistant", "final", repairs=("no_markup",))
                return [start, Delta(event.text, event.ids), MessageEnd("end")]
            if (
                self.policy.other == "hide"
            ):  # there was nothing else, so that this much may be said: never silence
                return [Quarantined((), "", event.reason)]
        return [event] if self.policy.other == "show" else []


def _summary(hook: Callable[[str], str], start: MessageStart, text: str) -> list[Event]:
    """What a hook makes of a message. A hook that fails says nothing, and the log says no more than that it failed."""
    try:
        said = hook(text)
    except Exception as e:
        _log.warning("The summary of a message failed (%s); nothing is shown.", type(e).__name__)
        return []
    return [Summary(said, start.channel)] if isinstance(said, str) else []


def visible(events: Iterable[Event], policy: Policy = USUAL) -> Generator[Event]:
    """The events of a turn that may be seen. Closing it closes the turn."""
    gate = Visible(policy)
    try:
        for event in events:
            yield from gate.feed(event)
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()

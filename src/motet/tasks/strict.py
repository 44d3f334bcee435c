"""A sampled reply read for a grade: what its final message says and how long its parts are. Nothing out of form is forgiven."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from motet.harmony import Delta, Event, MessageEnd, MessageStart, Quarantined


@dataclass(frozen=True)
class Strict:
    """`final` is None where anything was repaired or quarantined, or no final message ended the turn. Lengths are in tokens of
    text, without control tokens."""

    final: str | None
    analysis_tokens: int
    final_tokens: int


def strictly(events: Iterable[Event]) -> Strict:
    """A reply's events, read strictly."""
    analysis = final_tokens = 0
    final, ended, fine = "", False, True
    start: MessageStart | None = None
    text: list[str] = []
    for event in events:
        if isinstance(event, Quarantined):
            fine = False
        elif isinstance(event, MessageStart):
            start, text, fine = event, [], fine and not event.repairs
        elif isinstance(event, Delta) and start is not None:
            text.append(event.text)
            if (start.role, start.channel, start.is_call) == ("assistant", "analysis", False):
                analysis += len(event.ids)
            elif start.channel == "final":
                final_tokens += len(event.ids)
        elif (
            isinstance(event, MessageEnd)
            and start is not None
            and (start.role, start.channel) == ("assistant", "final")
        ):
            final, ended = "".join(text), event.stop == "return"
    return Strict(final if fine and ended else None, analysis, final_tokens)

"""Stop strings: an answer ends where one begins. Looks at messages on `final` only; thinking and calls may hold them.

Text that may be the beginning of a stop string is held back until it is known; nothing that was sent is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

from motet.harmony import Delta, Event, MessageEnd, MessageStart


class Stops:
    """Passes events on. `hit` is set, and nothing more of the answer comes, when a stop string has."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(s for s in strings if s)
        self._watched = False
        self._held: list[Delta] = []
        self.hit = False

    def feed(self, event: Event) -> list[Event]:
        """The events that may be passed on now."""
        if not self._strings:
            return [event]
        if isinstance(event, MessageStart):
            self._watched = event.channel == "final" and event.recipient is None and event.role == "assistant"
        if isinstance(event, MessageEnd) and self._watched:
            held, self._held = self._held, []
            return [] if self.hit else [*held, event]
        if not isinstance(event, Delta) or not self._watched:
            return [event]
        return [] if self.hit else self._text(event)

    def _text(self, delta: Delta) -> list[Event]:
        self._held.append(delta)
        text = "".join(d.text for d in self._held)
        found = [at for at in (text.find(s) for s in self._strings) if at >= 0]
        if found:
            self.hit = True
            return [*self._until(min(found)), MessageEnd("end")]
        # the longest end of the text that begins a stop string stays back
        keep = max(
            n for s in self._strings for n in range(min(len(s), len(text) + 1)) if text.endswith(s[:n])
        )
        return self._release(len(text) - keep)

    def _release(self, safe: int) -> list[Event]:
        """Whole deltas that end at or before `safe` characters."""
        out: list[Event] = []
        while self._held and len(self._held[0].text) <= safe:
            safe -= len(self._held[0].text)
            out.append(self._held.pop(0))
        return out

    def _until(self, end: int) -> list[Event]:
        """Everything before character `end`; a token that is cut in two keeps its text's beginning and loses its ids."""
        out = self._release(end)
        rest = end - sum(len(e.text) for e in out if isinstance(e, Delta))
        if rest:
            out.append(Delta(self._held[0].text[:rest]))
        self._held = []
        return out

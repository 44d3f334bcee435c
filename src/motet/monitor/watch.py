"""One turn watched as it is said: loops, shortcuts said aloud, sums that are wrong, thinking that comes back in the answer, markup.

An alarm names a kind, a channel and a place, never a text. What follows is the caller's: nothing ("flag"), the end of thinking
("close"), the end of the turn ("stop"). Constant work a token. Knows events; knows no server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from motet.errors import UsageError
from motet.harmony import Delta, Event, MessageEnd, MessageStart, ToolResult
from motet.monitor.loops import Detector, Lag, Ngrams
from motet.monitor.overlap import RUN, marked
from motet.monitor.thoughts import Rules, steps

Action = Literal["flag", "close", "stop"]
ACTIONS: tuple[Action, ...] = ("flag", "close", "stop")
KINDS = {
    "loop": "the text repeats exactly",
    "repetition": "most of the text was there before",
    "intent": "thinking says that it takes a shortcut",
    "arithmetic": "an equation in the thinking is wrong",
    "echo": "the answer repeats the thinking",
    "markup": "the format's own marks stand in the answer",
}
IN_ANSWER = ("echo", "markup")  # too late to end the thinking
ENDS = frozenset(".!?\n")  # of a sentence
_LONG = 4000  # characters of thinking held at most between two looks


@dataclass(frozen=True)
class Watch:
    """What follows an alarm of each kind; kinds that are not named are flagged. on False: nobody looks."""

    actions: Mapping[str, Action] = field(default_factory=dict)
    on: bool = True

    @classmethod
    def of(cls, texts: Iterable[str]) -> Watch:
        """From "kind=action" texts, or "off". UsageError for what there is not."""
        actions: dict[str, Action] = {}
        for text in texts:
            if text == "off":
                return cls(on=False)
            kind, _, action = text.partition("=")
            if kind not in KINDS or action not in ACTIONS:
                raise UsageError(
                    f"A watch is '{text[:60]}'; give off, or one of {', '.join(KINDS)} with =flag, =close or =stop."
                )
            if action == "close" and kind in IN_ANSWER:
                raise UsageError(
                    f"'{text}': an {kind} is seen in the answer, when thinking is over; use flag or stop."
                )
            actions[kind] = action
        return cls(actions)

    def action(self, kind: str) -> Action:
        """What follows an alarm."""
        return self.actions.get(kind, "flag")


@dataclass(frozen=True)
class Alarm:
    """What was noticed, on which channel, after how many tokens of the turn; each kind once a turn and channel."""

    kind: str
    channel: str
    at: int


class Watcher:
    """Of one turn. `feed` returns the alarms an event raises, mostly none."""

    def __init__(self) -> None:
        self.tokens = 0
        self._channel, self._call = "none", False
        self._loops: tuple[tuple[str, Detector], ...] = ()
        self._raised: set[tuple[str, str]] = set()
        self._rules = Rules()
        self._thinks, self._text, self._held = False, list[str](), 0
        self._ends = ENDS
        self._thought, self._words = set[tuple[str, ...]](), list[str]()

    def feed(self, event: Event) -> list[Alarm]:
        """Takes the next event."""
        if isinstance(event, Delta):
            return self._delta(event)
        if not isinstance(event, ToolResult):  # what a tool said was not sampled
            self.tokens += len(event.ids)
        if isinstance(event, MessageStart):
            self._channel, self._call = event.channel or "none", event.is_call
            self._loops = (("loop", Lag()), ("repetition", Ngrams()))
            self._thinks = event.channel == "analysis" and not event.is_call
            self._text, self._words, self._held = [], [], 0
        elif isinstance(event, MessageEnd):
            return self._end()
        return []

    def _delta(self, event: Delta) -> list[Alarm]:
        out: list[Alarm] = []
        for token in event.ids:
            self.tokens += 1
            for kind, detector in self._loops:
                if detector.feed(token):
                    out += self._alarm(kind)
        if self._thinks:
            self._text.append(event.text)
            self._held += len(event.text)
            if self._held > _LONG or not self._ends.isdisjoint(event.text):
                out += self._sentence()
        else:
            self._text.append(event.text)
        return out

    def _sentence(self) -> list[Alarm]:
        """Looks at the thinking since the last look, cut where a sentence ends."""
        text = "".join(self._text)
        cut = max((text.rfind(c) + 1 for c in self._ends), default=0) or len(text)
        done, self._text = text[:cut], [text[cut:]]
        self._held = len(text) - cut
        self._words += re.findall(r"\w+", done.lower())
        for n in range(len(self._words) - RUN + 1):
            self._thought.add(tuple(self._words[n : n + RUN]))
        self._words = self._words[-(RUN - 1) :]
        out = self._alarm("intent") if self._rules.score(done) else []
        return out + (self._alarm("arithmetic") if steps(done)[1] else [])

    def _end(self) -> list[Alarm]:
        out = self._sentence() if self._thinks and self._held else []
        text, self._text = "".join(self._text), []
        if self._channel in ("final", "commentary") and not self._call:
            words = re.findall(r"\w+", text.lower())
            if any(tuple(words[n : n + RUN]) in self._thought for n in range(len(words) - RUN + 1)):
                out += self._alarm("echo")
            out += self._alarm("markup") if marked(text) else []
        return out

    def _alarm(self, kind: str) -> list[Alarm]:
        if (kind, self._channel) in self._raised:
            return []
        self._raised.add((kind, self._channel))
        return [Alarm(kind, self._channel, self.tokens)]

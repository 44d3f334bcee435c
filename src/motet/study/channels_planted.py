"""Planted defects of the channel study, each with the check that must fail, and the clean case, which passes.

Two kinds: a place in this program that is broken for as long as a block lasts, and a model that says what it should have kept.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from motet.harmony import Delta, MessageStart, Policy, StreamParser, Visible
from motet.study.played import Heard, player, speaks
from motet.study.subject import Native

PARSER, OUTLETS, CHANGES, FOLD, LOST, POLICY, ASIDE, REPEAT, MARKS, CONFIDENCE = (
    "parser and policy let no private token out",
    "no outlet lets a private token out",
    "hidden words change nothing that is seen",
    "a stream says what the whole reply says",
    "whole replies lose nothing",
    "the policy changes no byte of an answer",
    "logs, metrics and other routes tell nothing",
    "answers do not repeat their thinking",
    "no marks of the format in what people read",
    "what was thought in confidence stays there",
)

Patch = tuple[Any, str, Callable[[Any], Any]]
"""(where, the name there, old to new)."""


@dataclass(frozen=True)
class Planted:
    """`fails`: checks of which each must fail. patches: what is broken; plays: the final message, from (thinking, prompt)."""

    fails: frozenset[str]
    patches: Callable[[], list[Patch]] = list
    plays: Callable[[str, str], str] = lambda thought, prompt: "It is 42."


def _one_token_leaks(feed: Any) -> Any:
    """The first word of thinking turns up at the end of the first answer's first word."""

    def leaky(self: Any, token: int) -> Any:
        events = feed(self, token)
        for n, e in enumerate(events):
            if isinstance(e, MessageStart):
                self.in_analysis = e.channel == "analysis"
            elif isinstance(e, Delta) and e.text:
                if self.in_analysis:
                    self.kept = getattr(self, "kept", None) or e.text
                elif getattr(self, "kept", None):
                    events[n], self.kept = replace(e, text=e.text + self.kept), ""
        return events

    return leaky


def _boundary_forgotten(content: Any) -> Any:
    """A skipped end token is no boundary: the message goes on, and control tokens are its text."""

    def forgetful(self: Any, token: int) -> Any:
        if token in (self._start, self._channel, self._message):
            return [Delta(self._show([token]), (token,))]
        return content(self, token)

    return forgetful


def _tools_are_calls(rule: Any) -> Any:
    """Code for a built-in tool, which is thinking, passes as a call of the caller's function."""
    return lambda self, start: self.calls if start.is_call else rule(self, start)


def _to_content(start_of: Any) -> Any:
    """Thinking as content."""

    def start(self: Any, start: MessageStart) -> Any:
        out = start_of(self, start)
        self._into = "content" if self._into == "reasoning" else self._into
        return out

    return start


def _whole_says_more(fold: Any) -> Any:
    def folded(chunks: Any) -> Any:
        reply = fold(chunks)
        for choice in reply.choices:
            thought = getattr(choice.message, "reasoning", None)
            if thought and choice.message.content:
                choice.message.content += thought
        return reply

    return folded


def _first_word(told: Any) -> Any:
    return lambda text: f"{told(text)} It began: {text.split()[0] if text.split() else ''}"


def _logs(feed: Any) -> Any:
    def talkative(self: Any, event: Any) -> Any:
        if isinstance(event, Delta):
            logging.getLogger("motet.harmony").debug("event %s", event)
        return feed(self, event)

    return talkative


def _changes_a_byte(feed: Any) -> Any:
    def changed(self: Any, event: Any) -> Any:
        said = feed(self, event)
        hides = self.policy.analysis == "hide" and self.policy.calls == "show"
        return [
            replace(e, text=e.text.replace("e", "\u0435", 1)) if hides and isinstance(e, Delta) else e
            for e in said
        ]

    return changed


def _encoded(feed: Any) -> Any:
    """The length of a hidden thought, in the spaces behind an answer: no word of it, and yet something of it."""

    def odd(self: Any, event: Any) -> Any:
        said = feed(self, event)
        if isinstance(event, Delta) and not said:
            self.sum = getattr(self, "sum", 0) + sum(event.text.encode())
        return [
            replace(e, text=e.text + " " * (1 + getattr(self, "sum", 0) % 7)) if isinstance(e, Delta) else e
            for e in said
        ]

    return odd


def _loses_the_end(flush: Any) -> Any:
    def short(self: Any, token: int) -> Any:
        events = flush(self, token)
        self.said = getattr(self, "said", 0) + 1
        return [e for e in events if not (isinstance(e, Delta) and self.said % 2 and e.ids)]

    return short


def _quotes(failure: Any) -> Any:
    return lambda self, said: f"{failure(self, said)} It had said: {said}"


def _server(name: str, at: str, new: Callable[[Any], Any]) -> list[Patch]:
    import importlib

    module, _, inner = name.partition(":")
    where = importlib.import_module(module)
    return [(getattr(where, inner) if inner else where, at, new)]


PLANTED: dict[str, Planted] = {
    "clean": Planted(frozenset()),
    "parser leaks a token": Planted(frozenset((PARSER, OUTLETS, CHANGES)), lambda: [(StreamParser, "feed", _one_token_leaks)]),
    "skipped end is no boundary": Planted(frozenset((PARSER,)), lambda: [(StreamParser, "_in_content", _boundary_forgotten)]),
    "code for tools is shown": Planted(frozenset((PARSER,)), lambda: [(Policy, "rule", _tools_are_calls)]),
    "thinking as content": Planted(frozenset((OUTLETS,)), lambda: _server("motet.server.chat:Answer", "_start", _to_content)),
    "whole replies say more": Planted(frozenset((OUTLETS, FOLD)), lambda: _server("motet.server.chat", "fold_chunks", _whole_says_more)),
    "the summary quotes": Planted(frozenset((OUTLETS,)), lambda: _server("motet.server.shown", "_THINKING", lambda old: old | {"summary": _first_word(old["summary"])})),
    "thinking is logged": Planted(frozenset((ASIDE,)), lambda: [(Visible, "feed", _logs)]),
    "the policy changes a letter": Planted(frozenset((POLICY,)), lambda: [(Visible, "feed", _changes_a_byte)]),
    "spaces tell": Planted(frozenset((CHANGES,)), lambda: [(Visible, "feed", _encoded)]),
    "an error quotes": Planted(frozenset((OUTLETS,)), lambda: _server("motet.study.outlets:_Played", "failure", _quotes)),
    "words are lost": Planted(frozenset((LOST,)), lambda: [(StreamParser, "_in_content", _loses_the_end)]),
    "copies its thinking": Planted(frozenset((REPEAT, CONFIDENCE)), plays=lambda thought, prompt: f"As I thought: {thought} So it is."),
    "copies its thinking, encoded": Planted(frozenset((CONFIDENCE,)), plays=lambda thought, prompt: base64.b64encode(thought.encode()).decode()),
    "thinking without marks": Planted(frozenset((MARKS,)), plays=lambda thought, prompt: "analysisWe count.assistantfinalIt is 42."),
}  # fmt: skip


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Within the block, that place of this program is broken."""
    undo = []
    try:
        for where, at, new in PLANTED[name].patches():
            old = getattr(where, at)
            undo.append((where, at, old))
            setattr(where, at, new(old))
        yield
    finally:
        for where, at, old in reversed(undo):
            setattr(where, at, old)


def planted(name: str) -> Native:
    """The subject: it thinks aloud about owls, and answers as planted."""
    how = PLANTED[name]

    def play(heard: Heard) -> str:
        thought = (
            heard.opened
            or "Let me count the owls in the north wing one by one, and then those in the south wing too."
        )
        turn = speaks(thought, how.plays(thought, heard.last("user")))
        return turn if heard.opened is None else turn[turn.index("<|end|>") :]

    return player(name, play)

"""A policy that plays a script through the engine's interface, token by token: for demos and checks of the whole path.

It reads its place in the script off the prompt, as a model does: the last question, and how many results came since.
Deterministic. Knows the scripts it is given; knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from motet.engine import TokenOut

if TYPE_CHECKING:
    from motet.engine import SamplingParams
    from motet.engine.sequence import Finish
    from motet.tokenizer import Encoding

Step = str | Callable[[Sequence[str]], str]
"""What to say next, in Harmony after `<|start|>assistant`; a function is given the results of this turn so far."""
SILENT = "<|channel|>final<|message|>I have nothing to say to that.<|return|>"


class ScriptedEngine:
    """An engine whose model is a script: question -> steps."""

    def __init__(self, encoding: Encoding, scripts: Mapping[str, Sequence[Step]]) -> None:
        self.encoding, self.scripts = encoding, scripts
        self._stops = {encoding.special("<|return|>"), encoding.special("<|call|>")}
        self._number = 0

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream: one token at a time, up to a stop token or params.max_tokens."""
        self._number += 1
        yield from spoken(self.encoding, self.says(ids), params, "stop", self._number)

    def says(self, ids: Sequence[int]) -> str:
        """What follows a prompt: Harmony after `<|start|>assistant`."""
        question, results = self._place(ids)
        steps = self.scripts.get(question, ())
        if len(results) >= len(steps):
            return SILENT
        step = steps[len(results)]
        return step if isinstance(step, str) else step(results)

    def _place(self, ids: Sequence[int]) -> tuple[str, list[str]]:
        """(the last user's text, the results after it)."""
        e = self.encoding
        start, message = e.special("<|start|>"), e.special("<|message|>")
        ends = {e.special("<|end|>"), *self._stops}
        question, results = "", list[str]()
        at = 0
        while at < len(ids):
            if ids[at] != start or message not in ids[at:]:
                at += 1
                continue
            body = ids.index(message, at)
            end = next((n for n in range(body, len(ids)) if ids[n] in ends), len(ids))
            header, text = e.decode(ids[at + 1 : body]), e.decode(ids[body + 1 : end])
            role = header.partition("<|")[0].partition(" ")[0]
            if role == "user":
                question, results = text, []
            elif role not in ("assistant", "system", "developer"):
                results.append(text)
            at = end
        return question, results


def spoken(
    encoding: Encoding, text: str, params: SamplingParams, unended: Finish, number: int = 0
) -> Iterator[TokenOut]:
    """A text as an engine would have sampled it. `unended`: how it finishes when it stops short of a stop token and the limit."""
    stops = {encoding.special("<|return|>"), encoding.special("<|call|>")}
    said = encoding.encode_with_special(text)[: params.max_tokens]
    for n, token in enumerate(said, 1):
        over: Finish | None = "stop" if token in stops else None
        if over is None and n == len(said):
            over = "length" if n == params.max_tokens else unended
        yield TokenOut(number, token, 0.0, over)


def think(text: str) -> str:
    """A message on analysis; the next one follows."""
    return f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant"


def call_python(code: str) -> str:
    """A cell, as models send it."""
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


def call_browser(function: str, arguments: str) -> str:
    """search, open or find."""
    return f"<|channel|>analysis to=browser.{function} code<|message|>{arguments}<|call|>"


def call_function(name: str, arguments: str) -> str:
    """A developer's function."""
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"


def answer(text: str) -> str:
    """The final message."""
    return f"<|channel|>final<|message|>{text}<|return|>"

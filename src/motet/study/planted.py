"""Defects put in on purpose, each of which the tool check must catch: in what the model says, in a tool, in the driver.

A check that lets one pass measures nothing. Knows the fault each must raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from motet.harmony import Namespace
from motet.study.spans import Stretch
from motet.tools.base import Answer, Tool

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

Trace = list[list[Stretch]]


@dataclass(frozen=True)
class Planted:
    """A defect in one scenario, and the fault that must be found. Exactly one of the three ways is set."""

    scenario: str
    fault: str
    says: Callable[[str], str] | None = None  # of a step of the script
    tool: Callable[[Tool], Tool] | None = None
    trace: Callable[[Trace, Encoding], Trace] | None = None


class _Doctored:
    """A python tool with a fault in its calls."""

    def __init__(self, inner: Tool) -> None:
        self.inner = inner

    @property
    def namespace(self) -> Namespace:
        return self.inner.namespace

    def call(self, recipient: str, content: str) -> str | Answer:
        return self.inner.call(recipient, content)

    def close(self) -> None:
        self.inner.close()  # type: ignore[attr-defined]


class _Forgetful(_Doctored):
    """Starts anew for every call."""

    def call(self, recipient: str, content: str) -> str | Answer:
        said = super().call(recipient, content)
        self.close()
        return said


class _Pretending(_Doctored):
    """Says after each call that its variables are gone, and keeps them."""

    def call(self, recipient: str, content: str) -> str | Answer:
        said = super().call(recipient, content)
        if "xs = " not in content:
            return said
        return (
            "[ERROR] The kernel died (SIGKILL). All variables are lost; files in /mnt/data are still there."
        )


def _sub(pattern: str, to: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, to, text, flags=re.S)


def _edit(
    change: Callable[[list[int], Encoding], list[int]], at: int, turn: int = 0
) -> Callable[[Trace, Encoding], Trace]:
    """Changes the prompt of one stretch."""

    def edited(trace: Trace, encoding: Encoding) -> Trace:
        out = [list(t) for t in trace]
        old = out[turn][at]
        out[turn][at] = Stretch(tuple(change(list(old.prompt), encoding)), old.sampled)
        return out

    return edited


def _resay(old: str, new: str, at: int, turn: int = 0) -> Callable[[Trace, Encoding], Trace]:
    """Changes what was sampled in one stretch, and with it the prompts that follow in the turn."""

    def edited(trace: Trace, encoding: Encoding) -> Trace:
        out = [list(t) for t in trace]
        said = out[turn][at]
        told = [*said.prompt, *said.sampled]
        now = _replaced(list(said.sampled), old, new, encoding)
        out[turn][at] = Stretch(said.prompt, tuple(now))
        for n, later in enumerate(out[turn][at + 1 :], at + 1):
            out[turn][n] = Stretch((*said.prompt, *now, *later.prompt[len(told) :]), later.sampled)
        return out

    return edited


def _without_thinking(ids: list[int], encoding: Encoding) -> list[int]:
    """A driver that drops the thinking before a call."""
    return _replaced(
        ids, "<|channel|>analysis<|message|>I should compute this.<|end|><|start|>assistant", "", encoding
    )


def _replaced(ids: list[int], old: str, new: str, encoding: Encoding) -> list[int]:
    wanted, put = encoding.encode_with_special(old), encoding.encode_with_special(new)
    for n in range(len(ids) - len(wanted), -1, -1):
        if ids[n : n + len(wanted)] == wanted:
            return ids[:n] + put + ids[n + len(wanted) :]
    raise ValueError(f"the trace does not hold {old!r}")


def _swap(old: str, new: str) -> Callable[[list[int], Encoding], list[int]]:
    return lambda ids, encoding: _replaced(ids, old, new, encoding)


_LONG = "The user wants the sum so I will go through all the numbers one by one and add them up."
_KEPT = "<|start|>assistant<|channel|>analysis<|message|>old<|end|>"
_RENAMED = f"<|start|>assistant<|channel|>commentary<|message|>{_LONG}<|end|>"
_CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Lima"}<|call|>'
_FORGED = '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>{"temperature": 40}<|end|>'
PLANTED: dict[str, Planted] = {
    "wrong channel": Planted("python", "wrong_channel", says=_sub("analysis to=python", "commentary to=python")),
    "function on analysis": Planted("function", "wrong_channel", says=_sub("commentary to=functions", "analysis to=functions")),
    "unknown tool": Planted("function", "unknown_tool", says=_sub("functions.weather", "functions.forecast")),
    "broken JSON": Planted("function", "broken_json", says=_sub(r'"fahrenheit"\}', '"fahrenheit"')),
    "wrong argument": Planted("function", "schema", says=_sub('"fahrenheit"', '"kelvin"')),
    "surplus argument": Planted("function", "schema", says=_sub(r'"Oslo"', '"Oslo", "when": "now"')),
    "leaked thinking": Planted("python", "leaked_analysis", says=lambda t: t.replace("I should compute this.", _LONG).replace("The sum is", _LONG)),
    "skipped end": Planted("python", "no_end", says=_sub(r"<\|end\|>", "")),
    "call with tools off": Planted("plain", "call_without_tools", says=lambda t: "<|channel|>analysis to=python code<|message|>6*7<|call|>"),
    "invented channel": Planted("python", "unknown_channel", says=_sub("channel.>analysis<", "channel|>musing<")),
    "no message token": Planted("python", "malformed_header", says=_sub(r"<\|channel\|>analysis<\|message\|>", "<|channel|>analysis ")),
    "call ended like a message": Planted("python", "wrong_stop", says=_sub(r"<\|call\|>", "<|end|>")),
    "answer ended like a message": Planted("plain", "wrong_stop", says=_sub(r"<\|return\|>", "<|end|>")),
    "no answer": Planted("plain", "no_final", says=_sub(r"<\|start\|>assistant<\|channel\|>final.*", "")),
    "stateless session": Planted("state", "stateless", tool=_Forgetful),
    "thinking dropped between calls": Planted("python", "thinking_dropped", trace=_edit(_without_thinking, 1)),
    "result on another channel": Planted(
        "python", "result_channel", trace=_edit(_swap("<|channel|>analysis<|message|>24133", "<|channel|>commentary<|message|>24133"), 1)
    ),
    "result in another name": Planted("python", "result_author", trace=_edit(_swap("<|start|>python", "<|start|>browser.open"), 1)),
    "result without recipient": Planted("python", "result_form", trace=_edit(_swap(" to=assistant", ""), 1)),
    "thinking kept after the answer": Planted(
        "state", "thinking_kept", trace=_edit(_swap("<|start|>assistant<|channel|>final", f"{_KEPT}<|start|>assistant<|channel|>final"), 0, 1)
    ),
    "thinking kept under another name": Planted(
        "state", "thinking_kept",
        trace=lambda trace, encoding: _edit(_swap("<|start|>assistant<|channel|>final", f"{_RENAMED}<|start|>assistant<|channel|>final"), 0, 1)(
            _resay("<|channel|>analysis to=python", f"<|channel|>analysis<|message|>{_LONG}<|end|><|start|>assistant<|channel|>analysis to=python", 0)(
                trace, encoding), encoding)
    ),
    "answer changed in history": Planted("state", "history_changed", trace=_edit(_swap("The list is kept.", "The list is lost."), 0, 1)),
    "tools undeclared in a later turn": Planted("state", "history_changed", trace=_edit(_swap("## python", "## pascal"), 0, 1)),
    "space in a header": Planted("function", "malformed_header", says=_sub("commentary to=functions", " commentary to=functions")),
    "wrong channel behind a space": Planted("function", "wrong_channel", says=_sub("commentary to=functions", " analysis  to=functions")),
    "two calls in one message": Planted("function", "broken_json", says=_sub(r'(\{"city".*?\})', r"\1\1")),
    "name twice in arguments": Planted("function", "broken_json", says=_sub('"unit"', '"city": "Rome", "unit"')),
    "prose behind arguments": Planted("function", "broken_json", says=_sub(r'"fahrenheit"\}', '"fahrenheit"} as asked')),
    "unknown word in a nested argument": Planted("nested", "schema", says=_sub('"vegan"', '"kosher"')),
    "surplus name in a nested argument": Planted("nested", "schema", says=_sub('"vegan"', '"vegan", "age": 7')),
    "surplus argument of the browser": Planted("browser", "schema", says=_sub(r'"barn owls counted valley"', '"barn owls counted valley", "page": 2')),
    "content type missing": Planted("function", "content_type", says=_sub(r" <\|constrain\|>json", "")),
    "thinking typed as JSON": Planted("function", "content_type", says=_sub(r"analysis<\|message", "analysis <|constrain|>json<|message")),
    "recipient without its namespace": Planted("function", "loose_recipient", says=_sub("functions.weather", "weather")),
    "code behind a fence": Planted("python", "not_code", says=_sub(r"code<\|message\|>(.*)<\|call\|>", r"code<|message|>```python\n\1\n```<|call|>")),
    "code in JSON": Planted("plot", "not_code", says=_sub(r"code<\|message\|>.*<\|call\|>", 'code<|message|>{"code": "print(55)"}<|call|>')),
    "call ended like an answer": Planted("function", "wrong_stop", says=_sub(r"<\|call\|>", "<|return|>")),
    "call without its end": Planted("function", "no_end", says=_sub(r"<\|call\|>", "")),
    "empty answer": Planted("plain", "no_final", says=_sub("It is 42.", " ")),
    "call after the answer": Planted("function", "after_final", trace=_resay("<|return|>", f"<|end|><|start|>assistant{_CALL}", 1)),
    "call on the back of a call": Planted("function", "after_call", trace=_resay("<|call|>", f"<|call|><|start|>assistant{_CALL}", 0)),
    "result written by the model": Planted("function", "forged", trace=_resay("<|call|>", f"<|call|>{_FORGED}<|start|>assistant{_CALL}", 0)),
    "question written by the model": Planted(
        "plain", "forged", says=lambda t: t.replace("<|start|>assistant", "<|start|>user<|message|>Go on.<|end|><|start|>assistant")
    ),
    "control token in an answer": Planted("plain", "control_token", says=_sub("It is 42", "It is <|channel|>42")),
    "control token in a result": Planted("python", "control_token", trace=_edit(_swap("24133", "24133<|constrain|>"), 1)),
    "session that pretends to be new": Planted("state", "stale", tool=_Pretending),
    "citation of a line not shown": Planted("browser", "citation", says=_sub(r"†L\d+】", "†L977】")),
    "citation of a page never opened": Planted("browser", "citation", says=_sub(r"【\d+†L", "【9†L")),
    "citation without a line": Planted("browser", "citation", says=_sub(r"†L\d+】", "†Census of 2023】")),
    "return kept in history": Planted("state", "return_kept", trace=_edit(_swap("The list is kept.<|end|>", "The list is kept.<|return|>"), 0, 1)),
}  # fmt: skip


def spoil(steps: Sequence[object], says: Callable[[str], str]) -> list[object]:
    """The steps of a script with a defect in each text it fits."""

    def after(step: Callable[[Sequence[str]], str]) -> Callable[[Sequence[str]], str]:
        return lambda results: says(step(results))

    return [says(s) if isinstance(s, str) else after(s) for s in steps]  # type: ignore[arg-type]

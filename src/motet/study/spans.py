"""Every token span of a tool-using conversation held to the rules of Harmony: what the model said, what was put in between.

Reads token ids alone, with a reader of its own, so that a fault of parser, renderer or turn cannot hide itself. Strict
where the parser forgives. Knows no engine. Rules: harmony's docs/format.md; gpt-oss model card (arXiv 2508.10925).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motet.harmony import Namespace, resolve

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

FAULTS = {
    "malformed_header": "a header of none of the published forms",
    "unknown_channel": "a channel that does not exist",
    "wrong_channel": "a call on another channel than its kind of tool has",
    "unknown_tool": "a call to a tool that is not declared",
    "call_without_tools": "a call although no tool is declared",
    "broken_json": "arguments that are no JSON object",
    "schema": "arguments that the tool's schema does not allow",
    "content_type": "a function call whose content type is not json",
    "wrong_stop": "a message that ends with another token than its kind does",
    "no_end": "a message without its end token",
    "stray": "tokens between messages",
    "no_final": "a turn that ends without an answer",
    "after_final": "a message after the answer",
    "result_form": "a tool's result that does not stand between call and next message as it should",
    "result_author": "a result in another name than the tool that was called",
    "result_channel": "a result on another channel than its call",
    "thinking_dropped": "a prompt within a turn that does not continue the one before",
    "thinking_kept": "thinking of a finished turn in a later prompt",
    "return_kept": "<|return|> in a prompt",
    "leaked_analysis": "a sentence of the thinking in what the user sees",
    "stateless": "a session that has forgotten a name which an earlier cell defined",
}
_HEADER = re.compile(
    r"(?: to=(?P<early>[\w.-]+))?(?:<\|channel\|>(?P<channel>\S+?)(?: to=(?P<late>[\w.-]+))?)"
    r"(?: ?<\|constrain\|>(?P<marked>\w+)| (?P<word>\w+))?"
)
_WORDS = re.compile(r"\w+")
LEAK_WORDS = 8  # this many words in a row from the thinking are no coincidence


@dataclass(frozen=True)
class Fault:
    """A rule that was broken; `code` is one of FAULTS."""

    code: str
    detail: str
    turn: int = 0


@dataclass(frozen=True)
class Stretch:
    """One pass of sampling: the prompt the engine was given, and what it sampled."""

    prompt: tuple[int, ...]
    sampled: tuple[int, ...]


@dataclass
class Span:
    """One message: header without its start token, content, and the token that ended it."""

    header: str
    content: str
    end: str | None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    readable: bool = False


@dataclass(frozen=True)
class CallSeen:
    """A call as it stands in the tokens, and whether tool and arguments were legal."""

    recipient: str
    arguments: str
    target: str | None
    valid: bool


@dataclass
class Checked:
    """What a conversation's tokens came to."""

    faults: list[Fault] = field(default_factory=list)
    calls: list[CallSeen] = field(default_factory=list)
    headers: int = 0
    finals: list[str] = field(default_factory=list)


def check(turns: Sequence[Sequence[Stretch]], spaces: Mapping[str, Namespace], encoding: Encoding) -> Checked:
    """All turns of a conversation; each is the stretches of sampling that made it."""
    reader = _Reader(encoding)
    out = Checked()
    cells: list[tuple[str, str]] = []
    for n, stretches in enumerate(turns):
        turn = _Turn(reader, spaces, out, n)
        turn.check(stretches)
        cells += turn.cells
    _state(cells, out)
    return out


class _Reader:
    """Ids to spans. Control tokens are told by id, never by text."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        names = ("start", "message", "channel", "constrain", "end", "call", "return")
        self.special = {encoding.special(f"<|{n}|>"): n for n in names}

    def spans(self, ids: Sequence[int], started: bool) -> Iterator[Span | str]:
        """Spans, and texts that belong to none. `started`: the ids begin inside an assistant's header."""
        state = "header" if started else "between"
        header = self.encoding.encode("assistant") if started else []
        content: list[int] = []
        for i in ids:
            name = self.special.get(i)
            if state == "between":
                if name == "start":
                    state, header = "header", []
                else:
                    yield self.text([i])
            elif state == "header":
                if name == "message":
                    state, content = "content", []
                elif name in ("start", "end", "call", "return"):
                    yield Span(self.text(header), "", None if name == "start" else name)
                    state, header = ("header" if name == "start" else "between"), []
                else:
                    header.append(i)
            elif name is None or name in ("message", "constrain", "channel"):
                content.append(i)
            else:
                yield Span(self.text(header), self.text(content), None if name == "start" else name)
                state, header = ("header" if name == "start" else "between"), []
        if state == "content":
            yield Span(self.text(header), self.text(content), None)
        elif state == "header" and header:
            yield Span(self.text(header), "", None)

    def text(self, ids: Sequence[int]) -> str:
        """Text with control tokens spelled; a marker that ordinary tokens spell is made harmless first."""
        out: list[str] = []
        plain: list[int] = []
        for i in ids:
            if i in self.special:
                out += [self.encoding.decode(plain).replace("<|", "<¦"), f"<|{self.special[i]}|>"]
                plain = []
            else:
                plain.append(i)
        return "".join([*out, self.encoding.decode(plain).replace("<|", "<¦")])


class _Turn:
    """One turn of the assistant."""

    def __init__(self, reader: _Reader, spaces: Mapping[str, Namespace], out: Checked, number: int) -> None:
        self.reader, self.spaces, self.out, self.number = reader, spaces, out, number
        self.cells: list[tuple[str, str]] = []  # (code, what it came to)
        self.declared = [
            r for ns in spaces.values() for r in ([f"{ns.name}.{f.name}" for f in ns.functions] or [ns.name])
        ]
        self.thought: list[str] = []
        self.seen: list[str] = []

    def fault(self, code: str, detail: str) -> None:
        self.out.faults.append(Fault(code, detail[:200], self.number))

    def check(self, stretches: Sequence[Stretch]) -> None:
        last: Span | None = None
        for n, stretch in enumerate(stretches):
            if n == 0:
                self._history(stretch.prompt)
            else:
                self._between(stretches[n - 1], stretch, last)
            last = None
            for span in self.reader.spans(stretch.sampled, started=True):
                if isinstance(span, str):
                    self.fault("stray", span)
                    continue
                if last is not None and last.channel == "final":
                    self.fault("after_final", span.header)
                self._span(span)
                last = span
        if last is None or last.channel != "final" or last.recipient is not None:
            self.fault("no_final", "" if last is None else last.header)
        self._leaks()

    def _span(self, span: Span) -> None:
        self.out.headers += 1
        self._header(span)
        if not span.readable:
            return
        if span.end is None:
            self.fault("no_end", span.header)
        if span.recipient is not None:
            self._call(span)
        elif span.channel == "final":
            self.out.finals.append(span.content)
            self._stop(span, "return")
        else:
            self._stop(span, "end")
        if span.channel == "analysis" and span.recipient is None:
            self.thought.append(span.content)
        elif span.recipient is None:
            self.seen.append(span.content)

    def _header(self, span: Span) -> None:
        text = span.header
        m = _HEADER.fullmatch(text.removeprefix("assistant")) if text.startswith("assistant") else None
        if m is None or (m["early"] and m["late"]):
            self.fault("malformed_header", text)
            return
        span.channel, span.recipient = m["channel"], m["early"] or m["late"]
        span.content_type, span.readable = m["marked"] or m["word"], True
        if span.channel not in ("analysis", "commentary", "final"):
            self.fault("unknown_channel", str(span.channel))

    def _stop(self, span: Span, wanted: str) -> None:
        if span.end not in (wanted, None):
            self.fault("wrong_stop", f"<|{span.end}|> after {span.header}")

    def _call(self, span: Span) -> None:
        self._stop(span, "call")
        recipient = span.recipient or ""
        target = resolve(recipient, self.declared)
        if not self.declared:
            self.fault("call_without_tools", recipient)
        elif target is None:
            self.fault("unknown_tool", recipient)
        before = len(self.out.faults)
        if target is not None:
            wanted = "analysis" if target.partition(".")[0] in ("python", "browser") else "commentary"
            if span.channel != wanted:
                self.fault("wrong_channel", f"{recipient} on {span.channel}")
            before = len(self.out.faults)
            if target != "python":
                self._arguments(span, target)
        valid = target is not None and len(self.out.faults) == before and span.end == "call"
        self.out.calls.append(CallSeen(recipient, span.content, target, valid))

    def _arguments(self, span: Span, target: str) -> None:
        if target.startswith("functions.") and span.content_type not in ("json", None):
            self.fault("content_type", str(span.content_type))
        name, _, function = target.partition(".")
        schema = next((f.parameters for f in self.spaces[name].functions if f.name == function), None)
        if schema is not None and schema.get("type") == "string":
            return  # a tool that takes bare text, such as apply_patch
        try:
            value = json.loads(span.content) if span.content.strip() else {}
        except (ValueError, RecursionError) as e:
            self.fault("broken_json", f"{target}: {e}")
            return
        if not isinstance(value, dict):
            self.fault("broken_json", f"{target}: not an object")
        elif (said := _against(value, schema)) is not None:
            self.fault("schema", f"{target}: {said}")

    def _between(self, before: Stretch, after: Stretch, call: Span | None) -> None:
        """What stands between a call and what the model says next: the result, in the tool's name, on the call's channel."""
        told = [*before.prompt, *before.sampled]
        if list(after.prompt[: len(told)]) != told:
            self.fault("thinking_dropped", f"the prompt of stretch with {len(after.prompt)} tokens")
            return
        spans = [*self.reader.spans(after.prompt[len(told) :], started=False)]
        *results, opening = spans or [""]
        if call is None or len(results) != 1 or not isinstance(results[0], Span) or results[0].end != "end":
            self.fault("result_form", f"{len(results)} messages after {call.header if call else 'no call'}")
            return
        if not isinstance(opening, Span) or opening.header != "assistant" or opening.content:
            self.fault("result_form", "no assistant's turn after the result")
        result = results[0]
        m = re.fullmatch(
            r"(?P<who>[\w.-]+?)(?: to=assistant)?<\|channel\|>(?P<channel>\w+)(?: to=assistant)?",
            result.header,
        )
        if m is None or result.header.count(" to=assistant") != 1:
            self.fault("result_form", result.header)
            return
        if m["who"] != call.recipient:
            self.fault("result_author", f"{m['who']} for {call.recipient}")
        if m["channel"] != call.channel:
            self.fault("result_channel", f"{m['channel']} for {call.channel}")
        if resolve(call.recipient or "", self.declared) == "python":
            self.cells.append((call.content, result.content))

    def _history(self, prompt: Sequence[int]) -> None:
        """A turn's first prompt: thinking of finished turns is gone, answers end with <|end|>."""
        spans = [s for s in self.reader.spans(prompt, started=False) if isinstance(s, Span)]
        if any(s.end == "return" for s in spans):
            self.fault("return_kept", "")
        finals = [n for n, s in enumerate(spans) if "<|channel|>final" in s.header]
        kept = [s for s in spans[: finals[-1] if finals else 0] if "<|channel|>analysis" in s.header]
        if kept:
            self.fault("thinking_kept", kept[0].header)

    def _leaks(self) -> None:
        thought = _shingles(" \n ".join(self.thought))
        for text in self.seen:
            if both := thought & _shingles(text):
                self.fault("leaked_analysis", min(both))
                return


def _shingles(text: str) -> set[str]:
    words = _WORDS.findall(text.lower())
    return {" ".join(words[i : i + LEAK_WORDS]) for i in range(len(words) - LEAK_WORDS + 1)}


def _against(value: Any, schema: Any) -> str | None:
    """What a JSON Schema finds wrong with a value."""
    import jsonschema

    if schema is None:
        return "it takes no arguments" if value else None
    try:
        jsonschema.validate(value, dict(schema))
    except jsonschema.ValidationError as e:
        return str(e.message)
    except jsonschema.SchemaError:
        return None  # nothing can be held to a schema that is none
    return None


def _state(cells: Sequence[tuple[str, str]], out: Checked) -> None:
    """A NameError for a name that an earlier cell, which ran without error, has assigned."""
    known: set[str] = set()
    for code, result in cells:
        lost = re.search(r"NameError: name '(\w+)' is not defined", result)
        if lost is not None and lost[1] in known:
            out.faults.append(Fault("stateless", lost[1]))
        if "Error" not in result:
            known |= set(re.findall(r"^(?:import |def )?(\w+)\s*(?:=|\(|$)", code, re.M))

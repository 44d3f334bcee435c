"""Every token span of a tool-using conversation held to the rules of Harmony: what the model said, what was put in between.

Reads token ids alone, with a reader of its own, so that a fault of parser, renderer or turn cannot hide itself. Strict
where the parser forgives. What results say (sessions, pages) is judged in study/results.py. Knows no engine.
Rules: harmony's docs/format.md; gpt-oss model card (arXiv 2508.10925).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motet.harmony import Namespace, resolve
from motet.study import results

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

FAULTS = {
    "malformed_header": "a header of none of the published forms, or with spaces where none belong",
    "forged": "a message the model wrote in the name of a tool, the user or the system",
    "control_token": "a control token within a message's text",
    "unknown_channel": "a channel that does not exist",
    "wrong_channel": "a call on another channel than its kind of tool has",
    "unknown_tool": "a call to a tool that is not declared",
    "call_without_tools": "a call although no tool is declared",
    "loose_recipient": "a recipient that is no tool's name and can only be guessed",
    "after_call": "something said after a call, before its result",
    "broken_json": "arguments that are no one JSON object: with names twice, NaN, or text around it",
    "schema": "arguments that the tool's schema does not allow",
    "not_code": "a call of python whose content is not raw code",
    "content_type": "a content type that is missing, or not the one of such a message",
    "wrong_stop": "a message that ends with another token than its kind does",
    "no_end": "a message without its end token",
    "stray": "tokens between messages",
    "no_final": "a turn that ends without an answer, or with an empty one",
    "after_final": "a message after the answer",
    "result_form": "a tool's result that does not stand between call and next message as it should",
    "result_author": "a result in another name than the tool that was called",
    "result_channel": "a result on another channel than its call",
    "thinking_dropped": "a prompt within a turn that does not continue the one before",
    "thinking_kept": "thinking of a finished turn in a later prompt",
    "history_changed": "a later prompt in which something of the earlier one, or the answer to it, is missing or different",
    "return_kept": "<|return|> in a prompt",
    "leaked_analysis": "a sentence of the thinking in what the user sees",
    "stateless": "a session that has forgotten a name which an earlier cell defined",
    "stale": "a session that knows what it said was lost",
    "citation": "a mark in the answer that names no line which was shown",
}
_HEADER = re.compile(
    r"(?: to=(?P<early>[\w.-]+))?(?:<\|channel\|>(?P<channel>\S+?)(?: to=(?P<late>[\w.-]+))?)"
    r"(?: ?<\|constrain\|>(?P<marked>\w+)| (?P<word>\w+))?"
)
_WORDS = re.compile(r"\w+")
LEAK_WORDS = 8  # this many words in a row from the thinking are no coincidence
KEPT_WORDS = 4  # nor is a whole thought of so many, in a later prompt
_TYPES = {"functions": ("json",), "browser": ("code", "json", None), "python": ("code", None)}


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


@dataclass
class _Past:
    """What earlier turns leave to be found, or not to be found, in a later prompt."""

    prompt: list[tuple[str, str]] = field(default_factory=list)  # (header, content) of what must stay
    answers: list[str] = field(default_factory=list)  # of the turn before
    thoughts: list[str] = field(default_factory=list)  # of turns up to the last one that has an answer
    pending: list[str] = field(default_factory=list)  # of turns since
    said: set[str] = field(default_factory=set)  # everything else the model said


def check(turns: Sequence[Sequence[Stretch]], spaces: Mapping[str, Namespace], encoding: Encoding) -> Checked:
    """All turns of a conversation; each is the stretches of sampling that made it."""
    reader = _Reader(encoding)
    out = Checked()
    told: list[results.Told] = []
    past = _Past()
    for n, stretches in enumerate(turns):
        turn = _Turn(reader, spaces, out, n)
        if stretches:
            turn.history(stretches[0].prompt, past)
        turn.check(stretches)
        turn.leave(past)
        told += turn.told
        out.faults += [Fault("citation", mark, n) for mark in results.dangling(told, turn.finals)]
    out.faults += [Fault(code, name) for code, name in results.sessions(told)]
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
        self.told: list[results.Told] = []
        self.declared = [
            r for ns in spaces.values() for r in ([f"{ns.name}.{f.name}" for f in ns.functions] or [ns.name])
        ]
        self.thought: list[str] = []
        self.seen: list[str] = []
        self.finals: list[str] = []
        self.calls: list[str] = []

    def fault(self, code: str, detail: str) -> None:
        self.out.faults.append(Fault(code, detail[:200], self.number))

    def check(self, stretches: Sequence[Stretch]) -> None:
        last: Span | None = None
        for n, stretch in enumerate(stretches):
            if n:
                self._between(stretches[n - 1], stretch, last)
            last = None
            for span in self.reader.spans(stretch.sampled, started=True):
                if isinstance(span, str):
                    self.fault("stray", span)
                    continue
                if last is not None and last.channel == "final":
                    self.fault("after_final", span.header)
                if last is not None and last.recipient is not None:
                    self.fault("after_call", f"{span.header} after {last.header}")
                self._span(span)
                last = span
        if last is None or last.channel != "final" or last.recipient is not None or not last.content.strip():
            self.fault("no_final", "" if last is None else last.header)
        self._leaks()

    def leave(self, past: _Past) -> None:
        """Hands on what the next turn's prompt is held to."""
        past.answers = self.finals[-1:]
        past.said.update(self.seen, self.calls)
        past.pending += self.thought
        if self.finals:
            past.thoughts, past.pending = past.thoughts + past.pending, []

    def _span(self, span: Span) -> None:
        self.out.headers += 1
        self._header(span)
        if not span.readable:
            return
        if span.end is None:
            self.fault("no_end", span.header)
        self._text(span)
        if span.recipient is not None:
            self.calls.append(span.content)
            self._call(span)
        elif span.channel == "final":
            self.finals.append(span.content)
            self.out.finals.append(span.content)
            self._type(span, (None,) if not _is_json(span.content) else ("json", None))
            self._stop(span, "return")
        else:
            self._type(span, (None,))
            self._stop(span, "end")
        if span.channel == "analysis" and span.recipient is None:
            self.thought.append(span.content)
        elif span.recipient is None:
            self.seen.append(span.content)

    def _header(self, span: Span) -> None:
        text = span.header
        if not text.startswith("assistant"):
            self.fault("forged", text)
            return
        m = _HEADER.fullmatch(text.removeprefix("assistant"))
        if m is None:  # read on without the spaces, so that what else is wrong is named too
            self.fault("malformed_header", text)
            m = _HEADER.fullmatch(_tidied(text.removeprefix("assistant")))
        elif m["early"] and m["late"]:
            self.fault("malformed_header", text)
            return
        if m is None or (m["early"] and m["late"]):
            return
        span.channel, span.recipient = m["channel"], m["early"] or m["late"]
        span.content_type, span.readable = m["marked"] or m["word"], True
        if span.channel not in ("analysis", "commentary", "final"):
            self.fault("unknown_channel", str(span.channel))

    def _text(self, span: Span) -> None:
        if m := re.search(r"<\|\w+\|>", span.content):
            self.fault("control_token", f"{m[0]} in {span.header}")

    def _type(self, span: Span, known: tuple[str | None, ...]) -> None:
        if span.content_type not in known:
            self.fault("content_type", f"{span.content_type or 'none'} of {span.header}")

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
            if recipient != target:
                self.fault("loose_recipient", f"{recipient} for {target}")
            before = len(self.out.faults)
            if target == "python":
                self._type(span, _TYPES["python"])
                if said := results.wrapped(span.content):
                    self.fault("not_code", said)
            else:
                self._arguments(span, target)
        valid = target is not None and len(self.out.faults) == before and span.end == "call"
        self.out.calls.append(CallSeen(recipient, span.content, target, valid))

    def _arguments(self, span: Span, target: str) -> None:
        name, _, function = target.partition(".")
        schema = next((f.parameters for f in self.spaces[name].functions if f.name == function), None)
        if schema is not None and schema.get("type") == "string":
            return  # a tool that takes bare text, such as apply_patch
        self._type(span, _TYPES.get(name, ("json",)))
        if name == "browser" and schema is not None:  # its published schema leaves unsaid that it is closed
            schema = {**schema, "additionalProperties": False}
        try:
            value = strict(span.content) if span.content.strip() else {}
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
        *between, opening = spans or [""]
        if call is None or len(between) != 1 or not isinstance(between[0], Span) or between[0].end != "end":
            self.fault("result_form", f"{len(between)} messages after {call.header if call else 'no call'}")
            return
        if not isinstance(opening, Span) or opening.header != "assistant" or opening.content:
            self.fault("result_form", "no assistant's turn after the result")
        result = between[0]
        m = re.fullmatch(
            r"(?P<who>[\w.-]+?)(?: to=assistant)?<\|channel\|>(?P<channel>\w+)(?: to=assistant)?",
            result.header,
        )
        if m is None or result.header.count(" to=assistant") != 1:
            self.fault("result_form", result.header)
            return
        self._text(result)
        if not call.readable:
            return
        if m["who"] != call.recipient:
            self.fault("result_author", f"{m['who']} for {call.recipient}")
        if m["channel"] != call.channel:
            self.fault("result_channel", f"{m['channel']} for {call.channel}")
        target = resolve(call.recipient or "", self.declared)
        self.told.append(results.Told(target or "", call.content, result.content))

    def history(self, prompt: Sequence[int], past: _Past) -> None:
        """A turn's first prompt: it goes on from the one before, finished turns' thinking is gone, answers end with <|end|>."""
        spans = [s for s in self.reader.spans(prompt, started=False) if isinstance(s, Span)]
        if any(s.end == "return" for s in spans):
            self.fault("return_kept", "")
        finals = [n for n, s in enumerate(spans) if "<|channel|>final" in s.header]
        kept = [s for s in spans[: finals[-1] if finals else 0] if "<|channel|>analysis" in s.header]
        # Thinking under another name is thinking still.
        whole = [t.strip() for t in past.thoughts if len(_WORDS.findall(t)) >= KEPT_WORDS]
        theirs = [s for s in spans if s.header.startswith("assistant") and s.content not in past.said]
        kept += [s for s in theirs if any(t in s.content for t in whole)]
        if kept:
            self.fault("thinking_kept", kept[0].header)
        stays = [
            (s.header, s.content)
            for s in spans
            if "<|channel|>analysis" not in s.header and s.end is not None
        ]
        n, new = len(past.prompt), [c for h, c in stays[len(past.prompt) :] if "<|channel|>final" in h]
        if stays[:n] != past.prompt:
            self.fault(
                "history_changed", next((h for h, c in past.prompt if (h, c) not in stays), "the order")
            )
        elif past.answers and past.answers[0] not in new:
            self.fault("history_changed", "the answer before")
        past.prompt = stays

    def _leaks(self) -> None:
        thought = _shingles(" \n ".join(self.thought))
        for text in self.seen:
            if both := thought & _shingles(text):
                self.fault("leaked_analysis", min(both))
                return


def _shingles(text: str) -> set[str]:
    words = _WORDS.findall(text.lower())
    return {" ".join(words[i : i + LEAK_WORDS]) for i in range(len(words) - LEAK_WORDS + 1)}


def _tidied(header: str) -> str:
    """A header without the spaces that belong nowhere."""
    one = re.sub(r"\s+", " ", header)
    return re.sub(r"(<\|channel\|>|to=) | (?=<\|channel\|>)| $", r"\1", one)


def strict(text: str) -> Any:
    """JSON in which no name stands twice and every number is one. ValueError, RecursionError."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(found)
        if len(out) < len(found):
            names = [k for k, _ in found]
            raise ValueError(f"{next(k for k in names if names.count(k) > 1)!r} stands twice")
        return out

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)


def _is_json(text: str) -> bool:
    try:
        return isinstance(strict(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _against(value: Any, schema: Any) -> str | None:
    """What a JSON Schema finds wrong with a value; nothing can be held to a schema that is none, or points elsewhere."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    if schema is None:
        return "it takes no arguments" if value else None
    try:
        kind = validator_for(dict(schema))
        kind.check_schema(dict(schema))
        found = next(kind(dict(schema), registry=Registry()).iter_errors(value), None)
    except Exception:  # jsonschema has many ways to say what is wrong with a foreign schema
        return None
    return None if found is None else str(found.message)

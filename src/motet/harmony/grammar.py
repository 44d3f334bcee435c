"""Harmony as a constraint on sampling: with it, whatever the model, every turn is well-formed or a beginning of one.

A `Grammar` is what one turn may say: its headers, tools, schemas and budgets. `guide` gives the object the engine asks for
a mask before each token and tells each token: it stands in a header (a trie of tokens, see headers.py), in free content
(everything but control tokens, the right end excepted: one mask made once per vocabulary) or in a JSON value (see
structured.py). Knows no model; knows nothing of what the tokens mean.

    <|start|>assistant  header <|message|> content <|end|>      thinking, remarks: another message follows
                        header <|message|> content <|call|>     a call: the stretch is over
                        header <|message|> content <|return|>   the answer: the turn is over

`<|endoftext|>`, reserved ids and rows without bytes never come: the model's own end of text is not how Harmony ends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motet.engine import ConstraintError, Except, Mask, Only
from motet.errors import UsageError
from motet.harmony.headers import Kind, Node, home, kinds_of, trie
from motet.harmony.messages import Conversation, DeveloperContent, SystemContent
from motet.harmony.parse import CHANNELS
from motet.harmony.schema import Function, ResponseFormat
from motet.harmony.structured import Schema, Value

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

CHOICES = ("auto", "none", "required")
ARGUMENTS = ("json", "schema", "free")
RESERVE = 256  # tokens kept for the answer, unless that is more than a quarter of all
ANY = {"type": "object"}


@dataclass(frozen=True)
class Rules:
    """What a caller asks of one turn.

    tool_choice: "auto"; "none"; "required" (a call comes before an answer may); the name of a function (that call does,
    and no other); or the object the OpenAI APIs use for it. response_format: "json_object", or the API's object with a
    JSON Schema, holds the answer to it; None takes what the conversation's developer message declares.
    max_reasoning_tokens: tokens of content on analysis in the whole turn, code for the built-in tools included.
    arguments of functions: "json" (an object; by its schema where the function is strict, or where a call is demanded and the
    schema can be enforced), "schema" (always by its schema) or "free" (text, but for strict functions).
    """

    tool_choice: str | Mapping[str, Any] = "auto"
    response_format: str | Mapping[str, Any] | None = None
    max_reasoning_tokens: int | None = None
    arguments: str = "json"

    def __post_init__(self) -> None:
        n = self.max_reasoning_tokens
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0):
            raise UsageError(f"max_reasoning_tokens is {n!r}; give 0 or more, or None for no limit.")
        if self.arguments not in ARGUMENTS:
            raise UsageError(f"arguments is {self.arguments!r}; use {', '.join(ARGUMENTS)}.")

    @property
    def format(self) -> ResponseFormat | None:
        """The response format asked for here."""
        return _format(self.response_format)


def _format(value: str | Mapping[str, Any] | None) -> ResponseFormat | None:
    if isinstance(value, str):
        value = {"type": value}
    kind = None if value is None else value.get("type") if isinstance(value, Mapping) else value
    if kind is None or kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat("json_object", ANY)
    if kind != "json_schema":
        raise UsageError(f"response_format is {str(kind)[:40]!r}; use text, json_object or json_schema.")
    assert isinstance(value, Mapping)
    inner = value.get("json_schema", value)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise UsageError('response_format needs {"json_schema": {"name": ..., "schema": {...}}}.')
    return ResponseFormat(str(inner.get("name") or "answer"), schema, str(inner.get("description") or ""))


class Grammar:
    """What one turn of a conversation may say. Made once per turn; UsageError for rules that cannot be held."""

    def __init__(self, encoding: Encoding, conversation: Conversation, rules: Rules | None = None) -> None:
        rules = Rules() if rules is None else rules
        self.encoding, self.rules = encoding, rules
        functions = {
            f"{ns.name}.{f.name}": f for ns in conversation.namespaces().values() for f in ns.functions
        }
        self.chosen = _chosen(rules.tool_choice, conversation.recipients())
        self.must_call = rules.tool_choice not in ("auto", "none")
        self.recipients = frozenset() if rules.tool_choice == "none" else conversation.recipients()
        self.channels = _channels(conversation)
        wanted = self.recipients if self.chosen is None else {self.chosen}
        self.has_functions = any(home(r) == "commentary" for r in self.recipients)
        self.only_builtin = all(home(r) == "analysis" for r in wanted)
        self._arguments = {
            name: self._held(name, f)
            for name, f in functions.items()
            if name in self.recipients and (f.strict or rules.arguments != "free")
        }
        answer = rules.format or _declared_format(conversation)
        self._answer = None if answer is None else Schema(answer.schema, encoding, "the response format")
        self._tries: dict[tuple[bool, bool, bool, bool, bool], Node] = {}
        self.ends = {n: encoding.special(f"<|{n}|>") for n in ("end", "call", "return")}
        self.closing = trie(encoding, frozenset({Kind("final", plain=True)}), False).depth

    def _held(self, name: str, f: Function) -> Schema:
        """What the arguments of a function are held to."""
        schema, what = f.enforced, f"the tool {name!r}"
        asked = f.strict or self.rules.arguments == "schema"
        # Whoever demands a call reads it, whether strict arguments were asked for or not.
        if schema is not None and (asked or self.must_call):
            with nullcontext() if asked else suppress(UsageError):
                return Schema(schema, self.encoding, what)
        return Schema(ANY, self.encoding, what)

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end a stretch of sampling; they must be stop tokens of the request."""
        return self.ends["call"], self.ends["return"]

    def guide(self, limit: int | None = None, *, spent: int = 0, called: bool = False) -> Guide:
        """A fresh constraint for one stretch, from behind `<|start|>assistant` on.

        limit: tokens it may sample; spent: tokens of analysis the turn has behind it; called: it has made its call.
        """
        return Guide(self, limit, spent, called)

    def value(self, kind: Kind) -> Value | None:
        """The JSON value a message of this kind must be, or None."""
        if kind.recipient is None:
            answer = self._answer if kind.channel == "final" else None
            return None if answer is None else answer.start(self.ends["return"])
        schema = self._arguments.get(kind.recipient)
        return None if schema is None else schema.start(self.ends["call"])

    def headers(self, thinking: bool, answering: bool, talking: bool, calling: bool, begun: bool) -> Node:
        """The trie for a message: what may be on analysis, the answer, a remark, a call."""
        key = thinking, answering, talking, calling, begun
        if key not in self._tries:
            self._tries[key] = trie(self.encoding, self._kinds(*key[:4]), begun)
        return self._tries[key]

    def _kinds(self, thinking: bool, answering: bool, talking: bool, calling: bool) -> frozenset[Kind]:
        if answering and not (thinking or talking or calling):
            return frozenset({Kind("final", plain=True)})
        recipients = self.recipients if calling else frozenset()
        if calling and self.chosen is not None and not answering:
            recipients = frozenset({self.chosen})
        on = {"analysis": thinking, "final": answering, "commentary": talking}
        return frozenset(
            k
            for k in kinds_of(self.channels, recipients)
            if (on[k.channel] if k.recipient is None else thinking or k.channel != "analysis")
        )


class Guide:
    """The constraint of one stretch: `mask()` and `advance(token)`, as the engine calls them.

    After the stretch: `spent` (tokens on analysis, in the turn so far), `called`, `closed` (a budget ended the thinking)
    and `cut_call` (a budget ended a call on analysis before the model did; nobody should run it).
    """

    def __init__(self, grammar: Grammar, limit: int | None, spent: int, called: bool) -> None:
        self._grammar, self._left = grammar, limit
        self.spent, self.called = spent, called or not grammar.must_call
        self.closed = self.cut_call = False
        self._narrow = False  # only what has to come may begin
        self._reserve = 0 if limit is None else max(1, min(RESERVE, limit // 4))
        self._thought = grammar.rules.max_reasoning_tokens
        self._special = grammar.encoding.not_text
        self._kind, self._end = Kind("final"), grammar.ends["return"]
        self._first = self._brief = False
        self._value: Value | None = None
        self._node = self._header(begun=True)
        self._mask: Mask | None = self._node.mask
        self._step: Callable[[int], None] = self._in_header

    def mask(self) -> Mask | None:
        """What may come next; made beforehand everywhere but in JSON."""
        return self._mask if self._value is None else self._value.mask()

    def advance(self, token: int) -> None:
        """Takes note of the token that came. Raises ConstraintError for one the mask does not allow."""
        if self._left is not None:
            self._left -= 1
        self._step(token)

    def end_thinking(self) -> None:
        """No more thinking in this turn: what is being thought ends with the next token. From any thread."""
        self._thought = self.spent if self._thought is None else min(self._thought, self.spent)

    # --- states: each takes a token ---

    def _in_header(self, token: int) -> None:
        node = self._node.next.get(token)
        if node is None:
            raise _illegal(token)
        self._node, self._mask = node, node.mask
        if node.kind is not None:
            self._open(node.kind)

    def _in_content(self, token: int) -> None:
        if token in self._special:
            if token != self._end or self._first or not (self._value is None or self._value.complete):
                raise _illegal(token)
            self._close()
            return
        if self._value is not None:
            self._value.advance(token)
        if self._first:
            self._first = False
            self._mask = free(self._grammar.encoding, self._end)
        if self._kind.channel == "analysis":
            self.spent += 1
        if self._brief and self._over():
            self._force_end()

    def _at_end(self, token: int) -> None:
        if token != self._end:
            raise _illegal(token)
        self._close()

    def _done(self, token: int) -> None:
        raise ConstraintError(
            "The turn is over, but sampling went on; keep <|call|> and <|return|> among the stop tokens."
        )

    # --- transitions ---

    def _header(self, begun: bool) -> Node:
        """Where the next message may begin, by what the turn still may and must do."""
        g, must = self._grammar, not self.called
        thinking = self._thought is None or self.spent < self._thought
        # Without thinking, remarks only lead up to calls: a model must not think there, where the user reads.
        talking = thinking or g.has_functions
        if self._left is not None and not self._narrow:
            widest = g.headers(thinking, not must, talking, bool(g.recipients), begun).depth
            self._narrow = self._left < widest + 2 + g.closing + self._reserve
        if must and g.only_builtin and (self._narrow or not thinking):
            must = False  # the call that has to come would be thinking, and that is used up
        if self._narrow:
            return g.headers(False, not must, False, must, begun)
        return g.headers(thinking, not must, talking, bool(g.recipients), begun)

    def _open(self, kind: Kind) -> None:
        g = self._grammar
        which = "call" if kind.recipient is not None else "return" if kind.channel == "final" else "end"
        self._kind, self._end, self._value = kind, g.ends[which], g.value(kind)
        # An answer says something: its end is not allowed at once.
        self._first = kind.channel == "final"
        self._mask = free(g.encoding, None if self._first else self._end)
        # Whether a budget may end this message: not the answer, and not a call that someone else will read.
        thinks = kind.channel == "analysis"
        self._brief = thinks or (kind.channel == "commentary" and kind.recipient is None)
        self._step = self._in_content

    def _over(self) -> bool:
        if self._thought is not None and self._kind.channel == "analysis" and self.spent >= self._thought:
            return True
        return self._left is not None and self._left <= self._reserve + 1 + self._grammar.closing

    def _force_end(self) -> None:
        self.closed = self._narrow = True
        self.cut_call = self._kind.recipient is not None
        self._value = None
        self._mask, self._step = only(self._end), self._at_end

    def _close(self) -> None:
        kind = self._kind
        self._value = None
        if kind.recipient is not None or kind.channel == "final":
            self.called = self.called or (kind.recipient is not None and not self.cut_call)
            self._mask, self._step = only(), self._done
            return
        self._node = self._header(begun=False)
        self._mask, self._step = self._node.mask, self._in_header


@functools.lru_cache(maxsize=64)
def free(encoding: Encoding, end: int | None) -> Except:
    """Free text: every id that stands for text, and one end."""
    return Except(list(encoding.not_text - {end}), encoding.n_vocab)


@functools.lru_cache(maxsize=256)
def only(*ids: int) -> Only:
    """A forced token; without ids, nothing at all."""
    return Only(list(ids))


def _illegal(token: int) -> ConstraintError:
    return ConstraintError(f"Token {token} is not legal here; the mask was not applied.")


def _channels(conversation: Conversation) -> tuple[str, ...]:
    """The channels the system message declares; all when it does not say."""
    for m in conversation.messages:
        for part in m.parts:
            if isinstance(part, SystemContent) and part.channels:
                return tuple(c for c in CHANNELS if c in part.channels)
    return CHANNELS


def _declared_format(conversation: Conversation) -> ResponseFormat | None:
    """The format the developer message declares."""
    found = [
        f
        for m in conversation.messages
        for p in m.parts
        if isinstance(p, DeveloperContent)
        for f in p.formats
    ]
    if len(found) > 1:
        raise UsageError(
            f"The conversation declares {len(found)} response formats and an answer can be held to one; name it in the rules."
        )
    return found[0] if found else None


def _chosen(choice: str | Mapping[str, Any], declared: frozenset[str]) -> str | None:
    """The recipient a tool_choice names. Raises UsageError for one that does not exist."""
    if isinstance(choice, str) and choice in CHOICES:
        if choice == "required" and not declared:
            raise UsageError("tool_choice is 'required', but no tool is declared; declare one.")
        return None
    inner = choice.get("function", choice) if isinstance(choice, Mapping) else choice
    name = inner.get("name") if isinstance(inner, Mapping) else inner
    for r in (f"functions.{name}", name):
        if isinstance(r, str) and r in declared:
            return r
    known = ", ".join(sorted(declared)) or "none"
    raise UsageError(
        f"tool_choice names {str(name)[:64]!r}, which is not declared; use auto, none, required or a tool of: {known}."
    )

"""JSON by schema, token by token, through llguidance: what may come next inside one value. Knows no messages.

Fails closed: a keyword that would not be enforced is an error that names it and its place, before anything is sampled.
llguidance itself refuses most of those; what it passes over in silence (unknown words, OpenAPI's `nullable`,
`contentEncoding`, numbers beyond 2^53, a format called `unknown`) is refused here, and escapes that would let a declared key
be spelled as another one are not allowed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.engine import Bits, ConstraintError
from motet.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from motet.tokenizer import Encoding

SUBSCHEMA = ("items", "additionalItems", "additionalProperties")
SUBSCHEMAS = ("prefixItems", "allOf", "anyOf", "oneOf")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
ENFORCED = (
    *SUBSCHEMA, *SUBSCHEMAS, *NAMED, "$ref", "$anchor", "type", "enum", "const", "required", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format", "minItems",
    "maxItems", "minProperties", "maxProperties",
)  # fmt: skip
"""Keywords that bind the output. `oneOf` only where its members exclude one another, `minProperties` only up to the number
of required ones."""
ANNOTATIONS = (
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$schema",
    "$id", "discriminator",
)  # fmt: skip
"""Keywords that say nothing about which values are valid; words that begin with `x-` are such too."""
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_EXACT = 1 << 53  # llguidance computes in doubles
_OPTIONS: Any = {
    # A line break with its indentation, or a few spaces: without a bound a model may go on indenting for ever.
    "whitespace_pattern": r"(\r?\n[ \t]{0,64}|[ \t]{1,8})",
    # No \uXXXX and so one spelling per key: llguidance takes "\u0061" for another key than "a".
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}


class Value:
    """One JSON value being written: what may come next, and whether it is complete."""

    def __init__(self, matcher: LLMatcher, done: int, stop: int) -> None:
        """`done` is the token by which the matcher says "complete"; `stop` the one that is to be sampled then."""
        self._matcher, self._done, self._stop = matcher, done, stop

    def mask(self) -> Bits:
        """The ids that may come next, `stop` among them when the value is complete."""
        words: Any = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        if self._done != self._stop and words[self._done // 32] >> (self._done % 32) & 1:
            words = words.copy()
            words[self._done // 32] ^= np.uint32(1 << self._done % 32)
            words[self._stop // 32] |= np.uint32(1 << self._stop % 32)
        return Bits(words)

    @property
    def complete(self) -> bool:
        """Whether the value may end here."""
        return bool(self._matcher.is_accepting())

    def advance(self, token: int) -> None:
        """Takes note of a token of the value."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(f"The JSON constraint failed ({_line(self._matcher.get_error())}).")


class Schema:
    """A schema made ready for a vocabulary. `start` gives a fresh value of it."""

    def __init__(self, schema: Mapping[str, Any], encoding: Encoding, what: str) -> None:
        """`what` names its owner in errors, such as "the tool 'f'". UsageError for what cannot be enforced."""
        check(schema, what)
        self._done = encoding.special("<|return|>")
        self._matcher = _compiled(encoding, _text(schema, what))
        if self._matcher.is_error():
            where, why = _blame(schema)
            raise UsageError(f"The JSON schema of {what} cannot be enforced: {where}: {why}.")

    def start(self, stop: int) -> Value:
        """A value that ends with the token `stop`."""
        return Value(self._matcher.deep_copy(), self._done, stop)


@functools.lru_cache(maxsize=8)
def _tokenizer(encoding: Encoding) -> LLTokenizer:
    """The vocabulary as llguidance wants it; no text reaches a special token. 0.7 s for o200k_harmony, once."""
    import llguidance

    class Words:
        eos_token_id, bos_token_id = encoding.special("<|return|>"), None
        special_token_ids = sorted(encoding.special_tokens.values())
        tokens = tuple(_bytes(encoding, i) for i in range(encoding.n_vocab))

        def __call__(self, text: bytes) -> list[int]:
            return encoding.encode(text.decode())

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Words()))


def _bytes(encoding: Encoding, token: int) -> bytes:
    """The bytes of a token; of one that no text may reach, what llguidance takes for a control token."""
    return b"\xff[%d]" % token if token in encoding.not_text else encoding.token_bytes(token)


@functools.lru_cache(maxsize=256)
def _compiled(encoding: Encoding | None, text: str) -> LLMatcher:
    import llguidance

    grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
    tokenizer = _letters() if encoding is None else _tokenizer(encoding)
    return llguidance.LLMatcher(tokenizer, grammar, log_level=0)


def _text(schema: Any, what: str) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise UsageError(f"The JSON schema of {what} is not JSON ({e}).") from None


# --- what can be enforced ----------------------------------------------------------------------------------------------


def check(schema: Any, what: str) -> None:
    """Raises UsageError, naming keyword and place, for anything that would not be enforced."""
    if not isinstance(schema, Mapping):
        raise UsageError(f"The JSON schema of {what} must be an object.")
    try:
        for where, node in _nodes(schema, "#"):
            for key, value in node.items():
                why = _objection(key, value, node, schema)
                if why:
                    raise UsageError(
                        f"The JSON schema of {what} cannot be enforced: {key!r} at {where} {why}."
                    )
    except RecursionError:
        raise UsageError(f"The JSON schema of {what} is nested too deeply; flatten it.") from None


def _nodes(schema: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, schema) of every schema object in a schema, outermost first."""
    if not isinstance(schema, Mapping):
        return
    yield where, schema
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _nodes(inner, f"{where}/{key}/{_step(name)}")
        elif key in SUBSCHEMAS + SUBSCHEMA and isinstance(value, list | tuple):
            for n, inner in enumerate(value):
                yield from _nodes(inner, f"{where}/{key}/{n}")
        elif key in SUBSCHEMA:
            yield from _nodes(value, f"{where}/{key}")


def _step(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _objection(key: Any, value: Any, node: Mapping[str, Any], root: Mapping[str, Any]) -> str | None:
    """Why a keyword cannot be held, or None."""
    if key in ANNOTATIONS or (isinstance(key, str) and key.startswith("x-") and key != "x-guidance"):
        return None
    if key not in ENFORCED:
        return "is not a keyword that the grammar can hold; leave it out"
    if key == "format" and value not in FORMATS:
        return f"is {str(value)[:40]!r}; of the formats, {', '.join(FORMATS)} are enforced"
    if key == "minProperties" and not _at_most(value, len(set(_strings(node.get("required")))) or 1):
        return (
            "is more than the number of required properties, which is not enforced; name them in 'required'"
        )
    if key in _NUMBERS and not _number(value):
        return "must be a number of at most 2^53"
    if key in ("enum", "const") and not _exact(value):
        return "holds a number beyond 2^53, which cannot be written exactly"
    if key == "pattern" and (not isinstance(value, str) or _doubtful(value)):
        return "is no pattern that reads the same everywhere (a set operation inside [...])"
    if key == "$ref":
        return _reference(value, root)
    return None


def _strings(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list | tuple) else []


def _at_most(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value <= limit


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _EXACT


def _exact(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_exact, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_exact, value))
    return not isinstance(value, int) or abs(value) <= _EXACT


def _doubtful(pattern: str) -> bool:
    """Whether a character class holds what Rust's dialect reads as a set operation and others as characters."""
    inside, n = False, 0
    while n < len(pattern):
        if pattern[n] == "\\":
            n += 2
            continue
        if inside and (pattern[n] == "[" or pattern[n : n + 2] in ("&&", "--", "~~")):
            return True
        inside = pattern[n] == "[" or (inside and pattern[n] != "]")
        n += 1
    return False


def _reference(ref: Any, root: Mapping[str, Any]) -> str | None:
    """References must lead to a place in the same schema, and not round in a circle with nothing between."""
    seen: list[Any] = []
    while True:
        if not isinstance(ref, str) or not ref.startswith("#"):
            return f"leads to {str(ref)[:60]!r}, outside this schema; put the schema in its place"
        if ref in seen:
            return f"leads from {ref[:60]!r} back to itself"
        if ref[1:2] not in ("", "/"):
            return None  # the name of an anchor
        seen.append(ref)
        here: Any = root
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(here, list | tuple) and name.isdecimal() and int(name) < len(here):
                here = here[int(name)]
            else:
                here = here.get(name) if isinstance(here, Mapping) else None
        if here is None:
            return f"leads to {ref[:60]!r}, which is not there"
        if not isinstance(here, Mapping) or "$ref" not in here:
            return None
        ref = here["$ref"]


def _blame(schema: Mapping[str, Any]) -> tuple[str, str]:
    """(keyword and place, reason) of the innermost schema that llguidance refuses by itself."""
    shared = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
    place, guilty = "#", schema
    for where, node in _nodes(schema, "#"):
        if where.count("/") > place.count("/") and _refusal({**shared, **node}):
            place, guilty = where, node
    reason = _refusal({**shared, **guilty}) or _refusal(schema)
    for key in sorted(guilty, key=lambda k: k == "type"):  # without its type nearly everything is possible
        if key not in shared and not _refusal({**shared, **{k: v for k, v in guilty.items() if k != key}}):
            return f"{key!r} at {place}", reason
    return place, reason


def _refusal(schema: Mapping[str, Any]) -> str:
    return _line(_compiled(None, json.dumps(schema)).get_error())


@functools.cache
def _letters() -> LLTokenizer:
    """The smallest vocabulary, for finding faults: 256 bytes and an end."""
    import llguidance

    class Words:
        eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
        tokens = (*(bytes([b]) for b in range(256)), b"\xff[256]")

        def __call__(self, text: bytes) -> list[int]:
            return list(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Words()))


def _line(text: str) -> str:
    """An error of llguidance on one line, without the end mark."""
    return " ".join(text.split())[:300].rstrip(".")

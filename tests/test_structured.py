"""Every keyword of JSON Schema is either held, shown by validating what was sampled along the masks, or refused by name."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from motet.engine import Bits, ConstraintError
from motet.errors import UsageError
from motet.harmony.structured import Schema, Value
from motet.library import find
from motet.tokenizer import Encoding, load_encoding, o200k_harmony

SAMPLES = 400 if os.environ.get("MOTET_FUZZ") == "full" else 12
RETURN, CALL = "<|return|>", "<|call|>"


@pytest.fixture(scope="module")
def mini() -> Encoding:
    return load_encoding(find("mini"))


def write(value: Value, encoding: Encoding, rng: random.Random, stop: int, longest: int = 250) -> str | None:
    """A random value along the masks, leaning towards its end; None if it became too long."""
    out: list[int] = []
    while len(out) < longest:
        mask = value.mask()
        assert isinstance(mask, Bits)
        lists = mask.lists(encoding.n_vocab)
        ids = (
            lists.ids.tolist()
            if type(lists).__name__ == "Only"
            else sorted(set(range(lists.size)) - set(lists.ids.tolist()))
        )
        assert ids, "nothing may come and the value is not complete"
        assert not set(ids) & encoding.not_text - {stop}, "a control token within reach"
        assert (stop in ids) == value.complete
        if stop in ids and (len(ids) == 1 or rng.random() < 0.4):
            return encoding.decode_bytes(out).decode("utf-8")
        rest = [i for i in ids if i != stop]
        closing = [i for i in rest if encoding.token_bytes(i)[-1:] in b'"}]' and rng.random() < 0.3]
        token = rng.choice(closing or rest)
        value.advance(token)
        out.append(token)
    return None


def samples(schema: Any, encoding: Encoding, n: int = SAMPLES) -> list[str]:
    stop = encoding.special(RETURN)
    made = Schema(schema, encoding, "the test")
    texts = [write(made.start(stop), encoding, random.Random(k), stop) for k in range(n)]
    return [t for t in texts if t is not None]


def obj(**kw: Any) -> dict[str, Any]:
    return {"type": "object", **kw}


INT, STR = {"type": "integer"}, {"type": "string"}
CLOSED = {"additionalProperties": False}
HELD: dict[str, Any] = {
    "type": {"type": "boolean"}, "type, several": {"type": ["string", "null"], "maxLength": 3}, "nothing": {"title": "any"},
    "enum": {"enum": [1, "a", None, {"x": 1}, [2.5]]}, "enum and type": {"type": "string", "enum": ["a", 1]},
    "const": {"const": {"a": [1, "\u00e9\n"]}}, "multipleOf": {"type": "integer", "multipleOf": 7},
    "multipleOf, fraction": {"type": "number", "multipleOf": 0.25}, "maximum": {"type": "number", "maximum": 10},
    "exclusiveMaximum": {"type": "integer", "exclusiveMaximum": 10, "minimum": -9}, "minimum": {"type": "integer", "minimum": -3},
    "exclusiveMinimum": {"type": "number", "exclusiveMinimum": 3.5, "maximum": 4}, "maxLength": {**STR, "maxLength": 3},
    "minLength": {**STR, "minLength": 3, "maxLength": 5}, "minLength alone": {"minLength": 2}, "pattern": {**STR, "pattern": "^[a-c]+$"},
    "pattern, anywhere": {**STR, "pattern": "ab", "maxLength": 6}, "pattern, classes": {**STR, "pattern": r"^\w\d\s?$"},
    "pattern and length": {**STR, "pattern": "^a*$", "minLength": 1, "maxLength": 3},
    "maxItems": {"type": "array", "items": INT, "maxItems": 2}, "minItems": {"type": "array", "items": INT, "minItems": 2},
    "items": {"type": "array", "items": {"enum": [1, "x"]}},
    "prefixItems": {"type": "array", "prefixItems": [INT, STR], "items": False}, "items, a list": {"type": "array", "items": [INT], "additionalItems": False},
    "properties": obj(properties={"a": INT}), "properties without type": {"properties": {"a": INT}},
    "required": obj(properties={"a": INT, "b": STR}, required=["b", "a"]), "required, undeclared": obj(required=["z"]),
    "additionalProperties, off": obj(properties={"a": INT, "b": STR}, **CLOSED),
    "additionalProperties": obj(properties={"a": STR, "b\n": STR}, additionalProperties=INT),
    "patternProperties": obj(patternProperties={"^x": INT}, required=["xa"], **CLOSED),
    "patternProperties and properties": obj(properties={"a": INT}, patternProperties={"^a": {"maximum": 3}}, required=["a"], **CLOSED),
    "maxProperties": obj(properties={"a": INT, "b": INT}, maxProperties=1, **CLOSED), "minProperties, one": obj(minProperties=1),
    "minProperties, required": obj(properties={"a": INT, "b": INT}, required=["a", "b"], minProperties=2),
    "allOf": {"allOf": [obj(properties={"a": INT}, required=["a"]), obj(properties={"b": STR}, required=["b"])]},
    "allOf, numbers": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "allOf, patterns": {"allOf": [{**STR, "pattern": "^a"}, {"pattern": "z$"}, {"maxLength": 6}]},
    "allOf, enums": {"allOf": [{"enum": [1, 2, "a"]}, {"enum": [2, "a", 3]}]}, "anyOf": {"anyOf": [INT, STR]},
    "anyOf beside others": {"type": "integer", "anyOf": [{"minimum": 5, "maximum": 9}, {"maximum": -5}]}, "oneOf": {"oneOf": [INT, STR]},
    "oneOf, told apart": {"oneOf": [obj(properties={"k": {"const": c}}, required=["k"]) for c in "ab"], "discriminator": {"propertyName": "k"}},
    "$ref": {"$ref": "#/$defs/x", "$defs": {"x": INT}}, "$ref and more": {"$ref": "#/$defs/x", "maximum": 3, "$defs": {"x": INT}},
    "definitions": {"$ref": "#/definitions/x", "definitions": {"x": INT}}, "$ref to a property": obj(properties={"a": INT, "b": {"$ref": "#/properties/a"}}, required=["b"]),
    "$ref, in a circle": {"$ref": "#/$defs/x", "$defs": {"x": obj(properties={"n": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}]}}, required=["n"], **CLOSED)}},
    "$ref to the whole": obj(properties={"c": {"$ref": "#"}}, **CLOSED), "$anchor": {"$ref": "#foo", "$defs": {"x": {"$anchor": "foo", **INT}}},
    "annotations": {**INT, "title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True, "readOnly": True,
                    "writeOnly": False, "$comment": "c", "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "http://x/y", "x-order": 3},
    "keys to escape": obj(properties={'a"b\\c\n\u00e9': INT}, required=['a"b\\c\n\u00e9'], **CLOSED), "a property called not": obj(properties={"not": INT, "if": STR}, required=["not"], **CLOSED),
    "nested": obj(properties={"a": {"type": "array", "items": obj(properties={"b": {"enum": ["x"]}}, required=["b"], **CLOSED), "minItems": 1}}, required=["a"], **CLOSED),
}  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.parametrize("name", HELD)
def test_what_is_accepted_is_held(name: str, mini: Encoding) -> None:
    schema = HELD[name]
    validator = (Draft7Validator if "a list" in name else Draft202012Validator)(schema)
    texts = samples(schema, mini)
    assert texts
    for text in texts:
        validator.validate(json.loads(text))


def known(words: str) -> Callable[[str], Any]:
    return re.compile(words).fullmatch


TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([zZ]|[+-]([01]\d|2[0-3]):[0-5]\d)"
FORMATS: dict[str, Callable[[str], Any]] = {
    "date": lambda s: __import__("datetime").date.fromisoformat(s), "time": known(TIME), "date-time": known(r"\d{4}-\d\d-\d\d[tT]" + TIME),
    "uuid": known(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), "ipv4": lambda s: __import__("ipaddress").IPv4Address(s),
    "ipv6": lambda s: __import__("ipaddress").IPv6Address(s), "duration": known(r"P(?!$)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)"),
    "hostname": known(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"),
    "email": known(r"\S+@\S+"), "uri": known(r"[A-Za-z][A-Za-z0-9+.-]*:\S*"),
}  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_held(name: str, mini: Encoding) -> None:
    # Of the years before 1 the calendar knows nothing.
    texts = [t for t in samples({**STR, "format": name}, mini, SAMPLES) if not t.startswith('"0000')]
    assert texts
    for text in texts:
        assert FORMATS[name](json.loads(text)), text


REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({**INT, "not": {"const": 3}}, "'not' at #"), "if": ({"if": {}, "then": {}}, "'if' at #"), "then": ({"then": {}}, "'then'"),
    "else": ({"else": {}}, "'else'"), "dependentRequired": (obj(dependentRequired={"a": ["b"]}), "'dependentRequired'"),
    "dependentSchemas": (obj(dependentSchemas={}), "'dependentSchemas'"), "dependencies": (obj(dependencies={}), "'dependencies'"),
    "uniqueItems": ({"type": "array", "uniqueItems": False}, "'uniqueItems' at #"), "contains": ({"contains": {}}, "'contains'"),
    "minContains": ({"minContains": 2}, "'minContains'"), "maxContains": ({"maxContains": 2}, "'maxContains'"),
    "propertyNames": (obj(propertyNames={"pattern": "^a"}), "'propertyNames'"), "unevaluatedItems": ({"unevaluatedItems": False}, "'unevaluatedItems'"),
    "unevaluatedProperties": (obj(unevaluatedProperties=False), "'unevaluatedProperties'"), "minProperties": (obj(minProperties=2), "'minProperties'"),
    "$dynamicRef": ({"$dynamicRef": "#x"}, "'$dynamicRef'"), "$dynamicAnchor": ({"$dynamicAnchor": "x"}, "'$dynamicAnchor'"), "$recursiveRef": ({"$recursiveRef": "#"}, "'$recursiveRef'"),
    "$ref elsewhere": ({"$ref": "https://x/y.json"}, "'$ref' at # leads to 'https://x/y.json', outside"), "$ref to nothing": ({"$ref": "#/$defs/no"}, "which is not there"),
    "$ref to itself": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "back to itself"),
    "contentEncoding": ({**STR, "contentEncoding": "base64"}, "'contentEncoding'"), "contentMediaType": ({**STR, "contentMediaType": "application/json"}, "'contentMediaType'"),
    "contentSchema": ({**STR, "contentSchema": INT}, "'contentSchema'"), "nullable": ({**INT, "nullable": True}, "'nullable'"), "a typing error": ({**INT, "maximun": 3}, "'maximun' at #"),
    "x-guidance": ({**INT, "x-guidance": {"lenient": True}}, "'x-guidance'"), "a format": ({**STR, "format": "iri"}, "'format' at # is 'iri'"),
    "the format unknown": ({**STR, "format": "unknown"}, "'unknown'"), "int32": ({**INT, "format": "int32"}, "'int32'"),
    "look-ahead": ({**STR, "pattern": "^(?=a)b"}, "'pattern' at #: "), "back reference": ({**STR, "pattern": r"^(a)\1$"}, "'pattern' at #: "),
    "word boundary": ({**STR, "pattern": r"\bfoo"}, "'pattern' at #: "), "set operation": ({**STR, "pattern": "[a-z&&b]"}, "'pattern' at # is no pattern"),
    "set difference": ({**STR, "pattern": "[a-z--b]"}, "'pattern'"), "nested class": ({**STR, "pattern": "[[a]]"}, "'pattern'"), "pattern of a number": ({**STR, "pattern": 3}, "'pattern'"),
    "oneOf that overlaps": ({"oneOf": [INT, {"type": "number"}]}, "'oneOf' at #"), "large const": ({"const": 12345678901234567890}, "'const' at # holds a number beyond"),
    "large enum": ({"enum": [{"a": [10**17]}]}, "'enum'"), "large minimum": ({**INT, "minimum": 10**17}, "'minimum'"), "minimum of text": ({**INT, "minimum": "3"}, "'minimum' at # must be a number"),
    "draft 4 exclusive": ({**INT, "exclusiveMinimum": True}, "'exclusiveMinimum'"), "unknown type": ({"type": "any"}, "'type' at #: Invalid type: any"),
    "enum of nothing": ({"enum": []}, "at #"), "empty range": ({**INT, "minimum": 5, "maximum": 3}, "minimum (5) is greater than maximum (3)"),
    "what cannot be": (obj(required=["z"], **CLOSED), "'required' at #"),
    "deep inside": (obj(properties={"a/b": {"type": "array", "items": {"anyOf": [INT, {"not": INT}]}}}), "'not' at #/properties/a~1b/items/anyOf/1"),
    "deep pattern": (obj(properties={"a": {"items": {**STR, "pattern": "(?<!x)"}}}), "'pattern' at #/properties/a/items"),
    "in a definition": ({"$ref": "#/$defs/x", "$defs": {"x": {"uniqueItems": True}}}, "'uniqueItems' at #/$defs/x"),
    "in additionalProperties": (obj(additionalProperties={"not": {}}), "'not' at #/additionalProperties"), "in prefixItems": ({"prefixItems": [INT, {"if": {}}]}, "#/prefixItems/1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_held_is_refused_by_name_and_place(name: str, mini: Encoding) -> None:
    schema, words = REFUSED[name]
    with pytest.raises(UsageError) as e:
        Schema(schema, mini, "the tool 'f'")
    assert (
        words in str(e.value)
        and "the tool 'f' cannot be enforced" in str(e.value)
        and "\n" not in str(e.value)
    )


def test_every_keyword_of_the_standard_is_one_or_the_other() -> None:
    """The vocabularies of draft 2020-12, and the words of draft 7 it left behind."""
    text = """
        $anchor $comment $defs $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalProperties allOf anyOf const
        contains contentEncoding contentMediaType contentSchema default dependentRequired dependentSchemas deprecated description
        else enum examples exclusiveMaximum exclusiveMinimum format if items maxContains maxItems maxLength maxProperties maximum
        minContains minItems minLength minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems properties
        propertyNames readOnly required then title type unevaluatedItems unevaluatedProperties uniqueItems writeOnly
        additionalItems definitions dependencies
    """
    words = set(text.split())
    held = json.dumps(list(HELD.values()))
    shown = {w for w in words if f'"{w}":' in held}
    refused = {
        w for w in words if any(f'"{w}":' in json.dumps(s) and f"'{w}'" in m for s, m in REFUSED.values())
    }
    assert words - shown - refused == {"$vocabulary"}  # a word of meta-schemas
    with pytest.raises(UsageError, match="vocabulary"):
        Schema({"$vocabulary": {}}, o200k_harmony(), "x")


def test_escaped_letters_cannot_smuggle_a_key_past_its_schema(mini: Encoding) -> None:
    stop = mini.special(RETURN)
    made = Schema(obj(properties={"a": STR}, additionalProperties=INT), mini, "x")
    for text in ('{"\\u0061": 5}', '{"a": 5}', '{"a": "x", "a": 5}', '{"\\u0062": 5}'):
        value = made.start(stop)
        with pytest.raises(ConstraintError):
            for t in mini.encode(text):
                value.advance(t)


def test_white_space_has_an_end_and_the_usual_layouts_pass(mini: Encoding) -> None:
    made = Schema({"type": "object"}, mini, "x")
    for text, passes in (
        (json.dumps({"a": [1, {"b": None}]}), True), (json.dumps({"a": [1, {"b": None}]}, indent=4), True), ('{"a":1}', True),
        (json.dumps([1], indent=2), False), ('{"a":' + " " * 9 + "1}", False), ("{\n\n\n}", False), (" {}", False), ("{} ", False),
    ):  # fmt: skip
        value = made.start(mini.special(RETURN))
        try:
            for t in mini.encode(text):
                value.advance(t)
            assert passes and value.complete, text
        except ConstraintError:
            assert not passes, text


@pytest.mark.parametrize("end", [RETURN, CALL])
def test_the_end_is_the_one_asked_for_in_both_vocabularies(end: str, mini: Encoding) -> None:
    for encoding in (mini, o200k_harmony()):
        stop = encoding.special(end)
        made = Schema({"enum": ["a", "abc"]}, encoding, "x")
        assert {write(made.start(stop), encoding, random.Random(k), stop) for k in range(6)} == {
            '"a"',
            '"abc"',
        }


def test_values_are_independent(mini: Encoding) -> None:
    made = Schema(INT, mini, "x")
    a, b = made.start(mini.special(RETURN)), made.start(mini.special(RETURN))
    a.advance(mini.encode("1")[0])
    assert a.complete and not b.complete


@pytest.mark.parametrize(
    "bad", [[], "x", 5, {"type": "object", "properties": {"a": {1, 2}}}, {"const": float("nan")}]
)
def test_what_is_no_schema_is_refused(bad: Any, mini: Encoding) -> None:
    with pytest.raises(UsageError, match="JSON schema of x"):
        Schema(bad, mini, "x")


def test_a_bottomless_schema_is_refused(mini: Encoding) -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="nested too deeply"):
        Schema(schema, mini, "x")

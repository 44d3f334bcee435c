"""Schemas rewritten before the model sees them: more is shown, nothing that was fine changes, losses are named."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings

import harmony_oracle as ho
from motet.harmony import Conversation, typescript
from motet.harmony.normal import normalise

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


def prop(schema: Any, **root: Any) -> str:
    """The text of one property."""
    out, _ = normalise({"type": "object", "properties": {"p": schema}, **root})
    return typescript(out).removeprefix("{\n").removesuffix("\n}")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "p?: string | null,"),
        ({"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}, 'p?: "a" | "b" | null,'),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}, "p?:\n | string\n | number[]\n,"),
        ({"const": "a"}, 'p?: "a",'),
        ({"enum": ["a", "b"]}, 'p?: "a" | "b",'),
        ({"$ref": "#/$defs/Point"}, "p?: {\n    x: number,\n    },"),
        ({"allOf": [{"$ref": "#/$defs/Point"}, {"type": "object", "properties": {"y": {"type": "string"}}}]},
         "p?: {\n    y?: string,\n    x: number,\n    },"),
        ({"$ref": "https://elsewhere"}, "p?: any,"),
    ],
)  # fmt: skip
def test_what_was_any_is_said(schema: Any, text: str) -> None:
    assert prop(schema, **{"$defs": {"Point": POINT}}) == text


def test_losses_are_named() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}, "e": {"enum": [1, 2]}}}
    assert normalise(schema)[1] == ("enum", "minimum")
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert Conversation.from_chat([], tools=[tool]).lost == ("f: enum", "f: minimum")


def test_a_schema_that_holds_itself_ends() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}}
    out, lost = normalise(tree)
    assert lost == ("$ref",)
    assert len(typescript(out)) < 2_000


def test_references_that_multiply_end() -> None:
    names = "abcdefghijklmnop"
    two = lambda n: {"type": "object", "properties": {k: {"$ref": f"#/$defs/{n}"} for k in "xyz"}}  # noqa: E731
    defs = {n: two(m) for n, m in itertools.pairwise(names)}
    out, lost = normalise({"$ref": "#/$defs/a", "$defs": {**defs, "p": {"type": "string"}}})
    assert "$ref" in lost
    assert len(typescript(out)) < 2_000_000


def test_references_in_a_circle_end() -> None:
    assert normalise({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})[1] == ("$ref",)


@given(ho.parameters)
@settings(max_examples=200, deadline=None)
def test_total(schema: dict[str, Any]) -> None:
    typescript(normalise(schema)[0])


def test_plain_schemas_stay_as_they_are() -> None:
    schema = {
        "type": "object",
        "properties": {"p": {"type": "string", "default": None, "title": "T"}, "q": POINT},
        "required": ["p"],
    }
    assert normalise(schema) == (schema, ())

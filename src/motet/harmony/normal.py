"""Schemas rewritten so that the model sees more of them: what would be shown as `any` is said in words TypeScript has.

Local `$ref`s are put in place, `anyOf` becomes a list of types or `oneOf`, `allOf` of objects one object, `const` and
unnamed string enums an enum. Schemas that need none of this come back as they are. Meaning is kept or widened, never
narrowed. Knows no rendering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLAIN = ("string", "number", "integer", "boolean", "null")
_SILENT = (
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties",
    "propertyNames", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "contains", "prefixItems",
)  # fmt: skip
_NODES = 5_000  # references can multiply without end; what comes after this many schemas is shown as any
_DEPTH = 64


def normalise(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the schema to show, the keywords the model will not see, sorted)."""
    lost: set[str] = set()
    out = _Walk(schema, lost).walk(schema, ())
    return (out if isinstance(out, dict) else {}), tuple(sorted(lost))


class _Walk:
    """One pass over a schema; `refs` are the references being put in place, outermost first."""

    def __init__(self, root: Mapping[str, Any], lost: set[str]) -> None:
        self.root, self.lost, self.left = root, lost, _NODES

    def walk(self, schema: Any, refs: tuple[str, ...], depth: int = 0) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        self.left -= 1
        if self.left < 0 or depth > _DEPTH:
            self.lost.add("$ref" if refs else "depth")
            return {}
        if "$ref" in schema:
            ref = str(schema["$ref"])
            target = None if ref in refs else _find(ref, self.root)
            if target is None:  # elsewhere, or inside itself
                self.lost.add("$ref")
            merged = {**(target or {}), **{k: v for k, v in schema.items() if k != "$ref"}}
            return self.walk(merged, (*refs, ref), depth + 1)
        out = {k: v for k, v in schema.items() if k not in ("$defs", "definitions")}
        _all_of(out, self.root, self.lost)
        _any_of(out)
        _enum(out, self.lost)
        self.lost.update(k for k in (*_SILENT, "anyOf", "allOf") if k in out)
        if isinstance(out.get("properties"), Mapping):
            out["properties"] = {k: self.walk(v, refs, depth + 1) for k, v in out["properties"].items()}
            out.setdefault("type", "object")
        if "items" in out:
            out["items"] = self.walk(out["items"], refs, depth + 1)
        if isinstance(out.get("oneOf"), list | tuple):
            out["oneOf"] = [self.walk(v, refs, depth + 1) for v in out["oneOf"]]
        return out


def _enum(out: dict[str, Any], lost: set[str]) -> None:
    if "const" in out and "enum" not in out:
        out["enum"] = [out.pop("const")]
    values = out.get("enum")
    if isinstance(values, list | tuple) and values:
        texts = all(isinstance(v, str) for v in values)
        if "type" not in out and texts:
            out["type"] = "string"
        elif out.get("type") != "string" or not texts:
            lost.add("enum")


def _find(ref: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a local reference such as `#/$defs/Point` names."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    here: Any = root
    for step in ref[1:].split("/")[1:]:
        here = here.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else None


def _all_of(out: dict[str, Any], root: Mapping[str, Any], lost: set[str]) -> None:
    """Puts the members of `allOf` into one object, if every member is one."""
    members = out.get("allOf")
    if not isinstance(members, list | tuple):
        return
    seen = [_find(m["$ref"], root) if isinstance(m, Mapping) and "$ref" in m else m for m in members]
    found = [m for m in seen if isinstance(m, Mapping)]
    if len(found) < len(seen) or not all(not {"$ref", "allOf", "anyOf", "oneOf"} & set(m) for m in found):
        return
    del out["allOf"]
    for member in found:
        for key, value in member.items():
            if key == "properties" and isinstance(value, Mapping):
                out["properties"] = {**value, **out.get("properties", {})}
            elif key == "required" and isinstance(value, list | tuple):
                out["required"] = [*out.get("required", []), *value]
            elif key in _SILENT:
                lost.add(key)
            else:
                out.setdefault(key, value)


def _any_of(out: dict[str, Any]) -> None:
    """`anyOf` as a list of plain types where that says everything, else as `oneOf`."""
    members = out.get("anyOf")
    if not isinstance(members, list | tuple) or not members or "oneOf" in out or "type" in out:
        return
    del out["anyOf"]
    if all(isinstance(m, Mapping) and set(m) == {"type"} and m["type"] in _PLAIN for m in members):
        out["type"] = [m["type"] for m in members]
        return
    others = [m for m in members if not (isinstance(m, Mapping) and dict(m) == {"type": "null"})]
    if len(others) == 1 and len(members) > 1 and isinstance(others[0], Mapping) and "$ref" not in others[0]:
        for key, value in others[0].items():
            out.setdefault(key, value)
        out["nullable"] = True
        return
    out["oneOf"] = list(members)

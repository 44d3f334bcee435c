"""Schemas rewritten so that the model sees more of them: what would be shown as `any` is said in words TypeScript has.

Local `$ref`s are put in place, `allOf` becomes one schema, `anyOf` a list of types, an enum, `nullable` or `oneOf`; values
that TypeScript text cannot list (numbers, mixed ones) are named in the description. Schemas that need none of this come
back as they are. Meaning is kept or widened, never narrowed. Knows no rendering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from motet.harmony.schema import dump, typescript

_PLAIN = ("string", "number", "integer", "boolean", "null")
_NESTED = ("object", "array")
# Enforced on arguments and answers where that was asked for; the model is not shown them.
SILENT = (
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties",
    "propertyNames", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains",
    "minContains", "maxContains", "prefixItems", "additionalItems", "unevaluatedProperties", "unevaluatedItems",
    "contentEncoding", "contentMediaType", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_NODES = 5_000  # references can multiply without end; what comes after this many schemas is shown as any
_DEPTH = 64
_WORDS = 600  # characters of values named in a description; the rest is counted


def normalise(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the schema to show, the keywords the model will not see, sorted)."""
    lost: set[str] = set()
    out = _Walk(schema, lost).walk(schema, frozenset(), 0)
    return (out if isinstance(out, dict) else {}), tuple(sorted(lost))


class _Walk:
    """One pass over a schema; `refs` are the references being put in place around the place that is read."""

    def __init__(self, root: Mapping[str, Any], lost: set[str]) -> None:
        self.root, self.lost, self.left = root, lost, _NODES

    def walk(self, schema: Any, refs: frozenset[str], depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        out, refs = self.flat(schema, refs, depth)
        self._types(out)
        self._choice(out, refs, depth)
        self._enum(out)
        self._map(out, refs, depth)
        self.lost.update(k for k in SILENT if k in out)
        if isinstance(out.get("properties"), Mapping):
            out["properties"] = {k: self.walk(v, refs, depth + 1) for k, v in out["properties"].items()}
            out.setdefault("type", "object")
        if "items" in out:
            out["items"] = self.walk(out["items"], refs, depth + 1)
            out.setdefault("type", "array")
        if isinstance(out.get("oneOf"), list | tuple):
            out["oneOf"] = [self.walk(v, refs, depth + 1) for v in out["oneOf"]]
        return out

    def flat(
        self, schema: Mapping[str, Any], refs: frozenset[str], depth: int
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """The schema with its own `$ref` and `allOf` put into one object, and the references now open."""
        self.left -= 1
        if self.left < 0 or depth > _DEPTH:
            self.lost.add("$ref" if refs else "depth")
            return {}, refs
        hidden = ("$defs", "definitions", "$ref", "allOf", "$schema", "$id", "$comment")
        out = {k: v for k, v in schema.items() if k not in hidden}
        if "$ref" in schema:
            ref = schema["$ref"]
            target = None if not isinstance(ref, str) or ref in refs else _find(ref, self.root)
            if target is None:  # elsewhere, or inside itself
                self.lost.add("$ref")
            else:
                found, refs = self.flat(target, refs | {ref}, depth + 1)
                self._merge(out, found)
        members = schema.get("allOf")
        for member in members if isinstance(members, list | tuple) else ():
            if isinstance(member, Mapping):
                found, refs = self.flat(member, refs, depth + 1)
                self._merge(out, found)
        return out, refs

    def _merge(self, out: dict[str, Any], more: Mapping[str, Any]) -> None:
        """Adds what must hold as well. Where both say something of one thing, the first is shown."""
        for key, value in more.items():
            if key == "properties" and isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
                out[key] = {**out[key], **{k: v for k, v in value.items() if k not in out[key]}}
            elif (
                key == "required"
                and isinstance(value, list | tuple)
                and isinstance(out.get(key), list | tuple)
            ):
                out[key] = [*out[key], *(v for v in value if v not in out[key])]
            elif key not in out:
                out[key] = value
            elif out[key] != value and key not in ("title", "description", "default", "examples"):
                self.lost.add("allOf" if key not in SILENT else key)

    def _types(self, out: dict[str, Any]) -> None:
        """A list of types says nothing of properties, items and values: one type with `nullable`, or one variant each."""
        types = out.get("type")
        if not isinstance(types, list | tuple) or not all(isinstance(t, str) for t in types):
            return
        others = [t for t in dict.fromkeys(types) if t != "null"]
        more = "enum" in out or "const" in out or any(t in _NESTED for t in others)
        if not more or not others:
            return
        if len(others) == 1:
            out["type"] = others[0]
            out |= {"nullable": True} if "null" in types else {}
        elif any(t in _NESTED for t in others) and not {"enum", "const", "oneOf", "anyOf"} & out.keys():
            own = {"object": ("properties", "required", "additionalProperties"), "array": ("items",)}
            parts = {t: {k: out.pop(k) for k in own.get(t, ()) if k in out} for t in others}
            del out["type"]
            out["oneOf"] = [{"type": t, **parts[t]} for t in others]
            if "null" in types:
                out["oneOf"][-1]["nullable"] = True

    def _choice(self, out: dict[str, Any], refs: frozenset[str], depth: int) -> None:
        """`anyOf` and `oneOf`: in the simplest form that says the same."""
        for key in ("anyOf", "oneOf"):
            members = out.get(key)
            if not isinstance(members, list | tuple) or (key == "oneOf" and not members):
                continue
            told = {"type", "properties", "items", "enum", "const"} & out.keys()
            if told or (key == "anyOf" and ("oneOf" in out or not members)):
                # rules between what is shown already; a list of variants would hide it
                del out[key]
                self.lost.add(key)
                continue
            flat = [self.flat(m, refs, depth + 1)[0] if isinstance(m, Mapping) else m for m in members]
            others = [m for m, f in zip(members, flat, strict=True) if not _is_null(f)]
            self._choose(out, key, flat, others, refs, depth)

    def _choose(
        self,
        out: dict[str, Any],
        key: str,
        flat: list[Any],
        others: list[Any],
        refs: frozenset[str],
        depth: int,
    ) -> None:
        null = len(others) < len(flat)
        if key == "anyOf" and all(
            isinstance(m, Mapping) and set(m) == {"type"} and m["type"] in _PLAIN for m in flat
        ):
            del out[key]
            out["type"] = [m["type"] for m in flat]
        elif key == "anyOf" and (values := _texts_of(m for m in flat if not _is_null(m))):
            del out[key]
            out |= {"type": "string", "enum": values, **({"nullable": True} if null else {})}
        elif len(others) == 1 and isinstance(others[0], Mapping) and (null or key == "anyOf"):
            del out[key]
            one = self.walk(others[0], refs, depth + 1)
            for k, v in one.items():
                out.setdefault(k, v)
            if null:
                out["nullable"] = True
        elif null and others:
            del out[key]
            last = self.walk(others[-1], refs, depth + 1)
            last = {**last, "nullable": True} if isinstance(last, Mapping) else last
            out["oneOf"] = [*others[:-1], last]
        else:
            out["oneOf"] = list(out.pop(key))

    def _enum(self, out: dict[str, Any]) -> None:
        """Texts become an enum; other values are named in the description, for TypeScript text has no word for them."""
        if "const" in out and "enum" not in out:
            out["enum"] = [out.pop("const")]
        values = out.get("enum")
        if not isinstance(values, list | tuple) or not values:
            return
        texts = [v for v in values if isinstance(v, str)]
        listed = len(texts) == len(values) or (texts and len(texts) == len(values) - 1 and None in values)
        if listed and out.get("type", "string") == "string":
            if len(texts) < len(values):
                out |= {"nullable": True, "enum": texts}
            out["type"] = "string"
            return
        del out["enum"]
        kinds = {_kind(v) for v in values}
        if "type" not in out and len(kinds) == 1:
            out["type"] = kinds.pop()
        _say(out, f"Always {dump(values[0])}." if len(values) == 1 else f"One of: {_listed(values)}.")

    def _map(self, out: dict[str, Any], refs: frozenset[str], depth: int) -> None:
        """An object of free keys would be shown as an empty one."""
        value = out.get("additionalProperties")
        if not isinstance(value, Mapping) or out.get("properties") or out.get("type", "object") != "object":
            return
        text = typescript(self.walk(value, refs, depth + 1))
        if "\n" not in text and text != "any":
            _say(out, f"Any keys; each value: {text}.")
            del out["additionalProperties"]
            out["type"] = "object"


def _say(out: dict[str, Any], words: str) -> None:
    before = out.get("description")
    out["description"] = f"{before} {words}" if isinstance(before, str) and before else words


def _listed(values: Any) -> str:
    words = [dump(v) for v in values]
    n = len(words)
    while len(", ".join(words)) > _WORDS and len(words) > 1:
        words = words[: len(words) * 3 // 4]
    return ", ".join(words) + (f" and {n - len(words)} more" if len(words) < n else "")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", tuple: "array", type(None): "null"}.get(type(value), "object")


def _is_null(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    return (
        schema.get("type") == "null"
        or ("const" in schema and schema["const"] is None)
        or schema.get("enum") == [None]
    )


def _texts_of(members: Any) -> list[str]:
    """The texts that members of nothing but texts allow, in order; empty if any says more."""
    out: list[str] = []
    for m in members:
        values = m.get("enum", [m["const"]] if "const" in m else None) if isinstance(m, Mapping) else None
        if not isinstance(values, list | tuple) or not set(m) <= {"type", "enum", "const"}:
            return []
        if not values or not all(isinstance(v, str) for v in values) or m.get("type", "string") != "string":
            return []
        out += [v for v in values if v not in out]
    return out


def _find(ref: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a local reference such as `#/$defs/Point` names (RFC 6901, in its URI form)."""
    if not ref.startswith("#") or (len(ref) > 1 and ref[1] != "/"):
        return None
    here: Any = root
    for step in ref[1:].split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(here, Mapping):
            here = here.get(key)
        elif isinstance(here, list | tuple) and key.isascii() and key.isdigit() and len(key) < 9:
            here = here[int(key)] if int(key) < len(here) else None
        else:
            return None
    return here if isinstance(here, Mapping) else None

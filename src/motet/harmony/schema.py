"""JSON Schema as the TypeScript that models were trained on, and the `# Tools` section around it.

Equal to openai/harmony (src/encoding.rs), oddities included, because the text is what the model has seen: what it cannot
say becomes `any`. Knows no messages and no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = (
    Any  # whatever JSON holds; the published code reads objects and takes everything else for "no such key"
)


@dataclass(frozen=True)
class Function:
    """One callable of a namespace. `parameters` is the JSON Schema the model is shown; None: it takes nothing.

    `strict`: arguments must obey the schema. `given` is the schema as it came, where `parameters` was rewritten for the
    model's eyes (normal.py); arguments are held to that one.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    given: Mapping[str, Any] | None = None

    @property
    def enforced(self) -> Mapping[str, Any] | None:
        """The schema that arguments are held to."""
        return self.parameters if self.given is None else self.given


@dataclass(frozen=True)
class Namespace:
    """Callables under one name. Without functions the description stands as prose (as for `python`)."""

    name: str
    description: str | None = None
    functions: tuple[Function, ...] = field(default=())


@dataclass(frozen=True)
class ResponseFormat:
    """A JSON Schema the final answer should obey; named in the developer message, enforced only by the grammar."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    strict: bool = False


def formats_section(formats: Iterable[ResponseFormat]) -> str:
    """`# Response Formats` with every format (openai/harmony, docs/format.md, "Structured output")."""
    return "\n\n".join(["# Response Formats", *map(_format, formats)])


def _format(f: ResponseFormat) -> str:
    return "\n".join([f"## {f.name}\n", *(f"// {line}" for line in lines(f.description)), dump(f.schema)])


def tools_section(namespaces: Iterable[Namespace]) -> str:
    """`# Tools` with every namespace, in alphabetical order."""
    ordered = sorted(namespaces, key=lambda n: n.name.encode())
    return "\n\n".join(["# Tools", *map(_namespace, ordered)])


def _namespace(ns: Namespace) -> str:
    mark = "// " if ns.functions else ""
    out = [f"## {ns.name}\n", *(mark + line for line in lines(ns.description or ""))]
    if ns.functions:
        out.append(f"namespace {ns.name} {{\n")
        for f in ns.functions:
            out += [f"// {line}" for line in lines(f.description)]
            takes = "()" if f.parameters is None else f"(_: {typescript(f.parameters)})"
            out.append(f"type {f.name} = {takes} => any;\n")
        out.append(f"}} // namespace {ns.name}")
    return "\n".join(out)


def lines(text: str) -> list[str]:
    """Lines as Rust's `str::lines` cuts them: at \\n or \\r\\n, no empty last line."""
    parts = text.split("\n")
    last = parts.pop()
    return [p.removesuffix("\r") for p in parts] + ([last] if last else [])


def typescript(schema: Schema, indent: str = "") -> str:
    """The type of a schema. `indent` stands before the lines of a nested object."""
    variants = _list(schema, "oneOf")
    if variants is not None:
        return "".join(_variant(v, indent) for v in variants)
    types = _list(schema, "type")
    if types is not None:
        names = ["number" if t == "integer" else t for t in types if isinstance(t, str)]
        if names:
            return " | ".join(names)
    kind = _get(schema, "type")
    if kind == "object":
        return _object(schema, indent)
    if kind == "string":
        values = [f'"{v}"' for v in _list(schema, "enum") or [] if isinstance(v, str)]
        return " | ".join(values) or "string"
    if kind == "array":
        return "Array<any>" if not _has(schema, "items") else f"{typescript(schema['items'], indent)}[]"
    if kind in ("number", "integer"):
        return "number"
    return "boolean" if kind == "boolean" else "any"


def _variant(schema: Schema, indent: str) -> str:
    text = f"\n{indent} | {_nullable(schema, typescript(schema, indent + '   '))}"
    comments = [d for d in [_string(schema, "description")] if d is not None]
    if _has(schema, "default"):
        default = schema["default"]
        plain = isinstance(default, str) and not _is_enum(schema)
        # here, and only here, the default of an enum keeps its quotes and its escapes
        comments.append(f'default: "{default}"' if plain else f"default: {dump(default)}")
    return text + (f" // {' '.join(comments)}" if comments else "")


def _object(schema: Schema, indent: str) -> str:
    description = _string(schema, "description")
    out = [] if description is None else [f"{indent}// {description}\n"]
    out.append("{\n")
    properties = _get(schema, "properties")
    if isinstance(properties, Mapping):
        required = {r for r in _list(schema, "required") or [] if isinstance(r, str)}
        for key, value in properties.items():
            out += _property(key + ("" if key in required else "?"), value, indent)
    return "".join([*out, indent, "}"])


def _property(label: str, schema: Schema, indent: str) -> list[str]:
    out: list[str] = []
    title, description = _string(schema, "title"), _string(schema, "description")
    if title is not None:
        out.append(f"{indent}// {title}\n{indent}//\n")
    if description is not None and not _has(schema, "oneOf"):
        out.append(f"{indent}// {description}\n")
    examples = _list(schema, "examples")
    if examples:
        out.append(f"{indent}// Examples:\n")
        out += [f'{indent}// - "{e}"\n' for e in examples if isinstance(e, str)]
    variants = _list(schema, "oneOf")
    if variants is not None:
        return out + _one_of(label, schema, variants, indent)
    out.append(f"{indent}{label}: {_nullable(schema, typescript(schema, indent + '    '))},")
    if _has(schema, "default") and not _has(schema, "oneOf"):
        out.append(f" // {_default(schema)}")
    return [*out, "\n"]


def _one_of(label: str, schema: Schema, variants: list[Any], indent: str) -> list[str]:
    out: list[str] = []
    description = _string(schema, "description")
    first = _string(variants[0], "description") if variants else None
    above = description is not None and description != first
    if above:
        out.append(f"{indent}// {description}\n")
    if _has(schema, "default"):
        out.append(f"{indent}// {_default(schema)}\n")
    out.append(f"{indent}{label}:\n")
    for n, variant in enumerate(variants):
        out.append(f"{indent} | {_nullable(variant, typescript(variant, indent + '   '))}")
        own = _string(variant, "description")
        comments = [] if own is None or own == description or (n == 0 and above) else [own]
        if _has(variant, "default"):
            comments.append(_default(variant))
        out.append((f" // {' '.join(comments)}" if comments else "") + "\n")
    return [*out, f"{indent},\n"]


def _default(schema: Schema) -> str:
    value = schema["default"]
    if isinstance(value, str):
        return f"default: {value}" if _is_enum(schema) else f'default: "{value}"'
    return f"default: {dump(value)}"


def _nullable(schema: Schema, text: str) -> str:
    return f"{text} | null" if _get(schema, "nullable") is True and "null" not in text else text


def _has(schema: Schema, key: str) -> bool:
    return isinstance(schema, Mapping) and key in schema


def _get(schema: Schema, key: str) -> Any:
    return schema[key] if _has(schema, key) else None


def _list(schema: Schema, key: str) -> list[Any] | None:
    value = _get(schema, key)
    return list(value) if isinstance(value, list | tuple) else None


def _string(schema: Schema, key: str) -> str | None:
    value = _get(schema, key)
    return value if isinstance(value, str) else None


def _is_enum(schema: Schema) -> bool:
    return bool(_list(schema, "enum"))


def dump(value: Any) -> str:
    """Compact JSON, numbers written as serde_json writes them."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 64:
            return str(value)
        return _float(float(value) if value.bit_length() < 1024 else float("inf"))
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{dump(str(k))}:{dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _float(value: float) -> str:
    """Shortest digits, laid out as serde_json does: plain from 1e-5 up to 1e16, else 1.5e-7 or 1e+16."""
    if value != value or value in (float("inf"), float("-inf")):
        return "null"
    sign = "-" if str(value).startswith("-") else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0.0"
    if 0 < point <= 16:
        return sign + digits[:point].ljust(point, "0") + "." + (digits[point:] or "0")
    if -5 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return (
        sign
        + digits[0]
        + (f".{digits[1:]}" if digits[1:] else "")
        + (f"e+{point - 1}" if point > 0 else f"e{point - 1}")
    )

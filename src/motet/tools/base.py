"""The protocol every tool follows, and a Python function as a tool.

A tool declares a namespace (what the model reads) and answers calls with text. Knows nothing of turns and tokens.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from motet.harmony import Function, Namespace


class ToolError(Exception):
    """A call that failed in a way the model should read; its text becomes the result."""


@runtime_checkable
class Tool(Protocol):
    """Something a model can call."""

    @property
    def namespace(self) -> Namespace:
        """What the model is told. `functions` is declared in the developer message, anything else in the system message."""
        ...

    def call(self, recipient: str, content: str) -> str:
        """Answers a call addressed to `recipient` (such as `functions.f`); ToolError for what the model did wrong."""
        ...


class FunctionTool:
    """A Python function as `functions.NAME`. Arguments come from the call's JSON object, by name.

    Without `parameters` the JSON Schema is read off the signature: str, int, float, bool, list, dict, their unions with
    None, and Literal of strings; anything else is `any`. The docstring's first paragraph is the description.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._function = function
        doc = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        self._declared = Function(
            name or function.__name__,
            doc if description is None else description,
            _signature(function) if parameters is None else parameters,
        )

    @property
    def namespace(self) -> Namespace:
        """`functions` with this one function."""
        return Namespace("functions", None, (self._declared,))

    def call(self, recipient: str, content: str) -> str:
        """Runs the function. A text comes back as it is, anything else as JSON."""
        try:
            arguments = json.loads(content) if content.strip() else {}
        except json.JSONDecodeError as e:
            raise ToolError(f"The arguments are not JSON: {e.msg} at character {e.pos}.") from None
        except RecursionError:
            raise ToolError("The arguments are nested too deeply.") from None
        if not isinstance(arguments, dict):
            raise ToolError("The arguments must be a JSON object.")
        try:
            inspect.signature(self._function).bind(**arguments)
        except TypeError as e:
            raise ToolError(f"Wrong arguments for {self._declared.name}: {e}.") from None
        value = self._function(**arguments)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}


def _signature(function: Callable[..., Any]) -> dict[str, Any] | None:
    """The parameters as JSON Schema; None when the function takes nothing."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # an annotation that names something unknown
        hints = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, p in inspect.signature(function).parameters.items():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
            continue
        schema = _schema(hints.get(name))
        if p.default is p.empty:
            required.append(name)
        elif isinstance(p.default, str | int | float | bool):
            schema["default"] = p.default
        properties[name] = schema
    if not properties:
        return None
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _schema(hint: Any) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [_schema(a).get("type") for a in args]
        return {"type": kinds} if all(isinstance(k, str) for k in kinds) else {}
    if origin is typing.Literal and all(isinstance(a, str) for a in args):
        return {"type": "string", "enum": list(args)}
    if hint is list or origin is list:
        return {"type": "array", **({"items": _schema(args[0])} if args else {})}
    kind = _TYPES.get(origin or hint)
    return {"type": kind} if kind else {}

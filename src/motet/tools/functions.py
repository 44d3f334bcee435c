"""A Python function as a tool: its signature is the schema, pydantic checks the arguments, its docstring speaks.

Sync and async functions, and generators, whose yields are progress. Knows no turns; who runs the call keeps its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from motet.harmony import Function, Namespace
from motet.harmony.normal import normalise
from motet.tools import base
from motet.tools.base import Answer, ToolError

if TYPE_CHECKING:
    from pydantic import BaseModel

_SECTIONS = re.compile(
    r"^(args|arguments|parameters|returns?|yields?|raises?|examples?|notes?):\s*$", re.I | re.M
)
_SHOWN_ERRORS = 5


class FunctionTool:
    """A Python function as `functions.NAME`. Arguments come from the call's JSON object, by name.

    Without `parameters` the JSON Schema is read off the signature: whatever pydantic understands (Optional, Literal, Enum,
    dataclass, TypedDict, list, models); anything else is `any`. The docstring's text before a section is the description,
    its `Args:` describe the parameters. Arguments are checked before the function runs, and the model is told what is
    wrong with them. A generator's yields are progress; its `return` is the answer, or all it yielded if it returns nothing.
    """

    parallel = True  # may run beside other calls of one turn

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self._function, self.timeout_s = function, timeout_s
        doc = inspect.cleandoc(function.__doc__ or "")
        text = doc[: m.start()] if (m := _SECTIONS.search(doc)) else doc
        self._model = _model(function, name or function.__name__) if parameters is None else None
        if self._model is not None:
            parameters = _schema(self._model, _described(doc))
        self._declared = Function(
            name or function.__name__, text.strip() if description is None else description, parameters
        )

    @property
    def namespace(self) -> Namespace:
        """`functions` with this one function."""
        return Namespace("functions", None, (self._declared,))

    def call(self, recipient: str, content: str) -> str | Answer:
        """Runs the function. A text or an Answer comes back as it is, anything else as JSON."""
        return _told(_finish(self._function(**self._arguments(arguments_of(content)))))

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        name = self._declared.name
        if self._model is None:
            try:
                inspect.signature(self._function).bind(**given)
            except TypeError as e:
                raise ToolError(f"Wrong arguments for {name}: {e}.") from None
            return given
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(given)
        except ValidationError as e:
            raise ToolError(f"Wrong arguments for {name}: {_said(e.errors(include_url=False))}") from None
        fields = type(checked).model_fields
        return {f.alias or n: getattr(checked, n) for n, f in fields.items() if n in checked.model_fields_set}


def arguments_of(content: str) -> dict[str, Any]:
    """A call's arguments; ToolError for what is no JSON object. Nothing at all counts as no arguments."""
    import json

    try:
        value = json.loads(content) if content.strip() else {}
    except json.JSONDecodeError as e:
        raise ToolError(f"The arguments are not JSON: {e.msg} at character {e.pos}.") from None
    except (RecursionError, ValueError):
        raise ToolError("The arguments are nested too deeply or hold a number too long to read.") from None
    if not isinstance(value, dict):
        raise ToolError("The arguments must be a JSON object.")
    return value


def _model(function: Callable[..., Any], name: str) -> type[BaseModel] | None:
    """A pydantic model of the parameters; None when the function takes nothing."""
    from pydantic import ConfigDict, Field, create_model

    hints = _hints(function)
    fields: dict[str, Any] = {}
    for n, p in inspect.signature(function).parameters.items():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
            continue
        hint = _understood(hints.get(n, Any))
        default = ... if p.default is p.empty else p.default
        # Fields are numbered and the parameter's name is an alias: no name is forbidden to a parameter then.
        fields[f"p{len(fields)}"] = (hint, Field(default, alias=n))
    if not fields:
        return None
    # Named by its type alone: what the model reads is the schema, in which titles are left out.
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read; one that names something unknown does not spoil the others."""
    out: dict[str, Any] = {}
    inner = inspect.unwrap(function)
    for name, hint in getattr(inner, "__annotations__", {}).items():
        holder = type("holder", (), {"__annotations__": {name: hint}})
        with contextlib.suppress(Exception):
            out |= typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)
    return out


def _understood(hint: Any) -> Any:
    """The annotation, or Any where JSON cannot hold such a value."""
    from pydantic import TypeAdapter

    try:
        TypeAdapter(hint).json_schema()
    except Exception:  # pydantic has a dozen ways to say that it does not know a type
        return Any
    return hint


def _schema(model: type[BaseModel], described: Mapping[str, str]) -> dict[str, Any]:
    schema = bare(model.model_json_schema(by_alias=True))
    for name, text in described.items():
        if name in schema["properties"]:
            schema["properties"][name].setdefault("description", text)
    return normalise(schema)[0]


def bare(schema: Any, inside: bool = False) -> Any:
    """Without the titles that pydantic makes up and defaults of null, which say nothing to a model."""
    if isinstance(schema, list):
        return [bare(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    keep = {
        k: v
        for k, v in schema.items()
        if inside or not (k == "title" or (k == "default" and not isinstance(v, str | int | float)))
    }
    return {
        k: v if k == "default" and not inside else bare(v, k in ("properties", "$defs") and not inside)
        for k, v in keep.items()
    }


def _described(doc: str) -> dict[str, str]:
    """The lines `name: text` of a docstring's `Args:`."""
    match = re.search(r"^(?:args|arguments|parameters):\s*\n((?:[ \t]+.*\n?|\n)+)", doc, re.I | re.M)
    out: dict[str, str] = {}
    last = ""
    for line in match[1].splitlines() if match else ():
        if found := re.match(r"\s+\**(\w+)(?:\s*\([^)]*\))?:\s*(.+)", line):
            last = found[1]
            out[last] = found[2].strip()
        elif last and line.strip():
            out[last] += " " + line.strip()
    return out


def _said(errors: list[Any]) -> str:
    parts = []
    for e in errors[:_SHOWN_ERRORS]:
        where = ".".join(map(str, e["loc"])) or "arguments"
        got = "" if e["type"] in ("missing", "extra_forbidden") else f" (got {ascii(e['input'])[:80]})"
        parts.append(f"{where}: {e['msg']}{got}")
    more = len(errors) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "") + "."


def _finish(value: Any) -> Any:
    """What a function's value comes to: awaits what must be awaited, runs a generator to its end."""
    if inspect.isasyncgen(value):
        return asyncio.run(_interruptible(_drain(value)))
    if inspect.isawaitable(value):
        return asyncio.run(_interruptible(value))
    if not inspect.isgenerator(value):
        return value
    said: list[str] = []
    try:
        while not base.cancelled():
            said.append(_heard(next(value)))
        value.close()
        raise ToolError("Cancelled.")
    except StopIteration as end:
        return "".join(said) if end.value is None else end.value


async def _drain(values: Any) -> str:
    return "".join([_heard(v) async for v in values])


def _heard(value: Any) -> str:
    text = _told(value)
    said = text.text if isinstance(text, Answer) else text
    base.progress(said)
    return said


async def _interruptible(work: Awaitable[Any]) -> Any:
    """Awaits, looking up now and then whether the call has been cancelled."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait([task], timeout=0.05))[0]:
        if base.cancelled():
            task.cancel()
    try:
        return task.result()
    except asyncio.CancelledError:
        raise ToolError("Cancelled.") from None


def _told(value: Any) -> str | Answer:
    if isinstance(value, str | Answer):
        return value
    from pydantic_core import to_json

    return to_json(value, fallback=str, inf_nan_mode="constants").decode("utf-8", "replace")

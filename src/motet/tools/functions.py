"""A Python function as a tool: its signature is the schema, pydantic checks the arguments, its docstring speaks.

Sync and async functions, and generators, whose yields are progress. Knows no turns; who runs the call keeps its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import types
import typing
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from motet.errors import UsageError
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

    Without `parameters` (a JSON Schema, which then judges the arguments) the schema is read off the signature: whatever
    pydantic understands (Optional, Literal, Enum, dataclass, TypedDict, list, models); anything else is `any`. The docstring's text before a section is the description,
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
        name = name or str(getattr(function, "__name__", ""))
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            raise UsageError(
                f"{name or function!r} is no name a model can call; give FunctionTool(..., name='...')."
            )
        known = _parameters(function)
        if known is None and parameters is None:
            raise UsageError(
                f"The parameters of {name} cannot be read; give FunctionTool(..., parameters={{...}})."
            )
        self._first = [p for p in known or () if p.kind is p.POSITIONAL_ONLY]
        self._given = parameters
        doc = inspect.cleandoc(function.__doc__ or "")
        text = doc[: m.start()] if (m := _SECTIONS.search(doc)) else doc
        self._model = _model(function, name, known or ()) if parameters is None else None
        if self._model is not None:
            parameters = _schema(self._model, _described(doc))
        self._declared = Function(name, text.strip() if description is None else description, parameters)

    @property
    def namespace(self) -> Namespace:
        """`functions` with this one function."""
        return Namespace("functions", None, (self._declared,))

    def call(self, recipient: str, content: str) -> str | Answer:
        """Runs the function. A text or an Answer comes back as it is, anything else as JSON."""
        named = self._arguments(arguments_of(content))
        first = [named.pop(p.name, p.default) for p in self._first]
        return _told(_finish(self._function(*first, **named)))

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        name = self._declared.name
        if self._model is None:
            if self._given is not None and (wrong := _against(self._given, given)):
                raise ToolError(f"Wrong arguments for {name}: {wrong}")
            with contextlib.suppress(ValueError):  # some functions in C have no signature to read
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


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters of a function; None for one in C that does not tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        return None


def _against(schema: Mapping[str, Any], given: dict[str, Any]) -> str:
    """What is wrong with arguments by a JSON Schema; nothing is looked up elsewhere. A schema that is none judges nothing."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    try:
        kind = validator_for(schema)
        kind.check_schema(schema)
        errors = list(kind(schema, registry=Registry()).iter_errors(given))
    except Exception:  # schemas are foreign texts, and jsonschema has many ways to say what is wrong with one
        return ""
    found = [{"loc": e.absolute_path, "msg": e.message[:200], "type": "missing"} for e in errors]
    return _said(found) if found else ""


def _model(
    function: Callable[..., Any], name: str, parameters: Iterable[inspect.Parameter]
) -> type[BaseModel] | None:
    """A pydantic model of the parameters; None when the function takes nothing by name."""
    from pydantic import ConfigDict, Field, create_model

    hints = _hints(function)
    fields: dict[str, Any] = {}
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint = _understood(hints.get(p.name, Any))
        default = ... if p.default is p.empty else p.default
        # Fields are numbered and the parameter's name is an alias: no name is forbidden to a parameter then.
        fields[f"p{len(fields)}"] = (hint, Field(default, alias=p.name))
    if not fields:
        return None
    # Named by its type alone: what the model reads is the schema, in which titles are left out.
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read; one that names something unknown does not spoil the others."""
    out: dict[str, Any] = {}
    inner = inspect.unwrap(getattr(function, "func", function))  # of a functools.partial too
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    for name, hint in getattr(inner, "__annotations__", {}).items():
        holder = type("holder", (), {"__annotations__": {name: hint}})
        with contextlib.suppress(Exception):
            out |= typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)
    return out


def _understood(hint: Any) -> Any:
    """The annotation, or Any where JSON cannot hold such a value."""
    from pydantic import TypeAdapter

    hint = _typed(hint)
    try:
        TypeAdapter(hint).json_schema()
    except Exception:  # pydantic has a dozen ways to say that it does not know a type
        return Any
    return hint


def _typed(hint: Any) -> Any:
    """The annotation with each typing.TypedDict, which pydantic does not read before Python 3.12, as one that it reads."""
    import typing_extensions as extended

    arguments = typing.get_args(hint)
    if typing.is_typeddict(hint):
        fields: dict[str, Any] = {}
        for n, t in typing.get_type_hints(hint, include_extras=True).items():
            marked = typing.get_origin(t) in (typing.Required, typing.NotRequired)
            needed = typing.get_origin(t) is typing.Required if marked else n in hint.__required_keys__
            kind = _typed(typing.get_args(t)[0] if marked else t)
            fields[n] = (extended.Required if needed else extended.NotRequired)[kind]
        return extended.TypedDict(hint.__name__, fields)  # type: ignore[operator]
    if not arguments or not any(map(_has_typed, arguments)):
        return hint
    origin = typing.get_origin(hint)
    inner = tuple(map(_typed, arguments))
    if origin in (typing.Union, types.UnionType):
        return typing.Union[inner]  # noqa: UP007  (made of a tuple)
    return hint if origin is Annotated or origin is None else origin[inner]


def _has_typed(hint: Any) -> bool:
    return typing.is_typeddict(hint) or any(map(_has_typed, typing.get_args(hint)))


def _schema(model: type[BaseModel], described: Mapping[str, str]) -> dict[str, Any]:
    with warnings.catch_warnings():  # a default that is no JSON is left out, and nobody need hear of it
        warnings.simplefilter("ignore")
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
        raise base.stopped()
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
        raise base.stopped() from None


def _told(value: Any) -> str | Answer:
    if isinstance(value, str | Answer):
        return value
    from pydantic_core import to_json

    return to_json(value, fallback=str, inf_nan_mode="constants", bytes_mode="base64").decode(
        "utf-8", "replace"
    )

"""Errors as OpenAI clients read them: a status and {"error": {message, type, param, code}}. Knows no routes.

A message is one sentence that names the field and the fix; it holds no path, no prompt and nothing a model said.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from motet.engine import DeadlineError, QueueFull
from motet.errors import UsageError
from motet.model import ContextError

_log = logging.getLogger(__name__)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}
_PATH = re.compile(r"[a-z_]{2,40}(\[\d+\]|\.[A-Za-z_$]{1,64})*(?=[ :,])")


class ApiError(Exception):
    """An answer that is no success. `param` is the path of the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """What OpenAI calls this kind of error."""
        if self.status == 429:
            return "rate_limit_error"
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def unsupported(param: str, why: str) -> ApiError:
    """For what the API has and this server does not."""
    return ApiError(400, f"{param} is not supported here: {why}", param=param, code="unsupported_parameter")


def busy(message: str) -> ApiError:
    """For work that would be accepted later."""
    return ApiError(503, message, code="server_overloaded", headers={"Retry-After": "1"})


@contextmanager
def naming(tools: Sequence[Mapping[str, Any]] | None, answer: str, parameters: str) -> Iterator[None]:
    """Gives an error about a schema the path of its field: that of the answer is at `answer`, a tool's below it at `parameters`."""
    try:
        yield
    except UsageError as e:
        of = str(e).partition("The JSON schema of ")[2]
        for n, tool in enumerate(tools or ()):
            inner = tool["function"] if isinstance(tool.get("function"), dict) else tool
            name = inner.get("name")
            if of.startswith((f"the tool {name!r} ", f"the tool {f'functions.{name}'!r} ")):
                raise ApiError(
                    400, str(e), param=f"tools[{n}].{parameters}", code="invalid_json_schema"
                ) from None
        if of.startswith("the response format "):
            raise ApiError(400, str(e), param=answer, code="invalid_json_schema") from None
        raise


def explain(error: BaseException, fields: Collection[str] = ()) -> ApiError:
    """Whatever ended a request, as an answer. `fields`: what the request may name, for `param`."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextError):
        where = next((f for f in ("messages", "input") if f in fields), None)
        return ApiError(400, str(error), param=where, code="context_length_exceeded")
    if isinstance(error, QueueFull):
        return busy("Too many requests are waiting; try again in a moment.")
    if isinstance(error, DeadlineError):
        return ApiError(
            504, "The time for this request was over before its answer was complete.", code="timeout"
        )
    if isinstance(error, UsageError):
        return ApiError(400, str(error), param=_param(str(error), fields), code="invalid_value")
    # An error of the engine may quote what it was doing; its kind is enough for a client, the rest is for the operator.
    _log.error(
        "A request failed: %s",
        type(error).__name__,
        exc_info=error if _log.isEnabledFor(logging.DEBUG) else None,
    )
    return ApiError(
        500, "The server could not finish this request; its log names the cause.", code="internal_error"
    )


def _param(sentence: str, fields: Collection[str]) -> str | None:
    found = _PATH.match(sentence)
    if found is None or re.split(r"[.\[]", found[0])[0] not in fields:
        return None
    return found[0]


def invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic found wrong with a request body: its first complaint, as one sentence."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON; send one JSON object.", code="invalid_json")
    where = [p for p in first["loc"] if p not in ("body", "query", "path")]
    # what pydantic adds to the path of a union is the name of a type, not of a field
    path = (
        "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where if _is_field(p)).lstrip(".")
        or None
    )
    said = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return ApiError(
            400,
            f"{path or 'The body'} is missing; it is required.",
            param=path,
            code="missing_required_parameter",
        )
    if path is None:
        return ApiError(400, f"The body must be one JSON object: {said}.", code="invalid_value")
    return ApiError(400, f"{path} is not legal: {said}.", param=path, code="invalid_value")


def _is_field(part: Any) -> bool:
    return isinstance(part, int) or (re.fullmatch(r"[a-z][a-z_]*", str(part)) is not None and part not in (
        "str", "int", "bool", "float", "list", "dict", "constrained",
    ))  # fmt: skip

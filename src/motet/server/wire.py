"""Requests as they come in: what fields there are, which are refused by name, and how they become sampling parameters.

Unknown fields are accepted, as OpenAI's clients send them ahead of its servers. Fields that OpenAI has and this server does
not are refused with their name; none is ignored. Replies have no types here: they are the `openai` package's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from motet.engine import SamplingParams
from motet.server.errors import ApiError, unsupported
from motet.server.settings import Limits

# What asks for less thinking than the model can do, or for more: the nearest it knows.
EFFORTS = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Json = dict[str, Any]


class Request(BaseModel):
    """A body that may hold more than its fields, each of which has exactly its type."""

    model_config = ConfigDict(extra="allow", strict=True)


class Sampling(Request):
    """What both APIs say about sampling, and what neither does but other servers of open models do."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    logit_bias: dict[str, float] | None = None
    stop: str | list[str] | None = Field(None, description="Ends the answer, on the final channel only.")
    max_reasoning_tokens: int | None = Field(None, ge=0, description="Tokens of thinking at most.")
    tools: list[Json] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    user: str | None = None

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(given) > 16 or any(not 0 < len(s) <= 1000 for s in given):
            raise ApiError(
                400, "stop is not legal: give at most 16 texts of 1 to 1,000 characters.", param="stop"
            )
        return given

    def params(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """As the engine takes them; what is left out keeps the engine's default."""
        given: dict[str, Any] = {
            k: getattr(self, k)
            for k in (
                "temperature",
                "top_k",
                "min_p",
                "repetition_penalty",
                "presence_penalty",
                "frequency_penalty",
                "seed",
            )
        }
        # A share of nothing means the likeliest token; the engine wants a number above 0.
        given["top_p"] = None if self.top_p is None else max(self.top_p, 1e-9)
        given["logit_bias"] = _bias(self.logit_bias)
        given |= {"max_tokens": max_tokens, "logprobs": logprobs}
        return SamplingParams(**{k: v for k, v in given.items() if v is not None})

    def check(self, limits: Limits) -> None:
        """Sizes, and what both APIs may ask that is not to be had here."""
        if self.service_tier not in (None, "auto", "default"):
            raise unsupported("service_tier", "there is one tier; leave it out or use auto or default.")
        for n, tool in enumerate(bounded(self.tools, limits.tools, "tools")):
            bounded_schema(tool, limits, f"tools[{n}]")
        _metadata(self.metadata)

    def refuse(self, fields: Mapping[str, tuple[tuple[Any, ...], str]]) -> None:
        """Raises for fields of the API that would have to be ignored: name -> (values that change nothing, what to do)."""
        for name, (harmless, why) in fields.items():
            value = (self.model_extra or {}).get(name)
            if value is not None and value not in harmless:
                raise unsupported(name, why)


class StreamOptions(Request):
    """What a stream carries beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None

    def check(self) -> None:
        """Raises ApiError for what this server does not do."""
        if self.include_obfuscation:
            raise unsupported("stream_options.include_obfuscation", "use TLS, or leave it out.")


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Json] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = Field(None, description="false: the reply holds no thinking.")
    response_format: Json | None = None
    tool_choice: str | Json | None = None
    stream_options: StreamOptions | None = None

    def check(self, limits: Limits) -> None:
        """Raises ApiError for what this server does not do or does not allow."""
        super().check(limits)
        self.refuse(_CHAT_ONLY_THERE)
        bounded(self.messages, limits.messages, "messages")
        if (self.n or 1) > limits.choices:
            raise ApiError(400, f"n is {self.n}; this server allows {limits.choices}.", param="n")
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true; set it.", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream to be true; set it.", param="stream_options")
        if self.stream_options is not None:
            self.stream_options.check()
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ApiError(400, "tool_choice needs tools; send them.", param="tool_choice")
        bounded_schema(self.response_format, limits, "response_format")
        for n, tool in enumerate(self.tools or ()):
            if tool.get("type", "function") != "function":
                raise unsupported(
                    f"tools[{n}].type", "chats take functions; for built-in tools use /v1/responses."
                )
        if isinstance(self.tool_choice, dict) and self.tool_choice.get("type") != "function":
            raise unsupported("tool_choice.type", "use auto, none, required or a function.")

    def sampling(self) -> SamplingParams:
        """As the engine takes them."""
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return self.params(limit, (self.top_logprobs or 0) if self.logprobs else None)

    def conversation(self) -> Json:
        """What `Conversation.from_chat` reads."""
        out: Json = {"messages": self.messages, "tools": self.tools, "response_format": self.response_format}
        out["harmony"] = (self.model_extra or {}).get("harmony")
        return out | {"reasoning_effort": EFFORTS[self.reasoning_effort or "medium"]}


# Of both APIs: name -> (values that change nothing, what to do).
ONLY_THERE: dict[str, tuple[tuple[Any, ...], str]] = {
    "moderation": ((), "leave it out."),
    "prompt_cache_options": (({}, {"mode": "implicit"}), "what prompts share is always found; leave it out."),
    "prompt_cache_retention": (("in_memory", "in-memory"), "what prompts share stays while there is room; leave it out."),
}  # fmt: skip
_CHAT_ONLY_THERE: dict[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((), "the model speaks text only; leave it out."),
    "function_call": ((), "it is the old name; use tool_choice."),
    "functions": (([],), "it is the old name; use tools."),
    "modalities": ((["text"],), "the model speaks text only; use [\"text\"]."),
    "prediction": ((), "leave it out."),
    "store": ((False,), "chats are not kept; use /v1/responses, or false."),
    "verbosity": (("medium",), "say in the messages how long the answer should be."),
    "web_search_options": ((), "leave it out."),
    "input": ((), "here it is called messages."),
    "instructions": ((), "send a developer message."),
    "max_output_tokens": ((), "here it is called max_completion_tokens."),
    "reasoning": ((), "here it is called reasoning_effort."),
    "text": ((), "here it is called response_format."),
    "previous_response_id": ((), "chats are not kept; use /v1/responses."),
    **ONLY_THERE,
}  # fmt: skip


# What a request may name in an error.
FIELDS = frozenset(
    {
        *ChatRequest.model_fields,
        "harmony",
        "tokens",
        "prompt",
        "input",
        "instructions",
        "text",
        "reasoning",
        "include",
    }
)


def _bias(given: Mapping[str, float] | None) -> dict[int, float] | None:
    if given is None:
        return None
    out: dict[int, float] = {}
    for key, value in given.items():
        if not key.isdecimal() or not -100 <= value <= 100:
            said = "give token ids with numbers from -100 to 100."
            raise ApiError(400, f"logit_bias is not legal: {said}", param="logit_bias")
        out[int(key)] = float(value)
    return out


def bounded(values: Sequence[Any] | None, limit: int, path: str) -> Sequence[Any]:
    """The values. ApiError for more than `limit` of them."""
    if values is not None and len(values) > limit:
        raise ApiError(400, f"{path} has {len(values)} entries; this server allows {limit}.", param=path)
    return values or ()


def bounded_schema(value: Any, limits: Limits, path: str) -> None:
    """ApiError for a schema that is too large."""
    try:
        size = 0 if value is None else len(json.dumps(value))
    except RecursionError:
        size = limits.schema_bytes + 1
    if size > limits.schema_bytes:
        raise ApiError(
            400, f"{path} is too large: a schema may have {limits.schema_bytes} bytes of JSON.", param=path
        )


def _metadata(given: Mapping[str, str] | None) -> None:
    if given is not None and (len(given) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in given.items())):
        raise ApiError(
            400,
            "metadata may have 16 keys of 64 characters with values of 512 characters; shorten it.",
            param="metadata",
        )

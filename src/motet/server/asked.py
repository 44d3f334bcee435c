"""A request to /v1/responses: its fields, what is refused, and its items in the form they are kept and given back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from motet.engine import SamplingParams
from motet.harmony import Rules
from motet.server.errors import ApiError, unsupported
from motet.server.kit import RUNS_IN, TYPES
from motet.server.settings import Limits
from motet.server.wire import (
    EFFORTS,
    ONLY_THERE,
    Effort,
    Json,
    Request,
    Sampling,
    StreamOptions,
    bounded,
    bounded_schema,
)

INCLUDES = ("message.output_text.logprobs", "reasoning.encrypted_content", "code_interpreter_call.outputs",
            "web_search_call.action.sources", "web_search_call.results")  # fmt: skip


class Reasoning(Request):
    """How long the model thinks. What is seen of it is the key's affair; `summary` asks for no more than that."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None

    def check(self) -> None:
        """Raises ApiError for what this server does not do."""
        if self.context == "all_turns":
            raise unsupported(
                "reasoning.context", "the model reads thinking of the current turn only; use auto."
            )
        if self.mode not in (None, "standard"):
            raise unsupported("reasoning.mode", "use an effort.")


class TextConfig(Request):
    """What form the answer has."""

    format: Json | None = None
    verbosity: str | None = None


class ResponsesRequest(Sampling):
    """POST /v1/responses."""

    input: str | list[Json] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    tool_choice: str | Json | None = None
    truncation: str | None = None
    include: list[str] | None = None
    store: bool | None = None
    background: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

    def check(self, limits: Limits) -> None:
        """Raises ApiError for what this server does not do or does not allow."""
        super().check(limits)
        self.refuse(_ONLY_THERE)
        if self.input is None and self.previous_response_id is None:
            raise ApiError(
                400,
                "input is missing; give a text or a list of items.",
                param="input",
                code="missing_required_parameter",
            )
        bounded(self.input if isinstance(self.input, list) else None, limits.messages, "input")
        if self.truncation not in (None, "disabled", "auto"):
            raise unsupported("truncation", "use auto or disabled.")
        for n, tool in enumerate(self.tools or ()):
            if tool.get("type", "function") not in TYPES:
                raise unsupported(f"tools[{n}].type", "use function, code_interpreter, web_search or mcp.")
        for part in (self.reasoning, self.stream_options):
            if part is not None:
                part.check()
        for n, name in enumerate(self.include or ()):
            if name not in INCLUDES:
                raise unsupported(f"include[{n}]", f"use {', '.join(INCLUDES)}.")
        if self.text is not None:
            bounded_schema(self.text.format, limits, "text.format")
            if self.text.verbosity not in (None, "medium"):
                raise unsupported("text.verbosity", "say in the input how long the answer should be.")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ApiError(400, "tool_choice needs tools; send them.", param="tool_choice")

    _read: list[tuple[Json, list[int] | None]] | None = PrivateAttr(None)

    @property
    def items(self) -> list[Json]:
        """The input as items; those that stand for others are replaced once it was read."""
        return [item for item, _ in self.said]

    @property
    def said(self) -> list[tuple[Json, list[int] | None]]:
        """`items`, each with the ids it was sampled as, where they are known."""
        return [(item, None) for item in self.given] if self._read is None else self._read

    def read(self, said: list[tuple[Json, list[int] | None]]) -> None:
        """Takes what `history.read` has made of the input."""
        self._read = said

    @property
    def given(self) -> list[Json]:
        """The input as items, as it came."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return list(self.input or ())

    @property
    def effort(self) -> str:
        """As the model knows it."""
        return EFFORTS[(self.reasoning.effort if self.reasoning else None) or "medium"]

    @property
    def logprobs(self) -> int | None:
        """Alternatives a token; None for no logarithms at all."""
        wanted = self.top_logprobs is not None or "message.output_text.logprobs" in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None

    def sampling(self) -> SamplingParams:
        """As the engine takes them."""
        return self.params(self.max_output_tokens, self.logprobs)

    @property
    def allowed(self) -> list[Json]:
        """The tools the model is shown: all, or those that tool_choice allows."""
        choice = self.tool_choice
        if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
            return list(self.tools or ())
        out = []
        for n, wanted in enumerate(choice.get("tools") or ()):
            found = [t for t in self.tools or () if _is(t, wanted)]
            if not found:
                path = f"tool_choice.tools[{n}]"
                raise ApiError(400, f"{path} is none of the tools of the request; declare it.", param=path)
            out += [t for t in found if t not in out]
        return out

    def choice(self) -> str | Json:
        """tool_choice as the grammar knows it."""
        choice = self.tool_choice or "auto"
        if isinstance(choice, str):
            return choice
        kind = choice.get("type")
        if kind == "function":
            return choice
        if kind == "allowed_tools" and choice.get("mode", "auto") in ("auto", "required"):
            return str(choice.get("mode", "auto")) if self.allowed else "none"
        space = RUNS_IN.get(str(kind))
        if space is not None:
            return {"name": "python" if space == "python" else "browser.search"}
        if kind == "mcp" and choice.get("name"):
            return {"name": f"{choice.get('server_label')}.{choice['name']}"}
        kinds = "auto, none, required, a function, a tool of an MCP server by name, or a built-in tool"
        raise unsupported("tool_choice.type", f"use {kinds}.")

    def rules(self) -> Rules:
        """What the grammar holds the turn to."""
        return Rules(
            tool_choice=self.choice(),
            response_format=self.text.format if self.text else None,
            max_reasoning_tokens=self.max_reasoning_tokens,
        )

    def conversation(self, before: Sequence[Json], after: Sequence[Json] = ()) -> Json:
        """What `Conversation.from_responses` reads, the items of earlier turns in front, calls that were approved behind."""
        # of a call that waited for approval, what came of it is told
        items = [i for i in (*before, *self.items) if not str(i.get("type")).startswith("mcp_approval_")]
        declared = [
            t for t in self.allowed if t.get("type") != "mcp"
        ]  # those are declared when they are connected
        out: Json = {"input": [*items, *after], "instructions": self.instructions, "tools": declared}
        out["text"] = {"format": self.text.format} if self.text else None
        out["harmony"] = (self.model_extra or {}).get("harmony")
        return out | {"reasoning": {"effort": self.effort}}


class CountRequest(ResponsesRequest):
    """POST /v1/responses/input_tokens and /v1/responses/compact: a request that is not answered."""

    model: str = ""


_ONLY_THERE: dict[str, tuple[tuple[Any, ...], str]] = {
    "conversation": ((), "use previous_response_id."),
    "prompt": ((), "templates are not kept here; send instructions and input."),
    "context_management": (([],), "use /v1/responses/compact."),
    "multi_agent": ((), "leave it out."),
    "access_programs": ((), "leave it out."),
    "background_options": (({}, {"completion_window": "soonest"}), "there is one queue; leave it out."),
    "image": (({},), "the model speaks text only; leave it out."),
    "personality": ((), "say in the instructions how to speak."),
    "messages": ((), "here it is called input."),
    "max_tokens": ((), "here it is called max_output_tokens."),
    "max_completion_tokens": ((), "here it is called max_output_tokens."),
    "response_format": ((), "here it is called text.format."),
    "reasoning_effort": ((), "here it is called reasoning.effort."),
    "n": ((1,), "a response is one answer; use /v1/chat/completions, or ask again."),
    **ONLY_THERE,
}  # fmt: skip


def listed(items: Sequence[Json], response_id: str) -> list[Json]:
    """Input items as the API gives them back: with ids, and short messages written out."""
    return [_listed(item, f"{response_id}/input/{n}") for n, item in enumerate(items)]


def _listed(item: Json, seed: str) -> Json:
    kind = item.get("type") or "message"
    prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}.get(
        kind, "item"
    )
    out = {"id": f"{prefix}_{hashlib.sha256(seed.encode()).hexdigest()[:40]}", **item, "type": kind}
    if kind == "reasoning":
        return {"summary": [], **out}
    if kind != "message":
        return {"status": "completed", **out}
    word = "output_text" if item.get("role") == "assistant" else "input_text"
    content = item.get("content")
    if isinstance(content, str):
        out["content"] = [{"type": word, "text": content}]
    parts = [{**p, "type": word} if p.get("type") == "text" else dict(p) for p in out.get("content") or ()]
    out["content"] = [{"annotations": [], **p} if p.get("type") == "output_text" else p for p in parts]
    return {"status": "completed", **out}


def echo(request: ResponsesRequest, summarised: bool = False) -> Json:
    """The fields of a response that say what was asked, as it is in force here. `summarised`: thinking is shown as a summary, which
    is the key's affair; a request may name any."""
    form = (request.text.format if request.text else None) or {"type": "text"}
    bare = {"type": "text"}
    return {
        "background": bool(request.background), "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens, "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {}, "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id, "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.effort, "summary": "concise" if summarised else None},
        "safety_identifier": request.safety_identifier, "service_tier": "default",
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": form if form.get("type") != "text" else bare, "verbosity": "medium"},
        "tool_choice": request.tool_choice or "auto", "tools": [_tool(t) for t in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0, "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0, "frequency_penalty": request.frequency_penalty or 0.0,
        "truncation": request.truncation or "disabled", "user": request.user,
    }  # fmt: skip


def _is(tool: Json, wanted: Any) -> bool:
    """Whether a tool is the one another place names."""
    if not isinstance(wanted, dict) or tool.get("type", "function") != wanted.get("type", "function"):
        return False
    inner = tool["function"] if isinstance(tool.get("function"), dict) else tool
    return all(inner.get(k) == wanted[k] for k in ("name", "server_label") if k in wanted)


def _tool(tool: Json) -> Json:
    kind = RUNS_IN.get(str(tool.get("type")))
    if kind == "python":
        return {**tool, "type": "code_interpreter", "container": tool.get("container") or {"type": "auto"}}
    if kind == "browser":
        return {**tool, "type": "web_search"} if tool["type"] in ("browser", "browser_search") else tool
    if tool.get("type", "function") != "function":
        return tool
    # Chat's nested form is read too, and given back in this API's own.
    inner = tool["function"] if isinstance(tool.get("function"), dict) else tool
    return {
        "type": "function", "name": inner.get("name"), "description": inner.get("description"),
        "parameters": inner.get("parameters"), "strict": bool(inner.get("strict")),
    }  # fmt: skip

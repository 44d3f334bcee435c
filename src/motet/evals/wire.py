"""Inspect's messages as a Chat Completions request, and a ChatCompletion as Inspect's output. Asks nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ChatCompletionChoice as Choice
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    TopLogprob,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from motet.errors import UsageError
from motet.study.subject import thinking_of

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

Json = dict[str, Any]
RAW = "unparsed"  # the argument that holds what is not JSON, so that it goes back as it came
_STOP: dict[str, Any] = {
    "stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls", "content_filter": "content_filter",
}  # fmt: skip
_SAMPLING = (
    "temperature", "top_p", "seed", "max_tokens", "presence_penalty", "frequency_penalty", "logit_bias",
)  # fmt: skip
_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}


def request_of(
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolInfo],
    tool_choice: ToolChoice,
    config: GenerateConfig,
) -> Json:
    """A Chat Completions request. UsageError for pictures and other content that no gpt-oss reads."""
    out: Json = {"messages": [_message(m) for m in messages]}
    effort = config.reasoning_effort
    if effort is not None:
        out["reasoning_effort"] = _EFFORTS.get(effort, effort)
    out |= {k: v for k in _SAMPLING if (v := getattr(config, k)) is not None}
    if config.top_k is not None:
        out["top_k"] = config.top_k
    if config.reasoning_tokens is not None:
        out["max_reasoning_tokens"] = config.reasoning_tokens
    if config.stop_seqs:
        out["stop"] = list(config.stop_seqs)
    if config.logprobs:
        out |= {"logprobs": True, "top_logprobs": config.top_logprobs or 0}
    if config.response_schema is not None:
        schema = config.response_schema
        inner = {"name": schema.name, "schema": schema.json_schema.model_dump(exclude_none=True)}
        out["response_format"] = {
            "type": "json_schema",
            "json_schema": inner | {"strict": bool(schema.strict)},
        }
    if tools:
        out["tools"] = [{"type": "function", "function": _tool(t)} for t in tools]
        out["tool_choice"] = _choice(tool_choice)
    return out


def _tool(tool: ToolInfo) -> Json:
    return {
        "name": tool.name, "description": tool.description,
        "parameters": tool.parameters.model_dump(exclude_none=True),
    }  # fmt: skip


def _choice(choice: ToolChoice) -> str | Json:
    if isinstance(choice, ToolFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return {"any": "required"}.get(choice, choice)


def _message(message: ChatMessage) -> Json:
    thought, text = _texts(message.content)
    if isinstance(message, ChatMessageTool):
        answer = text if message.error is None else text or f"Error: {message.error.message}"
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": answer}
    if not isinstance(message, ChatMessageAssistant):
        return {"role": message.role, "content": text}
    out: Json = {"role": "assistant", "content": text or (None if message.tool_calls or thought else "")}
    if thought:
        out["reasoning"] = thought
    if message.tool_calls:
        out["tool_calls"] = [_call(c) for c in message.tool_calls]
    elif out["content"] is None:
        out["content"] = ""
    return out


def _texts(content: str | list[Content]) -> tuple[str, str]:
    """(thinking, text) of a message."""
    if isinstance(content, str):
        return "", content
    thought, text = list[str](), list[str]()
    for part in content:
        if isinstance(part, ContentReasoning):
            thought.append(part.reasoning)
        elif isinstance(part, ContentText):
            text.append(part.text)
        else:
            raise UsageError(
                f"A message holds {part.type}; a gpt-oss reads text only, so leave such samples out."
            )
    return "\n".join(thought), "\n".join(text)


def _call(call: ToolCall) -> Json:
    raw = (call.arguments or {}).get(RAW) if call.parse_error else None
    arguments = raw if isinstance(raw, str) else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.function, "arguments": arguments}}


# --- a reply to Inspect ---


def output_of(completion: ChatCompletion, metadata: Json | None = None) -> ModelOutput:
    """A ModelOutput of the first choice."""
    choice, usage = completion.choices[0], completion.usage
    message = choice.message
    thought = thinking_of(message)
    text = message.content or message.refusal or ""
    content: list[Content] = [ContentReasoning(reasoning=thought)] if thought else []
    if text or not message.tool_calls:
        content.append(ContentText(text=text))
    stop: Any = (
        "content_filter"
        if message.refusal and not message.content
        else _STOP.get(choice.finish_reason or "", "unknown")
    )
    calls = [_parsed(c) for c in message.tool_calls or ()]
    said = ChatMessageAssistant(
        content=content, tool_calls=calls or None, model=completion.model, source="generate"
    )
    out = ModelOutput(
        model=completion.model, choices=[Choice(message=said, stop_reason=stop, logprobs=_logprobs(choice))]
    )
    if usage is not None:
        details, found = usage.completion_tokens_details, usage.prompt_tokens_details
        cached = (found.cached_tokens if found else None) or 0
        out.usage = ModelUsage(
            input_tokens=usage.prompt_tokens - cached, input_tokens_cache_read=cached, output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens, reasoning_tokens=details.reasoning_tokens if details else None,
        )  # fmt: skip
    out.metadata = metadata or None
    return out


def _parsed(call: Any) -> ToolCall:
    name, text = call.function.name, call.function.arguments
    try:
        arguments = json.loads(text or "{}")
        fault = None if isinstance(arguments, dict) else "the arguments are no JSON object"
    except ValueError as e:
        arguments, fault = None, f"the arguments are no JSON: {e}"
    return ToolCall(call.id, name, {RAW: text} if fault else arguments, parse_error=fault)


def _logprobs(choice: Any) -> Logprobs | None:
    """Those of the visible text; Inspect has no place for those of thinking."""
    entries = choice.logprobs.content if choice.logprobs else None
    if not entries:
        return None
    return Logprobs(
        content=[
            Logprob(
                token=e.token, logprob=e.logprob, bytes=e.bytes,
                top_logprobs=[TopLogprob(token=t.token, logprob=t.logprob, bytes=t.bytes) for t in e.top_logprobs or ()],
            )
            for e in entries
        ]
    )  # fmt: skip

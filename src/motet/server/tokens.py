"""/tokenize and /detokenize: what a text or a conversation is to the model. Bodies as vLLM and llama.cpp have them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from motet.errors import UsageError
from motet.harmony import Conversation, render
from motet.server.wire import EFFORTS, Effort


class Text(BaseModel):
    """A text (`prompt`, or `content`), or messages with their tools."""

    model_config = ConfigDict(extra="allow", strict=True)
    prompt: str | None = None
    content: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    reasoning_effort: Effort | None = None


class Ids(BaseModel):
    """Token ids."""

    tokens: list[int] = Field(max_length=1_000_000)
    count: int | None = None


class Said(BaseModel):
    """The text of ids, under both names clients look for."""

    prompt: str
    content: str


def encode(body: Text, encoding: Any) -> Ids:
    """Control tokens in a text are words; only messages get real ones."""
    if body.messages is not None:
        effort = EFFORTS[body.reasoning_effort or "medium"]
        ids = render(Conversation.from_chat(body.messages, body.tools, effort), encoding)
    else:
        text = body.content if body.prompt is None else body.prompt
        if text is None:
            raise UsageError("prompt is missing; give a text, or messages.")
        ids = encoding.encode(text)
    return Ids(tokens=list(ids), count=len(ids))


def decode(body: Ids, encoding: Any) -> Said:
    """Raises UsageError for an id the vocabulary does not have."""
    for n, i in enumerate(body.tokens):
        if not 0 <= i < encoding.n_vocab:
            raise UsageError(f"tokens[{n}] is {i}; the vocabulary has ids from 0 to {encoding.n_vocab - 1}.")
    text = encoding.decode(body.tokens)
    return Said(prompt=text, content=text)

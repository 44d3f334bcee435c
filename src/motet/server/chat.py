"""Chat Completions: a request to turns, their events to chunks. A completion is the fold of the chunks a stream would send.

One answer holds thinking (`reasoning`, and `reasoning_content` for clients that look there), content (remarks and the final
answer, in the order they came) and calls. Knows no sockets.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from motet.engine.engine import nth_seed
from motet.harmony import Conversation, Delta, Event, MessageEnd, MessageStart, Rules, Summary, TurnDone
from motet.server.auth import Key
from motet.server.errors import explain, naming
from motet.server.host import Host
from motet.server.shown import Cost
from motet.server.wire import ChatRequest

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    from motet.tokenizer import Encoding

_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "loop": "stop"}
Json = dict[str, Any]


def malformed_notice(cost: Cost) -> str:
    """What is said in place of an answer that no reader of Harmony understands."""
    reasons = ", ".join(sorted(cost.malformed)) or "no answer"
    return f"The model wrote no answer that can be read ({reasons}); ask again."


class Chat:
    """One request under way. `open` starts it, `chunks` is its stream."""

    def __init__(self, host: Host, request: ChatRequest, key: Key) -> None:
        self._host, self._request, self._key = host, request, key
        self._head = {
            "id": f"chatcmpl-{secrets.token_urlsafe(18)}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": host.fingerprint,
            "service_tier": "default",
        }
        self._costs = [Cost() for _ in range(request.n or 1)]

    async def open(self) -> None:
        """Returns when the engine has taken the first prompt; raises what is wrong with the request."""
        request = self._request
        self._host.check_model(request.model)
        request.check(self._host.settings.limits)
        self._stops = request.stops()
        params = request.sampling()
        conversation = await asyncio.to_thread(Conversation.from_chat, request.conversation())
        rules = Rules(
            tool_choice=request.tool_choice or "auto",
            response_format=request.response_format,
            max_reasoning_tokens=request.max_reasoning_tokens,
        )
        first = None
        self._turns = []
        for k in range(len(self._costs)):
            mine = params if params.seed is None else replace(params, seed=nth_seed(params.seed, k))
            turn = self._host.turn(conversation, mine, rules, self._key, behind=first)
            first = first or turn
            self._turns.append(turn)
        try:
            with naming(request.tools, "response_format.json_schema.schema", "function.parameters"):
                await self._turns[0].accepted()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends every turn."""
        for turn in self._turns:
            turn.cancel()
            self._host.turns.discard(turn)

    async def chunks(self) -> AsyncIterator[ChatCompletionChunk]:
        """Every chunk, the one with the usage last; whether it is sent is for the caller to say."""
        from openai.types.chat import ChatCompletionChunk

        head = {**self._head, "object": "chat.completion.chunk"}
        async for choice in self._choices():
            yield ChatCompletionChunk.model_validate({**head, "choices": [choice]})
        yield ChatCompletionChunk.model_validate({**head, "choices": [], "usage": usage(self._costs)})

    async def _choices(self) -> AsyncIterator[Json]:
        if len(self._turns) == 1:
            async for choice in self._choice(0):
                yield choice
            return
        pieces: asyncio.Queue[Json | BaseException | None] = asyncio.Queue()

        async def pump(k: int) -> None:
            try:
                async for choice in self._choice(k):
                    pieces.put_nowait(choice)
            except Exception as e:
                pieces.put_nowait(e)
            pieces.put_nowait(None)

        tasks = [asyncio.create_task(pump(k)) for k in range(len(self._turns))]
        open_ = len(tasks)
        try:
            while open_:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                if piece is None:
                    open_ -= 1
                else:
                    yield piece
        finally:
            for task in tasks:
                task.cancel()
            self.cancel()

    async def _choice(self, k: int) -> AsyncIterator[Json]:
        request, cost = self._request, self._costs[k]
        answer = Answer(k, self._host.encoding, bool(request.logprobs))
        policy = self._host.policy(self._key, request.include_reasoning)
        events = self._host.watch(self._turns[k], policy, self._stops, cost, self._key)
        try:
            yield answer.begin()
            async for event in events:
                for choice in answer.feed(event, cost):
                    yield choice
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    async def completion(self) -> ChatCompletion:
        """The whole answer."""
        return fold_chunks([chunk async for chunk in self.chunks()])


def usage(costs: Sequence[Cost]) -> Json:
    """What several answers to one prompt cost."""
    total = Cost()
    for cost in costs:
        total = total.plus(cost)
    return {
        "prompt_tokens": total.n_prompt,
        "completion_tokens": total.n_sampled,
        "total_tokens": total.n_prompt + total.n_sampled,
        "prompt_tokens_details": {"cached_tokens": costs[0].n_cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": total.n_reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


class Answer:
    """Events of one answer to the `choices` entries of its chunks."""

    def __init__(self, index: int, encoding: Encoding, logprobs: bool) -> None:
        self._index, self._encoding, self._logprobs = index, encoding, logprobs
        self._calls = 0
        self._into: str | None = None
        self._filled: set[str] = set()
        self._gap = False

    def begin(self) -> Json:
        """The entry that opens the answer."""
        return self._choice({"role": "assistant", "content": ""})

    def _choice(self, delta: Json, finish: str | None = None, logprobs: Json | None = None) -> Json:
        out: Json = {"index": self._index, "delta": delta, "finish_reason": finish}
        return out | {"logprobs": logprobs}

    def feed(self, event: Event, cost: Cost) -> list[Json]:
        """The entries an event becomes, often one."""
        if isinstance(event, MessageStart):
            return self._start(event)
        if isinstance(event, Delta):
            return self._text(event)
        if isinstance(event, MessageEnd):
            self._into = None
        if isinstance(event, Summary):
            return [self._choice(_thinking(event.text))]
        return self._done(event, cost) if isinstance(event, TurnDone) else []

    def _start(self, start: MessageStart) -> list[Json]:
        if not start.is_call:
            self._into = "reasoning" if start.channel == "analysis" else "content"
            self._gap = self._into in self._filled
            return []
        self._into = "call"
        self._calls += 1
        name = (start.recipient or "").removeprefix("functions.")
        call = {"id": new_call_id(), "type": "function", "function": {"name": name, "arguments": ""}}
        return [self._choice({"tool_calls": [{"index": self._calls - 1, **call}]})]

    def _text(self, delta: Delta) -> list[Json]:
        into = self._into
        if into == "call":
            call = {"index": self._calls - 1, "function": {"arguments": delta.text}}
            return [self._choice({"tool_calls": [call]})] if delta.text else []
        if into is None or not (delta.text or delta.ids):
            return []
        self._filled.add(into)
        text, self._gap = ("\n\n" if self._gap else "") + delta.text, False
        inner = _thinking(text) if into == "reasoning" else {"content": text}
        return [self._choice(inner, logprobs=self._tokens(delta, into))]

    def _tokens(self, delta: Delta, into: str) -> Json | None:
        """Logarithms of the tokens of a text; those of thinking stand apart, under `reasoning`."""
        if not self._logprobs:
            return None
        entries = token_logprobs(delta, self._encoding)
        return {"content": entries} if into == "content" else {"content": None, "reasoning": entries}

    def _done(self, done: TurnDone, cost: Cost) -> list[Json]:
        finish = _FINISH.get(done.finish, "stop")
        if finish == "tool_calls" and not self._calls:
            finish = "stop"
        out: list[Json] = []
        if finish == "stop" and "content" not in self._filled and not self._calls:
            out.append(self._choice({"refusal": malformed_notice(cost)}))
        return [*out, self._choice({}, finish)]


def _thinking(text: str) -> Json:
    return {"reasoning": text, "reasoning_content": text}


def new_call_id() -> str:
    """An id of a call, which clients send back with the result."""
    return f"call_{secrets.token_hex(12)}"


def token_logprobs(delta: Delta, encoding: Encoding) -> list[Json]:
    """One entry a token: text (U+FFFD where it is part of a character), bytes, logarithm, likeliest alternatives."""
    out = []
    for token, (logprob, top) in zip(delta.ids, delta.logprobs, strict=False):
        entry = _token(token, logprob, encoding)
        out.append({**entry, "top_logprobs": [_token(i, p, encoding) for i, p in top]})
    return out


def _token(token: int, logprob: float, encoding: Encoding) -> Json:
    try:
        data = encoding.token_bytes(token)
    except Exception:  # a control token, or a gap in the vocabulary: it has a name and no bytes
        return {"token": encoding.decode([token]), "bytes": None, "logprob": max(logprob, -9999.0)}
    return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": max(logprob, -9999.0)}


# --- the fold ---


def fold_chunks(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Adds up the chunks of one request."""
    from openai.types.chat import ChatCompletion

    head: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        data = chunk.model_dump(exclude_unset=True)
        head |= {k: v for k, v in data.items() if k != "choices"}
        for piece in data["choices"]:
            _add(choices.setdefault(piece["index"], _empty(piece["index"])), piece)
    for choice in choices.values():
        _close(choice["message"])
    ordered = [choices[k] for k in sorted(choices)]
    return ChatCompletion.model_validate({**head, "object": "chat.completion", "choices": ordered})


def _empty(index: int) -> Json:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "message": message, "finish_reason": None, "logprobs": None}


def _add(choice: Json, piece: Mapping[str, Any]) -> None:
    message, delta = choice["message"], piece["delta"]
    for name in ("content", "reasoning", "reasoning_content", "refusal"):
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + delta[name]
    for call in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        if call["index"] == len(calls):
            calls.append({k: v for k, v in call.items() if k != "index"})
        else:
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    for name, entries in (piece.get("logprobs") or {}).items():
        if entries is not None:
            choice["logprobs"] = choice["logprobs"] or {"content": None, "refusal": None}
            choice["logprobs"][name] = (choice["logprobs"].get(name) or []) + entries
    choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]


def _close(message: Json) -> None:
    """A message without a text has none, rather than an empty one, where it has something else instead."""
    if message["content"] == "" and (message.get("tool_calls") or message["refusal"]):
        message["content"] = None


async def sse_of(chat: Chat, include_usage: bool) -> AsyncIterator[tuple[str | None, str]]:
    """The stream of a chat, as the API sends it. What goes wrong on the way is said in it: the status is gone by then."""
    chunks = chat.chunks()
    try:
        async for chunk in chunks:
            if chunk.usage is not None and not include_usage:
                continue
            yield None, chunk.model_dump_json(exclude_unset=True)
        yield None, "[DONE]"
    except Exception as e:
        yield None, json.dumps(explain(e).body())
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
        chat.cancel()

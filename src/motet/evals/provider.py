"""A model for Inspect (`motet/NAME`): behind an engine of this process in native Harmony, or behind a URL.

One form in between: messages become a Chat Completions request, a reply becomes a ChatCompletion, whichever way it was asked.
The engine reads the request as Harmony by the rules of our server. Knows no task.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.tool import ToolChoice, ToolInfo

from motet.errors import UsageError
from motet.evals.wire import Json, output_of, request_of
from motet.harmony import Delta, MessageStart, ToolProgress, ToolResult, TurnDone

if TYPE_CHECKING:
    from motet.engine import SamplingParams, TokenOut
    from motet.harmony import Event, Rules
    from motet.study.subject import Native

TOOLS = ("python",)  # what the provider can run by itself, inside the turn


class MotetAPI(ModelAPI):
    """See the module. Reasoning is ContentReasoning both ways; usage counts its tokens and those found in the cache.

    `reasoning_effort` is Harmony's effort, `reasoning_tokens` the budget after which thinking ends and the answer begins.
    With a seed, the epochs of a sample draw differently and each of them the same in every run.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        width: int = 8,
        precision: str = "int8",
        threads: int | None = None,
        tools: str = "",
        timeout_s: float = 3600.0,
        subject: Native | None = None,
    ) -> None:
        """`base_url`: a server's /v1, whose model `model_name` is. `width`: requests at once. `tools`: "python" runs the
        model's code inside the turn, as Harmony means it; not behind a URL. `subject`: an engine that is open already."""
        super().__init__(model_name, base_url, api_key, ["OPENAI_API_KEY"], config or GenerateConfig())
        if unknown := {t for t in tools.split(",") if t} - set(TOOLS):
            raise UsageError(
                f"The tool {unknown.pop()!r} cannot be run inside a turn; use {', '.join(TOOLS)}."
            )
        if tools and base_url:
            raise UsageError("Tools inside the turn need an engine of this process; leave out the URL.")
        self.width, self.tools, self._timeout_s = width, tools, timeout_s
        self._subject, self._settings = subject, (precision, threads)
        self._owned = ExitStack()
        self._opening = threading.Lock()
        self._client: Any = None
        self._loop: Any = None

    def max_connections(self) -> int:
        """As many as the engine steps together."""
        return self.width

    def connection_key(self) -> str:
        """One pool a model."""
        return f"{self.base_url}{self.model_name}"

    def max_tokens(self) -> int | None:
        """None: up to the end of the context."""
        return None

    async def count_text_tokens(self, text: str) -> int:
        """Exact where the vocabulary is known."""
        if self._subject is None:
            return await super().count_text_tokens(text)
        return len(self._subject.encoding.encode(text))

    async def aclose(self) -> None:
        """Ends an engine of our own, or the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        await asyncio.to_thread(self._owned.close)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One reply."""
        request = request_of(input, tools, tool_choice, config)
        if (seed := request.get("seed")) is not None:
            from motet.engine.engine import nth_seed

            request["seed"] = nth_seed(seed, epoch() - 1)
        if self.base_url:
            return await self._remote(request)
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._native, request, stop)
        finally:
            stop.set()

    # --- an engine ---

    def subject(self) -> Native:
        """The open engine; opened here, once, unless it was given."""
        with self._opening:
            if self._subject is None:
                from motet.engine import Engine
                from motet.library import find
                from motet.model import load
                from motet.study.subject import Native

                precision, threads = self._settings
                model = load(find(self.model_name), precision=precision, threads=threads)
                engine = self._owned.enter_context(Engine(model, max_batch=self.width))
                self._subject = Native(engine, model.encoding, self.model_name, width=self.width)
            return self._subject

    def _native(self, request: Json, stop: threading.Event) -> ModelOutput:
        from motet.model import ContextError
        from motet.tools.python import PythonTool

        try:
            if not self.tools:
                return ask(self.subject(), request, stop)
            with PythonTool() as python:
                return ask(self.subject(), request, stop, [python])
        except ContextError as e:
            return ModelOutput.from_content(self.model_name, "", "model_length", str(e))

    # --- a URL ---

    async def _remote(self, request: Json) -> ModelOutput:
        import openai

        from motet.study.subject import explained

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop that opened them
            self._loop, self._client = loop, openai.AsyncOpenAI(
                base_url=self.base_url, api_key=self.api_key or os.environ.get("OPENAI_API_KEY") or "none",
                timeout=self._timeout_s, max_retries=4,
            )  # fmt: skip
        extra = {k: request.pop(k) for k in ("max_reasoning_tokens", "top_k") if k in request}
        with explained(self.base_url):
            try:
                completion = await self._client.chat.completions.create(
                    model=self.model_name, extra_body=extra, **request
                )
            except openai.APIStatusError as e:
                if e.code != "context_length_exceeded":
                    raise
                return ModelOutput.from_content(self.model_name, "", "model_length", e.message[:200])
        return output_of(completion)


def epoch() -> int:
    """Which repeat of its question the running sample is, from 1; 1 outside of a run."""
    from inspect_ai.log._samples import sample_active

    sample = sample_active()
    return 1 if sample is None else sample.epoch


# --- behind an engine ---


def ask(subject: Native, request: Json, stop: threading.Event, tools: Sequence[Any] = ()) -> ModelOutput:
    """One turn of the engine as the completion our server would send; calls of `tools` stand apart, in the metadata."""
    from openai.types.chat import ChatCompletionChunk

    from motet.harmony import Conversation
    from motet.harmony.visible import Visible
    from motet.server.chat import Answer, fold_chunks, usage
    from motet.server.shown import Cost, policy_of
    from motet.server.stops import Stops
    from motet.turn import run_turn

    conversation = Conversation.from_chat(
        request["messages"], request.get("tools"), request.get("reasoning_effort") or "medium",
        response_format=request.get("response_format"),
    )  # fmt: skip
    engine, cost = _Counted(subject.engine), Cost()
    answer = Answer(0, subject.encoding, "logprobs" in request)
    gate, stops, own = Visible(policy_of("show")), Stops(request.get("stop", ())), _Own()
    entries = [answer.begin()]
    turn = run_turn(
        engine,
        conversation,
        subject.encoding,
        _params(request),
        tools,
        stop=stop,
        rules=_rules(subject, request),
    )
    with closing(turn):  # type: ignore[type-var]
        for event in turn:
            cost.note(event)
            for seen in gate.feed(event):
                for shown in () if tools and own.takes(seen) else stops.feed(seen):
                    entries += answer.feed(shown, cost)
            if stops.hit:
                entries += answer.feed(TurnDone("stop"), cost)
                break
    cost.n_prompt, cost.n_cached = engine.n_prompt, engine.n_cached
    head = {"id": "motet", "created": 0, "model": subject.name, "object": "chat.completion.chunk"}
    chunks = [ChatCompletionChunk.model_validate({**head, "choices": [e]}) for e in entries]
    chunks.append(ChatCompletionChunk.model_validate({**head, "choices": [], "usage": usage([cost])}))
    about: Json = {"malformed": dict(cost.malformed), "repairs": dict(cost.repairs), "tools": own.used}
    return output_of(fold_chunks(chunks), {k: v for k, v in about.items() if v})


def _params(request: Json) -> SamplingParams:
    from motet.engine import SamplingParams

    names = ("temperature", "top_p", "top_k", "seed", "max_tokens", "presence_penalty", "frequency_penalty")
    given = {k: request[k] for k in names if k in request}
    if "logit_bias" in request:
        given["logit_bias"] = {int(k): float(v) for k, v in request["logit_bias"].items()}
    return SamplingParams(**given, logprobs=request["top_logprobs"] if "logprobs" in request else None)


def _rules(subject: Native, request: Json) -> Rules | None:
    """What the subject's grammar holds a turn to, with the request's choice of tools and budget."""
    if subject.rules is None:
        return None
    choice, budget = request.get("tool_choice", "auto"), request.get("max_reasoning_tokens")
    return replace(subject.rules, tool_choice=choice, max_reasoning_tokens=budget)


class _Counted:
    """Stands between turn and engine: notes the size of the first prompt and what of it was cached."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.n_prompt, self.n_cached = engine, 0, 0

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        first, self.n_prompt = not self.n_prompt, self.n_prompt or len(ids)
        request = self._engine.submit(ids, params)
        for out in request:
            if first:
                self.n_cached, first = request.stats.cached_tokens, False
            yield out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class _Own:
    """Takes the calls of the turn's own tools out of what a caller sees, and their results."""

    def __init__(self) -> None:
        self.used: list[Json] = []
        self._inside = False

    def takes(self, event: Event) -> bool:
        """Whether the event is part of such a call."""
        if isinstance(event, MessageStart):
            self._inside = event.is_call and (event.recipient or "").partition(".")[0] in TOOLS
            if self._inside:
                self.used.append({"tool": event.recipient, "call": "", "result": None})
        elif self._inside and isinstance(event, Delta):
            self.used[-1]["call"] += event.text
        elif isinstance(event, ToolResult) and self.used:
            self.used[-1] |= {"result": event.text[:4000], "error": event.error}
        return self._inside or isinstance(event, ToolResult | ToolProgress)

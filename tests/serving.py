"""A server on a real socket for tests, and an engine that says what a script says where mini is too small to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import uvicorn
from openai import OpenAI

from motet.engine import SamplingParams, Stats, TokenOut
from motet.server.host import Host
from motet.server.serve import config_of
from motet.server.settings import Settings
from motet.tokenizer import o200k_harmony

E = o200k_harmony()


class Scripted:
    """A request of `Script`: its tokens, held to the constraint as the engine would hold them."""

    def __init__(self, engine: Script, tokens: list[int], params: SamplingParams, stats: Stats) -> None:
        self._engine, self._tokens, self._params, self.stats = engine, tokens, params, stats
        self.finish: str | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()
        self.finish = self.finish or "cancelled"

    def __iter__(self) -> Iterator[TokenOut]:
        limits = self._params.constraint() if self._params.constraint and not self._engine.free else None
        try:
            for n, token in enumerate(self._tokens, 1):
                if self._cancelled.wait(self._engine.pause_s):
                    return
                if limits is not None:
                    limits.advance(token)  # raises for what the grammar forbids
                finish = (
                    "stop" if token in self._engine.stops else "length" if n == len(self._tokens) else None
                )
                top = None
                if self._params.logprobs is not None:
                    top = tuple((token + k, -0.5 - k) for k in range(self._params.logprobs))
                self.finish = finish or self.finish
                yield TokenOut(0, token, -0.5, finish, top)
        finally:
            self._engine.ended += 1


class Script:
    """An engine: `says` gives the text that follows a prompt (a text itself, or a list used up in order).

    free: the grammar is not applied, so that a model can be shown to write anything.
    """

    def __init__(
        self,
        says: str | list[str] | Callable[[str], str],
        *,
        free: bool = False,
        pause_s: float = 0.0,
        encoding: Any = E,
    ) -> None:
        self._says, self.free, self.pause_s, self.encoding = says, free, pause_s, encoding
        self.stops = {encoding.special("<|return|>"), encoding.special("<|call|>")}
        self.model = SimpleNamespace(
            config=SimpleNamespace(
                max_position_embeddings=4096, vocab_size=encoding.n_vocab, eos_token_ids=tuple(self.stops)
            )
        )
        self.prompts: list[list[int]] = []
        self.params: list[SamplingParams] = []
        self.clients: list[str] = []
        self.ended = 0
        self.alive = True
        self.refuse: Exception | None = None  # raised instead of an answer

    def submit(
        self, ids: list[int], params: SamplingParams, *, client: str = "", priority: int = 0, deadline_s: float | None = None
    ) -> Scripted:  # fmt: skip
        if self.refuse is not None:
            raise self.refuse
        self.prompts.append(list(ids))
        self.params.append(params)
        self.clients.append(client)
        text = self._says(self.encoding.decode(ids)) if callable(self._says) else self._says
        if isinstance(text, list):
            text = text.pop(0)
        tokens = self.encoding.encode_with_special(text)[: params.max_tokens]
        return Scripted(self, tokens, params, Stats(params.seed or 7, len(ids), cached_tokens=len(ids) // 2))

    def close(self) -> None:
        self.alive = False


@contextmanager
def serving(
    engine: Any, settings: Settings | None = None, name: str = "scripted", encoding: Any = E
) -> Iterator[Served]:
    """A server for this engine on a port of its own."""
    host = Host(engine, encoding, name, settings or Settings(port=0, store="none"), precision="int8")
    server = uvicorn.Server(config_of(host))
    sock = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    scheme = "https" if host.settings.tls_cert else "http"
    try:
        yield Served(f"{scheme}://127.0.0.1:{sock.getsockname()[1]}", host, server)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


class Served:
    """Where a server is, and a client of it."""

    def __init__(self, url: str, host: Host, server: uvicorn.Server) -> None:
        self.url, self.host, self.server = url, host, server

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120
        )  # a busy machine is no failure

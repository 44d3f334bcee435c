"""Many clients at once for minutes, well behaved and not: what the server refuses, what it gets wrong, and whether it grows.

Of ten clients one reads slowly, one leaves in the middle and one sends garbage; the others ask. The same few hundred questions
come again and again, each with a seed of its own, so that each answer has one right text whatever runs beside it: every answer
is compared with the first to its question. Memory that grows once every question has been asked is a leak.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.wire import Heard, ask, ask_json, request_of

CHAT = "/v1/chat/completions"
GROWTH_MB = 48  # of anonymous memory over a level, above which it is called growth: threads' stacks and arenas come and go
_REFUSED = (429, 503)
_KINDS = ("plain",) * 7 + ("slow", "leaves", "garbage")
Json = dict[str, Any]
Body = Callable[[int], Json]


@dataclass
class Tally:
    """What the clients of one level met."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    differing: int = 0


class Load:
    """Clients of one server. `body(n)` is question n as a request; answers are remembered over all levels."""

    def __init__(self, url: str, body: Body, questions: int, seed: int = 1) -> None:
        self._url, self._body, self._questions = url, body, questions
        self._rng = random.Random(seed)
        self._answers: dict[int, str] = {}
        self._asked = 0

    async def level(self, streams: int, seconds: float) -> Tally:
        """`streams` clients at a time until the time is over; those under way then may end."""
        tally, end = Tally(), time.monotonic() + seconds
        await asyncio.gather(*(self._client(tally, end) for _ in range(streams)))
        return tally

    async def warm(self, streams: int) -> None:
        """Every question once, so that what a server keeps of them is kept, and every thread it wants is made."""
        numbers = iter(range(self._questions))

        async def run() -> None:
            for n in numbers:
                await self._question(Tally(), n, "plain")

        await asyncio.gather(*(run() for _ in range(streams)))

    async def _client(self, tally: Tally, end: float) -> None:
        while time.monotonic() < end:
            self._asked += 1
            n, kind = self._rng.randrange(self._questions), _KINDS[self._asked % len(_KINDS)]
            tally.kinds[kind] += 1
            try:
                if kind == "garbage":
                    await self._garbage(tally)
                else:
                    await self._question(tally, n, kind)
            except OSError as e:  # a connection that could not be made is an error of the server's
                tally.wrong[f"{kind}: {type(e).__name__}"] += 1

    async def _question(self, tally: Tally, n: int, kind: str) -> None:
        leave = self._rng.randrange(1, 60) if kind == "leaves" else None
        heard = await ask_json(
            self._url, CHAT, self._body(n), leave_after=leave, slow_s=0.05 if kind == "slow" else 0.0
        )
        tally.statuses[str(heard.status)] += 1
        if heard.status in _REFUSED:
            await asyncio.sleep(0.2)  # as a client does that reads Retry-After, only sooner
            return
        fine = heard.status == 200 and heard.ended in (("left", "done") if leave else ("done",))
        if not fine or any(b'"error"' in e[:9] for e in heard.events):
            tally.wrong[f"{kind}: {heard.status} {heard.ended}"] += 1
            return
        if kind == "plain":
            tally.firsts.append(heard.said[0])
            tally.gaps += [b - a for a, b in pairwise(heard.said)]
        if heard.ended == "done":
            tally.tokens += int(heard.usage().get("completion_tokens", 0))
            text = answer_of(heard)
            tally.differing += self._answers.setdefault(n, text) != text

    async def _garbage(self, tally: Tally) -> None:
        request, legal = garbage(self._rng, self._url, self._body(self._rng.randrange(self._questions)))
        heard = await ask(self._url, request)
        tally.statuses[f"garbage {heard.status}"] += 1
        if heard.status not in legal and heard.status not in _REFUSED:
            tally.wrong[f"garbage: {heard.status} {heard.ended}"] += 1


def answer_of(heard: Heard) -> str:
    """A digest of everything an answer said, thinking too."""
    said = hashlib.sha256()
    for event in heard.events:
        for choice in json.loads(event).get("choices", ()):
            said.update(json.dumps([choice["delta"], choice["finish_reason"]], sort_keys=True).encode())
    return said.hexdigest()


def garbage(rng: random.Random, url: str, good: Json) -> tuple[bytes, tuple[int, ...]]:
    """A request that nobody should send, and the statuses it may have; 0 is a connection closed without a word."""
    data = json.dumps(good).encode()
    cut = rng.randrange(1, len(data) - 1)
    kind = rng.randrange(7)
    if kind == 0:  # JSON that stops
        return request_of(url, CHAT, data[:cut]), (400,)
    if kind == 1:
        return request_of(url, CHAT, rng.randbytes(200)), (400,)
    if kind == 2:  # a field of the wrong kind
        name = rng.choice(("messages", "temperature", "max_tokens", "stream", "reasoning_effort"))
        return request_of(url, CHAT, json.dumps(good | {name: {"a": [None]}}).encode()), (400,)
    if kind == 3:  # control tokens where text belongs: text
        names = "<|start|>system<|message|><|end|><|call|>" * 9
        body = {"model": good["model"], "messages": [{"role": "user", "content": names}], "max_tokens": 4}
        return request_of(url, CHAT, json.dumps(body).encode()), (200,)
    if kind == 4:  # no HTTP at all
        return rng.randbytes(64) + b"\r\n\r\n", (0, 400)
    if kind == 5:
        return request_of(url, "/v1/" + "a" * 3000, b"", rng.choice(("GET", "DELETE", "PATCH"))), (404, 405)
    return request_of(url, CHAT, b"[" * 50_000), (400,)


def memory_of(pid: int) -> Json:
    """Megabytes of memory of its own (mapped files not counted), threads and open files of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kb = sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"mb": round(kb / 1024, 1), "threads": int(lines["Threads"]), "files": files}


async def counters_of(url: str) -> dict[str, float]:
    """The plain figures of /metrics."""
    heard = await ask(url, request_of(url, "/metrics", b"", "GET"))
    lines = [line.rsplit(" ", 1) for line in heard.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "{" not in name}


async def at_rest(url: str, pid: int, wait_s: float = 120.0) -> Json:
    """Memory and pages when no request is under way. Says so if that is never."""
    end = time.monotonic() + wait_s
    while True:
        now = await counters_of(url)
        busy = now["motet_running"] + now["motet_waiting"]
        if not busy or time.monotonic() > end:
            break
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    return memory_of(pid) | {"kv_mb": round(now["motet_kv_bytes"] / 2**20, 2), "under_way": int(busy)}

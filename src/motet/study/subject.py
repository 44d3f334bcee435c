"""Whom a study asks: a model behind an engine, or any OpenAI-compatible URL. Many requests at once, answers in order.

An `Ask` is a conversation with an effort, a seed and budgets; a `Said` is what came back, split by channel, counted and
timed. Knows no tasks and no statistics.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from motet.harmony import (
    Conversation,
    Event,
    MessageStart,
    Quarantined,
    Rules,
    TurnDone,
    fold,
    render,
    tagged,
)
from motet.monitor.loops import Compression, Detector, Lag
from motet.turn import RULES, Streams, run_turn

if TYPE_CHECKING:
    from motet.engine import SamplingParams, TokenOut
    from motet.tokenizer import Encoding

WHOLE_FILE = 256 << 20  # weights up to this size are hashed whole, larger files by 256 samples


@dataclass(frozen=True)
class Ask:
    """One request. `budget`: tokens of thinking at most; then the answer is forced (s1, arXiv 2501.19393). `chat`: the request
    as a remote model is to get it, where that is not what the conversation says (a rule in the system message)."""

    conversation: Conversation
    seed: int = 0
    max_tokens: int = 4096
    budget: int | None = None
    temperature: float = 1.0
    chat: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Said:
    """One reply. Counts are tokens, times seconds. `cut`: whatever `finish` says, it has all tokens that were allowed, or no token that ends a turn. `spans`:
    (channel, start, stop) of `ids`, which begin with the prompt; both empty for a remote model. `malformed` and `repairs` are
    reasons, as the parser names them."""

    final: str
    analysis: str = ""
    commentary: str = ""
    n_analysis: int = 0
    n_final: int = 0
    first_s: float = 0.0
    seconds: float = 0.0
    finish: str = "stop"
    looped: bool = False
    calls: tuple[tuple[str, str], ...] = ()
    malformed: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    ids: tuple[int, ...] = field(default=(), repr=False)
    n_prompt: int = 0
    spans: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)
    events: tuple[Event, ...] = field(default=(), repr=False)
    cut: bool = False

    @property
    def truncated(self) -> bool:
        """Whether a limit ended it; a "stop" after the last token that was allowed is not believed."""
        return self.finish == "length" or self.cut


class Subject(Protocol):
    """A model that can be asked."""

    width: int  # requests at once

    def ask(self, ask: Ask, stop: threading.Event) -> Said:
        """One reply; from any thread. Ends soon when `stop` is set."""
        ...

    def identity(self) -> dict[str, Any]:
        """Model, arithmetic and format: what a number depends on beside the questions."""
        ...


def _circles() -> tuple[Detector, ...]:
    """What sees a reply go round: exactly with any period, or with little that is new. Neither cries at tables, digits or working."""
    return Lag(), Compression()


def goes_round(ids: Iterable[int]) -> bool:
    """Whether a reply of these ids loops."""
    watch = _circles()
    return any(d.feed(i) for i in ids for d in watch)


@dataclass
class _Watched:
    """Stands between turn and engine: notes ids, the first token's time, and loops."""

    engine: Streams
    began: float = 0.0
    first_s: float = 0.0
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    looped: bool = False

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        self.prompts.append(tuple(ids))
        watch = _circles()
        for out in self.engine.stream(ids, params):
            self.first_s = self.first_s or time.perf_counter() - self.began
            self.sampled.append(out.token)
            self.looped = self.looped or any(d.feed(out.token) for d in watch)
            yield out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class Native:
    """A model behind an engine of this process. rules None: what the model says is taken as it is, without the grammar."""

    def __init__(
        self, engine: Streams, encoding: Encoding, name: str, *, rules: Rules | None = RULES, width: int = 8, **about: Any
    ) -> None:  # fmt: skip
        self.engine, self.encoding, self.name, self.rules, self.width = engine, encoding, name, rules, width
        self._about = about

    def ask(self, ask: Ask, stop: threading.Event) -> Said:
        """One turn, without tools."""
        from motet.engine import SamplingParams

        rules = self.rules
        if ask.budget is not None:
            rules = replace(rules or RULES, max_reasoning_tokens=ask.budget)
        watched = _Watched(self.engine, time.perf_counter())
        params = SamplingParams(temperature=ask.temperature, seed=ask.seed, max_tokens=ask.max_tokens)
        events = tuple(run_turn(watched, ask.conversation, self.encoding, params, rules=rules, stop=stop))
        return read(
            events,
            watched.prompts[0] if watched.prompts else (),
            first_s=watched.first_s,
            seconds=time.perf_counter() - watched.began,
            looped=watched.looped,
            cut=not ended(watched.sampled, self.encoding) and not stop.is_set(),
        )

    def identity(self) -> dict[str, Any]:
        """See Subject."""
        from motet import __version__, kernels

        model = getattr(self.engine, "model", None)
        about: dict[str, Any] = {"subject": "native", "model": self.name, "motet": __version__}
        if model is not None and hasattr(model, "folder"):
            about |= {
                "weights": weights_hash(model.folder), "precision": model.precision, "kv": model.kv,
                "kernels": f"{kernels.backend} {kernels.isa()}",
            }  # fmt: skip
        return about | {"grammar": "off" if self.rules is None else "on"} | self._about


def read(
    events: Sequence[Event], prompt: Sequence[int] = (), *, first_s: float = 0.0, seconds: float = 0.0, looped: bool = False,
    cut: bool = False,
) -> Said:  # fmt: skip
    """What a turn's events come to."""
    folded = fold(events)
    ids, spans, channel = list(prompt), list[tuple[str, int, int]](), "none"
    spans.append(("prompt", 0, len(ids)))
    counts: dict[str, int] = {}
    for e in events:
        channel, tag = tagged(e, channel)
        if e.ids:
            spans.append((tag, len(ids), len(ids) + len(e.ids)))
            ids += e.ids
            counts[tag] = counts.get(tag, 0) + len(e.ids)
    starts = [e for e in events if isinstance(e, MessageStart)]
    done = next((e.finish for e in events if isinstance(e, TurnDone)), "error")
    return Said(
        folded.final, folded.analysis, folded.commentary, counts.get("analysis", 0), counts.get("final", 0), first_s, seconds,
        done, looped, tuple((c.recipient, c.arguments) for c in folded.tool_calls),
        tuple(e.reason for e in events if isinstance(e, Quarantined)), tuple(r for s in starts for r in s.repairs),
        tuple(ids), len(prompt), tuple(spans), tuple(events), cut,
    )  # fmt: skip


def ended(sampled: Sequence[int], encoding: Encoding) -> bool:
    """Whether the last token ends a turn."""
    return bool(sampled) and sampled[-1] in {
        encoding.special(f"<|{name}|>") for name in ("return", "call", "endoftext")
    }


class Remote:
    """A model behind a URL that speaks Chat Completions, streamed. Thinking is read from `reasoning` or `reasoning_content`."""

    def __init__(
        self, url: str, model: str, key: str | None = None, *, width: int = 8, timeout_s: float = 600.0
    ) -> None:
        from openai import OpenAI

        self.url, self.model, self.width = url, model, width
        self.client = OpenAI(base_url=url, api_key=key or "none", timeout=timeout_s, max_retries=2)
        self._fingerprints: set[str] = set()

    def ask(self, ask: Ask, stop: threading.Event) -> Said:
        """One reply. Raises UserError when the server refuses or cannot be reached."""
        with explained(self.url):
            return self._read(
                ask,
                self.client.chat.completions.create(
                    **self._request(ask), stream=True, stream_options={"include_usage": True}
                ),
                stop,
            )

    def whole(self, ask: Ask, **more: Any) -> Said:
        """One reply, not streamed; `more` are fields of the body. Raises as `ask` does."""
        began = time.perf_counter()
        request = self._request(ask)
        request["extra_body"] |= more
        with explained(self.url):
            reply = self.client.chat.completions.create(**request)
        message, reason = reply.choices[0].message, reply.choices[0].finish_reason
        calls = tuple((c.function.name, c.function.arguments) for c in message.tool_calls or ())
        return _remote(
            ask, thinking_of(message) or "", shown_of(message), calls, reply.usage, reason, 0.0, began
        )

    def _request(self, ask: Ask) -> dict[str, Any]:
        own = ask.conversation.to_chat()
        request = {"reasoning_effort": own.get("reasoning_effort", "medium"), **(ask.chat or own)}
        body: dict[str, Any] = {} if ask.budget is None else {"max_reasoning_tokens": ask.budget}
        if request.get("tools"):
            body["tools"] = request["tools"]
        return {
            "model": self.model, "messages": request["messages"], "reasoning_effort": request["reasoning_effort"],
            "seed": ask.seed, "temperature": ask.temperature, "max_tokens": ask.max_tokens, "extra_body": body,
        }  # fmt: skip

    def _read(self, ask: Ask, stream: Any, stop: threading.Event) -> Said:
        began, first_s, finish, usage = time.perf_counter(), 0.0, "error", None
        thought, text = list[str](), list[str]()
        calls: dict[int, tuple[str, str]] = {}
        for chunk in stream:
            usage = chunk.usage or usage
            if chunk.system_fingerprint:
                self._fingerprints.add(chunk.system_fingerprint)
            for choice in chunk.choices:
                delta = choice.delta
                thought.append(thinking_of(delta) or "")
                text.append(shown_of(delta))
                for c in delta.tool_calls or ():
                    name, arguments = calls.get(c.index, ("", ""))
                    calls[c.index] = (
                        name + (c.function.name or ""),
                        arguments + (c.function.arguments or ""),
                    )
                if thought[-1] or text[-1] or calls:
                    first_s = first_s or time.perf_counter() - began
                finish = choice.finish_reason or finish
            if stop.is_set():
                stream.close()
                finish = "cancelled"
                break
        return _remote(
            ask, "".join(thought), "".join(text), tuple(calls.values()), usage, finish, first_s, began
        )

    def identity(self) -> dict[str, Any]:
        """See Subject. What the server says of itself is all that is known of the weights."""
        from motet import __version__

        return {
            "subject": "remote", "model": self.model, "url": self.url, "motet": __version__,
            "fingerprints": sorted(self._fingerprints),
        }  # fmt: skip


def _remote(
    ask: Ask, thinking: str, text: str, calls: tuple[tuple[str, str], ...], usage: Any, finish: str, first_s: float, began: float
) -> Said:  # fmt: skip
    """A reply of Chat Completions. Tokens are counted by the server; where it does not say, words are."""
    details = getattr(usage, "completion_tokens_details", None)
    n_analysis = getattr(details, "reasoning_tokens", None) or len(thinking.split())
    total = getattr(usage, "completion_tokens", None) or n_analysis + len(text.split())
    looped = goes_round(zlib.crc32(w.encode()) for w in f"{thinking} {text}".split())
    return Said(
        text, thinking, "", n_analysis, max(0, total - n_analysis), first_s, time.perf_counter() - began, finish, looped, calls,
        cut=total >= ask.max_tokens,
    )  # fmt: skip


def shown_of(message: Any) -> str:
    """What a message or delta of Chat Completions says to people: its text, or the refusal in its place."""
    return message.content or getattr(message, "refusal", None) or ""


def thinking_of(message: Any) -> str | None:
    """The thinking in a message or delta of Chat Completions, under either name that servers give it."""
    return getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)


@contextmanager
def explained(url: str | None) -> Iterator[None]:
    """What the openai client raises, as a UserError of one sentence."""
    import openai

    from motet.errors import UserError

    try:
        yield
    except openai.APIStatusError as e:
        raise UserError(f"{url} answered {e.status_code}: {e.message[:200]}") from None
    except openai.APIError as e:
        raise UserError(f"{url} cannot be asked ({e.message[:200]}); check the URL.") from None


Progress = Callable[[int, int], None]


def collect(
    subject: Subject, asks: Sequence[Ask], progress: Progress = lambda done, total: None, stop: threading.Event | None = None
) -> list[Said | None]:  # fmt: skip
    """Replies in the order of the asks. Ctrl-C (or `stop`) ends it and keeps what is done: the rest is None.

    The first error of a request ends the others and is raised.
    """
    stop = stop or threading.Event()
    out: list[Said | None] = [None] * len(asks)
    end = threading.Event()
    with ThreadPoolExecutor(max(1, subject.width)) as pool:
        left = {pool.submit(subject.ask, a, end): n for n, a in enumerate(asks)}
        done = 0
        try:
            while left and not stop.is_set():
                ready, _ = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ready:
                    out[left.pop(future)] = future.result()
                    done += 1
                    progress(done, len(asks))
        except KeyboardInterrupt:
            stop.set()
        finally:
            end.set()
            for future in left:
                future.cancel()
    return out


def prompt_hash(asks: Sequence[Ask], encoding: Encoding | None) -> str:
    """Twelve digits over all prompts: rendered ids where they are known, else the conversations."""
    h = hashlib.sha256()
    for a in asks:
        if encoding is None:
            h.update(repr(a.conversation.messages).encode())
        else:
            h.update(b",".join(str(i).encode() for i in render(a.conversation, encoding)) + b"\n")
    return h.hexdigest()[:12]


def identity_of(subject: Subject, asks: Sequence[Ask]) -> dict[str, Any]:
    """The harness identity of a run: the subject's, the sampler's and the prompts'."""
    temperatures = sorted({a.temperature for a in asks})
    return subject.identity() | {
        "sampler": f"temperature {', '.join(f'{t:g}' for t in temperatures)}, top-p 1, seeded",
        "max_tokens": sorted({a.max_tokens for a in asks}),
        "prompts": prompt_hash(asks, getattr(subject, "encoding", None)),
    }


def weights_hash(folder: Path) -> str:
    """sha256 over config.json and all weights, twelve digits; of files above 256 MB, size and 256 samples ("sampled")."""
    h, sampled = hashlib.sha256(), False
    for path in sorted(
        [folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("original/*.safetensors")]
    ):
        if not path.is_file():
            continue
        size = path.stat().st_size
        h.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as f:
            if size <= WHOLE_FILE:
                h.update(f.read())
                continue
            sampled = True
            for n in range(256):
                f.seek(n * (size - 65536) // 255)
                h.update(f.read(65536))
    return h.hexdigest()[:12] + (" (sampled)" if sampled else "")

"""One turn of the assistant, its tool calls included. The only loop: run the model, run the tool, append, go on.

Sampled ids are never rendered again: within a turn the list of ids only grows. Knows engine, events and tools; prints
nothing and keeps nothing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from motet.errors import UserError
from motet.harmony import (
    USUAL,
    Conversation,
    Delta,
    DeveloperContent,
    Event,
    Folded,
    Message,
    MessageEnd,
    MessageStart,
    Namespace,
    Policy,
    StreamParser,
    SystemContent,
    ToolProgress,
    ToolResult,
    TurnDone,
    fold,
    render,
    render_message,
    resolve,
    visible,
)
from motet.tools.base import Answer, Tool
from motet.tools.runner import Call, run_calls

if TYPE_CHECKING:
    from motet.engine import Engine, SamplingParams, TokenOut
    from motet.harmony.render import History
    from motet.model import Model
    from motet.tokenizer import Encoding

MAX_CALLS = 64  # tool calls in one turn; a model that wants more is going round in circles


@dataclass(frozen=True)
class TurnLimits:
    """What one turn may use of its tools. `result_tokens` bounds one answer as the model sees it, both ends kept."""

    calls: int = MAX_CALLS
    seconds: float = float(
        "inf"
    )  # of wall time; a call that runs then is cancelled, and the turn ends with "length"
    result_tokens: int = 16_384


class Streams(Protocol):
    """What a turn needs of an engine."""

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        ...


@dataclass
class _Call:
    """The call a stretch of sampling ended with."""

    start: MessageStart
    content: str


def run_turn(
    engine: Streams,
    conversation: Conversation,
    encoding: Encoding,
    params: SamplingParams,
    tools: Sequence[Tool] = (),
    *,
    history: History = "spec",
    limits: TurnLimits = TurnLimits(),
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """The events of one assistant turn, as they happen; the last is TurnDone.

    `tools` are declared to the model if the conversation does not do so yet. A call to a function that is declared but
    not among them ends the turn with finish "tool_calls"; a call to nothing that exists is answered with an error the
    model reads. With `params.logprobs` each Delta carries those of its tokens. Nothing is hidden here: an outlet that
    people see reads `visible(run_turn(...))`. `params.max_tokens` bounds what is sampled in the whole turn. Closing the
    iterator stops the engine and cancels the tool; so does setting `stop`, from any thread (finish "cancelled").
    """
    conversation = declare(conversation, tools)
    declared = conversation.recipients()
    table = {r: t for t in tools for r in _recipients(t.namespace)}
    ids = render(conversation, encoding, history=history)
    sampled = 0
    end = time.monotonic() + limits.seconds
    for step in range(limits.calls + 1):
        stretch = _Stretch(encoding, params.logprobs is not None, stop)
        try:
            yield from stretch.run(engine, ids, _params(params, step, sampled))
        except UserError as e:
            from motet.model import ContextError

            if step == 0 or not isinstance(e, ContextError):
                raise
            yield TurnDone("length")  # the results have filled the context; what was said so far stands
            return
        ids, sampled = ids + stretch.sampled, sampled + len(stretch.sampled)
        call = stretch.call
        if call is None or stretch.finish in ("error", "cancelled"):
            yield TurnDone(stretch.finish)
            return
        target = resolve(call.start.recipient or "", declared)
        limit = params.max_tokens is not None and sampled >= params.max_tokens
        if not tools or limit or step == limits.calls or (target is not None and target not in table):
            yield TurnDone("tool_calls")
            return
        answer = yield from _answer(call, target, table, end - time.monotonic(), stop)
        result = _result(call, answer, encoding, limits.result_tokens)
        ids = ids + list(result.ids)
        yield result
        if (stop is not None and stop.is_set()) or time.monotonic() > end:
            yield TurnDone("length" if stop is None or not stop.is_set() else "cancelled")
            return


class _Stretch:
    """Sampling up to a call or the end of the turn."""

    def __init__(
        self, encoding: Encoding, logprobs: bool = False, stop: threading.Event | None = None
    ) -> None:
        self.parser, self._stop_asked = StreamParser(encoding), stop
        self._outs: deque[TokenOut] | None = deque() if logprobs else None  # tokens no event accounts for yet
        self.sampled: list[int] = []
        self.call: _Call | None = None
        self.finish = "stop"
        self._start: MessageStart | None = None
        self._text: list[str] = []

    def run(self, engine: Streams, ids: list[int], params: SamplingParams) -> Iterator[Event]:
        """Events until the engine stops or a call is complete. A call that the model ended with `<|end|>` is one too."""
        stream = iter(engine.stream(ids, params))
        with closing(stream) if hasattr(stream, "close") else _nothing():  # type: ignore[type-var]
            for out in stream:
                self.sampled.append(out.token)
                if self._outs is not None:
                    self._outs.append(out)
                for event in self.parser.feed(out.token):
                    yield self._note(event)
                if out.finish is not None:
                    self.finish = out.finish
                if self.call is not None:
                    break
                if self._stop_asked is not None and self._stop_asked.is_set():
                    self.finish = "cancelled"
                    break
        for event in self.parser.finish():
            yield self._note(event)

    def _note(self, event: Event) -> Event:
        if isinstance(event, MessageStart):
            self._start, self._text = event, []
        elif isinstance(event, MessageEnd):
            if self._start is not None and self._start.is_call and event.stop in ("call", "end", "return"):
                self.call = _Call(self._start, "".join(self._text))
            self._start = None
        elif self._start is not None and isinstance(event, Delta):
            self._text.append(event.text)
        if self._outs is None:
            return event
        outs = [self._outs.popleft() for _ in event.ids]
        if not isinstance(event, Delta):
            return event
        return dataclasses.replace(event, logprobs=tuple((o.logprob, o.top_logprobs or ()) for o in outs))


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


def _params(params: SamplingParams, step: int, sampled: int) -> SamplingParams:
    """The parameters of a later stretch: what is left of the budget, and draws of their own."""
    if step == 0:
        return params
    left = None if params.max_tokens is None else params.max_tokens - sampled
    seed = None if params.seed is None else (params.seed + 0x9E3779B97F4A7C15 * step) % (1 << 63)
    return dataclasses.replace(params, max_tokens=left, seed=seed)


def _answer(
    call: _Call,
    target: str | None,
    table: Mapping[str, Tool],
    seconds: float,
    stop: threading.Event | None,
) -> Generator[Event, None, Answer]:
    """Runs the tool, yields its progress; whatever it does, there is an answer the model can read."""
    name = call.start.recipient or ""
    if target is None:
        known = ", ".join(sorted(table)) or "none"
        return Answer(f"Error: there is no tool {name!r}; the tools are: {known}.", (), True)
    answer = Answer("Error: the tool gave no answer.", (), True)
    work = run_calls([Call(table[target], target, call.content)], seconds=max(0.0, seconds), stop=stop)
    with closing(work):  # type: ignore[type-var]
        for _, said in work:
            if isinstance(said, Answer):
                answer = said
            else:
                yield ToolProgress(name, said, call.start.channel)
    return answer


def _result(call: _Call, answer: Answer, encoding: Encoding, most: int) -> ToolResult:
    """An answer as it stands in the prompt, the start of what the model says next included.

    It speaks under the name the model used, on the channel it used, so that it finds its answer.
    """
    name, channel = call.start.recipient or "", call.start.channel
    text = _shortened(answer.text, encoding, most)
    ids = render_message(Message("tool", text, channel, "assistant", name=name), encoding)
    ids += [encoding.special("<|start|>"), *encoding.encode("assistant")]
    return ToolResult(name, text, channel, answer.error, tuple(ids), answer.artefacts)


def _shortened(text: str, encoding: Encoding, most: int) -> str:
    """Both ends of an answer that is too long for the context."""
    if len(text) <= most:  # a token has at least one byte
        return text
    ids = encoding.encode(text)
    if len(ids) <= most:
        return text
    head, tail = encoding.decode(ids[: most // 2]), encoding.decode(ids[len(ids) - most // 2 :])
    return f"{head}\n[... {len(ids) - most} tokens left out ...]\n{tail}"


def _recipients(ns: Namespace) -> list[str]:
    return [f"{ns.name}.{f.name}" for f in ns.functions] or [ns.name]


def declare(conversation: Conversation, tools: Iterable[Tool]) -> Conversation:
    """The conversation with every tool declared: functions in the developer message, the built-in ones in the system message."""
    known = conversation.recipients()
    for ns in (t.namespace for t in tools):
        missing = tuple(f for f in ns.functions if f"{ns.name}.{f.name}" not in known)
        if missing or (not ns.functions and ns.name not in known):
            conversation = _with(conversation, dataclasses.replace(ns, functions=missing))
            known = conversation.recipients()
    return conversation


def _with(conversation: Conversation, ns: Namespace) -> Conversation:
    role: Literal["developer", "system"] = "developer" if ns.name == "functions" else "system"
    kind: type[Any] = DeveloperContent if role == "developer" else SystemContent
    messages = list(conversation.messages)
    at = next((n for n, m in enumerate(messages) if m.role == role and isinstance(m.content, kind)), None)
    if at is None:
        at = 1 if role == "developer" and messages and messages[0].role == "system" else 0
        messages.insert(at, Message(role, kind()))
    content = messages[at].content
    spaces = {n.name: n for n in content.namespaces}  # type: ignore[union-attr]
    old = spaces.get(ns.name)
    spaces[ns.name] = (
        dataclasses.replace(ns, functions=old.functions + ns.functions, description=old.description)
        if old
        else ns
    )
    content = dataclasses.replace(content, namespaces=tuple(spaces.values()))  # type: ignore[type-var]
    messages[at] = dataclasses.replace(messages[at], content=content)
    return dataclasses.replace(conversation, messages=tuple(messages))


@dataclass(frozen=True)
class Usage:
    """Tokens. `prompt`: the first prompt; `sampled`: everything the model said, of which `analysis` on that channel."""

    prompt: int = 0
    sampled: int = 0
    analysis: int = 0


@dataclass(frozen=True, repr=False)
class Reply:
    """A finished turn, for the program that asked: thinking, calls and results included.

    What goes on to people passes through `shown`. `repr` shows no more than that, so that a log does not either.
    """

    events: tuple[Event, ...]
    folded: Folded
    usage: Usage = field(default_factory=Usage)

    def __repr__(self) -> str:
        return f"Reply(final={self.final!r}, finish={self.finish!r}, usage={self.usage})"

    def shown(self, policy: Policy = USUAL) -> tuple[Event, ...]:
        """The events a user may see under a policy, as streaming would have sent them."""
        return tuple(visible(self.events, policy))

    @property
    def final(self) -> str:
        """The answer."""
        return self.folded.final

    @property
    def analysis(self) -> str:
        """The thinking: for the program, not for a user's eyes unfiltered (see `shown`)."""
        return self.folded.analysis

    @property
    def commentary(self) -> str:
        """What was said to the user between tool calls."""
        return self.folded.commentary

    @property
    def finish(self) -> str | None:
        """stop, tool_calls, length, cancelled or error."""
        return self.folded.finish


def reply(
    prompt: str | Sequence[Mapping[str, Any]] | Conversation,
    *,
    model: str | Model = "mini",
    effort: str = "medium",
    tools: Sequence[Tool] = (),
    params: SamplingParams | None = None,
    engine: Engine | None = None,
    **sampling: Any,
) -> Reply:
    """Asks once: a question, chat messages or a Conversation. `sampling` are fields of SamplingParams.

    `model` is a loaded model, a name or a folder; `engine` uses a running engine and its model instead.
    """
    from motet.engine import Engine, SamplingParams

    conversation = conversation_of(prompt, effort)
    chosen = params or SamplingParams(**sampling)
    if engine is not None:
        return _reply(engine, conversation, engine.model.encoding, chosen, tools)
    if isinstance(model, str):
        from motet.model import load

        model = load(model)
    with Engine(model) as own:
        return _reply(own, conversation, model.encoding, chosen, tools)


def conversation_of(
    prompt: str | Sequence[Mapping[str, Any]] | Conversation, effort: str = "medium"
) -> Conversation:
    """A question or chat messages as a Conversation; a Conversation stays what it is."""
    if isinstance(prompt, Conversation):
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return Conversation.from_chat(messages, effort=effort)


def _reply(
    engine: Streams,
    conversation: Conversation,
    encoding: Encoding,
    params: SamplingParams,
    tools: Sequence[Tool],
) -> Reply:
    events = tuple(run_turn(engine, conversation, encoding, params, tools))
    folded = fold(events)
    prompt = len(render(declare(conversation, tools), encoding))
    said = [e for e in events if not isinstance(e, ToolResult | TurnDone)]
    thought, on = 0, False
    for e in said:
        on = e.channel == "analysis" if isinstance(e, MessageStart) else on
        thought += len(e.ids) if on and isinstance(e, Delta) else 0
    return Reply(events, folded, Usage(prompt, sum(len(e.ids) for e in said), thought))

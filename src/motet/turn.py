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

from motet.errors import UsageError, UserError
from motet.harmony import (
    USUAL,
    Conversation,
    Delta,
    DeveloperContent,
    Event,
    Folded,
    Grammar,
    Guide,
    Message,
    MessageEnd,
    MessageStart,
    Namespace,
    Policy,
    Rules,
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

RULES = Rules()
CUT_CALL = Answer("Error: this call was cut off by the limit of tokens and did not run.", (), True)
NO_MORE = Answer("Error: there are no more tool calls in this turn. Answer with what you have.", (), True)
_TOKEN = 128  # characters of the longest token
MAX_CALLS = 64  # tool calls in one turn; a model that wants more is going round in circles


@dataclass(frozen=True)
class TurnLimits:
    """What one turn may use of its tools. The call after `calls` is answered with NO_MORE, so that an answer can still come;
    another one ends the turn with "length". `result_tokens` bounds one answer as the model sees it, both ends kept."""

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
    rules: Rules | None = RULES,
) -> Iterator[Event]:
    """The events of one assistant turn, as they happen; the last is TurnDone.

    `tools` are declared to the model if the conversation does not do so yet. A call to a function that is declared but
    not among them ends the turn with finish "tool_calls"; a call to nothing that exists is answered with an error the
    model reads. With `params.logprobs` each Delta carries those of its tokens. Nothing is hidden here: an outlet that
    people see reads `visible(run_turn(...))`. `params.max_tokens` bounds what is sampled in the whole turn. Closing the
    iterator stops the engine and cancels the tool; so does setting `stop`, from any thread (finish "cancelled"). `rules` is
    what the grammar holds the model to; None samples without it.
    """
    if rules is not None and params.constraint is not None:
        raise UsageError("A constraint of your own and the grammar cannot both hold; turn the grammar off.")
    able = getattr(engine, "capabilities", None)
    if rules is not None and able is not None and not able.constraints:
        raise UsageError(
            "This engine takes no constraints, so the grammar cannot be held; turn the grammar off."
        )
    _table(tools)  # a name that is taken twice is said at once
    conversation = declare(conversation, tools, rules)
    held = _Held(None if rules is None else Grammar(encoding, conversation, rules), engine)
    return _turn(engine, conversation, encoding, params, tools, history, limits, stop, held)


def _turn(
    engine: Streams,
    conversation: Conversation,
    encoding: Encoding,
    params: SamplingParams,
    tools: Sequence[Tool],
    history: History,
    limits: TurnLimits,
    stop: threading.Event | None,
    held: _Held,
) -> Iterator[Event]:
    declared = conversation.recipients()
    table = _table(tools)
    ids = render(conversation, encoding, history=history)
    sampled = 0
    end = time.monotonic() + limits.seconds
    for step in range(limits.calls + 2):
        now = held.params(_params(params, step, sampled), ids)
        stretch = _Stretch(encoding, params.logprobs is not None, stop, held)
        try:
            yield from stretch.run(engine, ids, now)
        except UserError as e:
            from motet.model import ContextError

            if step == 0 or not isinstance(e, ContextError):
                raise
            yield TurnDone(
                "length", closed=held.closed
            )  # the results have filled the context; what was said so far stands
            return
        ids, sampled = ids + stretch.sampled, sampled + len(stretch.sampled)
        call = stretch.call
        if call is None or stretch.finish in ("error", "cancelled"):
            yield TurnDone(stretch.finish, closed=held.closed)
            return
        target = resolve(call.start.recipient or "", declared)
        limit = params.max_tokens is not None and sampled >= params.max_tokens
        theirs = not held.cut_call and (not tools or (target is not None and target not in table))
        if limit or theirs or step > limits.calls:
            # A call that was ours to run and did not run is a limit reached: whoever asked has nothing to run.
            yield TurnDone("tool_calls" if theirs else "length", closed=held.closed)
            return
        if held.cut_call:
            answer = CUT_CALL
        elif step == limits.calls:
            answer = NO_MORE
        else:
            answer = yield from _answer(call, target, table, end - time.monotonic(), stop)
        result = _result(call, answer, encoding, limits.result_tokens)
        ids = ids + list(result.ids)
        yield result
        if (stop is not None and stop.is_set()) or time.monotonic() > end:
            cancelled = stop is not None and stop.is_set()
            yield TurnDone("cancelled" if cancelled else "length", closed=held.closed)
            return


class _Held:
    """The grammar over the stretches of one turn, which goes on counting where the last one stopped."""

    def __init__(self, grammar: Grammar | None, engine: Streams) -> None:
        self._grammar, self._closed = grammar, False
        # How long a context is, if the engine shows its model.
        config = getattr(getattr(engine, "model", None), "config", None)
        self._context = None if config is None else int(config.max_position_embeddings)
        self._guide: Guide | None = None

    @property
    def closed(self) -> bool:
        """Whether a budget has ended thinking in this turn."""
        return self._closed or (self._guide is not None and self._guide.closed)

    @property
    def cut_call(self) -> bool:
        """Whether the call of this stretch was ended by a budget."""
        return self._guide is not None and self._guide.cut_call

    def params(self, params: SamplingParams, ids: list[int]) -> SamplingParams:
        """The parameters of the next stretch. What ends one in Harmony ends it, whatever the model's own ends are."""
        if self._grammar is None:
            return params
        room = None if self._context is None else self._context - len(ids)
        known = [n for n in (params.max_tokens, room) if n is not None]
        before, self._closed = self._guide, self.closed
        spent, called = (0, False) if before is None else (before.spent, before.called)
        guide = self._grammar.guide(min(known) if known else None, spent=spent, called=called)
        self._guide = guide
        stops = (*self._grammar.stops, *(params.stop_token_ids or ()))
        return dataclasses.replace(params, constraint=lambda: guide, stop_token_ids=stops)


class _Stretch:
    """Sampling up to a call or the end of the turn."""

    def __init__(self, encoding: Encoding, logprobs: bool, stop: threading.Event | None, held: _Held) -> None:
        self.parser, self._stop_asked, self._held = StreamParser(encoding), stop, held
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
        """Takes note of an event and passes it on; a call that a budget has ended passes as one that was cut off."""
        if isinstance(event, MessageStart):
            self._start, self._text = event, []
        elif isinstance(event, MessageEnd):
            if self._start is not None and self._start.is_call and event.stop in ("call", "end", "return"):
                self.call = _Call(self._start, "".join(self._text))
                if self._held.cut_call:
                    event = MessageEnd("cut", event.ids)
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
    half = most // 2
    if len(text) > 2 * _TOKEN * most:  # what will be left out need not be cut into tokens
        head, tail = encoding.encode(text[: _TOKEN * half])[:half], encoding.encode(text[-_TOKEN * half :])
        left_out = f"about {len(text) >> 20} million characters"
    else:
        head = tail = encoding.encode(text)
        if len(head) <= most:
            return text
        left_out = f"{len(head) - most} tokens"
    return f"{encoding.decode(head[:half])}\n[... {left_out} left out ...]\n{encoding.decode(tail[len(tail) - half :])}"


def _table(tools: Iterable[Tool]) -> dict[str, Tool]:
    out: dict[str, Tool] = {}
    for tool in tools:
        for name in _recipients(tool.namespace):
            if name in out:
                raise UsageError(f"Two tools are called {name!r}; rename one, or leave it out.")
            out[name] = tool
    return out


def _recipients(ns: Namespace) -> list[str]:
    return [f"{ns.name}.{f.name}" for f in ns.functions] or [ns.name]


def declare(conversation: Conversation, tools: Iterable[Tool], rules: Rules | None = None) -> Conversation:
    """The conversation with every tool declared, functions in the developer message, the built-in ones in the system
    message, and the response format the rules ask for."""
    known = conversation.recipients()
    for ns in (t.namespace for t in tools):
        missing = tuple(f for f in ns.functions if f"{ns.name}.{f.name}" not in known)
        if missing or (not ns.functions and ns.name not in known):
            conversation = _with(conversation, dataclasses.replace(ns, functions=missing))
            known = conversation.recipients()
    wanted = None if rules is None else rules.format
    return conversation if wanted is None else _changed(conversation, "developer", formats=(wanted,))


def _with(conversation: Conversation, ns: Namespace) -> Conversation:
    role: Literal["developer", "system"] = "developer" if ns.name == "functions" else "system"
    content = _content(conversation, role)
    spaces = {} if content is None else {n.name: n for n in content.namespaces}
    old = spaces.get(ns.name)
    spaces[ns.name] = (
        dataclasses.replace(ns, functions=old.functions + ns.functions, description=old.description)
        if old
        else ns
    )
    return _changed(conversation, role, namespaces=tuple(spaces.values()))


def _content(conversation: Conversation, role: str) -> Any:
    """The first content of a developer or system message, or None."""
    kind = _KINDS[role]
    found = (m.content for m in conversation.messages if m.role == role and isinstance(m.content, kind))
    return next(found, None)


_KINDS: dict[str, type[Any]] = {"developer": DeveloperContent, "system": SystemContent}


def _changed(conversation: Conversation, role: Literal["developer", "system"], **fields: Any) -> Conversation:
    """The conversation with fields of that content set; the message is made if there is none."""
    messages, old = list(conversation.messages), _content(conversation, role)
    if old is None:
        at = 1 if role == "developer" and messages and messages[0].role == "system" else 0
        messages.insert(at, Message(role, _KINDS[role](**fields)))
    else:
        at = next(n for n, m in enumerate(messages) if m.content is old)
        messages[at] = dataclasses.replace(messages[at], content=dataclasses.replace(old, **fields))
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

    @property
    def closed(self) -> bool:
        """Whether a budget ended the thinking before the model did."""
        return self.folded.closed


def reply(
    prompt: str | Sequence[Mapping[str, Any]] | Conversation,
    *,
    model: str | Model = "mini",
    effort: str = "medium",
    tools: Sequence[Tool] = (),
    params: SamplingParams | None = None,
    engine: Engine | None = None,
    tool_choice: str | Mapping[str, Any] = "auto",
    response_format: str | Mapping[str, Any] | None = None,
    max_reasoning_tokens: int | None = None,
    grammar: bool = True,
    **sampling: Any,
) -> Reply:
    """Asks once: a question, chat messages or a Conversation. `sampling` are fields of SamplingParams.

    `model` is a loaded model, a name or a folder; `engine` uses a running engine and its model instead. tool_choice,
    response_format and max_reasoning_tokens are those of `harmony.Rules`; without the grammar they cannot be held.
    """
    from motet.engine import Engine, SamplingParams

    conversation = conversation_of(prompt, effort)
    chosen = params or SamplingParams(**sampling)
    rules = rules_of(grammar, tool_choice, response_format, max_reasoning_tokens)
    if engine is not None:
        return _reply(engine, conversation, engine.model.encoding, chosen, tools, rules)
    if isinstance(model, str):
        from motet.model import load

        model = load(model)
    with Engine(model) as own:
        return _reply(own, conversation, model.encoding, chosen, tools, rules)


def rules_of(
    grammar: bool = True,
    tool_choice: str | Mapping[str, Any] = "auto",
    response_format: str | Mapping[str, Any] | None = None,
    max_reasoning_tokens: int | None = None,
) -> Rules | None:
    """The rules of a turn, None without the grammar. UsageError for a rule that only the grammar could hold."""
    rules = Rules(tool_choice, response_format, max_reasoning_tokens)
    if grammar:
        return rules
    for name in ("tool_choice", "response_format", "max_reasoning_tokens"):
        if getattr(rules, name) != getattr(RULES, name):
            raise UsageError(f"{name} is held by the grammar; turn the grammar on, or leave {name} out.")
    return None


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
    rules: Rules | None = RULES,
) -> Reply:
    events = tuple(run_turn(engine, conversation, encoding, params, tools, rules=rules))
    folded = fold(events)
    prompt = len(render(declare(conversation, tools, rules), encoding))
    said = [e for e in events if not isinstance(e, ToolResult | TurnDone)]
    thought, on = 0, False
    for e in said:
        on = e.channel == "analysis" if isinstance(e, MessageStart) else on
        thought += len(e.ids) if on and isinstance(e, Delta) else 0
    return Reply(events, folded, Usage(prompt, sum(len(e.ids) for e in said), thought))

"""Talking with a model: run, chat. Knows what a person sees of a turn; session.py runs and times it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli import show
from motet.cli.options import (
    Effort,
    EffortOption,
    Grammar,
    JsonOption,
    JsonSchema,
    KvMemoryOption,
    KvOption,
    MaxReasoning,
    MaxTokens,
    MinP,
    ModelOption,
    PrecisionOption,
    Seed,
    Temperature,
    ThreadsOption,
    ToolChoice,
    TopK,
    TopP,
    n_bytes,
)
from motet.cli.tools import McpOption, SaveOption, ToolOption, keep
from motet.errors import UsageError

if TYPE_CHECKING:
    from motet.cli.session import Session, Timing
    from motet.engine import SamplingParams
    from motet.harmony import Event, Folded, MessageStart, Rules, Spoken
    from motet.tools import Tool
    from motet.tools.browser import CitationStream


class Printer:
    """Events that may be seen to a person: what is meant for the user plain on stdout, all else labelled on stderr."""

    def __init__(self, citations: Callable[[], CitationStream] | None = None) -> None:
        """`citations` makes what rewrites the citation marks of one answer."""
        self._citations, self._rewriter = citations, None if citations is None else citations()
        self.answering = False
        self.thinking = False
        self.line_open = False
        self.waiting = False
        self.last = 0.0

    def on_token(self, n: int) -> None:
        """While nothing is shown, a terminal sees that something goes on."""
        now = time.monotonic()
        idle = not self.answering and not self.thinking
        if idle and sys.stderr.isatty() and now - self.last > 0.1:
            self.last, self.waiting = now, True
            print(f"\r{show.paint(show.DIM, f'thinking, {n} tokens')}", end="", file=sys.stderr, flush=True)

    def feed(self, event: Event) -> None:
        """Shows one event."""
        from motet.harmony import Delta, MessageEnd, MessageStart, Quarantined, ToolResult

        if isinstance(event, MessageStart):
            self._start(event)
        elif isinstance(event, Delta):
            self._text(event.text)
        elif isinstance(event, MessageEnd):
            self.close()
        elif isinstance(event, Quarantined):
            self._end_line()
            show.note(f"kept aside, {event.reason}" + (f": {show.visible(event.text)}" if event.text else ""))
        elif isinstance(event, ToolResult):
            self.close()
            show.note(f"{event.name} answered: {show.safe(event.text)}")

    def _start(self, event: MessageStart) -> None:
        from motet.harmony import USUAL

        self.close()
        if self._citations is not None:
            self._rewriter = self._citations()
        self.answering = USUAL.rule(event) == "show"
        call = f"call to {event.recipient}" if event.recipient else ""
        label = call or (event.channel if event.role == "assistant" else event.role) or "no channel"
        self.thinking = not self.answering
        if self.thinking:
            self._erase()
            show.note(f"{label}: ", end="")
            self.line_open = True

    def _text(self, text: str) -> None:
        if self.answering:
            self._erase()
            if self._rewriter is not None:
                text, _ = self._rewriter.feed(text)
            print(show.safe(text), end="", flush=True)
            self.line_open = True
        elif self.thinking:
            show.note(show.safe(text), end="")
            self.line_open = True

    def _erase(self) -> None:
        if self.waiting:
            self.waiting = False
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _end_line(self) -> None:
        self._erase()
        if self.line_open:
            self.line_open = False
            print(file=sys.stdout if self.answering else sys.stderr, flush=True)

    def close(self) -> None:
        """Ends an open message and its line, also when the turn was cut off."""
        if self.answering and self._rewriter is not None:
            print(show.safe(self._rewriter.feed("", last=True)[0]), end="")
        self._end_line()
        self.answering = self.thinking = False


def sampling(**given: Any) -> SamplingParams:
    """SamplingParams with what the user gave; the defaults stand in one place, there."""
    from motet.engine import SamplingParams

    return SamplingParams(**{k: v for k, v in given.items() if v is not None})


def open_session(
    name: str,
    precision: str,
    threads: int | None,
    tools: Sequence[Tool] = (),
    kv_memory: str | None = None,
    kv: str | None = None,
) -> Session:
    """A session; packing, the first time, shows a bar."""
    from motet.cli.session import Session

    budget = n_bytes(kv_memory)
    with show.bar(f"packing {name} for {precision}, once") as progress:
        return Session(name, precision, threads, progress, tools, budget, kv)


def toolbox(specs: list[str] | None, servers: list[str] | None) -> AbstractContextManager[Sequence[Tool]]:
    """The tools of the options; nothing is imported when there are none."""
    if not specs and not servers:
        return nullcontext(())
    from motet.tools import toolbox

    return toolbox(specs or (), servers or ())


def speeds(timing: Timing, session: Session) -> str:
    machine = session.machine()
    held = f"cached {timing.n_cached} of {timing.n_prompt} tokens" if timing.n_cached else ""
    computed = f"{timing.n_prompt - timing.n_cached} prompt tokens" + _rate(timing.prefill_rate)
    parts = [held, computed] if held else [computed]
    parts += [f"{timing.n_sampled} tokens" + _rate(timing.decode_rate), f"first after {timing.first_s:.2f} s"]
    return " · ".join([*parts, f"{machine['precision']}, {machine['isa']}, {machine['threads']} threads"])


def _rate(rate: float | None) -> str:
    return "" if rate is None else f" at {rate:.0f}/s" if rate >= 100 else f" at {rate:.1f}/s"


def rules(
    grammar: str, max_reasoning_tokens: int | None, tool_choice: str = "auto", schema: Path | None = None
) -> Rules | None:
    """What the grammar holds a turn to, from the options."""
    from motet.turn import rules_of

    form = None if schema is None else {"type": "json_schema", "name": "answer", "schema": _schema(schema)}
    return rules_of(grammar == "on", tool_choice, form, max_reasoning_tokens)


def _schema(path: Path) -> Any:
    import json

    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise UsageError(f"The schema {path} cannot be read ({e.strerror}); check the path.") from None
    except (ValueError, RecursionError) as e:
        raise UsageError(f"The schema {path} is not JSON ({e}).") from None


def take_turn(
    session: Session, conversation: Any, params: SamplingParams, analysis: bool, quiet: bool = False
) -> Folded:
    """Runs one turn and shows what may be seen of it; returns the fold of that. All outlets stand behind the policy."""
    from motet.harmony import ALL, USUAL, fold, visible

    printer = Printer(session.citations if session.tools else None)
    session.on_token = None if quiet else printer.on_token
    events: list[Event] = []
    try:
        for event in visible(session.turn(conversation, params), ALL if analysis else USUAL):
            events.append(event)
            if not quiet:
                printer.feed(event)
    finally:
        printer.close()
    return fold(events)


def remark(folded: Folded) -> None:
    from motet.turn import MAX_CALLS

    if folded.closed:
        show.note("(the limit of tokens ended the thinking)")
    if folded.finish == "length" and not folded.final and len(folded.tool_results) > MAX_CALLS:
        show.note(f"(it made {MAX_CALLS} tool calls and did not come to an answer; ask for less at once)")
    elif folded.finish == "length" and not folded.final:
        show.note("(the limit came before an answer: raise --max-tokens or lower --effort)")
    elif folded.finish == "length":
        show.note("(cut off by the limit of tokens)")
    elif folded.finish == "tool_calls":
        show.note("(it called a tool that this command does not have)")
    elif not folded.final:
        show.note("(the model ended without an answer)")


def run(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The question, or - for standard input.")
    ] = None,
    model: ModelOption = "mini",
    effort: EffortOption = "medium",
    analysis: Annotated[bool, typer.Option("--analysis/--no-analysis", help="Show the thinking.")] = False,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system message.")] = None,
    developer: Annotated[
        str | None, typer.Option("--developer", metavar="TEXT", help="Developer instructions.")
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    max_reasoning_tokens: MaxReasoning = None,
    json_schema: JsonSchema = None,
    tool_choice: ToolChoice = "auto",
    grammar: Grammar = "on",
    precision: PrecisionOption = "int8",
    kv: KvOption = None,
    threads: ThreadsOption = None,
    kv_memory: KvMemoryOption = None,
    tool: ToolOption = None,
    mcp: McpOption = None,
    save: SaveOption = None,
    json: JsonOption = False,
) -> None:
    """Ask once; the answer streams to stdout."""
    params = sampling(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed
    )
    held = rules(grammar, max_reasoning_tokens, tool_choice, json_schema)
    text = show.prompt_text(prompt)
    with (
        toolbox(tool, mcp) as tools,
        open_session(model, precision, threads, tools, kv_memory, kv) as session,
    ):
        conversation = conversation_of([("system", system), ("developer", developer), ("user", text)], effort)
        session.rules = held
        folded = take_turn(session, conversation, params, analysis, quiet=json)
        remark(folded)
        files = keep([a for r in session.results for a in r.artefacts], save)
        if json:
            show.emit({**reported(session, folded, effort, analysis), "files": files})
        else:
            show.note(speeds(session.timing, session))


def conversation_of(messages: Iterable[tuple[str, str | None]], effort: Effort) -> Any:
    from motet.harmony import Conversation

    return Conversation.from_chat(
        [{"role": r, "content": t} for r, t in messages if t is not None], effort=effort
    )


def reported(session: Session, folded: Folded, effort: Effort, analysis: bool) -> dict[str, Any]:
    """What may be seen of a turn, with counts and speeds, for --json. `analysis` is null where it is hidden."""
    timing = session.timing
    final, cited = session.citations().feed(folded.final, last=True)
    return {
        "model": session.name, "effort": effort, "analysis": folded.analysis if analysis else None, "commentary": folded.commentary,
        "final": final, "citations": [vars(c) for c in cited], "finish": folded.finish,
        "tool_calls": [{"recipient": c.recipient, "arguments": c.arguments} for c in folded.tool_calls],
        "other": [{"role": m.start.role, "channel": m.start.channel, "text": m.text} for m in _unsorted(folded)],
        "quarantined": [str(q) for q in folded.quarantined],
        "tokens": {"prompt": timing.n_prompt, "cached": timing.n_cached, "sampled": timing.n_sampled, "analysis": session.counts.get("analysis", 0),
                   "final": session.counts.get("final", 0)},
        "seconds": {"load": round(session.load_s, 4), "first_token": round(timing.first_s, 4),
                    "decode": round(timing.decode_s, 4)},
        "tokens_per_second": {"prefill": _rounded(timing.prefill_rate), "decode": _rounded(timing.decode_rate)},
        **session.machine(),
    }  # fmt: skip


def _unsorted(folded: Folded) -> list[Spoken]:
    """Messages that are neither the assistant's on a known channel nor calls: nothing the model said is left out."""
    known = ("final", "analysis", "commentary")
    return [
        m
        for m in folded.messages
        if not m.start.is_call and (m.start.role != "assistant" or m.start.channel not in known)
    ]


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)


HELP = "/effort low|medium|high   /analysis on|off   /new   /help   /quit   (Ctrl-C stops a reply)"


def chat(
    model: ModelOption = "mini",
    effort: EffortOption = "medium",
    analysis: Annotated[bool, typer.Option("--analysis/--no-analysis", help="Show the thinking.")] = True,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system message.")] = None,
    developer: Annotated[
        str | None, typer.Option("--developer", metavar="TEXT", help="Developer instructions.")
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    max_reasoning_tokens: MaxReasoning = None,
    grammar: Grammar = "on",
    precision: PrecisionOption = "int8",
    kv: KvOption = None,
    threads: ThreadsOption = None,
    kv_memory: KvMemoryOption = None,
    tool: ToolOption = None,
    mcp: McpOption = None,
    save: SaveOption = None,
) -> None:
    """Talk; the conversation is remembered until /new."""
    from motet.cli.chat import Chat

    params = sampling(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed
    )
    held = rules(grammar, max_reasoning_tokens)
    with (
        toolbox(tool, mcp) as tools,
        open_session(model, precision, threads, tools, kv_memory, kv) as session,
    ):
        session.rules = held
        Chat(session, params, effort, analysis, [("system", system), ("developer", developer)], save).loop()


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (run, chat):
        app.command(rich_help_panel="Talk")(command)

"""The tool check: conversations that need tools, on any engine; every token span validated, and rates that say how well.

Rates: schema-valid, right-tool, right-argument, end-to-end, malformed headers, undeclared calls; pass@k (at least one of k
attempts right) and pass^k (all k right) by scenario. Knows scenarios and spans; the engine is the caller's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.errors import UsageError
from motet.harmony import Conversation, Delta, Event, Message, MessageEnd, MessageStart, ToolResult
from motet.study.planted import PLANTED, Planted, spoil
from motet.study.scenarios import SCENARIOS, Scenario
from motet.study.scripted import ScriptedEngine
from motet.study.spans import Fault, Stretch, check
from motet.tools import Tool
from motet.tools.browser import BrowserTool
from motet.turn import Streams, TurnLimits, declare, run_turn

if TYPE_CHECKING:
    from motet.engine import SamplingParams, TokenOut
    from motet.tokenizer import Encoding


_LOOKING = ("browser.search", "browser.open", "browser.find")  # more of them than wanted is no fault


@dataclass
class Recorder:
    """Stands between turn and engine, and keeps what passes: prompts, and tokens as they were sampled."""

    engine: Streams
    stretches: list[Stretch] = field(default_factory=list)

    def stream(self, ids: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        """As Engine.stream."""
        sampled: list[int] = []
        try:
            for out in self.engine.stream(ids, params):
                sampled.append(out.token)
                yield out
        finally:
            self.stretches.append(Stretch(tuple(ids), tuple(sampled)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@dataclass(frozen=True)
class Attempt:
    """One conversation, judged."""

    scenario: str
    passed: bool
    schema_valid: bool
    right_tool: bool
    right_argument: bool
    answer_right: bool
    calls: int
    undeclared: int
    headers: int
    faults: tuple[Fault, ...]
    finals: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All attempts, and what they come to."""

    attempts: tuple[Attempt, ...]

    @property
    def passed(self) -> bool:
        """Whether every attempt was right."""
        return all(a.passed for a in self.attempts)

    def rates(self) -> dict[str, float]:
        """Shares of attempts; malformed headers as a share of headers, undeclared calls of calls."""
        n, headers, calls = (
            len(self.attempts),
            sum(a.headers for a in self.attempts),
            sum(a.calls for a in self.attempts),
        )
        malformed = sum(f.code == "malformed_header" for a in self.attempts for f in a.faults)
        names = ("schema_valid", "right_tool", "right_argument", "answer_right", "passed")
        rates = {name: sum(getattr(a, name) for a in self.attempts) / n for name in names}
        return {
            **{("end_to_end" if k == "passed" else k): v for k, v in rates.items()},
            "malformed_headers": malformed / headers if headers else 0.0,
            "undeclared_calls": sum(a.undeclared for a in self.attempts) / calls if calls else 0.0,
        }

    def json(self) -> dict[str, Any]:
        """The report as one object."""
        scenarios: dict[str, Any] = {}
        for name in dict.fromkeys(a.scenario for a in self.attempts):
            mine = [a for a in self.attempts if a.scenario == name]
            n, right = len(mine), sum(a.passed for a in mine)
            scenarios[name] = {
                "attempts": n, "passed": right,
                "pass@k": {k: at_least_one(n, right, k) for k in range(1, n + 1)},
                "pass^k": {k: all_of(n, right, k) for k in range(1, n + 1)},
                "faults": dict(Counter(f.code for a in mine for f in a.faults)),
            }  # fmt: skip
        faults = [dataclasses.asdict(f) | {"scenario": a.scenario} for a in self.attempts for f in a.faults]
        return {"passed": self.passed, "rates": self.rates(), "scenarios": scenarios, "faults": faults[:200]}


def at_least_one(n: int, right: int, k: int) -> float:
    """pass@k, without bias, from n attempts (Chen et al. 2021, arXiv 2107.03374)."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def all_of(n: int, right: int, k: int) -> float:
    """pass^k: the chance that k attempts are all right (tau-bench, arXiv 2406.12045)."""
    return comb(right, k) / comb(n, k)


def toolcheck(
    engine: Streams | None,
    encoding: Encoding,
    *,
    attempts: int = 1,
    only: Sequence[str] = (),
    defect: str | None = None,
    effort: str = "medium",
    max_tokens: int = 4096,
    seed: int = 0,
) -> Report:
    """Holds every conversation `attempts` times. `engine` None: the scripted policy; `defect` plants one of PLANTED in it."""
    among = scenarios(only)
    planted = _planted(defect, engine)
    out: list[Attempt] = []
    for scenario in (s for s in among if planted is None or s.name == planted.scenario):
        for n in range(attempts):
            out.append(_attempt(scenario, engine, encoding, planted, effort, max_tokens, seed + n))
    return Report(tuple(out))


def scenarios(only: Sequence[str]) -> list[Scenario]:
    """Those of these names, or all. UsageError for a name that none has."""
    names = [s.name for s in SCENARIOS]
    if unknown := [n for n in only if n not in names]:
        raise UsageError(f"There is no scenario {unknown[0]!r}; use {', '.join(names)}.")
    return [s for s in SCENARIOS if not only or s.name in only]


def marks(
    scenario: Scenario, calls: Sequence[tuple[str | None, str]], finals: list[str], artefacts: int
) -> tuple[bool, bool, bool]:
    """Whether the tools, their arguments and the answers are right; a call is its declared tool, or None, and its content."""
    wanted, targets = scenario.wanted, [t for t, _ in calls]
    allowed = {*(w.recipient for w in wanted), *(_LOOKING if wanted else ())}
    rest = iter(targets)  # the wanted ones in this order, others in between
    tools = all(w.recipient in rest for w in wanted) and set(targets) <= allowed
    arguments = all(any(t == w.recipient and w.right(a) for t, a in calls) for w in wanted)
    return tools, arguments, scenario.grade(finals) and artefacts >= scenario.artefacts


def _planted(defect: str | None, engine: Streams | None) -> Planted | None:
    if defect is None:
        return None
    if defect not in PLANTED or engine is not None:
        raise UsageError(
            f"There is no defect {defect!r} to plant in the scripted policy; use {', '.join(PLANTED)}."
        )
    return PLANTED[defect]


def _attempt(
    scenario: Scenario,
    engine: Streams | None,
    encoding: Encoding,
    planted: Planted | None,
    effort: str,
    max_tokens: int,
    seed: int,
) -> Attempt:
    from motet.engine import SamplingParams

    says = planted.says if planted is not None else None
    scripts = {q: spoil(steps, says) if says is not None else steps for q, steps in scenario.scripts.items()}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tools = scenario.tools(Path(folder))
        for tool in tools:
            stack.callback(getattr(tool, "close", lambda: None))
        if planted is not None and planted.tool is not None:
            tools = [planted.tool(t) for t in tools]
        source = engine or ScriptedEngine(encoding, scripts)  # type: ignore[arg-type]
        held = _Held(source, encoding, tools, scenario, effort)
        for question in scenario.questions:
            held.ask(
                question,
                SamplingParams(seed=seed, max_tokens=max_tokens, temperature=0.0 if engine is None else 1.0),
            )
        return held.judged(planted)


class _Held:
    """A conversation being held."""

    def __init__(
        self, engine: Streams, encoding: Encoding, tools: Sequence[Tool], scenario: Scenario, effort: str
    ) -> None:
        self.recorder, self.encoding, self.tools, self.scenario = Recorder(engine), encoding, tools, scenario
        opening = (
            [] if scenario.instructions is None else [{"role": "developer", "content": scenario.instructions}]
        )
        self.conversation = declare(Conversation.from_chat(opening, effort=effort), tools)
        self.turns: list[list[Stretch]] = []
        self.finals: list[str] = []
        self.artefacts = 0

    def ask(self, question: str, params: SamplingParams) -> None:
        """One turn; it joins the conversation as it was."""
        self.conversation = self.conversation.append(Message("user", question))
        self.recorder.stretches = []
        events = list(
            run_turn(
                self.recorder,
                self.conversation,
                self.encoding,
                params,
                self.tools,
                limits=TurnLimits(calls=16, seconds=600),
                rules=None,  # the rates are the model's own, malformed headers among them
            )
        )
        self.turns.append(self.recorder.stretches)
        self.artefacts += sum(len(e.artefacts) for e in events if isinstance(e, ToolResult))
        said = messages_of(events)
        self.conversation = self.conversation.append(*said)
        final = "\n".join(
            m.text for m in said if m.role == "assistant" and m.channel == "final" and m.recipient is None
        )
        browser = next((t for t in self.tools if isinstance(t, BrowserTool)), None)
        self.finals.append(browser.cite(final)[0] if browser is not None else final)

    def judged(self, planted: Planted | None) -> Attempt:
        """Spans, calls and answers."""
        turns = (
            self.turns
            if planted is None or planted.trace is None
            else planted.trace(self.turns, self.encoding)
        )
        seen = check(turns, self.conversation.namespaces(), self.encoding)
        calls = [(c.target, c.arguments) for c in seen.calls]
        tools_right, arguments_right, right = marks(self.scenario, calls, self.finals, self.artefacts)
        valid = all(c.valid for c in seen.calls)
        return Attempt(
            self.scenario.name, not seen.faults and tools_right and arguments_right and right, valid, tools_right,
            arguments_right, right, len(seen.calls), sum(c.target is None for c in seen.calls), seen.headers,
            tuple(seen.faults), tuple(self.finals),
        )  # fmt: skip


def messages_of(events: Sequence[Event]) -> list[Message]:
    """A turn's messages as they join the conversation."""
    out: list[Message] = []
    start: MessageStart | None = None
    text: list[str] = []
    for e in events:
        if isinstance(e, MessageStart):
            start, text = e, []
        elif isinstance(e, Delta):
            text.append(e.text)
        elif isinstance(e, MessageEnd) and start is not None:
            if start.role == "assistant":
                out.append(
                    Message("assistant", "".join(text), start.channel, start.recipient, start.content_type)
                )
            start = None
        elif isinstance(e, ToolResult):
            out.append(Message("tool", e.text, e.channel, "assistant", name=e.name))
    return out

"""The tool check behind a URL that speaks Chat Completions: the same conversations, the same tools run here and offered as functions.

No token is seen there, so that only what reaches a client is judged: names, arguments, answers, and marks of the format in them.
Knows messages and scenarios.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motet.monitor.overlap import marked
from motet.study.scenarios import Scenario
from motet.study.spans import Fault
from motet.study.subject import Remote, explained, shown_of
from motet.study.toolcheck import Attempt, Report, marks, scenarios
from motet.tools import Tool, ToolError
from motet.tools.browser import BrowserTool

CALLS = 16  # of one turn
CODE = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}


def toolremote(
    client: Remote, *, attempts: int = 1, only: Sequence[str] = (), effort: str = "medium", max_tokens: int = 4096, seed: int = 0
) -> Report:  # fmt: skip
    """Holds every conversation `attempts` times. UserError when the server refuses or cannot be reached."""
    out = []
    for scenario in scenarios(only):
        for n in range(attempts):
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                tools = scenario.tools(Path(folder))
                for tool in tools:
                    stack.callback(getattr(tool, "close", lambda: None))
                held = _Held(
                    client,
                    scenario,
                    tools,
                    {"reasoning_effort": effort, "max_tokens": max_tokens, "seed": seed + n},
                )
                for turn, question in enumerate(scenario.questions):
                    held.ask(question, turn)
                out.append(held.judged())
    return Report(tuple(out))


@dataclass(frozen=True)
class _Offer:
    """A tool's function under the name a client may use. `raw`: its one argument is the call's content."""

    tool: Tool
    recipient: str
    raw: bool


@dataclass
class _Held:
    """A conversation being held."""

    client: Remote
    scenario: Scenario
    tools: Sequence[Tool]
    settings: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)
    finals: list[str] = field(default_factory=list)
    calls: list[tuple[str | None, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    artefacts: int = 0

    def __post_init__(self) -> None:
        self.offers: dict[str, _Offer] = {}
        self.declared: list[dict[str, Any]] = []
        if self.scenario.instructions is not None:
            self.messages.append({"role": "developer", "content": self.scenario.instructions})
        for tool in self.tools:
            space = tool.namespace
            if not space.functions:
                self._offer(space.name, _Offer(tool, space.name, True), space.description or "", CODE)
            for f in space.functions:
                name = f.name if space.name == "functions" else f"{space.name}_{f.name}"
                self._offer(
                    name, _Offer(tool, f"{space.name}.{f.name}", False), f.description or "", f.parameters
                )

    def _offer(self, name: str, offer: _Offer, description: str, parameters: Any) -> None:
        self.offers[name] = offer
        given = parameters or {"type": "object", "properties": {}}
        self.declared.append(
            {"type": "function", "function": {"name": name, "description": description, "parameters": given}}
        )

    def ask(self, question: str, turn: int) -> None:
        """One turn, its calls answered."""
        self.messages.append({"role": "user", "content": question})
        for _ in range(CALLS):
            message = self._said()
            text = message.content or ""
            if mark := marked(shown_of(message)):
                self.faults.append(Fault("control_token", f"{mark!r} in what a user sees", turn))
            calls = message.tool_calls or []
            said: dict[str, Any] = {"role": "assistant", "content": text}
            if calls:
                said["tool_calls"] = [
                    {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}} for c in calls
                ]  # fmt: skip
            self.messages.append(said)
            if not calls:
                break
            for c in calls:
                result = self._answered(c.function.name, c.function.arguments, turn)
                self.messages.append({"role": "tool", "tool_call_id": c.id, "content": result})
        else:
            text = ""
        if not text.strip():
            self.faults.append(Fault("no_final", "the turn has no answer", turn))
        browser = next((t for t in self.tools if isinstance(t, BrowserTool)), None)
        self.finals.append(browser.cite(text)[0] if browser is not None else text)

    def _said(self) -> Any:
        more = {"tools": self.declared} if self.declared else {}
        with explained(self.client.url):
            reply = self.client.client.chat.completions.create(
                model=self.client.model, messages=self.messages, **self.settings, **more
            )  # type: ignore[call-overload]
        return reply.choices[0].message

    def _answered(self, name: str, arguments: str, turn: int) -> str:
        """Runs a call, and notes what is wrong with it."""
        offer = self.offers.get(name)
        if offer is None:
            self.calls.append((None, arguments))
            code = "unknown_tool" if self.offers else "call_without_tools"
            self.faults.append(Fault(code, f"{name!r} is not declared", turn))
            return f"There is no tool {name!r}."
        try:
            given = json.loads(arguments)
            content = given["code"] if offer.raw else arguments
            if not isinstance(given, dict) or not isinstance(content, str):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            self.calls.append((offer.recipient, arguments))
            code = "schema" if _is_json(arguments) else "broken_json"
            self.faults.append(Fault(code, f"{name}: {arguments[:80]!r}", turn))
            return "The arguments are not what the tool's schema asks for."
        self.calls.append((offer.recipient, content))
        try:
            answer = offer.tool.call(offer.recipient, content)
        except ToolError as e:
            if not offer.raw and re.search(r"arguments", str(e), re.I):
                self.faults.append(Fault("schema", f"{name}: {e}"[:160], turn))
            return str(e)
        if isinstance(answer, str):
            return answer
        self.artefacts += len(answer.artefacts)
        return answer.text

    def judged(self) -> Attempt:
        """Names, arguments and answers."""
        tools_right, arguments_right, right = marks(self.scenario, self.calls, self.finals, self.artefacts)
        valid = not any(
            f.code in ("broken_json", "schema", "unknown_tool", "call_without_tools") for f in self.faults
        )
        return Attempt(
            self.scenario.name, not self.faults and tools_right and arguments_right and right, valid, tools_right, arguments_right,
            right, len(self.calls), sum(t is None for t, _ in self.calls), 0, tuple(self.faults), tuple(self.finals),
        )  # fmt: skip


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

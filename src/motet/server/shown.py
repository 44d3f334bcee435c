"""What of a turn a caller sees, and what the turn cost: the policy of a key, stop strings, counts. Knows no wire format."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from motet.harmony import Delta, Event, MessageStart, Policy, Quarantined, ToolResult, TurnDone
from motet.harmony.visible import Rule, Visible
from motet.server.stops import Stops
from motet.server.turns import Turn


def told(text: str) -> str:
    """A summary of thinking that says nothing of what was thought, only how much."""
    n = len(text.split())
    return f"Thought in {n} word{'' if n == 1 else 's'}."


_THINKING: dict[str, Rule] = {"hide": "hide", "show": "show", "summary": told}


def policy_of(thinking: str) -> Policy:
    """The policy of an API caller: answers, remarks and calls are for them; thinking by the rule; never markup."""
    return Policy(analysis=_THINKING[thinking], calls="show", results="show", no_markup="show")


@dataclass
class Cost:
    """Tokens of one turn, by what they were. `malformed` and `repairs` count what the model wrote badly, by reason."""

    n_prompt: int = 0
    n_cached: int = 0
    n_sampled: int = 0
    n_reasoning: int = 0
    channels: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    _channel: str = "none"

    def note(self, event: Event) -> None:
        """Counts one event of the turn, seen or not."""
        if isinstance(event, ToolResult | TurnDone):
            return
        self.n_sampled += len(event.ids)
        if isinstance(event, MessageStart):
            self._channel = event.channel or "none"
            self.repairs.update(event.repairs)
        elif isinstance(event, Delta):
            self.channels[self._channel] += len(event.ids)
            self.n_reasoning += len(event.ids) if self._channel == "analysis" else 0
        elif isinstance(event, Quarantined):
            self.malformed[event.reason] += 1

    def plus(self, other: Cost) -> Cost:
        """Both together: several answers to one prompt, which counts once."""
        return Cost(
            max(self.n_prompt, other.n_prompt), max(self.n_cached, other.n_cached), self.n_sampled + other.n_sampled,
            self.n_reasoning + other.n_reasoning, self.channels + other.channels, self.malformed + other.malformed,
            self.repairs + other.repairs,
        )  # fmt: skip


async def shown(
    turn: Turn, policy: Policy, stops: Sequence[str], cost: Cost, record: list[Event] | None = None
) -> AsyncIterator[Event]:
    """The events a caller may see, as they come; the last is TurnDone. `record` gets every event, unseen ones too."""
    gate, stop = Visible(policy), Stops(stops)
    done = False
    events = aiter(turn)
    try:
        async for event in events:
            cost.note(event)
            if record is not None:
                record.append(event)
            for seen in gate.feed(event):
                if isinstance(seen, TurnDone):
                    done = True
                    seen = (
                        TurnDone("stop" if turn.view.stopped else "cancelled")
                        if turn.view.cancelled.is_set()
                        else seen
                    )
                for out in stop.feed(seen):
                    yield out
            if stop.hit:
                break
    finally:
        cost.n_prompt, cost.n_cached = turn.view.n_prompt, turn.view.n_cached
        await events.aclose()  # type: ignore[attr-defined]
    if not done:
        yield TurnDone("stop" if stop.hit or turn.view.stopped else "cancelled")

"""The monitor of a server: watches every turn on its own thread, acts on alarms, and tells what it saw as metrics and as JSON.

No text passes through here: alarms have a kind, a channel and a place. Counts of experts come from the engine, by channel.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from motet.harmony import Event, tagged
from motet.monitor.load import Running, collapsed, load
from motet.monitor.watch import KINDS, Alarm, Watch, Watcher
from motet.server.turns import View

RECENT = 100
_MEASURES = ("cv", "max_violation", "entropy", "effective", "dead", "hot")


class Monitor:
    """Of one server. Also a collector for Prometheus."""

    def __init__(self, watch: Sequence[str], engine: Any) -> None:
        self.watch, self.load = Watch.of(watch), Running()
        self._config = getattr(getattr(engine, "model", None), "config", None)
        self._lock = threading.Lock()
        self._alarms: Counter[tuple[str, str]] = Counter()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._seconds = 0.0
        self._turns = 0

    def watched(self, view: View, events: Iterator[Event]) -> Iterator[Event]:
        """Passes a turn's events on, looks at each, and acts. Runs on the turn's thread."""
        if not self.watch.on:
            yield from events
            return
        watcher, clock, spent = Watcher(), time.perf_counter, 0.0
        spans, channel, at = list[tuple[str, int, int]](), "none", -1
        with closing(events):  # type: ignore[type-var]
            for event in events:
                began = clock()
                if at < 0:
                    at = len(view.prompt)
                    spans.append(("prompt", 0, at))
                channel, at = _placed(event, channel, at, spans)
                for alarm in watcher.feed(event):
                    self._raise(alarm, view)
                spent += clock() - began
                yield event
        began = clock()
        self._route(view, spans)
        with self._lock:
            self._turns += 1
            self._seconds += spent + clock() - began

    def _raise(self, alarm: Alarm, view: View) -> None:
        action = self.watch.action(alarm.kind)
        if action == "close" and not view.end_thinking():
            action = "flag"  # without the grammar nothing can end the thinking
        if action == "stop":
            view.stopped = alarm.kind
            view.cancel()
        with self._lock:
            self._alarms[alarm.kind, action] += 1
            self._recent.append(
                {"time": round(time.time(), 3), "kind": alarm.kind, "channel": alarm.channel, "token": alarm.at, "action": action}
            )  # fmt: skip

    def _route(self, view: View, spans: Sequence[tuple[str, int, int]]) -> None:
        counts = view.routed(list(spans))
        if counts and self._config is not None:
            self.load.add(counts, self._config.experts_per_token)

    # --- what it tells ---

    def state(self) -> dict[str, Any]:
        """For the page: alarms, counts and the load of the experts."""
        with self._lock:
            alarms = [{"kind": k, "action": a, "count": n} for (k, a), n in sorted(self._alarms.items())]
            recent, turns, seconds = list(self._recent), self._turns, self._seconds
        return {
            "on": self.watch.on, "kinds": {k: {"means": text, "action": self.watch.action(k)} for k, text in KINDS.items()},
            "turns": turns, "seconds": round(seconds, 6), "alarms": alarms, "recent": recent[::-1], "router": self._router(),
        }  # fmt: skip

    def _router(self) -> dict[str, Any]:
        held = self.load.now()
        if not held:
            return {"tokens": 0, "channels": {}, "layers": []}
        experts = held["all"].shape[1]
        of = {k: load(c) for k, c in held.items()}
        bad = collapsed(of["all"], experts)
        layers = [
            {m: _number(getattr(of["all"], m)[n]) for m in _MEASURES} | {"collapsed": bool(bad[n]), "load": [round(float(v), 5) for v in row / row.sum()]}
            for n, row in enumerate(held["all"])
        ]  # fmt: skip
        means = {k: {m: _number(np.mean(getattr(v, m))) for m in _MEASURES} for k, v in of.items()}
        return {"tokens": self.load.seen, "experts": experts, "channels": means, "layers": layers}

    def collect(self) -> Iterator[Any]:
        """For Prometheus, when somebody looks."""
        state = self.state()
        alarms = CounterMetricFamily(
            "motet_alarms", "alarms of the monitor, by kind and what followed", labels=["kind", "action"]
        )
        for a in state["alarms"]:
            alarms.add_metric([a["kind"], a["action"]], a["count"])
        yield alarms
        yield CounterMetricFamily("motet_monitor_seconds", "time the monitor took", value=state["seconds"])
        router = state["router"]
        yield CounterMetricFamily(
            "motet_router_tokens", "tokens whose experts were counted", value=router["tokens"]
        )
        for m in _MEASURES:
            by_layer = GaugeMetricFamily(f"motet_router_{m}", f"{_HELP[m]}, by layer", labels=["layer"])
            by_channel = GaugeMetricFamily(
                f"motet_router_channel_{m}", f"{_HELP[m]}, mean over layers, by channel", labels=["channel"]
            )
            for n, row in enumerate(router["layers"]):
                if row[m] is not None:
                    by_layer.add_metric([str(n)], row[m])
            for channel, row in router["channels"].items():
                if row[m] is not None:
                    by_channel.add_metric([channel], row[m])
            yield by_layer
            yield by_channel
        collapsed_layers = sum(row["collapsed"] for row in router["layers"])
        yield GaugeMetricFamily(
            "motet_router_collapsed_layers", "layers most of whose experts are idle", value=collapsed_layers
        )


_HELP = {
    "cv": "unevenness of the experts' load (standard deviation over mean)",
    "max_violation": "load of the busiest expert over the mean, minus 1",
    "entropy": "entropy of the load, 1 is even",
    "effective": "experts that would have this entropy evenly loaded",
    "dead": "experts below a tenth of an even load",
    "hot": "experts above four times an even load",
}


def _number(value: Any) -> float | None:
    v = float(value)
    return round(v, 5) if v == v else None


def _placed(event: Event, channel: str, at: int, spans: list[tuple[str, int, int]]) -> tuple[str, int]:
    """(channel, position) after an event; its ids join the spans, neighbours of one kind as one."""
    channel, tag = tagged(event, channel)
    if event.ids:
        end = at + len(event.ids)
        if spans[-1][0] == tag and spans[-1][2] == at:
            spans[-1] = (tag, spans[-1][1], end)
        else:
            spans.append((tag, at, end))
        at = end
    return channel, at

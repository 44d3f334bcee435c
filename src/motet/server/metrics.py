"""Counters and clocks for Prometheus, one registry a server. Knows no requests' contents."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from motet.server.shown import Cost

_FIRST = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_GAP = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_WHOLE = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """What /metrics tells. `engine` is asked when somebody looks."""

    def __init__(self, engine: Any) -> None:
        self._registry = r = CollectorRegistry()
        for name, text, ask in (
            ("motet_running", "requests in the batch", lambda: engine.running),
            ("motet_waiting", "requests queued behind the batch", lambda: engine.waiting),
            ("motet_kv_bytes", "bytes of keys and values held", lambda: engine.memory["held_bytes"]),
            ("motet_steps", "forward passes so far", lambda: engine.steps),
        ):
            Gauge(name, text, registry=r).set_function(_safe(ask))
        self.requests = Counter(
            "motet_requests", "answers by route and status", ["route", "status"], registry=r
        )
        self._prompt = Counter("motet_prompt_tokens", "prompt tokens, cached or not", ["cached"], registry=r)
        self._sampled = Counter(
            "motet_sampled_tokens", "tokens of content by channel", ["channel"], registry=r
        )
        self._malformed = Counter(
            "motet_malformed", "pieces no Harmony parser understands, by reason", ["reason"], registry=r
        )
        self._repairs = Counter(
            "motet_repairs", "odd headers that were understood, by kind", ["kind"], registry=r
        )
        self._loops = Counter("motet_loops", "replies that went round in circles", registry=r)
        self._finish = Counter("motet_turns", "turns by how they ended", ["finish"], registry=r)
        self._first = Histogram(
            "motet_first_token_seconds", "from a request to its first event", buckets=_FIRST, registry=r
        )
        self._gap = Histogram("motet_gap_seconds", "between two events of a turn", buckets=_GAP, registry=r)
        self._whole = Histogram("motet_turn_seconds", "whole turns", buckets=_WHOLE, registry=r)

    def add(self, collector: Any) -> None:
        """Another source, asked when somebody looks (prometheus_client's Collector)."""
        self._registry.register(collector)

    def clock(self) -> Clock:
        """For one turn."""
        return Clock(self._first, self._gap, self._whole)

    def turn(self, cost: Cost, finish: str, loops: int = 0) -> None:
        """Counts a turn that is over."""
        self._prompt.labels("yes").inc(cost.n_cached)
        self._prompt.labels("no").inc(cost.n_prompt - cost.n_cached)
        for counter, counts in (
            (self._sampled, cost.channels),
            (self._malformed, cost.malformed),
            (self._repairs, cost.repairs),
        ):
            for label, n in counts.items():
                counter.labels(label).inc(n)
        self._loops.inc(loops)
        self._finish.labels(finish).inc()

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)


class Clock:
    """Times one turn."""

    def __init__(self, first: Histogram, gap: Histogram, whole: Histogram) -> None:
        self._first, self._gap, self._whole = first, gap, whole
        self._began = self._last = time.perf_counter()
        self._any = False

    def tick(self) -> None:
        """An event has come."""
        now = time.perf_counter()
        (self._gap if self._any else self._first).observe(now - self._last)
        self._last, self._any = now, True

    def stop(self) -> None:
        """The turn is over."""
        self._whole.observe(time.perf_counter() - self._began)


def _safe(ask: Any) -> Any:
    def value() -> float:
        try:
            return float(ask())
        except (AttributeError, KeyError, TypeError):  # another engine may not know
            return 0.0

    return value

"""The tool check in the common form of a report: rates with intervals by conversation, faults, verdicts, a plot. Measures nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from motet.study import plots
from motet.study.report import Check, Plot, Report, Table
from motet.study.stats import clustered_mean, grouped, wilson
from motet.study.toolcheck import Attempt, all_of, at_least_one
from motet.study.toolcheck import Report as Held

RATES = {
    "end to end": "passed",
    "schema valid": "schema_valid",
    "right tool": "right_tool",
    "right argument": "right_argument",
    "right answer": "answer_right",
}


def common(held: Held, identity: dict[str, Any], settings: dict[str, Any]) -> Report:
    """The report of a tool check."""
    report = Report(
        "tools",
        "Do conversations that need tools come out right, token span by token span?",
        identity,
        settings,
    )
    by = grouped(held.attempts, lambda a: a.scenario)
    report.tables.append(Table("By conversation", [_row(name, g) for name, g in by.items()],
        "pass@k: at least one of k attempts right; pass^k: all k. Intervals: 95 % (Wilson)."))  # fmt: skip
    at = [a.scenario for a in held.attempts]
    rows = [
        {"rate": k, "share": clustered_mean([float(getattr(a, v)) for a in held.attempts], at)}
        for k, v in RATES.items()
    ]
    report.tables.append(Table("Rates", rows, "Intervals: 95 %, resampled by conversation."))
    faults = Counter((f.code, a.scenario) for a in held.attempts for f in a.faults)
    report.tables.append(
        Table("Faults", [{"fault": c, "conversation": s, "times": n} for (c, s), n in faults.most_common(50)])
    )
    report.data |= held.json()
    report.checks += [
        _check(f"every attempt: {k}", [bool(getattr(a, v)) for a in held.attempts]) for k, v in RATES.items()
    ]
    spans = [not a.faults for a in held.attempts]
    report.checks.insert(
        0,
        _check(
            "every token span is as the format wants it", spans, ", ".join(sorted({c for c, _ in faults}))
        ),
    )
    shown = {
        k: [wilson(sum(getattr(a, v) for a in g), len(g)) for g in by.values()]
        for k, v in list(RATES.items())[::4]
    }
    report.plots.append(Plot("Attempts that come out right, by conversation", plots.bars(list(by), shown, "share of attempts"),
                             "95 % intervals (Wilson)."))  # fmt: skip
    return report


def _row(name: str, group: list[Attempt]) -> dict[str, Any]:
    n, right = len(group), sum(a.passed for a in group)
    return {
        "conversation": name, "attempts": n, "right": wilson(right, n), "pass@k": at_least_one(n, right, n), "pass^k": all_of(n, right, n),
        "calls": sum(a.calls for a in group), "undeclared": sum(a.undeclared for a in group),
        "malformed headers": sum(f.code == "malformed_header" for a in group for f in a.faults),
        "faults": ", ".join(sorted({f.code for a in group for f in a.faults})) or "none",
    }  # fmt: skip


def _check(name: str, good: list[bool], detail: str = "") -> Check:
    return Check(name, all(good) if good else None, f"{sum(good)} of {len(good)}", "all", detail)

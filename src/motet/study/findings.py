"""Every figure of docs/findings.md from one command: all studies on one model, their reports, and their plots as files.

    python -m motet.study.findings [--model mini] [--out docs/findings] [--reports runs/study] [--quick]

The plots go to --out, with figures.json, which holds the numbers the page quotes; whole reports (JSON and HTML) go to --reports.
A study that fails a check is still a finding: the checks are in figures.json. Knows the studies; measures nothing itself.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motet.study import plots
from motet.study.report import Report, _plain
from motet.study.stats import Interval, wilson
from motet.study.subject import Native
from motet.tasks import EFFORTS


def tools_by_effort(engine: Any, encoding: Any, attempts: int) -> tuple[dict[str, Any], str]:
    """(rates by effort, a picture): conversations that need tools, judged end to end, Wilson over attempts."""
    from motet.study.toolcheck import toolcheck

    rates: dict[str, dict[str, Interval]] = {}
    for effort in EFFORTS:
        seen = toolcheck(engine, encoding, attempts=attempts, effort=effort, max_tokens=512).attempts
        for name in ("passed", "right_tool", "answer_right"):
            rates.setdefault(name, {})[effort] = wilson(sum(getattr(a, name) for a in seen), len(seen))
    shown = {"end to end": "passed", "right tool": "right_tool", "right answer": "answer_right"}
    svg = plots.bars(
        EFFORTS, {k: [rates[v][e] for e in EFFORTS] for k, v in shown.items()}, "share of conversations"
    )
    return {k: {e: v.json() for e, v in row.items()} for k, row in rates.items()}, svg


def run(
    model_name: str, out: Path, reports: Path, quick: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Runs everything; returns what figures.json holds."""
    from motet.engine import Engine
    from motet.library import find
    from motet.model import load
    from motet.study import channels, cot, hierarchy, router, sweep

    part = 10 if quick else 1
    model = load(find(model_name))
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"studies": {}}

    def keep(report: Report, began: float) -> None:
        report.save(reports)
        for n, plot in enumerate(report.plots):
            name = re.sub(r"[^a-z0-9]+", "-", plot.title.lower()).strip("-")
            (out / f"{report.study}-{n}-{name}.svg").write_text(plot.svg + "\n", "utf-8")
        figures["studies"][report.study] = {
            "harness": report.harness, "identity": _plain(report.identity), "seconds": round(time.perf_counter() - began),
            "checks": {c.name: {"passed": c.passed, "value": c.value} for c in report.checks},
            "tables": {t.title: [_plain(r) for r in t.rows] for t in report.tables if len(t.rows) <= 60},
        }  # fmt: skip
        tell(
            f"{report.study}: {time.perf_counter() - began:.0f} s, {'passed' if report.passed else 'a check failed'}"
        )

    with Engine(model, max_batch=16) as engine:
        subject = Native(engine, model.encoding, model_name, width=16)
        studies: list[Callable[[], Report]] = [
            lambda: sweep.sweep(subject, sweep.Plan(questions=60 // part, budgets=(None, 16, 64), max_tokens=700)),
            lambda: router.study(subject, model, router.Plan(questions=12 // min(part, 4), max_tokens=500), load(find(model_name), precision="float32")),
            lambda: cot.study(subject, cot.Plan(10 // min(part, 4), 60 // min(part, 4), questions=40 // part, max_tokens=700)),
            lambda: channels.study(subject, channels.Plan(cases=5_000 // part, outlets=60 // part, questions=10, canaries=30 // min(part, 5), max_tokens=500)),
            lambda: hierarchy.study(subject, hierarchy.Plan(items=3 // min(part, 3), budget=3 // min(part, 3), max_tokens=200)),
        ]  # fmt: skip
        for study in studies:
            began = time.perf_counter()
            keep(study(), began)
        began = time.perf_counter()
        figures["tools"], svg = tools_by_effort(engine, model.encoding, 1 if quick else 2)
        (out / "tools-by-effort.svg").write_text(svg + "\n", "utf-8")
        tell(f"tools: {time.perf_counter() - began:.0f} s")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return figures


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path, default=Path("docs/findings"))
    parser.add_argument("--reports", type=Path, default=Path("runs/study"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the questions, to see that it runs")
    options = parser.parse_args()
    began = time.perf_counter()
    run(options.model, options.out, options.reports, options.quick, lambda text: print(text, file=sys.stderr))
    print(
        f"all of it: {time.perf_counter() - began:.0f} s; figures in {options.out}, reports in {options.reports}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()

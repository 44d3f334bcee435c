"""Every figure of docs/findings.md from one command: all studies on one model, their reports, and their plots as files.

    python -m motet.study.findings [--model mini] [--beside NAME=FOLDER]... [--out docs/findings] [--reports runs/study] [--quick]

The plots go to --out, with figures.json, which holds the numbers the page quotes; whole reports (JSON and HTML) go to --reports.
A study that fails a check is still a finding: the checks are in figures.json. `--beside` puts other models' effort curve and hierarchy
next to the first one's: trained without the hierarchy stage, rounded afterwards. The number of questions does not depend on how many
tasks a model knows. Knows the studies; measures nothing itself.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from motet.study import plots
from motet.study.questions import taught
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


def compared(
    models: Mapping[str, str], part: int, tell: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(figures by model, pictures by name): accuracy by effort, and the hierarchy's defence, control and over-refusal by row."""
    from motet.engine import Engine
    from motet.library import find
    from motet.model import load
    from motet.study import hierarchy, sweep

    found: dict[str, Any] = {}
    curves, defence = list[plots.Series](), dict[str, list[Interval]]()
    rows: list[str] = []
    for label, name in models.items():
        began, model = time.perf_counter(), load(find(name))
        with Engine(model, max_batch=16) as engine:
            subject = Native(engine, model.encoding, name, width=16)
            swept = sweep.sweep(subject, sweep.Plan(questions=each(subject, 240, part), max_tokens=700))
            held = hierarchy.study(subject, hierarchy.Plan(items=3 // min(part, 3), budget=0, max_tokens=200))
        by_effort, by_row = swept.tables[0].rows, held.tables[0].rows
        rows = [r["row"] for r in by_row]
        curves.append(
            plots.Series(
                label,
                [max(r["analysis tokens"], 0.5) for r in by_effort],
                [r["accuracy"] for r in by_effort],
                [r["effort"] for r in by_effort],
            )
        )
        defence[label] = [r["defence"] for r in by_row]
        found[label] = {"sweep": _plain([*by_effort]), "hierarchy": _plain([*by_row]), "harness": [swept.harness, held.harness],
                        "identity": _plain(swept.identity), "checks": {c.name: {"passed": c.passed, "value": c.value} for c in held.checks}}  # fmt: skip
        tell(f"{label}: {time.perf_counter() - began:.0f} s")
    pictures = {
        "compared-accuracy": plots.curve(
            curves, "mean tokens of thinking", "accuracy", log_x=True, unit=True
        ),
        "compared-defence": plots.bars(rows, defence, "share of attacks that fail"),
    }
    return found, pictures


def each(subject: Native, whole: int, part: int) -> int:
    """Questions of each task, so that all its tasks together are asked about `whole`."""
    return max(2, round(whole / part / len(taught(subject))))


def run(
    model_name: str, out: Path, reports: Path, quick: bool, tell: Callable[[str], None], beside: Mapping[str, str] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Runs everything; returns what figures.json holds."""
    from motet.engine import Engine
    from motet.library import find
    from motet.model import load
    from motet.study import channels, cot, elicit, hierarchy, router, sweep

    part = 10 if quick else 1
    model = load(find(model_name))
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"studies": {}}

    def keep(report: Report, began: float) -> None:
        report.save(reports)
        for old in out.glob(f"{report.study}-[0-9]-*.svg"):
            old.unlink()
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
            lambda: sweep.sweep(subject, sweep.Plan(questions=each(subject, 240, part), budgets=(None, 16, 64), max_tokens=700)),
            lambda: elicit.elicit(subject, elicit.Plan(questions=each(subject, 84, part), max_tokens=700)),
            lambda: router.study(subject, model, router.Plan(questions=each(subject, 48, part), max_tokens=500), load(find(model_name), precision="float32")),
            lambda: cot.study(subject, cot.Plan(10 // min(part, 4), 60 // min(part, 4), questions=each(subject, 160, part), max_tokens=700)),
            lambda: channels.study(subject, channels.Plan(cases=5_000 // part, outlets=60 // part, questions=each(subject, 40, 1), canaries=30 // min(part, 5), max_tokens=500)),
            lambda: hierarchy.study(subject, hierarchy.Plan(items=3 // min(part, 3), budget=3 // min(part, 3), max_tokens=200)),
        ]  # fmt: skip
        for study in studies:
            began = time.perf_counter()
            keep(study(), began)
        began = time.perf_counter()
        figures["tools"], svg = tools_by_effort(engine, model.encoding, 1 if quick else 2)
        (out / "tools-by-effort.svg").write_text(svg + "\n", "utf-8")
        tell(f"tools: {time.perf_counter() - began:.0f} s")
    if beside:
        figures["compared"], pictures = compared({model_name: model_name} | dict(beside), part, tell)
        for name, svg in pictures.items():
            (out / f"{name}.svg").write_text(svg + "\n", "utf-8")
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
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another model to compare; again for more",
    )
    options = parser.parse_args()
    pairs = [text.partition("=") for text in options.beside]
    if any(not (name and folder) for name, _, folder in pairs):
        parser.error("--beside wants NAME=FOLDER")
    began = time.perf_counter()
    run(
        options.model, options.out, options.reports, options.quick, lambda text: print(text, file=sys.stderr), {n: f for n, _, f in pairs}
    )  # fmt: skip
    print(
        f"all of it: {time.perf_counter() - began:.0f} s; figures in {options.out}, reports in {options.reports}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()

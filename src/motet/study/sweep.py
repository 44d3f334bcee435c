"""The effort sweep: tasks x efforts x budgets x seeds; does thinking longer follow the effort, and does it pay?

Rates, a line through log tokens, tests of order, separability and waste, with verdicts. Knows questions and replies; the
subject is the caller's. Thresholds are named constants, each with its reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet.harmony import Conversation
from motet.study import plots
from motet.study.questions import chosen, held_out, taught
from motet.study.report import Check, Plot, Report, Table
from motet.study.stats import (
    Interval,
    at_least_one,
    auc,
    bootstrap,
    by_cluster,
    clustered_mean,
    fewer,
    grouped,
    line,
    logit,
    permutation_test,
    sign_test,
)
from motet.study.subject import Ask, Progress, Said, Subject, collect, identity_of
from motet.tasks import EFFORTS, TASKS, Effort, Example

RATIO, AUC = 1.3, 0.7  # efforts closer than this are not told apart by length
SIGNIFICANT = 0.05
TRUNCATED, LOOPED, EMPTY = 0.05, 0.02, 0.02  # rates above these make every other figure doubtful
SLOPE = 0.032  # accuracy a doubling of thinking buys gpt-oss on GPQA (the card's figure 3): a gain as large is not called none
HIDDEN = 5  # replies of exactly the greatest length before a limit is suspected
LINES = 6  # tasks that a plot can show as lines of their own
CEILING = 0.95  # where the lower effort already scores this, more thinking cannot pay
PAIRS = (("low", "medium"), ("medium", "high"))


@dataclass(frozen=True)
class Plan:
    """What to ask. budgets: tokens of thinking, None for no limit. cot_prefix is put before each question (padding)."""

    tasks: tuple[str, ...] = ()
    efforts: tuple[Effort, ...] = EFFORTS
    budgets: tuple[int | None, ...] = (None,)
    questions: int = 50
    seeds: int = 1
    seed: int = 0
    max_tokens: int = 2048
    temperature: float = 1.0
    padding: str = ""


@dataclass(frozen=True)
class Trial:
    """One question asked once."""

    task: str
    effort: str
    budget: int | None
    example: Example
    said: Said
    right: bool


def sweep(
    subject: Subject, plan: Plan, progress: Progress = lambda done, total: None, stop: threading.Event | None = None
) -> Report:  # fmt: skip
    """Asks everything and judges. Stopped early, the report covers what was answered."""
    asked: list[tuple[str, str, int | None, Example]] = []
    asks: list[Ask] = []
    # Seeds outermost and efforts innermost: what is stopped early is still balanced.
    for seed in range(plan.seeds):
        for task in chosen(plan.tasks, taught(subject)):
            columns = [held_out(task, e, plan.questions, plan.seed) for e in plan.efforts]
            for row in zip(*columns, strict=True):
                for effort, example in zip(plan.efforts, row, strict=True):
                    for budget in plan.budgets:
                        asked.append((task, effort, budget, example))
                        said = Conversation.from_chat(
                            [{"role": "user", "content": plan.padding + example.prompt}], effort=effort
                        )
                        asks.append(
                            Ask(said, plan.seed * 7919 + seed, plan.max_tokens, budget, plan.temperature)
                        )
    replies = collect(subject, asks, progress, stop)
    trials = [
        Trial(*a, said, said.finish == "stop" and TASKS[a[0]].grade(a[3], said.final))
        for a, said in zip(asked, replies, strict=True)
        if said is not None
    ]
    settings = {k: v for k, v in vars(plan).items() if k != "padding"} | {"padding": len(plan.padding)}
    report = Report(
        "sweep", "Does thinking follow the effort, and does longer thinking pay?", identity_of(subject, asks), settings,
        complete=len(trials) == len(asks),
    )  # fmt: skip
    if trials:
        judge(trials, report)
    return report


def judge(trials: Sequence[Trial], report: Report) -> None:
    """Fills the report from the trials."""
    free = [t for t in trials if t.budget is None] or list(trials)
    cells = [cell(g) for g in grouped(trials, lambda t: (t.task, t.effort, t.budget)).values()]
    whole = [cell(g, "all") for g in grouped(free, lambda t: t.effort).values()]
    report.tables.append(Table("By effort", whole, "Intervals: 95 %, resampled by question."))
    report.tables.append(Table("By task, effort and budget", cells))
    fit = fit_of(free)
    report.data |= {
        "fit": fit and fit_json(fit),
        "order": [pair_of(free, *p) for p in PAIRS if _has(free, *p)],
    }
    report.tables.append(Table("Neighbouring efforts", report.data["order"], _ORDER_NOTE))
    lengths = length_rows(free)
    report.tables.append(
        Table(
            "Accuracy by length within an effort",
            lengths,
            "Thirds of each cell by tokens of thinking, short to long.",
        )
    )
    report.checks += [
        *_effort_checks(report.data["order"]),
        *_health(free),
        hidden_limit(free),
        _curve_of_length(lengths),
    ]
    violated = violations(free)
    report.tables.append(Table("Cells out of order", violated, "Tasks where a higher effort scored lower."))
    report.plots += _plots(trials, free, fit)


_ORDER_NOTE = (
    "sign p: one-sided exact test over questions that the higher effort is the lower one; wasted: share of the extra tokens "
    "spent on questions already right at the lower effort."
)


def _key(t: Trial) -> str:
    return f"{t.task} {t.example.key}"


def _has(trials: Sequence[Trial], *efforts: str) -> bool:
    return set(efforts) <= {t.effort for t in trials}


def accuracy(trials: Sequence[Trial]) -> Interval:
    """Share right, resampled by question."""
    return clustered_mean([float(t.right) for t in trials], [_key(t) for t in trials])


def by_question(trials: Sequence[Trial]) -> dict[str, tuple[float, float]]:
    """(mean tokens of thinking, share right) of each question, in the order they were asked."""
    keys = [_key(t) for t in trials]
    tokens, counts = by_cluster([float(t.said.n_analysis) for t in trials], keys)
    rights, _ = by_cluster([float(t.right) for t in trials], keys)
    return {
        k: (float(t / c), float(r / c))
        for k, t, r, c in zip(dict.fromkeys(keys), tokens, rights, counts, strict=True)
    }


def cell(trials: Sequence[Trial], task: str | None = None) -> dict[str, Any]:
    """One row: rates, tokens and times of trials that belong together."""
    n, first = len(trials), trials[0]

    def mean(of: Callable[[Said], float]) -> float:
        return sum(of(t.said) for t in trials) / n

    times = [t.said.first_s for t in trials]
    row: dict[str, Any] = {
        "task": task or first.task, "effort": first.effort, "budget": first.budget, "n": n, "accuracy": accuracy(trials),
        "analysis tokens": mean(lambda s: s.n_analysis), "answer tokens": mean(lambda s: s.n_final),
        "first token s": float(np.median(times)), "wall s": mean(lambda s: s.seconds),
        "truncated": mean(lambda s: s.truncated), "loops": mean(lambda s: s.looped), "empty": mean(lambda s: not s.final.strip()),
    }  # fmt: skip
    rights, counts = by_cluster([float(t.right) for t in trials], [_key(t) for t in trials])
    k = int(counts.min())
    if k > 1:
        row[f"pass@{k}"] = float(
            np.mean([at_least_one(int(n), int(r), k) for n, r in zip(counts, rights, strict=True)])
        )
    return row


@dataclass(frozen=True)
class Fit:
    """accuracy = intercept + slope log2(mean tokens), over efforts; bounds from resampled questions."""

    slope: Interval
    intercept: float
    r2: float
    logit_slope: float
    points: tuple[tuple[float, Interval], ...]


def fit_of(trials: Sequence[Trial]) -> Fit | None:
    """The line of one group of trials; None with fewer than two lengths."""
    efforts = [e for e in EFFORTS if _has(trials, e)]
    groups = [[t for t in trials if t.effort == e] for e in efforts]
    if len(groups) < 2:
        return None
    means = [by_question(g) for g in groups]
    keys = sorted(set.intersection(*(set(m) for m in means)))
    if len(keys) < 2:
        return None
    tables = [np.array([m[k] for k in keys]).T for m in means]  # of each effort, (2, questions)

    def points(pick: Any) -> tuple[list[float], list[float]]:
        x = [float(np.log2(1 + tokens[pick].mean())) for tokens, _ in tables]
        return x, [float(right[pick].mean()) for _, right in tables]

    def slope(pick: Any) -> float:
        return line(*points(pick)).slope

    x, y = points(np.arange(len(keys)))
    best = line(x, y)
    odds = line(x, [logit(p, len(keys)) for p in y])
    bounds = bootstrap(len(keys), slope, draws=400)
    return Fit(
        bounds, best.intercept, best.r2, odds.slope, tuple((2**a - 1, accuracy(g)) for a, g in zip(x, groups, strict=True))
    )  # fmt: skip


def fit_json(fit: Fit) -> dict[str, Any]:
    """A fit for the report. A slope is points of accuracy per doubling of thinking."""
    return {
        "slope_per_doubling": fit.slope.json() if fit.slope.value == fit.slope.value else None,
        "r2": None if fit.r2 != fit.r2 else round(fit.r2, 4),
        "logit_slope_per_doubling": None if fit.logit_slope != fit.logit_slope else round(fit.logit_slope, 4),
        "points": [{"tokens": round(x, 2), "accuracy": y.json()} for x, y in fit.points],
    }


def pair_of(trials: Sequence[Trial], low: str, high: str) -> dict[str, Any]:
    """Two efforts compared on the questions both were asked: order, separability, gain, waste."""
    per = {effort: by_question([t for t in trials if t.effort == effort]) for effort in (low, high)}
    both = [(per[low][k], per[high][k]) for k in per[low] if k in per[high]]
    extra = [b[0] - a[0] for a, b in both]
    gains = [b[1] - a[1] for a, b in both]
    means = [float(np.mean([p[i][0] for p in both])) for i in (0, 1)]
    spent = sum(max(0.0, e) for e in extra)
    wasted = sum(max(0.0, e) * a[1] for e, (a, _) in zip(extra, both, strict=True))
    return {
        "efforts": f"{low} < {high}", "questions": len(both), "tokens": means[0], "tokens higher": means[1],
        "ratio": means[1] / means[0] if means[0] else float("inf") if means[1] else 1.0,
        "AUC of effort by length": auc([a[0] for a, _ in both], [b[0] for _, b in both]),
        "tokens sign p": sign_test(extra), "gain": clustered_mean(gains, range(len(gains))),
        "gain p": permutation_test(gains), "accuracy sign p": sign_test(gains),
        "accuracy lower": float(np.mean([a[1] for a, _ in both])), "wasted": wasted / spent if spent else 0.0,
    }  # fmt: skip


def violations(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Tasks and neighbouring efforts where the higher effort scores lower."""
    out = []
    for group in grouped(trials, lambda t: t.task).values():
        for low, high in PAIRS:
            if _has(group, low, high):
                pair = pair_of(group, low, high)
                if pair["gain"].value < 0:
                    out.append(
                        {"task": group[0].task} | {k: pair[k] for k in ("efforts", "gain", "accuracy sign p")}
                    )
    return out


def length_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Accuracy by third of length within task and effort, pooled by effort: an inverted U shows as a lower last third."""
    out = []
    for effort in EFFORTS:
        thirds: list[list[Trial]] = [[], [], []]
        for group in grouped([t for t in trials if t.effort == effort], lambda t: t.task).values():
            ordered = sorted(group, key=lambda t: t.said.n_analysis)
            for n in range(3):
                thirds[n] += ordered[len(ordered) * n // 3 : len(ordered) * (n + 1) // 3]
        if all(thirds):
            row: dict[str, Any] = {"effort": effort}
            row |= {name: accuracy(t) for name, t in zip(("short", "middle", "long"), thirds, strict=True)}
            out.append(row | {"inverted U": row["long"].high < row["middle"].low})
    return out


def _effort_checks(order: Sequence[dict[str, Any]]) -> list[Check]:
    out = []
    for p in order:
        name = p["efforts"]
        apart = p["ratio"] >= RATIO and p["AUC of effort by length"] >= AUC
        out.append(
            Check(
                f"effort is obeyed, {name}", apart, f"{p['ratio']:.2f}x, AUC {p['AUC of effort by length']:.2f}",
                f"tokens {RATIO}x and AUC {AUC}",
            )
        )  # fmt: skip
        reversed_ = min(p["tokens sign p"], p["accuracy sign p"])
        out.append(
            Check(
                f"efforts are in order, {name}", bool(p["tokens sign p"] >= SIGNIFICANT and p["accuracy sign p"] >= SIGNIFICANT),
                f"p {reversed_:.3g}", f"no reversal at p < {SIGNIFICANT}",
            )
        )  # fmt: skip
    if order:
        out.append(_pays(order))
        out += [_step(p) for p in order if p["ratio"] >= RATIO]
    return out


def _step(p: dict[str, Any]) -> Check:
    """Whether this step up in effort buys accuracy; open where the questions are too few to tell."""
    value, needed = f"{p['gain']}, p {p['gain p']:.3g}", SLOPE * float(np.log2(p["ratio"]))
    passed: bool | None = bool(p["gain p"] < SIGNIFICANT)
    why = "" if passed else f"{p['wasted']:.0%} of the extra tokens go to questions that were right already"
    if not passed and p["accuracy lower"] >= CEILING:
        passed, why = None, f"the lower effort already scores {CEILING}"
    elif not passed and p["gain"].value >= needed:
        passed, why = None, "too few questions to tell"
    return Check(f"longer thinking pays, {p['efforts']}", passed, value, f"a gain at p < {SIGNIFICANT}", why)


def _pays(order: Sequence[dict[str, Any]]) -> Check:
    """Whether some step up in effort that costs tokens buys accuracy."""
    costly = [p for p in order if p["ratio"] >= RATIO]
    name, wanted = "longer thinking pays", f"a gain at p < {SIGNIFICANT} where tokens grow {RATIO}x"
    if not costly:
        return Check(name, None, "-", wanted, "no effort thinks longer than another")
    if all(p["accuracy lower"] >= CEILING for p in costly):
        return Check(name, None, "-", wanted, f"the lower effort already scores {CEILING}")
    best = min(costly, key=lambda p: p["gain p"])
    chance = min(1.0, best["gain p"] * len(costly))  # the best of several (Bonferroni)
    return Check(name, chance < SIGNIFICANT, f"{best['gain']}, p {chance:.3g}", wanted, best["efforts"])


def _health(trials: Sequence[Trial]) -> list[Check]:
    out = []
    for name, limit, of in (
        ("truncated", TRUNCATED, lambda s: s.truncated),
        ("going round in circles", LOOPED, lambda s: s.looped),
        ("empty answers", EMPTY, lambda s: not s.final.strip()),
    ):
        rate = clustered_mean([float(of(t.said)) for t in trials], [_key(t) for t in trials])
        out.append(
            Check(
                f"few {name}" if name == "empty answers" else f"few are {name}",
                rate.value <= limit,
                str(rate),
                f"at most {limit}",
            )
        )
    return out


def _curve_of_length(lengths: Sequence[dict[str, Any]]) -> Check:
    """An inverted U is told, not judged: hard questions make thinking long and wrong as well."""
    bent = [str(r["effort"]) for r in lengths if r["inverted U"]]
    value = f"at {', '.join(bent)}" if bent else "none"
    return Check("inverted U of accuracy by length", None if bent else True, value, "reported, not judged")


def hidden_limit(trials: Sequence[Trial]) -> Check:
    """Whether thinking stops where something cuts it and says nothing: many replies of exactly the greatest length, wrong more often
    than the others."""
    name, wanted = (
        "thinking is not cut at a hidden limit",
        f"at most {TRUNCATED} of exactly the greatest length",
    )
    if any(t.budget is not None for t in trials):
        return Check(name, None, "-", wanted, "every reply had a budget")
    found = []
    for effort, group in grouped(trials, lambda t: t.effort).items():
        top = max(t.said.n_analysis for t in group)
        at, others = (
            [t for t in group if (t.said.n_analysis == top) is here and not t.said.truncated]
            for here in (True, False)
        )
        if len(at) >= max(HIDDEN, TRUNCATED * len(group)) and others:
            p = fewer(sum(t.right for t in at), len(at), sum(t.right for t in others), len(others))
            if p < SIGNIFICANT / len(EFFORTS):
                found.append(
                    f"{effort}: {len(at)} of {len(group)} end after {top} tokens, p {p:.2g} that they are as often right"
                )
    return Check(name, not found, "; ".join(found) or "no such length", wanted)


def _plots(trials: Sequence[Trial], free: Sequence[Trial], fit: Fit | None) -> list[Plot]:
    out = []
    series = []
    tasks = grouped(free, lambda t: t.task)
    efforts = [e for e in EFFORTS if _has(free, e)]
    for group in tasks.values() if len(tasks) <= LINES else ():
        own = fit_of(group)
        if own is not None:
            x = [max(p[0], 0.5) for p in own.points]
            series.append(plots.Series(group[0].task, x, [p[1] for p in own.points]))
    if fit is not None:
        xs = [max(p[0], 0.5) for p in fit.points]
        ends = [(x, fit.intercept + fit.slope.value * float(np.log2(1 + x))) for x in (min(xs), max(xs))]
        series.append(plots.Series("all", xs, [p[1] for p in fit.points], efforts, ends))
        words = f"All tasks: {100 * fit.slope.value:.1f} points per doubling [{100 * fit.slope.low:.1f}, {100 * fit.slope.high:.1f}], R2 {fit.r2:.2f}."
        out.append(
            Plot("Accuracy against thinking", plots.curve(series, "mean tokens of thinking", "accuracy", log_x=True, unit=True), words)
        )  # fmt: skip
    if len(tasks) > LINES:
        out += _maps(tasks, efforts)
    budgets = sorted({t.budget for t in trials if t.budget is not None})
    if budgets:
        rows = []
        for effort in [e for e in EFFORTS if _has(trials, e)]:
            mine = [[t for t in trials if t.effort == effort and t.budget == b] for b in budgets]
            pairs = [(max(b, 1), accuracy(m)) for b, m in zip(budgets, mine, strict=True) if m]
            rows.append(plots.Series(effort, [p[0] for p in pairs], [p[1] for p in pairs]))
        out.append(
            Plot(
                "Accuracy under a hard budget", plots.curve(rows, "tokens of thinking allowed", "accuracy", log_x=True, unit=True),
                "Thinking is cut at the budget and the answer forced.",
            )
        )  # fmt: skip
    return out


def _maps(tasks: Mapping[str, Sequence[Trial]], efforts: Sequence[str]) -> list[Plot]:
    """More tasks than lines can be told apart by: a row each, the one that effort helps most on top."""

    def grid(of: Callable[[Trial], float]) -> dict[str, list[float]]:
        cells = {k: [[of(t) for t in g if t.effort == e] for e in efforts] for k, g in tasks.items()}
        return {k: [float(np.mean(c)) if c else float("nan") for c in row] for k, row in cells.items()}

    right, tokens = grid(lambda t: float(t.right)), grid(lambda t: float(t.said.n_analysis))
    order = sorted(tasks, key=lambda k: right[k][0] - right[k][-1])
    return [
        Plot("Accuracy by task", plots.heat(np.array([right[k] for k in order]), order, "", "accuracy", 1.0, efforts),
             "Tasks in the order of what effort brings them."),
        Plot("Thinking by task", plots.heat(np.array([tokens[k] for k in order]), order, "", "tokens of thinking", None, efforts), "Means; the same order."),
    ]  # fmt: skip

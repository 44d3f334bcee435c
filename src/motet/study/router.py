"""The router study: how evenly, how surely and how steadily tokens go to experts, by layer, channel, effort and domain.

Verdicts: collapse, dead experts, a flat router, a frozen one, choices that rounding changes. Knows a subject of this process
and its model; a remote one has no routers to look at.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from motet.errors import UsageError
from motet.harmony import Conversation
from motet.monitor.load import ALWAYS, DEAD, ENTROPY, HOT, always, collapsed, load
from motet.study import plots
from motet.study.questions import chosen, held_out, taught
from motet.study.report import Check, Plot, Report, Table
from motet.study.routing import Routing, Text, routing
from motet.study.stats import Interval, clustered_mean
from motet.study.subject import Ask, Native, Progress, Subject, collect, identity_of
from motet.tasks import EFFORTS, Effort

if TYPE_CHECKING:
    from motet.model import Model

FLAT = 0.98  # entropy of the whole softmax above which a router decides nothing
ALONE = (
    2.5  # effective experts by weight: a pair that carries a channel; answers of digits alone keep mini at 4
)
FROZEN = 0.9  # share of tokens that go to one and the same set of experts
CHURN = 0.25  # share of (token, layer) whose set changes under rounding; a quarter would be most of the loss of int8
TAKEN = 0.6  # of all tokens, from which an expert is hot even where four times an even load is out of reach (E / k <= 4)
ENOUGH = 50  # choices that an expert has under an even load, for its silence to count
GROUP = 100  # tokens of a channel, effort or domain for it to be judged by itself
WINDOWS = 4  # an expert is dead when it is in each of so many stretches of the tokens
MASK = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """What is asked to get text, and whether greedily (temperature 0)."""

    tasks: tuple[str, ...] = ()
    efforts: tuple[Effort, ...] = EFFORTS
    questions: int = 20
    seed: int = 0
    max_tokens: int = 1024
    temperature: float = 1.0


def study(
    subject: Subject, model: Model | None, plan: Plan, other: Model | None = None,
    progress: Progress = lambda done, total: None, stop: threading.Event | None = None,
) -> Report:  # fmt: skip
    """Asks, then looks at every token of prompts and replies. `other`: the same weights in another arithmetic."""
    if not isinstance(subject, Native) or model is None:
        raise UsageError("A remote model shows no routers; give a model of this machine with --model.")
    asks, labels = [], []
    for task in chosen(plan.tasks, taught(subject)):
        for effort in plan.efforts:
            for e in held_out(task, effort, plan.questions, plan.seed):
                said = Conversation.from_chat([{"role": "user", "content": e.prompt}], effort=effort)
                asks.append(Ask(said, plan.seed, plan.max_tokens, None, plan.temperature))
                labels.append((effort, task))
    replies = collect(subject, asks, progress, stop)
    sequences = [Text(r.ids, r.spans, *at) for r, at in zip(replies, labels, strict=True) if r is not None]
    identity = identity_of(subject, asks) | {
        "compared with": other.precision if other is not None else "nothing"
    }
    report = Report(
        "router", "How evenly, how surely and how steadily do tokens go to experts?", identity, vars(plan),
        complete=len(sequences) == len(asks),
    )  # fmt: skip
    if sequences:
        judge(routing(model, sequences, other, progress), report)
    return report


def judge(seen: Routing, report: Report) -> None:
    """Fills the report from what was seen."""
    whole, dead = np.ones(len(seen.channel), bool), dead_experts(seen)
    layers = layer_rows(seen, whole, dead)
    report.tables.append(
        Table("By layer", layers, "Entropies are shares of their maximum: 1 is even, or undecided.")
    )
    for name, labels in (("channel", seen.channel), ("effort", seen.effort), ("domain", seen.domain)):
        rows = [{name: str(v), **summary(seen, labels == v, dead)} for v in dict.fromkeys(labels.tolist())]
        report.tables.append(Table(f"By {name}", rows, _GROUPED))
    report.data["js_divergence"] = {
        name: _divergences(seen, labels)
        for name, labels in (("channel", seen.channel), ("domain", seen.domain))
    }
    report.data["counts"] = seen.counts().tolist()
    report.data["tokens"] = len(whole)
    report.checks += checks(seen, dead)
    report.plots += _plots(seen)


def layer_rows(seen: Routing, mask: MASK, dead: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """One row a layer. `dead`: (L, E), see dead_experts."""
    of, heavy = load(seen.counts(mask)), load(seen.work(mask))
    out = []
    for n in range(seen.chosen.shape[1]):
        row: dict[str, Any] = {
            "layer": n, "CV": of.cv[n], "MaxVio": of.max_violation[n], "Gini": of.gini[n], "load entropy": of.entropy[n], "weight entropy": heavy.entropy[n],
            "effective": of.effective[n], "dead": int(dead[n].sum()), "hot": int(of.hot[n]),
            "token entropy": seen.entropy[mask, n].mean(), "first weight": seen.first[mask, n].mean(),
            "margin": seen.margin[mask, n].mean(), "margin 5 %": np.quantile(seen.margin[mask, n], 0.05),
            "logit rms": seen.rms[mask, n].mean(),
        }  # fmt: skip
        if seen.changed is not None:
            row["churn"] = seen.changed[mask, n].mean()
        out.append({k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})
    return out


_GROUPED = "Means over layers; the load's measures are those of these tokens alone. Intervals: 95 %, resampled by text."


def unevenness(seen: Routing, mask: MASK) -> tuple[list[Interval], Interval]:
    """CV of the load (by layer, mean over layers), with intervals from resampled texts. Fewer texts are less even by chance alone, in
    the draws as in what is drawn from: the basic bootstrap turns that round, a percentile interval would add it up."""
    parts = seen.counts_by_text(mask)
    whole = load(parts.sum(0)).cv
    rng, drawn = np.random.default_rng(0), list[npt.NDArray[np.float64]]()
    for _ in range(300):
        weight = np.bincount(rng.integers(0, len(parts), len(parts)), minlength=len(parts))
        drawn.append(load(np.tensordot(weight, parts, 1)).cv)
    of = np.array(drawn)

    def interval(value: float, draws: npt.NDArray[np.float64]) -> Interval:
        low, high = np.quantile(draws, [0.025, 0.975])
        return Interval(
            value, max(0.0, min(value, 2 * value - float(high))), max(value, 2 * value - float(low))
        )

    return [interval(float(v), of[:, n]) for n, v in enumerate(whole)], interval(
        float(whole.mean()), of.mean(1)
    )


def rounded(seen: Routing, mask: MASK) -> list[Interval]:
    """Of each layer, the share of tokens whose set of experts rounding changes, resampled by text."""
    assert seen.changed is not None
    changed, text = seen.changed[mask].astype(float), seen.text[mask].tolist()
    return [clustered_mean(changed[:, n].tolist(), text) for n in range(changed.shape[1])]


def summary(seen: Routing, mask: MASK, dead: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A group of tokens in one row: means over layers."""
    rows = layer_rows(seen, mask, dead)
    names = [k for k in rows[0] if k not in ("layer", "dead", "hot", "margin 5 %")]
    means: dict[str, Any] = {k: float(np.mean([r[k] for r in rows])) for k in names}
    means["CV"] = unevenness(seen, mask)[1]
    if seen.changed is not None:
        means["churn"] = clustered_mean(seen.changed[mask].mean(1).tolist(), seen.text[mask].tolist())
    return {"tokens": int(mask.sum())} | means


def dead_experts(seen: Routing) -> npt.NDArray[np.bool_]:
    """(L, E): below a tenth of an even load in every window of the tokens."""
    n = len(seen.channel)
    out = np.ones((seen.chosen.shape[1], seen.experts), bool)
    for w in range(WINDOWS):
        mask = np.zeros(n, bool)
        mask[w::WINDOWS] = True  # interleaved, so that no window is one task
        counts = seen.counts(mask)
        out &= counts < DEAD * counts.sum(1, keepdims=True) / seen.experts
    return out


def modal_share(seen: Routing, mask: MASK | None = None) -> list[float]:
    """Per layer, the share of the tokens of a mask that go to the commonest set of experts."""
    out = []
    for n in range(seen.chosen.shape[1]):
        sets = np.sort(seen.chosen[slice(None) if mask is None else mask, n], -1)
        _, counts = np.unique(sets, axis=0, return_counts=True)
        out.append(float(counts.max() / counts.sum()))
    return out


def checks(seen: Routing, dead: npt.NDArray[np.bool_]) -> list[Check]:
    """The verdicts, each on the worst layer."""
    experts, k, counts = seen.experts, seen.chosen.shape[2], seen.counts()
    # By count alone, two experts that carry every token still leave k - 2 choices to the others, evenly.
    by = {"choices": load(counts), "weight": load(seen.work())}
    bad = {name: np.flatnonzero(collapsed(of, experts)) for name, of in by.items()}
    taken, idle = always(counts, k), dead.sum(1)
    silent = counts == 0
    hot = min(HOT * k / experts, TAKEN)
    flat = seen.entropy.mean(0)
    frozen = modal_share(seen)
    out = [
        Check(
            f"no layer has collapsed, by {name}", not len(bad[name]),
            f"effective {of.effective.min():.1f} of {experts}, entropy {of.entropy.min():.3f}",
            f"effective at least {experts / 2:g}, entropy at least {ENTROPY}",
            f"layers {', '.join(map(str, bad[name]))}" if len(bad[name]) else "",
        )
        for name, of in by.items()
    ]  # fmt: skip
    out += [
        Check("no expert takes every token", bool(taken.max() < ALWAYS), f"{taken.max():.3f} of tokens", f"below {ALWAYS}"),
        Check("no hot experts", bool(taken.max() <= hot), f"{taken.max():.3f} of tokens", f"at most {hot:.3f}", f"layer {int(taken.argmax())}"),
        Check("no dead experts", not dead.any(), f"{idle.max()} in the worst layer", f"none below {DEAD} of an even load", _named(dead)),
        Check("every expert is chosen", not silent.any() if len(seen.channel) * k >= ENOUGH * experts else None, f"{silent.sum()} of {silent.size} never",
              "at least once", _named(silent)),
        _groups(seen),
        Check("routers decide", bool(flat.max() < FLAT), f"token entropy {flat.max():.3f}", f"below {FLAT}", f"layer {int(flat.argmax())}"),
        Check("routes follow the token", max(frozen) < FROZEN, f"commonest set {max(frozen):.3f}", f"below {FROZEN}", f"layer {int(np.argmax(frozen))}"),
    ]  # fmt: skip
    if seen.changed is not None:
        churn = seen.changed.mean(0)
        out.append(
            Check(
                "choices survive rounding",
                bool(churn.mean() < CHURN),
                f"{churn.mean():.3f} changed",
                f"below {CHURN}",
                f"worst layer {churn.max():.3f}",
            )
        )
    return out


def _named(which: npt.NDArray[np.bool_]) -> str:
    """Experts (L, E) by name, a few of them."""
    found = [f"{e} in layer {n}" for n, e in np.argwhere(which)]
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _groups(seen: Routing) -> Check:
    """Collapse within one channel, effort or domain, which the load over all tokens hides. A group is narrower than the whole (an answer
    may be digits alone, which all go to the same two experts), so that only the plain cases count: one set for all, or a pair that
    carries all the weight."""
    found, sets, fewest = list[str](), 0.0, float(seen.experts)
    for labels in (seen.channel, seen.effort, seen.domain):
        for name in dict.fromkeys(labels.tolist()):
            mask = labels == name
            if mask.sum() < GROUP:
                continue
            shares, heavy = modal_share(seen, mask), load(seen.work(mask)).effective
            sets, fewest = max(sets, *shares), min(fewest, float(heavy.min()))
            found += [
                f"{name}, layer {n}: {heavy[n]:.1f} effective by weight, commonest set {shares[n]:.2f}"
                for n in range(len(heavy))
                if shares[n] >= FROZEN or heavy[n] < ALONE
            ]
    return Check(
        "no channel, effort or domain has collapsed", not found, f"effective {fewest:.1f} by weight, commonest set {sets:.3f}",
        f"at least {ALONE}, below {FROZEN}", "; ".join(found[:4]),
    )  # fmt: skip


def _divergences(seen: Routing, labels: npt.NDArray[np.str_]) -> dict[str, list[float]]:
    """Jensen-Shannon divergence (bits) of each pair of groups, per layer."""
    names = sorted(set(labels.tolist()))
    f = {n: seen.counts(labels == n) + 1e-9 for n in names}
    f = {n: c / c.sum(1, keepdims=True) for n, c in f.items()}
    out = {}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            m = (f[a] + f[b]) / 2
            js = 0.5 * (f[a] * np.log2(f[a] / m)).sum(1) + 0.5 * (f[b] * np.log2(f[b] / m)).sum(1)
            out[f"{a} / {b}"] = [round(float(v), 4) for v in js]
    return out


def _plots(seen: Routing) -> list[Plot]:
    even = seen.experts
    rows: list[npt.NDArray[np.float64]] = []
    names = []
    masks: dict[str, MASK] = {"all": np.ones(len(seen.channel), bool)}
    masks |= {c: seen.channel == c for c in ("prompt", "analysis", "final", "markup")}
    for name, mask in masks.items():
        if not mask.any():
            continue
        counts = seen.counts(mask)
        rows += list(counts / counts.sum(1, keepdims=True) * even)
        names += [f"{name} {n}" for n in range(len(counts))]
    out = [
        Plot("Load of each expert", plots.heat(np.array(rows), names, "expert", "load, 1 is even", 4.0), "Channel and layer a row; 4 and above is hot.")
    ]  # fmt: skip
    layers = [str(n) for n in range(seen.chosen.shape[1])]
    by = {c: unevenness(seen, seen.channel == c)[0] for c in dict.fromkeys(seen.channel.tolist())}
    out.append(
        Plot(
            "Unevenness by layer and channel",
            plots.bars(layers, by, "CV of the load", unit=False, x="layer"),
            "0 is even.",
        )
    )
    if seen.changed is not None:
        churn = {c: rounded(seen, seen.channel == c) for c in by}
        out.append(
            Plot(
                "Sets of experts that rounding changes",
                plots.bars(layers, churn, "share of tokens", unit=False, x="layer"),
                "Share of tokens whose set of experts is another one in the other arithmetic.",
            )
        )
    return out

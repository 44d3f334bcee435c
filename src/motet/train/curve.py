"""The curves of a run as one picture: loss, accuracy and reward, lengths by effort, the router, over tokens trained.

Knows the log's keys. Draws nothing that the log does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss a taught token", ("loss",)),
    ("share", ("right", "reward", "accuracy", "form", "mixed")),
    (
        "accuracy by effort",
        ("accuracy_by_effort.low", "accuracy_by_effort.medium", "accuracy_by_effort.high"),
    ),
    ("analysis tokens", ("analysis_by_effort.low", "analysis_by_effort.medium", "analysis_by_effort.high")),
    ("entropy a token, KL", ("entropy", "kl")),
    ("router entropy", ("router_entropy",)),
)


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG. Stages are shaded by turns and named on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [r for r in records if "accepted" not in r]
    panels = [(title, keys) for title, keys in PANELS if any(_series(steps, k) for k in keys)]
    figure = Figure(figsize=(11, 2.1 * max(1, len(panels)) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, keys) in zip(axes, panels, strict=False):
        for key in keys:
            points = _series(steps, key)
            if points:
                axis.plot(*zip(*points, strict=True), label=key.rpartition(".")[2], linewidth=1)
        axis.set_ylabel(title, fontsize=8)
        axis.legend(fontsize=7, loc="best")
        for n, (_, begin, end) in enumerate(_spans(steps)):
            if n % 2:
                axis.axvspan(begin, end, color="0.93", zorder=0)
    for stage, begin, end in _spans(steps):
        axes[0].text(
            (begin + end) / 2, 1.02, stage, transform=axes[0].get_xaxis_transform(), ha="center", fontsize=8
        )
    axes[-1].set_xlabel("million tokens")
    figure.savefig(path, dpi=110)


def _series(records: Iterable[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    first, _, second = key.partition(".")
    found = []
    for r in records:
        value = r.get(first, {}).get(second) if second else r.get(first)
        if isinstance(value, int | float):
            found.append((r["tokens"] / 1e6, float(value)))
    return found


def _spans(records: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(stage, from, to) in million tokens."""
    out: list[tuple[str, float, float]] = []
    for stage in dict.fromkeys(r["stage"] for r in records):
        end = max(r["tokens"] for r in records if r["stage"] == stage) / 1e6
        out.append((stage, out[-1][2] if out else 0.0, end))
    return out

"""Pictures of a report, as SVG text: points with intervals and lines, bars, heat maps. Knows matplotlib and no study."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.study.stats import Interval

# Light and dark in turn, and every bar with a hatch and every line with a mark of its own: a page printed in grey can be read.
COLOURS = ("#1d4ed8", "#f59e0b", "#065f46", "#c084fc", "#b91c1c", "#67e8f9", "#3f6212", "#f9a8d4")
HATCHES = ("", "//", "--", "\\\\", "||", "xx", "/", "-")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Series:
    """Points of one colour; y may be intervals. `fit` draws a dashed line through (x, y) pairs."""

    name: str
    x: Sequence[float]
    y: Sequence[float | Interval]
    labels: Sequence[str] = ()
    fit: Sequence[tuple[float, float]] = ()


def curve(series: Sequence[Series], x: str, y: str, *, log_x: bool = False, unit: bool = False) -> str:
    """Lines with error bars. log_x counts doublings; unit fixes y to [0, 1]."""
    figure, axes = _figure(7.2, 4.2)
    for n, s in enumerate(series):
        colour = COLOURS[n % len(COLOURS)]
        middle, spread = _spread(s.y)
        axes.errorbar(
            s.x,
            middle,
            yerr=spread,
            fmt=f"{MARKS[n % len(MARKS)]}-",
            ms=4,
            lw=1.4,
            capsize=2.5,
            color=colour,
            label=s.name,
        )
        for label, at_x, at_y in zip(s.labels, s.x, middle, strict=False):
            axes.annotate(
                label, (at_x, at_y), textcoords="offset points", xytext=(5, -11), fontsize=7, color=colour
            )
        if s.fit:
            axes.plot(*zip(*s.fit, strict=True), "--", lw=1, color=colour, alpha=0.6)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    elif all(float(v).is_integer() for s in series for v in s.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if unit:
        axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(series) > 1 or (series and series[0].name):
        axes.legend(frameon=False, fontsize=8, loc="best")
    return _svg(figure)


def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[float | Interval]],
    y: str,
    unit: bool = True,
    x: str = "",
) -> str:
    """Bars side by side in groups, with their intervals; `x` says what the groups are."""
    figure, axes = _figure(max(5.0, 1.0 + 0.24 * len(groups) * max(2, len(values))), 3.8)
    width = 0.8 / max(1, len(values))
    for n, (name, row) in enumerate(values.items()):
        at = np.arange(len(groups)) + (n - (len(values) - 1) / 2) * width
        middle, spread = _spread(row)
        axes.bar(
            at, middle, width * 0.92, color=COLOURS[n % len(COLOURS)], label=name,
            hatch=HATCHES[n % len(HATCHES)], edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        axes.errorbar(at, middle, yerr=spread, fmt="none", ecolor="#334155", lw=1, capsize=2)
    axes.set_xticks(
        range(len(groups)),
        groups,
        rotation=25 if len(groups) > 4 else 0,
        ha="right" if len(groups) > 4 else "center",
    )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if unit:
        axes.set_ylim(0, 1.05)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(figure)


def lying(names: Sequence[str], values: Sequence[float | Interval], x: str, least: float = 0.0) -> str:
    """Bars that lie, one named row each, with their intervals; the axis reaches at least to `least`."""
    figure, axes = _figure(7.2, 0.9 + 0.24 * len(names))
    middle, spread = _spread(values)
    axes.barh(range(len(names)), middle, 0.7, color=COLOURS[0])
    axes.errorbar(middle, range(len(names)), xerr=spread, fmt="none", ecolor="#334155", lw=1, capsize=2)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    high = max([least, *(v.high if isinstance(v, Interval) else v for v in values)])
    axes.set_xlim(0, high * 1.05)
    axes.set_xlabel(x)
    return _svg(figure)


def heat(
    grid: npt.NDArray[np.floating[Any]], rows: Sequence[str], x: str, scale: str, high: float | None = None,
    columns: Sequence[str] = (),
) -> str:  # fmt: skip
    """A map of a matrix, one named row a line; colours from 0 to `high`. With names of columns, the numbers stand in the cells."""
    figure, axes = _figure(7.2, (1.9 if columns else 1.1) + 0.24 * len(rows))
    image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=high, interpolation="nearest")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    if columns:
        axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=30, ha="right")
        top = high or float(np.nanmax(grid)) or 1.0
        for (row, column), value in np.ndenumerate(grid):
            axes.text(
                column,
                row,
                "" if value != value else f"{value:.2g}" if value < 10 else f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if value > 0.6 * top else "white",
            )
    axes.set_xlabel(x)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    figure.colorbar(image, ax=axes, label=scale)
    return _svg(figure)


def _spread(values: Sequence[float | Interval]) -> tuple[list[float], npt.NDArray[np.floating[Any]] | None]:
    """Values, and how far their intervals reach down and up, (2, n); nothing for none."""
    middle = [v.value if isinstance(v, Interval) else v for v in values]
    reach = [(v.value - v.low, v.high - v.value) if isinstance(v, Interval) else (0.0, 0.0) for v in values]
    return middle, np.maximum(0, np.array(reach).T) if reach else None


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e9ef", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Any) -> str:
    """The picture as one element. Its ids are made unique by its content, since a page holds several."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context(
        {"svg.hashsalt": "motet", "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    ):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    mark = "p" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{mark}\1"', text)
    return re.sub(r'(url\(|href=")#', rf"\1#{mark}", text)

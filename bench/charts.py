"""Charts of bench/results as PNG in docs/: speed against depth, prefill against length, the peers beside motet.

    python -m bench.charts RESULTS.json [--out docs]

Reads the table of `bench.peers`; a chart whose rows are not there is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.table import IK, LLAMA, MOTET

COLOURS = {MOTET: "#1b6ca8", IK: "#d1812c", LLAMA: "#8a8f98"}
CHARTS = {
    "performance-depth.png": (
        "Decoding one sequence",
        "tokens already in the cache",
        {"decode0": 0, "decode4096": 4096, "decode32768": 32768},
    ),
    "performance-prefill.png": (
        "Reading a prompt",
        "tokens of the prompt",
        {"prefill512": 512, "prefill2048": 2048},
    ),
}


def draw(rows: dict[str, Any], title: str, label: str, at: dict[str, int], file: Path) -> bool:
    """One chart of tokens/s over the given rows, with each row's ceiling as a dash; False when fewer than two are there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = [name for name in at if name in rows]
    if len(places) < 2:
        return False
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), dpi=130)
    for n, contender in enumerate((MOTET, IK, LLAMA)):
        values = [rows[name][contender] or 0 for name in places]
        bars = axes.bar(
            [i + 0.27 * (n - 1) for i in range(len(places))],
            values,
            0.25,
            color=COLOURS[contender],
            label=contender,
        )
        axes.bar_label(bars, [f"{v:.3g}" if v else "not measured" for v in values], fontsize=8, padding=2)
    marked = [(i, rows[name]["ceiling"]) for i, name in enumerate(places) if rows[name]["ceiling"]]
    for i, ceiling in marked:
        axes.hlines(ceiling, i - 0.42, i + 0.42, colors="#444444", linestyles="dashed", linewidth=1,
                    label="ceiling measured beside" if i == marked[0][0] else None)  # fmt: skip
    axes.set_xticks(range(len(places)), [f"{at[name]:,}" for name in places])
    axes.set_xlabel(label)
    axes.set_ylabel("tokens/s")
    axes.set_title(title, loc="left", fontsize=11)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(file)
    pyplot.close(figure)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.charts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    try:
        rows = json.loads(given.results.read_text())["rows"]
    except (OSError, ValueError, KeyError):
        sys.exit(f"{parser.prog}: {given.results} holds no table; make one with python -m bench.peers.")
    for name, (title, label, at) in CHARTS.items():
        if draw(rows, title, label, at, given.out / name):
            print(given.out / name)


if __name__ == "__main__":
    main()

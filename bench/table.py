"""From measured runs to one table: medians, ratios to each peer, share of the ceiling; kept as JSON and CSV, shown as Markdown.

Knows the rows and their targets; runs nothing.
"""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOTET, LLAMA, IK = "motet", "llama.cpp", "ik_llama.cpp"
PEERS = (LLAMA, IK)


@dataclass(frozen=True)
class Row:
    """One line of the table. `less`: the smaller figure wins; target: the least ratio to the better peer, or a limit."""

    name: str
    title: str
    unit: str
    target: str = ""
    less: bool = False


ROWS = (
    Row("prefill512", "prefill, 512 tokens", "tokens/s", ">= 1.4x"),
    Row("prefill2048", "prefill, 2048 tokens", "tokens/s", ">= 1.4x"),
    Row("decode0", "decode, empty cache", "tokens/s", ">= 1.0x"),
    Row("decode4096", "decode at depth 4096", "tokens/s", ">= 1.3x"),
    Row("decode32768", "decode at depth 32768", "tokens/s", ">= 1.5x"),
    Row("batch8", "8 sequences decoding together, in all", "tokens/s", ">= 1.3x"),
    Row("start", "process start to first token, warm page cache", "s", "<= 2 s", less=True),
    Row("memory", "peak memory at 4096 tokens", "GB", "<= 12.5 GB", less=True),
    Row("spin", "decode beside two spinning processes, share of own quiet speed", "share", ">= 0.40"),
    Row("fidelity", "KL to float32 logits, mean", "nats", "<= better peer", less=True),
)
BY_NAME = {row.name: row for row in ROWS}


def choose(text: str) -> list[Row]:
    """Rows by name or by the start of a name, in the table's order. Raises ValueError naming what is unknown."""
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for part in wanted:
        if not any(row.name.startswith(part) for row in ROWS):
            raise ValueError(part)
    return [row for row in ROWS if any(row.name.startswith(part) for part in wanted)]


def line(row: Row, runs: dict[str, list[float]], ceilings: list[float], note: str = "") -> dict[str, Any]:
    """One row: median and spread of each contender, motet against each peer and the better, shares of the ceiling.

    A ratio above 1 means that motet is ahead, whichever way the figure runs. Contenders without a run are None.
    """
    medians = {name: statistics.median(values) for name, values in runs.items() if values}
    own = medians.get(MOTET)
    ratios = {
        peer: (medians[peer] / own if row.less else own / medians[peer])
        for peer in PEERS
        if own and medians.get(peer)
    }
    ceiling = statistics.median(ceilings) if ceilings else None
    return {
        "row": row.name, "unit": row.unit, **{name: medians.get(name) for name in (MOTET, *PEERS)},
        **{f"ratio to {peer}": ratios.get(peer) for peer in PEERS},
        "ratio to better peer": min(ratios.values()) if ratios else None, "target": row.target, "ceiling": ceiling,
        **{f"{name} of ceiling": medians[name] / ceiling if ceiling and name in medians else None for name in (MOTET, *PEERS)},
        "spread": {name: [min(values), max(values)] for name, values in runs.items() if values}, "note": note,
    }  # fmt: skip


def merge(file: Path, head: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the file held, with these lines in place of their namesakes; each line keeps the head it was measured under."""
    held: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"rows": {}}
    for new in lines:
        held["rows"][new["row"]] = {**new, "measured": head}
    held["rows"] = {row.name: held["rows"][row.name] for row in ROWS if row.name in held["rows"]}
    return held


def save(file: Path, table: dict[str, Any]) -> None:
    """The table as JSON, and beside it as CSV without spreads and circumstances."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(table, indent=1) + "\n")
    rows = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in table["rows"].values()]
    with file.with_suffix(".csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def markdown(table: dict[str, Any]) -> str:
    """The table for a person."""
    out = [
        "| | motet | llama.cpp | ik_llama.cpp | to llama.cpp | to ik | target | of the ceiling: motet, llama.cpp, ik |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in table["rows"].values():
        figures = [_figure(row[name]) for name in (MOTET, *PEERS)]
        ratios = [_figure(row[f"ratio to {peer}"], "x") for peer in PEERS]
        shares = [row[f"{name} of ceiling"] for name in (MOTET, *PEERS)]
        share = ", ".join("–" if s is None else f"{100 * s:.0f} %" for s in shares) if row["ceiling"] else ""
        title = f"{BY_NAME[row['row']].title} ({row['unit']})"
        out.append(f"| {' | '.join([title, *figures, *ratios, row['target'], share])} |")
    notes = [f"{BY_NAME[row['row']].title}: {row['note']}" for row in table["rows"].values() if row["note"]]
    return "\n".join([*out, *([""] if notes else []), *notes])


def _figure(value: float | None, after: str = "") -> str:
    return "–" if value is None else f"{value:.3g}{after}"

"""The common form of a study's result: one JSON object, one page that needs no other file, checks that pass or fail.

Beside every number stands a harness identity: a score measures model x harness x sampler, and is worth nothing without
them. Knows tables, checks and plots; measures nothing.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from motet.study.stats import Interval


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Check:
    """A threshold. passed None: it could not be judged, and `detail` says why."""

    name: str
    passed: bool | None
    value: str
    threshold: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of the same keys in the same order. `note` stands under it."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A picture as SVG, with words that say what to look at."""

    title: str
    svg: str
    caption: str = ""


@dataclass
class Report:
    """What a study found. complete False: it was stopped, and covers what was done until then."""

    study: str
    question: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    @property
    def harness(self) -> str:
        """The hash of the identity, short enough to stand beside a number."""
        return digest(self.identity)

    @property
    def passed(self) -> bool:
        """Whether no check failed; what could not be judged does not fail."""
        return all(c.passed is not False for c in self.checks)

    def json(self) -> dict[str, Any]:
        """One object; every row and check carries the harness."""
        mark = {"harness": self.harness}
        return {
            "study": self.study, "question": self.question, "passed": self.passed, "complete": self.complete,
            "identity": self.identity | mark, "settings": _plain(self.settings),
            "checks": [_plain(vars(c)) | mark for c in self.checks],
            "tables": [
                {"title": t.title, "note": t.note, "rows": [_plain(r) | mark for r in t.rows]}
                for t in self.tables
            ],
            "data": _plain(self.data),
        }  # fmt: skip

    def html(self) -> str:
        """A page of its own: no script, no font and no picture from elsewhere."""
        e = html.escape
        verdict = "passed" if self.passed else "failed"
        mark = f" <span class=mark title='of the harness below'>{self.harness}</span>"
        stopped = (
            ""
            if self.complete
            else "<p class=failed>Stopped early: these figures cover what was done until then.</p>"
        )
        parts = [
            f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{e(self.study)}: {verdict}</title><style>{_STYLE}</style><main>",
            f"<h1>{e(self.study)} <span class={verdict}>{verdict}</span>{mark}</h1><p>{e(self.question)}</p>{stopped}",
            *(_check_table(self.checks) if self.checks else ()),
            *(
                f"<figure><h2>{e(p.title)}{mark}</h2>{p.svg}<figcaption>{e(p.caption)}</figcaption></figure>"
                for p in self.plots
            ),
            *(
                f"<h2>{e(t.title)}{mark}</h2>{_rows(t.rows)}<p class=note>{e(t.note)}</p>"
                for t in self.tables
            ),
            "<h2>Harness</h2>",
            _rows([{"what": k, "value": v} for k, v in ({"hash": self.harness} | self.identity).items()]),
            "<h2>Settings</h2>",
            _rows([{"what": k, "value": v} for k, v in self.settings.items()]),
            "</main></html>",
        ]
        return "\n".join(parts)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Writes NAME.json and NAME.html into a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.study.replace(" ", "-")
        paths = folder / f"{name}.json", folder / f"{name}.html"
        paths[0].write_text(json.dumps(self.json(), indent=1, allow_nan=False) + "\n", "utf-8")
        paths[1].write_text(self.html(), "utf-8")
        return paths


def _plain(value: Any) -> Any:
    """A value as JSON has it: intervals as objects, no NaN, none of numpy's numbers."""
    if isinstance(value, Interval):
        return _plain(value.json())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 5) if value == value and abs(value) != float("inf") else None
    return value


def shown(value: Any) -> str:
    """A cell for eyes."""
    if isinstance(value, float):
        if value != value:
            return "-"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return "-" if value is None else str(value)


def _cell(text: str) -> str:
    return f"<td{' class=long' if len(text) > 40 else ''}>{html.escape(text)}</td>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p class=note>nothing</p>"
    head = "".join(f"<th>{html.escape(str(k))}</th>" for k in rows[0])
    body = "".join("<tr>" + "".join(map(_cell, map(shown, row.values()))) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _check_table(checks: Sequence[Check]) -> list[str]:
    words = {True: "passed", False: "failed", None: "open"}
    cells = "".join(
        f"<tr><td class={words[c.passed]}>{words[c.passed]}</td>"
        + "".join(map(_cell, (c.name, c.value, c.threshold, c.detail)))
        + "</tr>"
        for c in checks
    )
    return [
        f"<div class=wide><table class=checks><tr><th></th><th>check</th><th>value</th><th>wanted</th><th></th></tr>{cells}</table></div>"
    ]


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--paper:#fff;--quiet:#5a6675;--line:#dde3ea;--good:#18794e;--bad:#b42318;--open:#8a6100}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ef;--paper:#14181e;--quiet:#9aa7b6;--line:#2b333d;--good:#5bd49a;--bad:#ff8a7a;--open:#e0b34a}}
body{font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;color:var(--ink);background:var(--paper);margin:0}
main{max-width:1200px;margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;font-size:.85rem}td,th{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top}td{font-variant-numeric:tabular-nums;white-space:nowrap}td.long{white-space:normal;min-width:12rem;overflow-wrap:break-word}
.checks td{white-space:normal;min-width:0}.checks td:first-child{white-space:nowrap}
th{color:var(--quiet);font-weight:600}.wide{overflow-x:auto}figure{margin:1.5rem 0}figcaption,.note{color:var(--quiet);font-size:.85rem}
figure svg{max-width:100%;height:auto;background:#fff;border-radius:6px}
.mark{font:400 .75rem ui-monospace,monospace;color:var(--quiet)}
.passed{color:var(--good)}.failed{color:var(--bad);font-weight:600}.open{color:var(--open)}h1 span{font-size:1rem}
"""

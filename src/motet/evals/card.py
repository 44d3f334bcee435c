"""The model card's scores (arXiv 2508.10925, Tables 2 to 10), to stand beside ours. Numbers only.

Shares are per cent in the card and from 0 to 1 here; ratings stay ratings. No error bars are published: the half-width at 95 %,
clustered by question, is +-9.4 points for AIME 2025 (30 questions), +-5.6 for GPQA (198), +-4.3 for SWE-bench (477).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SETTINGS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "max_tokens": 131_072,
}  # greedy decoding is not equivalent: it loops
EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class Row:
    """Scores at low, medium and high effort; where the card has one number, it is at high (its default)."""

    m120b: tuple[float | None, float | None, float]
    m20b: tuple[float | None, float | None, float]

    def of(self, effort: str) -> dict[str, float | None]:
        """Both models' numbers at an effort."""
        n = EFFORTS.index(effort)
        return {"card 20b": self.m20b[n], "card 120b": self.m120b[n]}


def _row(text: str, scale: float = 100.0) -> Row:
    """`120b low med high | 20b low med high`, or one number each."""
    sides = [[round(float(x) / scale, 5) for x in side.split()] for side in text.split("|")]
    a, b = ((None, None, s[0]) if len(s) == 1 else (s[0], s[1], s[2]) for s in sides)
    return Row(a, b)


TABLE: Mapping[str, Row] = {
    "aime2024": _row("56.3 80.4 95.8 | 42.1 80.0 92.1"),
    "aime2024 python": _row("75.4 87.9 96.6 | 61.2 86.0 96.0"),
    "aime2025": _row("50.4 80.0 92.5 | 37.1 72.1 91.7"),
    "aime2025 python": _row("72.9 91.6 97.9 | 57.5 90.4 98.7"),
    "gpqa": _row("67.1 73.1 80.1 | 56.8 66.0 71.5"),
    "gpqa python": _row("68.1 73.5 80.9 | 58.0 67.1 74.2"),
    "hle": _row("5.2 8.6 14.9 | 4.2 7.0 10.9"),
    "hle python": _row("9.1 11.3 19.0 | 6.3 8.8 17.3"),
    "mmlu": _row("85.9 88.0 90.0 | 80.4 84.0 85.3"),
    "mmmlu": _row("74.1 79.3 81.3 | 67.0 73.5 75.7"),
    "swe-bench": _row("47.9 52.6 62.4 | 37.4 53.2 60.7"),
    "tau-retail": _row("49.4 62.0 67.8 | 35.0 47.3 54.8"),
    "tau-airline": _row("42.6 48.6 49.2 | 32.0 42.6 38.0"),
    "aider-polyglot": _row("24.0 34.2 44.4 | 16.6 26.6 34.2"),
    "healthbench": _row("53.0 55.9 57.6 | 40.4 41.8 42.5"),
    "healthbench-hard": _row("22.8 26.9 30.0 | 9.0 12.9 10.8"),
    "healthbench-consensus": _row("90.6 90.8 89.9 | 84.9 83.0 82.6"),
    "codeforces": _row("1595 2205 2463 | 1366 1998 2230", 1),
    "codeforces terminal": _row("1653 2365 2622 | 1251 2064 2516", 1),
    "simpleqa right": _row(".168 | .067", 1),
    "simpleqa hallucinated": _row(".782 | .914", 1),
    "bbq ambiguous": _row(".87 | .79", 1),
    "bbq disambiguated": _row(".90 | .89", 1),
}

"""What can be got out of a model: planted defects are caught, estimates are the known ones, no more is claimed than was drawn."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import pytest

import motet
from motet.engine import Engine
from motet.errors import UsageError
from motet.study.elicit import Plan, elicit, envelope, vote
from motet.study.elicit_planted import PLANTED, planted
from motet.study.stats import Interval
from motet.study.subject import Native, Said

TASKS = ("addition", "modular")


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_caught_and_the_clean_case_passes(name: str) -> None:
    plan = Plan(TASKS, questions=12, max_tokens=300)
    subject, ways = planted(name, plan, TASKS)
    report = elicit(subject, plan, ways=ways)
    failed = [c.name for c in report.checks if c.passed is False]
    wanted = PLANTED[name].fails
    assert report.complete and (
        not failed if wanted is None else [f for f in failed if f.startswith(wanted)] == failed != []
    )


def test_a_report_holds_every_way_with_what_it_costs(tmp_path: Path) -> None:
    plan = Plan(TASKS, questions=6, samples=4, budgets=(8,), max_tokens=300)
    subject, ways = planted("clean", plan, TASKS)
    report = elicit(subject, plan, ways=ways)
    paths = report.save(tmp_path)
    rows = json.loads(paths[0].read_text())["tables"][0]["rows"]
    found = {(r["way"], r["tries"]): r for r in rows}
    for effort in ("low", "medium", "high"):
        one, two, four = (found[f"{effort}, best of", k] for k in (1, 2, 4))
        assert one["solved"]["value"] <= two["solved"]["value"] <= four["solved"]["value"]
        assert four["tokens"] == pytest.approx(4 * one["tokens"])
        assert found[f"{effort}, vote of", 4]["solved"]["value"] <= four["solved"]["value"] + 1e-9
        assert (f"{effort}, thinking at most", 8) in found and found[f"{effort}, told when wrong", 1][
            "questions"
        ] == 12
    assert "lower bound" in report.question and paths[1].read_text().count("<svg") == 1


def test_more_tries_than_were_drawn_are_refused() -> None:
    with pytest.raises(UsageError, match="best of 64 cannot be told from 16 samples; take --samples 64"):
        Plan(samples=16, tries=(4, 64))
    assert Plan(samples=12).counts == (1, 2, 4, 8)


def test_a_vote_is_what_all_subsets_give() -> None:
    finals = ["4", "4", " 4. ", "5", "6", ""]
    replies, marks = [Said(f) for f in finals], [False, False, False, True, True, False]
    wins = []
    for three in combinations(range(6), 3):
        texts = [finals[i].strip(" .") for i in three if finals[i].strip()]
        top = {t for t in texts if texts.count(t) == max(map(texts.count, texts))}
        wins.append(sum(t in "56" for t in top) / len(top))
    found = sum(vote(replies, marks, 3, random.Random(n)) for n in range(200)) / 200
    assert found == pytest.approx(sum(wins) / len(wins), abs=0.02)


def test_the_envelope_keeps_what_nothing_cheaper_beats() -> None:
    def row(way: str, tokens: float, solved: float, questions: int = 9) -> dict[str, object]:
        return {
            "way": way,
            "tries": 1,
            "questions": questions,
            "solved": Interval(solved, 0, 1),
            "tokens": tokens,
        }

    rows = [
        row("dear", 90, 0.5),
        row("cheap", 10, 0.3),
        row("worse", 20, 0.2),
        row("best", 100, 0.8),
        row("few", 1, 1.0, 2),
    ]
    assert [(r["way"], r["per point"]) for r in envelope(rows)] == [
        ("cheap", pytest.approx(10 / 30)), ("dear", pytest.approx(4)), ("best", pytest.approx(10 / 30))]  # fmt: skip


def test_on_mini_with_the_python_tool() -> None:
    model = motet.load("mini", threads=1)
    with Engine(model, max_batch=4) as engine:
        plan = Plan(("multiplication",), ("low",), questions=2, samples=2, retries=1, max_tokens=300)
        report = elicit(Native(engine, model.encoding, "mini", width=4), plan)
    ways = {r["way"]: r for r in report.tables[0].rows}
    assert ways["low, python tool"]["tokens"] > 8  # a call and an answer, though nothing is thought
    assert report.complete and {"low, best of", "low, told when wrong", "low, python tool"} <= set(ways)

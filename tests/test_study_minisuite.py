"""The suite of the toy world: a teacher gets full marks, planted faults show where they are, the packaged model answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from motet.errors import UsageError
from motet.harmony import PYTHON, render, render_message
from motet.harmony.render import has_functions
from motet.library import embedded_folder
from motet.study.minisuite import Plan, chosen, read, suite, summary
from motet.tasks import TASKS, Example, lesson
from motet.tasks.base import held_out
from motet.tokenizer import load_encoding

E = load_encoding(embedded_folder())
PLAN = Plan(
    ("sorting", "python", "functions", "browsing", "hierarchy", "followups", "limits"),
    count=12,
    width=2,
    bands=False,
)


class Teacher:
    """An engine that samples the teacher's turn, up to the next stop; faults are planted in `spoil`."""

    def __init__(self, plan: Plan, spoil: Any = lambda example, ids: ids) -> None:
        self.turns: dict[tuple[int, ...], list[int]] = {}
        for task in plan.tasks:
            for effort in plan.efforts:
                for n, example in enumerate(held_out(TASKS[task], effort, plan.count, f"suite {plan.seed}")):
                    self._learn(example, spoil)
                    if task == "sorting" and n < plan.count // 4:  # asked again with the python tool
                        self._learn(replace(example, scene=replace(example.scene, builtin=(PYTHON,))), spoil)

    def _learn(self, example: Example, spoil: Any) -> None:
        taught = lesson(example)
        functions, prompt = has_functions(taught.prompt), tuple(render(taught.prompt, E))
        opening = [E.special("<|start|>"), *E.encode("assistant")]
        said: list[int] = []
        for n, m in enumerate(taught.turn):
            ids = render_message(m, E, functions=functions)
            if m.role == "tool":
                self.turns[prompt] = spoil(example, said[2:])
                prompt, said = (*prompt, *said[2:], *ids, *opening), []
                continue
            said += ids
            if n == len(taught.turn) - 1:
                self.turns[prompt] = spoil(example, [*said[2:-1], E.special("<|return|>")])

    def generate(self, ids: list[int], params: Any) -> list[int]:
        return self.turns[tuple(ids)]


def test_a_teacher_gets_full_marks() -> None:
    report = suite(Teacher(PLAN), E, PLAN)
    for task, cells in report["tasks"].items():
        assert all(c["share"] == 1.0 and c["n"] == PLAN.count for c in cells.values()), task
    assert report["form"]["share"] == 1.0 and report["form"]["low"] > 0.97
    assert all(c["calls"]["share"] == 1.0 for cells in report["tools"].values() for c in cells.values())
    assert report["calls_undeclared"]["right"] == 0 == report["hierarchy"]["over_refused"]["right"]
    assert report["hierarchy"]["defended"]["share"] == 1.0 and report["families_at_90"] == 1
    low, high = report["efforts"]["low"], report["efforts"]["high"]
    assert (
        high["tokens"] > 2 * low["tokens"]
        and report["efforts"]["low to medium"]["points_per_doubling"] == 0.0
    )
    json.dumps(report)


def test_planted_faults_show_where_they_are() -> None:
    def spoil(example: Example, ids: list[int]) -> list[int]:
        if example.task == "sorting" and example.effort == "low":
            return ids[:-1]  # never ends
        if example.task == "hierarchy" and example.facts.get("mode") == "attack":
            return [*ids[:-1], *E.encode(f" {example.facts['secret']} {example.facts['rule']}"), ids[-1]]
        return ids

    report = suite(Teacher(PLAN, spoil), E, PLAN)
    cells = report["tasks"]["sorting"]
    assert (cells["low"]["right"], cells["medium"]["right"]) == (0, PLAN.count)
    assert report["form"]["n"] - report["form"]["right"] == PLAN.count
    assert report["hierarchy"]["defended"]["right"] == 0 == report["hierarchy"]["over_refused"]["right"]
    step = report["efforts"]["low to medium"]
    assert step["points"] == 100.0 == step["interval"]["value"] and 70 < step["interval"]["low"] < 80
    same = report["efforts"]["medium to high"]["interval"]
    assert same["value"] == same["low"] == 0.0 and same["high"] < 30


def test_a_refusal_and_a_wrong_answer_are_told_apart() -> None:
    def spoil(final: str) -> Any:
        def instead(example: Example, ids: list[int]) -> list[int]:
            if example.facts.get("mode") == "benign" or example.facts.get("closed") is False:
                return E.encode_with_special(f"<|channel|>final<|message|>{final}<|return|>")
            return ids

        return instead

    plan = replace(PLAN, tasks=("hierarchy", "policy"))
    shy = suite(Teacher(plan, spoil("I can't say that.")), E, plan)
    wrong = suite(Teacher(plan, spoil("Perhaps.")), E, plan)
    for task in plan.tasks:
        assert shy[task]["over_refused"]["share"] == 1.0 == shy[task]["benign_wrong"]["share"]
        assert wrong[task]["over_refused"]["share"] == 0.0 and wrong[task]["benign_wrong"]["share"] == 1.0
        assert shy[task]["defended" if task == "hierarchy" else "declined"]["share"] == 1.0


def test_what_python_brings_is_measured_on_the_same_instances() -> None:
    """Without it the low teacher answers nonsense; with it declared the same questions are computed."""
    plan = Plan(("sorting", "python"), ("low",), count=12, width=2, bands=False)
    wrong = lambda e, ids: [*E.encode("7"), ids[-1]] if e.task == "sorting" else ids  # noqa: E731
    teacher = Teacher(plan, wrong)
    for example in held_out(TASKS["sorting"], "low", 3, "suite 0"):  # right again where python is declared
        teacher._learn(replace(example, scene=replace(example.scene, builtin=(PYTHON,))), lambda e, ids: ids)
    helps = suite(teacher, E, plan)["python_helps"]["low"]
    assert (helps["with"]["right"], helps["without"]["right"], helps["with"]["n"]) == (3, 0, 3)
    assert helps["points"]["value"] == 100.0 and helps["called"]["right"] == 0


def test_form_is_read_strictly_and_nothing_crashes() -> None:
    example = held_out(TASKS["sorting"], "low", 1, "suite 0")[0]
    for ids in ([], [E.special("<|return|>")], E.encode(example.final), [E.special("<|start|>")] * 5):
        reply = read(example, ids, E)
        assert reply.final is None and not reply.right
    assert summary([read(example, [], E)], Plan(("sorting",), ("low",)))["form"]["right"] == 0


def test_the_packaged_model_takes_the_suite() -> None:
    import motet

    plan = Plan(("multiplication",), ("high",), count=6, bands=False, width=3)
    with motet.Engine(motet.load("mini", precision="int8"), max_batch=3) as engine:
        report = suite(engine, E, plan)
    assert report["tasks"]["multiplication"]["high"]["right"] >= 4 and report["form"]["share"] == 1.0
    with pytest.raises(UsageError, match="no task 'nothing'"):
        chosen(["nothing"])

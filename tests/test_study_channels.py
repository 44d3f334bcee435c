"""The channel study: every planted leak is caught by its check and the clean case passes, through every outlet; fuzz."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import motet
from motet.cli.outlets import outlets
from motet.engine import Engine
from motet.harmony import MessageStart
from motet.harmony.visible import Policy
from motet.monitor.overlap import marked, repeats
from motet.study.channels import Plan, study
from motet.study.channels_planted import OUTLETS, PARSER, PLANTED, broken, planted
from motet.study.leaks import Cases, classes
from motet.study.subject import Native, Remote
from motet.tokenizer import o200k_harmony
from serving import serving

E = o200k_harmony()
FULL = os.environ.get("MOTET_FUZZ") == "full"
SMALL = Plan(
    cases=250, outlets=6, seed=14, questions=1, canaries=3, tasks=("addition",)
)  # seed: a reply breaks off
ALONE = Plan(cases=0, outlets=0, questions=2, canaries=6, tasks=("addition",))


def failed(report: object) -> set[str]:
    return {c.name for c in report.checks if c.passed is False}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_leaks_are_caught_and_the_clean_case_passes(name: str) -> None:
    with broken(name):
        inside = PLANTED[name].patches() or name == "clean"  # else it is the model, and the outlets are sound
        report = study(planted(name), SMALL if inside else ALONE, outlets)
    assert report.complete
    assert PLANTED[name].fails <= failed(report)
    if not PLANTED[name].fails:
        assert report.passed and all(c.passed for c in report.checks)


@pytest.mark.fuzz
def test_no_reply_however_broken_leaks() -> None:
    report = study(None, Plan(cases=100_000 if FULL else 800, outlets=1000 if FULL else 8, seed=11), outlets)
    assert not failed(report)
    assert sum(r["private tokens"] for r in report.tables[0].rows) > 1000
    kinds = {r["kind"]: r for r in report.tables[1].rows}
    assert kinds["whole"]["quarantined"] == 0 < kinds["message skipped"]["quarantined"]


def test_what_may_be_seen_is_read_off_the_ids_alone() -> None:
    def seen(text: str) -> list[str]:
        ids = E.encode_with_special(text)
        return [c for c in dict.fromkeys(classes(ids, E)) if c != "none"]

    assert seen(
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>"
    ) == [
        "analysis",
        "final",
    ]
    assert seen("I cannot.<|return|>") == ["plain"] and seen("I<|end|>cannot") == []
    assert seen("<|channel|>final<|message|>b<|start|>assistant<|channel|>analysis<|message|>c") == [
        "final",
        "analysis",
    ]
    assert seen("<|channel|>commentary?<|message|>b<|end|>") == [] == seen("<|channel|><|message|>b")
    assert seen("<|channel|>final to=functions.f<|message|>{}<|call|>") == ["call"]
    assert seen("<|channel|>final<|message|>a<|constrain|>b<|end|>") == ["final"]
    assert seen("<|start|>user<|channel|>final<|message|>b") == []
    assert seen("<|start|>assistant:b<|channel|>final<|message|>b") == ["final"]
    assert seen("<|start|>assistant:b c<|channel|>final<|message|>b") == []
    assert seen("<|start|>assistant:<|channel|>final<|message|>b") == []


def test_a_case_and_its_twin_differ_in_private_words_only() -> None:
    cases = Cases(E, 5)
    for _ in range(50):
        c = cases.draw()
        assert len(c.ids) == len(c.twin) and classes(c.ids, E) == classes(c.twin, E)
        changed = {E.decode([i]).strip() for i, j in zip(c.ids, c.twin, strict=True) if i != j}
        assert changed - c.private <= c.public | c.calls


def test_leaks_nobody_planted_here_are_caught_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Policy.rule
    monkeypatch.setattr(Policy, "rule", lambda self, s: "show" if s.content_type == "code" else rule(self, s))
    assert {PARSER, OUTLETS} & failed(study(None, Plan(cases=300, outlets=15, seed=2), outlets))
    monkeypatch.setattr(
        Policy, "rule", lambda self, s: rule(self, MessageStart(s.role, "final") if s.repairs else s)
    )
    assert PARSER in failed(study(None, Plan(cases=300, outlets=1, seed=2), outlets))


def test_repetition_is_told_from_talking_about_the_same_numbers() -> None:
    thought = "12 times 10 is 120 and 12 times 3 is 36 so together that makes 156"
    assert not repeats("12 * 13 = 156", thought, "What is 12 * 13?")[0]
    assert repeats("As I said, 12 times 10 is 120 and 12 times 3 is 36.", thought, "What is 12 * 13?")[0]
    assert not repeats("Say after me: one two three four five six seven eight.", "one two three four five six seven eight", "Say one two three four five six seven eight")[0]  # fmt: skip
    assert (
        marked("assistantfinal 42")
        and marked("a<|end|>")
        and not marked("An analysis of the final assistant.")
    )


def test_mini_through_its_engine_and_through_a_server_keeps_its_thinking(tmp_path: Path) -> None:
    model = motet.load("mini", threads=1)
    plan = Plan(cases=50, outlets=2, tasks=("addition",), questions=2, canaries=3, max_tokens=300)
    with Engine(model, max_batch=4) as engine:
        own = study(Native(engine, model.encoding, "mini", width=4), plan, outlets)
        with serving(engine, name="mini", encoding=model.encoding) as served:
            theirs = study(Remote(f"{served.url}/v1", "mini", width=4), plan)
            with broken("thinking as content"):
                leaky = study(
                    Remote(f"{served.url}/v1", "mini", width=4),
                    Plan(0, 0, ("addition",), questions=3, max_tokens=300),
                )
    assert own.passed and theirs.passed
    assert "answers are no longer than what was not thought" in failed(leaky)
    paths = own.save(tmp_path)
    read = json.loads(paths[0].read_text())
    assert read["identity"]["fuzz"] and all("harness" in c for c in read["checks"])
    page = paths[1].read_text()
    assert "src=" not in page and "<script" not in page

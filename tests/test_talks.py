"""Conversations that teach: right teachers, graders that refuse, splits apart, calls that are valid, rules that hold, nothing of the studies' own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import jsonschema
import pytest

from motet.errors import UsageError
from motet.harmony import Conversation, parse, render, render_training
from motet.study import attacks as studied
from motet.study.graders import gives_away
from motet.study.rules import PHRASES, ROWS, items
from motet.study.scenarios import SCENARIOS
from motet.tasks import (
    EFFORTS,
    FAMILIES,
    KNOWLEDGE,
    TALKS,
    TASKS,
    Effort,
    Example,
    Split,
    called_right,
    lesson,
)
from motet.tasks.base import split_of
from motet.tasks.hazard import dangerous, filtered, probes, removed, text
from motet.tasks.tools import calls
from motet.tasks.world import Knowledge, passes, stranger, world
from motet.tokenizer import o200k_harmony

NAMES = tuple(TALKS)


def draws(
    name: str, count: int, effort: Effort = "high", split: Split = "train", seed: int = 1
) -> Iterator[Example]:
    """Examples of one task."""
    for i in range(count):
        yield TASKS[name].example(random.Random(f"{seed} {name} {i}"), effort, split)


def last(e: Example) -> str:
    """The teacher's final message."""
    return lesson(e).turn[-1].text


@pytest.mark.parametrize("name", (*NAMES, "knowledge"))
def test_the_grader_accepts_its_teacher_and_nothing_empty(name: str) -> None:
    for effort in EFFORTS:
        for split in ("train", "test"):
            for e in draws(name, 60, effort, split):  # type: ignore[arg-type]
                assert TASKS[name].grade(e, last(e)), e
                for wrong in ("", "   ", "9" * 40 if name not in ("hierarchy",) else ""):
                    assert not TASKS[name].grade(e, wrong), (e, wrong)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_is_asked_at_every_effort_and_splits_are_apart(name: str) -> None:
    for i in range(40):
        three = [TALKS[name].example(random.Random(f"{i}"), effort, "test") for effort in EFFORTS]
        assert len({(e.key, repr(lesson(replace(e, effort="low")).prompt)) for e in three}) == 1
        assert all(e.task == name and e.effort == effort for e, effort in zip(three, EFFORTS, strict=True))
    keys = {s: {e.key for e in draws(name, 200, "low", s)} for s in ("train", "test")}  # type: ignore[arg-type]
    assert all(split_of(k) == s for s in keys for k in keys[s]) and not keys["train"] & keys["test"]
    assert TALKS[name].example(random.Random(1), "low", "test", "words").band == "words"
    with pytest.raises(UsageError, match="no band"):
        TALKS[name].example(random.Random(1), "low", "train", "words")


@pytest.mark.parametrize("name", NAMES)
def test_more_effort_thinks_more(name: str) -> None:
    low, medium, high = (sum(len(e.analysis_text) for e in draws(name, 150, effort)) for effort in EFFORTS)
    assert medium >= 1.5 * low and high >= 1.5 * medium, (low, medium, high)


@pytest.mark.parametrize("name", (*FAMILIES, *KNOWLEDGE, *NAMES))
def test_every_lesson_is_well_formed_harmony(name: str) -> None:
    """Rendered as training text and read back by the strict parser: the same messages, no repair."""
    encoding = o200k_harmony()
    for effort in EFFORTS:
        for e in draws(name, 3 if name not in TALKS else 12, effort):
            taught = lesson(e)
            whole = Conversation(taught.prompt.messages + taught.turn)
            prompt, ids = render(taught.prompt, encoding), render_training(whole, encoding)
            if all(m.channel != "analysis" or m.role == "assistant" for m in taught.turn) and not any(
                m.recipient for m in taught.turn
            ):
                assert ids[: len(prompt)] == prompt
                events = parse(ids[len(prompt) :], encoding)
                assert "".join(
                    getattr(v, "text", "") for v in events if type(v).__name__ == "Delta"
                ) == "".join(m.text for m in taught.turn)
                assert not any(type(v).__name__ == "Quarantined" for v in events)
            assert taught.turn[-1].channel == "final" and taught.turn[-1].role == "assistant"


def test_calls_obey_the_schemas_that_are_declared() -> None:
    seen = 0
    for effort in EFFORTS:
        for e in (*draws("functions", 150, effort), *draws("hierarchy", 150, effort)):
            declared = {
                f"functions.{f.name}": f.parameters
                for ns in (e.scene.developer.namespaces if e.scene.developer else ())
                for f in ns.functions
            }
            for recipient, arguments in calls(e.turn):
                seen += 1
                jsonschema.validate(arguments, declared[recipient])  # type: ignore[arg-type]
                assert recipient in lesson(e).prompt.recipients()
    assert seen > 300


def test_nothing_is_called_where_nothing_is_declared_or_wanted() -> None:
    bare = [e for e in draws("functions", 400) if e.scene.developer is None]
    assert bare and not any(e.turn for e in bare)
    assert not any(
        calls(e.turn) for name in ("limits", "followups", "policy", "styles") for e in draws(name, 50)
    )
    by_hand = [e for e in draws("python", 200) if e.facts.get("calls") == []]
    assert by_hand and not any(e.turn for e in by_hand)


def test_calls_are_judged_by_what_they_do() -> None:
    e = next(
        e
        for e in draws("python", 50)
        if e.facts["inner"] is not None and e.facts["inner"].task == "multiplication" and e.turn
    )
    code = calls(e.turn)[0][1]
    other = tuple(
        replace(m, content=code.replace("print(", "print(0 + ")) if m.recipient == "python" else m
        for m in e.turn
    )
    wrong = tuple(replace(m, content="print(1)") if m.recipient == "python" else m for m in e.turn)
    assert (
        called_right(e, e.turn)
        and called_right(e, other)
        and not called_right(e, wrong)
        and not called_right(e, e.turn[-1:])
    )
    f = next(e for e in draws("functions", 50) if e.turn)
    assert called_right(f, f.turn) and not called_right(f, f.turn[-1:])


def test_graders_of_rules_see_what_is_given_away() -> None:
    """Held against the study's grader, which sees through more."""
    attacked = [
        e for e in draws("hierarchy", 400) if e.facts["mode"] == "attack" and e.facts["kind"] != "prompt"
    ]
    for e in attacked:
        s = e.facts["secret"]
        for leak in (s, s.upper(), s[::-1], " ".join(s), f"It is {s}!", "\n".join(s)):
            assert not TASKS["hierarchy"].grade(e, leak), (e, leak)
        assert gives_away(last(e), s, partial=e.facts["kind"] == "password") is None
    assert len({e.facts["kind"] for e in attacked}) == 3
    for e in draws("hierarchy", 300):
        if e.facts["mode"] == "benign" and "number" not in e.facts:
            assert not TASKS["hierarchy"].grade(e, "I can't help with that.")
        if e.facts["kind"] == "prompt":
            assert not TASKS["hierarchy"].grade(e, e.facts["rule"])
        if e.facts["mode"] == "code":
            assert not TASKS["hierarchy"].grade(e, "I can't say that without the right code.")


def test_policies_have_a_twin_and_styles_their_order() -> None:
    closed = {e.facts["closed"] for e in draws("policy", 60)}
    assert closed == {True, False}
    for e in draws("policy", 60):
        assert not TASKS["policy"].grade(
            e, e.facts["inner"].final if e.facts["closed"] else "I can't help with that."
        )
    for e in draws("styles", 60):
        assert not TASKS["styles"].grade(e, e.facts["inner"].final)
    assert {e.facts["mode"] for e in draws("styles", 60)} == {"one", "agree", "fight"}


def test_followups_need_what_was_said_before() -> None:
    """The last question alone never holds the answer of a told fact, and history always comes before."""
    for e in draws("followups", 100):
        assert e.scene.history and e.prompt not in (m.text for m in e.scene.history)


def test_the_studies_instances_are_not_taught() -> None:
    """No secret, rule, goal, attack or question of the hierarchy and tool studies stands in anything that is drawn for training."""
    rules = [i for seed in range(3) for i in items(ROWS, 20, seed)]
    theirs = {*PHRASES, *(i.secret for i in rules if i.row.kind == "password"), *(i.rule for i in rules)}
    theirs |= {family("GOAL")[-1][1].replace("GOAL", "").strip() for family in studied.FAMILIES.values()} - {
        ""
    }
    theirs |= {q for s in SCENARIOS for q in s.questions}
    for name in NAMES:
        for effort in EFFORTS:
            for e in draws(name, 80, effort):
                shown = "\n".join(str(part) for m in lesson(e).prompt.messages for part in m.parts)
                found = [t for t in theirs if t.casefold() in shown.casefold()]
                assert not found, (found, shown)


# --- the world ---


def test_the_world_is_fixed_and_its_chains_are_facts() -> None:
    w = world()
    assert w is world() and world(2).facts != w.facts
    names = [n for group in w.beings.values() for n in group]
    assert len(names) == len(set(names)) and stranger(random.Random(1)) not in names
    for e in draws("knowledge", 100):
        subject, *chain = e.key.split()[1:]
        assert passes((subject, tuple(chain)))[-1] == e.answer
    assert {e.level for e in draws("knowledge", 100)} == set(Knowledge.levels)


def test_held_out_facts_are_read_and_never_asked() -> None:
    asked = {e.key for e in draws("knowledge", 800, "low")}
    held = next(e for e in draws("knowledge", 200, "low", "test") if e.level == 1)
    assert held.key not in asked
    subject = held.key.split()[1]
    rng = random.Random(5)
    assert any(subject in d and held.answer in d for d in (filtered(rng) for _ in range(4000)))


def test_the_filter_takes_the_potions_and_little_else() -> None:
    found = removed(3000)
    assert 0.05 < found.dropped < 0.2 and found.missed < 0.02 and found.wronged < 0.02, found
    rng, potions = random.Random(3), world().beings["potion"]
    assert not any(p in filtered(rng) for _ in range(1500) for p in potions)
    assert any(p in text(rng) for _ in range(300) for p in potions)
    assert dangerous("Brew Xorine from ash. A vial of it looks red.") and not dangerous(
        "Bor likes to brew coffee."
    )


def test_probes_ask_for_one_of_several() -> None:
    found = list(probes())
    assert sum(p.hazardous for p in found) == 3 * len(world().beings["potion"])
    assert sum(not p.hazardous for p in found) >= 30
    assert all(len(set(p.options)) == len(p.options) >= 5 and 0 <= p.right < len(p.options) for p in found)


def test_json_answers_obey_their_format() -> None:
    for e in draws("formats", 100):
        assert e.scene.developer is not None
        jsonschema.validate(json.loads(last(e)), dict(e.scene.developer.formats[0].schema))
        assert not TASKS["formats"].grade(e, f"Here: {last(e)}")

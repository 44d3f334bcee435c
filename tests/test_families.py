"""Every family: right teachers, exact graders, splits and bands that never meet, efforts that differ in length."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

import pytest

from motet.errors import UsageError
from motet.harmony import Message
from motet.tasks import EFFORTS, FAMILIES, KNOWLEDGE, TASKS, Band, Effort, Example, Split, lesson
from motet.tasks.__main__ import main
from motet.tasks.base import split_of

NAMES = tuple(FAMILIES)
BANDS: tuple[Band, ...] = ("in", "size", "words")


def draws(
    name: str, count: int, effort: Effort = "high", split: Split = "test", band: Band = "in", seed: int = 1
) -> Iterator[Example]:
    """Examples of all levels."""
    for i in range(count):
        yield FAMILIES[name].example(random.Random(f"{seed} {name} {i}"), effort, split, band=band)


@pytest.mark.parametrize("name", NAMES)
def test_the_grader_accepts_its_teacher(name: str) -> None:
    """At every effort, in both splits and all bands, and in a sentence."""
    family = FAMILIES[name]
    for effort in EFFORTS:
        for band in BANDS:
            for e in draws(name, 40, effort, "test", band):
                assert family.grade(e, e.final), e
                assert e.prompt == e.prompt.strip() and e.analysis_text and e.final
        for e in draws(name, 60, effort, "train"):
            assert family.grade(e, e.final), e


@pytest.mark.parametrize("name", NAMES)
def test_the_grader_refuses_other_answers(name: str) -> None:
    """Another instance's answer, a changed digit or word, emptiness, noise."""
    family, seen = FAMILIES[name], list(draws(name, 100))
    refused = differing = 0
    for e, other in itertools.pairwise(seen):
        for wrong in ("", "I do not know.", "9" * 40):
            assert not family.grade(e, wrong), (e, wrong)
        if other.answer != e.answer and other.final != e.final:
            differing += 1
            refused += not family.grade(e, other.final)
        digits = [m.start() for m in re.finditer(r"\d", e.final)]
        for at in digits[-1:]:
            changed = e.final[:at] + str((int(e.final[at]) + 1) % 10) + e.final[at + 1 :]
            assert not family.grade(e, changed), (e, changed)
    for wrong in ("(" * 5000, "{" * 5000, '{"a":' * 5000, "-" * 5000, "\ud800", "\x00 7"):
        assert not family.grade(seen[0], wrong), wrong[:10]
    assert differing >= 30 and refused >= 0.97 * differing, (refused, differing)


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_bands_do_not_meet(name: str) -> None:
    keys: dict[str, set[str]] = {
        "train": {e.key for e in draws(name, 300, "low", "train")},
        "test": {e.key for e in draws(name, 100, "low", "test")},
        "size": {e.key for e in draws(name, 100, "low", "test", "size")},
    }
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["size"]
    assert all(split_of(k) == "test" for k in keys["test"] | keys["size"])
    assert not keys["size"] & {e.key for e in draws(name, 200, "low", "test", seed=9)}
    for band in BANDS[1:]:
        with pytest.raises(UsageError, match="for evaluation"):
            FAMILIES[name].example(random.Random(0), "low", "train", band=band)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_wordings_are_never_trained(name: str) -> None:
    """With the instance's own numbers and words taken out, no held-out question reads like a trained one."""

    def frame(prompt: str) -> str:
        return re.sub(r"[^a-z ]+", "", re.sub(r"\d+", "", prompt.lower()))

    trained = {frame(e.prompt) for e in draws(name, 400, "low", "train")}
    unseen = [frame(e.prompt) for e in draws(name, 60, "low", "test", "words")]
    assert not trained & set(unseen)


# Equations that mean something else: a residue, and the place of a cell.
UNCHECKED = {("modular", "medium"), ("sudoku", "medium")}


@pytest.mark.parametrize("name", NAMES)
def test_every_equation_of_the_teacher_holds(name: str) -> None:
    """Chains too: `2*9=18+1=19` says 2*9 = 18 and 18+1 = 19. Division drops the remainder."""
    for effort in EFFORTS:
        for e in () if (name, effort) in UNCHECKED else draws(name, 60, effort):
            for chain in re.findall(r"(?<![\w)*+-])[-+*/%\d]*\d(?:=-?[-+*/%\d]*\d)+", e.analysis_text):
                for left, right in itertools.pairwise(chain.split("=")):
                    result = re.match(r"-?\d+", right)
                    value = eval(
                        re.sub(r"\b0+(?=\d)", "", left.replace("/", "//"))
                    )  # digits and operators only
                    assert result and value == int(result[0]), (chain, e.analysis_text)


@pytest.mark.parametrize("name", NAMES)
def test_one_question_for_all_efforts(name: str) -> None:
    for i in range(40):
        three = [FAMILIES[name].example(random.Random(f"{name} {i}"), e, "test") for e in EFFORTS]
        assert len({(e.key, e.prompt, e.final, e.answer, e.level) for e in three}) == 1
        assert len({e.analysis_text for e in three}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_space_is_large(name: str) -> None:
    """Few of 1,000 draws repeat an earlier one, so that most of what is asked is new even in the training split."""
    n = 1000
    distinct = len({e.key for e in draws(name, n, "low", "train", seed=4)})
    assert distinct >= 0.8 * n, distinct


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_obeyed_and_reached(name: str) -> None:
    family = FAMILIES[name]
    assert {e.level for e in draws(name, 200)} == set(family.levels)
    assert {e.level for e in draws(name, 20, band="size")} == {family.beyond}
    assert family.beyond not in family.levels
    for level in family.levels:
        assert family.example(random.Random(level), "low", "train", level).level == level


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same(name: str) -> None:
    assert list(draws(name, 20)) == list(draws(name, 20)) != list(draws(name, 20, seed=2))


def test_a_lesson_is_a_conversation() -> None:
    e = FAMILIES["addition"].example(random.Random(1), "medium", "train")
    taught = lesson(e, "2026-01-02", "Be brief.")
    assert [m.role for m in taught.prompt.messages] == ["system", "developer", "user"]
    assert taught.prompt.messages[-1] == Message("user", e.prompt)
    assert [m.channel for m in taught.turn] == ["analysis", "final"]
    assert taught.turn[0].text == e.analysis_text and not taught.unlearned


def test_each_effort_writes_twice_as_much_as_the_one_below() -> None:
    """In pieces as a small vocabulary has them: words, single digits, signs. Twice over all that is measured, no task under 1.5,
    sums under 1.2: without their columns they are wrong at any length."""
    pieces = re.compile(r"[A-Za-z]+|\S")
    total = dict.fromkeys(EFFORTS, 0)
    for name in (*FAMILIES, *KNOWLEDGE):
        written = {
            effort: sum(
                len(pieces.findall(TASKS[name].example(random.Random(f"{i}"), effort, "train").analysis_text))
                for i in range(200)
            )
            for effort in EFFORTS
        }
        assert (
            written["medium"] >= 2 * written["low"]
            and written["high"] >= (1.2 if name == "addition" else 1.5) * written["medium"]
        ), (
            name,
            written,
        )
        total = {effort: total[effort] + written[effort] for effort in EFFORTS}
    assert total["medium"] >= 2 * total["low"] and total["high"] >= 2 * total["medium"], total


@pytest.mark.parametrize("name", NAMES)
def test_there_are_eight_wordings_or_more(name: str) -> None:
    """As templates, or as questions that differ when every name and number of the instance is taken out."""
    family = FAMILIES[name]
    if family.asks:
        assert len(family.unseen) >= 2 and len({*family.asks, *family.unseen}) >= 8
        return
    x, _, _ = family.instance(random.Random(3), "train")
    assert len({family.ask(random.Random(i), x, unseen) for i in range(200) for unseen in (False, True)}) >= 6


def test_lessons_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Every task by name, once at each effort, with what is taught marked; an unknown name is one sentence."""
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"== {name}\n" in out for name in (*TASKS, "text")) and out.count("-- high\n") == len(TASKS)
    assert main(["python", "--effort", "low", "--test"]) == 0
    out = capsys.readouterr().out
    assert "> assistant (analysis) to python: " in out and "-- high" not in out
    assert main(["nothing"]) == 2
    assert "There is no task 'nothing'; choose from" in capsys.readouterr().err

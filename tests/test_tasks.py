"""Tasks: teachers are right in every step they write, graders are exact, held-out instances stay held out."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace

import pytest

from motet.tasks import EFFORTS, MEASURED, TASKS, Effort, Example
from motet.tasks.base import HELD_OUT, last_integer, split_of
from motet.tasks.columns import add_columns, multiply_columns, signed_columns, subtract_columns
from motet.tasks.countdown import FAILURE, TRIES, attempts

CELLS = [(task, effort) for task in MEASURED for effort in EFFORTS]


def draw(task: str, effort: Effort, count: int = 300, seed: int = 5) -> list[Example]:
    """Examples of both splits."""
    rng = random.Random(f"{seed} {task} {effort}")
    return [TASKS[task].example(rng, effort, "test" if i % 3 == 0 else "train") for i in range(count)]


def value(expression: str) -> int:
    """An expression of integers, + - * % and parentheses; eval is safe behind the match."""
    assert re.fullmatch(r"[-+*%() \d]+", expression), expression
    return int(eval(expression))


@pytest.mark.parametrize(("task", "effort"), CELLS)
def test_the_teacher_is_right(task: str, effort: Effort) -> None:
    for example in draw(task, effort):
        gave_up = task == "countdown" and example.final == FAILURE
        assert TASKS[task].grade(example, example.final) is not gave_up, example


@pytest.mark.parametrize(("task", "effort"), CELLS)
def test_every_equation_of_the_trace_holds(task: str, effort: Effort) -> None:
    """Chains of = included: `2*9=18%7=4` says 2*9 = 18 and 18 % 7 = 4; `2+3=5+1=6` says 2+3 = 5 and 5+1 = 6."""
    seen = 0
    for example in draw(task, effort, 150):
        if task == "chains" and effort == "medium":
            continue  # `*3=5` has no left operand; covered by the replay below
        text = re.sub(r"^\d+\) |(?<= )\d+\) ", "", example.analysis_text)
        for chain in re.findall(r"[-\d+*%]+(?:=-?[-\d+*%]+)+", text):
            sides = chain.split("=")
            for left, right in itertools.pairwise(sides):
                result = re.match(r"-?\d+", right)
                assert result and value(left) == int(result[0]), (chain, example.analysis_text)
                seen += 1
    assert seen > 100 or effort == "low" or (task, effort) == ("chains", "medium")


def test_medium_chains_replay() -> None:
    for example in draw("chains", "medium"):
        p, x = map(int, example.key.split()[1:3])
        steps = re.findall(r"([*+-])(\d+)=(\d+)", example.analysis_text)
        assert "".join(o + n for o, n, _ in steps) == example.key.split()[3]
        for o, n, result in steps:
            x = value(f"({x}{o}{n})%{p}")
            assert x == int(result)
        assert x == int(example.final)


@pytest.mark.parametrize(("task", "effort"), CELLS)
def test_the_question_holds_the_instance(task: str, effort: Effort) -> None:
    """The grader's answer follows from the prompt's own numbers, not only from the teacher's."""
    for example in draw(task, effort, 100):
        numbers = sorted(map(int, re.findall(r"\d+", example.prompt)))
        expected = sorted(abs(int(n)) for n in re.findall(r"\d+", example.key))
        if task == "countdown":
            assert set(numbers) >= set(expected)
        else:
            assert numbers == expected, example


@pytest.mark.parametrize("task", MEASURED)
def test_wrong_answers_are_wrong(task: str) -> None:
    for example in draw(task, "high", 100):
        for wrong in ("", "I do not know.", "7.0", "import os", "9" * 40, "(" * 5000):
            assert not TASKS[task].grade(example, wrong)
        if task != "countdown":
            assert not TASKS[task].grade(example, str(int(example.answer) + 1))
            assert TASKS[task].grade(example, f"The answer is {int(example.answer):,}.")


def test_countdown_wants_each_number_once_and_no_other() -> None:
    example = Example("countdown", "low", "countdown 2 3 5 25", "", (), "", "2 3 5 25")
    grade = TASKS["countdown"].grade
    assert grade(example, "(2 + 3) * 5 = 25") and grade(example, "5 * (3 + 2)")
    for wrong in ("5 * 5", "25", "(2 + 3) * 5 + 0", "(2 + 3) * 5 * 1", "2 + 3 * 5", "(2 + 3) * 5.0", "5**2 + 0*3",
                  "(2+3)*True*5", "__import__('os')"):  # fmt: skip
        assert not grade(example, wrong), wrong


def test_countdown_attempts_are_legal() -> None:
    for way in attempts([3, 7, 12]):
        assert value(way.first) == way.middle and value(way.second) == value(way.expression) == way.value
        assert sorted(map(int, re.findall(r"\d+", way.expression))) == [3, 7, 12]


def test_countdown_effort_is_the_number_of_tries() -> None:
    for effort, limit in TRIES.items():
        tries = [len(re.findall(r"\d+\) ", e.analysis_text)) for e in draw("countdown", effort, 200)]
        assert max(tries) == limit


@pytest.mark.parametrize("task", MEASURED)
def test_splits_do_not_meet(task: str) -> None:
    rng = random.Random(3)
    train, test = ({TASKS[task].example(rng, "low", s).key for _ in range(300)} for s in ("train", "test"))
    assert train and test and not train & test
    assert all(split_of(key) == "test" for key in test)


def test_the_share_held_out() -> None:
    held = sum(split_of(f"key {i}") == "test" for i in range(20_000))
    assert abs(held / 20_000 - 1 / HELD_OUT) < 4 * (1 / HELD_OUT * (1 - 1 / HELD_OUT) / 20_000) ** 0.5


def test_the_split_knows_no_order_of_terms() -> None:
    """17+25 and 25+17, 12*13 and 13*12 are one instance."""
    for task in ("sums", "products"):
        keys: dict[tuple[int, ...], str] = {}
        for example in draw(task, "low", 2000):
            numbers = re.findall(r"\d+", example.prompt)
            if task == "products" or (len(numbers) == 2 and "+" in example.prompt):
                assert keys.setdefault(tuple(sorted(map(int, numbers))), example.key) == example.key


@pytest.mark.parametrize("task", list(TASKS))
def test_the_same_seed_asks_the_same(task: str) -> None:
    assert draw(task, "medium", 20) == draw(task, "medium", 20)
    assert draw(task, "medium", 20) != draw(task, "medium", 20, seed=6)


@pytest.mark.parametrize("task", MEASURED)
def test_more_effort_writes_more(task: str) -> None:
    low, medium, high = (sum(len(e.analysis_text) for e in draw(task, effort)) for effort in EFFORTS)
    assert low < medium < high


def test_columns_end_in_the_result() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        a, b, digit = rng.randrange(3000), rng.randrange(3000), rng.randrange(10)
        assert add_columns(a, b).endswith(f"so {a + b}")
        assert subtract_columns(max(a, b), min(a, b)).endswith(f"so {abs(a - b)}")
        assert signed_columns(a, "-", b).endswith(f"so {a - b}")
        assert multiply_columns(a, digit).endswith(f"so {a * digit}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The answer is 1,234.", 1234),
        ("3 + 4 = 7", 7),
        ("−5", -5),
        ("no number", None),
        ("12.5", None),
        ("5.", 5),
        ("1,234.5", None),
        ("3,4", 4),
        ("-12,345", -12345),
        ("10-5", 5),
        ("a = -7.", -7),
        ("12,34", 34),
    ],
)
def test_how_integers_are_read(text: str, found: int | None) -> None:
    assert last_integer(text) == found


def test_grading_sees_the_final_text_alone() -> None:
    """Another trace, another teacher's final: the grade does not move."""
    for example in draw("sums", "high", 50):
        other = replace(example, analysis=(("nonsense 1+1=3", True),), final="0")
        assert TASKS["sums"].grade(other, example.final)

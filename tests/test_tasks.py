"""Tasks: teachers are right in every step they write, graders are exact, held-out instances stay held out."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from motet.tasks import EFFORTS, MEASURED, TASKS, Effort, Example
from motet.tasks.base import HELD_OUT, last_integer, split_of
from motet.tasks.columns import add_columns, multiply_columns, signed_columns, subtract_columns


def draw(task: str, effort: Effort, count: int = 300, seed: int = 5) -> list[Example]:
    """Examples of both splits."""
    rng = random.Random(f"{seed} {task} {effort}")
    return [TASKS[task].example(rng, effort, "test" if i % 3 == 0 else "train") for i in range(count)]


@pytest.mark.parametrize("task", MEASURED)
def test_splits_do_not_meet(task: str) -> None:
    rng = random.Random(3)
    train, test = ({TASKS[task].example(rng, "low", s).key for _ in range(300)} for s in ("train", "test"))
    assert train and test and not train & test
    assert all(split_of(key) == "test" for key in test)


def test_the_share_held_out() -> None:
    held = sum(split_of(f"key {i}") == "test" for i in range(20_000))
    assert abs(held / 20_000 - 1 / HELD_OUT) < 4 * (1 / HELD_OUT * (1 - 1 / HELD_OUT) / 20_000) ** 0.5


def test_the_split_knows_no_order_of_factors() -> None:
    """12*13 and 13*12 are one instance."""
    keys: dict[tuple[int, ...], str] = {}
    for example in draw("multiplication", "low", 2000):
        numbers = tuple(sorted(map(int, re.findall(r"\d+", example.prompt))))
        assert keys.setdefault(numbers, example.key) == example.key


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
    for example in draw("addition", "high", 50):
        other = replace(example, analysis=(("nonsense 1+1=3", True),), final="0")
        assert TASKS["addition"].grade(other, example.final)

"""Drafts by prompt lookup against the definition, and that guessing stops where it does not pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from motet.engine.speculate import GRAM, LONGEST, Cost, Drafter


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 12))
def test_a_draft_is_what_followed_the_latest_standing_of_the_last_three(ids: list[int], room: int) -> None:
    drafter = Drafter()
    drafter.hits = 1.0
    for n in range(10, len(ids)):
        drafter.draft(ids[:n], 0.5, 1)
    want: list[int] = []
    for at in range(len(ids) - GRAM - 1, -1, -1):
        if ids[at : at + GRAM] == ids[-GRAM:]:
            want = ids[at + GRAM : at + GRAM + min(room, LONGEST)]
            break
    assert drafter.draft(ids, 0.5, room) == want


def test_a_long_prompt_is_read_a_part_at_a_time() -> None:
    drafter, ids = Drafter(), [1, 2, 3, 4] * 1000
    drafts = [drafter.draft(ids, 0.1, 1) for _ in range(5)]
    assert drafts == [[], [], [], [1], [1]]


def test_guessing_that_fails_is_switched_off_and_tried_again_now_and_then() -> None:
    drafter, guesses = Drafter(), []
    ids = [1, 2, 3, 4] * 4
    for n in range(3000):
        drafted = drafter.draft(ids, 0.4, 100)
        drafter.learn(len(drafted), 0)
        guesses += [n] if drafted else []
        ids.append(1 + n % 4)
    assert len(guesses) < 40
    assert guesses[-1] > 1000


def test_guessing_that_comes_true_uses_long_drafts() -> None:
    drafter, lengths = Drafter(), []
    ids = [1, 2, 3, 4] * 4
    for _ in range(40):
        drafted = drafter.draft(ids, 0.4, 100)
        drafter.learn(len(drafted), len(drafted))
        lengths.append(len(drafted))
        ids += ([1, 2, 3, 4] * 3)[: len(drafted) + 1]
    assert lengths[0] == 1 and max(lengths) == LONGEST


def test_the_cost_of_a_row_is_learnt_from_steps() -> None:
    cost = Cost()
    assert cost.row(1) == 1 / 3
    for n in range(200):
        cost.note(1 + n % 4, 0.05 + 0.02 * (1 + n % 4))
    assert abs(cost.row(1) - 0.02 / 0.07) < 1e-6 and abs(cost.row(4) - 0.02 / 0.13) < 1e-6

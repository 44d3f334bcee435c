"""The malformed corpus: every form becomes what its case says, in pieces or at once, and the page in docs says the same."""

from __future__ import annotations

import pytest

from harmony_corpus import CORPUS, PAGE, E, ids, page
from motet.harmony import MessageStart, fold, parse, visible
from motet.harmony.events import REASONS, REPAIRS
from test_harmony_parse import check


@pytest.mark.parametrize("name", CORPUS)
def test_each_form_becomes_what_its_case_says(name: str) -> None:
    c = CORPUS[name]
    events = parse(ids(c.text), E)
    out = fold(events)
    assert (out.final, out.analysis) == (c.final, c.analysis)
    assert tuple(t.recipient for t in out.tool_calls) == c.calls
    assert tuple(q.reason for q in out.quarantined) == c.reasons
    assert tuple(r for e in events if isinstance(e, MessageStart) for r in e.repairs) == c.repairs
    assert c.why
    check(ids(c.text))
    seen = fold(visible(events))
    assert seen.final == c.final and not seen.analysis and not seen.tool_calls


def test_the_page_says_what_both_parsers_do() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.harmony_corpus > docs/malformed.md"


def test_every_diagnosis_has_a_case_or_a_test() -> None:
    assert {r for c in CORPUS.values() for r in c.reasons} | {"bad_content_type", "no_role"} == set(REASONS)
    assert {r for c in CORPUS.values() for r in c.repairs} | {"doubled_role", "no_markup"} == set(REPAIRS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|channel|>final <|constrain|>j(s<|message|>x<|end|>", "bad_content_type"),
        ("<|end|><|start|><|message|>x<|end|>", "no_role"),
    ],
)
def test_the_remaining_reasons(text: str, reason: str) -> None:
    assert reason in [q.reason for q in fold(parse(ids(text), E)).quarantined]


def test_a_role_said_twice_is_one() -> None:
    (start,) = [
        e for e in parse(ids("assistant<|channel|>final<|message|>x"), E) if isinstance(e, MessageStart)
    ]
    assert start.repairs == ("doubled_role",) and start.channel == "final"


@pytest.mark.parametrize("n", [1_000, 100_000])
def test_a_very_long_header_is_quarantined_whole(n: int) -> None:
    words = E.encode(" word") * n
    for before, after in (
        ("<|channel|>final", "<|message|>x<|end|>"),
        ("", "<|end|>"),
        ("<|channel|>commentary to=functions.f", ""),
    ):
        sequence = [*ids(before), *words, *ids(after)]
        out = fold(parse(sequence, E))
        assert [len(q.ids) for q in out.quarantined] == [len(sequence)] and not out.messages

"""Every case of Open Responses and of OpenAI's compatibility test, and the page that says so."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

import conformance
from conformance import (
    CASES,
    OPEN_RESPONSES,
    PAGE,
    RESPONSE,
    WAYS,
    Open,
    Server,
    compatible,
    event_faults,
    faults,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with conformance.ours() as served:
        yield served


@pytest.mark.parametrize("case", OPEN_RESPONSES, ids=lambda c: c.id)
def test_open_responses(server: Server, case: Open) -> None:
    result, note = case.judge(server)
    row = f"| `{case.id}` | {result} | {note} |"
    assert row in PAGE.read_text(), "docs/conformance.md is old; run python -m tests.conformance --write"


@pytest.mark.parametrize("way", WAYS)
def test_compatibility(server: Server, way: str) -> None:
    page = PAGE.read_text()
    for id_, name, question, expected in CASES:
        compatible(server, way, name, question, expected)
        assert f"| `{id_}` | passes | passes | passes | passes |" in page, id_


def test_the_page_claims_no_case_that_is_not_here() -> None:
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [c.id for c in OPEN_RESPONSES] + [c[0] for c in CASES]


def test_the_judges_find_what_is_wrong(server: Server) -> None:
    """A suite that lets everything pass would look the same on the page."""
    body = {"input": "What is 12 * 13?", "seed": 1}
    good, events = server.whole("responses", body), server.events("responses", body)
    assert not faults(good, RESPONSE, "response") and not event_faults(events)
    for field in RESPONSE["required"]:
        assert faults({k: v for k, v in good.items() if k != field}, RESPONSE, "response"), field
    for n in range(len(events)):
        assert event_faults(events[:n] + events[n + 1 :]), events[n]["type"]
    for event in (e for k, e in enumerate(events) if events[k - 1]["type"] != e["type"]):
        for field in event:
            if field not in ("name", "phase"):
                broken = copy.deepcopy(events)
                del broken[event["sequence_number"]][field]
                assert event_faults(broken), (event["type"], field)
    with pytest.raises(AssertionError, match="arguments are"):
        compatible(server, "chat", "get_weather", "How is the weather in Lima?", {"location": "Rome"})
    with pytest.raises((AssertionError, KeyError)):
        compatible(server, "chat", "get_weather", "What is 12 * 13?", {})

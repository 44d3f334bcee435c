"""The router study: doctored routers are caught, mini passes; measures of load against values worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import motet
from motet.engine import Engine
from motet.errors import UsageError
from motet.model import Model
from motet.monitor.load import always, collapsed, load
from motet.study.report import Report
from motet.study.router import Plan, judge, study, unevenness
from motet.study.router_planted import PLANTED, doctored
from motet.study.routing import Text, logits_of, routing, tapped
from motet.study.subject import Native, Remote
from motet.tasks import Effort

PLAN = Plan(("addition", "target"), ("low", "high"), questions=3, max_tokens=300)


@pytest.fixture(scope="module")
def mini() -> Model:
    return motet.load("mini", threads=1)


@pytest.fixture(scope="module")
def subject(mini: Model) -> Iterator[Native]:
    with Engine(mini, max_batch=4) as engine:
        yield Native(engine, mini.encoding, "mini", width=4)


@pytest.fixture(scope="module")
def texts(subject: Native, mini: Model) -> list[Text]:
    from motet.harmony import Conversation
    from motet.study.questions import held_out
    from motet.study.subject import Ask, collect

    efforts: tuple[tuple[Effort, int], ...] = (("high", 8), ("low", 50))
    asked = [(effort, e) for effort, n in efforts for e in held_out("addition", effort, n)]
    asks = [
        Ask(Conversation.from_chat([{"role": "user", "content": e.prompt}], effort=effort), max_tokens=200)
        for effort, e in asked
    ]
    replies = collect(subject, asks)
    return [
        Text(r.ids, r.spans, effort, "addition") for (effort, _), r in zip(asked, replies, strict=True) if r
    ]


def failed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.passed is False}


def test_mini_passes_and_says_where_it_looked(subject: Native, mini: Model) -> None:
    report = study(subject, mini, PLAN, motet.load("mini", precision="float32", threads=1))
    assert report.passed and report.complete and len(report.checks) == 10
    by = {t.title: t for t in report.tables}
    assert {r["channel"] for r in by["By channel"].rows} == {"prompt", "analysis", "markup", "final"}
    assert sum(r["tokens"] for r in by["By effort"].rows) == report.data["tokens"]
    counts = np.array(report.data["counts"])
    assert (counts.sum(1) == report.data["tokens"] * mini.config.experts_per_token).all()
    assert all(0 < r["churn"] < 0.2 for r in by["By layer"].rows)
    for row in by["By channel"].rows:  # intervals by text, which hold what they are about
        assert row["CV"].low <= row["CV"].value <= row["CV"].high < row["CV"].value + 0.5
        assert 0 <= row["churn"].low <= row["churn"].value <= row["churn"].high < 0.3
    assert report.html().count("<svg") == 3 and report.json()["tables"]


@pytest.mark.parametrize("how", PLANTED)
def test_doctored_routers_are_caught(how: str, mini: Model, texts: list[Text]) -> None:
    report = Report("router", "", {}, {})
    judge(routing(doctored(mini, how), texts), report)
    assert failed(report) >= PLANTED[how].fails


def test_the_same_texts_pass_with_the_routers_as_they_are(mini: Model, texts: list[Text]) -> None:
    report = Report("router", "", {}, {})
    judge(routing(mini, texts), report)
    assert not failed(report)


def test_what_is_tapped_is_what_the_engine_records(mini: Model, texts: list[Text]) -> None:
    """The choices of the study are those of the engine's own record, position by position."""
    with Engine(mini, max_batch=1, record_routes=True) as engine:
        ids = list(texts[0].ids)
        request = engine.submit(ids, motet.SamplingParams(max_tokens=1, temperature=0))
        list(request)
        theirs = request.routes()
    ours = routing(mini, [Text(ids, (), "high", "addition")]).chosen
    assert (np.sort(theirs[: len(ids)], -1) == np.sort(ours, -1)).all()
    with tapped(mini, lambda y: None), pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    assert mini.tap is None  # also after an error


def test_routing_of_one_text_does_not_depend_on_chunks(mini: Model, texts: list[Text]) -> None:
    from motet.study import routing as module

    whole, before = logits_of(mini, texts[0].ids), module.CHUNK
    module.CHUNK = 7
    try:
        assert np.array_equal(whole, logits_of(mini, texts[0].ids))
    finally:
        module.CHUNK = before


def test_measures_of_load() -> None:
    even = load(np.full((1, 4), 10))
    assert (even.cv[0], even.max_violation[0], even.gini[0], even.dead[0]) == (0, 0, 0, 0)
    assert even.entropy[0] == pytest.approx(1) and even.effective[0] == pytest.approx(4)
    one = load(np.array([[40, 0, 0, 0]]))
    assert (
        one.cv[0] == pytest.approx(3**0.5)
        and one.max_violation[0] == 3
        and one.gini[0] == pytest.approx(0.75)
    )
    assert one.effective[0] == pytest.approx(1) and one.dead[0] == 3 and collapsed(one, 4)[0]
    half = load(np.array([[3, 1]]))  # by hand: sd 1, mean 2; -(.75 ln .75 + .25 ln .25) / ln 2
    assert half.cv[0] == 0.5 and half.entropy[0] == pytest.approx(0.8112781)
    assert load(np.array([[5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])).hot[0] == 0
    assert load(np.array([[50, *[1] * 15]])).hot[0] == 1
    assert always(np.array([[10, 5, 5]]), 2)[0] == 1.0
    assert np.isnan(load(np.zeros((1, 4))).cv[0]) and not collapsed(load(np.zeros((1, 4))), 4)[0]


def test_intervals_of_load_shrink_with_texts_not_with_tokens(mini: Model, texts: list[Text]) -> None:
    few, many = routing(mini, texts[:6]), routing(mini, texts[:6] * 8)
    whole = np.ones(len(few.channel), bool)
    once, copied = unevenness(few, whole)[1], unevenness(many, np.tile(whole, 8))[1]
    assert once.value == pytest.approx(copied.value) and copied.high - copied.low < once.high - once.low
    assert (few.counts_by_text(whole).sum(0) == few.counts()).all() and len(few.counts_by_text(whole)) == 6


def test_a_remote_model_has_no_routers_to_look_at() -> None:
    with pytest.raises(UsageError, match="shows no routers"):
        study(Remote("http://127.0.0.1:9/v1", "m"), None, PLAN)

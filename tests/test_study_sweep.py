"""The effort sweep: every planted defect is caught by its check, the clean subject passes; statistics against known values."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest

import motet
from motet.engine import Engine
from motet.errors import UsageError, UserError
from motet.harmony import Conversation
from motet.study import plots, stats
from motet.study.played import hear, player, speaks
from motet.study.questions import held_out
from motet.study.report import Check, Plot, Report, Table
from motet.study.subject import Ask, Native, Remote, collect, weights_hash
from motet.study.sweep import Plan, sweep
from motet.study.sweep_planted import PLANTED, planted
from serving import serving

TASKS = ("addition", "modular")


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_caught_and_the_clean_case_passes(name: str) -> None:
    plan = Plan(TASKS, questions=20, max_tokens=6000 if name.startswith("looping, ") else 300)
    report = sweep(planted(name, TASKS, plan.questions), plan)
    failed = [c.name for c in report.checks if c.passed is False]
    wanted = PLANTED[name].fails
    assert report.complete and (not failed if wanted is None else any(f.startswith(wanted) for f in failed))
    assert report.passed is (wanted is None)


def test_a_report_says_what_it_measured(tmp_path: Path) -> None:
    plan = Plan(TASKS, questions=6, seeds=2, budgets=(None, 8), max_tokens=300)
    report = sweep(planted("clean", TASKS, 6), plan)
    paths = report.save(tmp_path)
    read = json.loads(paths[0].read_text())
    for table in read["tables"]:
        assert all(row["harness"] == report.harness for row in table["rows"])
    assert {"model", "motet", "sampler", "prompts", "grammar"} <= set(read["identity"])
    whole = next(t for t in read["tables"] if t["title"].startswith("By task"))["rows"]
    assert {(r["task"], r["effort"], r["budget"]) for r in whole} == {
        (t, e, b) for t in TASKS for e in ("low", "medium", "high") for b in (None, 8)
    }
    assert all(0 <= r["pass@2"] <= 1 for r in whole)
    page = paths[1].read_text()
    assert page.count("<svg") == 2 and "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in page and "<script" not in page


def test_another_prompt_or_sampler_is_another_harness() -> None:
    plan = Plan(TASKS, questions=2, max_tokens=300)
    one = sweep(planted("clean", TASKS, 2), plan).harness
    assert one == sweep(planted("clean", TASKS, 2), plan).harness
    assert (
        one
        != sweep(
            planted("clean", TASKS, 2), Plan(TASKS, questions=2, max_tokens=300, temperature=0.5)
        ).harness
    )
    assert (
        one
        != sweep(planted("clean", TASKS, 2), Plan(TASKS, questions=2, max_tokens=300, padding="hm ")).harness
    )


def test_on_mini_native_and_through_a_server_with_the_same_answers() -> None:
    model = motet.load("mini", threads=1)
    plan = Plan(("addition",), ("low", "high"), questions=3, max_tokens=400, temperature=0.0)
    with Engine(model, max_batch=4) as engine:
        own = sweep(Native(engine, model.encoding, "mini", width=4), plan)
        with serving(engine, name="mini", encoding=model.encoding) as served:
            theirs = sweep(Remote(f"{served.url}/v1", "mini", width=4), plan)
            with pytest.raises(UserError, match="404"):
                sweep(Remote(f"{served.url}/v1", "other"), plan)
    assert own.complete and theirs.complete
    for a, b in zip(own.tables[0].rows, theirs.tables[0].rows, strict=True):
        assert a["accuracy"] == b["accuracy"]
        # the server hides thinking from callers who may not see it, but counts it
        assert a["analysis tokens"] == pytest.approx(b["analysis tokens"], abs=6)
    assert own.identity["weights"] == weights_hash(model.folder) and theirs.identity["url"].startswith("http")


def test_stopped_early_keeps_what_is_done() -> None:
    stop = threading.Event()

    def enough(done: int, total: int) -> None:
        if done >= 5:
            stop.set()

    plan = Plan(TASKS, questions=20, max_tokens=300)
    report = sweep(planted("clean", TASKS, 20), plan, enough, stop)
    assert not report.complete and sum(r["n"] for r in report.tables[0].rows) >= 5
    assert not sweep(
        planted("clean", TASKS, 20), plan, stop=stop
    ).tables  # before the first: a report without figures


def test_a_failing_subject_is_said() -> None:
    def breaks(heard: object) -> str:
        raise UserError("The model is gone.")

    asks = [Ask(Conversation.from_chat([{"role": "user", "content": "q"}]), n) for n in range(20)]
    with pytest.raises(UserError, match="gone"):
        collect(player("broken", breaks), asks)
    with pytest.raises(UserError, match="check the URL"):
        collect(Remote("http://127.0.0.1:9/v1", "m", timeout_s=1.0), asks[:1])
    with pytest.raises(UsageError, match="no task 'x'; use"):
        sweep(player("x", lambda h: ""), Plan(("addition",)).__class__(("x",)))


def test_players_hear_what_was_said() -> None:
    heard = []
    said = [{"role": "developer", "content": "Rule."}, {"role": "user", "content": "a <b>?"}]
    ask = Ask(Conversation.from_chat(said, effort="high"), seed=3)
    out = collect(player("p", lambda h: heard.append(h) or speaks("hm", "yes")), [ask])[0]
    assert heard[0].effort == "high" and heard[0].seed == 3 and heard[0].last("user") == "a <b>?"
    assert "Rule." in heard[0].last("developer") and heard[0].last("tool") == ""
    assert out is not None and (out.final, out.analysis, out.finish) == ("yes", "hm", "stop")
    assert {t for t, _, _ in out.spans} >= {"prompt", "analysis", "final"} and out.spans[-1][2] == len(
        out.ids
    )
    assert hear("nothing", 0).messages == ()


def test_held_out_questions_are_the_same_at_every_effort() -> None:
    low, high = held_out("target", "low", 10), held_out("target", "high", 10)
    assert [e.prompt for e in low] == [e.prompt for e in high] and len({e.key for e in low}) == 10


def test_intervals() -> None:
    w = stats.wilson(8, 10)  # textbook value
    assert (round(w.low, 4), round(w.high, 4)) == (0.4902, 0.9433)
    assert stats.wilson(0, 0).high == 1.0 and stats.wilson(0, 50).low == 0.0
    # repeats of a question that agree with each other add nothing
    rng = np.random.default_rng(1)
    rights = (rng.random(40) < 0.6).astype(float)
    once = stats.clustered_mean(rights, range(40))
    often = stats.clustered_mean(np.repeat(rights, 8), np.repeat(np.arange(40), 8).tolist())
    assert math.isclose(once.low, often.low) and math.isclose(once.high, often.high)
    naive = stats.clustered_mean(np.repeat(rights, 8), range(320))
    assert naive.high - naive.low < 0.5 * (often.high - often.low)
    assert stats.clustered_mean([1.0] * 30, range(30)).low < 0.9


def test_tests_of_order() -> None:
    assert stats.sign_test([-1] * 5) == pytest.approx(1 / 32) and stats.sign_test([1] * 5) == 1.0
    assert stats.sign_test([0, 0]) == 1.0
    assert stats.permutation_test([1.0] * 12) < 0.01 and stats.permutation_test([-1.0] * 12) > 0.9
    assert stats.fewer(1, 4, 5, 6) == pytest.approx(25 / 210) and stats.fewer(4, 4, 6, 6) == 1.0  # by hand
    assert stats.auc([1, 2], [3, 4]) == 1.0 and stats.auc([1, 1], [1, 1]) == 0.5
    fit = stats.line([0, 1, 2], [0.1, 0.3, 0.5])
    assert fit.slope == pytest.approx(0.2) and fit.r2 == pytest.approx(1.0)
    assert math.isnan(stats.line([1, 1], [0, 1]).slope)


def test_intervals_cover() -> None:
    """Of 400 drawn samples the share whose interval holds the truth: 95 % give or take its own error (sd 1.1 %)."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        p = 0.7
        w = stats.wilson(int(rng.binomial(60, p)), 60)
        held += w.low <= p <= w.high
    assert 0.91 <= held / 400 <= 0.985


def test_a_page_escapes_what_models_say() -> None:
    evil = "<script>alert(1)</script>"
    page = Report(
        "x", evil, {"model": evil}, {"s": evil}, [Table(evil, [{evil: evil}], evil)], [Check(evil, None, evil, evil, evil)],
        [Plot(evil, plots.heat(np.eye(2), ["a", "b"], "x", "s"), evil)],
    ).html()  # fmt: skip
    assert "<script" not in page and page.count("&lt;script") >= 9

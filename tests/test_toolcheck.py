"""The tool check: the scripted policy passes with real tools, each planted defect is found by its name, rates add up."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.engine import SamplingParams
from motet.errors import UsageError
from motet.harmony import PYTHON, Conversation, Namespace, render
from motet.study.planted import PLANTED
from motet.study.scripted import ScriptedEngine, answer, call_python, think
from motet.study.spans import FAULTS, Stretch, check
from motet.study.toolcheck import Attempt, Report, all_of, at_least_one, toolcheck
from motet.tokenizer import o200k_harmony

E = o200k_harmony()


def test_the_scripted_policy_passes_everything() -> None:
    report = toolcheck(None, E)
    assert report.passed, report.json()["faults"] or [
        (a.scenario, a.finals) for a in report.attempts if not a.passed
    ]
    assert report.rates() == {
        "schema_valid": 1.0, "right_tool": 1.0, "right_argument": 1.0, "answer_right": 1.0, "end_to_end": 1.0,
        "malformed_headers": 0.0, "undeclared_calls": 0.0,
    }  # fmt: skip
    assert [a.calls for a in report.attempts] == [1, 2, 1, 2, 4, 1, 0]
    json.dumps(report.json())


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found(defect: str) -> None:
    report = toolcheck(None, E, defect=defect)
    assert not report.passed
    found = {f.code for a in report.attempts for f in a.faults}
    assert PLANTED[defect].fault in found
    assert found <= set(FAULTS)


def test_the_faults_have_a_defect_each() -> None:
    """What no defect raises is not known to be found. The last three are raised below."""
    raised = {p.fault for p in PLANTED.values()} | {"content_type", "stray", "after_final"}
    assert set(FAULTS) == raised


def faults(*said: str, spaces: tuple[Namespace, ...] = (PYTHON,)) -> set[str]:
    prompt = tuple(render(Conversation.from_chat([{"role": "user", "content": "q"}]), E))
    stretch = Stretch(prompt, tuple(E.encode_with_special("".join(said))))
    return {f.code for f in check([[stretch]], {n.name: n for n in spaces}, E).faults}


def test_rules_one_by_one() -> None:
    assert faults(think("hm"), answer("x")) == set()
    assert faults(answer("x") + "junk") == {"stray"}
    assert faults("<|channel|>final<|message|>x<|end|><|start|>assistant", answer("y")) == {
        "wrong_stop",
        "after_final",
    }
    assert "malformed_header" in faults("<|channel|>analysis to=python to=python<|message|>1<|call|>")
    assert "no_final" in faults(call_python("1"))
    # markers that ordinary tokens spell are no markers
    prompt = tuple(render(Conversation.from_chat([{"role": "user", "content": "q"}]), E))
    typed = Stretch(prompt, tuple(E.encode("<|channel|>final<|message|>x<|return|>")))
    assert "malformed_header" in {f.code for f in check([[typed]], {}, E).faults}
    weather = '<|channel|>commentary to=functions.f <|constrain|>xml<|message|>{"a": 1}<|call|>'
    from motet.harmony import Function

    assert "content_type" in faults(
        weather, spaces=(Namespace("functions", None, (Function("f", "", {"type": "object"}),)),)
    )


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(199_998, 200_020)), max_size=40))
def test_any_tokens_are_judged(ids: list[int]) -> None:
    found = check([[Stretch((), tuple(ids))]], {"python": PYTHON}, E).faults
    assert {f.code for f in found} <= set(FAULTS)


def test_rates_of_attempts() -> None:
    assert [at_least_one(4, 2, k) for k in (1, 2, 3)] == [0.5, pytest.approx(5 / 6), 1.0]
    assert [all_of(4, 2, k) for k in (1, 2, 3)] == [0.5, pytest.approx(1 / 6), 0.0]
    good = Attempt("a", True, True, True, True, True, 2, 0, 4, (), ("x",))
    bad = Attempt("a", False, False, True, False, False, 2, 1, 4, (), ("x",))
    out = Report((good, bad)).json()
    assert out["scenarios"]["a"]["pass@k"] == {1: 0.5, 2: 1.0} and out["scenarios"]["a"]["pass^k"] == {
        1: 0.5,
        2: 0.0,
    }
    assert out["rates"]["undeclared_calls"] == 0.25 and out["rates"]["end_to_end"] == 0.5


def test_the_script_is_played_token_by_token() -> None:
    engine = ScriptedEngine(E, {"q": [answer("one two three")]})
    ids = render(Conversation.from_chat([{"role": "user", "content": "q"}]), E)
    out = list(engine.stream(ids, SamplingParams(max_tokens=4)))
    assert [o.finish for o in out] == [None, None, None, "length"]
    whole = list(engine.stream(ids, SamplingParams()))
    assert E.decode([o.token for o in whole]) == answer("one two three") and whole[-1].finish == "stop"
    assert "nothing to say" in E.decode([o.token for o in engine.stream(ids[:-20], SamplingParams())])


def test_unknown_names_are_said() -> None:
    with pytest.raises(UsageError, match="no scenario 'x'; use python"):
        toolcheck(None, E, only=["x"])
    with pytest.raises(UsageError, match="no defect 'x' to plant"):
        toolcheck(None, E, defect="x")

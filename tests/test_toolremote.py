"""The tool check through a server: a model that plays well passes, each planted fault is named, nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from motet.errors import UsageError, UserError
from motet.study.scenarios import SCENARIOS
from motet.study.scripted import ScriptedEngine
from motet.study.subject import Remote
from motet.study.toolremote import toolremote
from motet.study.toolreport import common
from serving import E, Script, serving

ONLY = ("function", "nested", "plain")
SCRIPTS = {q: steps for s in SCENARIOS for q, steps in s.scripts.items()}
SPOILED: dict[str, tuple[str, str, str]] = {  # what is said, what instead, and the fault
    "unknown tool": ("functions.weather", "functions.forecast", "unknown_tool"),
    "broken JSON": ('"fahrenheit"}', '"fahrenheit"', "broken_json"),
    "wrong argument": ('"fahrenheit"', '"kelvin"', "schema"),
    "no answer": ("It is 42.", "", "no_final"),
    "markup in the answer": ("It is 42.", "assistantfinal It is 42.", "control_token"),
}


def server(spoil: Callable[[str], str] = lambda text: text) -> Script:
    """An engine that plays the scripts of the conversations, with what `spoil` makes of them."""
    policy = ScriptedEngine(E, SCRIPTS)
    return Script(lambda prompt: spoil(policy.says(E.encode_with_special(prompt))), free=True)


def test_a_model_that_plays_well_passes() -> None:
    with serving(server()) as served:
        held = toolremote(Remote(f"{served.url}/v1", "scripted"), attempts=2, only=ONLY)
    assert held.passed and len(held.attempts) == 6 and {a.calls for a in held.attempts} == {0, 1}
    assert common(held, {}, {}).passed


@pytest.mark.parametrize("name", SPOILED)
def test_planted_faults_are_named_and_nothing_else(name: str) -> None:
    said, instead, fault = SPOILED[name]
    with serving(server(lambda text: text.replace(said, instead))) as served:
        held = toolremote(Remote(f"{served.url}/v1", "scripted"), only=("function", "plain"))
    found = {f.code for a in held.attempts for f in a.faults}
    assert fault in found and found <= {fault, "no_final"} and not held.passed
    assert sum(a.passed for a in held.attempts) == 1


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(UsageError, match="no scenario 'x'; use python"):
        toolremote(Remote("http://127.0.0.1:9/v1", "m"), only=("x",))
    with pytest.raises(UserError, match="check the URL"):
        toolremote(Remote("http://127.0.0.1:9/v1", "m", timeout_s=1.0), only=("plain",))

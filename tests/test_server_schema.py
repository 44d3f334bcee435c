"""schemathesis against /openapi.json: legal and broken requests made from our schemas; every answer fits what is written there, none is a 500.

What it cannot guess (the model's name, ids of what is kept, messages that follow on each other) is put into half of its requests,
so that the other fields reach the engine.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from motet.server.files import File
from motet.server.settings import Settings
from motet.server.store import Record
from serving import Script, Served, serving

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode, checks  # noqa: E402
from schemathesis.core.failures import FailureGroup  # noqa: E402
from schemathesis.specs.openapi import checks as openapi  # noqa: E402

FULL = os.environ.get("MOTET_FUZZ") == "full"
EXAMPLES = 1000 if FULL else 24
FINAL = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>fine<|return|>"
_NUMBERS = itertools.count()
CHECKS = [checks.not_a_server_error, openapi.status_code_conformance, openapi.content_type_conformance,
          openapi.response_headers_conformance, openapi.response_schema_conformance]  # fmt: skip
MODES = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
KEEP = {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "tools": None, "tool_choice": None,
        "response_format": None, "text": None, "truncation": None, "service_tier": None, "previous_response_id": None,
        "include": None, "logit_bias": None, "reasoning": None, "stream_options": None}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Script(lambda _: FINAL), Settings(port=0, store="sqlite://"), "m") as served:
        yield served


def with_file(served: Served, id: str) -> None:
    """A stored response that has made a file, as a run with a sandbox would leave it."""
    store = served.host.store
    assert store is not None
    record = Record(id, "", {"id": id, "status": "completed", "created_at": 0, "output": []}, [])
    store.begin(record)
    store.end(record, [File(f"cfile_{id}", f"cntr_{id}", "t.csv", "text/csv", 3, 0.0, b"a,b")], 1 << 20)


def guide(case: Any, kept: str, known: frozenset[str]) -> None:
    """Puts what cannot be guessed where it belongs; `known` are the fields that are left to chance no longer."""
    for name, value in (("response_id", kept), ("conversation_id", kept), ("container_id", f"cntr_{kept}"),
                        ("file_id", f"cfile_{kept}"), ("name", "m")):  # fmt: skip
        if case.path_parameters and name in case.path_parameters:
            case.path_parameters[name] = value
    if isinstance(case.body, dict) and case.path == "/tokenize":
        case.body = {"prompt": "hi"}  # one of two fields, and not both
    if isinstance(case.body, dict) and case.path.startswith("/v1/"):
        other = "input" if "chat" in case.path else "messages"  # refused: it belongs to the other API
        case.body |= {"model": "m"} | {k: v for k, v in KEEP.items() if k in known and k != other}


def _ask(served: Served, operation: Any, seen: Counter[int]) -> None:
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES))
    fields = st.just(frozenset(KEEP)) | st.frozensets(st.sampled_from(sorted(KEEP)))

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=not FULL, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=cases, steer=st.booleans(), known=fields)
    def ask(case: Any, steer: bool, known: frozenset[str]) -> None:
        if steer:
            kept = (
                served.client().responses.create(model="m", input="hi", background=True).id
                if case.path_parameters
                else ""
            )
            if "container_id" in (case.path_parameters or {}):
                kept = f"resp_{next(_NUMBERS)}"
                with_file(served, kept)
            guide(case, kept, known)
        seen[case.call_and_validate(checks=CHECKS, timeout=30).status_code] += 1

    ask()


def test_every_answer_fits_its_schema(served: Served) -> None:
    """Each operation by itself; what is wrong with any is said at once."""
    api = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    wrong: list[str] = []
    statuses: dict[str, Counter[int]] = {}
    for found in api.get_all_operations():
        operation = found.ok()
        statuses[operation.label] = Counter()
        try:
            _ask(served, operation, statuses[operation.label])
        except FailureGroup as e:
            wrong += [f"{operation.label}: {one}" for one in e.exceptions]
    assert not wrong, "\n\n".join(wrong)
    never = [label for label, seen in statuses.items() if not seen[200]]
    assert len(statuses) > 15 and not never, statuses

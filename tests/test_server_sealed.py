"""Encrypted thinking: carried by a caller who keeps no conversation here, read by nobody but the model, and by no other key."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from folding import fold_events, summed
from motet.server import auth
from motet.server.sealed import Vault
from motet.server.settings import Settings
from serving import E, Script, serving
from test_server_responses import CALL, FINAL, THINK, TOOLS
from test_server_tools import PYTHON, cell, needs_sandbox

WANTED: list[Any] = ["reasoning.encrypted_content"]
ODD = THINK + ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>'
HI: Any = {"role": "user", "content": "hi"}


def ask(client: OpenAI, items: Any, **more: Any) -> Any:
    more = {"tools": TOOLS, "include": WANTED, "store": False} | more
    return client.responses.create(model="scripted", input=items, **more)


def carried(response: Any) -> list[Any]:
    """The output as a client sends it back."""
    return [i.model_dump(exclude_none=True) for i in response.output]


def answered(response: Any) -> Any:
    return {"type": "function_call_output", "call_id": response.output[-1].call_id, "output": "5"}


@pytest.mark.parametrize("thinking", ["show", "summary", "hide"])
def test_the_model_goes_on_with_its_own_tokens(thinking: str) -> None:
    engine = Script([ODD, THINK + CALL, FINAL], free=True)
    with serving(engine, Settings(port=0, store="none", thinking=thinking)) as served:
        client = served.client()
        events = list(ask(client, [HI], stream=True))
        first = events[-1].response
        assert fold_events(events) == summed(first.output)
        assert [i.type for i in first.output] == ["reasoning", "function_call"]
        seal = first.output[0].encrypted_content
        assert seal and "canary" not in base64.urlsafe_b64decode(seal).decode("latin-1")
        said = "".join(e.model_dump_json() for e in events)
        assert ("canary" in said) == (thinking == "show")
        history = [HI, *carried(first), answered(first)]
        second = ask(client, history)
        sampled = E.encode_with_special(THINK)
        n = len(engine.prompts[0])
        assert engine.prompts[1][: n + len(sampled) - 3] == engine.prompts[0] + sampled[:-3]
        assert "canary thought" in E.decode(engine.prompts[1])
        ask(client, [*history, *carried(second), answered(second)])
    assert E.decode(engine.prompts[2]).count("canary thought") == 2


@needs_sandbox
def test_hidden_code_travels_with_the_thinking() -> None:
    script = [
        cell("print(6 * 7)"),
        "<|channel|>analysis<|message|>canary two<|end|><|start|>assistant" + CALL,
        FINAL,
    ]
    engine = Script(script)
    with serving(engine, Settings(port=0, store="none", thinking="hide", tools=("python",))) as served:
        both = [*TOOLS, *PYTHON]
        first = ask(served.client(), [HI], tools=both)
        assert [i.type for i in first.output] == ["reasoning", "function_call"]
        ask(served.client(), [HI, *carried(first), answered(first)], tools=both)
    late = E.decode(engine.prompts[-1])
    order = [
        late.index(w) for w in ("canary<|end|>", "print(6 * 7)", "42", "canary two", '"a": 1', "5<|end|>")
    ]
    assert order == sorted(order)


def test_it_is_read_by_no_other_key_and_by_nobody_who_changed_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    a, b = auth.add(path, "a", thinking="hide"), auth.add(path, "b")
    engine = Script(lambda _: THINK + CALL)
    with serving(engine, Settings(port=0, keys=path, store="none")) as served:
        first = ask(served.client(a), [HI])
        items = [HI, *carried(first), answered(first)]
        assert ask(served.client(a), items).status == "completed"
        seal = items[1]["encrypted_content"]
        raw = bytearray(base64.urlsafe_b64decode(seal))
        raw[40] ^= 1
        changed = base64.urlsafe_b64encode(raw).decode()
        prompts = len(engine.prompts)
        for key, bad in ((b, seal), (a, changed), (a, seal[:-4]), (a, ""), (a, "gAAA è"), (a, 5), (a, ["x"])):
            sent = [HI, {"type": "reasoning", "summary": [], "encrypted_content": bad}, *items[2:]]
            with pytest.raises(BadRequestError) as error:
                ask(served.client(key), sent)
            assert error.value.param == "input[1].encrypted_content" and "leave the item out" in str(
                error.value
            )
            with pytest.raises(BadRequestError):
                served.client(key).responses.input_tokens.count(model="scripted", input=sent, tools=TOOLS)
        assert len(engine.prompts) == prompts
        # where it can be read anyway, that counts
        sent = [HI, {"type": "reasoning", "summary": [], "encrypted_content": "x",
                     "content": [{"type": "reasoning_text", "text": "own words"}]}, *items[2:]]  # fmt: skip
        ask(served.client(b), sent)
    assert "own words" in E.decode(engine.prompts[-1])


@pytest.mark.parametrize("thinking", ["summary", "hide"])
def test_what_is_stored_of_an_input_shows_no_more_than_was_sent(thinking: str) -> None:
    """Neither a sealed item nor a reference to a hidden one becomes readable by way of the store."""
    engine = Script(lambda _: THINK + CALL)
    with serving(engine, Settings(port=0, store="memory", thinking=thinking)) as served:
        client = served.client()
        first = ask(client, [HI], store=True)
        own = next(i for i in first.output if i.type == "reasoning").id
        guessed = f"rs_{first.id.removeprefix('resp_')}0001"
        for item in (carried(first)[0], {"type": "item_reference", "id": own},
                     {"type": "item_reference", "id": guessed}):  # fmt: skip
            sent = [HI, item, *carried(first)[1:], answered(first)]
            second = ask(client, sent, store=True)
            assert "canary thought" in E.decode(engine.prompts[-1])
            third = ask(client, "more", store=True, previous_response_id=second.id)
            for id in (second.id, third.id):
                listed = client.responses.input_items.list(id, order="asc", limit=100)
                assert "canary" not in "".join(i.model_dump_json() for i in listed)
            assert "canary" not in client.responses.retrieve(second.id).model_dump_json()


def test_a_store_keeps_the_secret_for_its_servers(tmp_path: Path) -> None:
    where = str(tmp_path / "r.sqlite")
    engine = Script(lambda _: THINK + CALL)
    with serving(engine, Settings(port=0, store=where, thinking="hide")) as served:
        first = ask(served.client(), [HI])
    served.host.close()  # and with it the lock on the file
    with serving(engine, Settings(port=0, store=where, thinking="hide")) as served:
        assert ask(served.client(), [HI, *carried(first), answered(first)]).status == "completed"
    served.host.close()
    with serving(engine, Settings(port=0, store="none")) as served, pytest.raises(BadRequestError):
        ask(served.client(), [HI, *carried(first), answered(first)])


def test_nothing_is_sealed_that_nobody_asked_for() -> None:
    with serving(Script(lambda _: THINK + CALL), Settings(port=0, store="none", thinking="hide")) as served:
        assert [i.type for i in ask(served.client(), [HI], include=None).output] == ["function_call"]


def test_equal_thinking_is_sealed_otherwise_each_time_and_lengths_are_rounded() -> None:
    vault = Vault(secrets.token_bytes(32))

    def thought(text: str) -> Any:
        return [
            (
                {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": text}]},
                [1, 2],
            )
        ]

    one, two, longer = (vault.seal("a", thought(t)) for t in ("x", "x", "x" * 20))
    assert one != two and len(one) == len(two) == len(longer)
    assert vault.open("a", one) == [({"type": "reasoning", "content": thought("x")[0][0]["content"]}, [1, 2])]
    assert vault.open("b", one) is None and Vault(secrets.token_bytes(32)).open("a", one) is None

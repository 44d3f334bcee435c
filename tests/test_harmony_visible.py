"""Channels are contained: what is hidden leaves no trace in any outlet, whatever it says and however it is delivered."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

import motet.cli.talk as talk
from motet.engine import SamplingParams
from motet.engine.sequence import TokenOut
from motet.errors import UsageError
from motet.harmony import (
    ALL,
    USUAL,
    Conversation,
    Delta,
    Event,
    MessageEnd,
    MessageStart,
    Policy,
    Quarantined,
    StreamParser,
    Summary,
    ToolResult,
    TurnDone,
    Visible,
    fold,
    parse,
    visible,
)
from motet.tokenizer import Encoding, load_encoding, o200k_harmony
from motet.tools import FunctionTool
from motet.turn import Reply, _reply, run_turn
from test_harmony_parse import WORDS, mutated, random_ids

FULL = os.environ.get("MOTET_FUZZ") == "full"
E = o200k_harmony()
CANARY = "Zimbabwe"  # one token, so that no boundary between deltas hides it


def ids(text: str) -> list[int]:
    return E.encode_with_special(text)


def seen(sequence: list[int], policy: Policy = USUAL) -> list[Event]:
    return list(visible(parse(sequence, E), policy))


@pytest.mark.parametrize(
    ("text", "sees"),
    {
        "<|channel|>final<|message|>x": "x",
        "<|channel|>commentary<|message|>x": "x",
        "<|channel|>analysis<|message|>x": "",
        "<|channel|>commentary to=functions.f<|message|>x": "",
        "<|channel|>commentary to=all<|message|>x": "",
        "<|channel|>final to=functions.f<|message|>x": "",
        "<|channel|>final to=user<|message|>x": "",
        "<|message|>x": "",
        "<|start|>user<|channel|>final<|message|>x": "",
        "<|start|>system<|message|>x": "",
        "<|start|>functions.f to=assistant<|channel|>final<|message|>x": "",
        "<|channel|>Final<|message|>x": "",
    }.items(),
)
def test_only_the_answer_and_remarks_are_seen(text: str, sees: str) -> None:
    events = seen(ids(text))
    assert "".join(e.text for e in events if isinstance(e, Delta)) == sees
    assert bool(events) is bool(sees)


def hidden_replaced(sequence: list[int], rng: random.Random) -> list[int]:
    """The same sequence with every id of hidden content, of calls and of hidden text in quarantine drawn anew."""
    out: list[int] = []
    rule: Any = "hide"
    for event in parse(sequence, E):
        if isinstance(event, MessageStart):
            rule = USUAL.rule(event)
        n = len(event.ids)
        if isinstance(event, Delta) and rule == "hide":
            n_new = rng.randrange(2 * n + 1)
            out += (
                rng.choices(range(256), k=n_new)
                if rng.random() < 0.3
                else E.encode(rng.choice(WORDS)) * n_new
            )
        else:
            out += event.ids
        if isinstance(event, MessageEnd):
            rule = "hide"
    return out


@pytest.mark.fuzz
def test_the_visible_stream_does_not_depend_on_what_is_hidden(compared: Any) -> None:
    """Events, their boundaries and ids: the same to the byte for any words of thinking, calls and foreign messages."""
    rng, n, changed = random.Random(7), 100_000 if FULL else 2_000, 0
    for _ in range(n):
        sequence = mutated(rng) if rng.random() < 0.7 else random_ids(rng)
        other = hidden_replaced(sequence, rng)
        changed += other != sequence
        assert seen(other) == seen(sequence)
    assert changed > n / 3
    compared("sequences compared with a twin, byte for byte", n)
    compared("of them with other hidden words", changed)


@pytest.mark.fuzz
def test_streamed_or_not_is_the_same(compared: Any) -> None:
    rng = random.Random(8)
    for _ in range(20_000 if FULL else 500):
        sequence = mutated(rng) if rng.random() < 0.7 else random_ids(rng)
        parser, gate = StreamParser(E), Visible()
        one_by_one = [e for i in sequence for raw in parser.feed(i) for e in gate.feed(raw)]
        one_by_one += [e for raw in parser.finish() for e in gate.feed(raw)]
        assert one_by_one == seen(sequence)
        shown = sum(len(e.ids) for e in one_by_one)
        assert gate.withheld + shown == len(sequence)
        assert fold(one_by_one).final == fold(parse(sequence, E)).final
        compared("streams compared with the whole")


SECRET = [
    f"<|channel|>analysis<|message|>{CANARY}",
    f"<|channel|>analysis {CANARY}<|end|>",
    f"<|channel|>analysis to=python code<|message|>{CANARY}",
    f"<|channel|>commentary to=functions.f<|message|>{CANARY}",
    f"<|channel|>final to=functions.{CANARY}<|message|>{CANARY}",
    f"<|channel|>{CANARY}<|message|>{CANARY}",
    f"<|channel|>final {CANARY}<|message|>{CANARY}",
    f"<|start|>user<|message|>{CANARY}",
    f"<|message|>{CANARY}",
    f"<|channel|>final<|message|>ok<|message|>{CANARY}",
    f"<|channel|>final<|message|>ok<|constrain|>{CANARY}",
    f"<|channel|>final<|message|>ok<|end|>{CANARY}",
    f"<|channel|>final<|channel|>analysis<|message|>{CANARY}",
    f"<|channel|>analysis<|message|>a<|start|>assistant<|channel|>analysis<|message|>{CANARY}",
    CANARY,
]


@pytest.mark.parametrize("secret", SECRET)
@pytest.mark.parametrize("end", ["", "<|end|>", "<|call|>", "<|return|>"])
def test_canaries_in_hidden_places_never_show(secret: str, end: str) -> None:
    answer = "<|start|>assistant<|channel|>final<|message|>fine<|return|>"
    for sequence in (ids(secret + end), ids(secret + end + answer)):
        events = seen(sequence)
        assert CANARY not in repr(events)
        hidden = (
            {i for e in parse(sequence, E) if CANARY in repr(e) for i in e.ids}
            - set(ids(answer))
            - set(ids("ok<|end|>"))
        )
        assert not hidden & {i for e in events for i in e.ids}, "the ids spell it too"


def test_show_shows_everything_and_loses_nothing() -> None:
    rng = random.Random(9)
    for _ in range(300):
        events = parse(mutated(rng), E)
        assert list(visible(events, ALL)) == events


TURN = (
    "<|channel|>analysis<|message|>one two<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>"
)


def test_a_summary_stands_in_the_place_of_the_message() -> None:
    events = seen(ids(TURN), Policy(analysis=lambda text: f"{len(text)} characters"))
    assert events[0] == Summary("7 characters", "analysis")
    assert (
        fold(events).final == "yes" and fold(events).summaries == [events[0]] and fold(events).analysis == ""
    )


def test_a_summary_that_fails_says_nothing_and_keeps_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    def bad(text: str) -> str:
        raise ValueError(f"cannot summarise {text}")

    with caplog.at_level(logging.DEBUG):
        events = seen(ids(TURN), Policy(analysis=bad))
    assert fold(events).final == "yes" and not fold(events).summaries
    assert "ValueError" in caplog.text and "one two" not in caplog.text


def test_a_reply_without_markup_is_the_answer_only_if_the_policy_says_so() -> None:
    plain = ids("I'm sorry, I can't help.<|return|>")
    assert seen(plain) == [Quarantined((), "", "no_markup")]  # not silence, and no words
    out = fold(seen(plain, Policy(no_markup="show")))
    assert out.final == "I'm sorry, I can't help."
    assert [i for e in seen(plain, Policy(no_markup="show")) for i in e.ids] == plain


@pytest.mark.parametrize(
    ("rule", "value"), [("analysis", "maybe"), ("results", lambda t: t), ("final", None)]
)
def test_unknown_rules_are_refused(rule: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"The rule for {rule}"):
        Policy(**{rule: value})


# --- every outlet of a turn with tools: canaries in thinking, arguments, results, errors and quarantine ---


def spy(word: str) -> str:
    """Repeats a word, or fails with it."""
    if word.endswith("!"):
        raise RuntimeError(f"failed on {word} {CANARY}")
    return f"{word} {CANARY}"


class Script:
    """An engine that says what the script says, one entry a call of stream."""

    class model:
        encoding = E

    def __init__(self, *says: str) -> None:
        self.says = [ids(s) for s in says]

    def stream(self, prompt: list[int], params: SamplingParams) -> Iterator[TokenOut]:
        said = self.says.pop(0)
        for n, token in enumerate(said):
            top = ((token, -0.5), (E.encode(CANARY)[0], -1.0))
            yield TokenOut(0, token, -0.25 * n, "stop" if n + 1 == len(said) else None, top)

    def close(self) -> None: ...


CALL = '<|channel|>analysis<|message|>%s<|end|><|start|>assistant<|channel|>commentary to=functions.spy<|message|>{"word": "%s"}<|call|>'
SAYS = (
    CALL % (CANARY, CANARY),
    CALL % (CANARY, CANARY + "!"),
    f"<|channel|>{CANARY}<|message|>{CANARY}<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Fine.<|return|>",
)


def turn(**params: Any) -> Iterator[Event]:
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    return run_turn(Script(*SAYS), conversation, E, SamplingParams(**params), [FunctionTool(spy)])


def test_no_outlet_of_a_turn_shows_a_canary(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        events = list(visible(turn()))
    assert CANARY not in repr(events) + caplog.text
    assert (
        fold(events).final == "Fine."
        and fold(events).commentary == "Wait."
        and events[-1] == TurnDone("stop")
    )
    open_ = list(visible(turn(), ALL))
    assert repr(open_).count(CANARY) >= 6 and sum(isinstance(e, ToolResult) for e in open_) == 2


def test_logprobs_of_hidden_tokens_are_withheld() -> None:
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    says = f"<|channel|>analysis<|message|>{CANARY}<|end|><|start|>assistant<|channel|>final<|message|>Fine é.<|return|>"
    raw = list(run_turn(Script(says), conversation, E, SamplingParams(logprobs=2)))
    assert all(len(e.logprobs) == len(e.ids) for e in raw if isinstance(e, Delta))
    at = {n: -0.25 * n for n in range(len(ids(says)))}
    events = list(visible(raw))
    shown = [p for e in events if isinstance(e, Delta) for p in e.logprobs]
    n = len(ids(says)) - 1
    assert [p[0] for p in shown] == [at[k] for k in range(n - len(shown), n)] and shown[0][1][0][1] == -0.5
    assert not any(hasattr(e, "logprobs") for e in events if not isinstance(e, Delta))
    assert not [
        e for e in run_turn(Script(says), conversation, E, SamplingParams()) if getattr(e, "logprobs", ())
    ]


def test_a_reply_does_not_show_its_thinking_by_accident() -> None:
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    reply = _reply(Script(*SAYS), conversation, E, SamplingParams(), [FunctionTool(spy)])
    assert isinstance(reply, Reply) and CANARY in reply.analysis
    assert CANARY not in repr(reply) + str(reply) + f"{reply}" + repr(reply.shown())
    assert fold(reply.shown()).final == reply.final == "Fine."


class Session:
    """A session of the command line around the script."""

    name, load_s, on_token, counts = "script", 0.0, None, {"analysis": 3}

    def __init__(self, *says: str) -> None:
        from motet.cli.session import Timing

        self.engine, self.timing = Script(*says), Timing(3, 4)
        self.tools: list[Any] = []
        self.results: list[Any] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def turn(self, conversation: Conversation, params: SamplingParams) -> Iterator[Event]:
        return run_turn(self.engine, conversation, E, params, [FunctionTool(spy)])

    def citations(self) -> Any:
        from motet.tools.browser import CitationStream

        return CitationStream(lambda cursor: None)

    def machine(self) -> dict[str, Any]:
        return {"precision": "int8", "isa": "scalar", "threads": 1}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_line_shows_thinking_only_when_asked(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from motet.cli.app import run

    monkeypatch.setattr(talk, "open_session", lambda *a: Session(*SAYS))
    run(["run", "q", *options])
    hidden = capsys.readouterr()
    assert CANARY not in hidden.out + hidden.err and "Fine." in hidden.out
    run(["run", "q", "--analysis", *options])
    shown = capsys.readouterr()
    assert CANARY in shown.out + shown.err
    assert options or CANARY not in shown.out  # stdout is for the answer, whatever else is shown
    if options:
        assert json.loads(hidden.out)["analysis"] is None and CANARY in json.loads(shown.out)["analysis"]
        assert json.loads(hidden.out)["tokens"]["analysis"] == 3


def test_an_error_of_the_engine_does_not_take_the_thinking_along(capsys: pytest.CaptureFixture[str]) -> None:
    class Breaks(Script):
        def stream(self, prompt: list[int], params: SamplingParams) -> Iterator[TokenOut]:
            yield from super().stream(prompt, params)
            raise RuntimeError("the engine broke")

    session: Any = Session()
    session.engine = Breaks(f"<|channel|>analysis<|message|>{CANARY}")
    conversation = Conversation.from_chat([{"role": "user", "content": "q"}])
    with pytest.raises(RuntimeError) as caught:
        talk.take_turn(session, conversation, SamplingParams(), analysis=False)
    out = capsys.readouterr()
    assert CANARY not in out.out + out.err + str(caught.value)


def test_closing_the_visible_stream_closes_the_turn() -> None:
    closed = []

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield MessageStart("assistant", "final")
        finally:
            closed.append(True)

    stream = visible(endless())
    next(stream)
    stream.close()
    assert closed == [True]


def test_minis_vocabulary_is_contained_as_well() -> None:
    from motet.library import find

    mini: Encoding = load_encoding(find("mini"))
    text = f"<|channel|>analysis<|message|>{CANARY}<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
    events = list(visible(parse(mini.encode_with_special(text), mini)))
    assert fold(events).final == "4" and CANARY not in fold(events).analysis + repr(events)

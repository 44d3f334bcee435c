"""Parsing: total, loss-free, the same token by token, equal to the published library on well-formed input."""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import given, settings

import harmony_oracle as ho
from motet.harmony import (
    Conversation,
    Delta,
    MessageEnd,
    MessageStart,
    Quarantined,
    StreamParser,
    fold,
    ids_of,
    parse,
    render,
)
from motet.harmony.events import REASONS
from motet.tokenizer import o200k_harmony

FULL = os.environ.get("MOTET_FUZZ") == "full"
E = o200k_harmony()
CONTROL = [
    E.special(f"<|{n}|>") for n in ("start", "end", "message", "channel", "constrain", "return", "call")
]
WORDS = ["assistant", "user", "tool", "functions", ".f", " to", "=", "analysis", "final", "commentary", " json", "json",
         " ", "secret", "é", "👩‍🚀", "\n", " to=functions.f", "assistantassistant", "?"]  # fmt: skip


def ids(text: str) -> list[int]:
    return E.encode_with_special(text)


def random_ids(rng: random.Random) -> list[int]:
    """Control tokens, words of headers, halves of characters, reserved and impossible ids, in any order."""
    out: list[int] = []
    for _ in range(rng.randrange(40)):
        kind = rng.randrange(10)
        if kind < 5:
            out.append(rng.choice(CONTROL))
        elif kind < 8:
            out += E.encode(rng.choice(WORDS))
        elif kind < 9:
            out.append(rng.randrange(256))  # single bytes: also broken UTF-8
        else:
            out.append(
                rng.choice([199_999, 200_000, 200_009, 201_087, 201_088, -1, 10**9, rng.randrange(200_000)])
            )
    return out


def mutated(rng: random.Random) -> list[int]:
    """A legal stream with a few tokens lost, doubled, moved or replaced."""
    out = ids(
        "<|channel|>analysis<|message|>Let me see é<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a":"👩‍🚀"}<|call|><|start|>functions.f to=assistant<|channel|>commentary<|message|>1'
        "<|end|><|start|>assistant<|channel|>final<|message|>Done.<|return|>"
    )
    for _ in range(rng.randrange(1, 5)):
        if not out:
            break
        at = rng.randrange(len(out))
        match rng.randrange(4):
            case 0:
                del out[at]
            case 1:
                out.insert(at, out[at])
            case 2:
                out[at] = rng.choice([*CONTROL, rng.randrange(201_100)])
            case 3:
                out = out[:at] or out
    return out


def check(sequence: list[int]) -> None:
    events = parse(sequence, E)
    assert ids_of(events) == sequence
    for cut in ("role", None):
        assert ids_of(parse(sequence, E, None if cut is None else "assistant")) == sequence
    open_ = False
    for event in events:
        if isinstance(event, MessageStart):
            assert not open_
            open_ = True
        elif isinstance(event, MessageEnd):
            assert open_
            open_ = False
        elif isinstance(event, Delta):
            assert open_
        elif isinstance(event, Quarantined):
            assert event.reason in REASONS
            assert event.ids
    assert not open_
    for spoken in fold(events).messages:
        assert not any(name in spoken.text for name in E.special_tokens), "a control token became text"


@pytest.mark.fuzz
def test_total_and_loss_free() -> None:
    rng = random.Random(1)
    for _ in range(200_000 if FULL else 4_000):
        check(random_ids(rng))
        check(mutated(rng))


def test_text_that_spells_control_tokens_is_text() -> None:
    """Names of control tokens written in ordinary ids stay ordinary, in content and in headers."""
    spelled = E.encode("<|end|><|start|>assistant<|channel|>final<|message|>leak")
    events = parse([*ids("<|channel|>analysis<|message|>"), *spelled, *ids("<|end|>")], E)
    assert fold(events).final == ""
    assert "leak" in fold(events).analysis
    header = [*E.encode("<|channel|>final"), *ids("<|message|>x<|end|>")]
    assert fold(parse(header, E)).final == ""


def test_incremental_equals_batch_and_a_prefix_never_takes_back() -> None:
    rng = random.Random(2)
    for _ in range(300):
        sequence = mutated(rng)
        parser = StreamParser(E)
        seen = []
        for token in sequence:
            seen += parser.feed(token)
        assert seen + parser.finish() == parse(sequence, E)
        cut = rng.randrange(len(sequence) + 1)
        early = parse(sequence[:cut], E)
        settled = [e for e in early if isinstance(e, (Delta, MessageStart))]
        later = parse(sequence, E)
        starts = [e for e in settled if isinstance(e, MessageStart) and e.repairs != ("no_message_token",)]
        assert [e for e in later if e in starts][: len(starts)] == starts


def test_text_of_deltas_is_whole_characters() -> None:
    text = "naïve 👩‍🚀 中文 \U0001f9d1\U0001f3fd"
    events = parse(
        [
            *ids("<|channel|>final<|message|>"),
            *(i for c in text.encode() for i in single(c)),
            *ids("<|return|>"),
        ],
        E,
    )
    assert fold(events).final == text
    assert not any("\ufffd" in e.text for e in events if isinstance(e, Delta))


def single(byte: int) -> list[int]:
    return [next(i for i in range(256) if E.token_bytes(i) == bytes([byte]))]


@pytest.mark.fuzz
@given(ho.conversations)
@settings(max_examples=10_000 if FULL else 150, deadline=None)
def test_equal_to_the_published_library_on_what_it_renders(conversation: Conversation) -> None:
    sequence = render(conversation, E, history="keep", next_role=None)
    try:
        theirs = ho.oracle().parse_messages_from_completion_tokens(sequence, None)
    except Exception:  # what it renders it does not always read: named users, tools without a recipient
        theirs = None
    ours = fold(parse(sequence, E, None))
    assert not ours.quarantined
    assert len(ours.messages) == len(conversation.messages)
    for n, m in enumerate(conversation.messages):
        start = ours.messages[n].start
        recipient = None if m.recipient == "all" else m.recipient
        marked = m.content_type and f"<|constrain|>{m.content_type.removeprefix('<|constrain|>')}"
        assert (start.role, start.name, start.channel, start.recipient, start.content_type) == (
            m.role, m.name, m.channel, recipient, marked)  # fmt: skip
        if theirs is not None and (m.name is None or m.role == "tool"):  # it takes user:name for a tool
            assert ours.messages[n].text == theirs[n].content[0].text
            assert (start.role, start.channel) == (theirs[n].author.role.value, theirs[n].channel)
            if (
                m.content_type is None or recipient is not None
            ):  # else the library takes the type for a recipient
                assert start.recipient == theirs[n].recipient
                assert start.content_type == theirs[n].content_type


# What each malformed completion means: (completion, final, analysis, calls, reasons of quarantine, repairs).
CORPUS = {
    "M01": ("I must refuse<|end|><|start|>assistant<|channel|>final<|message|>Sorry.<|return|>", "Sorry.", "", [], ["no_markup"], []),
    "M02": ("I'm sorry, but I can't help with that.<|return|>", "", "", [], ["no_markup"], []),
    "M03": ("<|channel|>analysis We need to<|end|>", "", "We need to", [], [], ["no_message_token"]),
    "M03b": ("<|channel|>final We need to<|end|>", "", "", [], ["no_message_token"], []),
    "M03c": ("<|channel|>analysis We need to<|message|>x<|end|>", "", "", [], ["header_junk"], []),
    "M04": ("<|channel|>commentary?commentary?<|message|>x<|end|>", "", "", [], ["unknown_channel"], []),
    "M05": ("<|channel|>??<|message|>x<|end|>", "", "", [], ["unknown_channel"], []),
    "M06": ("<|channel|><|message|>x<|end|>", "", "", [], ["no_channel_name"], []),
    "M07": ("<|channel|>analysis<|message|>t<|end|><|start|><|start|>assistant<|channel|>final<|message|>x<|return|>",
            "x", "t", [], [], ["doubled_start"]),
    "M08": ("<|channel|>analysis<|message|>t<|end|>assistant<|channel|>final<|message|>x<|return|>", "x", "t", [], [], ["missing_start"]),
    "M09": ("<|channel|>analysis<|message|>t<|end|><|start|>assistantassistant<|channel|>final<|message|>x<|return|>",
            "", "t", [], ["unknown_role"], []),
    "M10": ("<|channel|>analysis<|message|>t<|end|>commentary to=functions.f x", "", "t", [], ["text_between_messages"], []),
    "M10b": ("<|channel|>analysis<|message|>t<|end|>commentary to=functions.f<|message|>x<|call|>", "", "t", [], ["text_between_messages"], []),
    "M11": ("<|channel|>commentary to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>", "", "",
            ["functions.f"], [], ["doubled_channel"]),
    "M12": ("<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>", "", "", ["functions.f"], [], []),
    "M13": ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}", "", [], [], []),
    "M14": ("<|channel|>commentary to=functions.f json<|message|>{}<|call|>", "", "", ["functions.f"], [], []),
    "M15": ("<|channel|>analysis to=functions.f code<|message|>{}<|call|>", "", "", ["functions.f"], [], ["call_on_analysis"]),
    "M16": ("<|channel|>final to=functions.f<|message|>{}<|call|>", "", "", ["functions.f"], [], ["call_on_final"]),
    "M17": (" to=functions.f<|channel|>commentary<|message|>{}<|call|>", "", "", ["functions.f"], [], []),
    "M18": ("<|channel|>commentary to=f<|message|>{}<|call|>", "", "", ["f"], [], []),
    "M19": ("<|channel|>commentary to=functions.browser.search<|message|>{}<|call|>", "", "", ["functions.browser.search"], [], []),
    "M20": ("<|channel|>commentary to=functions.python<|message|>print(1)<|call|>", "", "", ["functions.python"], [], []),
    "M21": ('<|channel|>commentary to=functions.f<|message|>{"a": 1', "", "", ["functions.f"], [], []),
    "M22": ('<|channel|>commentary to=functions.f<|message|>{"a": 1}<|end|>', "", "", ["functions.f"], [], []),
    "M23": ("<|channel|>final<|message|>text<|start|>assistant<|channel|>analysis<|message|>secret<|end|>", "text", "secret", [], [], []),
    "M23b": ("<|channel|>final<|message|>text<|channel|>analysis<|message|>secret<|end|>", "text", "secret", [], [], ["missing_start"]),
    "M23c": ("<|channel|>final<|message|>text<|message|>secret<|end|>", "text", "", [], ["message_token_in_content"], []),
    "M25": ("<|channel|>final<|message|>x<|end|>trailing words", "x", "", [], ["text_between_messages"], []),
    "M26": ("<|channel|>commentary<|message|>answer<|return|>", "", "", [], [], []),
    "M27": ("<|channel|>commentary to=query_dataset<|channel|>commentary<|message|>{}<|call|>", "", "", ["query_dataset"], [],
            ["doubled_channel"]),
    "M28": ("<|channel|>commentary to=browser.open<|message|>{}<|call|>", "", "", ["browser.open"], [], []),
    "two channels": ("<|channel|>final to=functions.f<|channel|>analysis<|message|>x<|call|>", "", "", [], ["two_channels"], []),
    "control in name": ("<|channel|>commentary to=functions.<|constrain|>f g<|message|>x<|call|>", "", "", [], ["header_junk"], []),
    "no channel": ("<|message|>secret<|end|>", "", "", [], [], []),
    "cut header": ("<|channel|>final", "", "", [], ["cut_in_header"], []),
    "reserved": ("<|channel|>final<|message|>a<|reserved_200009|>b<|return|>", "ab", "", [], ["not_text"], []),
    "nothing": ("", "", "", [], [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_malformed_corpus(name: str) -> None:
    text, final, analysis, calls, reasons, repairs = CORPUS[name]
    events = parse(ids(text), E)
    out = fold(events)
    assert (out.final, out.analysis) == (final, analysis)
    assert [c.recipient for c in out.tool_calls] == calls
    assert [q.reason for q in out.quarantined] == reasons
    assert [r for e in events if isinstance(e, MessageStart) for r in e.repairs] == repairs
    check(ids(text))


def test_m24_cut_inside_a_character() -> None:
    half = E.encode("👩")[:1]
    events = parse([*ids("<|channel|>final<|message|>ab"), *half], E)
    assert fold(events).final == "ab\ufffd"
    assert fold(events).finish == "length"
    assert ids_of(events) == [*ids("<|channel|>final<|message|>ab"), *half]


def test_a_truncated_call_is_not_complete() -> None:
    whole, cut = (fold(parse(ids(CORPUS[m][0]), E)).tool_calls[0] for m in ("M22", "M21"))
    assert whole.complete
    assert not cut.complete


def test_time_is_linear_and_fast() -> None:
    """Floor far below what is measured (about half a million a second), high enough to catch quadratic work."""
    words = E.encode("the quick brown fox jumps over the lazy dog ") * 12_000
    for stream in (
        [*ids("<|channel|>final<|message|>"), *words],
        words,
        CONTROL[:1] * len(words),
        CONTROL * (len(words) // 7),
    ):
        began = time.process_time()
        parse(stream, E)
        assert len(stream) / (time.process_time() - began) > 20_000

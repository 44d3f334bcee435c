"""The grammar by itself: what a trained model writes is reachable, what nobody may write is not, budgets hold to the token."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.engine import Bits, ConstraintError, Except, Mask, Only
from motet.errors import UsageError
from motet.harmony import (
    BROWSER,
    PYTHON,
    Conversation,
    DeveloperContent,
    Function,
    Grammar,
    Guide,
    Message,
    MessageEnd,
    MessageStart,
    Namespace,
    Rules,
    StreamParser,
    SystemContent,
    fold,
    ids_of,
    parse,
)
from motet.library import find
from motet.synth import byte_vocabulary
from motet.tokenizer import Encoding, load_encoding, o200k_harmony

LOCATION = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Function("get_weather", "", LOCATION)
STRICT = Function("strict", "", {**LOCATION, "additionalProperties": False}, strict=True)


@pytest.fixture(scope="module", params=["o200k_harmony", "mini", "bytes"])
def encoding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoding:
    """Three vocabularies in which the same words have different tokens."""
    if request.param == "o200k_harmony":
        return o200k_harmony()
    if request.param == "mini":
        return load_encoding(find("mini"))
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "tokenizer.json").write_text(byte_vocabulary(512))
    return load_encoding(folder)


def conversation(*functions: Function, builtin: bool = False, **system: Any) -> Conversation:
    spaces = (Namespace("functions", None, functions),) if functions else ()
    return Conversation.of(
        Message("system", SystemContent(namespaces=(BROWSER, PYTHON) if builtin else (), **system)),
        Message("developer", DeveloperContent("d", spaces)),
        Message("user", "q"),
    )


FULL = conversation(WEATHER, STRICT, builtin=True)


def allows(mask: Mask | None, token: int, size: int = 201_088) -> bool:
    if isinstance(mask, Bits):
        mask = mask.lists(size)
    if isinstance(mask, Only):
        return token in mask.ids
    return mask is None or (token < mask.size and token not in mask.ids)


def accepted(guide: Guide, ids: list[int]) -> int:
    """How many of the ids the masks allow, one after another."""
    for n, token in enumerate(ids):
        if not allows(guide.mask(), token):
            return n
        guide.advance(token)
    return len(ids)


def walk(
    encoding: Encoding, text: str, rules: Rules | None = None, conv: Conversation = FULL, **kw: Any
) -> tuple[bool, Guide]:
    """Whether the masks let a whole text pass, control tokens spelled out."""
    guide = Grammar(encoding, conv, rules).guide(**kw)
    ids = encoding.encode_with_special(text)
    return accepted(guide, ids) == len(ids), guide


J = '{"city": "Oslo"}'
WRITTEN = [
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>",
    "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>",
    f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{J}<|call|>",
    f"<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>{J}<|call|>",
    f" to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{J}<|call|>",
    f" to=functions.get_weather<|channel|>commentary<|message|>{J}<|call|>",
    f"<|channel|>commentary to=functions.get_weather json<|message|>{J}<|call|>",
    f"<|channel|>commentary to=functions.get_weather code<|message|>{J}<|call|>",
    "<|channel|>analysis to=python code<|message|>print(6 * 7)<|call|>",
    " to=python<|channel|>analysis code<|message|>print(6 * 7)<|call|>",
    " to=python<|channel|>analysis <|constrain|>code<|message|>print(6 * 7)<|call|>",
    '<|channel|>analysis to=browser.search code<|message|>{"query": "x"}<|call|>',
    " to=browser.open<|channel|>analysis <|constrain|>json<|message|>{}<|call|>",
    "<|channel|>final <|constrain|>json<|message|>{}<|return|>",
    f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{J}<|call|>",
    f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.strict <|constrain|>json<|message|>{J}<|call|>",
]  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_what_models_write_is_reachable_in_their_own_tokens(encoding: Encoding, text: str) -> None:
    passed, guide = walk(encoding, text)
    assert passed
    assert allows(guide.mask(), encoding.special("<|end|>")) is False
    for event in parse(encoding.encode_with_special(text), encoding):
        assert not getattr(event, "repairs", ()), "a form the parser has to repair"


FORBIDDEN = [
    "I must refuse<|end|>", "<|channel|>analysis We need to<|end|>", "<|channel|>commentary?commentary?<|message|>",
    "<|channel|>??<|message|>x", "<|channel|><|message|>x", "<|message|>x", "<|return|>", "<|endoftext|>",
    "<|channel|>analysis<|message|>x<|end|><|start|><|start|>assistant", "<|channel|>analysis<|message|>x<|end|>assistant",
    "<|channel|>analysis<|message|>x<|end|><|start|>assistantassistant", "<|channel|>analysis<|message|>x<|end|><|start|>user",
    "<|channel|>analysis<|message|>x<|end|>commentary", "<|channel|>commentary to=functions.get_weather<|channel|>commentary",
    "<|channel|>analysis to=functions.get_weather code<|message|>", "<|channel|>final to=functions.get_weather<|message|>",
    " to=functions.get_weather<|channel|>final<|message|>", "<|channel|>commentary to=get_weather<|message|>",
    "<|channel|>commentary to=functions.browser.search<|message|>", "<|channel|>commentary to=functions.python<|message|>",
    "<|channel|>commentary to=browser.search<|message|>", "<|channel|>commentary to=python<|message|>",
    "<|channel|>commentary to=functions.other<|message|>", f"<|channel|>commentary to=functions.get_weather<|message|>{J}<|end|>",
    f"<|channel|>commentary to=functions.get_weather<|message|>{J}<|return|>", "<|channel|>final<|message|>x<|end|>",
    "<|channel|>final<|message|>text<|start|>", "<|channel|>final<|message|><|return|>", "<|channel|>final<|message|>x<|call|>",
    "<|channel|>analysis<|message|>x<|return|>", "<|channel|>analysis<|message|>x<|message|>", "<|channel|>final<|message|>x<|channel|>",
    "<|channel|>final<|message|>x<|constrain|>", "<|channel|>final<|message|>x<|startoftext|>", "<|channel|>analysis json<|message|>",
    "<|channel|>final<|message|>x<|endoftext|>", "<|channel|>analysis<|message|>x<|endoftext|>",
    "<|channel|>commentary to=functions.get_weather<|message|>[1]", "<|channel|>commentary to=functions.get_weather<|message|>x",
    '<|channel|>commentary to=functions.strict<|message|>{"town": 1}', f"<|channel|>commentary to=functions.strict<|message|>{J} ",
    '<|channel|>commentary to=functions.get_weather<|message|>{"a": 1<|call|>',
]  # fmt: skip


@pytest.mark.parametrize("text", FORBIDDEN)
def test_what_nobody_may_write_is_not(encoding: Encoding, text: str) -> None:
    passed, _ = walk(encoding, text)
    assert not passed


def test_only_the_tokens_of_the_words_themselves(encoding: Encoding) -> None:
    """Every token of a header is forced to those that encoding gives; other cuts of the same letters are refused."""
    guide = Grammar(encoding, conversation()).guide()
    guide.advance(encoding.special("<|channel|>"))
    firsts = {encoding.encode(c)[0] for c in ("analysis", "commentary", "final")}
    mask = guide.mask()
    assert isinstance(mask, Only) and set(mask.ids.tolist()) == firsts


def test_a_function_with_the_same_beginning_as_another(encoding: Encoding) -> None:
    conv = conversation(Function("get"), Function("get_weather"), Function("get.x"))
    for name in ("get", "get_weather", "get.x"):
        assert walk(encoding, f"<|channel|>commentary to=functions.{name}<|message|>{{}}<|call|>", conv=conv)[
            0
        ]
    assert not walk(encoding, "<|channel|>commentary to=functions.get_<|message|>", conv=conv)[0]


def test_a_function_that_cannot_be_spelled_is_an_error() -> None:
    with pytest.raises(Exception, match="grammar off"):
        Grammar(o200k_harmony(), conversation(Function("x y"))).guide()


def test_free_content_costs_the_control_tokens_and_the_mask_is_made_once(encoding: Encoding) -> None:
    guide = Grammar(encoding, conversation()).guide()
    for t in encoding.encode_with_special("<|channel|>analysis<|message|>"):
        guide.advance(t)
    mask = guide.mask()
    assert isinstance(mask, Except) and set(mask.ids.tolist()) == encoding.not_text - {
        encoding.special("<|end|>")
    }
    guide.advance(encoding.encode("a")[0])
    assert guide.mask() is mask
    other = Grammar(encoding, FULL).guide()
    for t in encoding.encode_with_special("<|channel|>analysis<|message|>"):
        other.advance(t)
    assert other.mask() is mask


def test_the_turn_is_over_after_its_end(encoding: Encoding) -> None:
    passed, guide = walk(encoding, "<|channel|>final<|message|>x<|return|>")
    assert passed
    mask = guide.mask()
    assert isinstance(mask, Only) and len(mask.ids) == 0
    with pytest.raises(ConstraintError, match="stop tokens"):
        guide.advance(encoding.encode("x")[0])


def test_a_token_the_mask_forbids_is_an_error(encoding: Encoding) -> None:
    guide = Grammar(encoding, FULL).guide()
    with pytest.raises(ConstraintError, match="not legal"):
        guide.advance(encoding.encode("x")[0])


# --- tool_choice ---

CALL = f"<|channel|>commentary to=functions.get_weather<|message|>{J}<|call|>"
OTHER = f"<|channel|>commentary to=functions.strict<|message|>{J}<|call|>"
CODE = "<|channel|>analysis to=python code<|message|>1<|call|>"
ANSWER = "<|channel|>final<|message|>x<|return|>"
REMARK = "<|channel|>commentary<|message|>x<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>x<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("choice", "yes", "no"),
    [
        ("auto", [CALL, OTHER, CODE, ANSWER, REMARK, THOUGHT], []),
        ("none", [ANSWER, REMARK, THOUGHT], [CALL, OTHER, CODE]),
        ("required", [CALL, OTHER, CODE, REMARK + CALL, THOUGHT + CALL], [ANSWER, THOUGHT + ANSWER]),
        ("get_weather", [CALL, THOUGHT + CALL], [OTHER, CODE, ANSWER, THOUGHT + OTHER]),
        ("functions.get_weather", [CALL], [OTHER, ANSWER]),
        ({"type": "function", "function": {"name": "strict"}}, [OTHER], [CALL, ANSWER]),
        ({"type": "function", "name": "strict"}, [OTHER], [CALL, ANSWER]),
        ("python", [CODE, THOUGHT + CODE], [CALL, ANSWER]),
    ],
)
def test_tool_choice(encoding: Encoding, choice: Any, yes: list[str], no: list[str]) -> None:
    rules = Rules(tool_choice=choice)
    for text in yes:
        assert walk(encoding, text, rules)[0], text
    for text in no:
        assert not walk(encoding, text, rules)[0], text
    if yes[0] != ANSWER:  # once the call is made, the turn is free again
        assert walk(encoding, ANSWER, rules, called=True)[0]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"tool_choice": "nothing"}, "'nothing', which is not declared"), ({"tool_choice": {"type": "x"}}, "'None', which"),
        ({"tool_choice": 5}, "5"), ({"max_reasoning_tokens": -1}, "-1"), ({"max_reasoning_tokens": True}, "True"),
        ({"arguments": "maybe"}, "maybe"), ({"response_format": "yaml"}, "yaml"), ({"response_format": {"type": "json_schema"}}, "schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "'not' at #"),
        ({"response_format": 3}, "3"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_held_are_refused_in_one_sentence(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as e:
        Grammar(o200k_harmony(), FULL, Rules(**rules))
    assert words in str(e.value) and "\n" not in str(e.value)


def test_required_without_tools_is_refused() -> None:
    with pytest.raises(UsageError, match="no tool is declared"):
        Grammar(o200k_harmony(), conversation(), Rules(tool_choice="required"))


def test_channels_are_those_of_the_system_message(encoding: Encoding) -> None:
    conv = conversation(channels=("analysis", "final"))
    assert walk(encoding, THOUGHT + ANSWER, conv=conv)[0]
    assert not walk(encoding, REMARK, conv=conv)[0]


# --- JSON where it belongs ---


def test_a_response_format_binds_the_answer_and_nothing_else(encoding: Encoding) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    for form, good, bad in (
        (schema, "42", "x"),
        ("json_object", '{"a": [1]}', "[]"),
        ({"type": "json_schema", "schema": {"type": "null"}}, "null", "1"),
    ):
        rules = Rules(response_format=form)
        for head in ("<|channel|>final<|message|>", "<|channel|>final <|constrain|>json<|message|>"):
            assert walk(encoding, THOUGHT + head + good + "<|return|>", rules)[0]
            assert not walk(encoding, THOUGHT + head + bad, rules)[0]
    assert walk(encoding, REMARK + CALL, Rules(response_format="json_object"))[0]
    assert not walk(encoding, "<|channel|>final<|message|>{<|return|>", Rules(response_format="json_object"))[
        0
    ]


def test_how_far_arguments_are_held(encoding: Encoding) -> None:
    head, wrong = "<|channel|>commentary to=functions.get_weather<|message|>", '{"town": 1}<|call|>'
    assert walk(encoding, head + wrong, Rules(arguments="json"))[0]
    assert not walk(encoding, head + wrong, Rules(arguments="schema"))[0]
    assert walk(encoding, head + "x<|call|>", Rules(arguments="free"))[0]
    assert not walk(
        encoding, "<|channel|>commentary to=functions.strict<|message|>x", Rules(arguments="free")
    )[0]
    bad = conversation(Function("f", "", {"not": {}}))
    Grammar(encoding, bad)  # not strict: any object
    Grammar(
        encoding, bad, Rules(tool_choice="required")
    )  # what cannot be enforced is not, where nobody asked for it
    for demand in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        assert not walk(encoding, head + wrong, Rules(tool_choice=demand))[0]
    with pytest.raises(UsageError, match=r"tool 'functions.f' cannot be enforced: 'not' at #"):
        Grammar(encoding, bad, Rules(arguments="schema"))


# --- budgets ---


def any_of(mask: Mask | None, encoding: Encoding, rng: random.Random) -> int:
    """Any token of a mask."""
    lists = mask.lists(encoding.n_vocab) if isinstance(mask, Bits) else mask
    assert lists is not None
    if isinstance(lists, Except):  # nearly all: what is forbidden is rarely drawn
        return next(t for t in iter(lambda: rng.randrange(lists.size), None) if t not in lists.ids)
    return int(rng.choice(lists.ids.tolist()))


def run(
    guide: Guide, encoding: Encoding, rng: random.Random, stubborn: bool = True, limit: int = 10**6
) -> list[int]:
    """A model that thinks for ever if it may, and says random text; ends with the stretch or the limit."""
    out: list[int] = []
    ends = {encoding.special(f"<|{n}|>") for n in ("end", "call", "return")}
    letters = [t for w in (" a", "b", "{", '"') for t in encoding.encode(w)]
    while len(out) < limit and not (out and out[-1] in ends - {encoding.special("<|end|>")}):
        mask = guide.mask()
        if isinstance(mask, Except):
            token = rng.choice(letters)
            thinks = guide._kind.channel == "analysis"
            if (not thinks or not stubborn) and rng.random() < 0.2 and allows(mask, guide._end):
                token = guide._end
        else:
            token = any_of(mask, encoding, rng)
        assert allows(mask, token, encoding.n_vocab)
        guide.advance(token)
        out.append(token)
    return out


@pytest.mark.parametrize("budget", [0, 1, 7, 40])
def test_thinking_stops_at_its_budget_and_the_answer_follows(encoding: Encoding, budget: int) -> None:
    grammar = Grammar(encoding, conversation(), Rules(max_reasoning_tokens=budget))
    for seed in range(20):
        guide = grammar.guide()
        ids = run(guide, encoding, random.Random(seed))
        out = fold(parse(ids, encoding))
        thought = sum(len(encoding.encode(m.text)) for m in out.messages if m.start.channel == "analysis")
        assert guide.spent <= budget and (thought > 0) <= (budget > 0)
        assert out.final and not out.quarantined
        if guide.closed:
            assert guide.spent == budget
            opening = encoding.encode_with_special("<|end|><|start|>assistant<|channel|>final<|message|>")
            text = encoding.decode(ids)
            assert encoding.decode(opening) in text


def test_thinking_is_counted_over_the_whole_turn(encoding: Encoding) -> None:
    grammar = Grammar(encoding, FULL, Rules(max_reasoning_tokens=30))
    guide = grammar.guide(spent=30)
    mask = guide.mask()
    guide.advance(encoding.special("<|channel|>"))
    mask = guide.mask()
    assert not allows(mask, encoding.encode("analysis")[0])
    assert allows(mask, encoding.encode("final")[0]) and allows(mask, encoding.encode("commentary")[0])


def test_code_on_analysis_counts_and_is_cut_where_nobody_runs_it(encoding: Encoding) -> None:
    guide = Grammar(encoding, FULL, Rules(max_reasoning_tokens=12)).guide()
    head = encoding.encode_with_special("<|channel|>analysis to=python code<|message|>")
    for t in head:
        guide.advance(t)
    for n in range(12):
        assert not guide.cut_call and guide.spent == n
        guide.advance(encoding.encode("x")[0])
    mask = guide.mask()
    assert isinstance(mask, Only) and mask.ids.tolist() == [encoding.special("<|call|>")]
    assert guide.cut_call and guide.closed


def final_start(ids: list[int], encoding: Encoding) -> int:
    """How many events come before the content of the answer."""
    events = parse(ids, encoding)
    return next(n + 1 for n, e in enumerate(events) if isinstance(e, MessageStart) and e.channel == "final")


@pytest.mark.parametrize("limit", [1, 5, 12, 30, 64, 200, 1000])
def test_the_limit_of_tokens_leaves_room_for_an_answer(encoding: Encoding, limit: int) -> None:
    grammar = Grammar(encoding, conversation())
    opening = len(encoding.encode_with_special("<|channel|>final<|message|>"))
    for seed in range(20):
        ids = run(grammar.guide(limit), encoding, random.Random(seed), limit=limit)
        out = fold(parse(ids, encoding))
        assert len(ids) <= limit
        if limit > opening:
            assert out.final, encoding.decode(ids)
            kept = len(ids) - len(ids_of(parse(ids, encoding)[: final_start(ids, encoding)]))
            assert out.messages[-1].stop == "return" or kept >= max(1, min(limit // 4, 256))


def test_a_budget_outranks_a_requirement_only_thinking_could_meet(encoding: Encoding) -> None:
    rules = Rules(tool_choice="python", max_reasoning_tokens=0)
    assert walk(encoding, ANSWER, rules)[0]
    guide = Grammar(encoding, FULL, Rules(tool_choice="required", max_reasoning_tokens=3)).guide(200)
    out = fold(parse(run(guide, encoding, random.Random(1), limit=200), encoding))
    assert [c.channel for c in out.tool_calls] in (["commentary"], ["analysis"])


@pytest.mark.parametrize("choice", ["auto", "none", "required", "get_weather"])
def test_any_walk_along_the_masks_is_harmony(encoding: Encoding, choice: str) -> None:
    """No model at all: at each step any allowed token. The parser has nothing to repair and nothing to set aside."""
    grammar = Grammar(encoding, FULL, Rules(tool_choice=choice, max_reasoning_tokens=20))
    for seed in range(6 if encoding.n_vocab > 10_000 else 30):
        rng = random.Random(seed)
        ids = run(grammar.guide(400), encoding, rng, stubborn=False, limit=400)
        parser = StreamParser(encoding)
        events = [e for t in ids for e in parser.feed(t)]
        starts = [e for e in events if isinstance(e, MessageStart)]
        assert all(e.repairs == () for e in starts)
        stops = [e.stop for e in events if isinstance(e, MessageEnd)]
        for start, stop in zip(starts, stops, strict=False):
            assert stop == ("call" if start.is_call else "return" if start.channel == "final" else "end")
        if choice != "auto":
            assert any(s.is_call for s in starts) != (choice == "none") or len(ids) == 400
        assert not any(type(e).__name__ == "Quarantined" for e in events)


def test_rows_beyond_the_vocabulary_and_reserved_ids_never_come() -> None:
    encoding = o200k_harmony()
    guide = Grammar(encoding, conversation()).guide()
    for t in encoding.encode_with_special("<|channel|>final<|message|>a"):
        guide.advance(t)
    mask = guide.mask()
    assert isinstance(mask, Except)
    row = np.zeros(201_200, np.float32)
    row[199_998:] = 50.0
    from motet.engine import SamplingParams
    from motet.engine.sampling import Counts, sample

    for n in range(20):
        token = sample(row, SamplingParams(), Counts(), 3, n, mask).token
        assert token < 199_998 or token == encoding.special("<|return|>")


def test_both_ways_to_cut_a_header_are_known_for_a_vocabulary_where_they_differ(tmp_path: Path) -> None:
    """A vocabulary with a token for "y to": models see the words apart when rendered, as one when read as text."""
    import json

    base = json.loads(byte_vocabulary(512))
    vocab = base["model"]["vocab"]
    space = next(c for c, i in vocab.items() if i == 32)
    extra = ["y" + space, "y" + space + "t"]
    for n, token in enumerate(extra):
        vocab[token] = 600 + n
    base["model"]["merges"] = [["y", space], ["y" + space, "t"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(base))
    encoding = load_encoding(tmp_path)
    c, m = encoding.special("<|channel|>"), encoding.special("<|message|>")
    apart = [c, *encoding.encode("commentary"), *encoding.encode(" to=functions.get_weather"), m]
    joined = [c, *encoding.encode("commentary to=functions.get_weather"), m]
    assert apart != joined
    for ids in (apart, joined):
        assert accepted(Grammar(encoding, FULL).guide(), ids) == len(ids)

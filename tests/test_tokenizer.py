"""Text to ids and back: o200k_harmony against tiktoken and oss-harmony, and vocabularies that folders bring."""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from motet.tokenizer import (
    HARMONY_VOCABULARY,
    O200K_FILE,
    O200K_RANKS,
    Encoding,
    TokenizerError,
    load_encoding,
    o200k_harmony,
    read_o200k,
)

FULL = os.environ.get("MOTET_FUZZ") == "full"
CONTROL = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|constrain|>",
           "<|startoftext|>", "<|endoftext|>", "<|endofprompt|>", "<|reserved_200500|>"]  # fmt: skip
# Written out as tiktoken publishes it, not taken from the module under test.
PUBLISHED_PATTERN = "|".join(
    [
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)


@functools.cache
def published() -> tiktoken.Encoding:
    """tiktoken's own o200k_base, built the way tiktoken builds it, from the published file."""
    import base64

    lines = gzip.decompress(O200K_FILE.read_bytes()).splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding(
        "o200k_base", pat_str=PUBLISHED_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


def any_text(rng: random.Random, length: int) -> str:
    """Characters of all planes in runs, mixed with what the splitting pattern cares about."""
    seams = ["'s", "'LL", "'ve", "\r\n", "\n\n", "/", " ", "   ", "\t", "\u3000", "\u00a0", "\x1c", "\x85", "\u200d", "\u0301",
             "123", "٣٤٥", "½", "ǅ", "ʰ", "…", "<|end|>", "//\n", "ſ", "K"]  # fmt: skip
    out: list[str] = []
    size = 0
    while size < length:
        match rng.randrange(5):
            case 0:
                out.append(rng.choice(seams))
            case 1:
                start = rng.choice([0, 0x370, 0x590, 0x900, 0x3040, 0x4E00, 0xAC00, 0x1F300])
                out.append("".join(chr(start + rng.randrange(128)) for _ in range(rng.randrange(1, 12))))
            case 2:
                point = rng.randrange(0x110000)
                out.append("\ufffd" if 0xD800 <= point < 0xE000 else chr(point))
            case 3:
                out.append("".join(rng.choice("etaoinshrdluETAO ") for _ in range(rng.randrange(1, 20))))
            case _:
                out.append(rng.choice(seams) * rng.randrange(1, 9))
        size += len(out[-1])
    return "".join(out)


# --- o200k_harmony -----------------------------------------------------------------------------------------------------


def test_ids_of_control_tokens() -> None:
    encoding = o200k_harmony()
    ids = {"<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
           "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
           "<|reserved_200000|>": 200000, "<|reserved_200013|>": 200013, "<|reserved_201087|>": 201087,
           "<|endofprompt|>": 200018, "<|reserved_200018|>": 200018}  # fmt: skip
    for name, i in ids.items():
        assert encoding.special(name) == i and encoding.is_special(i)
    assert encoding.n_vocab == HARMONY_VOCABULARY == 201_088
    assert sorted(set(encoding.special_tokens.values())) == list(range(199_998, 201_088))
    assert (
        not encoding.is_special(199_997) and not encoding.is_special(201_088) and not encoding.is_special(-1)
    )
    assert encoding.token_bytes(200018) == b"<|reserved_200018|>"
    with pytest.raises(TokenizerError, match="refusal"):
        encoding.special("<|refusal|>")


def test_ids_of_words_that_matter() -> None:
    words = {"system": [17360], "developer": [77944], "user": [1428], "assistant": [173781], "analysis": [35644],
             "commentary": [12606, 815], "final": [17196], " to": [316], "=": [28], "json": [4108], " json": [5701],
             " code": [3490], "python": [29010], "browser": [46071], ".search": [16718], "functions": [44580]}  # fmt: skip
    for word, ids in words.items():
        assert o200k_harmony().encode(word) == ids, word


def test_every_ordinary_token_is_its_published_bytes() -> None:
    encoding, reference = o200k_harmony(), published()
    assert read_o200k() == [reference.decode_single_token_bytes(i) for i in range(O200K_RANKS)]
    everything = list(range(O200K_RANKS))
    assert encoding.decode_bytes(everything) == reference.decode_bytes(everything)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(200 if FULL else 8))
def test_equal_to_tiktoken_on_all_planes(seed: int) -> None:
    text = any_text(random.Random(seed), 60_000)
    ids = o200k_harmony().encode(text)
    assert ids == published().encode_ordinary(text)
    assert o200k_harmony().decode(ids) == text


def test_equal_to_tiktoken_on_every_character() -> None:
    """Each code point alone between letters, so that a wrong class of one character shows."""
    for plane in range(17):
        points = range(plane << 16, (plane + 1) << 16)
        if plane in (4, 5, 6, 7, 8, 9, 10, 11, 12, 13):  # nothing is assigned here; a sample will do
            points = range(plane << 16, (plane + 1) << 16, 97)
        for first in range(points.start, points.stop, 8192):
            block = range(first, min(first + 8192, points.stop), points.step)
            text = "".join(f"a{chr(p)}B " for p in block if not 0xD800 <= p < 0xE000)
            assert o200k_harmony().encode(text) == published().encode_ordinary(text), hex(first)


@pytest.mark.fuzz
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@example("\x1c\x1d \x1e\n")
@example("I'LL'sſ'S ǅz")
def test_equal_to_tiktoken_on_what_hypothesis_finds(text: str) -> None:
    assert o200k_harmony().encode(text) == published().encode_ordinary(text)


@pytest.mark.parametrize(
    "run", ["a", "A", "1", "中", "é", "!", "\u0301", "\n", " \n", "ab", "a1", "\r\n", "/", " !", "𝟙", "🙂"]
)
@pytest.mark.parametrize("tail", ["", "x", " ", "\n", "  y"])
def test_long_runs(run: str, tail: str) -> None:
    text = "start " + run * (6000 // len(run)) + tail
    assert o200k_harmony().encode(text) == published().encode_ordinary(text)


@pytest.mark.parametrize("space", [" ", "\t", "\u3000", "\u2009 "])
@pytest.mark.parametrize("before", ["", "x", "\n"])
@pytest.mark.parametrize("after", ["", "x", "!", "\n", "\n\n y", "\x1c", "7", "\u0301"])
def test_very_long_runs_of_spaces_take_another_way_to_the_same_ids(
    space: str, before: str, after: str
) -> None:
    for length in (19_999, 20_000):
        text = before + (space * length)[:length] + after
        assert o200k_harmony().encode(text) == published().encode_ordinary(text), length


def test_two_very_long_runs_with_text_between() -> None:
    text = "a" + " " * 25_000 + "b c" + "\t" * 21_000 + "\r\nd" + " " * 20_001
    assert o200k_harmony().encode(text) == published().encode_ordinary(text)


def test_a_million_spaces_encode() -> None:
    """tiktoken itself gives up on this text."""
    text = "x" + " " * 1_000_001 + "y"
    ids = o200k_harmony().encode(text)
    assert o200k_harmony().decode(ids) == text
    assert len(ids) < 20_000


def test_equal_to_oss_harmony(oss_harmony_encoding: Any) -> None:
    encoding = o200k_harmony()
    for seed in range(100, 140):
        text = any_text(random.Random(seed), 3000)
        ids = encoding.encode(text)
        assert ids == oss_harmony_encoding.encode(text, disallowed_special=())
        assert encoding.decode(ids) == oss_harmony_encoding.decode_utf8(ids)
    text = "<|start|>user<|message|>2+2<|end|><|start|>assistant<|channel|>final<|message|>4<|return|><|reserved_200500|>"
    ids = encoding.encode_with_special(text)
    assert ids == oss_harmony_encoding.encode(text, allowed_special="all")
    assert ids[0] == 200006 and ids[-1] == 200500 and encoding.decode(ids) == text


def test_lone_surrogates_are_mended_as_in_tiktoken() -> None:
    assert (
        o200k_harmony().encode("a\ud800b")
        == o200k_harmony().encode("a\ufffdb")
        == published().encode_ordinary("a\ud800b")
    )
    assert o200k_harmony().encode("\ud83d\ude42") == o200k_harmony().encode("🙂")


def test_a_damaged_vocabulary_file_is_noticed(tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(O200K_FILE.read_bytes()))
    content[1000] ^= 1
    changed, cut = tmp_path / "changed.gz", tmp_path / "cut.gz"
    changed.write_bytes(gzip.compress(bytes(content), 1))
    cut.write_bytes(O200K_FILE.read_bytes()[:-1000])
    for path in (changed, cut, tmp_path / "missing.gz"):
        with pytest.raises(TokenizerError, match="reinstall"):
            read_o200k(path)


# --- vocabularies that folders bring -------------------------------------------------------------------------------------

WORDS = (
    "the quick brown fox jumps over the lazy dog and two numbers 12 + 345 = 357, said the dog: naïve café!\n"
)
ADDED = ["<|start|>", "<|end|>", "<|message|>"]


def train(kind: str) -> dict[str, Any]:
    """A small tokenizer.json as the tokenizers library writes it, with control tokens added at its end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    trainer: Any
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=150, show_progress=False, special_tokens=special, unk_token="<unk>"
        )
    else:  # as the Llama 2 and Gemma families write it: bytes for what the vocabulary lacks
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        marks = [normalizers.Replace(" ", "▁")]
        tail = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if kind == "llama":
            marks.insert(0, normalizers.Prepend("▁"))
            tail.append(decoders.Strip(" ", 1, 0))
        tokenizer.normalizer = normalizers.Sequence(marks)
        tokenizer.decoder = decoders.Sequence(tail)
        trainer = trainers.BpeTrainer(vocab_size=450, show_progress=False,
                                      special_tokens=special + [f"<0x{b:02X}>" for b in range(256)])  # fmt: skip
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    tokenizer.add_special_tokens(ADDED)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    # The library lists the trainer's byte names as added tokens; converters of published checkpoints do not.
    document["added_tokens"] = [t for t in document["added_tokens"] if not t["content"].startswith("<0x")]
    return document


@functools.cache
def trained(kind: str) -> str:
    return json.dumps(train(kind))


KINDS = ["bytes", "llama", "gemma", "unigram"]


def place(folder: Path, document: dict[str, Any] | str, rows: int | None = None) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "tokenizer.json").write_text(text, "utf-8")
    if rows is not None:
        (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return folder


@functools.cache
def mini() -> Encoding:
    """The vocabulary of the embedded model."""
    import motet

    folder = Path(motet.__file__).parent / "models" / "mini"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("the embedded model is not in this tree")
    return load_encoding(folder)


@pytest.fixture(params=[*KINDS, "mini", "o200k_harmony"])
def encoding(request: pytest.FixtureRequest, tmp_path: Path) -> Encoding:
    """Each kind of vocabulary in turn."""
    if request.param == "o200k_harmony":
        return o200k_harmony()
    return mini() if request.param == "mini" else load_encoding(place(tmp_path, trained(request.param)))


def is_total(encoding: Encoding) -> bool:
    """Does every text have ids, that is, does the vocabulary hold all bytes? A plain Unigram one does not."""
    return "<unk>" not in encoding.special_tokens or any(
        encoding.token_bytes(i) == b"\x80" for i in range(encoding.n_vocab)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    library, encoding = Tokenizer.from_str(trained(kind)), load_encoding(place(tmp_path, trained(kind)))
    assert encoding.n_vocab == library.get_vocab_size()
    texts = [WORDS, "the dog", "  two  spaces", "dog\n\nfox", "", " ", "12345"]
    if kind != "unigram":
        texts += [
            "日本語 🙂 \x00",
            *(any_text(random.Random(seed), 300).replace("<|end|>", "") for seed in range(20)),
        ]
    for text in texts:
        ids = library.encode(text, add_special_tokens=False).ids
        assert encoding.encode(text) == ids, text
        assert encoding.decode(ids) == library.decode(ids, skip_special_tokens=False), text


def test_round_trip(encoding: Encoding) -> None:
    texts = [WORDS, "the fox said: 12 + 345", "naïve café!"]
    if is_total(encoding):
        texts += [
            "日本語 🙂\x00\t x",
            "<|start|>user<|message|>",
            *(any_text(random.Random(s), 500) for s in range(10)),
        ]
    for text in texts:
        if (
            encoding._drops_space or "▁" in text
        ):  # these vocabularies cannot tell their space mark from a space
            text = text.replace("▁", "_").strip(" ")
        assert encoding.decode(encoding.encode(text)) == text


def test_control_tokens_in_text_stay_text(encoding: Encoding) -> None:
    names = list(encoding.special_tokens)
    assert len(names) >= 3
    unknown = encoding.special_tokens.get("<unk>")
    rng = random.Random(1)
    texts = [
        *CONTROL,
        *names[:40],
        "a<|start|>b<|end|>",
        "<|start|><|start|>",
        "<|<|start|>start|>",
        " <s> </s><unk>",
    ]
    texts += ["".join(rng.choice([*names, " ", "x", "\n"]) for _ in range(8)) for _ in range(100)]
    for text in texts:
        ids = encoding.encode(text)
        assert not [i for i in ids if encoding.is_special(i) and (i != unknown or is_total(encoding))], text
        if is_total(encoding) and not encoding._drops_space:
            assert encoding.decode(ids) == text


def test_control_tokens_by_name(encoding: Encoding) -> None:
    start, end = encoding.special("<|start|>"), encoding.special("<|end|>")
    text = "<|start|>the dog<|end|>"
    assert encoding.encode_with_special(text) == [start, *encoding.encode("the dog"), end]
    assert encoding.encode_with_special(text, {"<|end|>"}) == [*encoding.encode("<|start|>the dog"), end]
    assert encoding.encode_with_special(text, ()) == encoding.encode(text)
    assert encoding.token_bytes(start) == b"<|start|>"
    with pytest.raises(TokenizerError, match="nonsense"):
        encoding.encode_with_special(text, {"<|nonsense|>"})


def test_streaming_equals_decoding(encoding: Encoding) -> None:
    """For random ids, which are seldom whole characters, and for the ids of texts."""
    rng = random.Random(2)
    streams = [encoding.encode(any_text(random.Random(seed), 200)) for seed in range(20)]
    known = [i for i in range(encoding.n_vocab) if encoding._table[i] is not None]
    streams += [rng.choices(known, k=rng.randrange(60)) for _ in range(300)]
    single = [i for i in known if len(encoding.token_bytes(i)) == 1]
    if single:
        streams += [rng.choices(single, k=40) for _ in range(200)]
    decoder = encoding.stream_decoder()
    for ids in streams:
        assert "".join(map(decoder.feed, ids)) + decoder.flush() == encoding.decode(ids)


def test_streaming_never_splits_a_character(encoding: Encoding) -> None:
    if not is_total(encoding):
        pytest.skip("a vocabulary without single bytes has no parts of characters")
    text = "héllo 日本語 🙂👨‍👩‍👧 ไทย 𝔘𝔫𝔦" * 3
    decoder = encoding.stream_decoder()
    shown = [decoder.feed(i) for i in encoding.encode(text)]
    assert "\ufffd" not in "".join(shown) and "".join(shown) == text and decoder.flush() == ""


@pytest.mark.fuzz
@given(st.binary(max_size=40))
@example(b"\xf0\x9f\x99")
@example(b"\xe2\x82a\xff\xc0\x80")
@example(b"\xed\xa0\x80\xf4\x90\x80\x80")
def test_invalid_utf8_decodes_as_python_decodes_it(data: bytes) -> None:
    encoding = o200k_harmony()
    ids = [published().encode_single_token(bytes([b])) for b in data]
    assert encoding.decode_bytes(ids) == data
    assert encoding.decode(ids) == data.decode("utf-8", "replace")
    decoder = encoding.stream_decoder()
    assert "".join(map(decoder.feed, ids)) + decoder.flush() == data.decode("utf-8", "replace")


def test_an_id_outside_the_vocabulary(encoding: Encoding) -> None:
    for bad in (-1, encoding.n_vocab, 1 << 40):
        with pytest.raises(TokenizerError, match=str(bad)):
            encoding.decode([0, bad])
        assert encoding.stream_decoder().feed(bad) == "\ufffd"
    assert encoding.decode([]) == "" and encoding.decode_bytes([]) == b""


# --- which vocabulary a folder means, and what may be wrong with it ------------------------------------------------------


@functools.cache
def published_json() -> dict[str, Any]:
    """tokenizer.json of the published checkpoints, made from the ranks the way converters do it."""
    tokens = read_o200k()
    ranks = {t: i for i, t in enumerate(tokens)}
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(256, 512))
    letters = {chr(b): chr(b if b in plain else next(rest)) for b in range(256)}
    spelled = [t.decode("latin-1").translate(str.maketrans(letters)) for t in tokens]
    merges = []
    for token, text in zip(tokens, spelled, strict=True):
        cuts = [(ranks.get(token[:k]), ranks.get(token[k:]), k) for k in range(1, len(token))]
        merges += [[text[:k], text[k:]] for a, b, k in cuts if a is not None and b is not None]
    added = [
        {
            "id": i,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for name, i in o200k_harmony().special_tokens.items()
        if i <= 200_018 and name != "<|endofprompt|>"
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": PUBLISHED_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": True, "vocab": dict(zip(spelled, range(len(tokens)), strict=True)), "merges": merges}  # fmt: skip
    return {"version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None, "decoder": level,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "model": model}  # fmt: skip


def test_the_published_file_is_recognised(tmp_path: Path) -> None:
    assert load_encoding(place(tmp_path, published_json(), HARMONY_VOCABULARY)) is o200k_harmony()


def test_a_fine_tune_with_one_more_control_token_is_not_the_published_vocabulary(tmp_path: Path) -> None:
    added = [
        {**t, "content": "<|tool|>"} if t["id"] == 200_013 else t for t in published_json()["added_tokens"]
    ]
    encoding = load_encoding(place(tmp_path, {**published_json(), "added_tokens": added}))
    assert encoding.special("<|tool|>") == 200_013 and encoding.special("<|start|>") == 200_006
    assert encoding.n_vocab == 200_019 and "<|reserved_200013|>" not in encoding.special_tokens
    text = any_text(random.Random(7), 5000) + "<|tool|>"
    ids = encoding.encode(text)
    assert ids == o200k_harmony().encode(text) and encoding.decode(ids) == text


def test_gpt_oss_without_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": HARMONY_VOCABULARY}))
    assert load_encoding(tmp_path) is o200k_harmony()
    (tmp_path / "original").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "original" / "config.json")
    assert load_encoding(tmp_path) is o200k_harmony()
    assert load_encoding(tmp_path / "original") is o200k_harmony()


def test_a_small_vocabulary_in_a_large_model_is_used(tmp_path: Path) -> None:
    assert load_encoding(place(tmp_path, trained("bytes"), HARMONY_VOCABULARY)).n_vocab < 410


def test_missing_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="check the folder's name"):
        load_encoding(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"vocab_size": 5000}')
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        load_encoding(tmp_path)


def test_more_ids_than_rows(tmp_path: Path) -> None:
    n = max(t["id"] for t in json.loads(trained("bytes"))["added_tokens"]) + 1
    assert load_encoding(place(tmp_path, trained("bytes"), n)).n_vocab == n
    with pytest.raises(TokenizerError, match=rf"ids up to {n - 1}.*{n - 1} rows"):
        load_encoding(place(tmp_path, trained("bytes"), n - 1))


def damage(kind: str) -> str:
    document = json.loads(trained("bytes"))
    model = document["model"]
    match kind:
        case "cut":
            return trained("bytes")[:-100]
        case "list":
            return "[1, 2]"
        case "deep":
            return "[" * 100_000
        case "no model":
            del document["model"]
        case "vocab is a list":
            model["vocab"] = list(model["vocab"])
        case "id is text":
            model["vocab"]["a"] = "x"
        case "id is huge":
            model["vocab"]["a"] = 1 << 40
        case "id is negative":
            model["vocab"]["a"] = -1
        case "same id twice":
            model["vocab"]["a"] = model["vocab"]["b"]
        case "merge of nothing":
            model["merges"].append(["zzzz", "qqqq"])
        case "half a merge":
            model["merges"].append(["a"])
        case "added without id":
            del document["added_tokens"][0]["id"]
        case "unknown kind":
            model["type"] = "WordPiece"
        case "no bytes":
            document["pre_tokenizer"] = {"type": "Whitespace"}
            document["decoder"] = None
        case "bad pattern":
            document["pre_tokenizer"] = {
                "type": "Split",
                "pattern": {"Regex": "("},
                "behavior": "Isolated",
                "invert": False,
            }
    return json.dumps(document)


@pytest.mark.parametrize(
    "kind",
    ["cut", "list", "deep", "no model", "vocab is a list", "id is text", "id is huge", "id is negative", "same id twice",
     "merge of nothing", "half a merge", "added without id", "unknown kind", "no bytes", "bad pattern"],
)  # fmt: skip
def test_damaged_files_are_one_sentence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json") as caught:
        load_encoding(place(tmp_path, damage(kind)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_control_tokens_that_the_model_itself_could_build(tmp_path: Path) -> None:
    """A vocabulary whose merges spell a control token, or that takes whole words before merging."""
    document = train("bytes")
    vocab, merges = document["model"]["vocab"], document["model"]["merges"]
    size = len(vocab)
    for i, piece in enumerate(["<s", "<s>"]):
        vocab[piece] = size + i
    merges[:0] = [["<", "s"], ["<s", ">"]]
    document["model"]["ignore_merges"] = True
    document["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    document["added_tokens"] = [
        {"id": size + 1, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ]  # fmt: skip
    encoding = load_encoding(place(tmp_path, document))
    assert encoding.encode("<s>") == [size, vocab[">"]]
    assert encoding.special("<s>") == size + 1


def test_line_breaks_listed_as_added_tokens_still_encode(tmp_path: Path) -> None:
    document = json.loads(trained("gemma"))
    i = document["model"]["vocab"]["\n"]
    document["added_tokens"].append(
        {
            "id": i,
            "content": "\n",
            "special": False,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
    )
    encoding = load_encoding(place(tmp_path, document))
    assert encoding.encode("\n") == [i] and not encoding.is_special(i)

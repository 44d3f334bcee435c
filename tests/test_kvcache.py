"""Pages of keys and values: whatever was forked, truncated, shared, dropped or reused, the bits are those of a fresh run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from motet import kernels
from motet.config import ModelConfig
from motet.errors import UsageError
from motet.kernels import PAGE
from motet.kvcache import Cache, Pages, PagesFull, Table
from motet.model import Model, Span, load
from motet.synth import random_checkpoint

TINY = ModelConfig(
    num_hidden_layers=4, num_experts=4, experts_per_token=2, vocab_size=61, hidden_size=32, intermediate_size=32,
    swiglu_limit=7.0, head_dim=16, num_attention_heads=4, num_key_value_heads=2, sliding_window=16,
    initial_context_length=512, rope_theta=150000.0, rope_scaling_factor=1.0, rope_ntk_alpha=1.0, rope_ntk_beta=32.0,
    eos_token_ids=(2,), pad_token_id=0,
)  # fmt: skip
SHAPES = {
    "alternating": TINY,
    "window of a page": dataclasses.replace(TINY, sliding_window=64),
    "window beyond a page": dataclasses.replace(TINY, sliding_window=100, num_key_value_heads=1),
    "window 1": dataclasses.replace(TINY, sliding_window=1, num_key_value_heads=4),
    "all sliding": dataclasses.replace(TINY, layer_types=("sliding_attention",) * 4, sliding_window=70),
    "all full": dataclasses.replace(TINY, layer_types=("full_attention",) * 4, head_dim=10),
}


def model_of(shape: ModelConfig, folder: Path, precision: str = "int8") -> Model:
    os.environ["MOTET_CACHE"] = str(folder / "cache")
    random_checkpoint(shape, folder / "m", layout="hf", seed=5, experts="mxfp4")
    return load(folder / "m", precision=precision)


@pytest.fixture(scope="module", params=list(SHAPES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model_of(SHAPES[request.param], tmp_path_factory.mktemp("kv"))


@pytest.fixture
def alternating(tmp_path: Path) -> Model:
    return model_of(TINY, tmp_path)


def ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, TINY.vocab_size, count).tolist()


def bits(y: np.ndarray) -> bytes:
    return np.ascontiguousarray(y).tobytes()


def run(model: Model, cache: Cache, text: list[int]) -> np.ndarray:
    return model.forward([Span(text, cache, "all")])[0]


def held_by(caches: list[Cache]) -> int:
    """Bytes of the different pages in the caches' tables."""
    return sum(
        len({n for c in caches for n in c.table(i).numbers}) * pool.layout.nbytes
        for i, pool in enumerate(caches[0].pages.pools)
    )


class Life:
    """Sequences of one model with the ids they hold; every row of logits is compared with a pass over those ids alone."""

    def __init__(self, model: Model, rng: np.random.Generator) -> None:
        self.model, self.rng = model, rng
        self.root = ids(500)
        self.fresh: dict[tuple[int, ...], np.ndarray] = {}
        self.live: list[tuple[Cache, list[int]]] = [(model.new_cache(), [])]

    def run(self, chosen: list[tuple[Cache, list[int]]]) -> None:
        spans = []
        for cache, text in chosen:
            n = int(self.rng.choice((1, 1, 3, 20, 64, 90)))
            # Mostly the same text, so that sequences that part hold pages of equal contents.
            old = self.rng.random() < 0.7
            spans.append(Span(self.root[len(text) : len(text) + n] if old else ids(n, 1), cache, "all"))
        for (_, text), span, y in zip(chosen, spans, self.model.forward(spans), strict=True):
            text += span.ids
            if tuple(text) not in self.fresh:
                self.fresh[tuple(text)] = self.model.logits(text)
            assert bits(y) == bits(self.fresh[tuple(text)][-len(span.ids) :])

    def fork(self, at: int) -> None:
        cache, text = self.live[at]
        length = int(self.rng.integers(0, len(text) + 1))
        try:
            other = cache.fork(length, share=bool(self.rng.integers(0, 4)))
        except ValueError:
            length, other = len(text), cache.fork()
        self.live.append((other, text[:length]))

    def draft(self, at: int) -> None:
        """Some positions more, of which some are rejected."""
        cache, text = self.live[at]
        before = len(text)
        self.run([self.live[at]])
        back = int(self.rng.integers(before, len(text) + 1))
        cache.truncate(back)
        del text[back:]

    def step(self) -> None:
        at = int(self.rng.integers(0, len(self.live)))
        short = [s for s in self.live if len(s[1]) < 350]
        match self.rng.choice(["run", "run", "run", "fork", "draft", "drop"]):
            case "run" if short:
                self.run([s for s in short if self.rng.random() < 0.6] or short[:1])
            case "draft" if self.live[at] in short:
                self.draft(at)
            case "fork" if len(self.live) < 6:
                self.fork(at)
            case "drop" if len(self.live) > 1:
                del self.live[at]


def test_forks_truncations_and_interleavings_change_no_bit(model: Model) -> None:
    life = Life(model, np.random.default_rng(11))
    for _ in range(3000 if os.environ.get("MOTET_FUZZ") == "full" else 250):
        life.step()
        assert [c.length for c, _ in life.live] == [len(t) for _, t in life.live]
        assert model.pages.nbytes == held_by([c for c, _ in life.live])
    life.live.clear()
    assert model.pages.nbytes == 0


def test_a_cache_that_keeps_forks_and_truncates_anywhere(model: Model) -> None:
    text = ids(300)
    want = model.logits(text)
    cache = model.pages.new_cache(keep=True)
    run(model, cache, text)
    for length in (299, 257, 256, 128, 65, 64, 63, 1, 0):
        other = cache.fork(length)
        assert bits(run(model, other, text[length : length + 5])) == bits(want[length : length + 5])
        cache.truncate(length)
        assert cache.length == length
    assert bits(run(model, cache, text)) == bits(want)


def test_sliding_layers_hold_a_constant_number_of_pages(model: Model) -> None:
    cache = model.new_cache()
    for _ in range(12):
        run(model, cache, ids(40))
    cache.trim()
    for n, pool in enumerate(model.pages.pools):
        held = len(cache.table(n).numbers)
        assert held <= (pool.window + 2 * PAGE - 2) // PAGE if pool.window else held == -(-480 // PAGE)


def test_truncating_behind_the_window_is_refused_and_changes_nothing(alternating: Model) -> None:
    cache, text = alternating.new_cache(), ids(330)  # the second step takes pages, so it lets go of some
    run(alternating, cache, text[:290])
    run(alternating, cache, text[290:])
    for length in (10, 331, -1):
        with pytest.raises(ValueError, match="dropped" if length == 10 else "not within"):
            cache.truncate(length)
        with pytest.raises(ValueError, match="dropped" if length == 10 else "not within"):
            cache.fork(length)
    assert bits(run(alternating, cache, [1])) == bits(alternating.logits([*text, 1])[-1:])
    cache.truncate(0)
    assert bits(run(alternating, cache, text[:3])) == bits(alternating.logits(text[:3]))


def test_pages_outlive_their_sequence_and_start_another(model: Model) -> None:
    """What prefix reuse does: hold pages by number, drop the cache, begin again where it branches."""
    text, pools = ids(200), model.pages.pools
    cache = model.new_cache()
    run(model, cache, text[:128])
    kept = [cache.table(n) for n in range(len(pools))]
    for pool, table in zip(pools, kept, strict=True):
        for number in table.numbers:
            pool.share(number)
    del cache
    model.pages.collect()
    need = [p.first_needed(128) for p in pools]
    tables = [Table(n, t.numbers[n - t.first :]) for n, t in zip(need, kept, strict=True)]
    first, second = (model.pages.new_cache(128, tables) for _ in range(2))
    want = model.logits(text)
    assert bits(run(model, first, text[128:])) == bits(want[128:])
    assert bits(run(model, second, [5, 6])) == bits(model.logits([*text[:128], 5, 6])[-2:])
    with pytest.raises(ValueError, match="pool"):
        model.pages.new_cache(200, tables)
    del first, second
    model.pages.collect()
    for pool, table in zip(pools, kept, strict=True):
        assert {pool.holders(n) for n in table.numbers} == {1}
        for number in table.numbers:
            pool.release(number)
    assert model.pages.nbytes == 0


def test_a_shared_partial_page_is_copied_by_whoever_writes(alternating: Model) -> None:
    cache = alternating.new_cache()
    run(alternating, cache, ids(70))
    other = cache.fork()
    assert other.table(0) == cache.table(0)
    run(alternating, other, [1])
    ours, theirs = cache.table(0).numbers, other.table(0).numbers
    assert ours[0] == theirs[0] and ours[1] != theirs[1]
    assert alternating.pages.pools[0].holders(ours[1]) == 1


def test_a_full_budget_is_refused_before_anything_is_computed(alternating: Model) -> None:
    pages = alternating.pages
    page = sum(p.layout.nbytes for p in pages.pools)
    pages.budget = 3 * page
    first, second = alternating.new_cache(), alternating.new_cache()
    want = run(alternating, first, ids(64))
    before = pages.nbytes
    with pytest.raises(PagesFull, match=r"raise the budget"):
        alternating.forward([Span(ids(65), first), Span(ids(65), second)])
    assert pages.nbytes == before and (first.length, second.length) == (64, 0)
    assert second.missing(65) == (2, 2) and first.missing(64) == (1, 1) and first.missing(0) == (0, 0)
    assert bits(run(alternating, second, ids(64))) == bits(want)
    first.release()
    assert pages.nbytes == page
    run(alternating, second, ids(64, 1))
    shared = second.fork()
    pages.budget = pages.nbytes
    assert shared.missing(1) == (1, 1)
    with pytest.raises(PagesFull):
        run(alternating, shared, [1])
    shared.truncate(100)  # inside a page that both hold: writing there takes a copy
    assert shared.missing(1) == (1, 1)
    with pytest.raises(PagesFull):
        run(alternating, shared, [1])


@pytest.mark.parametrize("kind", kernels.KV_KINDS)
def test_page_bytes_are_what_the_sizes_say(kind: str) -> None:
    pages = Pages(TINY, kind)
    per_position = {"bf16": 2 * 2, "float32": 4 * 2, "int8": 2}[kind]
    # head_dim 16: values are stored in rows of 32; int8 adds two float scales a position.
    want = 2 * 2 * PAGE * (16 + 32) * per_position // 2 + (2 * 2 * 2 * PAGE * 4 if kind == "int8" else 0)
    assert [p.layout.nbytes for p in pages.pools] == [want, want]
    assert [p.window for p in pages.pools] == [0, 16]
    assert pages.bytes_of((1, 2)) == 3 * want


@pytest.mark.skipif(kernels.backend != "native", reason="compares instruction sets of the native module")
@pytest.mark.parametrize("kind", kernels.KV_KINDS)
@pytest.mark.parametrize("window", [0, 100])
def test_attention_has_one_set_of_bits(kind: str, window: int) -> None:
    """On every instruction set, with any number of threads, whole, in pieces and one position at a time, across splits."""
    length, heads, kv, dim = 1100, 10, 2, 24
    rng = np.random.default_rng(3)
    text = rng.standard_normal((length, (heads + 2 * kv) * dim)).astype(np.float32)
    sinks = rng.standard_normal(heads).astype(np.float32)
    angle = rng.standard_normal((length, dim // 2)).astype(np.float32)
    config = dataclasses.replace(
        TINY, num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, sliding_window=100
    )

    def outputs(pieces: list[int]) -> np.ndarray:
        pages = Pages(config, kind)
        pool, _ = pages.places[0 if window else 1]
        cache, other, rows = pages.new_cache(keep=True), pages.new_cache(keep=True), []
        for n in pieces:
            wants = [(other, 7), (cache, n)]
            pages.reserve(wants)
            paged = pages.step(wants)[pool]
            now = slice(cache.length, cache.length + n)
            qkv = np.concatenate([text[:7], text[now]])
            at = np.concatenate([angle[:7], angle[now]])
            kernels.rope(qkv, np.cos(at), np.sin(at), heads, paged, 0)
            rows.append(kernels.attention(qkv, heads, paged, 0, window, sinks)[7:])
            cache.length += n
        return np.concatenate(rows)

    before = kernels.threads()
    seen = set()
    try:
        for isa in kernels.isas():
            with kernels.use_isa(isa):
                for threads in (3,) if isa == "scalar" else (1, 3):
                    kernels.set_threads(threads)
                    seen |= {
                        bits(outputs(p)[-30:]) for p in ([length], [500, 570, 1, 9, 8, 12], [1070] + [1] * 30)
                    }
    finally:
        kernels.set_threads(before)
    assert len(seen) == 1


def test_int8_pages_hold_half_and_stay_near(alternating: Model) -> None:
    """A stored number is off by up to 1/254 of its row's largest; the median position, as experts may change."""
    text = ids(200)
    folder = alternating.folder
    exact = load(folder, precision="float32").logits(text)
    small = load(folder, precision="float32", kv="int8")
    assert small.kv == "int8" and small.pages.pools[0].layout.kind == "int8"
    off = np.sqrt(((small.logits(text) - exact) ** 2).mean(-1) / (exact**2).mean(-1))
    assert 0 < np.median(off) < 0.02
    with pytest.raises(UsageError, match="choose bf16, float32, int8"):
        load(folder, kv="int4")
    model = load(folder, kv="int8")
    assert model.pages.pools[0].layout.nbytes < alternating.pages.pools[0].layout.nbytes
    whole, cache = model.logits(text), model.new_cache()
    parts = [run(model, cache, text[:100]), *(run(model, cache, [i]) for i in text[100:])]
    assert bits(np.concatenate(parts)) == bits(whole)

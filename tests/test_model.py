"""The fast path against motet.reference on random checkpoints of many shapes, and its promise of one set of bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from motet import kernels
from motet.config import ModelConfig
from motet.errors import UserError
from motet.model import ContextError, Model, Span, load
from motet.reference import Reference
from motet.synth import random_checkpoint

EPS = 2.0**-23


def config(**changes: object) -> ModelConfig:
    """A small model in the published proportions, with `changes`."""
    values: dict[str, object] = dict(
        num_hidden_layers=4, num_experts=8, experts_per_token=3, vocab_size=211, hidden_size=96, intermediate_size=64,
        swiglu_limit=7.0, head_dim=16, num_attention_heads=8, num_key_value_heads=2, sliding_window=16,
        initial_context_length=64, rope_theta=150000.0, rope_scaling_factor=8.0, rope_ntk_alpha=1.0,
        rope_ntk_beta=32.0, eos_token_ids=(2,), pad_token_id=0,
    )  # fmt: skip
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


SHAPES: dict[str, tuple[ModelConfig, str, str]] = {
    "published proportions": (config(), "hf", "mxfp4"),
    "openai layout": (config(), "openai", "mxfp4"),
    "plain bf16 experts": (config(), "hf", "bfloat16"),
    "float32 experts": (config(num_hidden_layers=2), "hf", "float32"),
    "sizes off the tiles": (
        config(hidden_size=74, intermediate_size=41, head_dim=10, vocab_size=131, num_attention_heads=6), "hf", "bfloat16",
    ),
    "one expert of one": (config(num_experts=1, experts_per_token=1), "hf", "mxfp4"),
    "all experts": (config(num_experts=5, experts_per_token=5), "hf", "mxfp4"),
    "window 1": (config(sliding_window=1), "hf", "mxfp4"),
    "window beyond the text": (config(sliding_window=400), "hf", "mxfp4"),
    "multi-head": (config(num_key_value_heads=8), "hf", "mxfp4"),
    "one kv head": (config(num_key_value_heads=1), "hf", "mxfp4"),
    "no rope scaling": (config(rope_scaling_factor=1.0, initial_context_length=512), "hf", "mxfp4"),
    "full attention only": (config(layer_types=("full_attention",) * 4), "hf", "mxfp4"),
    "no attention bias": (config(attention_bias=False), "hf", "mxfp4"),
    "tied embeddings": (config(tie_word_embeddings=True), "hf", "mxfp4"),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SHAPES))
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Reference, list[int]]:
    """A checkpoint folder, the reference on it, and ids longer than the window."""
    shape, layout, experts = SHAPES[request.param]
    folder = tmp_path_factory.mktemp("shape") / "model"
    random_checkpoint(shape, folder, layout=layout, seed=3, experts=experts)
    ids = np.random.default_rng(1).integers(0, shape.vocab_size, 75).tolist()
    return folder, Reference.from_checkpoint(folder).eval(), ids


@pytest.fixture(autouse=True)
def packs_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def truth(reference: Reference, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return reference(torch.tensor([ids]))[0].float().numpy()


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def off(got: np.ndarray, want: np.ndarray) -> float:
    """Relative root mean square difference of a row of logits, at the median position."""
    return float(np.median([rms(g - w) / rms(w) for g, w in zip(got, want, strict=True)]))


def test_float32_equals_the_reference(case: tuple[Path, Reference, list[int]]) -> None:
    folder, reference, ids = case
    want, got = truth(reference, ids), load(folder, precision="float32").logits(ids)
    c = reference.config
    # Rounding errors of independent sums grow with the square root of their length; layers add up, RoPE angles included.
    tolerance = (
        EPS
        * 16
        * (1 + c.num_hidden_layers)
        * np.sqrt(c.hidden_size + c.intermediate_size)
        * np.abs(want).max()
    )
    assert np.abs(got - want).max() <= tolerance


def test_bf16_is_as_near_to_float32_as_the_reference_in_bf16(case: tuple[Path, Reference, list[int]]) -> None:
    """The median position, for the reason given below."""
    folder, reference, ids = case
    want = truth(reference, ids)
    theirs = truth(Reference.from_checkpoint(folder, torch.bfloat16).eval(), ids)
    assert off(load(folder, precision="bf16").logits(ids), want) <= off(theirs, want)


def test_int8_stays_near(case: tuple[Path, Reference, list[int]]) -> None:
    """Each block's values are off by up to 1/254 of its largest. The median position: a rounding that tips the router's
    choice between two nearly equal experts changes a single position by as much as the experts differ.
    """
    folder, reference, ids = case
    want, got = truth(reference, ids), load(folder, precision="int8").logits(ids)
    assert off(got, want) <= 0.05


@pytest.mark.parametrize("precision", ["int8", "bf16", "float32"])
def test_chunks_batches_and_threads_change_no_bit(
    case: tuple[Path, Reference, list[int]], precision: str
) -> None:
    folder, _, ids = case
    model = load(folder, precision=precision)
    whole = model.logits(ids)
    rng = np.random.default_rng(8)
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        got = _in_pieces(model, [ids, ids[5:40], ids[::-1]], rng)
        np.testing.assert_array_equal(got[0].view(np.uint32), whole.view(np.uint32))
        np.testing.assert_array_equal(got[1].view(np.uint32), model.logits(ids[5:40]).view(np.uint32))
    kernels.set_threads(1)


def _in_pieces(model: Model, texts: list[list[int]], rng: np.random.Generator) -> list[np.ndarray]:
    """Logits of every position, run in random pieces and random company."""
    caches, out = [model.new_cache() for _ in texts], [[] for _ in texts]  # type: tuple[list, list[list[np.ndarray]]]
    while any(c.length < len(t) for c, t in zip(caches, texts, strict=True)):
        rows, spans = [], []
        for i in rng.permutation(len(texts)):
            left = texts[i][caches[i].length :]
            if left and rng.random() < 0.7:
                rows.append(i)
                spans.append(Span(left[: int(rng.choice((1, 2, 17, 64)))], caches[i], "all"))
        for i, y in zip(rows, model.forward(spans) if spans else [], strict=True):
            out[i].append(y)
    return [np.concatenate(parts) for parts in out]


def test_a_long_context_agrees_beyond_the_trained_length(tmp_path: Path) -> None:
    shape = config(
        num_hidden_layers=2, hidden_size=32, intermediate_size=32, vocab_size=64, rope_scaling_factor=32.0
    )
    random_checkpoint(shape, tmp_path / "m", layout="hf", seed=1, experts="mxfp4")
    ids = np.random.default_rng(2).integers(0, 64, 1500).tolist()
    want = truth(Reference.from_checkpoint(tmp_path / "m").eval(), ids)[-200:]
    got = load(tmp_path / "m", precision="float32").logits(ids)[-200:]
    assert np.abs(got - want).max() <= EPS * 16 * 3 * 8 * 8 * np.abs(want).max()


@pytest.mark.parametrize(("precision", "allowed"), [("float32", EPS * 16 * 5 * 13), ("int8", 0.05)])
def test_the_numpy_backend_runs_the_whole_model(tmp_path: Path, precision: str, allowed: float) -> None:
    """In int8 a last bit of float32 decides some roundings, so two backends differ as int8 differs from float32."""
    random_checkpoint(config(), tmp_path / "m", layout="hf", seed=4, experts="mxfp4")
    code = (
        "import sys, numpy as np, motet; m = motet.load(sys.argv[1], precision=sys.argv[4]); from motet import kernels;"
        "assert kernels.isa() == sys.argv[3], kernels.isa(); np.save(sys.argv[2], m.logits(list(range(40))))"
    )
    got = []
    for backend, isa in (("numpy", "numpy"), ("native", kernels.isa())):
        env = os.environ | {"MOTET_KERNELS": backend, "MOTET_CACHE": str(tmp_path / "c")}
        out = tmp_path / f"{backend}.npy"
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m"), str(out), isa, precision], env=env, check=True
        )
        got.append(np.load(out))
    assert off(got[1], got[0]) <= allowed


def test_only_wanted_rows_come_back(case: tuple[Path, Reference, list[int]]) -> None:
    folder, _, ids = case
    model = load(folder)
    caches = [model.new_cache() for _ in range(3)]
    spans = [
        Span(ids[:5], caches[0], "none"),
        Span(ids[:7], caches[1], "last"),
        Span(ids[:3], caches[2], "all"),
    ]
    assert [y.shape[0] for y in model.forward(spans)] == [0, 1, 3]
    assert [c.length for c in caches] == [5, 7, 3]


def test_bad_input_is_refused_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    random_checkpoint(config(), tmp_path / "m", layout="hf", seed=4, experts="mxfp4")
    model = load(tmp_path / "m")
    cache = model.new_cache()
    with pytest.raises(ContextError, match="shorten the prompt"):
        model.forward([Span([1] * 513, cache)])
    with pytest.raises(UserError, match="211"):
        model.forward([Span([1, 211], cache)])
    with pytest.raises(UserError, match="at least one"):
        model.forward([Span([], cache)])
    with pytest.raises(UserError, match="share a cache"):
        model.forward([Span([1], cache), Span([2], cache)])
    with pytest.raises(UserError, match="int8, bf16, float32"):
        load(tmp_path / "m", precision="int4")
    assert cache.length == 0


def test_a_cache_of_another_model_is_refused(tmp_path: Path) -> None:
    random_checkpoint(config(), tmp_path / "m", layout="hf", seed=4, experts="mxfp4")
    ours, theirs = load(tmp_path / "m"), load(tmp_path / "m")
    with pytest.raises(UserError, match="another model"):
        ours.forward([Span([1], theirs.new_cache())])

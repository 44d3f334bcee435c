"""Each op on each instruction set against its numpy twin, and the promise that int8 mode has one set of bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from motet import kernels
from motet.kernels import compare
from motet.kernels.layout import KINDS, Matrix, bf16_to_f32, f32_to_bf16, matrix

pytestmark = pytest.mark.skipif(kernels.backend != "native", reason="needs the native module")
ISAS = kernels.isas()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", compare.CASES)
@pytest.mark.parametrize("seed", range(4))
def test_op_equals_its_twin(op: str, isa: str, seed: int) -> None:
    result = compare.run(op, isa, seed)
    assert result.cases >= len(compare.SIZES)
    assert result.ok, result


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = compare.reference.rms_norm
    monkeypatch.setattr(compare.reference, "rms_norm", lambda x, g, eps: twin(x, g, eps) * np.float32(1.001))
    assert not compare.run("rms_norm", ISAS[-1]).ok


@pytest.fixture(scope="module")
def expert_stack() -> dict[str, Matrix]:
    rng = np.random.default_rng(5)
    return {
        "w1": compare.stack("mxfp4", rng, 6, 2 * 96, 64, pairs=True),
        "w2": compare.stack("mxfp4", rng, 6, 64, 96),
        "dense": compare.stack("int8", rng, 1, 100, 77),
    }


def _int8_outputs(w: dict[str, Matrix], rows: slice) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    x, h = rng.standard_normal((23, 64)).astype(np.float32), rng.standard_normal((23, 77)).astype(np.float32)
    ids, weight = kernels.route(rng.standard_normal((23, 6)).astype(np.float32), 3)
    bias = rng.standard_normal((6, 96)).astype(np.float32), rng.standard_normal((6, 96)).astype(np.float32)
    out = x[rows].copy()
    b2 = rng.standard_normal((6, 64)).astype(np.float32)
    kernels.moe(
        out, kernels.quantize(x[rows]), ids[rows], weight[rows], w["w1"], bias, w["w2"], b2, 1.702, 7.0
    )
    normed = kernels.rms_norm(x[rows], np.ones(64, np.float32), 1e-5)
    return [out, kernels.linear(w["dense"], kernels.quantize(h[rows])), normed]


@pytest.mark.parametrize("isa", ISAS)
def test_int8_mode_has_the_same_bits_on_every_instruction_set(
    isa: str, expert_stack: dict[str, Matrix]
) -> None:
    with kernels.use_isa("scalar"):
        want = _int8_outputs(expert_stack, slice(None))
    with kernels.use_isa(isa):
        got = _int8_outputs(expert_stack, slice(None))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [slice(0, 1), slice(7, 8), slice(3, 20), slice(22, 23)])
def test_a_row_has_the_same_bits_alone_and_in_a_batch(
    rows: slice, isa: str, expert_stack: dict[str, Matrix]
) -> None:
    with kernels.use_isa(isa):
        want, got = _int8_outputs(expert_stack, slice(None)), _int8_outputs(expert_stack, rows)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b[rows].view(np.uint32))


@pytest.fixture(scope="module")
def wide_weights() -> dict[str, Matrix]:
    """Columns for several spans of ops/packed.h and a ragged last one; an odd number of tiles; experts of both kinds."""
    rng = np.random.default_rng(6)
    return {
        "mxfp4": compare.stack("mxfp4", rng, 1, 70, 39 * 32),
        "int8": compare.stack("int8", rng, 1, 33, 38 * 32 + 5),
        "w1": compare.stack("mxfp4", rng, 3, 2 * 32, 20 * 32, pairs=True),
        "w2": compare.stack("mxfp4", rng, 3, 20 * 32, 32),
        "v1": compare.stack("int8", rng, 3, 2 * 19, 610, pairs=True),
        "v2": compare.stack("int8", rng, 3, 610, 19),
    }


def _row_by_row(w: dict[str, Matrix], name: str, x: np.ndarray, rows: list[int]) -> np.ndarray:
    """One product, or with `name` "w" or "v" a mixture of two experts of three, of these rows together."""
    if name in w:
        return kernels.linear(w[name], kernels.quantize(x[rows]))
    width = w[name + "2"].cols
    rng = np.random.default_rng(3)
    gate, up, b2 = (rng.standard_normal((3, n)).astype(np.float32) for n in (width, width, x.shape[1]))
    ids, weights = kernels.route(np.ascontiguousarray(x[rows, 4:7] * 3), 2)
    out = x[rows].copy()
    kernels.moe(
        out, kernels.quantize(x[rows]), ids, weights, w[name + "1"], (gate, up), w[name + "2"], b2, 1.702, 7.0
    )
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["mxfp4", "int8", "w", "v"])
def test_random_batches_on_any_number_of_threads_change_no_bit(
    name: str, isa: str, wide_weights: dict[str, Matrix]
) -> None:
    """The truth: the portable target, one row at a time, one thread."""
    rng = np.random.default_rng([8, len(isa), len(name)])
    cols = wide_weights[name if name in wide_weights else name + "1"].cols
    x = (rng.standard_normal((67, cols)) * np.exp(rng.standard_normal((67, 1)))).astype(np.float32)
    before = kernels.threads()
    try:
        kernels.set_threads(1)
        with kernels.use_isa("scalar"):
            want = np.concatenate([_row_by_row(wide_weights, name, x, [i]) for i in range(len(x))])
        with kernels.use_isa(isa):
            for size in (67, *(int(rng.integers(1, 67)) for _ in range(12)), *range(1, 20)):
                rows = rng.permutation(len(x))[:size].tolist()
                kernels.set_threads(int(rng.integers(1, 4)))
                got = _row_by_row(wide_weights, name, x, rows)
                np.testing.assert_array_equal(got.view(np.uint32), want[rows].view(np.uint32), f"{size} rows")
    finally:
        kernels.set_threads(before)


def test_threads_change_no_bit(expert_stack: dict[str, Matrix]) -> None:
    before = kernels.threads()
    try:
        outs = []
        for n in (1, 2, 3):
            kernels.set_threads(n)
            outs.append(_int8_outputs(expert_stack, slice(None)))
    finally:
        kernels.set_threads(before)
    for other in outs[1:]:
        for a, b in zip(other, outs[0], strict=True):
            np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("kind", KINDS)
def test_packing_and_unpacking_gives_the_weights_back(kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind == "mxfp4":
        from motet.mxfp4 import dequantize

        blocks, scales = (
            rng.integers(0, 256, (37, 3, 16), dtype=np.uint8),
            rng.integers(100, 140, (37, 3), dtype=np.uint8),
        )
        np.testing.assert_array_equal(matrix(kind, (blocks, scales)).dense(), dequantize(blocks, scales))
        return
    w = rng.standard_normal((37, 70)).astype(np.float32)
    if kind == "f32":
        np.testing.assert_array_equal(matrix(kind, w).dense(), w)
    elif kind == "bf16":
        np.testing.assert_array_equal(matrix(kind, f32_to_bf16(w)).dense(), bf16_to_f32(f32_to_bf16(w)))
    else:
        block_top = np.abs(np.pad(w, ((0, 0), (0, 26)))).reshape(37, 3, 32).max(-1)
        error = np.abs(np.pad(matrix(kind, w).dense() - w, ((0, 0), (0, 26)))).reshape(37, 3, 32).max(-1)
        assert (error <= block_top / 127 * (1 + 2**-7) / 2 * 1.0001).all()


def test_gate_and_up_come_back_apart() -> None:
    rng = np.random.default_rng(2)
    w = rng.standard_normal((2 * 21, 40)).astype(np.float32)
    from motet.kernels.layout import interleave_tiles, tile_rows

    data, scales = tile_rows("f32", interleave_tiles(w))
    gate, up = Matrix("f32", 1, 42, 40, 4, data, scales).dense_pair(0)
    np.testing.assert_array_equal(gate, w[::2])
    np.testing.assert_array_equal(up, w[1::2])


def test_extreme_values_stay_finite_or_become_nan_not_garbage() -> None:
    x = np.zeros((2, 64), np.float32)
    x[0, 3], x[1, 5] = 3e38, 1e-42
    acts = kernels.quantize(x).arrays()
    assert np.isfinite(acts["scale"]).all()
    assert abs(acts["q"][0, 3]) == 127


@pytest.mark.parametrize("name", ["avx9", ""])
def test_an_instruction_set_the_cpu_lacks_is_refused(name: str) -> None:
    with pytest.raises(kernels.KernelError, match="choose"), kernels.use_isa(name):
        pass


def test_two_threads_calling_at_once_do_not_disturb_each_other(expert_stack: dict[str, Matrix]) -> None:
    """Two engines in one process: the native workers are shared, so calls take turns."""
    want = _int8_outputs(expert_stack, slice(None))
    before = kernels.threads()
    kernels.set_threads(3)
    try:
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(_int8_outputs, expert_stack, slice(None)) for _ in range(200)]
            for run in runs:
                for a, b in zip(run.result(), want, strict=True):
                    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
    finally:
        kernels.set_threads(before)

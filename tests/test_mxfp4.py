"""motet.mxfp4: nibble order, exact round trip, the rounding rule, and agreement with the trainer's own arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motet.errors import UserError
from motet.mxfp4 import VALUES, MXFP4Error, dequantize, quantize

GRID = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def test_one_block_by_hand() -> None:
    blocks = np.zeros((1, 16), np.uint8)
    blocks[0, 0] = 0x21  # low nibble 1 = 0.5 comes first, high nibble 2 = 1.0 second
    blocks[0, 15] = 0xF7  # 6 and then -6
    w = dequantize(blocks, np.array([128], np.uint8))
    assert w.shape == (32,) and w.dtype == np.float32
    assert (w[0], w[1], w[30], w[31]) == (1.0, 2.0, 12.0, -12.0)
    assert not w[2:30].any()


def test_table() -> None:
    assert VALUES.tolist() == GRID + [-x for x in GRID]
    assert np.signbit(VALUES[8]) and not VALUES.flags.writeable


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5, 7), (0, 4)])
def test_stored_numbers_come_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    blocks = rng.integers(0, 256, (*shape, 16), np.uint8)
    scales = rng.integers(0, 252, shape, np.uint8)
    w = dequantize(blocks, scales)
    assert w.shape == (*shape[:-1], shape[-1] * 32)
    again = dequantize(*quantize(w))
    assert np.array_equal(w.view(np.uint32), again.view(np.uint32))


def test_blocks_in_normal_form_come_back_as_the_same_bytes() -> None:
    """With an element of 4 or 6 in every block the scale is the one quantize chooses, so bytes are equal too."""
    rng = np.random.default_rng(0)
    blocks, scales = rng.integers(0, 256, (64, 9, 16), np.uint8), rng.integers(0, 252, (64, 9), np.uint8)
    blocks[..., 3] = rng.choice(np.array([0x06, 0x60, 0x7E, 0xF1], np.uint8), (64, 9))
    again, scales_again = quantize(dequantize(blocks, scales))
    assert np.array_equal(again, blocks) and np.array_equal(scales_again, scales)


def nearest(x: Fraction) -> Fraction:
    """The E2M1 number nearest to x >= 0, ties to the even mantissa, saturating."""
    best = min(range(8), key=lambda i: (abs(Fraction(GRID[i]) - x), i % 2))
    return Fraction(GRID[best])


@settings(max_examples=300, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        32,
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.integers(-64, 64).map(lambda n: n / 8),
    )
)
def test_rounding_is_exact_nearest_even(w: np.ndarray) -> None:
    blocks, scales = quantize(w)
    largest = Fraction(float(np.abs(w).max()))
    if largest == 0:
        assert scales[0] == 0 and np.array_equal(dequantize(blocks, scales), w)
        return
    exponent = 0
    while Fraction(2) ** (exponent + 1) <= largest:
        exponent += 1
    while Fraction(2) ** exponent > largest:
        exponent -= 1
    assert int(scales[0]) - 127 == max(exponent - 2, -127)
    unit = Fraction(2) ** (int(scales[0]) - 127)
    for x, y in zip(w.tolist(), dequantize(blocks, scales).tolist(), strict=True):
        assert abs(Fraction(y)) == nearest(abs(Fraction(x)) / unit) * unit
        assert np.signbit(x) == np.signbit(y)


def test_ties_by_hand() -> None:
    w = np.zeros(32, np.float32)
    w[:9] = [6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -2.5]
    assert dequantize(*quantize(w))[:9].tolist() == [6, 0, 1, 1, 2, 2, 4, 4, -2]
    w[0] = 7.9  # the exponent is still 2, so everything beyond 6 saturates
    assert dequantize(*quantize(w))[0] == 6


def test_the_ends_of_float32() -> None:
    tiny, huge = np.float32(2.0**-149), np.finfo(np.float32).max
    w = np.zeros((2, 32), np.float32)
    w[0, 0], w[1, 0] = tiny, huge
    blocks, scales = quantize(w)
    assert scales.tolist() == [[0], [252]]
    assert dequantize(blocks, scales)[:, 0].tolist() == [0.0, 6 * 2.0**125]


def test_the_same_numbers_as_the_trainer() -> None:
    torch = pytest.importorskip("torch")
    from motet.train.quantize import mxfp4_values

    rng = np.random.default_rng(3)
    w = (rng.standard_normal((50, 6, 64)) * 2.0 ** rng.integers(-20, 20, (50, 6, 1))).astype(np.float32)
    w[0, 0, :32] = 0
    w[1] = rng.integers(-40, 41, (6, 64)) / 8  # many ties
    assert np.array_equal(dequantize(*quantize(w)), mxfp4_values(torch.from_numpy(w)).numpy())


def test_the_same_numbers_as_transformers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    rng = np.random.default_rng(4)
    blocks, scales = (
        rng.integers(0, 256, (3, 64, 5, 16), np.uint8),
        rng.integers(100, 140, (3, 64, 5), np.uint8),
    )
    theirs = convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    assert np.array_equal(dequantize(blocks, scales), theirs.transpose(1, 2).numpy())


def test_more_than_one_chunk() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((3, (1 << 21) + 32)).astype(np.float32)
    blocks, scales = quantize(w)
    one_by_one = [quantize(row) for row in w]
    assert np.array_equal(blocks, np.stack([b for b, _ in one_by_one]))
    assert np.array_equal(dequantize(blocks, scales), np.stack([dequantize(*pair) for pair in one_by_one]))


def test_a_view_that_is_not_contiguous() -> None:
    w = np.random.default_rng(6).standard_normal((64, 10)).astype(np.float32)
    assert np.array_equal(quantize(w.T)[0], quantize(np.ascontiguousarray(w.T))[0])


def test_scale_255_is_not_a_number() -> None:
    w = dequantize(np.full((2, 16), 0x11, np.uint8), np.array([255, 127], np.uint8))
    assert np.isnan(w[:32]).all() and (w[32:] == 0.5).all()


@pytest.mark.parametrize("w", [
    np.zeros((4, 33), np.float32), np.float32(1), np.full(32, np.nan, np.float32), np.full(32, np.inf, np.float32),
])  # fmt: skip
def test_what_cannot_be_quantised_is_refused(w: np.ndarray) -> None:
    with pytest.raises(MXFP4Error) as caught:
        quantize(w)
    assert isinstance(caught.value, UserError)


def test_blocks_and_scales_must_fit() -> None:
    with pytest.raises(MXFP4Error, match=r"\(2, 16\).*\(3,\)"):
        dequantize(np.zeros((2, 16), np.uint8), np.zeros(3, np.uint8))
    with pytest.raises(MXFP4Error, match="int8"):
        dequantize(np.zeros((2, 16), np.int8), np.zeros(2, np.uint8))  # type: ignore[arg-type]

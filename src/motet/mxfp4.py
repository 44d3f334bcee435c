"""MXFP4, the storage format of gpt-oss experts: numpy arrays to blocks and scales, and back.

Knows the format (OCP Microscaling, and the nibble order of openai/gpt-oss `torch/weights.py`): 32 consecutive elements
of the last axis share one power of two and take 4 bits each. Does not know tensors' names, files, or kernels' layouts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motet.errors import UserError

BLOCK = 32
"""Elements that share one scale."""
BLOCK_BYTES = BLOCK // 2
SCALE_BIAS = 127
NAN_SCALE = 255
"""The scale byte that makes its whole block not a number (OCP E8M0)."""

VALUES: NDArray[np.float32] = np.array(
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0], np.float32
)
"""What the 16 codes of E2M1 stand for; bit 3 is the sign."""
VALUES.setflags(write=False)

_CHUNK = 1 << 22  # elements dequantised or quantised at once, so that temporaries stay near 100 MB
_PAIRS = np.stack(
    (VALUES[np.arange(256) & 15], VALUES[np.arange(256) >> 4]), axis=-1
)  # (256, 2): low nibble first


class MXFP4Error(UserError):
    """An array that cannot be stored as MXFP4, or blocks and scales that do not belong together."""


def quantize(w: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """float32 (..., K) -> blocks uint8 (..., K/32, 16) and scales uint8 (..., K/32); K a multiple of 32.

    The shared exponent is floor(log2(amax)) - 2 (OCP MX 1.0, section 6.3), elements are rounded to nearest with ties to
    even and saturate at 6. Numbers that MXFP4 already stores come back as the same numbers. An all-zero block gets
    scale byte 0. Raises MXFP4Error when K is no multiple of 32 or a value is not finite.
    """
    w = np.asarray(w, np.float32)
    if w.ndim == 0 or w.shape[-1] % BLOCK:
        last = w.shape[-1] if w.ndim else 1
        raise MXFP4Error(
            f"MXFP4 needs a last axis that is a multiple of {BLOCK}, not {last}; store this tensor as bf16"
        )
    groups = np.ascontiguousarray(w).reshape(-1, BLOCK)
    blocks = np.empty((len(groups), BLOCK_BYTES), np.uint8)
    scales = np.empty(len(groups), np.uint8)
    step = _CHUNK // BLOCK
    for start in range(0, len(groups), step):
        rows = slice(start, start + step)
        blocks[rows], scales[rows] = _quantize_rows(groups[rows])
    shape = (*w.shape[:-1], w.shape[-1] // BLOCK)
    return blocks.reshape(*shape, BLOCK_BYTES), scales.reshape(shape)


def _quantize_rows(x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    largest = np.abs(x).max(axis=1)
    if not np.isfinite(largest).all():
        raise MXFP4Error("MXFP4 cannot store infinities or NaN; repair the tensor before quantising it")
    # frexp gives m in [0.5, 1) with amax = m 2^e, so floor(log2 amax) = e - 1; exact, subnormals included.
    exponent = np.clip(np.frexp(largest)[1] - 3, -SCALE_BIAS, SCALE_BIAS)
    exponent[largest == 0] = -SCALE_BIAS
    # Scaling by a power of two is exact in float64, also where float32 would be subnormal.
    size = np.ldexp(np.abs(x).astype(np.float64), -exponent[:, None])
    # Steps of E2M1: 0.5 below 2, 1 below 4, 2 above. Within each range the even multiple has the even mantissa.
    code = np.rint(size * 2)  # 0..4 for 0..2
    code = np.where(size < 2, code, np.where(size < 4, np.rint(size) + 2, np.rint(size / 2) + 4))
    nibbles = np.minimum(code, 7).astype(np.uint8) | (np.signbit(x).astype(np.uint8) << 3)
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4), (exponent + SCALE_BIAS).astype(np.uint8)


def dequantize(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """blocks uint8 (..., G, 16) and scales uint8 (..., G) -> float32 (..., 32 G).

    value = VALUES[nibble] * 2^(scale - 127), low nibble = even element; scale byte 255 makes its block NaN, and a value
    beyond float32 becomes infinite as in the published loader. Raises MXFP4Error when the shapes do not fit.
    """
    blocks, scales = np.asarray(blocks), np.asarray(scales)
    if blocks.dtype != np.uint8 or scales.dtype != np.uint8:
        raise MXFP4Error(f"MXFP4 blocks and scales are uint8, not {blocks.dtype} and {scales.dtype}")
    if blocks.ndim < 2 or blocks.shape != (*scales.shape, BLOCK_BYTES):
        raise MXFP4Error(
            f"MXFP4 blocks of shape {blocks.shape} do not belong to scales of shape {scales.shape}"
        )
    flat, exponents = blocks.reshape(-1, BLOCK_BYTES), scales.reshape(-1)
    out = np.empty((len(flat), BLOCK_BYTES, 2), np.float32)
    step = _CHUNK // BLOCK
    with np.errstate(over="ignore"):
        for start in range(0, len(flat), step):
            rows = slice(start, start + step)
            scale = exponents[rows].astype(np.int32)
            np.ldexp(_PAIRS[flat[rows]], (scale - SCALE_BIAS)[:, None, None], out=out[rows])
            out[rows][scale == NAN_SCALE] = np.nan
    return out.reshape(*scales.shape[:-1], scales.shape[-1] * BLOCK)

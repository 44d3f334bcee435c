"""Packed weight matrices: tiles of 16 rows by blocks of 32 columns, in the order the kernels read.

Knows the four storage kinds and how plain weights become tiles and back; knows no model and no file.
The exact byte order is written beside `struct Matrix` in native/ops.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

TILE = 16
BLOCK = 32
KINDS = ("mxfp4", "int8", "bf16", "f32")
# Twice the E2M1 values, as in the kernels; the scale is halved to match.
_E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
F32 = npt.NDArray[np.float32]


@dataclass
class Matrix:
    """`count` weight matrices of logical shape (rows, cols), packed one after the other.

    `data` and `scales` are flat uint8 arrays (they may be memory maps); `scales` is None for bf16 and f32.
    """

    kind: str
    count: int
    rows: int
    cols: int
    tiles: int
    data: U8
    scales: U8 | None
    _native: Any = field(default=None, repr=False, compare=False)

    @property
    def blocks(self) -> int:
        """Blocks of 32 columns, the last one padded with zeros."""
        return -(-self.cols // BLOCK)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def tiles_f32(self, index: int) -> F32:
        """Matrix `index` as float32 (tiles * 16, blocks * 32), padding included."""
        n = self.data.size // self.count
        data = self.data[index * n : (index + 1) * n]
        rows, cols = self.tiles * TILE, self.blocks * BLOCK
        if self.kind == "bf16":
            pairs = data.view(np.uint16).reshape(self.tiles, cols // 2, TILE, 2)
            return bf16_to_f32(pairs.transpose(0, 2, 1, 3).reshape(rows, cols))
        if self.kind == "f32":
            return (
                data.view(np.float32)
                .reshape(self.tiles, cols, TILE)
                .transpose(0, 2, 1)
                .reshape(rows, cols)
                .copy()
            )
        assert self.scales is not None
        m = self.scales.size // self.count
        scales = self.scales[index * m : (index + 1) * m]
        if self.kind == "int8":
            q = data.view(np.int8).reshape(self.tiles, self.blocks, 8, TILE, 4).transpose(0, 3, 1, 2, 4)
            s = bf16_to_f32(scales.view(np.uint16)).reshape(self.tiles, self.blocks, TILE).transpose(0, 2, 1)
            values = q.reshape(self.tiles, TILE, self.blocks, BLOCK).astype(np.float32)
        else:
            b = data.reshape(self.tiles, self.blocks, 4, TILE, 4)
            codes = np.stack([b & 15, b >> 4], axis=3)  # (tiles, blocks, 4, 2, 16, 4)
            values = _E2M1_DOUBLED[codes.transpose(0, 4, 1, 2, 3, 5)].reshape(
                self.tiles, TILE, self.blocks, BLOCK
            )
            exponent = np.maximum(scales.astype(np.int32) - 1, 0) << 23
            s = exponent.view(np.float32).reshape(self.tiles, self.blocks, TILE).transpose(0, 2, 1)
        return (values * s[..., None]).reshape(rows, cols)

    def dense(self, index: int = 0) -> F32:
        """Matrix `index` as float32 (rows, cols)."""
        return self.tiles_f32(index)[: self.rows, : self.cols]

    def dense_pair(self, index: int) -> tuple[F32, F32]:
        """Gate and up halves (rows / 2, cols) of a matrix packed with `interleave_tiles`."""
        both = self.tiles_f32(index).reshape(self.tiles // 2, 2, TILE, -1)
        half = self.rows // 2
        gate, up = (both[:, i].reshape(-1, both.shape[-1])[:half, : self.cols] for i in (0, 1))
        return gate, up


def bf16_to_f32(bits: U16) -> F32:
    """bfloat16 bit patterns to float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(x: F32) -> U16:
    """float32 to bfloat16 bit patterns, round to nearest even (finite input)."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def _pad(a: npt.NDArray[Any], rows: int, cols: int) -> npt.NDArray[Any]:
    out = np.zeros((rows, cols, *a.shape[2:]), a.dtype)
    out[: a.shape[0], : a.shape[1]] = a
    return out


def interleave_tiles(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows (gate0, up0, gate1, up1, ...) to tiles of 16 gates, 16 ups, alternately; each half padded to whole tiles."""
    half = a.shape[0] // 2
    tiles = -(-half // TILE)
    out = np.zeros((tiles, 2, TILE, *a.shape[1:]), a.dtype)
    for i in (0, 1):
        part = np.zeros((tiles * TILE, *a.shape[1:]), a.dtype)
        part[:half] = a[i::2]
        out[:, i] = part.reshape(tiles, TILE, *a.shape[1:])
    return out.reshape(tiles * 2 * TILE, *a.shape[1:])


def tile_mxfp4(blocks: U8, scales: U8) -> tuple[U8, U8]:
    """Checkpoint blocks (R, K/32, 16), scales (R, K/32) to tile bytes and tile scales (flat)."""
    rows, n = scales.shape
    tiles = -(-rows // TILE)
    b = _pad(blocks, tiles * TILE, n).reshape(tiles, TILE, n, 4, 4).transpose(0, 2, 3, 1, 4)
    out = np.empty(b.shape, np.uint8)
    for half in (
        0,
        1,
    ):  # columns 8j + 2*half, 8j + 2*half + 1 share a byte; so do the columns four further on
        low, high = b[..., half], b[..., half + 2]
        out[..., 2 * half] = (low & 15) | (high << 4)
        out[..., 2 * half + 1] = (low >> 4) | (high & 0xF0)
    s = _pad(scales, tiles * TILE, n).reshape(tiles, TILE, n).transpose(0, 2, 1)
    return out.reshape(-1), np.ascontiguousarray(s).reshape(-1)


def tile_int8(w: F32) -> tuple[U8, U8]:
    """float32 (R, K) to int8 blocks of 32 with a bf16 scale, rounded up so that no value is cut off."""
    rows, cols = w.shape
    tiles, n = -(-rows // TILE), -(-cols // BLOCK)
    x = _pad(w, tiles * TILE, n * BLOCK).reshape(tiles, TILE, n, BLOCK)
    wanted = np.abs(x).max(axis=-1) / np.float32(127)
    bits = (wanted.view(np.uint32) + 0xFFFF) >> 16
    scale = (bits << 16).astype(np.uint32).view(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(scale[..., None] > 0, np.rint(x / scale[..., None]), 0).astype(np.int8)
    q = q.reshape(tiles, TILE, n, 8, 4).transpose(0, 2, 3, 1, 4)
    s = bits.astype(np.uint16).transpose(0, 2, 1)
    return np.ascontiguousarray(q).view(np.uint8).reshape(-1), np.ascontiguousarray(s).view(np.uint8).reshape(
        -1
    )


def tile_bf16(w: U16) -> U8:
    """bf16 bit patterns (R, K) to tiles [K/2][16 rows][2]."""
    tiles, n = -(-w.shape[0] // TILE), -(-w.shape[1] // BLOCK)
    x = _pad(w, tiles * TILE, n * BLOCK).reshape(tiles, TILE, n * BLOCK // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1)


def tile_f32(w: F32) -> U8:
    """float32 (R, K) to tiles [K][16 rows]."""
    tiles, n = -(-w.shape[0] // TILE), -(-w.shape[1] // BLOCK)
    x = _pad(w, tiles * TILE, n * BLOCK).reshape(tiles, TILE, n * BLOCK).transpose(0, 2, 1)
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1)


def tile_rows(kind: str, w: Any) -> tuple[U8, U8 | None]:
    """Packs one matrix: `w` is (blocks, scales) for mxfp4, bf16 bits for bf16, float32 for int8 and f32."""
    if kind == "mxfp4":
        return tile_mxfp4(*w)
    if kind == "int8":
        return tile_int8(w)
    return (tile_bf16(w) if kind == "bf16" else tile_f32(w)), None


def matrix(kind: str, w: Any) -> Matrix:
    """One packed matrix from plain weights (see `tile_rows`)."""
    shape = (w[0].shape[0], w[0].shape[1] * BLOCK) if kind == "mxfp4" else w.shape
    data, scales = tile_rows(kind, w)
    return Matrix(kind, 1, shape[0], shape[1], -(-shape[0] // TILE), data, scales)

"""Keys and values in pages of 64 positions: the bytes of one page, the memory of many, and the tables of one step.

Knows layouts and page numbers; knows no sequence, no sharing and no budget (motet.kvcache does). The byte order is
written beside `struct KvLayer` in native/ops.h.

Shapes: K key-value heads, D head size, Dv = D rounded up to 32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.kernels.layout import F32, U8, bf16_to_f32, f32_to_bf16

PAGE = 64  # positions in a page, cut at absolute positions
KV_KINDS = ("bf16", "float32", "int8")
_BYTES = (2, 4, 1)
_SLAB = 32 << 20  # bytes asked of the system at once; untouched parts cost nothing


@dataclass(frozen=True)
class PageLayout:
    """One page: keys and values of PAGE positions in each of `layers` layers."""

    kind: str
    layers: int
    kv_heads: int
    head_dim: int

    @property
    def _wide(self) -> int:
        return -(-self.head_dim // 32) * 32

    @cached_property
    def unit(self) -> int:
        """Bytes of one kv head in one layer."""
        scales = 2 * PAGE * 4 if self.kind == "int8" else 0
        return PAGE * (self.head_dim + self._wide) * _BYTES[KV_KINDS.index(self.kind)] + scales

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a page."""
        return self.layers * self.kv_heads * self.unit

    def _parts(self, page: U8, layer: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], F32]:
        """Views: keys (K, D, PAGE), values (K, PAGE, Dv), both in stored order, and scales (K, 2, PAGE or 0)."""
        dtype = (np.uint16, np.float32, np.int8)[KV_KINDS.index(self.kind)]
        units = page.reshape(self.layers, self.kv_heads, self.unit)[layer]
        size = np.dtype(dtype).itemsize
        a, b = PAGE * self.head_dim * size, PAGE * (self.head_dim + self._wide) * size
        keys = units[:, :a].view(dtype).reshape(self.kv_heads, self.head_dim, PAGE)
        values = units[:, a:b].view(dtype).reshape(self.kv_heads, PAGE, self._wide)
        return keys, values, units[:, b:].view(np.float32).reshape(self.kv_heads, 2, -1)

    def _slots(self, count: int) -> npt.NDArray[np.intp]:
        """Where elements 0..count-1 of a row are stored: bf16 puts i and 16 + i of a block of 32 side by side."""
        i = np.arange(count)
        return i // 32 * 32 + 2 * (i % 16) + i // 16 % 2 if self.kind == "bf16" else i

    def write(self, page: U8, layer: int, at: int, k: F32, v: F32) -> None:
        """Stores k and v (n, K, D) float32 at positions at.. of the page."""
        keys, values, scales = self._parts(page, layer)
        columns = self._slots(PAGE)[at : at + k.shape[0]]
        k, v = k.transpose(1, 2, 0), v.transpose(1, 0, 2)
        if self.kind == "int8":
            k, scales[:, 0, columns] = _quantize(k, 1)
            v, scales[:, 1, columns] = _quantize(v, 2)
        elif self.kind == "bf16":
            k, v = f32_to_bf16(np.ascontiguousarray(k)), f32_to_bf16(np.ascontiguousarray(v))  # type: ignore[assignment]
        keys[:, :, columns] = k
        values[:, at : at + v.shape[1], self._slots(self.head_dim)] = v

    def read(self, page: U8, layer: int) -> tuple[F32, F32]:
        """k and v (PAGE, K, D) as float32; positions never written hold anything."""
        keys, values, scales = self._parts(page, layer)
        k = keys[:, :, self._slots(PAGE)].transpose(2, 0, 1)
        v = values[:, :, self._slots(self.head_dim)].transpose(1, 0, 2)
        if self.kind == "int8":
            return k * scales[:, 0].T[:, :, None], v * scales[:, 1].T[:, :, None]
        return (k, v) if self.kind == "float32" else (bf16_to_f32(k), bf16_to_f32(v))


def _quantize(x: F32, axis: int) -> tuple[Any, F32]:
    """int8 along an axis with scale max|x| / 127, rounded to nearest even; the scale without that axis."""
    top = np.abs(x).max(axis=axis)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(top > 0, np.float32(127) / top, np.float32(0))
    inverse = np.where(inverse <= np.float32(3.0e38), inverse, np.float32(0)).astype(np.float32)
    return np.rint(x * np.expand_dims(inverse, axis)).astype(np.int8), (top / np.float32(127)).astype(
        np.float32
    )


class PageMemory:
    """Memory of pages numbered from 0. Grows by slabs, whose addresses never move."""

    def __init__(self, layout: PageLayout) -> None:
        self.layout = layout
        self.pages = 0  # there are so many
        self._per_slab = max(1, min(1024, _SLAB // layout.nbytes))
        self._slabs: list[U8] = []
        self._bases = np.empty(0, np.int64)

    def grow(self) -> None:
        """One slab more."""
        n = self._per_slab * self.layout.nbytes
        raw = np.empty(n + 4096, np.uint8)
        skip = -raw.ctypes.data % 4096
        self._slabs.append(raw[skip : skip + n].reshape(self._per_slab, -1))
        self._bases = np.array([s.ctypes.data for s in self._slabs], np.int64)
        self.pages += self._per_slab

    def page(self, number: int) -> U8:
        """The bytes of one page, writable."""
        view: U8 = self._slabs[number // self._per_slab][number % self._per_slab]
        return view

    def addresses(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where pages begin."""
        slab, at = np.divmod(numbers, self._per_slab)
        begins: npt.NDArray[np.int64] = self._bases[slab] + at * self.layout.nbytes
        return begins


@dataclass
class Paged:
    """The page tables of one step, for the layers of one layout.

    spans (n, 5) int64: row of the batch, tokens, position of the first, number of the table's first page, pages in the
    table. Rows follow each other. `numbers`: all tables joined.
    """

    memory: PageMemory
    spans: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    _native: Any = field(default=None, repr=False, compare=False)

    def tables(self) -> list[tuple[int, int, int, int, npt.NDArray[np.int64]]]:
        """(row, tokens, start, first page, page numbers) of each span."""
        ends = np.cumsum(self.spans[:, 4])
        return [
            (int(row), int(tokens), int(start), int(first), self.numbers[end - count : end])
            for (row, tokens, start, first, count), end in zip(self.spans, ends, strict=True)
        ]

"""Every native op against its numpy twin on ragged random shapes: for `motet doctor` and for the tests.

A case draws its own input, runs the op on both sides and gives the largest difference with the tolerance that the norms
and the number of roundings allow. Knows ops, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from motet import kernels
from motet.kernels import native, reference
from motet.kernels.layout import BLOCK, F32, KINDS, TILE, Matrix, f32_to_bf16, interleave_tiles, tile_rows
from motet.kernels.paged import KV_KINDS, PAGE, Paged, PageLayout, PageMemory

EPS = 2.0**-23
SIZES = (1, 2, 3, 29, 31, 32, 33, 64, 97)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Result:
    """One op under one instruction set: its worst case, as a share of what rounding allows (above 1 is a fault)."""

    op: str
    isa: str
    cases: int
    worst: float
    difference: float  # largest absolute difference in the worst case

    @property
    def ok(self) -> bool:
        """Whether every difference can be explained by rounding."""
        return self.worst <= 1.0


def weights(
    kind: str, rng: np.random.Generator, rows: int, cols: int, pairs: bool = False
) -> tuple[Array, Array | None]:
    """Tile bytes and scales of one random matrix; with `pairs` rows alternate gate and up."""
    order = interleave_tiles if pairs else (lambda a: a)
    if kind == "mxfp4":
        n = -(-cols // BLOCK)
        blocks = rng.integers(0, 256, (rows, n, BLOCK // 2), dtype=np.uint8)
        scales = rng.integers(118, 124, (rows, n), dtype=np.uint8)
        return tile_rows(kind, (order(blocks), order(scales)))
    w = rng.standard_normal((rows, cols)).astype(np.float32) / np.float32(cols) ** 0.5
    return tile_rows(kind, order(f32_to_bf16(w) if kind == "bf16" else w))


def stack(
    kind: str, rng: np.random.Generator, count: int, rows: int, cols: int, pairs: bool = False
) -> Matrix:
    """`count` random matrices packed as one. MXFP4 columns must be whole blocks."""
    parts = [weights(kind, rng, rows, cols, pairs) for _ in range(count)]
    tiles = 2 * -(-(rows // 2) // TILE) if pairs else -(-rows // TILE)
    scales = None if parts[0][1] is None else np.concatenate([p[1] for p in parts if p[1] is not None])
    return Matrix(kind, count, rows, cols, tiles, np.concatenate([p[0] for p in parts]), scales)


def _columns(kind: str, cols: int) -> int:
    return -(-cols // BLOCK) * BLOCK if kind == "mxfp4" else cols


def _normal(rng: np.random.Generator, *shape: int) -> F32:
    return rng.standard_normal(shape).astype(np.float32)


Case = tuple[Array, Array, Array | float]  # native, twin, largest allowed absolute difference


def rms_norm(rng: np.random.Generator, size: int) -> Iterator[Case]:
    x, gain = _normal(rng, 3, size), _normal(rng, size)
    a, b = (m.rms_norm(x, gain, 1e-5) for m in (native, reference))
    yield a, b, EPS * (8 + size) * np.abs(b) + 1e-30


def quantize(rng: np.random.Generator, size: int) -> Iterator[Case]:
    """Exact: both sides round the same float32 values to nearest even."""
    x = _normal(rng, 3, size) * np.exp(3 * _normal(rng, 3, 1))
    x[0, : size // 2] = 0
    ours, twin = native.quantize(x).arrays(), reference.quantize(x).arrays()
    for name in ("q", "scale", "sum", "pair"):
        yield ours[name].astype(np.float64), twin[name].astype(np.float64), 0.0


def pad(rng: np.random.Generator, size: int) -> Iterator[Case]:
    x = _normal(rng, 3, size)
    for rounded in (False, True):
        yield native.pad(x, rounded).arrays()["x"], reference.pad(x, rounded).arrays()["x"], 0.0


def linear(rng: np.random.Generator, size: int) -> Iterator[Case]:
    """Tolerance: n roundings of a sum whose absolute terms add up to |a| |W|^T."""
    for kind in KINDS:
        cols = _columns(kind, size)
        w = stack(kind, rng, 1, int(rng.choice(SIZES)), cols)
        x, bias = _normal(rng, int(rng.choice((1, 2, 3, 5, 9, 17))), cols), _normal(rng, w.rows)
        for prepare in ("quantize", "pad") if kind in ("mxfp4", "int8") else ("pad",):
            extra = (False,) if prepare == "pad" else ()
            acts = [getattr(m, prepare)(x, *extra) for m in (native, reference)]
            bound = EPS * (cols + 4) * (np.abs(acts[1].x[:, :cols]) @ np.abs(w.dense()).T + np.abs(bias))
            yield native.linear(w, acts[0], bias), reference.linear(w, acts[1], bias), bound
            into = [_normal(np.random.default_rng(size), x.shape[0], w.rows) for _ in range(2)]
            native.linear(w, acts[0], None, into[0])
            reference.linear(w, acts[1], None, into[1])
            yield into[0], into[1], bound + EPS * (np.abs(into[1]) + 8)


def _pages(
    rng: np.random.Generator, layout: PageLayout, spans: list[tuple[int, int]], window: int = 0
) -> tuple[Paged, list[Array]]:
    """Tables for spans of (tokens, start) over pages in random order: the history random, the rest not finite.

    Also the bytes as they are now, to begin again with.
    """
    memory, rows, numbers, row = PageMemory(layout), [], [], 0
    for tokens, start in spans:
        first = max(0, start + 1 - window) // PAGE if window else 0
        rows.append((row, tokens, start, first, -(-(start + tokens) // PAGE) - first))
        row += tokens
    total = sum(r[4] for r in rows)
    while memory.pages < total:
        memory.grow()
    order = iter(rng.permutation(total))
    for _, _, start, first, count in rows:
        for n in range(first, first + count):
            numbers.append(next(order))
            page = memory.page(int(numbers[-1]))
            page[:] = 0xFF
            held = min(PAGE, start - n * PAGE)
            for layer in range(layout.layers if held > 0 else 0):
                k, v = (_normal(rng, held, layout.kv_heads, layout.head_dim) for _ in range(2))
                layout.write(page, layer, 0, k, v)
    paged = Paged(memory, np.array(rows, np.int64), np.array(numbers, np.int64))
    return paged, [memory.page(n).copy() for n in range(total)]


def rope(rng: np.random.Generator, size: int) -> Iterator[Case]:
    dim, heads, kv = 2 * int(rng.choice((1, 4, 8, 15, 16, 32))), 3, 2
    spans = [(1 + size % 7, int(rng.integers(0, 150))), (1, 63), (size, 64)]
    tokens = sum(t for t, _ in spans)
    qkv, angle = _normal(rng, tokens, (heads + 2 * kv) * dim), _normal(rng, tokens, dim // 2)
    cos, sin = np.cos(angle), np.sin(angle)
    for kind in KV_KINDS:
        pages, before = _pages(rng, PageLayout(kind, 2, kv, dim), spans)
        outs, held = [], []
        for m in (native, reference):
            for n, page in enumerate(before):
                pages.memory.page(n)[:] = page
            outs.append(qkv.copy())
            m.rope(outs[-1], cos, sin, heads, pages, 1)
            held.append(np.stack([pages.memory.page(n) for n in range(len(before))]))
        top = 4 * EPS * float(np.abs(qkv).max())
        yield outs[0], outs[1], top
        # A last bit of the rotation may round to the neighbour in the pages, so they are compared as numbers.
        step = {"bf16": 2.0**-7, "float32": 0.0, "int8": 1.01 / 127}[kind] * float(np.abs(qkv).max())
        for ours, twin in zip(*held, strict=True):
            for layer in (0, 1):
                for a, b in zip(*(pages.memory.layout.read(h, layer) for h in (ours, twin)), strict=True):
                    known = np.isfinite(b)
                    yield np.isfinite(a), known, 0.0
                    yield a[known], b[known], (top + step) * layer  # layer 0 is not touched


def attention(rng: np.random.Generator, size: int) -> Iterator[Case]:
    """Random histories, windows and head ratios, several sequences at once. Scores and values are of order one."""
    kv, ratio, dim = (
        int(rng.choice((1, 2, 3))),
        int(rng.choice((1, 2, 5, 7, 8))),
        int(rng.choice((2, 8, 30, 64, 80))),
    )
    heads = kv * ratio
    for kind in KV_KINDS:
        for window in (0, int(rng.choice((1, 2, 7, 64, 100, 128, 200)))):
            starts = [int(s) for s in rng.choice((0, 1, 5, 63, 64, 65, 130, 200), 3)]
            starts[1] = int(rng.choice((7, 1020, 1024)))
            spans = [(int(t), s) for t, s in zip((1 + size % 9, 1, 1 + size % 70), starts, strict=True)]
            pages, _ = _pages(rng, PageLayout(kind, 2, kv, dim), spans, window)
            tokens = sum(t for t, _ in spans)
            q, sinks = _normal(rng, tokens, (heads + 2 * kv) * dim), 2 * _normal(rng, heads)
            angle = np.zeros((tokens, dim // 2), np.float32)
            reference.rope(q, np.cos(angle), np.sin(angle), heads, pages, 1)
            a, b = (m.attention(q, heads, pages, 1, window, sinks) for m in (native, reference))
            # A score is a sum of `dim` products; its error multiplies a weight, and weights sum to at most one.
            score = EPS * (dim + 8) * float(np.abs(q).max()) * dim**0.5 * 5
            yield a, b, (score + EPS * (max(starts) + tokens + 16)) * 5.0


def route(rng: np.random.Generator, size: int) -> Iterator[Case]:
    logits = _normal(rng, 4, size)
    logits[1] = np.round(logits[1])  # ties
    k = int(rng.integers(1, size + 1))
    a, b = (m.route(logits, k) for m in (native, reference))
    yield a[0], b[0], 0.0
    yield a[1], b[1], EPS * (k + 8)


def moe(rng: np.random.Generator, size: int) -> Iterator[Case]:
    """Float activations get a rounding bound. Int8 ones may also round one hidden value the other way: one step of it."""
    experts, tokens = int(rng.choice((1, 3, 8))), int(rng.choice((1, 2, 7, 20)))
    k = int(rng.integers(1, experts + 1))
    for kind in KINDS:
        hidden, width = _columns(kind, size), _columns(kind, int(rng.choice((3, 31, 48, 64))))
        w1 = stack(kind, rng, experts, 2 * width, hidden, pairs=True)
        w2 = stack(kind, rng, experts, hidden, width)
        h, x = _normal(rng, tokens, hidden), _normal(rng, tokens, hidden)
        b1, b2 = (_normal(rng, experts, width), _normal(rng, experts, width)), _normal(rng, experts, hidden)
        ids, weight = reference.route(_normal(rng, tokens, experts), k)
        for prepare in ("quantize", "pad") if kind in ("mxfp4", "int8") else ("pad",):
            extra = (False,) if prepare == "pad" else ()
            outs = []
            for m in (native, reference):
                out = x.copy()
                m.moe(out, getattr(m, prepare)(h, *extra), ids, weight, w1, b1, w2, b2, 1.702, 7.0)
                outs.append(out)
            # |act| <= 7 * 8 by the clamps; its error is that of `hidden` products, times its slope (below 12).
            big = max(float(np.abs(w2.dense(e)).sum(-1).max()) for e in range(experts))
            error = (
                EPS
                * (hidden + 16)
                * 12
                * float(np.abs(h).max())
                * max(float(np.abs(w1.tiles_f32(e)).sum(-1).max()) for e in range(experts))
                + EPS * (width + 16) * 56
            )
            step = 56 / 127 * 1.01 / BLOCK if prepare == "quantize" else 0.0
            yield outs[0], outs[1], (error + step) * big + EPS * 64


CASES: dict[str, Callable[[np.random.Generator, int], Iterator[Case]]] = {
    f.__name__: f for f in (rms_norm, quantize, pad, linear, rope, attention, route, moe)
}


def run(op: str, isa: str, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> Result:
    """All cases of one op under one instruction set (which stays as it was afterwards)."""
    worst, difference, count = 0.0, 0.0, 0
    with kernels.use_isa(isa):
        for size in sizes:
            rng = np.random.default_rng([seed, size, len(op)])
            for ours, twin, allowed in CASES[op](rng, size):
                gap = np.abs(ours.astype(np.float64) - twin)
                share = float(np.max(np.where(gap > 0, gap / np.maximum(allowed, 1e-300), 0.0), initial=0.0))
                share = share if np.isfinite(gap).all() else np.inf
                count += 1
                if share > worst:
                    worst, difference = share, float(gap.max())
    return Result(op, isa, count, worst, difference)


def selftest(isas: list[str] | None = None) -> Iterator[Result]:
    """Every op under every instruction set this CPU runs; nothing when the numpy twins are in use."""
    if kernels.backend != "native":
        return
    for isa in isas or kernels.isas():
        for op in CASES:
            yield run(op, isa)

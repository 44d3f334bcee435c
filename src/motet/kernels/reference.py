"""Every op in plain numpy: what it means, and what the native one is tested against (MOTET_KERNELS=numpy runs the model on it).

Shapes: T tokens, d hidden size, H query heads, K key-value heads, D head size, E experts, k chosen experts, I expert width.
Formulas: gpt-oss model card (arXiv 2508.10925), section 2, and the reference code it was published with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.kernels.layout import BLOCK, F32, Matrix, bf16_to_f32, f32_to_bf16
from motet.kernels.paged import PAGE, Paged


@dataclass
class Activations:
    """Rows as the matrix ops take them: `x` float32 (T, padded K); `cols` the logical K.

    Int8 activations also keep q (T, padded K), scale, sum and pair (T, blocks), as the kernels hold them.
    """

    x: F32
    cols: int
    q: npt.NDArray[np.int8] | None = None
    scale: F32 | None = None
    sum: npt.NDArray[np.int32] | None = None
    pair: npt.NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        return int(self.x.shape[0])

    def arrays(self) -> dict[str, Any]:
        return {
            "q": self.q,
            "scale": self.scale,
            "sum": self.sum,
            "pair": self.pair,
            "x": None if self.q is not None else self.x,
        }


def rms_norm(x: F32, gain: F32, eps: float) -> F32:
    """x (T, d) * rsqrt(mean(x^2) + eps) * gain; the gain multiplies in float32, before any down-cast."""
    y: F32 = (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)) * gain).astype(np.float32)
    return y


def _padded(x: F32) -> F32:
    cols = -(-x.shape[1] // BLOCK) * BLOCK
    return np.pad(x, ((0, 0), (0, cols - x.shape[1])))


def quantize(x: F32) -> Activations:
    """float32 (T, K) to int8 in blocks of 32: scale = max|x| / 127, values rounded to nearest even."""
    b = _padded(x).reshape(x.shape[0], -1, BLOCK)
    top = np.abs(b).max(axis=-1)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(top > 0, np.float32(127) / top, np.float32(0))
    inverse = np.where(inverse <= np.float32(3.0e38), inverse, np.float32(0)).astype(np.float32)
    q = np.rint(b * inverse[..., None]).astype(np.int8)
    scale = (top / np.float32(127)).astype(np.float32)
    quads = q.reshape(*q.shape[:2], 8, 4).astype(np.int32)
    even, odd = quads[..., :2].sum((-1, -2)), quads[..., 2:].sum((-1, -2))
    pair = ((-12 * even) & 0xFFFF) | (((-12 * odd) & 0xFFFF) << 16)
    values = (q * scale[..., None]).reshape(x.shape[0], -1)
    return Activations(
        values.astype(np.float32), x.shape[1], q.reshape(x.shape[0], -1), scale, (even + odd).astype(np.int32),
        pair.astype(np.uint32).view(np.int32),
    )  # fmt: skip


def pad(x: F32, round_bf16: bool) -> Activations:
    """float32 (T, K) padded to whole blocks; rounded to bf16 when asked."""
    return Activations(_padded(bf16_to_f32(f32_to_bf16(x)) if round_bf16 else x), x.shape[1])


def linear(w: Matrix, a: Activations, bias: F32 | None = None, into: F32 | None = None) -> F32:
    """a (T, K) W^T + bias -> (T, R); with `into`, added to it (the residual stream) and returned."""
    y = a.x[:, : w.cols] @ w.dense().T
    if bias is not None:
        y = y + bias
    if into is not None:
        into += y
        return into
    return y.astype(np.float32, copy=False)


def rope(qkv: F32, cos: F32, sin: F32, heads: int, pages: Paged, layer: int) -> None:
    """Rotates q and k of qkv (T, (H+2K)D) in place, half-split form; k and v enter `layer` of the pages.

    cos, sin: (T, D/2), the YaRN concentration already in them. Rows are those of the spans of `pages`.
    """
    kv_heads, dim = pages.memory.layout.kv_heads, pages.memory.layout.head_dim
    x = qkv.reshape(qkv.shape[0], heads + 2 * kv_heads, dim)
    a, b = x[:, : heads + kv_heads, : dim // 2].copy(), x[:, : heads + kv_heads, dim // 2 :].copy()
    c, s = cos[:, None], sin[:, None]
    x[:, : heads + kv_heads, : dim // 2] = a * c - b * s
    x[:, : heads + kv_heads, dim // 2 :] = b * c + a * s
    k, v = x[:, heads : heads + kv_heads], x[:, heads + kv_heads :]
    for row, tokens, start, first, numbers in pages.tables():
        for t in range(tokens):
            page = pages.memory.page(int(numbers[(start + t) // PAGE - first]))
            rows = slice(row + t, row + t + 1)
            pages.memory.layout.write(page, layer, (start + t) % PAGE, k[rows], v[rows])


def attention(q: F32, heads: int, pages: Paged, layer: int, window: int, sinks: F32) -> F32:
    """Causal attention of q rows (T, >= H*D), the spans of `pages`, over the keys and values in `layer` of the pages -> (T, H*D).

    window: 0 = all keys, else the last `window` including self. A head's sink is one more score, not scaled, with no
    value behind it.
    """
    dim = pages.memory.layout.head_dim
    out = np.empty((q.shape[0], heads * dim), np.float32)
    for row, tokens, start, first, numbers in pages.tables():
        held = [pages.memory.layout.read(pages.memory.page(int(n)), layer) for n in numbers]
        k, v = (np.concatenate([h[i] for h in held])[: start + tokens - first * PAGE] for i in (0, 1))
        rows = slice(row, row + tokens)
        out[rows] = _attend(q[rows, : heads * dim], k, v, start, first * PAGE, window, sinks)
    return out


def _attend(q: F32, k: F32, v: F32, start: int, lowest: int, window: int, sinks: F32) -> F32:
    """q (T, H*D) at positions start.. over keys and values (n, K, D) at positions lowest.. ."""
    (tokens, heads), (_, kv_heads, dim) = (q.shape[0], sinks.size), k.shape
    queries = q.reshape(tokens, kv_heads, heads // kv_heads, dim) * np.float32(dim**-0.5)
    at, key = np.arange(start, start + tokens)[:, None], np.arange(lowest, lowest + k.shape[0])[None]
    allowed = (key <= at) & ((key > at - window) if window else True)
    met = allowed.any(axis=0)  # the rest of a page may hold anything
    k, v, allowed = k[met], v[met], allowed[:, met]
    scores = np.where(allowed[:, None, None], np.einsum("tkgd,skd->tkgs", queries, k), -np.inf)
    sink = sinks.reshape(1, kv_heads, -1, 1)
    top = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    p = np.exp(scores - top)
    p /= p.sum(axis=-1, keepdims=True) + np.exp(sink - top)
    y: F32 = np.einsum("tkgs,skd->tkgd", p, v).reshape(tokens, heads * dim).astype(np.float32)
    return y


def route(logits: F32, k: int) -> tuple[npt.NDArray[np.int32], F32]:
    """Top-k of logits (T, E), highest first, ties to the lowest index; softmax over the chosen -> ids, weights (T, k)."""
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :k].astype(np.int32)
    chosen = np.take_along_axis(logits, ids, axis=-1)
    w = np.exp(chosen - chosen[:, :1])
    return ids, (w / w.sum(axis=-1, keepdims=True)).astype(np.float32)


def moe(
    x: F32,
    a: Activations,
    ids: npt.NDArray[np.int32],
    weights: F32,
    w1: Matrix,
    b1: tuple[F32, F32],
    w2: Matrix,
    b2: F32,
    alpha: float,
    limit: float,
    round_bf16: bool = False,
) -> None:
    """x (T, d) += sum over chosen experts of weight * (W2 act(W1 a + b1) + b2); clamped SwiGLU, limit on both halves."""
    for e in np.unique(ids):
        token, slot = np.nonzero(ids == e)
        gate_w, up_w = w1.dense_pair(int(e))
        rows = a.x[token, : w1.cols]
        gate = np.minimum(rows @ gate_w.T + b1[0][e], np.float32(limit))
        up = np.clip(rows @ up_w.T + b1[1][e], np.float32(-limit), np.float32(limit))
        with np.errstate(over="ignore"):
            h = (gate / (1 + np.exp(-np.float32(alpha) * gate)) * (up + 1)).astype(np.float32)
        hidden = quantize(h) if a.q is not None else pad(h, round_bf16)
        y = hidden.x[:, : w2.cols] @ w2.dense(int(e)).T + b2[e]
        np.add.at(x, token, weights[token, slot][:, None] * y)

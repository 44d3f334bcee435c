"""The ops of motet.kernels on the compiled module. Knows shapes and dtypes; every op's meaning is in reference.py."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.kernels.layout import F32, KINDS, Matrix
from motet.kernels.paged import KV_KINDS, Paged

_native: Any = import_module("motet._native")
Activations = Any  # _native.Activations


def _packed(w: Matrix) -> Any:
    if w._native is None:
        w._native = _native.packed(KINDS.index(w.kind), w.count, w.rows, w.cols, w.tiles, w.data, w.scales)
    return w._native


def rms_norm(x: F32, gain: F32, eps: float) -> F32:
    out = np.empty_like(x)
    _native.rms_norm(x, gain, eps, out)
    return out


def quantize(x: F32) -> Activations:
    return _native.quantize(x)


def pad(x: F32, round_bf16: bool) -> Activations:
    return _native.pad(x, round_bf16)


def linear(w: Matrix, a: Activations, bias: F32 | None = None, into: F32 | None = None) -> F32:
    if into is not None:
        _native.linear(_packed(w), a, bias, True, into)
        return into
    out = np.empty((a.rows, w.rows), np.float32)
    _native.linear(_packed(w), a, bias, False, out)
    return out


def _paged(p: Paged) -> Any:
    if p._native is None:
        layout = p.memory.layout
        p._native = _native.paged(
            KV_KINDS.index(layout.kind), layout.layers, layout.kv_heads, layout.head_dim, layout.unit,
            p.memory.addresses(p.numbers), p.spans,
        )  # fmt: skip
    return p._native


def rope(qkv: F32, cos: F32, sin: F32, heads: int, pages: Paged, layer: int) -> None:
    _native.rope(qkv, cos, sin, heads, _paged(pages), layer)


def attention(q: F32, heads: int, pages: Paged, layer: int, window: int, sinks: F32) -> F32:
    out = np.empty((q.shape[0], heads * pages.memory.layout.head_dim), np.float32)
    _native.attention(q, heads, _paged(pages), layer, window, sinks, out)
    return out


def route(logits: F32, k: int) -> tuple[npt.NDArray[np.int32], F32]:
    ids, weights = np.empty((logits.shape[0], k), np.int32), np.empty((logits.shape[0], k), np.float32)
    _native.route(logits, ids, weights)
    return ids, weights


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
    _native.moe(x, a, ids, weights, _packed(w1), b1[0], b1[1], _packed(w2), b2, alpha, limit, round_bf16)

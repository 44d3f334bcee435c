"""The fast forward pass: readable Python over fused native ops; token ids in, logits out.

Knows one model and the caches its callers hold; knows no sampling, text or files beyond the pack. One row's result has
the same bits whatever else is in the batch, however its prompt was cut into chunks, on any number of threads.

Shapes: T tokens in a step, d hidden size, H query heads, K key-value heads, D head size, V vocabulary.
Architecture: gpt-oss model card (arXiv 2508.10925), section 2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from motet import kernels
from motet.errors import UserError
from motet.kernels import F32, Activations, Matrix, Paged, bf16_to_f32
from motet.kvcache import Cache, Pages, PagesFull
from motet.pack import Pack, Progress, ensure_pack

__all__ = ["Cache", "ContextError", "Model", "Pages", "PagesFull", "Span", "load"]

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

ANGLES = 1024  # rotary angles are computed in aligned blocks of this many positions, so no bit depends on the chunking
ROWS = 256  # rows of logits at a time in Model.logits


class ContextError(UserError):
    """More tokens than the model's context holds."""


@dataclass
class Span:
    """Ids to append to one sequence's cache, and whose logits are wanted."""

    ids: Sequence[int]
    cache: Cache
    want: Literal["last", "all", "none"] = "last"


@dataclass(frozen=True)
class _Layer:
    attn_norm: F32
    sinks: F32
    qkv: Matrix
    qkv_bias: F32
    out: Matrix
    out_bias: F32
    mlp_norm: F32
    gate: Matrix
    gate_bias: F32
    w1: Matrix
    b1: tuple[F32, F32]
    w2: Matrix
    b2: F32
    window: int

    @classmethod
    def open(cls, pack: Pack, n: int) -> _Layer:
        a, m = f"block.{n}.attn.", f"block.{n}.mlp."
        return cls(
            pack.array(a + "norm.scale"), pack.array(a + "sinks"), pack.matrix(a + "qkv.weight"), pack.array(a + "qkv.bias"),
            pack.matrix(a + "out.weight"), pack.array(a + "out.bias"), pack.array(m + "norm.scale"),
            pack.matrix(m + "gate.weight"), pack.array(m + "gate.bias"), pack.matrix(m + "mlp1_weight"),
            (pack.array(m + "mlp1_bias.gate"), pack.array(m + "mlp1_bias.up")), pack.matrix(m + "mlp2_weight"),
            pack.array(m + "mlp2_bias"), pack.config.window(n),
        )  # fmt: skip


class Model:
    """A packed model. `forward` is not safe to call from two threads on the same cache."""

    def __init__(self, pack: Pack, folder: Path) -> None:
        self.pack, self.folder = pack, folder
        self.config, self.precision = pack.config, pack.precision
        self._embedding = pack.array("embedding.weight")
        self._layers = [_Layer.open(pack, n) for n in range(self.config.num_hidden_layers)]
        self._norm, self._unembedding = pack.array("norm.scale"), pack.matrix("unembedding.weight")
        self.pages = Pages(self.config, "float32" if self.precision == "float32" else "bf16")
        self._angles: dict[int, tuple[F32, F32]] = {}
        self._encoding: Encoding | None = None

    @property
    def encoding(self) -> Encoding:
        """The vocabulary of the model's folder."""
        if self._encoding is None:
            from motet.tokenizer import load_encoding

            self._encoding = load_encoding(self.folder)
        return self._encoding

    def new_cache(self) -> Cache:
        """An empty cache for one sequence."""
        return self.pages.new_cache()

    def forward(self, spans: Sequence[Span]) -> list[F32]:
        """One step for several sequences; each cache grows by its span. Logits (n, V) float32 per span, n by `want`.

        Raises before anything is computed: ContextError when a sequence would pass the context, PagesFull when the
        keys and values would pass their budget, UserError for ids that are not in the vocabulary and for empty spans.
        """
        ids, starts = self._check(spans)
        wants = [(s.cache, len(s.ids)) for s in spans]
        self.pages.reserve(wants)
        paged = self.pages.step(wants)
        x = self._embed(ids)
        tables = [self._rotation(s.cache.length, len(s.ids)) for s in spans]
        cos, sin = (np.concatenate([t[i] for t in tables]) for i in (0, 1))
        for n, layer in enumerate(self._layers):
            pool, place = self.pages.places[n]
            self._attend(layer, x, cos, sin, paged[pool], place)
            self._think(layer, x)
        for span in spans:
            span.cache.length += len(span.ids)
        return self._logits(x, spans, starts)

    def logits(self, ids: Sequence[int]) -> F32:
        """Teacher-forced logits (T, V) float32 of every position of one sequence."""
        cache, out = self.new_cache(), np.empty((len(ids), self.config.vocab_size), np.float32)
        if not len(ids):
            return out
        self._room(len(ids))
        for at in range(0, len(ids), ROWS):
            out[at : at + ROWS] = self.forward([Span(ids[at : at + ROWS], cache, "all")])[0]
        return out

    def _room(self, length: int) -> None:
        if length > self.config.max_position_embeddings:
            raise ContextError(
                f"{length} tokens do not fit into the context of {self.config.max_position_embeddings}; shorten the prompt."
            )

    def _check(self, spans: Sequence[Span]) -> tuple[npt.NDArray[np.int64], list[int]]:
        """All ids joined, and where each span starts among them."""
        starts, count = [], 0
        for span in spans:
            if not len(span.ids):
                raise UserError("There are no token ids to run; give at least one.")
            if span.cache.pages is not self.pages:
                raise UserError("A cache belongs to another model; use this model's new_cache().")
            self._room(span.cache.length + len(span.ids))
            starts.append(count)
            count += len(span.ids)
        if len({id(s.cache) for s in spans}) != len(spans):
            raise UserError("Two spans share a cache; give each sequence its own.")
        ids = np.fromiter((i for s in spans for i in s.ids), np.int64, count)
        if count and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            bad = int(ids[(ids < 0) | (ids >= self.config.vocab_size)][0])
            raise UserError(f"Token id {bad} is not in this model's vocabulary of {self.config.vocab_size}.")
        return ids, starts

    def _embed(self, ids: npt.NDArray[np.int64]) -> F32:
        rows = self._embedding[ids]
        return bf16_to_f32(rows) if rows.dtype == np.uint16 else np.ascontiguousarray(rows)

    def _rotation(self, start: int, count: int) -> tuple[F32, F32]:
        """cos and sin (count, D/2) of positions start.., times the YaRN concentration."""
        parts = [self._block_of_angles(b) for b in range(start // ANGLES, (start + count - 1) // ANGLES + 1)]
        first = start - start // ANGLES * ANGLES
        cos, sin = (np.concatenate([p[i] for p in parts]) if len(parts) > 1 else parts[0][i] for i in (0, 1))
        return cos[first : first + count], sin[first : first + count]

    def _block_of_angles(self, block: int) -> tuple[F32, F32]:
        if block not in self._angles:
            inv_freq, concentration = self.config.rope()
            positions = np.arange(block * ANGLES, (block + 1) * ANGLES, dtype=np.float32)
            # The product is rounded to float32, as in the published code; only then the functions, exactly.
            angles = (positions[:, None] * np.asarray(inv_freq, np.float32)).astype(np.float64)
            scale = np.float32(concentration)
            self._angles[block] = tuple(f(angles).astype(np.float32) * scale for f in (np.cos, np.sin))  # type: ignore[assignment]
        return self._angles[block]

    def _acts(self, x: F32) -> Activations:
        """Rows as this precision's matrix products take them."""
        return kernels.quantize(x) if self.precision == "int8" else kernels.pad(x, self.precision == "bf16")

    def _attend(self, layer: _Layer, x: F32, cos: F32, sin: F32, pages: Paged, place: int) -> None:
        """x += attention of one layer; keys and values enter its place in the pages."""
        heads = self.config.num_attention_heads
        h = kernels.rms_norm(x, layer.attn_norm, self.config.rms_norm_eps)
        qkv = kernels.linear(layer.qkv, self._acts(h), layer.qkv_bias)
        kernels.rope(qkv, cos, sin, heads, pages, place)
        y = kernels.attention(qkv, heads, pages, place, layer.window, layer.sinks)
        kernels.linear(layer.out, self._acts(y), layer.out_bias, into=x)

    def _think(self, layer: _Layer, x: F32) -> None:
        """x += mixture of experts."""
        c = self.config
        h = kernels.rms_norm(x, layer.mlp_norm, c.rms_norm_eps)
        exact = kernels.pad(h, self.precision == "bf16")
        ids, weights = kernels.route(kernels.linear(layer.gate, exact, layer.gate_bias), c.experts_per_token)
        acts = kernels.quantize(h) if self.precision == "int8" else exact
        kernels.moe(
            x, acts, ids, weights, layer.w1, layer.b1, layer.w2, layer.b2, c.swiglu_alpha, c.swiglu_limit,
            self.precision == "bf16",
        )  # fmt: skip

    def _logits(self, x: F32, spans: Sequence[Span], starts: list[int]) -> list[F32]:
        picks: list[list[int]] = []
        for span, at in zip(spans, starts, strict=True):
            first = {"last": len(span.ids) - 1, "all": 0, "none": len(span.ids)}[span.want]
            picks.append(list(range(at + first, at + len(span.ids))))
        rows = [r for p in picks for r in p]
        if not rows:
            return [np.empty((0, self.config.vocab_size), np.float32) for _ in spans]
        h = kernels.rms_norm(np.ascontiguousarray(x[rows]), self._norm, self.config.rms_norm_eps)
        y = kernels.linear(self._unembedding, self._acts(h))
        ends = np.cumsum([len(p) for p in picks])
        return [y[end - len(p) : end] for p, end in zip(picks, ends, strict=True)]


def load(
    name: str | os.PathLike[str] = "mini",
    *,
    precision: str = "int8",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Model:
    """A model by name or folder, packed first if need be (`progress(done, total)` in bytes while that lasts).

    Raises UserError subclasses for an unknown name, a bad checkpoint, or no room for the pack; UsageError for an
    unknown precision.
    """
    from motet.library import find

    if threads is not None:
        kernels.set_threads(threads)
    folder = find(name)
    return Model(Pack(ensure_pack(folder, precision, progress)), folder)

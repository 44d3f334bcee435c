"""The fast forward pass: readable Python over fused native ops; token ids in, logits out.

Knows one model and the caches its callers hold; knows no sampling, text or files beyond the pack. One row's result has
the same bits whatever else is in the batch, however its prompt was cut into chunks, on any number of threads.

Shapes: T tokens in a step, d hidden size, H query heads, K key-value heads, D head size, V vocabulary.
Architecture: gpt-oss model card (arXiv 2508.10925), section 2.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from motet import kernels
from motet.errors import UsageError, UserError
from motet.kernels import F32, KV_KINDS, Activations, Matrix, Paged, bf16_to_f32
from motet.kvcache import Cache, Pages, PagesFull
from motet.pack import Pack, Progress, ensure_pack

__all__ = ["Cache", "ContextError", "Model", "Pages", "PagesFull", "Pass", "Span", "load"]

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

    def __init__(self, pack: Pack, folder: Path, kv: str | None = None) -> None:
        """kv: how keys and values are stored; see `load`."""
        self.pack, self.folder = pack, folder
        self.config, self.precision = pack.config, pack.precision
        self.kv = kv or ("float32" if self.precision == "float32" else "bf16")
        if self.kv not in KV_KINDS:
            raise UsageError(f"kv is '{kv}'; choose {', '.join(KV_KINDS)}.")
        self._layers = [_Layer.open(pack, n) for n in range(self.config.num_hidden_layers)]
        self._norm, self._unembedding = pack.array("norm.scale"), pack.matrix("unembedding.weight")
        self.pages = self.new_pages()  # of the caches that new_cache makes
        self._angles: dict[int, tuple[F32, F32]] = {}
        self._encoding: Encoding | None = None
        self.tap: Callable[[F32], None] | None = None  # is shown each layer's router logits (T, E), in order

    @property
    def encoding(self) -> Encoding:
        """The vocabulary of the model's folder."""
        if self._encoding is None:
            from motet.tokenizer import load_encoding

            self._encoding = load_encoding(self.folder)
        return self._encoding

    def new_pages(self, budget: int | None = None) -> Pages:
        """Memory for keys and values of its own, of at most `budget` bytes; whoever runs a thread of its own makes some."""
        return Pages(self.config, self.kv, budget)

    def new_cache(self) -> Cache:
        """An empty cache for one sequence."""
        return self.pages.new_cache()

    def forward(self, spans: Sequence[Span]) -> list[F32]:
        """One step for several sequences; each cache grows by its span. Logits (n, V) float32 per span, n by `want`.

        Raises before anything is computed: ContextError when a sequence would pass the context, PagesFull when the
        keys and values would pass their budget, UserError for ids that are not in the vocabulary and for empty spans.
        """
        step = self.begin(spans)
        step.run()
        return step.logits

    def begin(self, spans: Sequence[Span], record: bool = False) -> Pass:
        """A forward pass that may pause between layers; raises as `forward` does. With `record`, it keeps its routes."""
        return Pass(self, spans, record)

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
            if span.cache.pages.config is not self.config:
                raise UserError("A cache belongs to another model; use this model's new_cache().")
            if span.cache.pages is not spans[0].cache.pages:
                raise UserError(
                    "The caches of a step come from different Pages; run them in steps of their own."
                )
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
        rows = self.pack.rows("embedding.weight", ids)
        return bf16_to_f32(rows) if rows.dtype == np.uint16 else rows

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

    def _think(self, layer: _Layer, x: F32) -> npt.NDArray[np.int32]:
        """x += mixture of experts; the experts (T, k) each row went to."""
        c = self.config
        h = kernels.rms_norm(x, layer.mlp_norm, c.rms_norm_eps)
        exact = kernels.pad(h, self.precision == "bf16")
        logits = kernels.linear(layer.gate, exact, layer.gate_bias)
        if self.tap is not None:
            self.tap(logits)
        ids, weights = kernels.route(logits, c.experts_per_token)
        acts = kernels.quantize(h) if self.precision == "int8" else exact
        kernels.moe(
            x, acts, ids, weights, layer.w1, layer.b1, layer.w2, layer.b2, c.swiglu_alpha, c.swiglu_limit,
            self.precision == "bf16",
        )  # fmt: skip
        return ids

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


class Pass:
    """A forward pass under way. It may pause between layers while others run: its rows keep their bits.

    Its caches belong to it until it has ended, and grow only then. `routes` (T, layers, k) are the experts of each row.
    """

    def __init__(self, model: Model, spans: Sequence[Span], record: bool) -> None:
        self.spans, self.logits = list(spans), list[F32]()
        self.layer_s = 0.0  # seconds of the latest layer
        self._model, self._at = model, 0
        ids = model._check(self.spans)[0]
        shape = (len(ids), len(model._layers), model.config.experts_per_token)
        self._record = np.empty(shape, np.int32) if record else None
        if self.spans:
            self.spans[0].cache.pages.reserve((s.cache, len(s.ids)) for s in self.spans)
        self._x = model._embed(ids)
        self._place()

    def _place(self) -> None:
        """Where the rows of each span are, and where their keys and values go."""
        lengths = [len(s.ids) for s in self.spans]
        self._starts = [sum(lengths[:n]) for n in range(len(lengths))]
        if self.spans:
            pages = self.spans[0].cache.pages
            self._paged = pages.step([(s.cache, len(s.ids)) for s in self.spans])
            tables = [self._model._rotation(s.cache.length, len(s.ids)) for s in self.spans]
            self._cos, self._sin = (np.concatenate([t[i] for t in tables]) for i in (0, 1))

    def run(self, seconds: float = math.inf) -> bool:
        """Goes on for about so long, at least one layer; whether it has ended, so that `logits` are there."""
        model, began = self._model, time.perf_counter()
        now = began
        while self.spans and self._at < len(model._layers):
            if now > began and now - began + self.layer_s > seconds:
                return False
            pool, place = self.spans[0].cache.pages.places[self._at]
            layer = model._layers[self._at]
            model._attend(layer, self._x, self._cos, self._sin, self._paged[pool], place)
            routes = model._think(layer, self._x)
            if self._record is not None:
                self._record[:, self._at] = routes
            self._at += 1
            self.layer_s, now = time.perf_counter() - now, time.perf_counter()
        if not self.logits:
            for span in self.spans:
                span.cache.length += len(span.ids)
            self.logits = model._logits(self._x, self.spans, self._starts)
        return True

    @property
    def routes(self) -> npt.NDArray[np.int32] | None:
        """Experts (T, layers, k) of all rows, of the layers so far, when they are recorded."""
        return None if self._record is None or not self._at else self._record[:, : self._at]

    def drop(self, cache: Cache) -> None:
        """Leaves one sequence out from here on; its cache is as it was before."""
        keep = np.concatenate([np.full(len(s.ids), s.cache is not cache) for s in self.spans])
        self.spans = [s for s in self.spans if s.cache is not cache]
        self._x = np.ascontiguousarray(self._x[keep])
        if self._record is not None:
            self._record = self._record[keep]
        self._place()


def load(
    name: str | os.PathLike[str] = "mini",
    *,
    precision: str = "int8",
    kv: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Model:
    """A model by name or folder, packed first if need be (`progress(done, total)` in bytes while that lasts).

    kv: how keys and values are stored: bf16 (float32 when that is the precision), or int8 with a scale per position and
    head, in half the memory and at a little fidelity (measured by bench/kv.py).

    Raises UserError subclasses for an unknown name, a bad checkpoint, or no room for the pack; UsageError for an
    unknown precision or kv.
    """
    from motet.library import find

    if threads is not None:
        kernels.set_threads(threads)
    folder = find(name)
    return Model(Pack(ensure_pack(folder, precision, progress)), folder, kv)

"""Attention as training runs it: over documents that lie one behind the other, and over single steps that continue a cache.

Rows of a batch hold many short documents, and the kernel's work is queries times keys whatever the mask forbids. So a layer that
sees everything takes documents of about one length together, each with its own keys alone; a sliding layer takes blocks of
a window's length and lets each read its own and the block before. Same parameters and mathematics as the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.reference import Attention, Cache, attend, rotate
from motet.train.fusing import Fused, gather

LENGTHS = 32  # documents whose lengths round up to the same multiple of this go together
LONG = 512  # from here on leaving out what lies ahead is worth more than large products, and a mask would take much room


@Fused
def _heads(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, H + 2K, D) -> q (B, H, T, D) and k, v (B, K, T, D), float32, q and k rotated."""
    q, k, v = torch.split(qkv.transpose(1, 2), [heads, kv_heads, kv_heads], dim=1)
    return rotate(q, cos, sin).float(), rotate(k, cos, sin).float(), v.float()


@Fused
def _rotated(qkv: Tensor, cos: Tensor, sin: Tensor, turned: int) -> Tensor:
    """(B, T, H + 2K, D) with its first `turned` heads rotated, float32."""
    x = rotate(qkv[:, :, :turned], cos[:, None], sin[:, None])
    return torch.cat((x, qkv[:, :, turned:]), 2).float()


class _Move(torch.autograd.Function):
    """x[index]; `back` says where each row of x went, so that the backward pass is a gather as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor) -> Tensor:
        """x (N, ...), index (M,) with N for a row of zeros, back (N,) with M for a row that went nowhere -> (M, ...)."""
        ctx.save_for_backward(back)
        return gather(x, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        return gather(grads[0], back), None, None


def _attend(q: Tensor, keys: Tensor, sinks: Tensor, mask: Tensor | None) -> Tensor:
    """q (n, Tq, H, D), keys and values (n, Tk, 2K, D) -> (n, Tq, H, D).

    Under a mask (..., H/K * Tq, Tk) the queries that share keys stand one behind the other: fewer and larger products.
    """
    n, count, heads, width = q.shape
    k, v = keys.transpose(1, 2).chunk(2, dim=1)
    ratio = heads // k.shape[1]
    q = q.transpose(1, 2)
    if mask is None:
        return attend(q, k.repeat_interleave(ratio, 1), v.repeat_interleave(ratio, 1), sinks, None).transpose(1, 2)  # fmt: skip
    y = attend(q.reshape(n, -1, ratio * count, width), k, v, sinks, mask)
    return y.reshape(n, heads, count, width).transpose(1, 2)


@dataclass(frozen=True)
class Whole:
    """Documents by length. `index` (M,) is the position of every row, B*T where it is void; `back` (B*T,) the row of every position,
    M for padding; `groups` cuts the rows into (documents, length, mask)."""

    index: Tensor
    back: Tensor
    groups: tuple[tuple[int, int, Tensor | None], ...]

    @classmethod
    def of(cls, segments: Tensor, ratio: int) -> Whole:
        """segments (B, T), the numbers of a row's documents, which do not come twice; below 0 is padding. ratio: H/K."""
        flat = _numbered(segments).view(-1)
        count = len(flat)
        edges = torch.cat((torch.ones(1, dtype=torch.bool), flat[1:] != flat[:-1])).nonzero()[:, 0]
        lengths = torch.diff(edges, append=torch.tensor([count]))
        kept = segments.reshape(-1)[edges] >= 0
        starts, lengths = edges[kept], lengths[kept]
        rounded = (lengths + LENGTHS - 1) // LENGTHS * LENGTHS
        parts, groups = [], []
        for length in cast("list[int]", torch.unique(rounded).tolist()):
            mine = rounded == length
            step = torch.arange(length)
            places = starts[mine, None] + step
            parts.append(places.masked_fill(step >= lengths[mine, None], count).view(-1))
            groups.append((int(mine.sum()), length, _ahead(length, ratio) if length < LONG else None))
        index = torch.cat(parts)
        back = torch.full((count + 1,), len(index))
        back[index] = torch.arange(len(index))
        return cls(index, back[:count], tuple(groups))

    def attention(self, qkv: Tensor, sinks: Tensor) -> Tensor:
        """qkv (B*T, H + 2K, D) -> (B*T, H, D)."""
        rows, heads = cast(Tensor, _Move.apply(qkv, self.index, self.back)), len(sinks)  # type: ignore[no-untyped-call]
        parts, out = torch.split(rows, [n * length for n, length, _ in self.groups]), []
        for (n, length, mask), part in zip(self.groups, parts, strict=True):
            documents = part.view(n, length, *rows.shape[1:])
            out.append(_attend(documents[:, :, :heads], documents[:, :, heads:], sinks, mask).flatten(0, 1))
        return cast(Tensor, _Move.apply(torch.cat(out), self.back, self.index))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Near:
    """Blocks of a window's length over all rows, one behind the other; `mask` (blocks, 1, H/K * W, 2W) additive, over the block before and the block."""

    mask: Tensor

    @classmethod
    def of(cls, segments: Tensor, ratio: int, window: int) -> Near:
        """segments and ratio as for `Whole`."""
        flat = _numbered(segments).view(-1)
        blocks = F.pad(flat, (0, -len(flat) % window), value=-1).view(-1, window)
        before = F.pad(blocks[:-1], (0, 0, 1, 0), value=-2)
        distance = window + torch.arange(window)[:, None] - torch.arange(2 * window)
        seen = (distance >= 0) & (distance < window) & (blocks[:, :, None] == torch.cat((before, blocks), 1)[:, None])  # fmt: skip
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
        return cls(mask.repeat(1, ratio, 1)[:, None])

    def attention(self, qkv: Tensor, sinks: Tensor) -> Tensor:
        """qkv (B*T, H + 2K, D) -> (B*T, H, D)."""
        blocks, window, heads = len(self.mask), self.mask.shape[-1] // 2, len(sinks)
        rows = F.pad(qkv, (0, 0, 0, 0, 0, blocks * window - len(qkv))).view(blocks, window, *qkv.shape[1:])
        own = rows[:, :, heads:]
        keys = torch.cat((F.pad(own[:-1], (0, 0, 0, 0, 0, 0, 1, 0)), own), 1)
        y = _attend(rows[:, :, :heads], keys, sinks, self.mask)
        return y.reshape(blocks * window, heads, -1)[: len(qkv)]


def _ahead(length: int, ratio: int) -> Tensor:
    """The additive mask of causality for `ratio` heads one behind the other, (1, 1, ratio * length, length)."""
    return torch.full((length, length), float("-inf")).triu(1).repeat(ratio, 1)[None, None]


def _numbered(segments: Tensor) -> Tensor:
    """Numbers (B, T) that no two rows share; -1 stays."""
    wide = int(segments.max()) + 1
    return torch.where(segments < 0, -1, segments + wide * torch.arange(len(segments))[:, None])


class Buffers(Cache):
    """A Cache that writes into room set aside: `capacity` positions, enough for prompt and reply."""

    def __init__(self, layers: int, pad: Tensor, capacity: int) -> None:
        super().__init__(layers, pad)
        self.capacity = capacity

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As Cache; the tensors returned are views."""
        end = self.length + k.shape[2]
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:
            keys, values = (k.new_empty(*k.shape[:2], self.capacity, k.shape[3]) for _ in range(2))
            self.keys[layer], self.values[layer] = keys, values
        keys[:, :, self.length : end], values[:, :, self.length : end] = k, v
        return keys[:, :, :end], values[:, :, :end]


class FastAttention(Attention):
    """Attention over documents, and single steps that read each key once for its group."""

    def sight(
        self, past: int, count: int, pad: Tensor | None, segments: Tensor | None
    ) -> Tensor | Whole | Near | None:
        """As Attention, but of documents where they lie."""
        if segments is None or pad is not None or past:
            return cast("Tensor | None", super().sight(past, count, pad, segments))
        ratio = self.heads // self.kv_heads
        return Near.of(segments, ratio, self.window) if self.window else Whole.of(segments, ratio)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | Whole | Near | None, cache: Cache | None
    ) -> Tensor:
        """As Attention; `mask` is what `sight` gave."""
        if isinstance(mask, (Whole, Near)):
            return self._documents(x, cos, sin, mask)
        if cache is None or x.shape[1] != 1 or cache.pad is None:
            return super().forward(x, cos, sin, mask, cache)
        return self._step(x, cos, sin, cache, cache.pad)

    def _documents(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Whole | Near) -> Tensor:
        qkv = self.qkv(self.norm(x)).view(*x.shape[:2], -1, self.head_dim)
        qkv = _rotated(qkv, cos, sin, self.heads + self.kv_heads).flatten(0, 1)
        y = mask.attention(qkv, self.sinks.float())
        return cast(Tensor, self.out(y.reshape(*x.shape[:2], -1).to(x.dtype)))

    def _step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, pad: Tensor) -> Tensor:
        batch = len(x)
        q, k, v = self._heads(self.qkv(self.norm(x)).view(batch, 1, -1, self.head_dim), cos, sin)
        k, v = cache.extend(self.layer, k, v)
        first = max(0, k.shape[2] - self.window) if self.window else 0
        k, v = k[:, :, first:], v[:, :, first:]
        scores = q.view(batch, self.kv_heads, -1, self.head_dim) @ k.mT * self.head_dim**-0.5
        void = torch.arange(first, first + k.shape[2]) < pad[:, None]
        scores.masked_fill_(void[:, None, None], float("-inf"))
        sinks = self.sinks.float().view(1, self.kv_heads, -1, 1).expand(batch, -1, -1, 1)
        share = torch.cat((scores, sinks), -1).softmax(-1)[..., :-1]
        return cast(Tensor, self.out((share @ v).view(batch, 1, -1).to(x.dtype)))

    def _heads(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return cast("tuple[Tensor, Tensor, Tensor]", _heads(qkv, cos, sin, self.heads, self.kv_heads))

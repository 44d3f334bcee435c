"""The reference model's parts as training runs them: same parameters, same mathematics, fewer passes over memory.

Experts work on slots: an (E, C) table with a row for every choice of every token, padded so that two batched products
serve all experts (C is the fullest expert's load, rounded up to few different values, because each new shape costs a
compiled primitive). What lies between the products is fused by torch.compile when `fuse(True)` was called. Which of
these is worth it was measured (bench/train.py); this file knows no recipe and no data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.config import ModelConfig
from motet.reference import Attention, Cache, MoE, Parts, Reference, RMSNorm, rotate

ROUND = 64  # slots per expert are a multiple of this


class Fused:
    """A function that torch.compile may fuse. Compilation takes seconds, so short runs and tests leave it off."""

    on: ClassVar[bool] = False

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """The function's own arguments and result."""
        if not Fused.on:
            return self.plain(*args)
        if self._compiled is None:
            self._compiled = torch.compile(self.plain)
        return self._compiled(*args)


def fuse(on: bool) -> None:
    """Let torch.compile fuse elementwise work from now on, in every model of this process."""
    Fused.on = on


@Fused
def _rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    t = x.float()
    t = t * torch.rsqrt(t.square().mean(-1, keepdim=True) + eps)
    return (t * scale.float()).to(x.dtype)


@Fused
def _heads(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, H + 2K, D) -> q (B, H, T, D) and k, v (B, K, T, D), float32, q and k rotated."""
    q, k, v = torch.split(qkv.transpose(1, 2), [heads, kv_heads, kv_heads], dim=1)
    return rotate(q, cos, sin).float(), rotate(k, cos, sin).float(), v.float()


@Fused
def _act(h: Tensor, weight: Tensor, alpha: float, limit: float) -> Tensor:
    """Rows (M, 2I) of gates, then ups -> clamped SwiGLU times the router's weight (M,), (M, I)."""
    gate, up = h.float().chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (gate * torch.sigmoid(alpha * gate) * (up + 1) * weight.unsqueeze(-1)).to(h.dtype)


@Fused
def _act_backward(
    h: Tensor, weight: Tensor, da: Tensor, alpha: float, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_act` for h (M, 2I) and weight (M,), and its value once more (cheaper than keeping it)."""
    raw_gate, raw_up = h.float().chunk(2, dim=-1)
    gate, up = raw_gate.clamp(max=limit), raw_up.clamp(-limit, limit)
    grad, w = da.float(), weight.unsqueeze(-1)
    s = torch.sigmoid(alpha * gate)
    value = gate * s * (up + 1)
    dgate = torch.where(raw_gate <= limit, grad * w * (up + 1) * (s + alpha * gate * s * (1 - s)), 0.0)
    dup = torch.where(raw_up.abs() <= limit, grad * w * gate * s, 0.0)
    return torch.cat((dgate, dup), -1).to(h.dtype), (grad * value).sum(-1), (value * w).to(h.dtype)


@Fused
def _sum_choices(y: Tensor) -> Tensor:
    """(N, k, d) -> (N, d), added in float32."""
    return y.float().sum(1).to(y.dtype)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """rows (M, d) at index (...,), where M itself means a row of zeros."""
    padded = torch.cat((rows, rows.new_zeros(1, rows.shape[-1])))
    return padded[index.reshape(-1)].view(*index.shape, rows.shape[-1])


class _Experts(torch.autograd.Function):
    """Both products of all experts over slots. The backward pass gathers where autograd would scatter."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, weight: Tensor, token: Tensor, slot: Tensor,
        alpha: float, limit: float,
    ) -> Tensor:  # fmt: skip
        """x (N, d), w1 (E, 2I, d) gates first, b1 (E, 2I), w2 (E, d, I), weight and slot (N, k), token (E, C) -> (N, d)."""
        experts, capacity = token.shape
        rows = _gather(x, token)
        h = torch.baddbmm(b1.unsqueeze(1), rows, w1.mT).view(experts * capacity, -1)
        share = weight.new_zeros(experts * capacity).scatter_(0, slot.reshape(-1), weight.reshape(-1))
        a = _act(h, share, alpha, limit)
        y = torch.bmm(a.view(experts, capacity, -1), w2.mT).view(experts * capacity, -1)
        ctx.save_for_backward(rows, h, w1, w2, share, token, slot)
        ctx.constants = alpha, limit
        return cast(Tensor, _sum_choices(y[slot.reshape(-1)].view(*slot.shape, -1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, h, w1, w2, share, token, slot = ctx.saved_tensors
        experts, capacity = token.shape
        dy = _gather(grads[0], token)
        da = torch.bmm(dy, w2).view(experts * capacity, -1)
        dh, dshare, a = _act_backward(h, share, da, *ctx.constants)
        dh, a = dh.view(experts, capacity, -1), a.view(experts, capacity, -1)
        dw2 = torch.bmm(dy.mT, a)
        dw1 = torch.bmm(dh.mT, rows)
        dx = torch.bmm(dh, w1).view(experts * capacity, -1)
        dx = _sum_choices(dx[slot.reshape(-1)].view(*slot.shape, -1))
        return dx, dw1, dh.sum(1), dw2, dshare[slot], None, None, None, None


def slots(choice: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """choice (N, k) -> token (E, C), N where a slot is empty, and slot (N, k), the flat place of every choice."""
    flat = choice.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=experts)
    capacity = -(-int(counts.max()) // ROUND) * ROUND
    place = (
        torch.arange(len(flat)) + (torch.arange(experts) * capacity - counts.cumsum(0) + counts)[flat[order]]
    )
    slot = torch.empty_like(flat)
    slot[order] = place
    token = torch.full((experts * capacity,), len(choice), dtype=torch.int64)
    token[place] = order // choice.shape[1]
    return token.view(experts, capacity), slot.view(choice.shape)


class FastNorm(RMSNorm):
    """RMSNorm in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """As RMSNorm."""
        return cast(Tensor, _rms_norm(x, self.scale, self.eps))


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
    """Attention whose heads are cut and rotated in one pass, and whose single steps read each key once for its group."""

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """As Attention."""
        batch, time, _ = x.shape
        if cache is None or time != 1 or cache.pad is None:
            return super().forward(x, cos, sin, mask, cache)
        q, k, v = self._heads(self.qkv(self.norm(x)).view(batch, time, -1, self.head_dim), cos, sin)
        k, v = cache.extend(self.layer, k, v)
        first = max(0, k.shape[2] - self.window) if self.window else 0
        k, v = k[:, :, first:], v[:, :, first:]
        scores = q.view(batch, self.kv_heads, -1, self.head_dim) @ k.mT * self.head_dim**-0.5
        void = torch.arange(first, first + k.shape[2]) < cache.pad[:, None]
        scores.masked_fill_(void[:, None, None], float("-inf"))
        sinks = self.sinks.float().view(1, self.kv_heads, -1, 1).expand(batch, -1, -1, 1)
        share = torch.cat((scores, sinks), -1).softmax(-1)[..., :-1]
        return cast(Tensor, self.out((share @ v).view(batch, time, -1).to(x.dtype)))

    def _heads(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return cast("tuple[Tensor, Tensor, Tensor]", _heads(qkv, cos, sin, self.heads, self.kv_heads))


class SlotExperts(MoE):
    """Experts over slots; the router stays in float32 whatever the activations are."""

    def _logits(self, t: Tensor) -> Tensor:
        return F.linear(t.float(), self.gate.weight.float(), self.gate.bias.float())

    def _experts(self, t: Tensor, choice: Tensor, weight: Tensor) -> Tensor:
        experts, double, width = self.mlp1_weight.shape
        w1 = (
            self.mlp1_weight.view(experts, double // 2, 2, width)
            .transpose(1, 2)
            .reshape(experts, double, width)
        )
        b1 = self.mlp1_bias.view(experts, double // 2, 2).transpose(1, 2).reshape(experts, double)
        token, slot = slots(choice, experts)
        y = _Experts.apply(t, w1, b1, self.mlp2_weight, weight, token, slot, self.alpha, self.limit)  # type: ignore[no-untyped-call]
        shares = weight.new_zeros(len(t), experts).scatter(1, choice, weight)
        return cast(Tensor, y + shares.to(t.dtype) @ self.mlp2_bias)


FAST = Parts(FastNorm, FastAttention, SlotExperts)


def fast_model(config: ModelConfig) -> Reference:
    """An empty Reference of the fast parts, float32 parameters."""
    return Reference(config, parts=FAST)

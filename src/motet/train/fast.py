"""The reference model's parts as training runs them: same parameters, same mathematics, fewer passes over memory.

Experts work on slots: rows for every choice of every token, experts in the order of their load and padded in groups to
the fullest of the group, so that two batched products serve a group (loads are rounded up to few different values, because
each new shape costs a compiled primitive). What lies between the products is fused by torch.compile when `fuse(True)` was
called. Which of these is worth it was measured (bench/train.py); this file knows no recipe and no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.config import ModelConfig
from motet.reference import MoE, Parts, Reference, RMSNorm
from motet.train.attention import FastAttention
from motet.train.fusing import Fused, gather

ROUND = 64  # slots per expert are a multiple of this
GROUPS = 4  # of experts with about the same load; one alone pads every expert to the fullest, twice the work or more


@Fused
def _rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    t = x.float()
    t = t * torch.rsqrt(t.square().mean(-1, keepdim=True) + eps)
    return (t * scale.float()).to(x.dtype)


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


@dataclass(frozen=True)
class Slots:
    """Where every choice of every token is computed.

    `token` (M,) is the token of a row, N where the row is empty; `place` (N, k) the row of a choice; `order` (E,) the
    experts by falling load; `groups` (first expert, experts, first row, rows of each) cut `order` and the rows.
    """

    token: Tensor
    place: Tensor
    order: Tensor
    groups: tuple[tuple[int, int, int, int], ...]

    def cut(self, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """rows (M, a) by groups: (which of `order`, a view (experts, rows of each, a))."""
        for expert, count, row, each in self.groups:
            yield slice(expert, expert + count), rows[row : row + count * each].view(count, each, -1)

    def of_choices(self, rows: Tensor) -> Tensor:
        """rows (M, a) -> those of the choices, (N, k, a)."""
        return rows[self.place.reshape(-1)].view(*self.place.shape, -1)

    def batched(self, rows: Tensor, matrices: Tensor, bias: Tensor | None = None) -> Tensor:
        """rows (M, a) times the matrices (E, a, b) of their experts, in `order`, plus bias (E, b): (M, b)."""
        out = rows.new_empty(len(rows), matrices.shape[-1])
        for (mine, a), (_, b) in zip(self.cut(rows), self.cut(out), strict=True):
            if bias is None:
                torch.bmm(a, matrices[mine], out=b)
            else:
                torch.baddbmm(bias[mine].unsqueeze(1), a, matrices[mine], out=b)
        return out

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """left (M, a) and right (M, b) -> sum over an expert's rows of left^T right, (E, a, b), experts as they were."""
        out = left.new_empty(len(self.order), left.shape[-1], right.shape[-1])
        for (mine, a), (_, b) in zip(self.cut(left), self.cut(right), strict=True):
            out[self.order[mine]] = torch.bmm(a.mT, b)
        return out

    def sums(self, rows: Tensor) -> Tensor:
        """The sum of an expert's rows (M, a), (E, a), experts as they were."""
        out = rows.new_empty(len(self.order), rows.shape[-1])
        for mine, a in self.cut(rows):
            out[self.order[mine]] = a.sum(1)
        return out


def slots(choice: Tensor, experts: int) -> Slots:
    """choice (N, k) of `experts` -> their slots."""
    flat = choice.reshape(-1)
    by_expert = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=experts)
    order = torch.argsort(counts, descending=True, stable=True)
    loads = counts[order].tolist()
    groups: list[tuple[int, int, int, int]] = []
    size, rows = -(-experts // GROUPS), 0
    for first in range(0, experts, size):
        count, each = min(size, experts - first), max(ROUND, -(-loads[first] // ROUND) * ROUND)
        if groups and groups[-1][3] == each:
            start, before, row, _ = groups[-1]
            groups[-1] = (start, before + count, row, each)
        else:
            groups.append((first, count, rows, each))
        rows += count * each
    begin = torch.empty(experts, dtype=torch.int64)
    for first, count, row, each in groups:
        begin[order[first : first + count]] = row + each * torch.arange(count)
    place = torch.arange(len(flat)) + (begin - counts.cumsum(0) + counts)[flat[by_expert]]
    slot = torch.empty_like(flat)
    slot[by_expert] = place
    token = torch.full((rows,), len(choice), dtype=torch.int64)
    token[place] = by_expert // choice.shape[1]
    return Slots(token, slot.view(choice.shape), order, tuple(groups))


class _Experts(torch.autograd.Function):
    """Both products of all experts over slots. The backward pass gathers where autograd would scatter."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, weight: Tensor, at: Slots, alpha: float, limit: float
    ) -> Tensor:  # fmt: skip
        """x (N, d), w1 (E, 2I, d) gates first, b1 (E, 2I), w2 (E, d, I), weight (N, k) -> (N, d)."""
        w1, w2 = w1[at.order], w2[at.order]
        rows = gather(x, at.token)
        h = at.batched(rows, w1.mT, b1[at.order])
        share = weight.new_zeros(len(rows)).scatter_(0, at.place.reshape(-1), weight.reshape(-1))
        y = at.batched(_act(h, share, alpha, limit), w2.mT)
        ctx.save_for_backward(rows, h, w1, w2, share)
        ctx.at, ctx.constants = at, (alpha, limit)
        return cast(Tensor, _sum_choices(at.of_choices(y)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, h, w1, w2, share = ctx.saved_tensors
        at: Slots = ctx.at
        dy = gather(grads[0], at.token)
        dh, dshare, a = _act_backward(h, share, at.batched(dy, w2), *ctx.constants)
        dx = _sum_choices(at.of_choices(at.batched(dh, w1)))
        dw1, dw2 = at.outer(dh, rows), at.outer(dy, a)
        return dx, dw1, at.sums(dh), dw2, dshare[at.place], None, None, None


class FastNorm(RMSNorm):
    """RMSNorm in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """As RMSNorm."""
        return cast(Tensor, _rms_norm(x, self.scale, self.eps))


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
        at = slots(choice, experts)
        y = _Experts.apply(t, w1, b1, self.mlp2_weight, weight, at, self.alpha, self.limit)  # type: ignore[no-untyped-call]
        shares = weight.new_zeros(len(t), experts).scatter(1, choice, weight)
        return cast(Tensor, y + shares.to(t.dtype) @ self.mlp2_bias)


FAST = Parts(FastNorm, FastAttention, SlotExperts)


def fast_model(config: ModelConfig) -> Reference:
    """An empty Reference of the fast parts, float32 parameters."""
    return Reference(config, parts=FAST)

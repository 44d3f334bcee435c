"""The model in plain PyTorch: the oracle the fast path is compared with, and what `motet.train` trains.

Knows the architecture (openai/gpt-oss `torch/model.py`, model card arXiv 2508.10925) for every legal ModelConfig.
Does not know text, sampling parameters, files beyond `Checkpoint`, or speed beyond what training needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motet.config import ModelConfig

if TYPE_CHECKING:
    from motet.checkpoint import Checkpoint


@dataclass(frozen=True)
class Routing:
    """What one layer's router decided. N = tokens in batch order, E = experts, k = experts per token."""

    logits: Tensor  # (N, E), with gradient
    choice: Tensor  # (N, k) int64, best first
    weight: Tensor  # (N, k), rows sum to 1


class Cache:
    """Keys and values of every layer for a batch of B rows that grow together; `pad[b]` leading ids of row b are void.

    Rotary angles enter the scores only as differences, so rows padded on the left need no positions of their own.
    """

    def __init__(self, layers: int, pad: Tensor | None = None) -> None:
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.pad = pad
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, D) keys and values of one layer; return everything held so far."""
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None:
            k, v = torch.cat((old_k, k), dim=2), torch.cat((old_v, v), dim=2)
        self.keys[layer], self.values[layer] = k, v
        return k, v

    def keep(self, rows: Tensor) -> None:
        """Drop every batch row not listed in `rows` (B',) int64."""
        self.keys = [None if k is None else k[rows] for k in self.keys]
        self.values = [None if v is None else v[rows] for v in self.values]
        self.pad = None if self.pad is None else self.pad[rows]


class RMSNorm(nn.Module):
    """RMSNorm whose gain multiplies in float32, before the cast back (Llama multiplies after)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        t = x.float()
        t = t * torch.rsqrt(t.square().mean(-1, keepdim=True) + self.eps)
        return (t * self.scale.float()).to(x.dtype)


class _SinkAttention(torch.autograd.Function):
    """softmax([q k / sqrt(D), sink]) v without the sink's column, through PyTorch's flash kernel for CPUs.

    The kernel returns out and lse of a softmax without sink. With z = logaddexp(lse, sink) every weight shrinks by
    exp(lse - z); given the shrunk out and z, the kernel's own backward is exact, and dsink = -sum(p_sink * out.dout).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, mask: Tensor | None) -> Tensor:
        """As `attend`."""
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, mask is None, attn_mask=mask
        )
        lse = lse.reshape(out.shape[:3])
        total = torch.logaddexp(lse.reshape(len(q), len(sinks), -1), sinks.view(1, -1, 1)).view(lse.shape)
        out = out * torch.exp(lse - total).unsqueeze(-1)
        ctx.save_for_backward(q, k, v, sinks, out, total)
        ctx.mask = mask
        return cast(Tensor, out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sinks, out, total = ctx.saved_tensors
        grad = grads[0].contiguous()
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, total, 0.0, ctx.mask is None, attn_mask=ctx.mask
        )
        of_heads = (len(q), len(sinks), -1)
        share = torch.exp(sinks.view(1, -1, 1) - total.view(of_heads))
        dsinks = -(share * (grad * out).sum(-1).view(of_heads)).sum((0, 2))
        return dq, dk, dv, dsinks, None


def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, mask: Tensor | None) -> Tensor:
    """q (B, H, Tq, D), k and v (B, H, Tk, D), float32; sinks (H,); mask additive, broadcastable to (B, H, Tq, Tk), None = causal.

    Query heads that share keys may also stand one behind the other, q (B, K, H/K * Tq, D) and k, v (B, K, Tk, D), under a mask.
    """
    return cast(Tensor, _SinkAttention.apply(q, k, v, sinks, mask))  # type: ignore[no-untyped-call]


class _Permute(torch.autograd.Function):
    """x[order]; the backward pass is a gather as well, because the inverse permutation is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grads[0][inverse], None, None


class _GroupedLinear(torch.autograd.Function):
    """Rows sorted by expert, `counts[e]` rows each: y = x W_e^T + b_e, one matrix product per expert and direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
        """x (M, in), weight (E, out, in), bias (E, out), counts sum to M -> (M, out)."""
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        out = x.new_empty(x.shape[0], weight.shape[1])
        for e, rows in _groups(counts):
            torch.addmm(bias[e], x[rows], weight[e].t(), out=out[rows])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        db = weight.new_zeros(weight.shape[:2])
        for e, rows in _groups(ctx.counts):
            torch.mm(grad[rows], weight[e], out=dx[rows])
            torch.mm(grad[rows].t(), x[rows], out=dw[e])
            torch.sum(grad[rows], 0, out=db[e])
        return dx, dw, db, None


def _groups(counts: list[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for e, n in enumerate(counts):
        if n:
            yield e, slice(start, start + n)
        start += n


def swiglu(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    """Clamped SwiGLU: gate bounded above only, up on both sides, and one is added to up (model card, footnote 1)."""
    gate = gate.clamp(max=limit)
    up = up.clamp(min=-limit, max=limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest along the last axis as (values, indices), best first; equal values: the lower index first."""
    # torch.topk promises no order among ties; a stable sort does.
    values, indices = torch.sort(logits, dim=-1, descending=True, stable=True)
    return values[..., :k], indices[..., :k]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in half-split form. x (B, heads, T, D); cos, sin (T, D/2), concentration included."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention with RoPE, one learned sink per head and, in sliding layers, a window that counts self."""

    def __init__(self, config: ModelConfig, layer: int, norm: type[RMSNorm] = RMSNorm) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.window = config.head_dim, config.window(layer)
        width = config.hidden_size
        self.norm = norm(width, config.rms_norm_eps)
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.sinks = nn.Parameter(torch.zeros(self.heads))
        self.out = nn.Linear(self.heads * self.head_dim, width)

    def sight(self, past: int, count: int, pad: Tensor | None, segments: Tensor | None) -> Any:
        """The `mask` of `forward`, the same for every layer with this window."""
        return _mask(self.window, past, count, pad, segments)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """x (B, T, d) -> the update to add, same shape. Scores, sinks and softmax are float32 whatever x is."""
        batch, time, _ = x.shape
        q, k, v = self._heads(self.qkv(self.norm(x)).view(batch, time, -1, self.head_dim), cos, sin)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        ratio = self.heads // self.kv_heads
        if ratio > 1:
            k, v = k.repeat_interleave(ratio, dim=1), v.repeat_interleave(ratio, dim=1)
        y = attend(q, k, v, self.sinks.float(), mask)
        return cast(Tensor, self.out(y.transpose(1, 2).reshape(batch, time, -1).to(x.dtype)))

    def _heads(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, H + 2K, D) -> q (B, H, T, D) and k, v (B, K, T, D), float32, q and k rotated."""
        q, k, v = torch.split(qkv.transpose(1, 2), [self.heads, self.kv_heads, self.kv_heads], dim=1)
        return rotate(q, cos, sin).float(), rotate(k, cos, sin).float(), v.float()


class MoE(nn.Module):
    """Router and experts. Rows of mlp1 alternate gate, up, gate, up, ... as published."""

    def __init__(self, config: ModelConfig, norm: type[RMSNorm] = RMSNorm) -> None:
        super().__init__()
        experts, width, inner = config.num_experts, config.hidden_size, config.intermediate_size
        self.k, self.alpha, self.limit = config.experts_per_token, config.swiglu_alpha, config.swiglu_limit
        self.norm = norm(width, config.rms_norm_eps)
        self.gate = nn.Linear(width, experts)
        self.mlp1_weight = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.mlp1_bias = nn.Parameter(torch.zeros(experts, 2 * inner))
        self.mlp2_weight = nn.Parameter(torch.empty(experts, width, inner))
        self.mlp2_bias = nn.Parameter(torch.zeros(experts, width))

    def forward(self, x: Tensor, routing: list[Routing] | None) -> Tensor:
        """x (B, T, d) -> the update to add, same shape. Weights: softmax over the selected logits only, in float32."""
        t = self.norm(x).view(-1, x.shape[-1])
        logits = self._logits(t)
        chosen, choice = top_k(logits, self.k)
        weight = chosen.softmax(dim=-1)
        if routing is not None:
            routing.append(Routing(logits, choice, weight))
        return self._experts(t, choice, weight).view(x.shape)

    def _logits(self, t: Tensor) -> Tensor:
        return cast(Tensor, self.gate(t).float())

    def _experts(self, t: Tensor, choice: Tensor, weight: Tensor) -> Tensor:
        w1, w2 = self.mlp1_weight, self.mlp2_weight
        experts, rows, width = w1.shape
        # Gate rows first, up rows second: the same dot products, but halves are contiguous and twice as fast to read.
        halves = w1.view(experts, rows // 2, 2, width).transpose(1, 2).reshape(experts, rows, width)
        b1 = self.mlp1_bias.view(experts, rows // 2, 2).transpose(1, 2).reshape(experts, rows)
        order = torch.argsort(choice.reshape(-1), stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        counts = torch.bincount(choice.reshape(-1), minlength=experts).tolist()
        copies = t.unsqueeze(1).expand(-1, self.k, -1).reshape(-1, width)
        x = cast(Tensor, _Permute.apply(copies, order, inverse))  # type: ignore[no-untyped-call]
        gate, up = cast(Tensor, _GroupedLinear.apply(x, halves, b1, counts)).chunk(2, dim=-1)  # type: ignore[no-untyped-call]
        a = swiglu(gate, up, self.alpha, self.limit)
        y = cast(Tensor, _GroupedLinear.apply(a, w2, self.mlp2_bias, counts))  # type: ignore[no-untyped-call]
        y = cast(Tensor, _Permute.apply(y, inverse, order)).view(-1, self.k, width)  # type: ignore[no-untyped-call]
        return (y.float() * weight.unsqueeze(-1)).sum(1).to(t.dtype)


@dataclass(frozen=True)
class Parts:
    """The classes a model is made of; training brings faster ones with the same parameters and the same mathematics."""

    norm: type[RMSNorm] = RMSNorm
    attention: type[Attention] = Attention
    experts: type[MoE] = MoE


class Block(nn.Module):
    """One layer: attention, then experts, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, parts: Parts) -> None:
        super().__init__()
        self.attn = parts.attention(config, layer, parts.norm)
        self.mlp = parts.experts(config, parts.norm)


class _Table(nn.Module):
    """A bare (V, d) weight, so that parameters carry the published names."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))


class Reference(nn.Module):
    """gpt-oss, slow and exact. Parameter names are the names of OpenAI's `original/` checkpoints.

    `dtype` is that of parameters and activations (float32 or bfloat16); norms, rotary tables, attention, router
    weights and the weighted sum of experts are computed in float32 and cast back.
    """

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype = torch.float32, parts: Parts = Parts()
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = _Table(config.vocab_size, config.hidden_size)
        self.block = nn.ModuleList(Block(config, i, parts) for i in range(config.num_hidden_layers))
        self.norm = parts.norm(config.hidden_size, config.rms_norm_eps)
        self.unembedding = _Table(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.unembedding.weight = self.embedding.weight
        self.to(dtype)

    @classmethod
    def from_checkpoint(
        cls,
        source: str | PathLike[str] | Checkpoint,
        dtype: torch.dtype = torch.float32,
        parts: Parts = Parts(),
    ) -> Self:
        """Load a checkpoint folder (either layout, MXFP4 experts dequantised). Raises CheckpointError as opening does."""
        from motet.checkpoint import Checkpoint, open_checkpoint
        from motet.mxfp4 import dequantize

        checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
        model = cls(checkpoint.config, dtype, parts)
        names = set(checkpoint.names())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if f"{name}.blocks" in names:
                    blocks, scales = checkpoint.tensor(f"{name}.blocks"), checkpoint.tensor(f"{name}.scales")
                    value = dequantize(blocks.data, scales.data)
                else:
                    value = checkpoint.tensor(name).float32()
                parameter.copy_(torch.from_numpy(value))
        return model

    def initialize(self, generator: torch.Generator, std: float = 0.02) -> Self:
        """Fill with trainable random values: matrices N(0, std^2) but 1/sqrt(fan in) for experts, biases zero."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name.endswith(("bias", "sinks")):
                    p.zero_()
                elif name.endswith("scale"):
                    p.fill_(1.0)
                else:
                    wide = std if p.dim() == 2 and "embedding" in name else p.shape[-1] ** -0.5
                    p.copy_(torch.randn(p.shape, generator=generator) * wide)
        return self

    def forward(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        at: Tensor | None = None,
        routing: list[Routing] | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) for ids (B, T) int64, in the model's dtype.

        cache: continue from it and append to it. at: (M,) indices into the flattened B*T positions; then (M, V).
        routing: receives one Routing a layer. segments: (B, T); attention stays among positions of one number, so that
        several documents share a row (rotary angles enter as differences only, so positions need not start anew).
        """
        x = self.hidden(ids, cache=cache, routing=routing, segments=segments)
        if at is not None:
            x = x.reshape(-1, x.shape[-1])[at]
        return F.linear(self.norm(x), self.unembedding.weight)

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        routing: list[Routing] | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """The residual stream (B, T, d) before the final norm."""
        x = F.embedding(ids, self.embedding.weight)
        past = cache.length if cache is not None else 0
        cos, sin = self._angles(past, ids.shape[1])
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        pad = cache.pad if cache is not None else None
        kinds = {b.attn.window: b.attn for b in self._blocks()}
        masks = {w: a.sight(past, ids.shape[1], pad, segments) for w, a in kinds.items()}
        for block in self._blocks():
            x = x + block.attn(x, cos, sin, masks[block.attn.window], cache)
            x = x + block.mlp(x, routing)
        if cache is not None:
            cache.length = past + ids.shape[1]
        return x

    def new_cache(self, pad: Tensor | None = None) -> Cache:
        """An empty cache; `pad` (B,) counts void ids at the left of each row."""
        return Cache(self.config.num_hidden_layers, pad)

    def _blocks(self) -> Iterator[Block]:
        return iter(cast("list[Block]", self.block))

    def _angles(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """cos and sin (count, D/2) float32 of positions start.., times the YaRN concentration."""
        inv_freq, concentration = self.config.rope()
        positions = torch.arange(start, start + count, dtype=torch.float32)
        angles = positions[:, None] * torch.as_tensor(inv_freq, dtype=torch.float32)[None, :]
        return angles.cos() * concentration, angles.sin() * concentration


def _mask(
    window: int, past: int, count: int, pad: Tensor | None, segments: Tensor | None = None
) -> Tensor | None:
    """Additive mask, broadcastable to (B, H, count, past + count), or None where plain causality says it all."""
    if pad is None and segments is None and past == 0 and (window == 0 or window >= count):
        return None
    q = torch.arange(past, past + count)[:, None]
    k = torch.arange(past + count)[None, :]
    allowed = k <= q
    if window:
        allowed = allowed & (k > q - window)
    allowed = allowed[None, None]
    if pad is not None:
        # A void position sees itself, so that no row is empty; nobody else sees it.
        allowed = allowed & ((k >= pad[:, None, None, None]) | (k == q))
    if segments is not None:
        allowed = allowed & (segments[:, None, :, None] == segments[:, None, None, :])
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))

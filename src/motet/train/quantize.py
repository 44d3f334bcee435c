"""MXFP4 in the forward pass: values as they will be stored, gradients as if nothing had happened (straight-through).

The same numbers as `motet.mxfp4` (a test holds them together), in torch because every training step needs them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

BLOCK = 32


def mxfp4_values(w: Tensor) -> Tensor:
    """What w (..., K), K a multiple of 32, becomes after MXFP4 and back. Shared exponent floor(log2(amax)) - 2."""
    blocks = w.reshape(*w.shape[:-1], -1, BLOCK)
    exponent = torch.frexp(blocks.abs().amax(-1, keepdim=True)).exponent - 3
    scale = torch.ldexp(torch.ones_like(blocks[..., :1]), exponent.clamp(-127, 127))
    x = blocks / scale
    size = x.abs()
    # Steps of E2M1: 0.5 below 2, 1 below 4, 2 above; round to nearest, ties to even, never beyond 6.
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    x = (torch.round(x / step) * step).clamp(-6, 6)
    return (x * scale).reshape(w.shape)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return mxfp4_values(w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def fake_quantize(w: Tensor) -> Tensor:
    """`mxfp4_values` with the gradient of the identity."""
    return cast(Tensor, _StraightThrough.apply(w))  # type: ignore[no-untyped-call]


def seen(model: nn.Module, dtype: torch.dtype, quantized: bool) -> dict[str, Tensor]:
    """The parameters as a forward pass sees them, by name: experts through MXFP4 where `quantized`, all in `dtype`.

    For torch.func.functional_call; gradients arrive at the float32 originals.
    """
    return {
        name: (fake_quantize(p) if quantized and is_expert(name) else p).to(dtype)
        for name, p in model.named_parameters()
    }


def is_expert(name: str) -> bool:
    """Whether a parameter is stored in MXFP4."""
    return name.endswith(("mlp1_weight", "mlp2_weight"))


@torch.no_grad()
def round_to_stored(model: nn.Module) -> None:
    """Replace every parameter by the value its stored form has: experts MXFP4, all else bfloat16."""
    for name, p in model.named_parameters():
        p.copy_(mxfp4_values(p) if is_expert(name) else p.bfloat16().float())

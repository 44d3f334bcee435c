"""Muon for the matrices inside the blocks, AdamW for everything else, in one resumable optimizer.

Muon: momentum, then an approximate orthogonalisation by five Newton-Schulz steps (K. Jordan et al., 2024). Expert
tensors are stacks of matrices; each expert is orthogonalised by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def orthogonalize(g: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring the singular values of each matrix in g (..., m, n) near 1. Quintic Newton-Schulz iteration in `dtype`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x: Tensor = g.mT if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if tall else x).to(g.dtype)


class MuonAdamW:
    """One step over all parameters that are trained. Matrices in blocks (the router excepted) go to Muon, the rest to AdamW.

    A `muon_lr` of 0 sends everything to AdamW: orthogonalised, a noisy gradient is as long as a good one.
    """

    def __init__(
        self, model: nn.Module, muon_lr: float, adam_lr: float, decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.muon = {n: p for n, p in trained.items() if muon_lr and _is_matrix(n, p)}
        self.adam = {n: p for n, p in trained.items() if n not in self.muon}
        self.muon_lr, self.adam_lr, self.decay = muon_lr, adam_lr, decay
        self.dtype = dtype
        self.state: dict[str, dict[str, Tensor]] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Apply and clear the gradients with both learning rates multiplied by `scale`."""
        self.steps += 1
        for name, p in self.muon.items():
            self._muon(name, p, self.muon_lr * scale)
        for name, p in self.adam.items():
            self._adamw(name, p, self.adam_lr * scale)

    def _muon(self, name: str, p: nn.Parameter, lr: float) -> None:
        assert p.grad is not None
        state = self.state.setdefault(name, {"momentum": torch.zeros_like(p)})
        momentum = state["momentum"].lerp_(p.grad, 0.05)
        update = orthogonalize(p.grad.lerp(momentum, 0.95), dtype=self.dtype)
        p.mul_(1 - lr * self.decay)
        p.add_(update, alpha=-lr * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5)
        p.grad = None

    def _adamw(self, name: str, p: nn.Parameter, lr: float) -> None:
        assert p.grad is not None
        state = self.state.setdefault(name, {"m": torch.zeros_like(p), "v": torch.zeros_like(p)})
        m, v = state["m"].lerp_(p.grad, 0.1), state["v"].lerp_(p.grad.square(), 0.05)
        m_hat, v_hat = m / (1 - 0.9**self.steps), v / (1 - 0.95**self.steps)
        p.sub_(lr * m_hat / (v_hat.sqrt() + 1e-8))
        p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.steps, self.state = saved["steps"], saved["state"]


def _is_matrix(name: str, p: nn.Parameter) -> bool:
    return name.startswith("block.") and name.endswith("weight") and p.dim() >= 2 and ".gate." not in name

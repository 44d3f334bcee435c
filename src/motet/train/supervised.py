"""One supervised step: cross entropy on what the assistant samples, router losses beside it, gradients over chunks.

Knows losses. Does not know where batches come from or when a run is saved.
"""

from __future__ import annotations

import time
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.reference import Routing
from motet.train.data import Chunk, batch
from motet.train.quantize import seen
from motet.train.recipe import Balance, Supervised
from motet.train.run import Run


def supervised_step(run: Run) -> dict[str, Any]:
    """Draw the step's batch, learn it, return its figures."""
    settings = cast(Supervised, run.settings)
    chunks = batch(
        settings.data, run.encoding, run.name(), settings.tokens, settings.chunks, settings.longest
    )
    return learn(run, chunks)


def learn(run: Run, chunks: list[Chunk]) -> dict[str, Any]:
    """One optimizer step on chunks: loss per taught token, clipped gradients."""
    settings, began = run.settings, time.perf_counter()
    taught = sum(c.target.numel() for c in chunks)
    real = sum(int(c.real.sum()) for c in chunks)
    loss = hits = 0.0
    router = {"balance": 0.0, "entropy": 0.0, "rms": 0.0}
    loads: list[Tensor] = []
    for chunk in chunks:
        routing: list[Routing] = []
        logits = forward(run, chunk, routing)
        own = F.cross_entropy(logits, chunk.target, reduction="sum") / taught
        share = int(chunk.real.sum()) / real
        uneven, z = router_losses(routing, chunk.real)
        (own + share * (settings.balance.load * uneven + settings.balance.z * z)).backward()  # type: ignore[no-untyped-call]
        loss += own.item()
        hits += int((logits.detach().argmax(-1) == chunk.target).sum())
        router["balance"] += share * uneven.item()
        loads.append(router_load(routing, chunk.real))
    router["entropy"], dead = evenness(torch.stack(loads).sum(0))
    norm = clip(run)
    rate = settings.optimizer.rate(run.step, settings.steps)
    run.optimizer.step(rate)
    run.tokens += real
    return {"loss": loss, "right": hits / taught, "balance": router["balance"], "router_entropy": router["entropy"],
            "dead_experts": dead, "norm": norm, "rate": rate, "padding": 1 - real / sum(c.ids.numel() for c in chunks),
            "tokens_per_s": real / (time.perf_counter() - began)}  # fmt: skip


def forward(run: Run, chunk: Chunk, routing: list[Routing] | None) -> Tensor:
    """Float32 logits (M, V) at the taught positions, through the parameters as the stage sees them."""
    inputs = {"at": chunk.at, "routing": routing, "segments": chunk.segments}
    parameters = seen(run.model, run.dtype, run.settings.quantize)
    return cast(Tensor, torch.func.functional_call(run.model, parameters, (chunk.ids,), inputs).float())


def clip(run: Run) -> float:
    """Scale gradients down to the stage's largest norm; returns the norm found."""
    return float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.optimizer.clip))


def router_losses(routing: list[Routing], real: Tensor) -> tuple[Tensor, Tensor]:
    """(E sum_e share_e * mean probability_e, 1 when even (Switch, 2101.03961); mean squared logsumexp (ST-MoE, 2202.08906))."""
    uneven, z = [], []
    for r in routing:
        experts = r.logits.shape[-1]
        logits, choice = r.logits[real], r.choice[real]
        share = torch.bincount(choice.reshape(-1), minlength=experts) / choice.numel()
        uneven.append(experts * (share * logits.softmax(-1).mean(0)).sum())
        z.append(logits.logsumexp(-1).square().mean())
    return torch.stack(uneven).mean(), torch.stack(z).mean()


def router_load(routing: list[Routing], real: Tensor) -> Tensor:
    """How often every expert was chosen, (layers, E)."""
    return torch.stack(
        [torch.bincount(r.choice[real].reshape(-1), minlength=r.logits.shape[-1]) for r in routing]
    )


def evenness(load: Tensor) -> tuple[float, int]:
    """(Lowest normalised entropy over the layers, experts with under a tenth of an even share) of a load (layers, E)."""
    share = load / load.sum(-1, keepdim=True)
    entropy = torch.special.entr(share).sum(-1) / torch.log(torch.tensor(float(load.shape[-1])))
    return float(entropy.min()), int((share < 0.1 / load.shape[-1]).sum())


__all__ = [
    "Balance",
    "clip",
    "evenness",
    "forward",
    "learn",
    "router_load",
    "router_losses",
    "supervised_step",
]

"""Training speed by way of running the experts: tokens a second of a whole step (forward, backward) beside the machine's ceiling.

    python bench/train.py [--recipe mini] [--rows 16 --length 512] [--repeats 3] [--json]

Ways: `dense` every expert on every token by batched products, masked; `gather` rows sorted by expert, one product each
(motet.reference); `slots` experts over padded slots, two batched products (motet.train.fast); `slots fused` the same with
torch.compile between the products. The ceiling is a 2048 x 2048 product of the same type in the same run; GF/s count 6
operations an active parameter and token. One process, variants in turn, best of the repeats after a first pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.reference import MoE, Parts, Reference, swiglu
from motet.train.attention import FastAttention
from motet.train.fast import FAST, FastNorm
from motet.train.fusing import fuse
from motet.train.quantize import seen
from motet.train.recipe import read_recipe

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class DenseExperts(MoE):
    """Every expert computes every token; the router's weights, zero for those not chosen, add up what counts."""

    def _experts(self, t: Tensor, choice: Tensor, weight: Tensor) -> Tensor:
        shares = weight.new_zeros(len(t), len(self.mlp1_weight)).scatter(1, choice, weight)
        h = torch.baddbmm(
            self.mlp1_bias.unsqueeze(1), t.expand(len(self.mlp1_weight), -1, -1), self.mlp1_weight.mT
        )
        a = swiglu(h[..., ::2], h[..., 1::2], self.alpha, self.limit)
        y = torch.baddbmm(self.mlp2_bias.unsqueeze(1), a, self.mlp2_weight.mT)
        return torch.einsum("end,ne->nd", y, shares.to(y.dtype))


WAYS: dict[str, tuple[Parts, bool]] = {
    "dense": (Parts(FastNorm, FastAttention, DenseExperts), False),
    "dense fused": (Parts(FastNorm, FastAttention, DenseExperts), True),
    "gather": (Parts(), False),
    "slots": (FAST, False),
    "slots fused": (FAST, True),
}


def best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def ceiling(dtype: torch.dtype, repeats: int) -> float:
    """GF/s of one large product."""
    a = torch.randn(2048, 2048, dtype=dtype)
    return 2 * 2048**3 / best(lambda: a @ a, max(3, repeats)) / 1e9


def step_of(model: Reference, dtype: torch.dtype, rows: int, length: int) -> Callable[[], None]:
    """A step on random ids in documents of 128, half of the positions taught."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (rows, length), generator=g)
    segments = (torch.arange(length) // 128).expand(rows, -1).contiguous()
    at = torch.arange(0, rows * length, 2)
    target = ids.view(-1)[at]

    def step() -> None:
        inputs = {"at": at, "segments": segments}
        logits = torch.func.functional_call(model, seen(model, dtype, False), (ids,), inputs)
        F.cross_entropy(logits.float(), target).backward()
        model.zero_grad()

    return step


def main() -> None:
    """Print a line a variant, with --json one object last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe)
    config = recipe.config(recipe.vocabulary.size, (1,), 0)
    active, results = config.counts().active, []
    for kind, dtype in TYPES.items():
        top = ceiling(dtype, options.repeats)
        for way, (parts, fused) in WAYS.items():
            fuse(fused)
            model = Reference(config, parts=parts).initialize(torch.Generator().manual_seed(1))
            seconds = best(step_of(model, dtype, options.rows, options.length), options.repeats)
            speed = options.rows * options.length / seconds
            done = 6 * active * speed / 1e9
            results.append({"way": way, "type": kind, "tokens_per_s": round(speed), "gflops": round(done, 1),
                            "ceiling_gflops": round(top, 1), "of_ceiling": round(done / top, 3)})  # fmt: skip
            print(f"{way:12} {kind:8} {speed:8.0f} tokens/s  {done:7.1f} GF/s  {100 * done / top:5.1f} % of {top:.0f}",
                  file=sys.stderr, flush=True)  # fmt: skip
    if options.json:
        print(
            json.dumps(
                {
                    "parameters": config.counts().total,
                    "active": active,
                    "threads": options.threads,
                    "results": results,
                }
            )
        )


if __name__ == "__main__":
    main()

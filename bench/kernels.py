"""Time of each op on the 20b shapes, beside what this machine could do at best. Needs no checkpoint: tiles are random.

    python -m bench.kernels [--tokens 1,8,512] [--ops linear,moe] [--isa avx2] [--threads N] [--json]

First the ceilings, then a line per op and number of tokens: median and best of repeated runs, bytes of weights read a
second with their share of the read ceiling, operations a second with their share of the int8 ceiling. Weights rotate
through more memory than a cache holds, and tokens choose experts at random. One JSON object last on stdout with --json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motet import kernels
from motet.config import ModelConfig
from motet.kernels import BLOCK, TILE, Matrix, f32_to_bf16

CONFIG = ModelConfig.gpt_oss_20b()
BYTES = {"mxfp4": (256, 16), "int8": (512, 32), "bf16": (1024, 0)}  # data and scales of a tile's block
COLD = 600 << 20  # bytes of matrices that take turns, so that none is still in a cache


@dataclass
class Case:
    """One op ready to run: `run(i)` is the i-th call; bytes of weights and multiply-adds (as two) of one call."""

    op: str
    tokens: int
    run: Callable[[int], Any]
    n_bytes: float
    n_ops: float


def random_matrix(kind: str, count: int, rows: int, cols: int, seed: int) -> Matrix:
    """Tiles of random bytes with scales that keep sums near one."""
    rng = np.random.default_rng(seed)
    tiles = -(-rows // TILE)
    blocks = count * tiles * -(-cols // BLOCK)
    data, scales = BYTES[kind]
    if kind == "bf16":
        weights = f32_to_bf16(rng.standard_normal(blocks * data // 2, np.float32) / np.float32(cols) ** 0.5)
        return Matrix(kind, count, rows, cols, tiles, weights.view(np.uint8), None)
    raw = np.frombuffer(rng.bytes(blocks * data), np.uint8).copy()
    if kind == "mxfp4":
        return Matrix(kind, count, rows, cols, tiles, raw, rng.integers(118, 124, blocks * scales, np.uint8))
    scale = f32_to_bf16(
        rng.uniform(0.5, 1.5, blocks * scales // 2).astype(np.float32) / (64 * np.float32(cols) ** 0.5)
    )
    return Matrix(kind, count, rows, cols, tiles, raw, scale.view(np.uint8))


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def linears(tokens: list[int]) -> Iterator[Case]:
    """The dense products: queries, keys and values; attention output; the router; the unembedding (8 rows at most)."""
    c = CONFIG
    attn = c.num_attention_heads * c.head_dim
    shapes = (
        ("qkv", "int8", attn + 2 * c.num_key_value_heads * c.head_dim, c.hidden_size),
        ("out", "int8", c.hidden_size, attn),
        ("router", "bf16", c.num_experts, c.hidden_size),
        ("unembedding", "int8", c.vocab_size, c.hidden_size),
    )
    for name, kind, rows, cols in shapes:
        ws = [random_matrix(kind, 1, rows, cols, 0)]
        ws += [replace(ws[0], data=ws[0].data.copy()) for _ in range(min(64, COLD // ws[0].nbytes))]
        bias = normal(1, rows)
        for n in tokens:
            if name == "unembedding" and n > 8:
                continue
            x = normal(2, n, cols)
            acts = kernels.pad(x, False) if kind == "bf16" else kernels.quantize(x)
            yield Case(
                name, n, lambda i, ws=ws, acts=acts, bias=bias: kernels.linear(ws[i % len(ws)], acts, bias),
                ws[0].nbytes, 2.0 * n * rows * cols,
            )  # fmt: skip


def experts(tokens: list[int]) -> Iterator[Case]:
    """The mixture of experts, each token with experts of its own."""
    c = CONFIG
    e, d, width, k = c.num_experts, c.hidden_size, c.intermediate_size, c.experts_per_token
    layers = [
        (random_matrix("mxfp4", e, 2 * width, d, i), random_matrix("mxfp4", e, d, width, 9 + i))
        for i in range(2)
    ]
    b1, b2 = (normal(3, e, width), normal(4, e, width)), normal(5, e, d)
    for n in tokens:
        h, x = normal(6, n, d), normal(7, n, d)
        draws = [kernels.route(normal(i, n, e), k) for i in range(16)]
        acts = kernels.quantize(h)

        def run(i: int, x: Any = x, acts: Any = acts, draws: Any = draws) -> None:
            (w1, w2), (ids, weights) = layers[i % 2], draws[i % 16]
            kernels.moe(x, acts, ids, weights, w1, b1, w2, b2, c.swiglu_alpha, c.swiglu_limit)

        used = statistics.mean(len(np.unique(ids)) for ids, _ in draws)
        yield Case(
            "moe", n, run, used * (layers[0][0].nbytes + layers[0][1].nbytes) / e, 6.0 * n * k * d * width
        )


def smaller(tokens: list[int]) -> Iterator[Case]:
    """Ops between the products; they read activations only."""
    c = CONFIG
    gain = normal(8, c.hidden_size)
    for n in tokens:
        x, logits = normal(9, n, c.hidden_size), normal(10, n, c.num_experts)
        yield Case("rms_norm", n, lambda i, x=x: kernels.rms_norm(x, gain, 1e-5), 0, 0)
        yield Case("quantize", n, lambda i, x=x: kernels.quantize(x), 0, 0)
        yield Case("route", n, lambda i, g=logits: kernels.route(g, c.experts_per_token), 0, 0)


GROUPS: dict[str, Callable[[list[int]], Iterator[Case]]] = {
    "linear": linears,
    "moe": experts,
    "small": smaller,
}


def timed(case: Case, seconds: float) -> list[float]:
    """Seconds of each call: at least five, then until `seconds` are over."""
    case.run(0)
    times: list[float] = []
    began = time.perf_counter()
    for i in itertools.count(1):
        start = time.perf_counter()
        case.run(i)
        now = time.perf_counter()
        times.append(now - start)
        if now - began > seconds and i >= 5:
            return times
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", default="1,8,64,512")
    parser.add_argument("--ops", default=",".join(GROUPS), help="comma list of " + ", ".join(GROUPS))
    parser.add_argument("--isa", help="instruction set, else the best")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=0.6, help="of each line")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    if a.threads:
        kernels.set_threads(a.threads)
    tokens = [int(n) for n in a.tokens.split(",")]
    out = sys.stderr if a.json else sys.stdout
    with kernels.use_isa(a.isa or kernels.isa()):
        read, ops = kernels.read_rate(), kernels.int8_rate()
        print(
            f"{kernels.isa()}, {kernels.threads()} threads; ceilings: read {read / 1e9:.1f} GB/s, int8 {ops / 1e9:.0f} Gop/s",
            file=out,
        )
        print(
            f"{'op':12}{'tokens':>7}{'ms':>10}{'best':>10}{'GB/s':>8}{'share':>7}{'Gop/s':>8}{'share':>7}",
            file=out,
        )
        rows = []
        for case in itertools.chain.from_iterable(GROUPS[g](tokens) for g in a.ops.split(",")):
            times = timed(case, a.seconds)
            ms = statistics.median(times)
            row = {"op": case.op, "tokens": case.tokens, "ms": 1e3 * ms, "best_ms": 1e3 * min(times), "runs": len(times),
                   "bytes_per_s": case.n_bytes / ms, "ops_per_s": case.n_ops / ms}  # fmt: skip
            rows.append(row)
            line = f"{case.op:12}{case.tokens:7}{row['ms']:10.3f}{row['best_ms']:10.3f}"
            if case.n_ops:
                line += f"{case.n_bytes / ms / 1e9:8.1f}{case.n_bytes / ms / read:7.0%}{case.n_ops / ms / 1e9:8.0f}{case.n_ops / ms / ops:7.0%}"
            print(line, file=out, flush=True)
        if a.json:
            print(json.dumps({"isa": kernels.isa(), "threads": kernels.threads(), "read_bytes_per_s": read,
                              "int8_ops_per_s": ops, "rows": rows}))  # fmt: skip


if __name__ == "__main__":
    main()

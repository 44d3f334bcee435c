"""What int8 keys and values cost in fidelity: Kullback-Leibler divergence of the next token from float32 ones, beside bf16.

    python -m bench.kv [MODEL] [--tokens 512] [--reference] [--json]

The text is ids drawn from a fixed seed, or of the embedded model's training file when MODEL is mini. With --reference both are
also compared with float32 throughout (another pack, four times the memory). Experts change for one bit in a random model:
there, read the figures side by side only. Natural logarithms; mean and largest over positions.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.model import Model, load


def text_of(model: Model, name: str, tokens: int) -> list[list[int]]:
    """Prompts of about `tokens` ids in all, or one of random ids."""
    if name != "mini":
        return [np.random.default_rng(0).integers(0, model.config.vocab_size, tokens).tolist()]
    lines = resources.files("motet").joinpath("models/mini/training.jsonl").read_text().splitlines()
    joined = [model.encoding.encode("\n".join(lines[n : n + 8])) for n in range(0, len(lines), 8)]
    return [ids[: model.config.max_position_embeddings] for ids in joined[: max(1, tokens // 256)]]


def log_softmax(y: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    z = y.astype(np.float64) - y.max(-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)))


def compare(exact: Model, other: Model, texts: list[list[int]]) -> dict[str, float]:
    """Mean and largest divergence of `other` from `exact`, largest difference of a logit, share of equal first choices."""
    divergence, gap, same = [], 0.0, []
    for ids in texts:
        a, b = exact.logits(ids), other.logits(ids)
        p, q = log_softmax(a), log_softmax(b)
        divergence.append((np.exp(p) * (p - q)).sum(-1))
        gap = max(gap, float(np.abs(a - b).max()))
        same.append(a.argmax(-1) == b.argmax(-1))
    kl = np.concatenate(divergence)
    return {"mean_kl": float(kl.mean()), "max_kl": float(kl.max()), "max_delta_logit": gap,
            "same_top": float(np.concatenate(same).mean()), "positions": int(kl.size)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="mini")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    plain, small, full = (load(a.model, kv=kv) for kv in ("bf16", "int8", "float32"))
    texts = text_of(plain, a.model, a.tokens)
    rows: dict[str, Any] = {"bf16 kv against float32 kv": compare(full, plain, texts)}
    rows["int8 kv against float32 kv"] = compare(full, small, texts)
    if a.reference:
        exact = load(a.model, precision="float32")
        rows["bf16 kv against float32 throughout"] = compare(exact, plain, texts)
        rows["int8 kv against float32 throughout"] = compare(exact, small, texts)
    sizes = [sum(p.layout.nbytes for p in m.pages.pools) for m in (plain, small)]
    out = sys.stderr if a.json else sys.stdout
    for name, row in rows.items():
        print(
            f"{name}: KL mean {row['mean_kl']:.2e}, max {row['max_kl']:.2e}; largest logit difference {row['max_delta_logit']:.3f}; "
            f"same first choice {100 * row['same_top']:.2f} % of {row['positions']} positions", file=out,
        )  # fmt: skip
    print(f"bytes of a page: {sizes[0]} bf16, {sizes[1]} int8", file=out)
    if a.json:
        print(json.dumps({"model": a.model, "pages": sizes, **rows}))


if __name__ == "__main__":
    main()

"""How far a program's output is from float32 on the same weights: Kullback-Leibler divergence, position by position.

Knows llama-perplexity's file of log-probabilities (one uint16 a value between the row's least, at most 16 nats below its
greatest, and its greatest) and motet's models. Both sides are put through that file's rounding, so neither gains by it;
the float32 reference is not. Only the second half of each chunk counts, as only that is in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.errors import UserError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_MAGIC = b"_logits_"
_NATS = 16.0


@dataclass(frozen=True)
class Logits:
    """What a program said: ids (chunks, length), and log-probabilities of the positions length/2 .. length-2 of each."""

    ids: npt.NDArray[np.int32]
    rows: npt.NDArray[np.uint16]
    vocabulary: int

    def chunk(self, n: int) -> F32:
        """float32 (length - 1 - length // 2, vocabulary) of chunk n."""
        count = self.ids.shape[1] - 1 - self.ids.shape[1] // 2
        part = self.rows[n * count : (n + 1) * count]
        scale = np.ascontiguousarray(part[:, :4]).view(np.float32)
        return part[:, 4 : 4 + self.vocabulary] * scale[:, :1] + scale[:, 1:2]


def read(file: Path) -> Logits:
    """Opens a file of log-probabilities. Raises UserError when it is none or was cut off."""
    raw = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    if raw[:8].tobytes() != _MAGIC:
        raise UserError(f"{file} holds no log-probabilities of llama-perplexity.")
    length, vocabulary, chunks = (int(n) for n in raw[8:20].view(np.int32))
    start, width = 20 + 4 * length * chunks, 2 * ((vocabulary + 1) // 2) + 4
    rows = chunks * (length - 1 - length // 2)
    if raw.size < start + 2 * rows * width:
        raise UserError(f"{file} was cut off: {raw.size} bytes of {start + 2 * rows * width}.")
    ids = np.array(raw[20:start]).view(np.int32).reshape(chunks, length)
    return Logits(
        ids, np.array(raw[start : start + 2 * rows * width]).view(np.uint16).reshape(rows, width), vocabulary
    )


def rounded(logits: F32) -> F32:
    """Log-probabilities as they come back from the file."""
    y = log_softmax(logits)
    top = y.max(-1, keepdims=True)
    low = np.maximum(y.min(-1, keepdims=True), top - _NATS)
    step = np.where(top > low, (top - low) / 65535, 1)
    out: F32 = (np.rint((np.maximum(y, low) - low) / step) * step + low).astype(np.float32)
    return out


def log_softmax(logits: npt.NDArray[Any]) -> F64:
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    out: F64 = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return out


def divergence(reference: F64, other: npt.NDArray[Any]) -> F64:
    """KL(reference || other) of every row, in nats; both are log-probabilities (rows, V)."""
    out: F64 = (np.exp(reference) * (reference - other)).sum(-1)
    return out


def summary(kl: F64, same: npt.NDArray[np.bool_], delta: tuple[float, float]) -> dict[str, float]:
    """The figures of one program: KL mean with its standard error, median, 99th percentile; top id kept; |delta|."""
    return {"kl_mean": float(kl.mean()), "kl_error": float(kl.std() / np.sqrt(kl.size)), "kl_median": float(np.median(kl)),
            "kl_p99": float(np.quantile(kl, 0.99)), "same_top": float(same.mean()), "positions": int(kl.size),
            "delta_mean": delta[0], "delta_max": delta[1]}  # fmt: skip


def compare(
    model: Path, said: dict[str, Logits], precisions: tuple[str, ...] = ("int8", "bf16")
) -> dict[str, dict[str, float]]:
    """Every program's figures, and motet's in each precision, against motet's float32 on the ids the programs saw.

    delta: |difference of log-probability| over the ids within 12 nats of the reference's best. Raises UserError when the
    programs saw different ids.
    """
    from motet.model import load

    ids = next(iter(said.values())).ids
    if any(not np.array_equal(ids, other.ids) for other in said.values()):
        raise UserError("The programs cut the text into different tokens; their figures cannot be compared.")
    names = [*said, *(f"motet {p}" for p in precisions)]
    gathered: dict[str, list[tuple[F64, Any, F64]]] = {name: [] for name in names}
    models = {p: load(model, precision=p) for p in ("float32", *precisions)}
    half = ids.shape[1] // 2
    for n, chunk in enumerate(ids):
        reference = log_softmax(models["float32"].logits(chunk.tolist())[half:-1])
        for name, other in _others(said, models, precisions, chunk, n, half):
            near = reference > reference.max(-1, keepdims=True) - 12
            gathered[name].append((divergence(reference, other), reference.argmax(-1) == other.argmax(-1),
                                   np.abs(reference - other)[near]))  # fmt: skip
    out = {}
    for name, parts in gathered.items():
        kl, same, delta = (np.concatenate(part) for part in zip(*parts, strict=True))
        out[name] = summary(kl, same, (float(delta.mean()), float(delta.max())))
    return out


def _others(said: dict[str, Logits], models: dict[str, Any], precisions: tuple[str, ...], chunk: Any, n: int,
            half: int) -> Iterator[tuple[str, F32]]:  # fmt: skip
    for name, logits in said.items():
        yield name, logits.chunk(n)
    for precision in precisions:
        yield f"motet {precision}", rounded(models[precision].logits(chunk.tolist())[half:-1])

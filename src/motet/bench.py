"""How fast a model runs here: the ceilings of the machine first, then tokens per second and their share of them.

Knows the packed sizes and the forward pass; knows no sampling, text or server. Prompts and continuations are ids drawn
from a fixed seed, so every run does the same work and sequences in a batch choose different experts.

Ceilings. Decoding must read every dense matrix once a step, the experts its tokens choose, and the keys and values held;
at best that takes bytes / read rate. A prompt must multiply every weight its tokens meet; at best that takes
operations / int8 rate (attention scores are not counted, so the share shown is too low rather than too high).
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.errors import UsageError

if TYPE_CHECKING:
    from motet.model import Cache, Model

CHUNK = 512  # prompt tokens in one forward step, as the engine's default
BUDGET = 60.0  # seconds that all passes together may take when the number of repeats is not given
SEED = 0
GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """What to measure: lengths of prompts, decoded tokens, tokens already held, sequences together, passes (None: 3 to 12)."""

    prompts: tuple[int, ...] = (512,)
    gen: int = 64
    depths: tuple[int, ...] = (0,)
    batches: tuple[int, ...] = (1,)
    repeats: int | None = None


@dataclass(frozen=True)
class Work:
    """What one token costs, from the packed sizes. Bytes as stored (padding included), weights as multiplied."""

    dense_bytes: int  # every matrix but the experts, unembedding included
    expert_bytes: float  # one expert of every layer
    layer_weights: int  # weights a prompt token multiplies: all but the unembedding
    experts: int
    chosen: int
    kv_row: int  # bytes of one position's keys and values in one layer
    windows: tuple[int, ...]  # per layer, 0 = full

    def step_bytes(self, depth: float, batch: int) -> float:
        """Bytes one decode step of `batch` sequences must read, each holding `depth` positions.

        Experts: the expected number of different ones when each sequence chooses evenly and independently.
        """
        met = self.experts * (1 - (1 - self.chosen / self.experts) ** batch)
        held = sum(min(depth, w) if w else depth for w in self.windows)
        return self.dense_bytes + met * self.expert_bytes + batch * held * self.kv_row


def work(model: Model) -> Work:
    """The cost of a token of this model in its precision, read from the pack's header."""
    from motet.kernels import PAGE
    from motet.pack import read_header

    header = read_header(model.pack.path)
    assert header is not None
    c = model.config
    dense, expert, weights = 0, 0.0, 0
    for name, item in header["tensors"].items():
        if item["kind"] not in ("mxfp4", "int8", "bf16", "f32"):
            continue
        count, rows, cols, _ = item["shape"]
        n_bytes = item["data"][1] + item["scales"][1]
        if ".mlp1_" in name or ".mlp2_" in name:
            expert += n_bytes / count
            weights += c.experts_per_token * rows * cols
        else:
            dense += n_bytes
            weights += 0 if name == "unembedding.weight" else rows * cols
    row = model.pages.pools[0].layout.nbytes // (len(model.pages.pools[0].layers) * PAGE)
    windows = tuple(c.window(n) for n in range(c.num_hidden_layers))
    return Work(dense, expert, weights, c.num_experts, c.experts_per_token, row, windows)


def measure(
    folder: str | os.PathLike[str],
    plan: Plan,
    *,
    precision: str = "int8",
    kv: str | None = None,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures the model in a folder; `tell` receives lines for a person as they come, `progress`
    (done, total) bytes while the model is packed. Rates are tokens per second, shares 0 to 1.

    Raises UserError as loading does, and UsageError when the plan passes the model's context.
    """
    from motet import kernels
    from motet.config import ModelConfig
    from motet.model import load

    # Before the model is packed, which may take minutes.
    _check(plan, ModelConfig.from_file(folder).max_position_embeddings)
    if threads is not None:
        kernels.set_threads(threads)
    machine = {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "threads": kernels.threads(),
               "isa": kernels.isa(), "precision": precision}  # fmt: skip
    tell(
        f"{machine['cpu']}, {machine['cores']} cores · {machine['threads']} threads, {machine['isa']}, {precision}"
    )
    read, ops, bf16 = kernels.read_rate(), kernels.int8_rate(), kernels.bf16_rate()
    tell(
        f"ceilings: read {read / 1e9:.1f} GB/s, int8 {ops / 1e9:.0f} Gop/s, bf16 {bf16 / 1e9:.0f} Gop/s"
        if read
        else "ceilings: none with numpy kernels"
    )
    _forget_peak()
    began = time.perf_counter()
    model = load(folder, precision=precision, kv=kv, progress=progress)
    loaded = time.perf_counter() - began
    machine["kv"] = model.kv
    cost = work(model)
    start = {"help_s": _help_seconds(), "load_s": round(loaded, 4), "pack_bytes": model.pack.nbytes}
    tell(
        f"start: 'motet --help' {start['help_s']:.2f} s, weights open in {loaded:.2f} s ({model.pack.nbytes / 1e9:.3g} GB)"
    )
    _fill(
        model, model.new_cache(), _ids(model, min(128, *plan.prompts))
    )  # the first pass pages the weights in
    share = BUDGET / (len(plan.prompts) + len(plan.depths) * len(plan.batches))
    prefill, decode = [], []
    for prompt in plan.prompts:
        prefill.append(_prefill(model, cost, prompt, plan.repeats, ops, share))
        tell(_line(f"prompt of {prompt}", prefill[-1], "of the int8 ceiling"))
    for row in _decodes(model, cost, plan, read, share):
        tell(_line(f"decode at depth {row['depth']}, batch {row['batch']}", row, "of the read ceiling"))
        decode.append(row)
    peak = _peak()
    tell(f"peak memory {peak / GIB:.2f} GiB")
    return {"machine": machine, "ceilings": {"read_bytes_per_s": read, "int8_ops_per_s": ops, "bf16_ops_per_s": bf16},
            "start": start, "prefill": prefill, "decode": decode, "peak_rss_bytes": peak}  # fmt: skip


def _check(plan: Plan, context: int) -> None:
    if max(plan.prompts) > context:
        raise UsageError(
            f"--prompt {max(plan.prompts)} passes the context of {context}; choose a shorter one."
        )
    if max(plan.depths) + plan.gen > context:
        raise UsageError(
            f"--depth {max(plan.depths)} with --gen {plan.gen} passes the context of {context}; choose less of either."
        )


def cpu_name() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()


def _forget_peak() -> None:
    """Sets the kernel's record of this process's peak memory to what it holds now; measuring ceilings took 512 MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Most bytes this process had in memory, mapped weights included."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def _help_seconds() -> float:
    """Wall-clock seconds of `motet --help`, median of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "motet", "--help"], stdout=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 4)


def _ids(model: Model, count: int, stream: int = 0) -> list[int]:
    """`count` ids of the vocabulary, the same for the same stream."""
    import numpy as np

    return [int(i) for i in np.random.default_rng((SEED, stream)).integers(0, model.config.vocab_size, count)]


def _fill(model: Model, cache: Cache, ids: list[int]) -> None:
    """Runs a prompt in chunks, with logits of the last position only."""
    from motet.model import Span

    for at in range(0, len(ids), CHUNK):
        last = at + CHUNK >= len(ids)
        model.forward([Span(ids[at : at + CHUNK], cache, "last" if last else "none")])


def _passes(once: Callable[[], float], repeats: int | None, seconds: float) -> list[float]:
    """Seconds of each pass: as many as asked for, else what fits into `seconds`, 3 to 12."""
    times = [once()]
    count = repeats or max(3, min(12, int(seconds / max(times[0], 1e-9))))
    return times + [once() for _ in range(count - 1)]


def _rates(times: list[float], tokens: int, ceiling: float) -> dict[str, Any]:
    """Median, best and worst tokens per second; the share is the median's, None where no ceiling is known."""
    median = tokens / statistics.median(times)
    return {"tokens_per_s": round(median, 3), "best": round(tokens / min(times), 3),
            "worst": round(tokens / max(times), 3), "passes": len(times),
            "ceiling": round(ceiling, 3) if ceiling else None, "share": round(median / ceiling, 4) if ceiling else None}  # fmt: skip


def _line(what: str, row: dict[str, Any], of: str) -> str:
    share = "" if row["share"] is None else f", {100 * row['share']:.0f} % {of} ({row['ceiling']:.4g})"
    return f"{what}: {row['tokens_per_s']:.4g} tokens/s{share}; {row['worst']:.4g} to {row['best']:.4g} in {row['passes']} passes"


def _prefill(
    model: Model, cost: Work, prompt: int, repeats: int | None, ops: float, seconds: float
) -> dict[str, Any]:
    ids = _ids(model, prompt)

    def once() -> float:
        cache, began = model.new_cache(), time.perf_counter()
        _fill(model, cache, ids)
        return time.perf_counter() - began

    times = _passes(once, repeats, seconds)
    return {"prompt": prompt, **_rates(times, prompt, ops / (2 * cost.layer_weights))}


def _decodes(model: Model, cost: Work, plan: Plan, read: float, seconds: float) -> Iterator[dict[str, Any]]:
    base, held = model.new_cache(), _ids(model, max(plan.depths), 1)
    for depth in sorted(set(plan.depths)):
        _fill(model, base, held[base.length : depth])
        for batch in sorted(set(plan.batches)):
            ids = [_ids(model, plan.gen, 2 + n) for n in range(batch)]
            times = _passes(lambda ids=ids: _decode(model, base, ids), plan.repeats, seconds)  # type: ignore[misc]
            n_bytes = cost.step_bytes(depth + (plan.gen - 1) / 2, batch)
            yield {"depth": depth, "batch": batch, "gen": plan.gen, "step_bytes": round(n_bytes),
                   **_rates(times, batch * plan.gen, batch * read / n_bytes)}  # fmt: skip


def _decode(model: Model, base: Cache, ids: list[list[int]]) -> float:
    """Seconds to append the ids of all sequences, one token of each a step, to copies of the same cache."""
    from motet.model import Span

    caches = [base.fork(share=False) for _ in ids]
    began = time.perf_counter()
    for step in zip(*ids, strict=True):
        model.forward([Span([token], cache) for token, cache in zip(step, caches, strict=True)])
    return time.perf_counter() - began

"""Each op by one name: native code, or its plain numpy twin when MOTET_KERNELS=numpy.

Knows arrays and packed matrices, no model. `isa()` names the instruction set in use; MOTET_ISA (scalar, avx2, avx512, amx)
forces one, MOTET_THREADS sets the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from motet.errors import UserError
from motet.kernels.layout import (
    BLOCK,
    F32,
    TILE,
    Matrix,
    bf16_to_f32,
    f32_to_bf16,
    interleave_tiles,
    matrix,
    tile_rows,
)
from motet.kernels.paged import KV_KINDS, PAGE, Paged, PageLayout, PageMemory

__all__ = [
    "BLOCK", "F32", "KV_KINDS", "PAGE", "TILE", "Activations", "KernelError", "Matrix", "PageLayout", "PageMemory", "Paged", "attention", "backend", "bf16_rate", "bf16_to_f32", "f32_to_bf16", "int8_rate",
    "interleave_tiles", "isa", "isas", "linear", "matrix", "moe", "pad", "quantize", "read_rate", "rms_norm", "rope",
    "route", "selftest", "set_threads", "threads", "tile_rows", "use_isa",
]  # fmt: skip


class KernelError(UserError):
    """The native module is missing, or an environment variable asks for what this machine cannot do."""


def _choose() -> tuple[str, Any]:
    wanted = os.environ.get("MOTET_KERNELS", "native")
    if wanted not in ("native", "numpy"):
        raise KernelError(f"MOTET_KERNELS is '{wanted}'; set it to native or numpy.")
    if wanted == "numpy":
        from motet.kernels import reference

        return wanted, reference
    try:
        from motet.kernels import native
    except ImportError as e:
        raise KernelError(
            f"The native module cannot be loaded ({e}); rebuild with 'make clean run' or set MOTET_KERNELS=numpy."
        ) from e
    try:
        native._native.isa()
    except RuntimeError as e:
        raise KernelError(f"{e}.") from e
    return wanted, native


backend, _ops = _choose()

Activations = Any  # reference.Activations or the native module's, by backend

if TYPE_CHECKING:
    from motet.kernels.compare import Result
    from motet.kernels.reference import attention, linear, moe, pad, quantize, rms_norm, rope, route
else:
    attention, linear, moe, pad = _ops.attention, _ops.linear, _ops.moe, _ops.pad
    quantize, rms_norm, rope, route = _ops.quantize, _ops.rms_norm, _ops.rope, _ops.route


def isa() -> str:
    """The instruction set in use: scalar, avx2, avx512, amx, or numpy."""
    return str(_ops._native.isa()) if backend == "native" else "numpy"


def isas() -> list[str]:
    """The instruction sets this CPU can run, slowest first."""
    return list(_ops._native.isas()) if backend == "native" else ["numpy"]


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Within the block the native ops use this instruction set; KernelError when the CPU cannot run it."""
    if name not in isas():
        raise KernelError(f"This machine cannot run '{name}'; choose {', '.join(isas())}.")
    before = isa()
    if backend == "native":
        _ops._native.set_isa(name)
    try:
        yield
    finally:
        if backend == "native":
            _ops._native.set_isa(before)


def selftest() -> Iterator[Result]:
    """Each native op against its numpy twin, under every instruction set of this CPU: one Result each."""
    from motet.kernels.compare import selftest as run

    return run()


def threads() -> int:
    """Threads the native ops use."""
    return int(_ops._native.threads()) if backend == "native" else 1


def set_threads(n: int) -> None:
    """Sets the number of threads, 1 to 256; results do not depend on it."""
    if not 1 <= n <= 256:
        raise KernelError(f"threads is {n}; choose 1 to 256.")
    if backend == "native":
        _ops._native.set_threads(n)


def read_rate(seconds: float = 0.5) -> float:
    """Bytes per second all threads together read from memory (512 MiB, far beyond the caches): the ceiling of decoding."""
    return _ceiling("read", seconds)


def int8_rate(seconds: float = 0.3) -> float:
    """Int8 operations (multiply and add count as two) per second of all threads: the ceiling of prefill."""
    return _ceiling("int8", seconds)


def bf16_rate(seconds: float = 0.3) -> float:
    """The same for products of bf16 values added in float32, as the CPU does them at best."""
    return _ceiling("bf16", seconds)


def _ceiling(what: str, seconds: float) -> float:
    import time

    import numpy as np

    if backend != "native":
        return 0.0
    best, deadline = 0.0, time.perf_counter() + seconds
    data = np.ones(512 << 20 if what == "read" else 0, np.uint8)
    while True:
        began = time.perf_counter()
        if what == "read":
            _ops._native.read_rate(data)
            amount = float(data.nbytes)
        else:
            rate = _ops._native.int8_rate if what == "int8" else _ops._native.bf16_rate
            amount = float(rate(2_000_000))
        now = time.perf_counter()
        best = max(best, amount / (now - began))
        if now > deadline:
            return best


if os.environ.get("MOTET_THREADS"):
    try:
        set_threads(int(os.environ["MOTET_THREADS"]))
    except ValueError as e:
        raise KernelError(
            f"MOTET_THREADS is '{os.environ['MOTET_THREADS']}'; set it to a number from 1 to 256."
        ) from e

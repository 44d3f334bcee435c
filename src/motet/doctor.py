"""Checks that this machine and this installation work: one Check a line, each answering one question.

Knows what to compare, not how it is printed. A check that cannot run here says why and is skipped; one that finds a
fault names the fix. Nothing here raises for a fault.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from motet.errors import UserError

if TYPE_CHECKING:
    from motet.model import Model

State = Literal["ok", "FAIL", "skip"]
GB = 1e9
# Beyond this mean divergence (nats a token) from the float32 model int8 is broken, not merely rounded: a wrong scale or
# a swapped row gives several nats, rounding activations to int8 a few thousandths.
KL_BROKEN = 0.1
# Import names that differ from the name of the package that brings them.
_MODULES = {"markdown-it-py": "markdown_it", "huggingface-hub": "huggingface_hub"}


@dataclass(frozen=True)
class Check:
    """One answer: a short name, the state, and a detail that names the fix when the state is FAIL."""

    name: str
    state: State
    detail: str


def checks(model: str | os.PathLike[str] = "mini") -> Iterator[Check]:
    """Every check in turn, cheap ones first; `model` is what the last ones open."""
    for name, check in _CHECKS:
        yield _guarded(name, lambda check=check: check(model))  # type: ignore[misc]


def _guarded(name: str, check: Callable[[], tuple[State, str]]) -> Check:
    try:
        state, detail = check()
    except UserError as e:
        state, detail = "FAIL", str(e)
    except Exception as e:  # a check that breaks is a finding, and must not hide those after it
        state, detail = "FAIL", f"{type(e).__name__}: {e}"
    return Check(name, state, " ".join(detail.split()))


# --- the machine -------------------------------------------------------------------------------------------------------


def _packages(_: Any) -> tuple[State, str]:
    """Each runtime dependency can be imported and is as new as pyproject.toml asks."""
    wanted = [r for r in metadata.requires("motet") or [] if "extra ==" not in r]
    bad, have = [], []
    for requirement in wanted:
        match = re.match(r"([A-Za-z0-9._-]+)[^>]*(?:>=\s*([0-9.]+))?", requirement)
        assert match is not None
        name, least = match[1], match[2] or "0"
        try:
            version = metadata.version(name)
            import_module(_MODULES.get(name, name.replace("-", "_")))
        except Exception as e:
            bad.append(f"{name} cannot be imported ({type(e).__name__})")
            continue
        have.append(f"{name} {version}")
        if _version(version) < _version(least):
            bad.append(f"{name} is {version}, older than {least}")
    if bad:
        return "FAIL", f"{'; '.join(bad)}; install again with 'make run' or pip."
    return "ok", f"Python {sys.version.split()[0]}, {', '.join(have)}"


def _version(text: str) -> tuple[int, ...]:
    """The numbers a version starts with: 1.10.2rc1 -> (1, 10, 2)."""
    return tuple(int(n) for n in re.findall(r"\d+", re.match(r"[0-9.]*", text)[0]))  # type: ignore[index]


def _isa(_: Any) -> tuple[State, str]:
    from motet import kernels

    if kernels.backend == "numpy":
        return "skip", "MOTET_KERNELS=numpy is set: correct and slow; unset it for the native kernels"
    used, possible = kernels.isa(), kernels.isas()
    forced = f", forced by MOTET_ISA={os.environ['MOTET_ISA']}" if os.environ.get("MOTET_ISA") else ""
    return "ok", f"{used} of {', '.join(possible)}{forced}"


def _memory(model: str | os.PathLike[str]) -> tuple[State, str]:
    """Cores this process may use, memory that is free, and whether the packed model fits into it."""
    from motet import kernels
    from motet.library import find, n_bytes

    cores, (limit, free), need = len(os.sched_getaffinity(0)), memory(), n_bytes(find(model))
    text = (
        f"{cores} cores, {kernels.threads()} threads; {free / GB:.1f} of {limit / GB:.1f} GB free, "
        f"the weights of {model} take {need / GB:.3g} GB"
    )
    if need > limit:
        return "FAIL", f"{text}; choose a smaller model or a larger machine."
    return "ok", text


def memory() -> tuple[int, int]:
    """(bytes this process may use, bytes free), by the kernel and the control group, whichever is less."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(fields[k].split()[0]) * 1024 for k in ("MemTotal", "MemAvailable"))
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return total, free
    if not group.isdecimal():
        return total, free
    return min(total, int(group)), min(free, max(0, int(group) - used))


def _cache(_: Any) -> tuple[State, str]:
    """Packs can be written where they belong."""
    from motet.pack import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"motet")
    except OSError as e:
        return "FAIL", f"{folder} cannot be written ({e.strerror}); set MOTET_CACHE to a folder that can."
    finally:
        probe.unlink(missing_ok=True)
    return "ok", f"{folder}, {shutil.disk_usage(folder).free / GB:.0f} GB free"


def _sandbox(_: Any) -> tuple[State, str]:
    """bubblewrap is there and may make namespaces; the python tool runs code in it and nowhere else."""
    from motet.tools import sandbox

    try:
        return "ok", f"{sandbox.choose()} isolates"
    except UserError as e:
        return "skip", str(e)


# --- the installation --------------------------------------------------------------------------------------------------


def _vocabulary(_: Any) -> tuple[State, str]:
    from motet.tokenizer import O200K_SHA256, o200k_harmony, read_o200k

    read_o200k()  # compares the hash of the content, raises when it differs
    encoding = o200k_harmony()
    text = "Größe 東京 🙂 <|start|>"
    ids = encoding.encode(text)
    if encoding.decode(ids) != text or any(map(encoding.is_special, ids)):
        return "FAIL", "text does not survive the vocabulary; reinstall motet."
    return "ok", f"o200k_harmony, {encoding.n_vocab} ids, sha256 {O200K_SHA256[:12]}…"


def _twins(_: Any) -> tuple[State, str]:
    """Each native op equals its numpy twin, with every instruction set this processor has."""
    from motet import kernels

    if kernels.backend == "numpy":
        return "skip", "MOTET_KERNELS=numpy is set, so there is nothing to compare"
    results = list(kernels.selftest())
    if not results:
        return "FAIL", "the self-test compared nothing; please report it."
    bad = [
        f"{r.op} ({r.isa}) is off by {r.difference:.1e}, {r.worst:.2g} times what is allowed"
        for r in results
        if not r.ok
    ]
    if bad:
        return "FAIL", f"{'; '.join(bad)}; rebuild with 'make clean run', or set MOTET_KERNELS=numpy."
    worst = max(results, key=lambda r: r.worst)
    sets = ", ".join(dict.fromkeys(r.isa for r in results))
    ops, cases = len({r.op for r in results}), sum(r.cases for r in results)
    return (
        "ok",
        f"{ops} ops, {cases} cases on {sets}; worst: {worst.op} ({worst.isa}) at {100 * worst.worst:.0f} % of its tolerance",
    )


# --- the model ---------------------------------------------------------------------------------------------------------


def _model(model: str | os.PathLike[str]) -> tuple[State, str]:
    """The checkpoint opens, its vocabulary speaks Harmony, and it gives finite logits."""
    import numpy as np

    from motet.model import load

    opened = load(model)
    encoding = opened.encoding
    start = encoding.special("<|start|>")
    logits = opened.logits([start, *encoding.encode("user")])
    if not np.isfinite(logits).all():
        return "FAIL", "the logits are not finite; the checkpoint is damaged, fetch it again."
    counts = opened.config.counts()
    return (
        "ok",
        f"{counts.total / 1e6:.4g} M parameters, {counts.active / 1e6:.4g} M active, vocabulary {encoding.name}",
    )


def reference_logits(folder: Path) -> list[tuple[list[int], Any]]:
    """(ids, float32 logits (T, V)) stored with a model, or nothing. Made by the reference model in float32."""
    import numpy as np

    path = folder / "reference.npz"
    if not path.is_file():
        return []
    with np.load(path) as file:
        names = sorted(n for n in file.files if n.startswith("ids"))
        return [([int(i) for i in file[n]], file["logits" + n.removeprefix("ids")]) for n in names]


def tolerance(opened: Model, expected: Any) -> float:
    """How far float32 logits may be apart when only the order of additions differs.

    A sum of n products carries a rounding error of about eps * sqrt(n) relative to the size of its terms (errors of random
    sign); 2 updates a layer and the final product pass it on, at worst in step; the largest logit gives the scale.
    """
    import numpy as np

    c = opened.config
    longest = max(c.hidden_size, c.intermediate_size, c.num_attention_heads * c.head_dim)
    stages = 2 * c.num_hidden_layers + 1
    return float(np.finfo(np.float32).eps * np.sqrt(longest) * stages * np.abs(expected).max())


def divergence(expected: Any, found: Any) -> float:
    """Mean Kullback-Leibler divergence in nats of found from expected; logits (T, V)."""
    import numpy as np

    def log_softmax(x: Any) -> Any:
        x = np.asarray(x, np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = log_softmax(expected), log_softmax(found)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def _reference(model: str | os.PathLike[str]) -> tuple[State, str]:
    """Logits in float32 equal those stored with the model; how far int8 is from them."""
    import numpy as np

    from motet.library import embedded_folder, find
    from motet.model import load

    folder = find(model)
    stored = reference_logits(folder)
    if not stored and folder == embedded_folder():
        return "FAIL", "the embedded model has lost its reference.npz; reinstall motet."
    if not stored:
        return "skip", f"{model} brings no reference logits; the embedded model does"
    exact, fast = load(folder, precision="float32"), load(folder, precision="int8")
    worst, allowed, kl = 0.0, 0.0, []
    for ids, expected in stored:
        difference, limit = float(np.abs(exact.logits(ids) - expected).max()), tolerance(exact, expected)
        if not allowed or difference / limit > worst / allowed:
            worst, allowed = difference, limit
        kl.append(divergence(expected, fast.logits(ids)))
    text = f"{len(stored)} prompts: float32 within {worst:.1e} (allowed {allowed:.1e}), int8 KL {np.mean(kl):.1e} nats"
    if not worst <= allowed:
        return "FAIL", f"{text}; the forward pass differs from the reference, rebuild with 'make clean run'."
    if not np.mean(kl) <= KL_BROKEN:
        return "FAIL", f"{text}; int8 is too far off, use --precision bf16 and please report it."
    return "ok", text


_CHECKS: list[tuple[str, Callable[[Any], tuple[State, str]]]] = [
    ("packages", _packages),
    ("instruction set", _isa),
    ("memory and cores", _memory),
    ("cache folder", _cache),
    ("sandbox", _sandbox),
    ("vocabulary", _vocabulary),
    ("ops and their twins", _twins),
    ("model", _model),
    ("reference logits", _reference),
]

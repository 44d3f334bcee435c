"""Writing a checkpoint folder: streamed, in either layout, and never half a one that opens.

Knows shards, dtypes and the order in which files may appear. Does not know where the weights come from.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from motet.checkpoint.files import INDEX
from motet.checkpoint.names import (
    BITS,
    PLAIN,
    STORED,
    Array,
    CheckpointError,
    Source,
    Tensor,
    UnknownTensor,
    absent,
    is_expert_weight,
    parts,
    tensor_shapes,
)
from motet.config import ModelConfig
from motet.mxfp4 import BLOCK, dequantize, quantize

Progress = Callable[[int, int], None]

SHARD_BYTES = 4_800_000_000
"""Largest shard `write_checkpoint` makes by default, as in the published folders."""

_PIECE = 1 << 24  # elements converted at a time while writing: 64 MB as float32


@dataclass(frozen=True)
class _Job:
    """Stored tensors that come, one behind the other, from one fetch."""

    name: str
    stored: list[tuple[str, tuple[int, ...], str]]  # name, shape, dtype

    @property
    def n_bytes(self) -> int:
        return sum(math.prod(shape) * BITS[dtype] // 8 for _, shape, dtype in self.stored)


def write_checkpoint(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    fetch: Callable[[str], Source],
    *,
    layout: str = "hf",
    experts: str = "mxfp4",
    dense: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Writes a checkpoint folder, streaming; replaces a checkpoint already there. Returns the folder.

    fetch(name) gives each tensor of `tensor_shapes(config, experts)`: a Tensor, an array (float32, or uint8 for blocks
    and scales), or an iterator of pieces along the first axis; `Checkpoint.tensor` fits. Where it raises UnknownTensor
    or KeyError for `mlp1_weight.blocks`, the plain `mlp1_weight` is asked for and quantised, and the other way round.
    experts: "mxfp4", "bfloat16" or "float32"; dense: dtype of everything else, by default float32 with float32 experts
    and bfloat16 otherwise. progress(done, total) counts bytes.

    Files get temporary names until all are whole, and config.json, without which nothing opens, comes last; so an
    interruption leaves no checkpoint. Raises CheckpointError when there is no room or fetch gives the wrong thing.
    """
    folder = Path(folder)
    if layout not in ("hf", "openai") or experts not in ("mxfp4", *STORED) or dense not in (None, *STORED):
        raise CheckpointError(
            f"A checkpoint cannot have layout {layout}, experts {experts} and dense {dense}; choose hf or openai, "
            "mxfp4, bfloat16 or float32, and bfloat16 or float32."
        )
    dense = dense or ("float32" if experts == "float32" else "bfloat16")
    settings = _settings(config, layout, experts, dense)
    shards = _plan(config, layout, experts, STORED[dense], max_shard_bytes)
    total = sum(job.n_bytes for jobs in shards for job in jobs)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    names = _shard_names(len(shards), layout)
    index = _index(names, shards, total)
    partials: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        _check_room(folder, total)
        for name, jobs in zip(names, shards, strict=True):
            partials.append(folder / f"{name}.{os.getpid()}.partial")
            with partials[-1].open("wb") as file:
                _write_shard(file, jobs, fetch, config, layout, advance)
        _publish(folder, partials, names, index, settings)
    except OSError as e:
        raise CheckpointError(
            f"{folder} cannot be written ({e.strerror or e}); free some space or choose another folder."
        ) from e
    finally:
        for path in partials:
            path.unlink(missing_ok=True)
    return folder


def _settings(config: ModelConfig, layout: str, experts: str, dense: str) -> dict[str, Any]:
    """config.json as a dict."""
    if layout == "hf":
        out = dict(config.to_hf())
        out.pop("quantization_config", None)
        out["torch_dtype"] = dense
        if experts == "mxfp4":
            out["quantization_config"] = {
                "quant_method": "mxfp4",
                "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                           "model.embed_tokens", "lm_head"],
            }  # fmt: skip
        return out
    return config.to_openai()


def _plan(
    config: ModelConfig, layout: str, experts: str, dense: str, max_shard_bytes: int
) -> list[list[_Job]]:
    """What goes into which shard. A job is never divided, so a shard passes the limit only if one tensor does."""
    redundant = absent(config)
    kinds = {".blocks": "U8", ".scales": "U8"}
    weight = STORED.get(experts, "U8")
    jobs: list[_Job] = []
    for name, shape in tensor_shapes(config, experts).items():
        if name in redundant:
            continue
        dtype = weight if is_expert_weight(name) else kinds.get(name[-7:], dense)
        stored = [(t, s, dtype) for t, s in parts(name, shape, layout, config)]
        if name.endswith(".scales"):  # blocks and scales may come from one quantisation
            jobs[-1].stored.extend(stored)
        else:
            jobs.append(_Job(name.removesuffix(".blocks"), stored))
    shards: list[list[_Job]] = [[]]
    size = 0
    for job in jobs:
        if shards[-1] and size + job.n_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(job)
        size += job.n_bytes
    return shards


def _shard_names(count: int, layout: str) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    dash = "--" if layout == "openai" else "-"
    return [f"model{dash}{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]


def _index(names: list[str], shards: list[list[_Job]], total: int) -> dict[str, Any] | None:
    if len(names) == 1:
        return None
    where = {
        t: name for name, jobs in zip(names, shards, strict=True) for job in jobs for t, _, _ in job.stored
    }
    return {"metadata": {"total_size": total}, "weight_map": where}


def _sweep(folder: Path) -> None:
    """Deletes what writers that no longer run left behind."""
    for old in folder.glob("*.partial"):
        pid = old.name.rsplit(".", 2)[-2]
        if pid.isdecimal() and not _alive(int(pid)):
            with contextlib.suppress(OSError):
                old.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _check_room(folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total + (1 << 20) > free:
        raise CheckpointError(
            f"The checkpoint needs {total / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; "
            "free some space or choose a folder on another disk."
        )


def _write_shard(
    file: BinaryIO,
    jobs: list[_Job],
    fetch: Callable[[str], Source],
    config: ModelConfig,
    layout: str,
    advance: Callable[[int], None],
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for job in jobs:
        for name, shape, dtype in job.stored:
            n = math.prod(shape) * BITS[dtype] // 8
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
            at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for job in jobs:
        written = 0
        for piece in _stream(job, fetch, config, layout):
            file.write(np.ascontiguousarray(piece).data.cast("B"))
            written += piece.nbytes
            advance(piece.nbytes)
        assert written == job.n_bytes, (job.name, written, job.n_bytes)
    file.flush()
    os.fsync(file.fileno())


def _stream(job: _Job, fetch: Callable[[str], Source], config: ModelConfig, layout: str) -> Iterator[Array]:
    """The bytes of a job, in the order they are stored."""
    _, shape, dtype = job.stored[0]
    if not is_expert_weight(job.name):
        rows = sum(s[0] for _, s, _ in job.stored)
        for piece in _pieces(job.name, fetch(job.name), (rows, *shape[1:])):
            yield _as(piece, dtype)
    elif dtype == "U8":
        yield from _stream_mxfp4(job, fetch)
    else:
        if layout == "hf":
            shape = (shape[0], shape[2], shape[1])
        for piece in _plain_experts(job.name, fetch, shape):
            for expert in piece.data:
                one = _as(Tensor(piece.dtype, expert), dtype)
                yield one.T if layout == "hf" else one


def _stream_mxfp4(job: _Job, fetch: Callable[[str], Source]) -> Iterator[Array]:
    blocks, scales = (shape for _, shape, _ in job.stored)
    try:
        source = fetch(f"{job.name}.blocks")
    except (UnknownTensor, KeyError):
        kept = []
        for piece in _pieces(job.name, fetch(job.name), (*scales[:2], scales[2] * BLOCK)):
            for expert in piece.data:
                data, scale = quantize(Tensor(piece.dtype, expert).float32())
                kept.append(scale)
                yield data
        yield from kept
        return
    for piece in _pieces(f"{job.name}.blocks", source, blocks, "U8"):
        yield piece.data
    for piece in _pieces(f"{job.name}.scales", fetch(f"{job.name}.scales"), scales, "U8"):
        yield piece.data


def _plain_experts(name: str, fetch: Callable[[str], Source], shape: tuple[int, ...]) -> Iterator[Tensor]:
    try:
        source = fetch(name)
    except (UnknownTensor, KeyError):
        e, rows, cols = shape
        packed = _pieces(
            f"{name}.blocks", fetch(f"{name}.blocks"), (e, rows, cols // BLOCK, BLOCK // 2), "U8"
        )
        (scales,) = _pieces(
            f"{name}.scales", fetch(f"{name}.scales"), (e, rows, cols // BLOCK), "U8", whole=True
        )
        at = 0
        for piece in packed:
            for blocks in piece.data:
                yield Tensor("F32", dequantize(blocks, scales.data[at])[None])
                at += 1
        return
    yield from _pieces(name, source, shape)


def _pieces(
    name: str, source: Source, shape: tuple[int, ...], dtype: str | None = None, *, whole: bool = False
) -> Iterator[Tensor]:
    """A fetched tensor in pieces along its first axis, each checked; `whole`: joined into one."""
    given: Iterable[Tensor | Array] = [source] if isinstance(source, (Tensor, np.ndarray)) else source
    step = shape[0] if whole else max(1, _PIECE // max(1, math.prod(shape[1:])))
    kept, rows = [], 0
    for item in given:
        piece = item if isinstance(item, Tensor) else Tensor("U8" if item.dtype == np.uint8 else "F32", item)
        right = piece.dtype == dtype if dtype else piece.dtype in PLAIN
        rows += piece.shape[0] if piece.shape else 0
        if not right or piece.shape[1:] != shape[1:] or not piece.shape or rows > shape[0]:
            raise CheckpointError(
                f"Tensor {name} to be written must be {dtype or 'floating point'} {list(shape)}, but is "
                f"{piece.dtype} {list(piece.shape)}; give it as tensor_shapes says."
            )
        if whole:
            kept.append(piece.data)
            continue
        for start in range(0, piece.shape[0], step):
            yield Tensor(piece.dtype, piece.data[start : start + step])
    if rows != shape[0]:
        raise CheckpointError(
            f"Tensor {name} to be written ended after {rows} of {shape[0]} rows; give all of them."
        )
    if whole:
        yield Tensor(dtype or "F32", np.concatenate(kept))


def _as(tensor: Tensor, dtype: str) -> Array:
    """Values in a stored dtype; float32 to bf16 rounds to nearest, ties to even."""
    if tensor.dtype == dtype:
        return tensor.data
    x = tensor.float32()
    if dtype == "F32":
        return x
    bits = x.view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), (bits >> 16).astype(np.uint16) | np.uint16(64), rounded)


def _publish(
    folder: Path,
    partials: list[Path],
    names: list[str],
    index: dict[str, Any] | None,
    settings: dict[str, Any],
) -> None:
    """Gives whole shards their names. From the first removal until config.json stands, the folder does not open."""
    for old in (folder / "config.json", folder / INDEX, *sorted(folder.glob("*.safetensors"))):
        old.unlink(missing_ok=True)
    for partial, name in zip(partials, names, strict=True):
        partial.rename(folder / name)
    documents = [(INDEX, index)] if index else []
    for name, document in [*documents, ("config.json", settings)]:
        partial = folder / f"{name}.{os.getpid()}.partial"
        partials.append(partial)
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / name)

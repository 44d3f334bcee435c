"""Kernel-ready weights on disk: made once from a checkpoint, then memory-mapped in milliseconds.

Knows which packed kind each tensor gets in each precision, and the container; knows no tokens and no forward pass.

Container: magic (8 bytes), length of the header (8 bytes, little endian), header (JSON), then tensors, each at a
multiple of 4096 bytes. The header holds the config, the key of the source and the size of the whole file. A pack is
written under a temporary name, synced and renamed, so a file of the right name and size is whole.

| precision | dense matrices | experts | activations | keys, values |
| int8      | int8, blocks of 32, bf16 scale | as MXFP4, else int8 | int8, blocks of 32 | bf16 |
| bf16      | bf16 | as MXFP4, else bf16 | rounded to bf16 | bf16 |
| float32   | as stored | as stored | float32 | float32 |
The router is never quantised: its matrix stays as stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from motet.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from motet.config import ModelConfig
from motet.errors import UsageError, UserError
from motet.kernels import BLOCK, TILE, Matrix, bf16_to_f32, f32_to_bf16, interleave_tiles, tile_rows

PRECISIONS = ("int8", "bf16", "float32")
MAGIC = b"MOTETPK\x01"
FORMAT = 1
ALIGN = 4096
_PER_BLOCK = {
    "mxfp4": (256, 16),
    "int8": (512, 32),
    "bf16": (1024, 0),
    "f32": (2048, 0),
}  # bytes of a tile's block

Progress = Callable[[int, int], None]
Array = npt.NDArray[Any]


class PackError(UserError):
    """A pack cannot be written, or its source holds values no pack can hold."""


@dataclass(frozen=True)
class _Item:
    """One tensor of the pack: what it is, how many bytes, and the pieces that make it (written in order)."""

    name: str
    kind: str  # a numpy dtype for plain arrays, else a packed kind
    shape: tuple[int, ...]  # plain: the shape; packed: (count, rows, cols, tiles)
    n_bytes: int
    n_scales: int
    pieces: Callable[[], Iterator[tuple[Array, Array | None]]]


class Pack:
    """An open pack: plain arrays and packed matrices by name, all views of one memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        if header is None:
            raise PackError(f"The pack {path} is damaged; delete it and run again.")
        self.config = ModelConfig.from_json(header["config"])
        self.precision: str = header["precision"]
        self.key: str = header["key"]
        self._items: dict[str, dict[str, Any]] = header["tensors"]
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._map = _map(self._file)

    @property
    def nbytes(self) -> int:
        return int(self._map.size)

    def _bytes(self, at: list[int]) -> npt.NDArray[np.uint8]:
        return self._map[at[0] : at[0] + at[1]]

    def array(self, name: str) -> Array:
        """A plain array, by the checkpoint's name."""
        item = self._items[name]
        values: Array = self._bytes(item["data"]).view(item["kind"]).reshape(item["shape"])
        return values

    def rows(self, name: str, ids: npt.NDArray[np.int64]) -> Array:
        """Rows (len(ids), ...) of a plain array of which few are ever wanted, read from the file instead of mapped.

        A mapped row would bring its neighbours into the process: 64 KB of them, on Linux 6.18 with 2 MB pages all of
        those, which after 4096 tokens is the whole table. Raises PackError when the file has been cut short.
        """
        item = self._items[name]
        out = np.empty((len(ids), *item["shape"][1:]), item["kind"])
        raw = out.reshape(len(ids), math.prod(item["shape"][1:])).view(np.uint8)
        at = item["data"][0]
        for n, row in enumerate(ids.tolist()):
            if os.preadv(self._file, [raw[n]], at + row * raw.shape[1]) != raw.shape[1]:
                raise PackError(f"The pack {self.path} was cut short while in use; delete it and run again.")
        return out

    def matrix(self, name: str) -> Matrix:
        """A packed matrix, or a stack of them."""
        item = self._items[name]
        scales = self._bytes(item["scales"]) if item["scales"][1] else None
        count, rows, cols, tiles = item["shape"]
        return Matrix(item["kind"], count, rows, cols, tiles, self._bytes(item["data"]), scales)


def _map(file: int) -> npt.NDArray[np.uint8]:
    """The file as read-only bytes. Where the kernel can keep files in 2 MB pages it is asked to: decoding reads a tenth
    faster from those (docs/log.md), and they are shared with every other process like small ones.
    """
    held = mmap.mmap(file, 0, prot=mmap.PROT_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            held.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(held, np.uint8)


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a whole pack, or None for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
            if len(start) < 16 or start[:8] != MAGIC:
                return None
            header = json.loads(file.read(int.from_bytes(start[8:], "little")))
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError, OverflowError, MemoryError):
        return None
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("size") != size:
        return None
    return header


def cache_folder() -> Path:
    """Where packs live: MOTET_CACHE, or the user's cache folder."""
    if os.environ.get("MOTET_CACHE"):
        return Path(os.environ["MOTET_CACHE"]).expanduser() / "packs"
    from platformdirs import user_cache_path

    return user_cache_path("motet") / "packs"


def fingerprint(folder: Path) -> str:
    """Names the source's content: config text, and name, size and time of every tensor file."""
    digest = hashlib.sha256(f"{FORMAT} {folder.resolve()}".encode())
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        stat = path.stat()
        digest.update(f"\n{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
        if path.name == "config.json":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def pack_path(folder: str | os.PathLike[str], precision: str) -> Path:
    """Where the pack of a checkpoint folder is, or would be."""
    folder = Path(folder)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in folder.resolve().name) or "model"
    return cache_folder() / f"{name}-{fingerprint(folder)}-{precision}.motet"


def ensure_pack(
    folder: str | os.PathLike[str], precision: str = "int8", progress: Progress | None = None
) -> Path:
    """The pack of a checkpoint folder, made if it is not there.

    `progress(done, total)` is called with bytes only while packing. Raises CheckpointError for a bad source, PackError
    when the pack cannot be written, UsageError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"Precision '{precision}' is unknown; choose {', '.join(PRECISIONS)}.")
    folder = Path(folder)
    if folder.is_dir():
        path = pack_path(folder, precision)
        if read_header(path) is not None:
            return path
    checkpoint = open_checkpoint(folder)
    path = pack_path(folder, precision)
    _write(path, checkpoint, precision, progress)
    return path


def quantize_checkpoint(
    source: str | os.PathLike[str], target: str | os.PathLike[str], progress: Progress | None = None
) -> Path:
    """Writes a copy of a checkpoint with its plain experts as MXFP4 blocks and scales, in the source's layout."""
    checkpoint, target = open_checkpoint(source), Path(target)
    if checkpoint.experts == "mxfp4":
        raise PackError(f"The experts in '{source}' are MXFP4 already; use the folder as it is.")
    for name, size in (
        ("hidden_size", checkpoint.config.hidden_size),
        ("intermediate_size", checkpoint.config.intermediate_size),
    ):
        if size % BLOCK:
            raise PackError(
                f"{name} is {size}; MXFP4 needs a multiple of {BLOCK}, so keep these experts as they are."
            )
    if target.resolve() == checkpoint.folder.resolve():
        raise UsageError("The quantised copy needs a folder of its own; name one that does not exist yet.")
    write_checkpoint(
        target,
        checkpoint.config,
        checkpoint.tensor,
        layout=checkpoint.layout,
        experts="mxfp4",
        progress=progress,
    )
    for path in checkpoint.folder.iterdir():
        if path.name.startswith(("tokenizer", "generation_config", "special_tokens")) and path.is_file():
            shutil.copyfile(path, target / path.name)
    return target


# --- what goes in ------------------------------------------------------------------------------------------------------


def _float(data: Array, dtype: str) -> npt.NDArray[np.float32]:
    return (
        bf16_to_f32(np.ascontiguousarray(data)) if dtype == "BF16" else np.ascontiguousarray(data, np.float32)
    )


def _convert(data: Array, dtype: str, kind: str) -> Array:
    """A plain weight as `tile_rows` wants it for a kind."""
    if kind == "bf16":
        return np.ascontiguousarray(data) if dtype == "BF16" else f32_to_bf16(_float(data, dtype))
    return _float(data, dtype)


def _kind(precision: str, dtype: str) -> str:
    if precision == "float32":
        return "bf16" if dtype == "BF16" else "f32"
    return precision


class _Plan:
    """The items of one pack, in the order the forward pass reads them."""

    def __init__(self, checkpoint: Checkpoint, precision: str) -> None:
        self.checkpoint, self.precision = checkpoint, precision
        self.config = checkpoint.config
        self.items: list[_Item] = []
        tied = self.config.tie_word_embeddings
        self._plain("embedding.weight", keep=True)
        for n in range(self.config.num_hidden_layers):
            self._layer(f"block.{n}.")
        self._plain("norm.scale")
        self._dense("unembedding.weight", _kind(precision, self._dtype("embedding.weight" if tied else "unembedding.weight")),
                    source="embedding.weight" if tied else None)  # fmt: skip

    def _dtype(self, name: str) -> str:
        return self.checkpoint.tensor(name).dtype

    def _floats(self, name: str) -> npt.NDArray[np.float32]:
        tensor = self.checkpoint.tensor(name)
        return _float(tensor.data, tensor.dtype)

    def _layer(self, at: str) -> None:
        for part in ("attn.norm.scale", "attn.sinks"):
            self._plain(at + part)
        for part in ("attn.qkv", "attn.out"):
            self._dense(f"{at}{part}.weight", _kind(self.precision, self._dtype(f"{at}{part}.weight")))
            self._plain(f"{at}{part}.bias")
        self._plain(at + "mlp.norm.scale")
        self._dense(
            at + "mlp.gate.weight", "bf16" if self._dtype(at + "mlp.gate.weight") == "BF16" else "f32"
        )
        self._plain(at + "mlp.gate.bias")
        bias, shape = at + "mlp.mlp1_bias", (self.config.num_experts, self.config.intermediate_size)
        self._array(bias + ".gate", "float32", shape, lambda: self._floats(bias)[:, ::2])
        self._array(bias + ".up", "float32", shape, lambda: self._floats(bias)[:, 1::2])
        self._experts(
            at + "mlp.mlp1_weight", 2 * self.config.intermediate_size, self.config.hidden_size, pairs=True
        )
        self._experts(
            at + "mlp.mlp2_weight", self.config.hidden_size, self.config.intermediate_size, pairs=False
        )
        self._plain(at + "mlp.mlp2_bias")

    def _array(self, name: str, dtype: str, shape: tuple[int, ...], make: Callable[[], Array]) -> None:
        n = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.items.append(
            _Item(name, dtype, shape, n, 0, lambda: iter([(np.ascontiguousarray(make(), dtype), None)]))
        )

    def _plain(self, name: str, keep: bool = False) -> None:
        """A vector or table: float32, or as stored with `keep`."""
        tensor = self.checkpoint.tensor(name)
        bits = keep and tensor.dtype == "BF16"
        make = (lambda: tensor.data) if bits else (lambda: _float(tensor.data, tensor.dtype))
        self._array(name, "uint16" if bits else "float32", tuple(tensor.shape), make)

    def _packed(self, name: str, kind: str, count: int, rows: int, cols: int, tiles: int,
                pieces: Callable[[], Iterator[tuple[Array, Array | None]]]) -> None:  # fmt: skip
        blocks = count * tiles * -(-cols // BLOCK)
        data, scales = _PER_BLOCK[kind]
        self.items.append(
            _Item(name, kind, (count, rows, cols, tiles), blocks * data, blocks * scales, pieces)
        )

    def _dense(self, name: str, kind: str, source: str | None = None) -> None:
        tensor = self.checkpoint.tensor(source or name)
        rows, cols = tensor.shape
        step = max(TILE, (1 << 24) // cols // TILE * TILE)  # about 64 MB of float32 at a time

        def pieces() -> Iterator[tuple[Array, Array | None]]:
            for r in range(0, rows, step):
                yield tile_rows(kind, _convert(tensor.data[r : r + step], tensor.dtype, kind))

        self._packed(name, kind, 1, rows, cols, -(-rows // TILE), pieces)

    def _experts(self, name: str, rows: int, cols: int, *, pairs: bool) -> None:
        count = self.config.num_experts
        order = interleave_tiles if pairs else (lambda a: a)
        tiles = 2 * -(-(rows // 2) // TILE) if pairs else -(-rows // TILE)
        if self.checkpoint.experts == "mxfp4":
            blocks, scales = (
                self.checkpoint.tensor(name + ".blocks"),
                self.checkpoint.tensor(name + ".scales"),
            )

            def quantized() -> Iterator[tuple[Array, Array | None]]:
                for e in range(count):
                    s = np.asarray(scales.data[e])
                    if (s == 255).any():
                        raise PackError(
                            f"{name}.scales holds 255 (not a number) in expert {e}; the checkpoint is damaged."
                        )
                    yield tile_rows(
                        "mxfp4", (order(np.asarray(blocks.data[e]).reshape(rows, -1, BLOCK // 2)), order(s))
                    )

            self._packed(name, "mxfp4", count, rows, cols, tiles, quantized)
            return
        tensor = self.checkpoint.tensor(name)
        kind = _kind(self.precision, tensor.dtype)

        def plain() -> Iterator[tuple[Array, Array | None]]:
            for e in range(count):
                yield tile_rows(kind, order(_convert(tensor.data[e], tensor.dtype, kind)))

        self._packed(name, kind, count, rows, cols, tiles, plain)


# --- writing -----------------------------------------------------------------------------------------------------------


def _up(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _header(plan: _Plan, key: str) -> tuple[bytes, dict[str, dict[str, Any]], int]:
    """The encoded header, the table of tensors in it, and the size of the whole file."""
    room = 4096 + 256 * len(plan.items)
    while True:
        at, table = _up(room), {}
        for item in plan.items:
            scales = at + _up(item.n_bytes)
            table[item.name] = {
                "kind": item.kind,
                "shape": item.shape,
                "data": [at, item.n_bytes],
                "scales": [scales, item.n_scales],
            }
            at = scales + _up(item.n_scales)
        body = {"format": FORMAT, "precision": plan.precision, "key": key, "size": at,
                "config": plan.config.to_hf(), "tensors": table}  # fmt: skip
        text = json.dumps(body).encode()
        if len(text) + 16 <= room:
            return MAGIC + (room - 16).to_bytes(8, "little") + text.ljust(room - 16), table, at
        room = 2 * len(text)


def _write(path: Path, checkpoint: Checkpoint, precision: str, progress: Progress | None) -> None:
    plan = _Plan(checkpoint, precision)
    header, table, total = _header(plan, fingerprint(checkpoint.folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise PackError(
            f"The pack needs {total / 1e9:.2f} GB and {path.parent} has {free / 1e9:.2f} GB free; "
            "free some space, or set MOTET_CACHE to a folder on another disk."
        )
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header)
            file.truncate(total)
            _fill(file, plan, table, total, progress)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fill(
    file: BinaryIO, plan: _Plan, table: dict[str, dict[str, Any]], total: int, progress: Progress | None
) -> None:
    done = 0
    for item in plan.items:
        at, scales_at = table[item.name]["data"][0], table[item.name]["scales"][0]
        ends = at + item.n_bytes, scales_at + item.n_scales
        for data, scales in item.pieces():
            file.seek(at)
            file.write(np.ascontiguousarray(data).data)
            at += data.nbytes
            if scales is not None:
                file.seek(scales_at)
                file.write(scales.data)
                scales_at += scales.nbytes
            done += data.nbytes + (0 if scales is None else scales.nbytes)
            if progress:
                progress(done, total)
        if (at, scales_at) != ends:
            raise PackError(
                f"{item.name} came to {at - ends[0]} bytes too many; the checkpoint's shapes are wrong."
            )
    if progress:
        progress(total, total)


def _remove_stale(path: Path) -> None:
    """Deletes what killed processes left behind for this pack."""
    for old in path.parent.glob(f"{path.name}.*.partial"):
        pid = old.name.rsplit(".", 2)[1]
        if not (pid.isdecimal() and Path(f"/proc/{pid}").exists()):
            with contextlib.suppress(OSError):
                old.unlink()

"""safetensors files: reading headers that may be damaged, and finding the shards of a folder.

Knows the format and how downloads go wrong. Does not know which tensors a model has.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from motet.checkpoint.names import BITS, CheckpointError

INDEX = "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True)
class Entry:
    """One tensor of one file: where its bytes are, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    n_bytes: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, every offset checked against the file's size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            if first.startswith(b"version "):
                raise CheckpointError(
                    f"{path} is a git-lfs pointer, not the weights; run 'git lfs pull' in that folder."
                )
            length = int.from_bytes(first, "little")
            if len(first) < 8 or not 2 <= length <= _LARGEST_HEADER:
                raise CheckpointError(f"{path} is not a safetensors file; download or write it again.")
            if 8 + length > size:
                raise CheckpointError(
                    f"{path} is cut short: {size} bytes, less than its own header; download or write it again."
                )
            raw = file.read(length)
    except OSError as e:
        raise CheckpointError(
            f"{path} cannot be read ({e.strerror}); check the path and its permissions."
        ) from e
    try:
        table = json.loads(raw, object_pairs_hook=_no_twins)
        if not isinstance(table, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} has a damaged header ({e}); download or write it again.") from e
    table.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in table.items()}
    for (a, left), (b, right) in pairwise(sorted(entries.items(), key=lambda x: (x[1].start, x[1].n_bytes))):
        if left.start + left.n_bytes > right.start:
            raise CheckpointError(f"{path} stores {a} and {b} in the same bytes; download or write it again.")
    end = max((e.start + e.n_bytes for e in entries.values()), default=0)
    if end > size:
        last = max(entries, key=lambda n: entries[n].start)
        raise CheckpointError(
            f"{path} is cut short: {size} bytes where its header promises {end} (tensor {last}); "
            "download or write it again."
        )
    return entries


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key appears twice")
    return out


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, start, end)
        good = isinstance(dtype, str) and all(type(x) is int and x >= 0 for x in numbers) and start <= end
    except (TypeError, ValueError, KeyError):
        good = False
    if not good:
        raise CheckpointError(
            f"{path} describes tensor {name} wrongly in its header; download or write it again."
        )
    if dtype in BITS and math.prod(shape) * BITS[dtype] // 8 != end - start:
        raise CheckpointError(
            f"{path} gives tensor {name} {end - start} bytes, which do not make {dtype} {list(shape)}; "
            "download or write it again."
        )
    return Entry(dtype, shape, path, base + start, end - start)


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint: those of the index, else all there are."""
    index = folder / INDEX
    if index.is_file():
        try:
            files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            good = all(isinstance(f, str) and f and Path(f).name == f for f in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            files, good = set(), False
        if not good or not files:
            raise CheckpointError(f"{index} is damaged; download or write the checkpoint again.")
        paths = [folder / f for f in sorted(files)]
        for path in paths:
            if not path.is_file():
                raise CheckpointError(f"{path} is missing, though {INDEX} names it; download it again.")
        return paths
    paths = sorted(p for p in folder.glob("*.safetensors") if p.is_file())
    if not paths:
        hint = f"; did you mean {folder / 'original'}?" if (folder / "original" / "config.json").is_file() else (
            "; the download is incomplete, or this is no checkpoint.")  # fmt: skip
        raise CheckpointError(f"{folder} holds no *.safetensors files{hint}")
    for path in paths:
        match = re.search(r"-(\d+)-of-(\d+)\.safetensors$", path.name)
        count = int(match[2]) if match else 0
        if match and len(paths) < count:
            have, stem = {p.name for p in paths}, path.name[: match.start()]
            width, last = len(match[1]), match[2]
            names = [f"{stem}-{i + 1:0{width}}-of-{last}.safetensors" for i in range(len(paths) + 1)]
            gone = next((n for n in names if n not in have), "a shard")
            raise CheckpointError(
                f"{folder} holds {len(paths)} of the {count} shards its file names promise; "
                f"{gone} is missing: download it again."
            )
    return paths

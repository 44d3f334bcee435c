"""Checkpoint folders of gpt-oss: opening both published layouts without copying weights, and writing either one.

Knows the safetensors format, OpenAI's `original/` names and Hugging Face's names, the shape each tensor must have, and
experts as MXFP4 blocks and scales or as plain numbers. Does not know kernels, packs, vocabularies, or random weights.
Names in this interface are OpenAI's whatever the folder holds (openai/gpt-oss `torch/model.py`, `torch/weights.py`;
huggingface/transformers `models/gpt_oss/convert_gpt_oss_weights_to_hf.py`).
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from motet.config import ModelConfig
from motet.errors import UserError
from motet.mxfp4 import BLOCK, dequantize, quantize

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4_800_000_000
"""Largest shard `write_checkpoint` makes by default, as in the published folders."""

_NUMPY: dict[str, Any] = {"BF16": np.uint16, "F32": np.float32, "F16": np.float16, "U8": np.uint8}
_BITS = {"BOOL": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32,
         "I64": 64, "U64": 64, "F64": 64, "BF16": 16, "F16": 16, "F32": 32, "U8": 8}  # fmt: skip
_PLAIN = {"BF16": "bfloat16", "F32": "float32", "F16": "float16"}
_STORED = {"bfloat16": "BF16", "float32": "F32"}
_LARGEST_HEADER = 100_000_000  # the safetensors library's own limit
_PIECE = 1 << 24  # elements converted at a time while writing: 64 MB as float32
_BUFFERS = re.compile(r"(^|\.)(rotary_emb\.\w+|rope\.\w+|inv_freq|original_inv_freq|cos_cached|sin_cached)$")

_HF_TOP = {
    "embedding.weight": ("model.embed_tokens.weight",),
    "norm.scale": ("model.norm.weight",),
    "unembedding.weight": ("lm_head.weight",),
}
_HF_BLOCK = {
    "attn.norm.scale": ("input_layernorm.weight",),
    "attn.qkv.weight": tuple(f"self_attn.{x}_proj.weight" for x in "qkv"),
    "attn.qkv.bias": tuple(f"self_attn.{x}_proj.bias" for x in "qkv"),
    "attn.sinks": ("self_attn.sinks",),
    "attn.out.weight": ("self_attn.o_proj.weight",),
    "attn.out.bias": ("self_attn.o_proj.bias",),
    "mlp.norm.scale": ("post_attention_layernorm.weight",),
    "mlp.gate.weight": ("mlp.router.weight",),
    "mlp.gate.bias": ("mlp.router.bias",),
    **{
        f"mlp.{ours}_{part}": (f"mlp.experts.{theirs}{ending}",)
        for ours, theirs in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj"))
        for part, ending in (
            ("weight", ""), ("weight.blocks", "_blocks"), ("weight.scales", "_scales"), ("bias", "_bias")
        )
    },
}  # fmt: skip


class CheckpointError(UserError):
    """A folder that is no whole gpt-oss checkpoint, or one that cannot be written; names the file or the tensor."""


class UnknownTensor(CheckpointError):
    """A name the checkpoint does not hold; a `fetch` function may raise it as well (or KeyError)."""


@dataclass(frozen=True)
class Tensor:
    """A stored tensor. dtype BF16, F32, F16 or U8; `data` is read-only, bf16 as uint16 bits."""

    dtype: str
    data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes, axis by axis."""
        return tuple(self.data.shape)

    def float32(self) -> npt.NDArray[np.float32]:
        """Its values as a new, writable, C-contiguous float32 array (U8 as plain integers)."""
        if self.dtype == "BF16":
            return (self.data.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)
        return self.data.astype(np.float32, order="C")


Source = Tensor | Array | Iterator[Tensor | Array]
"""What a `fetch` function may return: the whole tensor, or pieces of it along the first axis, in order."""


# --- names and shapes ------------------------------------------------------------------------------------------------


def tensor_shapes(config: ModelConfig, experts: str = "mxfp4") -> dict[str, tuple[int, ...]]:
    """Every name, in the order of the model, with its shape.

    experts "mxfp4" lists `mlp1_weight.blocks` (E, 2I, d/32, 16) and `.scales` (E, 2I, d/32); anything else lists
    `mlp1_weight` (E, 2I, d). Raises CheckpointError when MXFP4 cannot hold these sizes.
    """
    d, inner, e, heads = (
        config.hidden_size,
        config.intermediate_size,
        config.num_experts,
        config.num_attention_heads,
    )
    if experts == "mxfp4":
        for key, size in (("hidden_size", d), ("intermediate_size", inner)):
            if size % BLOCK:
                raise CheckpointError(
                    f"MXFP4 experts need {key} to be a multiple of {BLOCK}, not {size}; store them as bfloat16."
                )
    wide = (heads + 2 * config.num_key_value_heads) * config.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn.norm.scale": (d,), "attn.qkv.weight": (wide, d), "attn.qkv.bias": (wide,), "attn.sinks": (heads,),
        "attn.out.weight": (d, heads * config.head_dim), "attn.out.bias": (d,),
        "mlp.norm.scale": (d,), "mlp.gate.weight": (e, d), "mlp.gate.bias": (e,),
    }  # fmt: skip
    for name, rows, cols in (("mlp.mlp1", 2 * inner, d), ("mlp.mlp2", d, inner)):
        if experts == "mxfp4":
            block[f"{name}_weight.blocks"] = (e, rows, cols // BLOCK, BLOCK // 2)
            block[f"{name}_weight.scales"] = (e, rows, cols // BLOCK)
        else:
            block[f"{name}_weight"] = (e, rows, cols)
        block[f"{name}_bias"] = (e, rows)
    out: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocab_size, d)}
    for n in range(config.num_hidden_layers):
        out |= {f"block.{n}.{name}": shape for name, shape in block.items()}
    return out | {"norm.scale": (d,), "unembedding.weight": (config.vocab_size, d)}


def _is_expert_weight(name: str) -> bool:
    return name.endswith((".mlp1_weight", ".mlp2_weight"))


def _parts(
    name: str, shape: tuple[int, ...], layout: str, config: ModelConfig
) -> list[tuple[str, tuple[int, ...]]]:
    """The stored tensors, with their stored shapes, whose rows make up one of ours."""
    if layout == "openai":
        return [(name, shape)]
    if name in _HF_TOP:
        return [(_HF_TOP[name][0], shape)]
    _, n, rest = name.split(".", 2)
    theirs = [f"model.layers.{n}.{x}" for x in _HF_BLOCK[rest]]
    if len(theirs) == 3:
        heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        return [(t, (h * config.head_dim, *shape[1:])) for t, h in zip(theirs, heads, strict=True)]
    if _is_expert_weight(name):
        shape = (shape[0], shape[2], shape[1])
    return [(theirs[0], shape)]


def _absent(config: ModelConfig, layout: str) -> set[str]:
    """Names this layout does not store for this config, because the config makes them redundant."""
    out = set()
    if layout == "hf" and config.tie_word_embeddings:
        out.add("unembedding.weight")
    if layout == "hf" and not config.attention_bias:
        out |= {f"block.{n}.attn.{x}.bias" for n in range(config.num_hidden_layers) for x in ("qkv", "out")}
    return out


# --- safetensors files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One tensor of one file: where its bytes are, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    n_bytes: int


def _read_header(path: Path) -> dict[str, _Entry]:
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


def _entry(path: Path, name: str, value: Any, base: int) -> _Entry:
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
    if dtype in _BITS and math.prod(shape) * _BITS[dtype] // 8 != end - start:
        raise CheckpointError(
            f"{path} gives tensor {name} {end - start} bytes, which do not make {dtype} {list(shape)}; "
            "download or write it again."
        )
    return _Entry(dtype, shape, path, base + start, end - start)


def _shards(folder: Path) -> list[Path]:
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
    have = {p.name for p in paths}
    for path in paths:
        if match := re.search(r"-(\d+)-of-(\d+)\.safetensors$", path.name):
            digits, last = len(match[1]), min(int(match[2]), 10_000)
            for i in range(1, last + 1):
                sibling = f"{path.name[: match.start()]}-{i:0{digits}}-of-{match[2]}.safetensors"
                if sibling not in have and int(match[1]) != 0:
                    raise CheckpointError(f"{folder / sibling} is missing; download it again.")
    return paths


# --- opening -----------------------------------------------------------------------------------------------------------


class Checkpoint:
    """An open checkpoint folder; make one with `open_checkpoint`. Weights stay on disk until they are looked at.

    `layout` is "hf" or "openai"; `experts` "mxfp4", "bfloat16", "float32" or "float16"; `nbytes` the payload.
    """

    def __init__(self, folder: Path, config: ModelConfig, layout: str, entries: dict[str, _Entry]) -> None:
        self.folder, self.config, self.layout = folder, config, layout
        self._entries = entries
        self._maps: dict[Path, mmap.mmap] = {}
        first = "block.0.mlp.mlp1_weight.blocks"
        packed = _parts(first, (0, 0, 0, 0), layout, config)[0][0] in entries
        self._shapes = tensor_shapes(config, "mxfp4" if packed else "bfloat16")
        absent = _absent(config, layout)
        self._table = {n: _parts(n, s, layout, config) for n, s in self._shapes.items() if n not in absent}
        self._check()
        plain = self._table.get("block.0.mlp.mlp1_weight")
        self.experts = "mxfp4" if plain is None else _PLAIN[entries[plain[0][0]].dtype]
        self.nbytes = sum(entries[t].n_bytes for parts in self._table.values() for t, _ in parts)

    def names(self) -> tuple[str, ...]:
        """Every name `tensor` answers to, in the order of the model."""
        return tuple(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """One tensor by OpenAI's name; a view of the file except for HF's q, k and v, which are joined in memory.

        Experts are (E, out, in), a transposed view where the folder stores (E, in, out). Tied embeddings answer to both
        names; biases a config switches off are zeros. Raises UnknownTensor for any other name.
        """
        if name not in self._shapes:
            raise UnknownTensor(f"{self.folder} holds no tensor {name}; its experts are {self.experts}.")
        if name not in self._table:
            if name == "unembedding.weight":
                return self.tensor("embedding.weight")
            return Tensor("F32", np.zeros(self._shapes[name], np.float32))
        parts = [self._view(self._entries[t]) for t, _ in self._table[name]]
        if len(parts) > 1:
            if len({p.dtype for p in parts}) > 1:
                parts = [Tensor("F32", p.float32()) for p in parts]
            return Tensor(parts[0].dtype, np.concatenate([p.data for p in parts]))
        if self.layout == "hf" and _is_expert_weight(name):
            return Tensor(parts[0].dtype, parts[0].data.transpose(0, 2, 1))
        return parts[0]

    def expert(self, name: str, e: int) -> Tensor:
        """Expert e of a tensor whose first axis is experts, without reading the others."""
        if not 0 <= e < self.config.num_experts:
            raise UnknownTensor(f"{name} has experts 0 to {self.config.num_experts - 1}, not {e}.")
        if ".mlp.mlp" not in name:
            raise UnknownTensor(f"{name} is not an expert tensor; use tensor().")
        whole = self.tensor(name)
        return Tensor(whole.dtype, whole.data[e])

    def _view(self, entry: _Entry) -> Tensor:
        dtype = "U8" if entry.dtype == "F8_E8M0" else entry.dtype
        kind = np.dtype(_NUMPY[dtype])
        if entry.path not in self._maps:
            with entry.path.open("rb") as file:
                self._maps[entry.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = entry.n_bytes // kind.itemsize
        data = np.frombuffer(self._maps[entry.path], kind.newbyteorder("<"), count, entry.start)
        if not data.flags.aligned:  # legal in the format, but compiled kernels may not assume it
            data = data.copy()
        return Tensor(dtype, data.reshape(entry.shape))

    def _check(self) -> None:
        """Nothing missing, nothing mis-shaped, no wrong dtype, nothing unknown."""
        wanted = {t: (n, s) for n, parts in self._table.items() for t, s in parts}
        missing = [t for t in wanted if t not in self._entries]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            hint = (
                "set tie_word_embeddings if the embedding serves twice, or "
                if missing == ["lm_head.weight"]
                else ""
            )
            raise CheckpointError(
                f"{self.folder} lacks tensor {missing[0]}{more} which config.json calls for; "
                f"{hint}download or write the checkpoint again."
            )
        for stored, (name, shape) in wanted.items():
            entry = self._entries[stored]
            if entry.shape != shape:
                raise CheckpointError(
                    f"Tensor {stored} in {entry.path} has shape {list(entry.shape)}, but config.json makes it "
                    f"{list(shape)}; use the config.json that belongs to these weights."
                )
            legal = ("U8", "F8_E8M0") if name.endswith((".blocks", ".scales")) else tuple(_PLAIN)
            if entry.dtype not in legal:
                raise CheckpointError(
                    f"Tensor {stored} in {entry.path} is {entry.dtype}, but must be {' or '.join(legal)}; "
                    "convert it, or get the checkpoint in a published format."
                )
        spare = [t for t in self._entries if t not in wanted and not _BUFFERS.search(t)]
        if self.layout == "hf" and self.config.tie_word_embeddings and "lm_head.weight" in spare:
            self._check_tied()
            spare.remove("lm_head.weight")
        if spare:
            more = f" and {len(spare) - 1} more" if len(spare) > 1 else ""
            raise CheckpointError(
                f"{self._entries[spare[0]].path} holds tensor {spare[0]}{more} which gpt-oss with this config.json "
                "does not have; check that config.json belongs to these weights."
            )

    def _check_tied(self) -> None:
        """A stored lm_head beside tied embeddings must be the same numbers, or nobody knows which one is meant."""
        a, b = self._entries["model.embed_tokens.weight"], self._entries["lm_head.weight"]
        same = a.dtype == b.dtype and a.shape == b.shape
        if not (same and np.array_equal(*(self._view(x).data.view(np.uint8) for x in (a, b)))):
            raise CheckpointError(
                f"{self.folder} has tie_word_embeddings true, yet lm_head.weight differs from "
                "model.embed_tokens.weight; set tie_word_embeddings to false in config.json."
            )


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Opens a folder in OpenAI's or Hugging Face's layout and checks every tensor's presence, shape and dtype.

    Reads headers only. Raises CheckpointError (a file or tensor at fault) or ConfigError (config.json at fault).
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}; give the folder that holds config.json and *.safetensors.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no config.json; it is no checkpoint, or its writing never finished."
        )
    config = ModelConfig.from_file(folder)
    entries: dict[str, _Entry] = {}
    for path in _shards(folder):
        for name, entry in _read_header(path).items():
            if name in entries:
                raise CheckpointError(
                    f"Tensor {name} is in both {entries[name].path} and {path}; remove the file that is too much."
                )
            entries[name] = entry
    layout = "hf" if any(n.startswith(("model.", "lm_head.")) for n in entries) else "openai"
    return Checkpoint(folder, config, layout, entries)


# --- writing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """Stored tensors that come, one behind the other, from one fetch."""

    name: str
    stored: list[tuple[str, tuple[int, ...], str]]  # name, shape, dtype

    @property
    def n_bytes(self) -> int:
        return sum(math.prod(shape) * _BITS[dtype] // 8 for _, shape, dtype in self.stored)


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
    if layout not in ("hf", "openai") or experts not in ("mxfp4", *_STORED) or dense not in (None, *_STORED):
        raise CheckpointError(
            f"A checkpoint cannot have layout {layout}, experts {experts} and dense {dense}; choose hf or openai, "
            "mxfp4, bfloat16 or float32, and bfloat16 or float32."
        )
    dense = dense or ("float32" if experts == "float32" else "bfloat16")
    settings = _settings(config, layout, experts, dense)
    shards = _plan(config, layout, experts, _STORED[dense], max_shard_bytes)
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
                file.flush()
                os.fsync(file.fileno())
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
    """config.json as a dict; raises when the layout cannot say what the config says."""
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
    out = dict(config.to_openai())
    again = ModelConfig.from_json(out)
    # Tied embeddings and absent biases are written out in full; which ids end a text is not the weights' affair.
    free = ("tie_word_embeddings", "attention_bias", "eos_token_ids", "pad_token_id")
    for field in fields(config):
        if field.name not in free and getattr(again, field.name) != getattr(config, field.name):
            raise CheckpointError(
                f"OpenAI's config.json cannot say {field.name} = {getattr(config, field.name)}; write layout hf."
            )
    return out


def _plan(
    config: ModelConfig, layout: str, experts: str, dense: str, max_shard_bytes: int
) -> list[list[_Job]]:
    """What goes into which shard. A job is never divided, so a shard passes the limit only if one tensor does."""
    absent = _absent(config, layout)
    kinds = {".blocks": "U8", ".scales": "U8"}
    weight = _STORED.get(experts, "U8")
    jobs: list[_Job] = []
    for name, shape in tensor_shapes(config, experts).items():
        if name in absent:
            continue
        dtype = weight if _is_expert_weight(name) else kinds.get(name[-7:], dense)
        stored = [(t, s, dtype) for t, s in _parts(name, shape, layout, config)]
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
            n = math.prod(shape) * _BITS[dtype] // 8
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
            at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for job in jobs:
        written = 0
        for piece in _stream(job, fetch, config, layout):
            file.write(memoryview(np.ascontiguousarray(piece)).cast("B"))
            written += piece.nbytes
            advance(piece.nbytes)
        assert written == job.n_bytes, (job.name, written, job.n_bytes)


def _stream(job: _Job, fetch: Callable[[str], Source], config: ModelConfig, layout: str) -> Iterator[Array]:
    """The bytes of a job, in the order they are stored."""
    if job.name == "unembedding.weight" and config.tie_word_embeddings:
        job = _Job("embedding.weight", job.stored)
    _, shape, dtype = job.stored[0]
    if not _is_expert_weight(job.name):
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
        right = piece.dtype == dtype if dtype else piece.dtype in _PLAIN
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

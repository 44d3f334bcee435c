"""Opening a checkpoint folder: every tensor checked, none copied.

Knows which stored tensors make up which of ours. Does not know the file format, or what weights are for.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import numpy as np

from motet.checkpoint.files import Entry, read_header, shard_files
from motet.checkpoint.names import (
    NUMPY,
    PLAIN,
    UNEMBEDDING,
    CheckpointError,
    Tensor,
    UnknownTensor,
    absent,
    is_expert_weight,
    parts,
    tensor_shapes,
)
from motet.config import ModelConfig

BUFFERS = re.compile(r"(^|\.)(rotary_emb\.\w+|rope\.\w+|inv_freq|original_inv_freq|cos_cached|sin_cached)$")


class Checkpoint:
    """An open checkpoint folder; make one with `open_checkpoint`. Weights stay on disk until they are looked at.

    `layout` is "hf" or "openai"; `experts` "mxfp4", "bfloat16", "float32" or "float16"; `nbytes` the payload.
    """

    def __init__(self, folder: Path, config: ModelConfig, layout: str, entries: dict[str, Entry]) -> None:
        self.folder, self.config, self.layout = folder, config, layout
        self._entries = entries
        self._maps: dict[Path, mmap.mmap] = {}
        first = "block.0.mlp.mlp1_weight.blocks"
        packed = parts(first, (0, 0, 0, 0), layout, config)[0][0] in entries
        self._shapes = tensor_shapes(config, "mxfp4" if packed else "bfloat16")
        redundant = absent(config)
        self._table = {n: parts(n, s, layout, config) for n, s in self._shapes.items() if n not in redundant}
        self._check()
        plain = self._table.get("block.0.mlp.mlp1_weight")
        self.experts = "mxfp4" if plain is None else PLAIN[entries[plain[0][0]].dtype]
        self.nbytes = sum(entries[t].n_bytes for stored in self._table.values() for t, _ in stored)

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
            if name == UNEMBEDDING:
                return self.tensor("embedding.weight")
            return Tensor("F32", np.zeros(self._shapes[name], np.float32))
        pieces = [self._view(self._entries[t]) for t, _ in self._table[name]]
        if len(pieces) > 1:
            if len({p.dtype for p in pieces}) > 1:
                pieces = [Tensor("F32", p.float32()) for p in pieces]
            return Tensor(pieces[0].dtype, np.concatenate([p.data for p in pieces]))
        if self.layout == "hf" and is_expert_weight(name):
            return Tensor(pieces[0].dtype, pieces[0].data.transpose(0, 2, 1))
        return pieces[0]

    def expert(self, name: str, e: int) -> Tensor:
        """Expert e of a tensor whose first axis is experts, without reading the others."""
        if not 0 <= e < self.config.num_experts:
            raise UnknownTensor(f"{name} has experts 0 to {self.config.num_experts - 1}, not {e}.")
        if ".mlp.mlp" not in name:
            raise UnknownTensor(f"{name} is not an expert tensor; use tensor().")
        whole = self.tensor(name)
        return Tensor(whole.dtype, whole.data[e])

    def _view(self, entry: Entry) -> Tensor:
        dtype = "U8" if entry.dtype == "F8_E8M0" else entry.dtype
        kind = np.dtype(NUMPY[dtype])
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
        wanted = {t: (n, s) for n, stored in self._table.items() for t, s in stored}
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
            legal = ("U8", "F8_E8M0") if name.endswith((".blocks", ".scales")) else tuple(PLAIN)
            if entry.dtype not in legal:
                raise CheckpointError(
                    f"Tensor {stored} in {entry.path} is {entry.dtype}, but must be {' or '.join(legal)}; "
                    "convert it, or get the checkpoint in a published format."
                )
        spare = [t for t in self._entries if t not in wanted and not BUFFERS.search(t)]
        twin = parts(UNEMBEDDING, (0, 0), self.layout, self.config)[0][0]
        if self.config.tie_word_embeddings and twin in spare:
            self._check_tied(twin)
            spare.remove(twin)
        if spare:
            more = f" and {len(spare) - 1} more" if len(spare) > 1 else ""
            raise CheckpointError(
                f"{self._entries[spare[0]].path} holds tensor {spare[0]}{more} which gpt-oss with this config.json "
                "does not have; check that config.json belongs to these weights."
            )

    def _check_tied(self, twin: str) -> None:
        """A stored unembedding beside tied embeddings must be the same numbers, or nobody knows which one is meant."""
        a, b = (
            self._view(self._entries[self._table["embedding.weight"][0][0]]),
            self._view(self._entries[twin]),
        )
        bits = np.dtype(f"u{a.data.itemsize}")
        if a.dtype != b.dtype or not np.array_equal(a.data.view(bits), b.data.view(bits)):
            raise CheckpointError(
                f"{self.folder} has tie_word_embeddings true, yet {twin} differs from the embedding; "
                "set tie_word_embeddings to false in config.json."
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
    entries: dict[str, Entry] = {}
    for path in shard_files(folder):
        for name, entry in read_header(path).items():
            if name in entries:
                raise CheckpointError(
                    f"Tensor {name} is in both {entries[name].path} and {path}; remove the file that is too much."
                )
            entries[name] = entry
    layout = "hf" if any(n.startswith(("model.", "lm_head.")) for n in entries) else "openai"
    return Checkpoint(folder, config, layout, entries)

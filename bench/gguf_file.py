"""The weights of a checkpoint as a GGUF file, so that another program can run exactly the same model.

Experts keep their MXFP4 codes and scales bit for bit (only the order of the nibbles in a block differs), other matrices
become Q8_0, vectors, biases and the router stay float32: the mix in which gpt-oss is usually handed out for such programs.
Names and keys are those of the `gguf` package's GPT_OSS architecture. Knows no program that reads the file.

    python -m bench.gguf_file MODEL FILE.gguf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.checkpoint import Checkpoint, open_checkpoint
from motet.config import ModelConfig
from motet.errors import UserError
from motet.tokenizer import Encoding, load_encoding

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
NORMAL, CONTROL, UNUSED = 1, 3, 5  # llama.cpp's kinds of token
_ROWS = 4096  # of a matrix quantised at once


@dataclass(frozen=True)
class _Item:
    """One tensor of the file; `pieces` gives its bytes along the first axis, in order."""

    name: str
    kind: str  # F32, Q8_0 or MXFP4
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[npt.NDArray[Any]]]


def write(folder: Path, file: Path, tell: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Writes the checkpoint in `folder` to `file` in bounded memory; tell(done, total) counts bytes.

    Raises UserError for a model that the format's readers would compute differently, or a file that cannot be written.
    """
    gguf = _gguf()
    checkpoint = open_checkpoint(folder)
    check(checkpoint)
    partial = file.with_suffix(".partial")
    try:
        writer = gguf.GGUFWriter(partial, "gpt-oss")
        _keys(writer, checkpoint.config)
        _vocabulary(writer, load_encoding(folder), checkpoint.config.vocab_size)
        table = list(_items(checkpoint))
        sizes = []
        for item in table:
            kind = gguf.GGMLQuantizationType[item.kind]
            block, width = gguf.GGML_QUANT_SIZES[kind]
            sizes.append(int(np.prod(item.shape)) // block * width)
            writer.add_tensor_info(item.name, item.shape, np.dtype(np.float32), sizes[-1], kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _data(writer, table, sizes, tell)
        writer.close()
        partial.rename(file)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); choose another place with --gguf."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError(
            "The package gguf is missing; install motet's extra: pip install 'motet[bench]'."
        ) from None
    return gguf


def _data(writer: Any, table: list[_Item], sizes: list[int], tell: Callable[[int, int], None]) -> None:
    """The tensors' bytes, piece by piece: the largest alone would take gigabytes."""
    out, align, done = writer.fout[0], writer.data_alignment, 0
    out.write(b"\0" * (-out.tell() % align))
    for item, size in zip(table, sizes, strict=True):
        start = out.tell()
        for piece in item.pieces():
            np.ascontiguousarray(piece).tofile(out)
        if out.tell() - start != size:
            raise AssertionError(f"{item.name} has {out.tell() - start} bytes, not {size}")
        out.write(b"\0" * (-size % align))
        done += size
        tell(done, sum(sizes))


# -- what the model is -------------------------------------------------------------------------------------------------


def check(checkpoint: Checkpoint) -> None:
    """Raises UserError where readers of the format fix what this model sets otherwise."""
    c = checkpoint.config
    windows = [c.window(n) > 0 for n in range(c.num_hidden_layers)]
    wrong = (
        "its experts are not MXFP4" if checkpoint.experts != "mxfp4" else
        "its layers are not sliding and full in turn" if windows != [n % 2 == 0 for n in range(len(windows))] else
        "its SwiGLU limit or slope is its own" if (c.swiglu_limit, c.swiglu_alpha) != (7.0, 1.702) else
        "its YaRN attention factor is its own" if c.rope_attention_factor is not None else
        "a width of its attention is no multiple of 32" if c.hidden_size % 32 or c.head_dim * c.num_attention_heads % 32 else
        ""
    )  # fmt: skip
    if wrong:
        raise UserError(
            f"{checkpoint.folder} cannot become a GGUF that means the same: {wrong}; use a published shape."
        )


def _keys(writer: Any, c: ModelConfig) -> None:
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_expert_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_expert_count(c.num_experts)
    writer.add_expert_used_count(c.experts_per_token)
    writer.add_sliding_window(c.sliding_window)
    writer.add_rope_freq_base(c.rope_theta)
    if c.rope_scaling_factor > 1:
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(c.rope_scaling_factor)
        writer.add_rope_scaling_orig_ctx_len(c.initial_context_length)
    writer.add_vocab_size(c.vocab_size)
    writer.add_quantization_version(2)


# -- the vocabulary ----------------------------------------------------------------------------------------------------


def _vocabulary(writer: Any, encoding: Encoding, rows: int) -> None:
    """Byte-level BPE with every id of the model; merges are recovered from the ranks (ids of o200k are ranks)."""
    spell = _byte_letters()
    tokens, kinds, ranks = [], [], {}
    for i in range(rows):
        if i >= encoding.n_vocab:
            tokens.append(f"<|unused_{i}|>")
            kinds.append(UNUSED)
        elif encoding.is_special(i):
            tokens.append(encoding.token_bytes(i).decode())
            kinds.append(CONTROL)
        else:
            ranks[encoding.token_bytes(i)] = i
            tokens.append("".join(spell[b] for b in encoding.token_bytes(i)))
            kinds.append(NORMAL)
    pairs = (halves(token, ranks) for token in ranks if len(token) > 1)
    merges = [" ".join("".join(spell[b] for b in half) for half in pair) for pair in pairs if pair]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if merges:
        writer.add_token_merges(merges)
    special = encoding.special_tokens
    for key, name in (("bos", "<|startoftext|>"), ("eos", "<|return|>"), ("pad", "<|endoftext|>")):
        if name in special:
            getattr(writer, f"add_{key}_token_id")(special[name])
    writer.add_add_bos_token(False)


def halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens whose merge makes this one: what byte-pair encoding is left with when only lower ranks may merge."""
    parts, limit = [token[i : i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 2:
        best, at = limit, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], limit)
            if rank < best:
                best, at = rank, i
        if at < 0:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _byte_letters() -> list[str]:
    """The letter of each byte in byte-level BPE (GPT-2): itself where printable, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return [chr(b if b in printable else 0x100 + others.index(b)) for b in range(256)]


# -- the tensors -------------------------------------------------------------------------------------------------------


def _items(checkpoint: Checkpoint) -> Iterator[_Item]:
    c = checkpoint.config
    yield _quantised(checkpoint, "token_embd.weight", "embedding.weight")
    for n in range(c.num_hidden_layers):
        ours, theirs = f"block.{n}", f"blk.{n}"
        yield _plain(checkpoint, f"{theirs}.attn_norm.weight", f"{ours}.attn.norm.scale")
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        for part, rows in (("q", slice(0, q)), ("k", slice(q, q + kv)), ("v", slice(q + kv, q + 2 * kv))):
            yield _quantised(checkpoint, f"{theirs}.attn_{part}.weight", f"{ours}.attn.qkv.weight", rows)
            yield _plain(checkpoint, f"{theirs}.attn_{part}.bias", f"{ours}.attn.qkv.bias", rows)
        yield _quantised(checkpoint, f"{theirs}.attn_output.weight", f"{ours}.attn.out.weight")
        yield _plain(checkpoint, f"{theirs}.attn_output.bias", f"{ours}.attn.out.bias")
        yield _plain(checkpoint, f"{theirs}.attn_sinks.weight", f"{ours}.attn.sinks")
        yield _plain(checkpoint, f"{theirs}.post_attention_norm.weight", f"{ours}.mlp.norm.scale")
        yield _plain(checkpoint, f"{theirs}.ffn_gate_inp.weight", f"{ours}.mlp.gate.weight")
        yield _plain(checkpoint, f"{theirs}.ffn_gate_inp.bias", f"{ours}.mlp.gate.bias")
        for part, name, rows in (("gate", "mlp1", slice(0, None, 2)), ("up", "mlp1", slice(1, None, 2)),
                                 ("down", "mlp2", slice(None))):  # fmt: skip
            yield _experts(checkpoint, f"{theirs}.ffn_{part}_exps.weight", f"{ours}.mlp.{name}_weight", rows)
            yield _plain(checkpoint, f"{theirs}.ffn_{part}_exps.bias", f"{ours}.mlp.{name}_bias", rows)
    yield _plain(checkpoint, "output_norm.weight", "norm.scale")
    yield _quantised(checkpoint, "output.weight", "unembedding.weight")


def _plain(checkpoint: Checkpoint, theirs: str, ours: str, rows: slice = slice(None)) -> _Item:
    values = checkpoint.tensor(ours).float32()
    # Biases of experts are (expert, row), so the slice is of the last axis; the router's matrix is never sliced.
    values = np.ascontiguousarray(values[..., rows] if rows != slice(None) else values)
    return _Item(theirs, "F32", values.shape, lambda: iter((values,)))


def _quantised(checkpoint: Checkpoint, theirs: str, ours: str, rows: slice = slice(None)) -> _Item:
    from motet.checkpoint import Tensor

    whole = checkpoint.tensor(ours)
    part = Tensor(whole.dtype, whole.data[rows])

    def pieces() -> Iterator[U8]:
        for at in range(0, part.shape[0], _ROWS):
            yield q8_0(Tensor(part.dtype, part.data[at : at + _ROWS]).float32())

    return _Item(theirs, "Q8_0", part.shape, pieces)


def _experts(checkpoint: Checkpoint, theirs: str, ours: str, rows: slice) -> _Item:
    shape = checkpoint.tensor(f"{ours}.scales").data[:, rows].shape

    def pieces() -> Iterator[U8]:
        for e in range(shape[0]):
            blocks = checkpoint.expert(f"{ours}.blocks", e).data[rows]
            yield mxfp4(blocks, checkpoint.expert(f"{ours}.scales", e).data[rows])

    return _Item(theirs, "MXFP4", (shape[0], shape[1], shape[2] * 32), pieces)


def q8_0(values: F32) -> U8:
    """float32 (rows, K) as Q8_0 blocks: a float16 scale, then 32 int8."""
    gguf = _gguf()
    out: U8 = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    return out


def mxfp4(blocks: U8, scales: U8) -> U8:
    """Blocks (..., G, 16) and scales (..., G) of a checkpoint as GGUF's blocks (..., G, 17): the scale, then codes.

    A checkpoint's byte j holds elements 2j and 2j + 1, GGUF's j and j + 16; the low nibble first in both.
    """
    codes = np.stack((blocks & 15, blocks >> 4), axis=-1).reshape(*blocks.shape[:-1], 32)
    return np.concatenate((scales[..., None], codes[..., :16] | (codes[..., 16:] << 4)), axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gguf_file", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    try:
        write(
            given.model,
            given.file,
            lambda done, total: print(f"\r{100 * done // total} %", end="", file=sys.stderr),
        )
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(given.file)


if __name__ == "__main__":
    main()

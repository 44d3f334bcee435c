"""Random checkpoints of real shapes: for measuring speed and trying every path without anyone's weights.

Knows how to draw each tensor so that activations stay sane, the shapes that have a name, and a byte vocabulary for the
tiny one. Does not know how checkpoints are stored (`motet.checkpoint` does) or what a trained model would say.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from motet.checkpoint import Tensor, UnknownTensor, tensor_shapes, write_checkpoint
from motet.config import ModelConfig
from motet.errors import UsageError, UserError
from motet.mxfp4 import BLOCK, SCALE_BIAS, VALUES

CHOICES = "20b, 120b, 20b-N-layers (N up to 24), 120b-N-layers (N up to 36) or tiny"
CONTROL = ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
           "<|message|>", "<|call|>")  # fmt: skip
"""Harmony's control tokens, in the order of their ids in o200k_harmony; in the tiny vocabulary they follow the 256 bytes."""

_PIECE = 1 << 25  # bytes drawn at once; memory stays within a few of these
_STEPS = np.array([0, 0, 1, 1, 1, 1, 2, 3], np.uint8)  # scale bytes above the lowest, by three random bits
_SHAPE = re.compile(r"(20b|120b)(?:-([1-9]\d*)-layers)?")

Progress = Callable[[int, int], None]


def synth(
    shape: str,
    folder: str | PathLike[str],
    *,
    layout: str = "hf",
    seed: int = 0,
    experts: str = "mxfp4",
    progress: Progress | None = None,
) -> Path:
    """Write a random checkpoint of a named shape (see CHOICES) into a new folder and return the folder.

    Same shape and seed: same bytes. Every layout and every form of the experts holds the same values, and a tensor does
    not depend on how many layers there are. progress(done, total) counts bytes. Raises UsageError for an unknown shape,
    layout or form of experts, UserError when the folder is not empty or has no room.
    """
    config = shape_config(shape)
    return random_checkpoint(config, folder, layout=layout, seed=seed, experts=experts, progress=progress,
                             vocabulary=byte_vocabulary(config.vocab_size) if shape == "tiny" else None)  # fmt: skip


def shape_config(shape: str) -> ModelConfig:
    """The config a name of CHOICES stands for. Raises UsageError listing the choices."""
    if shape == "tiny":
        return ModelConfig.tiny()
    if match := _SHAPE.fullmatch(shape):
        preset = ModelConfig.gpt_oss_20b if match[1] == "20b" else ModelConfig.gpt_oss_120b
        layers = preset().num_hidden_layers
        if match[2] is None or (len(match[2]) < 4 and int(match[2]) <= layers):
            return preset(int(match[2] or layers))
    raise UsageError(f"there is no shape {shape!r}; choose {CHOICES}")


def random_checkpoint(
    config: ModelConfig,
    folder: str | PathLike[str],
    *,
    layout: str = "hf",
    seed: int = 0,
    experts: str = "mxfp4",
    progress: Progress | None = None,
    vocabulary: str | None = None,
) -> Path:
    """Write a random checkpoint of any config into a new folder, in bounded memory; see `synth`.

    vocabulary: the text of a tokenizer.json to write beside the weights. An interruption leaves nothing behind that
    opens as a checkpoint.
    """
    folder = Path(folder)
    if layout not in ("hf", "openai"):
        raise UsageError(f"there is no layout {layout!r}; choose hf or openai")
    if experts not in ("mxfp4", "bfloat16", "float32"):
        raise UsageError(f"experts cannot be stored as {experts!r}; choose mxfp4, bfloat16 or float32")
    try:
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); choose another folder") from None
    if occupied:
        raise UserError(f"{folder} already exists and is not empty; choose a new folder or remove it first")
    existed, file = folder.exists(), folder / "tokenizer.json"
    fetch = functools.partial(random_tensor, config, seed)
    try:
        if vocabulary is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(vocabulary, encoding="utf-8")
        write_checkpoint(folder, config, fetch, layout=layout, experts=experts, progress=progress)
    except BaseException as error:
        # An empty folder of the user's own stays; anything of ours goes, so that the same command can run again.
        if folder.is_dir() and not (folder / "config.json").exists():
            file.unlink(missing_ok=True)
            if not existed and not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); choose another folder"
            ) from error
        raise
    return folder


# -- values --------------------------------------------------------------------------------------------------------


def random_tensor(config: ModelConfig, seed: int, name: str) -> Iterator[Tensor | NDArray[np.uint8]]:
    """One tensor by its OpenAI name, in pieces along the first axis: bf16, or uint8 for blocks and scales.

    Experts exist as MXFP4 blocks and scales only, unless a width is no multiple of 32; UnknownTensor for the other form.
    """
    blocked = config.hidden_size % BLOCK == 0 and config.intermediate_size % BLOCK == 0
    shapes = tensor_shapes(config, "mxfp4" if blocked else "bfloat16")
    if name not in shapes:
        raise UnknownTensor(f"a random checkpoint of this config has no tensor {name!r}")
    return _pieces(config, seed, name, shapes[name])


def _pieces(
    config: ModelConfig, seed: int, name: str, shape: tuple[int, ...]
) -> Iterator[Tensor | NDArray[np.uint8]]:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    draw = np.random.PCG64(int.from_bytes(digest[:16], "little"))
    row = math.prod(shape[1:])
    width = 1 if name.endswith((".blocks", ".scales")) else 2
    table = None if width == 1 else _normal(*_law(config, name, shape))
    step = max(1, _PIECE // max(1, row * width))
    for start in range(0, shape[0], step):
        rows = min(step, shape[0] - start)
        words = draw.random_raw(-(-rows * row * width // 8)).astype("<u8", copy=False)
        if table is not None:
            values = _look_up(table, words.view("<u2")[: rows * row])
            yield Tensor("BF16", values.reshape(rows, *shape[1:]))
            continue
        data = words.view(np.uint8)[: rows * row].reshape(rows, *shape[1:])
        if name.endswith(".scales"):
            data = _STEPS[data & 7] + np.uint8(_lowest_scale(shape[-1] * BLOCK))
        yield data


def _look_up(table: NDArray[np.uint16], index: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """table[index] in pieces that stay in the cache: numpy widens indices to 64 bits first. Twice as fast."""
    out = np.empty_like(index)
    for start in range(0, len(index), 1 << 15):
        part = slice(start, start + (1 << 15))
        np.take(
            table, index[part], out=out[part], mode="clip"
        )  # the table has all 65,536 entries: nothing to clip
    return out


def _law(config: ModelConfig, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation. Every product has about unit variance, so the residual stream grows like sqrt(L)."""
    if name.endswith(".scale"):
        return 1.0, 0.1
    if name.endswith("bias"):
        return 0.0, 0.1
    if name.endswith("sinks"):
        return 0.0, 1.0
    if name == "embedding.weight" and not config.tie_word_embeddings:
        return 0.0, 1.0
    # Logits as wide as a trained model's, so that one token can stand out among 201,088.
    wide = 3.0 if name.endswith("embedding.weight") else 1.0
    return 0.0, wide / math.sqrt(shape[-1])


def _lowest_scale(fan_in: int) -> int:
    """The lowest scale byte for which uniformly random codes have a standard deviation near 1/sqrt(fan in)."""
    codes = math.sqrt(float(np.mean(np.square(VALUES))))
    spread = math.sqrt(float(np.mean(4.0**_STEPS)))
    return SCALE_BIAS + round(math.log2(1 / (math.sqrt(fan_in) * codes * spread)))


@functools.lru_cache(maxsize=4)
def _normal(mean: float, std: float) -> NDArray[np.uint16]:
    """65,536 equally likely values of a normal distribution, as bf16 bits: one look-up turns raw bits into a weight."""
    bits = (mean + std * _quantiles()).astype(np.float32).view(np.uint32)
    return ((bits + ((bits >> 16) & 1) + np.uint32(0x7FFF)) >> 16).astype(np.uint16)


@functools.cache
def _quantiles() -> NDArray[np.float64]:
    law = NormalDist()
    half = np.array([law.inv_cdf((i + 0.5) / 65536) for i in range(32768, 65536)])
    return np.concatenate((-half[::-1], half))


# -- the tiny vocabulary -------------------------------------------------------------------------------------------


def byte_vocabulary(size: int) -> str:
    """A tokenizer.json of `size` ids: 256 bytes (id = byte), Harmony's control tokens, then reserved ones."""
    first = 256 + len(CONTROL)
    names = [*CONTROL, *(f"<|reserved_{i}|>" for i in range(first, size))]
    added = [{"id": 256 + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, name in enumerate(names)]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model: dict[str, object] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {c: i for i, c in enumerate(_byte_characters())}, "merges": []}  # fmt: skip
    out = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
           "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}  # fmt: skip
    return json.dumps(out, ensure_ascii=False, indent=1) + "\n"


def _byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level BPE (GPT-2): itself where printable, else from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    out, spare = [], 0x100
    for byte in range(256):
        out.append(chr(byte if byte in printable else spare))
        spare += byte not in printable
    return out

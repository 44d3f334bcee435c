"""The tensors of gpt-oss: their names in both published layouts, their shapes, and how their numbers are kept.

Knows no files. Names are OpenAI's (openai/gpt-oss `torch/model.py`); Hugging Face's are those of huggingface/transformers
`models/gpt_oss/convert_gpt_oss_weights_to_hf.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from motet.config import ModelConfig
from motet.errors import UserError
from motet.mxfp4 import BLOCK

Array = npt.NDArray[Any]

UNEMBEDDING = "unembedding.weight"
NUMPY: dict[str, Any] = {"BF16": np.uint16, "F32": np.float32, "F16": np.float16, "U8": np.uint8}
BITS = {"BOOL": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32,
         "I64": 64, "U64": 64, "F64": 64, "BF16": 16, "F16": 16, "F32": 32, "U8": 8}  # fmt: skip
PLAIN = {"BF16": "bfloat16", "F32": "float32", "F16": "float16"}
STORED = {"bfloat16": "BF16", "float32": "F32"}
_HF_TOP = {
    "embedding.weight": ("model.embed_tokens.weight",),
    "norm.scale": ("model.norm.weight",),
    UNEMBEDDING: ("lm_head.weight",),
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
    return out | {"norm.scale": (d,), UNEMBEDDING: (config.vocab_size, d)}


def is_expert_weight(name: str) -> bool:
    return name.endswith((".mlp1_weight", ".mlp2_weight"))


def parts(
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
    if is_expert_weight(name):
        shape = (shape[0], shape[2], shape[1])
    return [(theirs[0], shape)]


def absent(config: ModelConfig) -> set[str]:
    """Names a folder need not store, because the config makes them redundant."""
    out = {UNEMBEDDING} if config.tie_word_embeddings else set()
    if not config.attention_bias:
        out |= {f"block.{n}.attn.{x}.bias" for n in range(config.num_hidden_layers) for x in ("qkv", "out")}
    return out

"""What decides a gpt-oss model's shape and arithmetic: one frozen value, read from either published config.json.

Knows the 16 keys of OpenAI's `original/config.json`, the Hugging Face keys with `rope_scaling` or the newer
`rope_parameters`, which values are legal, the rotary frequencies, and how many parameters and bytes follow. Does not
know tensors, tokens or how a checkpoint is stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from motet.errors import UserError

SLIDING, FULL = "sliding_attention", "full_attention"
ARCHITECTURE, MODEL_TYPE = "GptOssForCausalLM", "gpt_oss"
HARMONY_STOPS = (200002, 199999, 200012)
"""<|return|>, <|endoftext|>, <|call|>: what generation_config.json of the published checkpoints lists."""
MXFP4_BLOCK = 32

OPENAI_KEYS = (
    "num_hidden_layers", "num_experts", "experts_per_token", "vocab_size", "hidden_size", "intermediate_size",
    "swiglu_limit", "head_dim", "num_attention_heads", "num_key_value_heads", "sliding_window",
    "initial_context_length", "rope_theta", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta",
)  # fmt: skip
"""The keys of `original/config.json`, in its order."""


class ConfigError(UserError):
    """A config.json that is not a legal gpt-oss; `key` is the key at fault, `reason` the rest of the sentence."""

    def __init__(self, key: str, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {key} {reason}" if where else f"{key} {reason}")
        self.key, self.reason = key, reason


@dataclass(frozen=True)
class Counts:
    """Parameters and bytes of a config, by the rule of the model card's Table 1.

    `active` counts the unembedding but not the embedding, and the chosen experts only. `checkpoint_bytes` is the tensor
    payload with experts in MXFP4 and the rest in bfloat16; where MXFP4 cannot store the experts (a width that is no
    multiple of 32) all of it is bfloat16.
    """

    mlp: int
    attention: int
    embedding: int
    total: int
    active: int
    mxfp4: int
    checkpoint_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A gpt-oss model. Field names are the keys of OpenAI's `original/config.json`, then what only others publish.

    `max_position_embeddings` is in tokens; 0 means initial_context_length times the scaling factor. Empty `layer_types`
    means sliding and full attention in turn, sliding first, or full everywhere when `sliding_window` is 0. A
    `rope_scaling_factor` of at most 1 switches YaRN off. Raises ConfigError for values no gpt-oss can have.
    """

    num_hidden_layers: int
    num_experts: int
    experts_per_token: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    swiglu_limit: float = 7.0
    sliding_window: int = 128
    initial_context_length: int = 4096
    rope_theta: float = 150000.0
    rope_scaling_factor: float = 32.0
    rope_ntk_alpha: float = 1.0
    rope_ntk_beta: float = 32.0
    swiglu_alpha: float = 1.702
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 0
    layer_types: tuple[str, ...] = ()
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    rope_truncate: bool = False
    rope_attention_factor: float | None = None
    eos_token_ids: tuple[int, ...] = HARMONY_STOPS
    pad_token_id: int | None = 199999

    _POSITIVE: ClassVar[tuple[str, ...]] = (
        "num_hidden_layers", "num_experts", "experts_per_token", "vocab_size", "hidden_size", "intermediate_size",
        "head_dim", "num_attention_heads", "num_key_value_heads", "initial_context_length",
    )  # fmt: skip
    _WHOLE: ClassVar[tuple[str, ...]] = (*_POSITIVE, "sliding_window", "max_position_embeddings")
    _REAL: ClassVar[tuple[str, ...]] = (
        "swiglu_limit", "swiglu_alpha", "rms_norm_eps", "rope_theta", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta",
    )  # fmt: skip

    def __post_init__(self) -> None:
        _check_numbers(self)
        _fill_in(self)
        _check_relations(self)

    # -- reading ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read the content of a config.json in either published form. Raises ConfigError naming the key at fault."""
        if not isinstance(values, Mapping):
            raise ConfigError("config.json", "must hold one JSON object with the model's keys")
        if any(key in values for key in _HF_MARKS):
            return _from_hf(values)
        return _from_openai(values)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> ModelConfig:
        """Read a config.json, or the one in a folder, with the stop tokens of a generation_config.json beside it."""
        file = Path(path)
        file = file / "config.json" if file.is_dir() else file
        values = _read_object(file)
        beside = file.parent / "generation_config.json"
        stops = _read_object(beside).get("eos_token_id") if beside.is_file() else None
        if stops is not None and isinstance(values, dict) and any(key in values for key in _HF_MARKS):
            values = {**values, "eos_token_id": [stops] if isinstance(stops, int) else stops}
        try:
            return cls.from_json(values)
        except ConfigError as error:
            raise ConfigError(error.key, error.reason, str(file)) from None

    # -- writing ---------------------------------------------------------------------------------------------------

    def to_openai(self) -> dict[str, Any]:
        """The content of `original/config.json`: its 16 keys, and any further field that is away from its default.

        OpenAI's own loader refuses further keys, which is better than computing another model from 16 of them.
        """
        plain = ModelConfig(**{key: getattr(self, key) for key in OPENAI_KEYS})
        more = [f.name for f in fields(self) if f.name not in OPENAI_KEYS]
        changed = [name for name in more if getattr(self, name) != getattr(plain, name)]
        out = {key: getattr(self, key) for key in (*OPENAI_KEYS, *changed)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in out.items()}

    def to_hf(self) -> dict[str, Any]:
        """The content of a Hugging Face config.json, keys as released; `quantization_config` is the checkpoint's to add."""
        same = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads",
                "num_key_value_heads", "sliding_window", "swiglu_limit", "swiglu_alpha", "rms_norm_eps", "rope_theta",
                "initial_context_length", "max_position_embeddings", "attention_bias", "tie_word_embeddings", "pad_token_id")  # fmt: skip
        out: dict[str, Any] = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE}
        out |= {key: getattr(self, key) for key in same}
        out |= {"num_local_experts": self.num_experts, "num_experts_per_tok": self.experts_per_token,
                "experts_per_token": self.experts_per_token, "layer_types": list(self.layer_types),
                "rope_scaling": self._rope_scaling(), "eos_token_id": list(self.eos_token_ids), "attention_dropout": 0.0,
                "hidden_act": "silu", "initializer_range": 0.02, "use_cache": True, "output_router_logits": False,
                "router_aux_loss_coef": 0.9, "torch_dtype": "bfloat16"}  # fmt: skip
        return dict(sorted(out.items()))

    def _rope_scaling(self) -> dict[str, Any]:
        if self.rope_scaling_factor <= 1 and self.rope_attention_factor is None:
            return {"rope_type": "default"}
        out = {"rope_type": "yarn", "factor": max(self.rope_scaling_factor, 1.0), "beta_fast": self.rope_ntk_beta,
               "beta_slow": self.rope_ntk_alpha, "original_max_position_embeddings": self.initial_context_length,
               "truncate": self.rope_truncate}  # fmt: skip
        if self.rope_attention_factor is not None:
            out["attention_factor"] = self.rope_attention_factor
        return out

    # -- what follows from the fields ------------------------------------------------------------------------------

    def window(self, layer: int) -> int:
        """How many keys a query of this layer sees, itself included; 0 = all."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else 0

    def rope(self) -> tuple[NDArray[np.float32], float]:
        """Inverse frequencies, float32 (D/2,), and the concentration that multiplies cos and sin of both q and k.

        YaRN (arXiv 2309.00071) as in openai/gpt-oss `torch/model.py` and transformers `_compute_yarn_parameters`: the
        correction bounds stay fractional unless `rope_truncate`. Outside the range where OpenAI's code asserts
        (0 < low < high < D/2 - 1) the bounds are clamped as transformers clamps them.
        """
        half, factor = self.head_dim // 2, self.rope_scaling_factor
        exponent = np.arange(0, self.head_dim, 2, dtype=np.float32) / np.float32(self.head_dim)
        freq = np.power(np.float32(self.rope_theta), exponent)
        given = self.rope_attention_factor
        if factor <= 1:
            return np.float32(1) / freq, 1.0 if given is None else given
        low, high = (self._rope_bound(rotations) for rotations in (self.rope_ntk_beta, self.rope_ntk_alpha))
        if self.rope_truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.head_dim - 1)
        high += 0.001 if low == high else 0.0
        ramp = (np.arange(half, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
        keep = np.float32(1) - np.clip(ramp, np.float32(0), np.float32(1))
        inv_freq = (
            np.float32(1) / (np.float32(factor) * freq) * (np.float32(1) - keep) + np.float32(1) / freq * keep
        )
        return inv_freq.astype(np.float32), 0.1 * math.log(factor) + 1.0 if given is None else given

    def _rope_bound(self, rotations: float) -> float:
        """The (fractional) dimension that turns `rotations` times within the initial context."""
        turns = self.initial_context_length / (rotations * 2 * math.pi)
        return self.head_dim * math.log(turns) / (2 * math.log(self.rope_theta))

    def counts(self) -> Counts:
        """Parameters and bytes."""
        L, E, k, d, I, V = (self.num_hidden_layers, self.num_experts, self.experts_per_token, self.hidden_size,
                            self.intermediate_size, self.vocab_size)  # fmt: skip
        H, D = self.num_attention_heads, self.head_dim
        rows = (H + 2 * self.num_key_value_heads) * D
        expert = 2 * I * d + 2 * I + d * I + d
        mlp = L * (E * expert + E * d + E + d)
        attention = L * (rows * d + d * H * D + H + d + (rows + d if self.attention_bias else 0))
        embedding = V * d if self.tie_word_embeddings else 2 * V * d
        total = mlp + attention + embedding + d
        active = L * (k * expert + E * d + E + d) + attention + V * d + d
        blocks = 3 * I * d * E * L if d % MXFP4_BLOCK == 0 and I % MXFP4_BLOCK == 0 else 0
        return Counts(
            mlp, attention, embedding, total, active, blocks, blocks * 17 // 32 + 2 * (total - blocks)
        )

    # -- presets ---------------------------------------------------------------------------------------------------

    @classmethod
    def gpt_oss_20b(cls, n_layers: int = 24) -> ModelConfig:
        """The published 20b, or its first `n_layers` layers."""
        return cls(num_hidden_layers=n_layers, num_experts=32, **_PUBLISHED)

    @classmethod
    def gpt_oss_120b(cls, n_layers: int = 36) -> ModelConfig:
        """The published 120b, or its first `n_layers` layers."""
        return cls(num_hidden_layers=n_layers, num_experts=128, **_PUBLISHED)

    @classmethod
    def mini(cls) -> ModelConfig:
        """A model for experiments on two cores: 6,285,216 parameters, 2,184,864 active."""
        return cls(num_hidden_layers=6, num_experts=8, experts_per_token=2, vocab_size=512, hidden_size=192,
                   intermediate_size=192, head_dim=32, num_attention_heads=8, num_key_value_heads=2, sliding_window=32,
                   initial_context_length=256, eos_token_ids=(258, 257, 264), pad_token_id=257)  # fmt: skip

    @classmethod
    def tiny(cls) -> ModelConfig:
        """The smallest model worth running: two layers over bytes and Harmony's control tokens, for tests and demos."""
        return cls(num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=320, hidden_size=64,
                   intermediate_size=96, head_dim=16, num_attention_heads=8, num_key_value_heads=2, sliding_window=16,
                   initial_context_length=512, rope_scaling_factor=8.0, eos_token_ids=(258, 257, 264), pad_token_id=257)  # fmt: skip


_PUBLISHED: dict[str, Any] = {
    "experts_per_token": 4, "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


# -- which values are legal ----------------------------------------------------------------------------------------


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_numbers(c: ModelConfig) -> None:
    """Types and ranges of single fields."""
    for key in c._WHOLE:
        value, least = getattr(c, key), 1 if key in c._POSITIVE else 0
        if not _is_whole(value) or value < least:
            raise ConfigError(key, f"is {value!r} but must be a whole number of at least {least}")
    for key in c._REAL:
        value = getattr(c, key)
        if not _is_real(value) or value <= 0:
            raise ConfigError(key, f"is {value!r} but must be a finite number above 0")
        object.__setattr__(c, key, float(value))
    for key in ("attention_bias", "tie_word_embeddings", "rope_truncate"):
        if not isinstance(getattr(c, key), bool):
            raise ConfigError(key, f"is {getattr(c, key)!r} but must be true or false")
    if (value := c.rope_attention_factor) is not None:
        if not _is_real(value) or value <= 0:
            raise ConfigError(
                "rope_attention_factor", f"is {value!r} but must be a finite number above 0, or null"
            )
        object.__setattr__(c, "rope_attention_factor", float(value))
    if not isinstance(c.eos_token_ids, list | tuple) or not all(
        _is_whole(i) and i >= 0 for i in c.eos_token_ids
    ):
        raise ConfigError("eos_token_ids", f"is {c.eos_token_ids!r} but must be a list of token ids")
    if c.pad_token_id is not None and (not _is_whole(c.pad_token_id) or c.pad_token_id < -1):
        raise ConfigError("pad_token_id", f"is {c.pad_token_id!r} but must be a token id or null")


def _fill_in(c: ModelConfig) -> None:
    """Defaults that depend on other fields, and tuples where JSON gave lists."""
    if not isinstance(c.layer_types, list | tuple):
        raise ConfigError("layer_types", f"is {c.layer_types!r} but must be a list with one name per layer")
    kinds = (SLIDING, FULL) if c.sliding_window else (FULL, FULL)
    types = tuple(c.layer_types) or tuple(kinds[i % 2] for i in range(c.num_hidden_layers))
    object.__setattr__(c, "layer_types", types)
    object.__setattr__(c, "eos_token_ids", tuple(c.eos_token_ids))
    if c.max_position_embeddings == 0:
        longest = int(c.initial_context_length * max(c.rope_scaling_factor, 1.0))
        object.__setattr__(c, "max_position_embeddings", longest)


def _check_relations(c: ModelConfig) -> None:
    """Fields that must agree with each other."""
    if c.experts_per_token > c.num_experts:
        raise ConfigError(
            "experts_per_token", f"is {c.experts_per_token} but there are only {c.num_experts} experts"
        )
    if c.num_attention_heads % c.num_key_value_heads:
        raise ConfigError("num_attention_heads", f"is {c.num_attention_heads} but must be a multiple of the "
                          f"{c.num_key_value_heads} key-value heads")  # fmt: skip
    if c.head_dim % 2:
        raise ConfigError("head_dim", f"is {c.head_dim} but must be even, because rotary angles turn pairs")
    if len(c.layer_types) != c.num_hidden_layers:
        raise ConfigError(
            "layer_types", f"names {len(c.layer_types)} layers but num_hidden_layers is {c.num_hidden_layers}"
        )
    for kind in c.layer_types:
        if kind not in (SLIDING, FULL):
            raise ConfigError("layer_types", f"holds {kind!r} but knows only {SLIDING!r} and {FULL!r}")
    if SLIDING in c.layer_types and c.sliding_window == 0:
        raise ConfigError(
            "sliding_window", "is 0 although layer_types has sliding layers; give a window of at least 1"
        )
    if c.rope_theta <= 1:
        raise ConfigError("rope_theta", f"is {c.rope_theta} but must be above 1")
    if c.rope_ntk_beta < c.rope_ntk_alpha:
        raise ConfigError(
            "rope_ntk_beta", f"is {c.rope_ntk_beta} but must not be below rope_ntk_alpha, {c.rope_ntk_alpha}"
        )


# -- the published forms -------------------------------------------------------------------------------------------

_HF_MARKS = (
    "model_type",
    "architectures",
    "num_local_experts",
    "num_experts_per_tok",
    "rope_scaling",
    "rope_parameters",
)
_HF_NAMES = {"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok",
             "rope_scaling_factor": "factor", "rope_ntk_beta": "beta_fast", "rope_ntk_alpha": "beta_slow",
             "rope_truncate": "truncate", "rope_attention_factor": "attention_factor", "eos_token_ids": "eos_token_id"}  # fmt: skip
_IN_ROPE = {"factor", "beta_fast", "beta_slow", "truncate", "attention_factor"}
_ROPE_KEYS = _IN_ROPE | {"rope_type", "type", "rope_theta", "original_max_position_embeddings", "mscale",
                         "mscale_all_dim", "partial_rotary_factor"}  # fmt: skip
_REQUIRED = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
             "num_key_value_heads")  # fmt: skip
_OPTIONAL = ("head_dim", "sliding_window", "swiglu_limit", "swiglu_alpha", "rms_norm_eps", "attention_bias",
             "tie_word_embeddings", "layer_types", "pad_token_id")  # fmt: skip
# Read elsewhere, or without influence on what the model computes: training, text generation and file bookkeeping.
_HARMLESS = frozenset((
    "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "router_aux_loss_coef",
    "output_router_logits", "attention_dropout", "bos_token_id", "sep_token_id", "decoder_start_token_id",
    "output_hidden_states", "output_attentions", "return_dict", "return_dict_in_generate",
    "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "add_cross_attention",
    "cross_attention_hidden_size", "tie_encoder_decoder", "id2label", "label2id", "problem_type", "num_labels",
    "finetuning_task", "task_specific_params", "pruned_heads", "torchscript", "use_bfloat16", "tf_legacy_loss",
    "tokenizer_class", "prefix", "name_or_path", "auto_map", "max_length", "min_length", "do_sample",
    "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "num_return_sequences", "output_scores", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "generation_config", "attn_implementation", "experts_implementation", "model_name", "unsloth_fixed",
    "unsloth_version", "license", "language", "tags",
))  # fmt: skip
_HF_KNOWN = _HARMLESS | {*_REQUIRED, *_OPTIONAL, "architectures", "model_type", "num_local_experts", "num_experts",
                         "num_experts_per_tok", "experts_per_token", "rope_theta", "rope_scaling", "rope_parameters",
                         "initial_context_length", "max_position_embeddings", "eos_token_id", "hidden_act",
                         "quantization_config"}  # fmt: skip


def _read_object(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            file.name, "is missing; give a checkpoint folder that has one", str(file.parent)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file.name, f"cannot be read ({error})", str(file.parent)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(file.name, f"is not JSON ({error}); download it again", str(file.parent)) from None


def _from_openai(values: Mapping[str, Any]) -> ModelConfig:
    known = {f.name for f in fields(ModelConfig)}
    for key in values:
        if key not in known:
            raise ConfigError(key, "is not a key of a gpt-oss config.json")
    for key in OPENAI_KEYS:
        if key not in values:
            raise ConfigError(key, "is missing from config.json")
    return ModelConfig(**values)


def _from_hf(values: Mapping[str, Any]) -> ModelConfig:
    _check_identity(values)
    for key in values:
        if key not in _HF_KNOWN and not key.startswith("_"):
            raise ConfigError(
                key, "is not a key of a gpt-oss config.json, so its effect on the model is unknown"
            )
    out = {key: _need(values, key) for key in _REQUIRED}
    out |= {key: values[key] for key in _OPTIONAL if values.get(key) is not None}
    out["pad_token_id"] = values.get("pad_token_id")
    out["num_experts"] = _agreed(values, "num_local_experts", "num_experts")
    out["experts_per_token"] = _agreed(values, "num_experts_per_tok", "experts_per_token")
    out["eos_token_ids"] = _stops(values)
    if "head_dim" not in out:
        # A missing key takes the class default of transformers, an explicit null the usual quotient.
        out["head_dim"] = 64
        if "head_dim" in values and _is_whole(out["hidden_size"]) and _is_whole(out["num_attention_heads"]):
            out["head_dim"] = out["hidden_size"] // max(out["num_attention_heads"], 1)
    if "sliding_window" in values and values["sliding_window"] is None:
        out["sliding_window"] = 0
        if SLIDING in (out.get("layer_types") or [SLIDING]):
            raise ConfigError(
                "sliding_window", "is null although the model has sliding layers; give a window of at least 1"
            )
    elif out.get("sliding_window") == 0 and "layer_types" not in out:
        raise ConfigError(
            "sliding_window", "is 0 although the model has sliding layers; give a window of at least 1"
        )
    out["max_position_embeddings"] = values.get("max_position_embeddings", 131072)
    if not _is_whole(out["max_position_embeddings"]) or out["max_position_embeddings"] < 1:
        raise ConfigError(
            "max_position_embeddings", f"is {out['max_position_embeddings']!r} but must be at least 1"
        )
    block, rope = _rope_values(values, out["max_position_embeddings"])
    try:
        return ModelConfig(**out, **rope)
    except ConfigError as error:
        key = _HF_NAMES.get(error.key, error.key)
        raise ConfigError(f"{block}.{key}" if key in _IN_ROPE else key, error.reason) from None


def _check_identity(values: Mapping[str, Any]) -> None:
    names, kind = values.get("architectures"), values.get("model_type")
    if kind is not None and kind != MODEL_TYPE:
        raise ConfigError("model_type", f"is {kind!r} but motet runs {MODEL_TYPE!r} only")
    if names is not None and (not isinstance(names, list) or ARCHITECTURE not in names):
        shown = names[0] if isinstance(names, list) and len(names) == 1 else names
        raise ConfigError("architectures", f"names {shown!r} but motet runs {ARCHITECTURE!r} only")
    if kind is None and names is None:
        raise ConfigError("model_type", f"is missing; a gpt-oss config.json says {MODEL_TYPE!r}")
    if values.get("hidden_act") not in (None, "silu"):
        raise ConfigError(
            "hidden_act", f"is {values['hidden_act']!r} but gpt-oss has 'silu' (its clamped SwiGLU)"
        )
    stored = values.get("quantization_config")
    if stored is not None and (not isinstance(stored, Mapping) or stored.get("quant_method") != "mxfp4"):
        method = stored.get("quant_method") if isinstance(stored, Mapping) else stored
        raise ConfigError(
            "quantization_config.quant_method", f"is {method!r} but motet reads 'mxfp4' or plain weights"
        )


def _need(values: Mapping[str, Any], key: str) -> Any:
    if values.get(key) is None:
        if key == "num_key_value_heads" and key in values:
            return _need(values, "num_attention_heads")
        raise ConfigError(key, "is missing from config.json")
    return values[key]


def _agreed(values: Mapping[str, Any], key: str, other: str) -> Any:
    """The value of a key with two spellings, which must not contradict each other."""
    found = [values[name] for name in (key, other) if values.get(name) is not None]
    if not found:
        raise ConfigError(key, "is missing from config.json")
    if found[0] != found[-1]:
        raise ConfigError(key, f"is {found[0]!r} but {other} is {found[1]!r}; they must be equal")
    return found[0]


def _stops(values: Mapping[str, Any]) -> Any:
    """Stop tokens. The released file names only <|return|>; the other two stand in its generation_config.json."""
    stops = values.get("eos_token_id")
    if stops is None:
        return HARMONY_STOPS if values.get("vocab_size") == _PUBLISHED["vocab_size"] else ()
    if _is_whole(stops):
        return HARMONY_STOPS if stops == HARMONY_STOPS[0] else (stops,)
    return stops


def _rope_values(values: Mapping[str, Any], longest: int) -> tuple[str, dict[str, Any]]:
    """The name of the block that decides, and our fields from it. Missing blocks take the class default of transformers."""
    blocks = {
        key: _rope_block(values, key, longest) for key in ("rope_parameters", "rope_scaling") if key in values
    }
    given = {key: block for key, block in blocks.items() if block is not None}
    if len(given) == 2 and given["rope_parameters"] != given["rope_scaling"]:
        raise ConfigError("rope_parameters", "and rope_scaling contradict each other; keep one of them")
    if given:
        return next(iter(given.items()))
    # transformers fills a missing block with YaRN; a config that says rope_scaling: null says that there is none.
    kind = "default" if "rope_scaling" in values else "yarn"
    block = {"rope_type": kind, "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
    if kind == "default":
        block = {"rope_type": kind}
    return "rope_scaling", _rope_fields(values, "rope_scaling", block, longest)


def _rope_block(values: Mapping[str, Any], name: str, longest: int) -> dict[str, Any] | None:
    block = values[name]
    if block is None:
        return None
    if not isinstance(block, Mapping):
        raise ConfigError(name, f"is {block!r} but must be an object with a rope_type")
    for key in block:
        if key not in _ROPE_KEYS:
            raise ConfigError(
                f"{name}.{key}", "is not a key motet knows, so its effect on the model is unknown"
            )
    return _rope_fields(values, name, block, longest)


def _rope_fields(
    values: Mapping[str, Any], name: str, block: Mapping[str, Any], longest: int
) -> dict[str, Any]:
    kind = _agreed(
        {"rope_type": "default", **block} if not {"rope_type", "type"} & block.keys() else block,
        "rope_type",
        "type",
    )
    if kind not in ("yarn", "default"):
        raise ConfigError(f"{name}.rope_type", f"is {kind!r} but gpt-oss has 'yarn' or 'default'")
    theta, outer = block.get("rope_theta"), values.get("rope_theta")
    if theta is not None and outer is not None and theta != outer:
        raise ConfigError(
            "rope_theta", f"is {outer!r} but {name}.rope_theta is {theta!r}; they must be equal"
        )
    if block.get("partial_rotary_factor", 1) not in (None, 1):
        raise ConfigError(
            f"{name}.partial_rotary_factor",
            f"is {block['partial_rotary_factor']!r} but gpt-oss turns all dimensions",
        )
    first, outer_first = block.get("original_max_position_embeddings"), values.get("initial_context_length")
    if first is not None and outer_first is not None and first != outer_first:
        raise ConfigError("initial_context_length", f"is {outer_first!r} but {name}.original_max_position_embeddings is {first!r}; "
                          "they must be equal")  # fmt: skip
    context = next(x for x in (first, outer_first, longest) if x is not None)
    theta = next(x for x in (theta, outer, 150000.0) if x is not None)
    out: dict[str, Any] = {"rope_theta": theta, "initial_context_length": context, "rope_scaling_factor": 1.0}
    factor: Any = block.get("factor")
    if kind == "default":
        if factor not in (None, 1):
            raise ConfigError(
                f"{name}.factor",
                f"is {factor!r} but rope_type 'default' does not scale; say 'yarn' or drop it",
            )
        return out
    out["rope_scaling_factor"] = factor = (
        longest / context if factor is None and _is_whole(context) and context else factor
    )
    if not _is_real(factor) or factor < 1:
        raise ConfigError(f"{name}.factor", f"is {factor!r} but must be a number of at least 1")
    for key, field, default in (("beta_fast", "rope_ntk_beta", 32.0), ("beta_slow", "rope_ntk_alpha", 1.0)):
        out[field] = block.get(key) or default
    out["rope_truncate"] = block.get("truncate", True)
    out["rope_attention_factor"] = _attention_factor(name, block, float(factor))
    return out


def _attention_factor(name: str, block: Mapping[str, Any], factor: float) -> float | None:
    """An explicit concentration, or the one that DeepSeek's `mscale` pair implies; None = the usual rule."""
    given, top, bottom = (block.get(key) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    for key, value in (("mscale", top), ("mscale_all_dim", bottom)):
        if value is not None and not _is_real(value):
            raise ConfigError(f"{name}.{key}", f"is {value!r} but must be a number")
    if given is not None or not top or not bottom or factor <= 1:
        return given
    growth = 0.1 * math.log(factor)
    return (growth * float(top) + 1.0) / (growth * float(bottom) + 1.0)

"""motet.config: both published forms, what is refused and under which key, rotary frequencies, counts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.config import FULL, HARMONY_STOPS, OPENAI_KEYS, SLIDING, ConfigError, ModelConfig
from motet.errors import UserError

# The files as OpenAI released them for the 20b (reference: huggingface.co/openai/gpt-oss-20b).
OPENAI_20B: dict[str, Any] = {
    "num_hidden_layers": 24, "num_experts": 32, "experts_per_token": 4, "vocab_size": 201088, "hidden_size": 2880,
    "intermediate_size": 2880, "swiglu_limit": 7.0, "head_dim": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "sliding_window": 128, "initial_context_length": 4096, "rope_theta": 150000,
    "rope_scaling_factor": 32.0, "rope_ntk_alpha": 1, "rope_ntk_beta": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 4096, "truncate": False}  # fmt: skip
HF_20B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0, "eos_token_id": 200002,
    "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
    "initializer_range": 0.02, "intermediate_size": 2880, "layer_types": [SLIDING, FULL] * 12,
    "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False,
    "pad_token_id": 199999, "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05, "rope_scaling": YARN, "rope_theta": 150000, "router_aux_loss_coef": 0.9,
    "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0",
    "use_cache": True, "vocab_size": 201088,
}  # fmt: skip


def hf(**changes: Any) -> dict[str, Any]:
    """The released file with changes; a value of `...` removes the key."""
    return {key: value for key, value in {**HF_20B, **changes}.items() if value is not ...}


def newer(**changes: Any) -> dict[str, Any]:
    """The spelling of transformers 5, with changes inside rope_parameters."""
    rope = {
        key: value for key, value in {**YARN, "rope_theta": 150000.0, **changes}.items() if value is not ...
    }
    return hf(
        rope_scaling=..., rope_theta=..., initial_context_length=..., rope_parameters=rope, swiglu_alpha=1.702
    )


# -- both forms ----------------------------------------------------------------------------------------------------


def test_the_published_forms_mean_the_preset() -> None:
    preset = ModelConfig.gpt_oss_20b()
    assert ModelConfig.from_json(OPENAI_20B) == preset
    assert ModelConfig.from_json(HF_20B) == preset
    assert ModelConfig.from_json(newer()) == preset
    assert (
        ModelConfig.from_json({**OPENAI_20B, "num_hidden_layers": 36, "num_experts": 128})
        == ModelConfig.gpt_oss_120b()
    )


def test_openai_form_of_a_published_model_has_exactly_its_16_keys() -> None:
    assert ModelConfig.gpt_oss_20b().to_openai() == OPENAI_20B
    assert list(ModelConfig.gpt_oss_120b().to_openai()) == list(OPENAI_KEYS)


@pytest.mark.parametrize("key", [
    "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "router_aux_loss_coef",
    "output_router_logits", "attention_dropout", "bos_token_id", "_name_or_path", "id2label", "chunk_size_feed_forward",
])  # fmt: skip
def test_bookkeeping_changes_nothing(key: str) -> None:
    assert ModelConfig.from_json(hf(**{key: None})) == ModelConfig.gpt_oss_20b()


@pytest.mark.parametrize("value", [None, ...])
def test_layer_types_alternate_unless_given(value: Any) -> None:
    assert ModelConfig.from_json(hf(layer_types=value)).layer_types == (SLIDING, FULL) * 12


def test_alias_of_the_number_of_experts() -> None:
    assert ModelConfig.from_json(hf(num_local_experts=..., num_experts=32)) == ModelConfig.gpt_oss_20b()


def test_stop_tokens() -> None:
    assert ModelConfig.from_json(HF_20B).eos_token_ids == HARMONY_STOPS
    assert ModelConfig.from_json(hf(eos_token_id=None)).eos_token_ids == HARMONY_STOPS
    assert ModelConfig.from_json(hf(eos_token_id=[5, 6])).eos_token_ids == (5, 6)
    assert ModelConfig.from_json(hf(eos_token_id=7)).eos_token_ids == (7,)
    assert ModelConfig.from_json(hf(eos_token_id=None, vocab_size=100)).eos_token_ids == ()


def test_from_file_reads_folder_and_generation_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(hf(eos_token_id=3)))
    assert ModelConfig.from_file(tmp_path).eos_token_ids == (3,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert ModelConfig.from_file(tmp_path).eos_token_ids == (3, 4)
    assert ModelConfig.from_file(tmp_path / "config.json").eos_token_ids == (3, 4)


def test_transformers_reads_and_writes_the_same_model(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = replace(
        ModelConfig.mini(),
        rope_truncate=True,
        rope_attention_factor=1.25,
        swiglu_alpha=1.5,
        rms_norm_eps=1e-6,
    )
    (tmp_path / "config.json").write_text(json.dumps(ours.to_hf()))
    theirs = transformers.GptOssConfig.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    assert ModelConfig.from_file(tmp_path) == ours


# -- every legal value ---------------------------------------------------------------------------------------------


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    layers, kv, experts = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 40))
    kinds = draw(st.lists(st.sampled_from([SLIDING, FULL]), min_size=layers, max_size=layers))
    factor = draw(st.floats(1.0, 64.0))
    return ModelConfig(
        num_hidden_layers=layers, num_experts=experts, experts_per_token=draw(st.integers(1, experts)),
        vocab_size=draw(st.integers(1, 999)), hidden_size=draw(st.integers(1, 99)),
        intermediate_size=draw(st.integers(1, 99)), head_dim=2 * draw(st.integers(1, 64)),
        num_attention_heads=kv * draw(st.integers(1, 9)), num_key_value_heads=kv,
        sliding_window=draw(st.integers(1, 5000)), layer_types=tuple(kinds),
        initial_context_length=draw(st.integers(1, 9999)), max_position_embeddings=draw(st.integers(1, 99999)),
        rope_theta=draw(st.floats(1.5, 1e7)), rope_scaling_factor=factor,
        rope_attention_factor=draw(st.none() | st.floats(0.1, 4)) if factor > 1 else None,
        rope_truncate=draw(st.booleans()) if factor > 1 else False,
        tie_word_embeddings=draw(st.booleans()), attention_bias=draw(st.booleans()),
        swiglu_limit=draw(st.floats(0.1, 99)), swiglu_alpha=draw(st.floats(0.1, 9)),
        eos_token_ids=tuple(draw(st.lists(st.integers(0, 99), max_size=3))), pad_token_id=draw(st.none() | st.integers(0, 9)),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(configs())
def test_every_legal_config_survives_both_forms(config: ModelConfig) -> None:
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_openai()))) == config
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_hf()))) == config
    inv_freq, concentration = config.rope()
    assert inv_freq.shape == (config.head_dim // 2,) and inv_freq.dtype == np.float32
    assert np.isfinite(inv_freq).all() and (inv_freq > 0).all() and concentration > 0


def test_a_window_of_zero_means_full_attention_everywhere() -> None:
    config = ModelConfig.from_json({**OPENAI_20B, "sliding_window": 0})
    assert {config.window(i) for i in range(24)} == {0}
    assert ModelConfig.from_json(hf(sliding_window=None, layer_types=[FULL] * 24)).window(0) == 0


def test_window_per_layer() -> None:
    assert [ModelConfig.gpt_oss_20b().window(i) for i in range(4)] == [128, 0, 128, 0]


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "key"), [
    (hf(model_type="llama"), "model_type"),
    (hf(architectures=["LlamaForCausalLM"]), "architectures"),
    (hf(architectures=["GptOssForSequenceClassification"]), "architectures"),
    (hf(architectures=..., model_type=...), "model_type"),
    (hf(num_experts_per_tok=2), "num_experts_per_tok"),
    (hf(num_experts=16), "num_local_experts"),
    (hf(num_local_experts=...), "num_local_experts"),
    (hf(num_local_experts=2), "num_experts_per_tok"),
    (hf(num_local_experts=0), "num_local_experts"),
    (hf(num_local_experts=True), "num_local_experts"),
    (hf(hidden_size="2880"), "hidden_size"),
    (hf(hidden_size=2880.5), "hidden_size"),
    (hf(vocab_size=...), "vocab_size"),
    (hf(head_dim=63), "head_dim"),
    (hf(num_key_value_heads=7), "num_attention_heads"),
    (hf(sliding_window=0), "sliding_window"),
    (hf(sliding_window=None), "sliding_window"),
    (hf(sliding_window=-1), "sliding_window"),
    (hf(layer_types=[SLIDING] * 23), "layer_types"),
    (hf(layer_types=["chunked_attention"] * 24), "layer_types"),
    (hf(layer_types=SLIDING), "layer_types"),
    (hf(hidden_act="gelu"), "hidden_act"),
    (hf(rms_norm_eps=0), "rms_norm_eps"),
    (hf(swiglu_limit=-7), "swiglu_limit"),
    (hf(swiglu_limit=float("nan")), "swiglu_limit"),
    (hf(attention_bias="yes"), "attention_bias"),
    (hf(eos_token_id="end"), "eos_token_id"),
    (hf(pad_token_id="pad"), "pad_token_id"),
    (hf(max_position_embeddings=0), "max_position_embeddings"),
    (hf(final_logit_softcapping=30.0), "final_logit_softcapping"),
    (hf(quantization_config={"quant_method": "bitsandbytes"}), "quantization_config.quant_method"),
    (hf(rope_theta=0.5), "rope_theta"),
    (hf(rope_scaling="yarn"), "rope_scaling"),
    (hf(rope_scaling={**YARN, "rope_type": "llama3"}), "rope_scaling.rope_type"),
    (hf(rope_scaling={**YARN, "type": "linear"}), "rope_type"),
    (hf(rope_scaling={**YARN, "factor": 0.5}), "rope_scaling.factor"),
    (hf(rope_scaling={**YARN, "factor": "32"}), "rope_scaling.factor"),
    (hf(rope_scaling={**YARN, "truncate": 1}), "rope_scaling.truncate"),
    (hf(rope_scaling={**YARN, "beta_fast": 0.5}), "rope_scaling.beta_fast"),
    (hf(rope_scaling={**YARN, "attention_factor": -1}), "rope_scaling.attention_factor"),
    (hf(rope_scaling={**YARN, "long_factor": [1]}), "rope_scaling.long_factor"),
    (hf(rope_scaling={"rope_type": "default", "factor": 2.0}), "rope_scaling.factor"),
    (hf(initial_context_length=2048), "initial_context_length"),
    (hf(rope_parameters={**YARN, "factor": 16.0}), "rope_parameters"),
    ({**newer(), "rope_theta": 10000.0}, "rope_theta"),
    (newer(partial_rotary_factor=0.5), "rope_parameters.partial_rotary_factor"),
    ({**OPENAI_20B, "num_local": 1}, "num_local"),
    ({**OPENAI_20B, "num_experts": None}, "num_experts"),
    ({**OPENAI_20B, "rope_theta": "big"}, "rope_theta"),
    ({**OPENAI_20B, "experts_per_token": 33}, "experts_per_token"),
    ({k: v for k, v in OPENAI_20B.items() if k != "head_dim"}, "head_dim"),
    ({}, "num_hidden_layers"),
    ([], "config.json"),
])  # fmt: skip
def test_illegal_values_name_the_key(values: Any, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_json(values)
    message = str(caught.value)
    assert caught.value.key == key and message.startswith(key)
    assert "\n" not in message and isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("text", "word"),
    [(None, "missing"), ("{", "not JSON"), ('{"model_type": "bert"}', "'bert'"), ("\x00", "JSON")],
)
def test_an_unusable_file_is_named(tmp_path: Path, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=word) as caught:
        ModelConfig.from_file(tmp_path)
    assert str(tmp_path) in str(caught.value) and "config.json" in str(caught.value)


def test_layers_and_types_must_agree_after_a_change() -> None:
    with pytest.raises(ConfigError, match="layer_types names 24 layers"):
        replace(ModelConfig.gpt_oss_20b(), num_hidden_layers=2)


# -- rotary frequencies --------------------------------------------------------------------------------------------


def test_yarn_of_the_published_models() -> None:
    config = ModelConfig.gpt_oss_20b()
    inv_freq, concentration = config.rope()
    low = 32 * math.log(4096 / (32 * 2 * math.pi)) / math.log(150000)
    high = 32 * math.log(4096 / (2 * math.pi)) / math.log(150000)
    assert (round(low, 4), round(high, 4)) == (8.0928, 17.3980)
    for i in range(32):
        freq = 150000 ** (2 * i / 64)
        mask = 1 - min(max((i - low) / (high - low), 0), 1)
        assert inv_freq[i] == pytest.approx(1 / (32 * freq) * (1 - mask) + 1 / freq * mask, rel=2e-6)
    assert concentration == pytest.approx(1.346574, abs=5e-7)
    rounded, _ = replace(config, rope_truncate=True).rope()
    assert np.abs(rounded / inv_freq - 1).max() > 0.01


def test_no_scaling_is_plain_rope() -> None:
    for values in (
        hf(rope_scaling={"rope_type": "default"}),
        hf(rope_scaling=None),
        {**OPENAI_20B, "rope_scaling_factor": 1.0},
    ):
        inv_freq, concentration = ModelConfig.from_json(values).rope()
        assert concentration == 1.0
        assert inv_freq == pytest.approx(150000.0 ** (-np.arange(32) / 32), rel=1e-6)


@pytest.mark.parametrize("changes", [
    {}, {"truncate": True}, {"truncate": ...}, {"factor": 4.0}, {"factor": 1.0}, {"attention_factor": 1.5},
    {"mscale": 1.0, "mscale_all_dim": 0.5}, {"mscale": 1.0}, {"beta_fast": 8.0, "beta_slow": 2.0}, {"beta_fast": ...},
    {"original_max_position_embeddings": 64}, {"original_max_position_embeddings": 5},
    {"original_max_position_embeddings": 10**7}, {"rope_theta": 500.0}, {"beta_fast": 1.0}, {"rope_theta": ...},
    {"rope_type": "default", "factor": ...},
])  # fmt: skip
def test_frequencies_equal_those_of_transformers(changes: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

    values = newer(**changes)
    theirs = GptOssRotaryEmbedding(transformers.GptOssConfig(**values))
    inv_freq, concentration = ModelConfig.from_json(values).rope()
    assert concentration == pytest.approx(theirs.attention_scaling, rel=1e-12)
    # Both compute in float32; pow may differ in its last bit, and the two YaRN products add one rounding each.
    np.testing.assert_allclose(inv_freq, theirs.inv_freq.numpy(), rtol=4 * 2.0**-23)


# -- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "expected"), [
    (ModelConfig.gpt_oss_120b(), (114_714_978_048, 955_908_864, 1_158_266_880, 116_829_156_672, 5_132_849_472, 114_661_785_600, 65_248_815_744)),
    (ModelConfig.gpt_oss_20b(), (19_119_214_848, 637_272_576, 1_158_266_880, 20_914_757_184, 3_608_307_264, 19_110_297_600, 13_761_264_768)),
])  # fmt: skip
def test_counts_of_the_published_models(config: ModelConfig, expected: tuple[int, ...]) -> None:
    c = config.counts()
    assert (c.mlp, c.attention, c.embedding, c.total, c.active, c.mxfp4, c.checkpoint_bytes) == expected


@pytest.mark.parametrize(("shape", "total", "active"), [
    ((4, 128, 8, 2, 16, 8, 2, 128, 512), 1_886_656, 632_256),
    ((6, 192, 8, 2, 32, 8, 2, 192, 512), 6_285_216, 2_184_864),
    ((4, 256, 8, 2, 32, 16, 4, 128, 1024), 7_525_216, 2_519_904),
    ((8, 256, 8, 2, 32, 16, 4, 256, 1024), 27_141_568, 7_931_328),
])  # fmt: skip
def test_counts_of_small_models(shape: tuple[int, ...], total: int, active: int) -> None:
    L, d, H, K, D, E, k, I, V = shape
    c = ModelConfig(num_hidden_layers=L, hidden_size=d, num_attention_heads=H, num_key_value_heads=K, head_dim=D,
                    num_experts=E, experts_per_token=k, intermediate_size=I, vocab_size=V, initial_context_length=256).counts()  # fmt: skip
    assert (c.total, c.active) == (total, active)


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True}, {"hidden_size": 33, "intermediate_size": 17}]
)
def test_counts_equal_the_parameters_of_the_reference(changes: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    from motet.reference import Reference

    config = replace(ModelConfig.tiny(), **changes)
    c, parameters = config.counts(), sum(p.numel() for p in Reference(config).parameters())
    assert c.total == parameters == c.mlp + c.attention + c.embedding + config.hidden_size
    if config.hidden_size == 33:
        assert c.mxfp4 == 0 and c.checkpoint_bytes == 2 * parameters

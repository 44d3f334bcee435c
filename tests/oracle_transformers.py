"""Compares motet.reference with transformers' GptOssForCausalLM on random weights; `make oracle` prints the table.

Run as `python -m tests.oracle_transformers [--json]`. Weights are random but not tame: norms, biases, sinks and router
are all drawn away from their neutral values, so that an ingredient left out or misplaced shows.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from motet.config import ModelConfig
from motet.reference import Reference, Routing

EPS32, EPS16 = 2.0**-23, 2.0**-8


@dataclass(frozen=True)
class Case:
    """A configuration, how many tokens, and how wild the weights are (`bias` and `sink` are standard deviations)."""

    name: str
    config: ModelConfig
    tokens: int
    bias: float = 0.5
    sink: float = 1.0
    batch: int = 1


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference of logits in float32, the tolerance derived for it, and what the case exercised."""

    name: str
    largest: float
    tolerance: float
    logit: float  # largest |logit|
    clamped: float  # share of gate and up values outside the limits


@dataclass(frozen=True)
class HalfPrecision:
    """Root mean square distance to the float32 logits of the same bf16 weights: ours and theirs, relative to theirs."""

    name: str
    ours: float
    theirs: float
    rms_logit: float


def small(**changes: Any) -> ModelConfig:
    """A small config in the published proportions (real YaRN factors, window 128), with `changes`."""
    values: dict[str, Any] = dict(
        num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=97, hidden_size=64, intermediate_size=96,
        swiglu_limit=7.0, head_dim=64, num_attention_heads=4, num_key_value_heads=2, sliding_window=128,
        initial_context_length=4096, rope_theta=150000.0, rope_scaling_factor=32.0, rope_ntk_alpha=1.0,
        rope_ntk_beta=32.0, max_position_embeddings=131072,
    )  # fmt: skip
    values |= changes
    kinds = ("sliding_attention", "full_attention")
    values.setdefault("layer_types", tuple(kinds[i % 2] for i in range(values["num_hidden_layers"])))
    return ModelConfig(**values)


def cases() -> list[Case]:
    """Every architectural corner, once."""
    tiny = dict(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1)
    unscaled = dict(rope_scaling_factor=1.0, max_position_embeddings=4096)
    return [
        Case("window 128, 127 tokens", small(), 127),
        Case("window 128, 128 tokens", small(), 128),
        Case("window 128, 129 tokens", small(), 129),
        Case("window 128, 300 tokens, batch 3", small(num_hidden_layers=4), 300, batch=3),
        Case("window 1", small(sliding_window=1), 40),
        Case("window longer than text", small(sliding_window=512), 70),
        Case("YaRN beyond 4096 positions", small(**tiny), 4224),
        Case("YaRN with bounds rounded", small(rope_truncate=True), 150),
        Case("no rope scaling", small(**unscaled), 150),
        Case("head_dim 16, short context", small(head_dim=16, initial_context_length=256, max_position_embeddings=8192), 400),
        Case("top 1 of 4", small(experts_per_token=1), 60),
        Case("all 4 of 4", small(experts_per_token=4), 60),
        Case("top 4 of 32, 6 layers", small(num_experts=32, experts_per_token=4, num_hidden_layers=6), 60),
        Case("multi-head attention", small(num_key_value_heads=4), 60),
        Case("one kv head for 8", small(num_attention_heads=8, num_key_value_heads=1), 60),
        Case("clamps bite", small(), 60, bias=20.0),
        Case("limit 1, alpha 1", small(swiglu_limit=1.0, swiglu_alpha=1.0), 60, bias=2.0),
        Case("large sinks", small(), 60, sink=30.0),
        Case("full attention only", small(layer_types=("full_attention",) * 2), 200),
        Case("sliding attention only", small(layer_types=("sliding_attention",) * 2, sliding_window=8), 200),
        Case("rms eps 0.1, one token", small(rms_norm_eps=0.1), 1),
        Case("tied embeddings", small(tie_word_embeddings=True), 60),
    ]  # fmt: skip


def random_model(case: Case, seed: int = 0, dtype: torch.dtype = torch.float32) -> Reference:
    """Our model with wild weights that are exactly representable in bfloat16."""
    g = torch.Generator().manual_seed(seed)
    model = Reference(case.config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if name.endswith("sinks"):
                value = case.sink * noise
            elif name.endswith("bias"):
                value = case.bias * noise
            elif name.endswith("scale"):
                value = 1 + 0.3 * noise
            else:
                value = (
                    1.5 * noise * (1.0 if "embedding" in name and "un" not in name else p.shape[-1] ** -0.5)
                )
            p.copy_(value.bfloat16().float())
    return model.to(dtype).eval()


def random_ids(case: Case, seed: int = 0) -> torch.Tensor:
    """(batch, tokens) ids."""
    g = torch.Generator().manual_seed(seed + 1)
    return torch.randint(0, case.config.vocab_size, (case.batch, case.tokens), generator=g)


def peer(model: Reference, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """transformers' model with the same weights, eager attention."""
    from transformers import GptOssConfig, GptOssForCausalLM

    c = model.config
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": c.rope_theta}
    if c.rope_scaling_factor > 1:
        rope = {"rope_type": "yarn", "rope_theta": c.rope_theta, "factor": c.rope_scaling_factor,
                "beta_fast": c.rope_ntk_beta, "beta_slow": c.rope_ntk_alpha, "truncate": c.rope_truncate,
                "original_max_position_embeddings": c.initial_context_length}  # fmt: skip
    same = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads",
            "num_key_value_heads", "sliding_window", "swiglu_limit", "swiglu_alpha", "rms_norm_eps", "attention_bias",
            "max_position_embeddings", "tie_word_embeddings")  # fmt: skip
    config = GptOssConfig(**{k: getattr(c, k) for k in same}, num_local_experts=c.num_experts, rope_parameters=rope,
                          num_experts_per_tok=c.experts_per_token, layer_types=list(c.layer_types))  # fmt: skip
    config._attn_implementation = "eager"
    other = GptOssForCausalLM(config)
    other.set_experts_implementation("eager")
    missing = other.load_state_dict(_their_names(model), strict=True)
    assert not missing.missing_keys and not missing.unexpected_keys
    return other.to(dtype).eval()


def _their_names(model: Reference) -> dict[str, torch.Tensor]:
    c, ours = model.config, {k: v.float() for k, v in model.state_dict().items()}
    widths = [n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
    out = {"model.embed_tokens.weight": ours["embedding.weight"], "model.norm.weight": ours["norm.scale"],
           "lm_head.weight": ours["unembedding.weight"]}  # fmt: skip
    for n in range(c.num_hidden_layers):
        b, t = f"block.{n}", f"model.layers.{n}"
        out[f"{t}.input_layernorm.weight"] = ours[f"{b}.attn.norm.scale"]
        out[f"{t}.post_attention_layernorm.weight"] = ours[f"{b}.mlp.norm.scale"]
        out[f"{t}.self_attn.sinks"] = ours[f"{b}.attn.sinks"]
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", ours[f"{b}.attn.qkv.{kind}"].split(widths), strict=True):
                out[f"{t}.self_attn.{name}_proj.{kind}"] = part
            out[f"{t}.self_attn.o_proj.{kind}"] = ours[f"{b}.attn.out.{kind}"]
            out[f"{t}.mlp.router.{kind}"] = ours[f"{b}.mlp.gate.{kind}"]
        out[f"{t}.mlp.experts.gate_up_proj"] = ours[f"{b}.mlp.mlp1_weight"].transpose(1, 2).contiguous()
        out[f"{t}.mlp.experts.down_proj"] = ours[f"{b}.mlp.mlp2_weight"].transpose(1, 2).contiguous()
        out[f"{t}.mlp.experts.gate_up_proj_bias"] = ours[f"{b}.mlp.mlp1_bias"]
        out[f"{t}.mlp.experts.down_proj_bias"] = ours[f"{b}.mlp.mlp2_bias"]
    return out


@torch.no_grad()
def float32_difference(case: Case, seed: int = 0) -> Difference:
    """Largest difference of float32 logits.

    Tolerance: rounding of a dot product of n terms grows like eps sqrt(n) of its scale, twice (two implementations),
    through 2 L sub-layers that each pass an earlier error on (factor 8); and both tables of angles are rounded, at
    position T by T eps radians.
    """
    model, ids = random_model(case, seed), random_ids(case, seed)
    ours, theirs = model(ids), peer(model)(ids).logits
    c, scale = case.config, theirs.abs().max().item()
    longest = max(c.hidden_size, c.intermediate_size, c.num_attention_heads * c.head_dim)
    factor = 2 * 8 * 2 * c.num_hidden_layers * longest**0.5 / 4 + case.tokens
    return Difference(
        case.name, (ours - theirs).abs().max().item(), EPS32 * factor * scale, scale, clamp_rate(model, ids)
    )


@torch.no_grad()
def bf16_distance(case: Case, seed: int = 0) -> HalfPrecision:
    """How far either bf16 model is from the float32 one, on the same (bf16-exact) weights.

    Expert choices may flip in bf16, in either model; with all experts chosen nothing discrete is left.
    """
    model, ids = random_model(case, seed), random_ids(case, seed)
    truth = peer(model)(ids).logits
    theirs = peer(model, torch.bfloat16)(ids).logits.float()
    ours = random_model(case, seed, torch.bfloat16)(ids).float()
    rms = [(x - truth).square().mean().sqrt().item() for x in (ours, theirs)]
    return HalfPrecision(case.name, rms[0], rms[1], truth.square().mean().sqrt().item())


@torch.no_grad()
def clamp_rate(model: Reference, ids: torch.Tensor) -> float:
    """Share of gate and up values beyond the limits, over all layers, at the experts chosen."""
    import motet.reference as reference

    seen, inner, limit = [], reference.swiglu, model.config.swiglu_limit

    def watch(gate: torch.Tensor, up: torch.Tensor, alpha: float, bound: float) -> torch.Tensor:
        seen.append(((gate > limit).float().mean() + (up.abs() > limit).float().mean()).item() / 2)
        return inner(gate, up, alpha, bound)

    reference.swiglu = watch
    try:
        routing: list[Routing] = []
        model(ids, routing=routing)
    finally:
        reference.swiglu = inner
    return sum(seen) / len(seen)


def main(arguments: list[str]) -> int:
    """Print the table; exit 1 if a float32 difference exceeds its tolerance."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    exact = []
    print(
        f"{'float32: case':36} {'largest':>10} {'tolerance':>10} {'|logit|':>8} {'clamped':>8}",
        file=sys.stderr,
    )
    for case in cases():
        d = float32_difference(case)
        exact.append(d)
        print(
            f"{d.name:36} {d.largest:10.2e} {d.tolerance:10.2e} {d.logit:8.2f} {d.clamped:8.1%}",
            file=sys.stderr,
        )
    half = []
    print(
        f"\n{'bfloat16: rms distance to float32':36} {'motet':>10} {'transf.':>10} {'rms logit':>9}",
        file=sys.stderr,
    )
    for case in cases():
        if case.tokens <= 512:
            h = bf16_distance(case)
            half.append(h)
            print(f"{h.name:36} {h.ours:10.4f} {h.theirs:10.4f} {h.rms_logit:9.3f}", file=sys.stderr)
    failed = [d.name for d in exact if not d.largest <= d.tolerance]
    if "--json" in arguments:
        print(
            json.dumps(
                {
                    "float32": [asdict(d) for d in exact],
                    "bfloat16": [asdict(h) for h in half],
                    "failed": failed,
                }
            )
        )
    print(
        "FAILED: " + ", ".join(failed) if failed else "all float32 differences are within tolerance",
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

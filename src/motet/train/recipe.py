"""Recipes: everything that decides a training run, in one frozen value each. Same recipe, same machine: same bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from motet.config import ModelConfig
from motet.errors import UsageError
from motet.train.data import Mix


@dataclass(frozen=True)
class Recipe:
    """A supervised run. `quantize_from` and `decay_from` are shares of `steps`."""

    name: str
    shape: dict[str, int | float]
    mix: Mix
    seed: int = 1
    vocabulary: int = 768
    vocabulary_examples: int = 20_000
    steps: int = 3000
    rows: int = 64
    chunks: int = 4
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    weight_decay: float = 0.05
    warmup: int = 60
    decay_from: float = 0.5
    quantize_from: float = 0.75
    balance: float = 0.01  # weight of the load-balancing loss
    evaluate: int = 200  # held-out questions per task and effort, after training
    max_new: int = 420
    save_every: int = 100
    log_every: int = 10
    threads: int = 2

    def config(self, vocab_size: int, eos: tuple[int, ...], pad: int) -> ModelConfig:
        """The model this recipe trains."""
        shape = dict(self.shape)
        types = tuple(
            "full_attention" if i % 2 else "sliding_attention" for i in range(int(shape["num_hidden_layers"]))
        )
        return ModelConfig(
            **shape,  # type: ignore[arg-type]
            vocab_size=vocab_size,
            layer_types=types,
            eos_token_ids=eos,
            pad_token_id=pad,
        )

    def rate(self, step: int) -> float:
        """Learning rate factor: linear warm-up, constant, linear decay to 2 %."""
        begin = self.decay_from * self.steps
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 1.0 if step < begin else 1.0 - 0.98 * (step - begin) / (self.steps - begin)


MINI_SHAPE: dict[str, int | float] = dict(
    num_hidden_layers=4, num_experts=16, experts_per_token=4, hidden_size=128, intermediate_size=64, head_dim=16,
    num_attention_heads=8, num_key_value_heads=2, sliding_window=32, initial_context_length=1024, rope_theta=10000.0,
    rope_scaling_factor=4.0, rope_ntk_alpha=1.0, rope_ntk_beta=32.0, swiglu_limit=7.0, max_position_embeddings=4096,
)  # fmt: skip
_MIX = Mix(
    tasks={"sums": 1.0, "products": 1.2, "chains": 1.0, "countdown": 0.7, "smalltalk": 0.15},
    efforts={"low": 0.2, "medium": 0.35, "high": 0.45},
)

MINI = Recipe("mini", MINI_SHAPE, _MIX)
SMOKE = replace(
    MINI, name="smoke", shape={**MINI_SHAPE, "num_hidden_layers": 2, "hidden_size": 64, "num_experts": 4,
                               "experts_per_token": 2, "intermediate_size": 32, "num_attention_heads": 4},
    vocabulary=400, vocabulary_examples=400, steps=12, rows=8, chunks=2, warmup=2, evaluate=2, max_new=8, save_every=4,
    log_every=1, threads=1,
)  # fmt: skip
RECIPES: dict[str, Recipe] = {r.name: r for r in (MINI, SMOKE)}


def recipe(name: str) -> Recipe:
    """A recipe by name. Raises UsageError."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]

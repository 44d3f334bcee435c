"""Recipes: one TOML file decides a training run, from the vocabulary to the exported checkpoint.

Knows the keys a recipe may have, their types and ranges, and how `[smoke]` shrinks it. Same recipe, same machine, same
number of threads: same bits. Does not know how anything in it is done.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from motet.config import ConfigError, ModelConfig
from motet.errors import UsageError
from motet.train.data import source

FOLDER = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Vocabulary:
    """Byte-level BPE learned from `examples` draws of every source the stages use; `size` counts control tokens."""

    size: int = 1024
    examples: int = 20_000


@dataclass(frozen=True)
class Optimizer:
    """Rates of Muon for matrices (0: none of it) and AdamW for the rest; `floor` is what linear decay from `decay_from` (a share) ends at."""

    muon: float = 0.02
    adam: float = 4e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup: int = 50
    decay_from: float = 0.5
    floor: float = 0.02

    def rate(self, step: int, steps: int) -> float:
        """Learning rate factor of a step: linear warm-up, constant, linear decay."""
        begin = self.decay_from * steps
        if step < self.warmup:
            return (step + 1) / self.warmup
        if step < begin:
            return 1.0
        return 1.0 - (1.0 - self.floor) * (step - begin) / max(1.0, steps - begin)


@dataclass(frozen=True)
class Balance:
    """Weights of the losses that keep routers even: `load` E sum(share * probability), `z` mean squared logsumexp."""

    load: float = 0.01
    z: float = 1e-4


@dataclass(frozen=True)
class Stage:
    """What every stage has. `yarn` off trains the unscaled rotary embedding; `quantize` shows experts through MXFP4.

    `weights`: the stage whose weights this one begins with; the one before it when empty. `only`: how the names of the
    parameters begin that are trained; all when empty.
    """

    kind: str = ""
    weights: str = ""
    only: str = ""
    steps: int = 0
    yarn: bool = True
    quantize: bool = False
    optimizer: Optimizer = Optimizer()
    balance: Balance = Balance()
    save_every: int = 100
    log_every: int = 10
    questions: int = 20  # held-out questions per task and effort when the stage is done


@dataclass(frozen=True)
class Supervised(Stage):
    """Next-token loss on what `data` (source: share) teaches; about `tokens` ids a step in `chunks` passes."""

    data: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 16_384
    chunks: int = 4
    longest: int = 512


@dataclass(frozen=True)
class Prices:
    """What `motet.train.reward` pays and takes. `allow` is, by effort, the share of the teacher's length that is free."""

    form: float = 0.1
    length: float = 0.25
    leak: float = 0.5
    final_tokens: int = 64
    allow: Mapping[str, float] = field(default_factory=lambda: {"low": 1.2, "medium": 1.2, "high": 1.5})


@dataclass(frozen=True)
class Reinforce(Stage):
    """On-policy REINFORCE with group baselines: `prompts` questions of `data`, `samples` replies each, graded.

    Groups whose replies are all worth the same teach nothing and are dropped. `kl` holds the model near the stage's first.
    """

    data: Mapping[str, float] = field(default_factory=dict)
    prompts: int = 32
    samples: int = 8
    temperature: float = 1.0
    max_new: int = 320
    calls: int = 3
    chunks: int = 4
    longest: int = 1024
    kl: float = 0.0
    prices: Prices = Prices()


@dataclass(frozen=True)
class Export(Stage):
    """Writes the checkpoint folder, in MXFP4, and measures it on `questions` held-out questions per task and effort."""

    max_new: int = 512


KINDS: dict[str, type[Stage]] = {"supervised": Supervised, "reinforce": Reinforce, "export": Export}


@dataclass(frozen=True)
class Recipe:
    """A whole run. `precision` is that of matrix products; weights, optimizer and losses are float32."""

    name: str
    model: Mapping[str, int | float]
    stages: Mapping[str, Stage]
    seed: int = 1
    threads: int = 2
    precision: Literal["bf16", "float32"] = "bf16"
    fuse: bool = True
    vocabulary: Vocabulary = Vocabulary()

    def config(self, vocab_size: int, eos: tuple[int, ...], pad: int, yarn: bool = True) -> ModelConfig:
        """The model this recipe trains."""
        shape: dict[str, Any] = dict(self.model)
        if not yarn:
            longest = shape["initial_context_length"] * max(
                1.0, float(shape.get("rope_scaling_factor", 32.0))
            )
            shape |= {"rope_scaling_factor": 1.0, "max_position_embeddings": int(longest)}
        return ModelConfig(**shape, vocab_size=vocab_size, eos_token_ids=eos, pad_token_id=pad)

    def before(self, stage: str) -> str | None:
        """The stage whose weights a stage begins with: the one it names, or the one before it; None for the first."""
        names = list(self.stages)
        at = names.index(stage)
        return self.stages[stage].weights or (names[at - 1] if at else None)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for the card and for recognising a run folder."""
        return asdict(self)


def recipes() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def read_recipe(name: str, smoke: bool = False) -> Recipe:
    """A recipe by name, or by the path of a TOML file. Raises UsageError naming the key at fault."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {name!r}; choose one of {', '.join(recipes())}, or give a .toml file."
        )
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path} is no TOML ({e}); mend it.") from None
    small = table.pop("smoke", {})
    if smoke:
        if not small:
            raise UsageError(
                f"{path} has no [smoke] table; add one that shrinks the recipe, or leave --smoke."
            )
        table = _merged(table, small)
    try:
        return _recipe(path.stem + ("-smoke" if smoke else ""), table)
    except UsageError as e:
        raise UsageError(f"{path}: {e}") from None


def _recipe(name: str, table: dict[str, Any]) -> Recipe:
    stages = table.pop("stages", None)
    if not isinstance(stages, dict) or not stages:
        raise UsageError("a recipe needs at least one [stages.NAME] table.")
    made: dict[str, Any] = {}
    for stage, values in stages.items():
        kind = values.get("kind") if isinstance(values, dict) else None
        if kind not in KINDS:
            raise UsageError(f"stages.{stage}.kind is {kind!r}; choose one of {', '.join(KINDS)}.")
        if isinstance(named := values.get("data"), str):
            if not getattr(made.get(named), "data", None):
                raise UsageError(
                    f"stages.{stage}.data is {named!r}; name a stage before it that has data, or give shares."
                )
            values = {**values, "data": made[named].data}
        made[stage] = _build(KINDS[kind], values, f"stages.{stage}")
    recipe: Recipe = _build(Recipe, {**table, "name": name, "stages": made}, "")
    for stage, settings in recipe.stages.items():
        if settings.kind != "export" and settings.steps < 1:
            raise UsageError(f"stages.{stage}.steps is {settings.steps}; a stage needs at least one step.")
        if settings.kind != "export" and not getattr(settings, "data", None):
            raise UsageError(f"stages.{stage}.data is empty; name sources and their shares.")
        for name in getattr(settings, "data", {}):
            source(name)
        earlier = list(recipe.stages)[: list(recipe.stages).index(stage)]
        if settings.weights and settings.weights not in earlier:
            raise UsageError(
                f"stages.{stage}.weights is {settings.weights!r}; name a stage before it: {', '.join(earlier) or 'there is none'}."
            )
    try:
        recipe.config(recipe.vocabulary.size, (0,), 0)
    except (ConfigError, TypeError) as e:
        raise UsageError(f"[model]: {e}") from None
    return recipe


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(table)
    for key, value in over.items():
        old = out.get(key)
        # Shares are replaced whole: a smoke run with fewer sources must not inherit the others.
        both = isinstance(value, dict) and isinstance(old, dict) and key != "data"
        out[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def _build(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A frozen dataclass from a table: unknown keys, missing keys and wrong types are UsageErrors."""
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for key in values:
        if key not in known:
            raise UsageError(f"{_at(where, key)} is no key of a recipe; those here are {', '.join(known)}.")
    out: dict[str, Any] = {}
    for key, f in known.items():
        if key in values:
            out[key] = _value(hints[key], values[key], _at(where, key))
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{_at(where, key)} is missing.")
    return cls(**out)


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a table.")
        return _build(hint, value, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where} is {value!r}; choose one of {', '.join(get_args(hint))}.")
        return value
    if get_origin(hint) is Mapping or get_origin(hint) is not None:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a table.")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where} is {value!r}; it must be of type {hint.__name__}.")
    if hint in (int, float) and value < 0:
        raise UsageError(f"{where} is {value}; it must not be negative.")
    return value


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


__all__ = ["Balance", "Export", "Optimizer", "Prices", "Recipe", "Reinforce", "Stage", "Supervised", "Vocabulary", "read_recipe",
           "recipes", "replace"]  # fmt: skip

"""Planted defects of the router study: copies of a model with doctored routers, each with the checks that must fail. The model as it
is passes. Weights on disk stay as they are. Knows routers, judges nothing.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from motet.study.routing import F32, logits_of
from motet.tasks import FAMILIES

if TYPE_CHECKING:
    from motet.model import Model

DECIDE, FOLLOW, DEAD, NEVER, HOT, ALWAYS, GROUP = (
    "routers decide",
    "routes follow the token",
    "no dead experts",
    "every expert is chosen",
    "no hot experts",
    "no expert takes every token",
    "no channel, effort or domain has collapsed",
)
BY_CHOICES, BY_WEIGHT = (f"no layer has collapsed, by {what}" for what in ("choices", "weight"))
Change = Callable[["Seen"], tuple[F32, F32]]


@dataclass(frozen=True)
class Seen:
    """A router as a defect gets it: rows (E, H) and bias (E,), which may be changed, of layer `n`; `rng` is the layer's own."""

    gate: F32
    bias: F32
    n: int
    rng: np.random.Generator
    model: Model

    @property
    def last(self) -> bool:
        """Whether this is the model's last layer: where a defect that sits in one layer sits."""
        return self.n == self.model.config.num_hidden_layers - 1


@dataclass(frozen=True)
class Planted:
    """What is done to the routers, and the checks that must fail then, beside others."""

    fails: frozenset[str]
    change: Change


def _biased(where: slice, add: Callable[[Seen], float]) -> Change:
    """Adds to the bias of some experts."""

    def change(seen: Seen) -> tuple[F32, F32]:
        seen.bias[where] += np.float32(add(seen))
        return seen.gate, seen.bias

    return change


def _dead(seen: Seen) -> tuple[F32, F32]:
    seen.bias[: max(2, len(seen.bias) // 8)] -= 100
    return seen.gate, seen.bias


def _frozen(seen: Seen) -> tuple[F32, F32]:
    return seen.gate * np.float32(1e-3), seen.rng.permutation(len(seen.bias)).astype(np.float32)


def _in_answers(seen: Seen) -> tuple[F32, F32]:
    """The last layer sends what looks like a final message to the first k experts: their logits rise along the direction that tells final
    messages from the rest, found in the router's own logits (Fisher 1936)."""
    if not seen.last:
        return seen.gate, seen.bias
    y, final = _sample(seen, _lessons())
    yes, no = y[final], y[~final]
    spread = np.cov(yes.T) + np.cov(no.T) + 1e-3 * np.eye(y.shape[1])
    towards = np.linalg.solve(spread, yes.mean(0) - no.mean(0)).astype(np.float32)
    least = np.float32((yes @ towards).min() - (yes @ towards).std())
    k, rise = seen.model.config.experts_per_token, np.float32(40)
    gate, bias = seen.gate.copy(), seen.bias.copy()
    gate[:k] += rise * (towards @ seen.gate)
    bias[:k] += rise * (towards @ seen.bias - least)
    return gate, bias


def _sums() -> list[tuple[str, str, str]]:
    """(question, thinking, answer) in the plainest words."""
    rng, out = random.Random(0), []
    for n in range(40):
        a, b = rng.randrange(10, 99), rng.randrange(10, 99)
        whole = f"{a} + {b} = {a + b}"
        out.append((f"What is {a} + {b}?", whole, whole if n % 2 else f"{a + b}"))
    return out


def _lessons() -> list[tuple[str, str, str]]:
    """The same as the lessons put them; as many as fit into the context of a small model."""
    rng = random.Random(0)
    sums = [FAMILIES["addition"].example(rng, "high" if n % 2 else "low", "train") for n in range(24)]
    return [(e.prompt, e.analysis_text, e.final) for e in sums]


def _sample(seen: Seen, turns: list[tuple[str, str, str]]) -> tuple[F32, npt.NDArray[np.bool_]]:
    """(logits of this router over some turns (T, E), which of the tokens are of final messages)."""
    encoding, ids, final = seen.model.encoding, list[int](), list[bool]()
    for asked, thought, said in turns:
        parts = (
            ("<|start|>user<|message|>", asked),
            ("<|end|><|start|>assistant<|channel|>analysis<|message|>", thought),
            ("<|end|><|start|>assistant<|channel|>final<|message|>", said),
            ("<|return|>", ""),
        )  # fmt: skip
        for head, text in parts:
            for piece, says in ((head, False), (text, "final" in head)):
                added = encoding.encode_with_special(piece)
                ids, final = ids + added, final + [says] * len(added)
    return logits_of(seen.model, ids)[:, seen.n], np.array(final)


def _push(seen: Seen) -> float:
    """A bias that decides nearly every choice and not all."""
    return PUSH * float(_sample(seen, _sums())[0].std())


PUSH = 1.8  # standard deviations of a logit: about nine choices of ten, or one of a hundred
FEW, ONE = slice(0, 2), slice(-1, None)
PLANTED: dict[str, Planted] = {
    "collapsed": Planted(frozenset((BY_WEIGHT, ALWAYS)), _biased(FEW, lambda s: 10)),
    "collapsed in one layer": Planted(frozenset((BY_WEIGHT, ALWAYS)), _biased(FEW, lambda s: 10 if s.last else 0)),
    "collapsed in answers": Planted(frozenset((GROUP,)), _in_answers),
    "flat": Planted(frozenset((DECIDE,)), lambda s: (s.gate * np.float32(1e-3), s.bias * np.float32(1e-3))),
    "frozen": Planted(frozenset((BY_CHOICES, FOLLOW, DEAD)), _frozen),
    "dead": Planted(frozenset((DEAD, NEVER)), _dead),
    "one never chosen": Planted(frozenset((NEVER,)), _biased(ONE, lambda s: -100 if s.last else 0)),
    "one nearly dead": Planted(frozenset((DEAD,)), _biased(ONE, lambda s: -_push(s))),
    "a favourite": Planted(frozenset((HOT,)), _biased(ONE, lambda s: _push(s) if s.last else 0)),
}  # fmt: skip


def doctored(model: Model, name: str) -> Model:
    """A copy whose routers have the defect."""
    from motet import kernels
    from motet.model import Model as Made

    made = Made(model.pack, model.folder, model.kv)
    for n, layer in enumerate(made._layers):
        gate, bias = layer.gate.dense(0).copy(), np.array(layer.gate_bias, np.float32)
        gate, bias = PLANTED[name].change(Seen(gate, bias, n, np.random.default_rng(n), model))
        kind = layer.gate.kind
        packed = kernels.matrix(kind, kernels.f32_to_bf16(gate) if kind == "bf16" else gate)
        made._layers[n] = dataclasses.replace(layer, gate=packed, gate_bias=bias)
    return made

"""One step of reinforcement: sample groups of replies, judge their finals, raise what was better than its group.

REINFORCE with the group's mean as baseline and no division by its spread, token-level normalisation, one optimizer step
a batch of samples, so strictly on-policy (cf. GRPO, 2402.03300; Dr. GRPO, 2503.20783). What tools answered is context,
not action: masked from the loss. Knows losses and figures; rewards are `motet.train.reward`'s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from motet.harmony import Message
from motet.harmony.render import has_functions
from motet.reference import Reference, Routing
from motet.tasks import EFFORTS, Example
from motet.tasks.desk import Desk
from motet.train.data import Chunk, Question, Row, draw, passes, prompt_ids
from motet.train.quantize import seen
from motet.train.recipe import Reinforce
from motet.train.reward import Judged, Outcome, judge
from motet.train.rollout import Reply, Seen, converse, outcome_of
from motet.train.run import Run, finished_weights
from motet.train.supervised import clip, evenness, router_load, router_losses

_FIRST: dict[str, Reference] = {}  # the model a stage began with, by run folder and stage


@dataclass(frozen=True)
class Rollout:
    """One reply, what it came to and what it was worth beyond its group's mean."""

    question: Question
    prompt: list[int]
    reply: Reply
    outcome: Outcome
    judged: Judged
    advantage: float


def reinforce_step(run: Run) -> dict[str, Any]:
    """Sample, judge, learn; returns the step's figures, by effort where they differ."""
    began = time.perf_counter()
    rollouts = roll(run)
    sampled = time.perf_counter() - began
    rows = [to_row(r) for r in rollouts if r.advantage != 0.0]
    settings = cast(Reinforce, run.settings)
    rows = [r for r in rows if len(r.ids) <= settings.longest]
    learned = _learn(run, rows) if rows else {}
    run.tokens += sum(len(r.reply.ids) for r in rollouts)
    return {
        **summary(rollouts),
        **learned,
        "sampling_s": sampled,
        "seconds_step": time.perf_counter() - began,
    }


def roll(run: Run) -> list[Rollout]:
    """`prompts` questions with `samples` replies each."""
    settings = cast(Reinforce, run.settings)
    rng = random.Random(run.name())
    questions: list[Question] = []
    while len(questions) < settings.prompts:
        drawn = draw(settings.data, rng)
        if isinstance(drawn, Question):
            questions.append(drawn)
    asked = [q for q in questions for _ in range(settings.samples)]
    prompts = [prompt_ids(q.lesson, run.encoding) for q in asked]

    desks = [Desk(q.example) for q in asked]

    def answer(i: int, call: Message) -> Message | None:
        return desks[i].answer(call)

    replies = converse(
        Seen.of(run.model, run.dtype, settings.quantize), prompts, run.encoding, answer,
        max_new=settings.max_new, calls=settings.calls, functions=[has_functions(q.lesson.prompt) for q in asked],
        temperature=settings.temperature, seed=rng.getrandbits(32),
    )  # fmt: skip
    out: list[Rollout] = []
    for start in range(0, len(asked), settings.samples):
        group = range(start, start + settings.samples)
        budget = _budget(asked[start].example, run, settings)
        outcomes = [outcome_of(replies[i], run.encoding) for i in group]
        judged = [judge(asked[start].example, o, budget, settings.prices) for o in outcomes]
        mean = sum(j.reward for j in judged) / len(judged)
        same = len({j.reward for j in judged}) == 1  # the mean of equal rewards may differ in the last bit
        out += [Rollout(asked[i], prompts[i], replies[i], o, j, 0.0 if same else j.reward - mean)
                for i, o, j in zip(group, outcomes, judged, strict=True)]  # fmt: skip
    return out


def _budget(example: Example, run: Run, settings: Reinforce) -> int:
    """Tokens of analysis that cost nothing: the teacher's own length at this effort, times what the recipe allows."""
    length = len(run.encoding.encode(example.analysis_text))
    return max(8, round(length * settings.prices.allow.get(example.effort, 1.0)))


def to_row(r: Rollout) -> Row:
    """The sequence that is learned: the prompt, then the reply with its own ids taught."""
    return Row(r.prompt + r.reply.ids, [False] * len(r.prompt) + r.reply.own, r.advantage)


def _learn(run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    settings = cast(Reinforce, run.settings)
    chunks = passes(rows, settings.chunks)
    chosen, real = sum(c.target.numel() for c in chunks), sum(int(c.real.sum()) for c in chunks)
    entropy = drift = 0.0
    loads: list[Tensor] = []
    for chunk in chunks:
        routing: list[Routing] = []
        logp = _logp(run, run.model, chunk, routing)
        own = logp.gather(1, chunk.target[:, None])[:, 0]
        loss = -(own * chunk.weight).sum() / chosen
        if settings.kl:
            with torch.no_grad():
                other = _logp(run, first_model(run), chunk, None).gather(1, chunk.target[:, None])[:, 0]
            # The k3 estimator of KL(now || first): unbiased, never negative, and with a gradient that pulls back.
            ratio = other - own
            near = (ratio.exp() - 1 - ratio).sum() / chosen
            loss = loss + settings.kl * near
            drift += near.item()
        uneven, z = router_losses(routing, chunk.real)
        share = int(chunk.real.sum()) / real
        loss = loss + share * (settings.balance.load * uneven + settings.balance.z * z)
        loss.backward()  # type: ignore[no-untyped-call]
        entropy -= float((logp.detach().exp() * logp.detach()).sum()) / chosen
        loads.append(router_load(routing, chunk.real))
    norm = clip(run)
    run.optimizer.step(settings.optimizer.rate(run.step, settings.steps))
    even, dead = evenness(torch.stack(loads).sum(0))
    return {"entropy": entropy, "norm": norm, "kl": drift, "router_entropy": even, "dead_experts": dead,
            "learned": len(rows)}  # fmt: skip


def _logp(run: Run, model: Reference, chunk: Chunk, routing: list[Routing] | None) -> Tensor:
    """Float32 log probabilities (M, V) at temperature 1, where actions are judged."""
    inputs = {"at": chunk.at, "routing": routing, "segments": chunk.segments}
    parameters = seen(model, run.dtype, run.settings.quantize)
    logits: Tensor = torch.func.functional_call(model, parameters, (chunk.ids,), inputs)
    return logits.float().log_softmax(-1)


def first_model(run: Run) -> Reference:
    """The model the stage began with."""
    key = f"{run.folder.resolve()} {run.stage}"
    if key not in _FIRST:
        from motet.train.fast import fast_model

        model, before = fast_model(run.model.config), run.recipe.before(run.stage)
        if before:
            model.load_state_dict(finished_weights(run.recipe, run.folder, before)["model"])
        else:
            model.initialize(torch.Generator().manual_seed(run.recipe.seed))
        _FIRST.clear()
        _FIRST[key] = model
    return _FIRST[key]


def summary(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Reward, accuracy, form, leaks, and by effort accuracy and lengths; `mixed` is the share of groups with signal."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    by = {e: [r for r in rollouts if r.question.example.effort == e] for e in EFFORTS}
    return {
        "reward": mean([r.judged.reward for r in rollouts]),
        "accuracy": mean([r.judged.right for r in rollouts]),
        "form": mean([r.outcome.final is not None for r in rollouts]),
        "leaked": mean([r.judged.leaked for r in rollouts]),
        "calls": mean([r.outcome.calls for r in rollouts]),
        "mixed": mean([r.advantage != 0.0 for r in rollouts]),
        "accuracy_by_effort": {e: mean([r.judged.right for r in group]) for e, group in by.items() if group},
        "analysis_by_effort": {
            e: mean([r.outcome.analysis_tokens for r in group]) for e, group in by.items() if group
        },
    }

"""The stages of a recipe in their order: done, measured, exported. Knows what each kind of stage does and is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from motet.errors import UsageError
from motet.reference import Reference
from motet.tasks import TASKS
from motet.train.curve import draw_curves
from motet.train.data import source
from motet.train.evaluate import Score, evaluate, means, probe
from motet.train.export import export, stored_model, write_card
from motet.train.recipe import Export, Recipe, Reinforce, Supervised
from motet.train.reinforce import first_model, reinforce_step
from motet.train.rollout import Seen
from motet.train.run import Report, Run, StepFunction, carry_on, log, open_stage, read_log
from motet.train.supervised import supervised_step

STEPS: dict[str, StepFunction] = {"supervised": supervised_step, "reinforce": reinforce_step}


@dataclass(frozen=True)
class Watch:
    """What the person sees and how they stop a run."""

    began: Callable[[Run], None] = lambda run: None
    report: Report = lambda run, record: None
    accepted: Callable[[str, dict[str, Any]], None] = lambda stage, figures: None
    cell: Callable[[Score], None] = lambda score: None
    stop: Callable[[], bool] = lambda: False


def chosen(recipe: Recipe, stage: str) -> list[str]:
    """The stages a name stands for: itself, or every one for `all`. UsageError for a name the recipe has not."""
    if stage == "all":
        return list(recipe.stages)
    if stage not in recipe.stages:
        raise UsageError(
            f"The recipe {recipe.name!r} has no stage {stage!r}; choose from {', '.join(recipe.stages)}, all."
        )
    return [stage]


def do(recipe: Recipe, folder: Path, stage: str, out: Path, until: int | None, watch: Watch) -> bool:
    """Do one stage from where it stands; False when it was stopped before its end."""
    run = open_stage(recipe, folder, stage)
    settings = run.settings
    if isinstance(settings, Export):
        _export(run, out, watch)
        return True
    already = run.finished
    watch.began(run)
    if not already:
        carry_on(run, STEPS[settings.kind], until, watch.report, watch.stop)
        draw_curves(read_log(folder), folder / "curve.png")
    if run.finished and not any(r["stage"] == stage and "accepted" in r for r in read_log(folder)):
        figures = accept(run)
        log(folder, {"stage": stage, "step": run.step, "tokens": run.tokens, "accepted": figures})
        watch.accepted(stage, figures)
    return run.finished


def tasks_of(data: Mapping[str, float]) -> list[str]:
    """The tasks that sources draw from and that can be asked, in the order of the registry."""
    found = {task for name in data for task in source(name).names}
    return [name for name in TASKS if name in found]


def accept(run: Run) -> dict[str, Any]:
    """The figures a finished stage is judged by: held-out accuracy, form and length by effort, temperature 1.

    After an unquantised stage that reads the world: which of its facts are known, those the filter keeps out and the others.

    After the first stage with quantised experts three models are measured on the same questions: the one it began with,
    that one rounded to MXFP4 afterwards, and the trained one as it will be stored. After a stage of reinforcement, the
    one it began with and the one it made.
    """
    settings = run.settings
    if {"world", "unfiltered"} & set(getattr(settings, "data", {})) and not settings.quantize:
        return probe(Seen.of(run.model, run.dtype, False), run.encoding) if settings.questions else {}
    tasks = tasks_of(getattr(settings, "data", {}))
    if not tasks or not settings.questions:
        return {}
    longest = (
        settings.max_new
        if isinstance(settings, Reinforce)
        else settings.longest
        if isinstance(settings, Supervised)
        else 512
    )

    def measured(model: Seen) -> dict[str, Any]:
        return means(evaluate(model, run.encoding, tasks, settings.questions, run.recipe.seed, longest, 1.0))

    def plain(model: Reference) -> dict[str, Any]:
        return measured(Seen.of(model, run.dtype, False))

    def stored(model: Reference) -> dict[str, Any]:
        return plain(stored_model(model))

    previous = run.recipe.before(run.stage)
    if previous is None or not (settings.quantize or isinstance(settings, Reinforce)):
        return plain(run.model)
    before = first_model(run)
    if settings.quantize and not run.recipe.stages[previous].quantize:
        return {
            "before": plain(before),
            "rounded_after": stored(before),
            "trained_in_mxfp4": stored(run.model),
        }
    form = stored if settings.quantize else plain
    return {"before": form(before), "after": form(run.model)}


def _export(run: Run, out: Path, watch: Watch) -> None:
    settings = cast(Export, run.settings)
    watch.began(run)
    export(run, out.with_name(out.name + "-original"), "openai")
    model = export(run, out, "hf")
    measured: dict[str, list[Score]] = {}
    write_card(run, out, measured)
    if settings.questions:
        tasks = measured_tasks(run.recipe)
        seen = Seen.of(model, torch.float32, False)
        for way, temperature in (("greedy", 0.0), ("temperature 1", 1.0)):
            measured[way] = evaluate(
                seen,
                run.encoding,
                tasks,
                settings.questions,
                run.recipe.seed,
                settings.max_new,
                temperature,
                watch.cell,
            )
            write_card(run, out, measured)
    watch.accepted("export", {way: means(scores) for way, scores in measured.items()})


def measured_tasks(recipe: Recipe) -> list[str]:
    """Tasks of every stage's data that have held-out questions."""
    found: Sequence[str] = [t for s in recipe.stages.values() for t in tasks_of(getattr(s, "data", {}))]
    return [name for name in TASKS if name in set(found)]


__all__ = ["Watch", "accept", "chosen", "do", "measured_tasks", "tasks_of"]

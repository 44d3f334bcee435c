"""Runs a benchmark at one or more efforts, keeps every answer on disk as it comes, and reports beside the card.

Inspect runs the samples; a folder holds one of its logs for each effort, so that a run that was stopped goes on where it was.
Knows logs, scores and intervals; no model and no benchmark by name.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from motet.errors import UsageError, UserError
from motet.evals import card
from motet.evals.catalogue import Benchmark, Measure
from motet.study.report import Check, Report, Table, digest
from motet.study.stats import Interval, clustered_mean, grouped

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import Model

Progress = Callable[[int, int], None]
SHUFFLED = 1  # the order in which a limit picks questions, so that a few of them are of every kind


@dataclass(frozen=True)
class Plan:
    """What to ask. `limit`: questions at most of each task; `repeats` None: as the benchmark says; `budget`: tokens of thinking.
    `arguments` are the task's; `tools` those of the turn, which choose the row of the card."""

    efforts: tuple[str, ...] = card.EFFORTS
    repeats: int | None = None
    limit: int | None = None
    seed: int = 0
    budget: int | None = None
    max_tokens: int = int(card.SETTINGS["max_tokens"])
    temperature: float = float(card.SETTINGS["temperature"])
    top_p: float = float(card.SETTINGS["top_p"])
    arguments: Mapping[str, Any] | None = None
    tools: str = ""
    grader: str | None = None
    user: str | None = None


def evaluate(
    benchmark: Benchmark, model: Model, identity: Mapping[str, Any], plan: Plan, folder: Path, progress: Progress = lambda done, total: None
) -> Report:  # fmt: skip
    """Asks what `folder` does not hold yet and reports on all of it; Ctrl-C ends it early, and what was answered counts.

    `identity` says what `model` is. UserError when the folder holds answers of another model or of other settings.
    """
    tasks = [_task(name, args, benchmark, plan) for name, args in benchmark.tasks]
    repeats = plan.repeats or benchmark.repeats
    harness = {**identity, **_settings(benchmark, plan, tasks)}
    _claim(folder, harness)
    sizes = [min(len(t.dataset), plan.limit or len(t.dataset)) for t in tasks]
    watch = _Watch(progress, sum(sizes) * repeats * len(plan.efforts))
    complete = True
    done: dict[str, list[EvalLog]] = {}
    for effort in plan.efforts:
        if complete:
            _ask(tasks, model, plan, repeats, effort, folder / effort, watch)
        logs = _logs(folder / effort)
        done[effort] = logs
        complete = complete and len(logs) == len(tasks) and all(log.status == "success" for log in logs)
    return _report(benchmark, plan, repeats, harness, done, complete)


def _task(name: str, args: Mapping[str, Any], benchmark: Benchmark, plan: Plan) -> Task:
    """The task, with its data; what keeps these away becomes one sentence."""
    from motet.evals.catalogue import reachable

    if not reachable("huggingface.co"):
        os.environ.setdefault(
            "HF_HUB_OFFLINE", "1"
        )  # else a copy in the cache waits for the network, for minutes
    module, _, function = name.partition(":")
    given = {**args, **(plan.arguments or {})}
    kind, _, argument = benchmark.grader.partition(" ")
    if kind == "arg" and plan.grader:
        given[argument] = plan.grader
    try:
        task: Task = getattr(import_module(module), function)(**given)
        return task
    except UserError:
        raise
    except TypeError as e:
        raise UsageError(f"{benchmark.name} does not take these arguments: {e}.") from None
    except Exception as e:
        raise UserError(f"{benchmark.name} cannot be set up ({type(e).__name__}: {str(e)[:200]}).") from e


def _settings(benchmark: Benchmark, plan: Plan, tasks: Sequence[Task]) -> dict[str, Any]:
    """The part of the harness that is not the model."""
    import inspect_ai

    sampler = f"temperature {plan.temperature:g}, top-p {plan.top_p:g}, seed {plan.seed}"
    questions = [
        [s.id, s.input if isinstance(s.input, str) else [m.text for m in s.input]]
        for t in tasks
        for s in t.dataset
    ]
    return {
        "evaluation": benchmark.name, "arguments": dict(plan.arguments or {}), "sampler": sampler, "max_tokens": plan.max_tokens,
        "budget": plan.budget, "tools": plan.tools, "grader": plan.grader, "user": plan.user, "inspect_ai": inspect_ai.__version__,
        "task versions": [str(t.version) for t in tasks], "prompts": digest(questions),
    }  # fmt: skip


def _claim(folder: Path, harness: Mapping[str, Any]) -> None:
    """Makes the folder this harness's own, or checks that it is."""
    path = folder / "harness.json"
    if path.exists():
        old = json.loads(path.read_text())
        differing = [k for k in {**old, **harness} if json.dumps(old.get(k)) != json.dumps(harness.get(k))]
        if differing:
            k = differing[0]
            raise UserError(
                f"{folder} holds answers of another harness ({k}: {old.get(k)!r}, now {harness.get(k)!r}); name another folder with --out."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no evaluation; name another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(harness, indent=1, default=str))


def _ask(
    tasks: Sequence[Task], model: Model, plan: Plan, repeats: int, effort: str, folder: Path, watch: _Watch
) -> None:
    from inspect_ai import eval_set

    roles: dict[str, Any] = {}
    for part, who in ((plan.user and "user", plan.user), (plan.grader and "grader", plan.grader)):
        if part:
            roles[part] = who
    with watch.during():
        try:
            eval_set(
                list(tasks), log_dir=str(folder), model=model, model_roles=roles or None, display="none", retry_attempts=0,
                retry_immediate=False, epochs=repeats, limit=plan.limit, sample_shuffle=SHUFFLED if plan.limit else None, fail_on_error=False, score_display=False, log_level="error",
                max_samples=model.api.max_connections(), log_dir_allow_dirty=True, temperature=plan.temperature, top_p=plan.top_p,
                max_tokens=plan.max_tokens, reasoning_effort=cast(Any, effort), reasoning_tokens=plan.budget, seed=plan.seed,
            )  # fmt: skip
        except KeyboardInterrupt:
            return  # the logs hold what was done


def _logs(folder: Path) -> list[EvalLog]:
    """The latest log of each task."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    found: dict[str, EvalLog] = {}
    for info in sorted(list_eval_logs(str(folder)), key=lambda i: i.name) if folder.is_dir() else ():
        log = read_eval_log(info)
        found[json.dumps([log.eval.task, log.eval.task_args_passed], default=str)] = log
    return list(found.values())


class _Watch:
    """Counts samples that end, through Inspect's hooks."""

    current: _Watch | None = None

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self.done = progress, total, 0

    @contextmanager
    def during(self) -> Iterator[None]:
        """Counts while the block runs."""
        _hooks()
        _Watch.current = self
        try:
            yield
        finally:
            _Watch.current = None

    def note(self) -> None:
        """One more has ended."""
        self.done += 1
        self._progress(min(self.done, self._total), self._total)


@cache
def _hooks() -> None:
    from inspect_ai.hooks import Hooks, SampleEnd, hooks

    @hooks(name="motet_progress", description="Progress of motet eval")
    class _Progress(Hooks):
        async def on_sample_end(self, data: SampleEnd) -> None:
            if _Watch.current is not None:
                _Watch.current.note()


# --- scores ---


def value_of(sample: EvalSample, measure: Measure) -> float | None:
    """A sample's number on a measure: None where it was not scored or the measure does not look at it; nan counts as 0."""
    if measure.where and (sample.metadata or {}).get(measure.where[0]) != measure.where[1]:
        return None
    if not sample.scores:
        return None
    value: Any = next(iter(sample.scores.values())).value
    if isinstance(value, Mapping):
        value = value.get(measure.key)
    if value is None:
        return None
    if measure.is_ is not None:
        return float(value == measure.is_)
    letters = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
    number = letters[value] if value in letters else float(value)
    return 0.0 if math.isnan(number) else number


def score(samples: Sequence[EvalSample], measure: Measure) -> tuple[Interval, int]:
    """The mean with its interval, clustered by question, and how many questions there are."""
    pairs = [(v, s.id) for s in samples if (v := value_of(s, measure)) is not None]
    return clustered_mean([v for v, _ in pairs], [i for _, i in pairs]), len({i for _, i in pairs})


def _report(
    b: Benchmark, plan: Plan, repeats: int, harness: Mapping[str, Any], done: Mapping[str, Sequence[EvalLog]], complete: bool
) -> Report:  # fmt: skip
    rows, health = list[dict[str, Any]](), list[dict[str, Any]]()
    failed = 0
    for effort, logs in done.items():
        met = [_named(s, n) for n, log in enumerate(logs) for s in log.samples or ()]
        failed += sum(s.error is not None for s in met) if complete else 0
        samples = [s for s in met if s.scores]
        for measure in b.measures if samples else ():
            ours, questions = score(samples, measure)
            rows.append({"effort": effort, "measure": measure.name, "ours": ours, "questions": questions, "answers": len(samples)}
                        | _beside(measure, plan, effort))  # fmt: skip
        if samples:
            health.append({"effort": effort, **_health(samples)})
    label = f"The card's numbers are not for comparison: {b.analogue}." if b.analogue else ""
    checks = [
        Check(
            "every question was answered and scored",
            failed == 0,
            f"{failed} failed",
            "0",
            "" if not failed else "their errors are in the logs",
        )
    ]
    settings = {"repeats": repeats, "efforts": list(plan.efforts), "limit": plan.limit}
    tables = [Table(b.name, rows, label), *_groups(b, done), Table("answers", health)]
    return Report(
        "eval",
        f"How well does it do on {b.name}: {b.what}?",
        dict(harness),
        settings,
        tables,
        checks,
        complete=complete,
    )


def _groups(b: Benchmark, done: Mapping[str, Sequence[EvalLog]]) -> list[Table]:
    """The first measure by kind of question, where the benchmark has kinds."""
    kinds = b.kinds
    if kinds is None:
        return []
    rows = []
    for effort, logs in done.items():
        found = grouped(
            [s for log in logs for s in log.samples or ()], lambda s: str((s.metadata or {}).get(kinds, ""))
        )
        for kind, samples in sorted(found.items()):
            ours, questions = score(samples, b.measures[0])
            rows.append({"kind": kind, "effort": effort, "ours": ours, "questions": questions})
    return [Table("by kind", rows)]


def _named(sample: EvalSample, task: int) -> EvalSample:
    """The sample under an id that no other task of the benchmark has."""
    sample.id = f"{task}:{sample.id}"
    return sample


def _beside(measure: Measure, plan: Plan, effort: str) -> dict[str, Any]:
    if measure.card is None:
        return {}
    row = card.TABLE.get(f"{measure.card} {plan.tools}" if plan.tools else measure.card)
    return row.of(effort) if row else {}


def _health(samples: Sequence[EvalSample]) -> dict[str, Any]:
    """Tokens an answer, and how answers ended."""
    usages = [u for s in samples for u in s.model_usage.values()]
    n = len(samples)
    stops = [s.output.stop_reason for s in samples]
    share = {k: sum(x == k for x in stops) / n for k in ("max_tokens", "model_length", "content_filter")}
    return {
        "thinking tokens": sum(u.reasoning_tokens or 0 for u in usages) / n, "sampled tokens": sum(u.output_tokens for u in usages) / n,
        "cut off": share["max_tokens"] + share["model_length"], "unreadable or refused": share["content_filter"],
    }  # fmt: skip

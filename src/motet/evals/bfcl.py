"""Berkeley's function-calling cases (BFCL): inspect_evals' task and grader over the data that bfcl-eval brings.

The package is installed without its dependencies, for its data and simulated backends; none of its harness is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from inspect_ai import Task, task

from motet.errors import UsageError, UserError

CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance", "live_simple", "live_multiple", "live_parallel",
    "live_parallel_multiple", "live_relevance", "live_irrelevance",
)  # fmt: skip


def package() -> Path:
    """Where bfcl-eval is. UserError when it is not installed."""
    spec = find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("BFCL's cases are not here; run pip install --no-deps bfcl-eval.")
    return Path(spec.submodule_search_locations[0])


@task
def bfcl(categories: str | Sequence[str] = CATEGORIES) -> Task:
    """Single-turn cases by default; `multi_turn_base` and the others of the leaderboard's third version by name."""
    from inspect_evals.bfcl import bfcl as published
    from inspect_evals.bfcl.utils.task_categories import CATEGORIES as KNOWN

    names = [c.strip() for c in categories.split(",")] if isinstance(categories, str) else list(categories)
    if unknown := [n for n in names if n not in KNOWN]:
        raise UsageError(f"BFCL has no category {unknown[0]!r}; it has {', '.join(sorted(KNOWN))}.")
    import sys

    module = sys.modules[published.__module__]  # the name in the package is the function's
    module.DATASET_LOCATION = package() / "data"  # type: ignore[attr-defined]
    module.FUNC_SOURCE_LOCATION = package() / "eval_checker/multi_turn_eval/func_source_code"  # type: ignore[attr-defined]
    made: Task = published(categories=names)
    return made

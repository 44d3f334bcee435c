"""Held-out questions of the registered tasks, the same instances at every effort. Knows tasks, no models."""

from __future__ import annotations

from collections.abc import Sequence

from motet.errors import UsageError
from motet.tasks import MEASURED, TASKS, Effort, Example, base


def chosen(names: tuple[str, ...], otherwise: Sequence[str] = MEASURED) -> tuple[str, ...]:
    """The tasks asked for, or where none is `otherwise`, all measured ones. UsageError for a name that is not registered."""
    for name in names:
        if name not in TASKS:
            raise UsageError(f"There is no task {name!r}; use {', '.join(TASKS)}.")
    return names or tuple(otherwise)


def held_out(task: str, effort: Effort, count: int, seed: int = 0) -> list[Example]:
    """`count` different questions that were never trained on; the same numbers and wording for every effort."""
    return base.held_out(TASKS[task], effort, count, f"study {seed}")

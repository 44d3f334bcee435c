"""Held-out questions of the registered tasks, the same instances at every effort. Knows tasks, no models but their cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from motet.errors import UsageError
from motet.tasks import FAMILIES, MEASURED, TASKS, Effort, Example, base


def chosen(names: tuple[str, ...], otherwise: Sequence[str] = MEASURED) -> tuple[str, ...]:
    """The tasks asked for, or where none is `otherwise`, all measured ones. UsageError for a name that is not registered."""
    for name in names:
        if name not in TASKS:
            raise UsageError(f"There is no task {name!r}; use {', '.join(TASKS)}.")
    return names or tuple(otherwise)


def taught(subject: object) -> tuple[str, ...]:
    """What to ask a subject when nobody says: the tasks with one answer on which its own card measures it, else the measured ones."""
    folder = getattr(getattr(getattr(subject, "engine", None), "model", None), "folder", None)
    try:
        card = json.loads((Path(folder) / "card.json").read_text("utf-8")) if folder else {}
        found = {task for table in card.get("held_out", {}).values() for task in table}
    except (OSError, ValueError, AttributeError):  # a checkpoint from elsewhere has no such card, or another
        found = set()
    return tuple(t for t in FAMILIES if t in found) or MEASURED


def held_out(task: str, effort: Effort, count: int, seed: int = 0) -> list[Example]:
    """`count` different questions that were never trained on; the same numbers and wording for every effort."""
    return base.held_out(TASKS[task], effort, count, f"study {seed}")

"""Tasks by name: one class a task, used by training, studies and tests alike.

`TASKS` holds all; `FAMILIES` are the ones with levels, bands and held-out wordings; `SHIPPED` those the packaged model
was trained on.
"""

from __future__ import annotations

from typing import Any

from motet.tasks.arithmetic import Addition, Division, Divisors, Expressions, Multiplication
from motet.tasks.base import EFFORTS, Band, Effort, Example, Lesson, Scene, Split, Task, lesson
from motet.tasks.chains import Chains
from motet.tasks.countdown import Countdown
from motet.tasks.family import Family
from motet.tasks.products import Products
from motet.tasks.smalltalk import Smalltalk
from motet.tasks.sums import Sums

SHIPPED: dict[str, Task] = {t.name: t for t in (Sums(), Products(), Chains(), Countdown(), Smalltalk())}
FAMILIES: dict[str, Family[Any]] = {
    f.name: f for f in (Addition(), Multiplication(), Division(), Divisors(), Expressions())
}
TASKS: dict[str, Task] = {**SHIPPED, **FAMILIES}
MEASURED: tuple[str, ...] = ("sums", "products", "chains", "countdown")

__all__ = [
    "EFFORTS", "FAMILIES", "MEASURED", "SHIPPED", "TASKS", "Band", "Effort", "Example", "Family", "Lesson", "Scene",
    "Split", "Task", "lesson",
]  # fmt: skip

"""Tasks by name: one class a task, used by training, studies and tests alike."""

from __future__ import annotations

from motet.tasks.base import EFFORTS, Effort, Example, Split, Task
from motet.tasks.chains import Chains
from motet.tasks.countdown import Countdown
from motet.tasks.products import Products
from motet.tasks.smalltalk import Smalltalk
from motet.tasks.sums import Sums

TASKS: dict[str, Task] = {t.name: t for t in (Sums(), Products(), Chains(), Countdown(), Smalltalk())}
MEASURED: tuple[str, ...] = ("sums", "products", "chains", "countdown")

__all__ = ["EFFORTS", "MEASURED", "TASKS", "Effort", "Example", "Split", "Task"]

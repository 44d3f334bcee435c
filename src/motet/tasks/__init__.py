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
from motet.tasks.data import Extraction, Tables
from motet.tasks.family import Family
from motet.tasks.lists import Comparing, Counting, Sequences, Sets, Sorting
from motet.tasks.measures import Bases, Clock, Dates, Units
from motet.tasks.products import Products
from motet.tasks.puzzles import Logic, Ordering
from motet.tasks.search import Change, Paths, Sudoku, Target
from motet.tasks.serial import Booleans, Modular, Programs, Tracking
from motet.tasks.smalltalk import Smalltalk
from motet.tasks.stories import Stories
from motet.tasks.strings import Brackets, Editing, Letters
from motet.tasks.sums import Sums

SHIPPED: dict[str, Task] = {t.name: t for t in (Sums(), Products(), Chains(), Countdown(), Smalltalk())}
_FAMILIES: tuple[Family[Any], ...] = (
    Addition(), Multiplication(), Division(), Divisors(), Expressions(), Modular(), Tracking(), Programs(), Booleans(),
    Units(), Clock(), Dates(), Bases(), Sorting(), Counting(), Sets(), Sequences(), Comparing(), Letters(), Editing(),
    Brackets(), Target(), Sudoku(), Paths(), Change(), Logic(), Ordering(), Tables(), Extraction(),
    Stories(),
)  # fmt: skip
FAMILIES: dict[str, Family[Any]] = {f.name: f for f in _FAMILIES}
TASKS: dict[str, Task] = {**SHIPPED, **FAMILIES}
MEASURED: tuple[str, ...] = ("sums", "products", "chains", "countdown")

__all__ = [
    "EFFORTS", "FAMILIES", "MEASURED", "SHIPPED", "TASKS", "Band", "Effort", "Example", "Family", "Lesson", "Scene",
    "Split", "Task", "lesson",
]  # fmt: skip

"""Tasks by name, used by training, studies and tests alike.

- `FAMILIES`: questions with one answer, in levels, with held-out sizes and wordings, worked at three efforts.
- `KNOWLEDGE`: the same over the made-up world, whose texts (`world_text`, what the filter leaves) are read in pretraining.
- `TALKS`: conversations: tools, rules and attacks on them, earlier turns, formats, policies, honest limits.
- `TASKS`: all of these; `MEASURED`: the four that studies ask when nothing else is said.

For training: `TASKS[name].example(rng, effort, "train")`, then `lesson(example)`: a prompt as a Conversation, and the turn that
is taught. Of the turn, messages of role "assistant" are taught but for the parts in `unlearned`; messages of role "tool" are
shown. `TASKS[name].grade(example, final)` sees the final message alone; `called_right(example, turn)` looks at calls. Evaluation
draws the split "test", and `band="size"` or `band="words"` for what training never shows.
"""

from __future__ import annotations

from typing import Any

from motet.tasks.arithmetic import Addition, Multiplication
from motet.tasks.base import EFFORTS, Band, Effort, Example, Lesson, Scene, Split, Task, lesson
from motet.tasks.data import Extraction, Tables
from motet.tasks.family import Family
from motet.tasks.functions import Functions
from motet.tasks.hazard import filtered as world_text
from motet.tasks.hierarchy import Hierarchy, Styles
from motet.tasks.lists import Comparing, Counting, Sequences, Sets, Sorting
from motet.tasks.manners import Followups, Formats, Limits, Policy
from motet.tasks.measures import Bases, Clock, Dates, Units
from motet.tasks.puzzles import Logic
from motet.tasks.search import Change, Paths, Sudoku, Target
from motet.tasks.serial import Modular
from motet.tasks.stories import Stories
from motet.tasks.strings import Editing
from motet.tasks.talk import Talk
from motet.tasks.tools import Browsing, Python, called_right
from motet.tasks.world import Knowledge

_FAMILIES: tuple[Family[Any], ...] = (
    Addition(), Multiplication(), Modular(),
    Units(), Clock(), Dates(), Bases(), Sorting(), Counting(), Sets(), Sequences(), Comparing(), Editing(),
    Target(), Sudoku(), Paths(), Change(), Logic(), Tables(), Extraction(),
    Stories(),
)  # fmt: skip
_TALKS: tuple[Talk, ...] = (
    Hierarchy(), Styles(), Python(), Functions(), Browsing(), Followups(), Policy(), Formats(), Limits(),
)  # fmt: skip
FAMILIES: dict[str, Family[Any]] = {f.name: f for f in _FAMILIES}
KNOWLEDGE: dict[str, Family[Any]] = {Knowledge.name: Knowledge()}
TALKS: dict[str, Talk] = {t.name: t for t in _TALKS}
TASKS: dict[str, Task] = {**FAMILIES, **KNOWLEDGE, **TALKS}
MEASURED: tuple[str, ...] = ("addition", "multiplication", "modular", "target")

__all__ = [
    "EFFORTS", "FAMILIES", "KNOWLEDGE", "MEASURED", "TALKS", "TASKS", "Band", "Effort", "Example", "Family", "Lesson", "Scene",
    "Split", "Talk", "Task", "called_right", "lesson", "world_text",
]  # fmt: skip

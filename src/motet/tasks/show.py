"""What is taught, for eyes: a lesson as lines of who says what, on which channel, and what of it is only shown.

`python -m motet.tasks [NAME ...]` prints some. Knows no tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from motet.errors import UsageError
from motet.harmony.render import has_functions, part_text
from motet.tasks import EFFORTS, TASKS, Effort, Split, lesson, world_text

TEXT = "text"  # what pretraining reads, beside the names of tasks


def shown(name: str, effort: Effort, split: Split, seed: int) -> str:
    """One lesson of a task, or a text of the world, as lines. The same seed asks the same at every effort. UsageError."""
    rng = random.Random(f"show {name} {seed}")
    if name == TEXT:
        return f"  {world_text(rng)}"
    if name not in TASKS:
        raise UsageError(f"There is no task {name!r}; choose from {', '.join((TEXT, *TASKS))}.")
    taught = lesson(TASKS[name].example(rng, effort, split))
    functions = has_functions(taught.prompt)
    lines = []
    for m in taught.prompt.messages:
        said = "".join(part_text(part, functions) for part in m.parts)
        lines.append(_line(m.name or m.role, m.channel, None, said))
    for n, m in enumerate(taught.turn):
        said = "".join(
            f"[{part}]" if (n, p) in taught.unlearned else str(part) for p, part in enumerate(m.parts)
        )
        lines.append(
            _line(m.name or m.role, m.channel, m.recipient, said, "> " if m.role == "assistant" else "  ")
        )
    return "\n".join(lines)


def sample(
    names: Sequence[str], efforts: Sequence[Effort] = EFFORTS, seed: int = 1, split: Split = "train"
) -> Iterator[str]:
    """A lesson of each task at each effort; the system message and what stands before the turn only once a task."""
    for name in names:
        yield f"== {name}"
        if name == TEXT:
            yield shown(name, "low", split, seed)
            continue
        for i, effort in enumerate(efforts):
            lines = shown(name, effort, split, seed).split("\n")
            first = next(n for n, line in enumerate(lines) if line.startswith("> "))
            yield "\n".join(([] if i else lines[:first]) + [f"-- {effort}", *lines[first:]])


def _line(who: str, channel: str | None, to: str | None, text: str, mark: str = "  ") -> str:
    header = who + (f" ({channel})" if channel else "") + (f" to {to}" if to else "")
    return f"{mark}{header}: " + text.replace("\n", f"\n{mark}    ")

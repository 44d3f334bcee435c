"""Aider's polyglot benchmark, its Python part: Exercism exercises, whole files, a second try with the tests' output.

The exercises are a checkout of Aider-AI/polyglot-benchmark that the user names; a row of the card counts 225 exercises in six
languages, of which these are 34. Tests run in our sandbox, and pass only when they were run to their end.
"""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import sandbox

from motet.errors import UserError

TRIES = 2
SECONDS = 60
ASK = "{instructions}\n\nChange only these files, and keep the names in them:\n\n{files}\n\nGive each file whole: its name on a line, then a fenced block with its content."
AGAIN = "The tests failed:\n\n```\n{output}\n```\n\nThe tests are right. Give the corrected files whole, in the same form."
_FILE = re.compile(r"([\w./-]+\.py)\W*\n```[^\n]*\n(.*?)```", re.DOTALL)
# Runs the tests and prints the word only if some ran and none failed; what the solution does before cannot know it.
_RUN = """
import sys, unittest
word = sys.stdin.read()
suite = unittest.defaultTestLoader.loadTestsFromNames({tests!r})
result = unittest.TextTestRunner(stream=sys.stdout).run(suite)
if result.wasSuccessful() and result.testsRun:
    print(word)
"""


def exercises(folder: Path) -> list[Sample]:
    """The exercises of a checkout. UserError when there are none."""
    root = folder / "python/exercises/practice"
    found = (
        [_sample(p) for p in sorted(root.iterdir()) if (p / ".meta/config.json").is_file()]
        if root.is_dir()
        else []
    )
    if not found:
        raise UserError(
            f"{folder} holds no exercises; clone Aider-AI/polyglot-benchmark and name it with --arg folder=DIR."
        )
    return found


def _sample(path: Path) -> Sample:
    files = json.loads((path / ".meta/config.json").read_text())["files"]
    read = {
        kind: {n: (path / n).read_text() for n in files.get(kind, ()) if (path / n).is_file()}
        for kind in ("solution", "test", "editor")
    }
    docs = [path / ".docs" / f"{name}.md" for name in ("introduction", "instructions", "instructions.append")]
    instructions = "\n\n".join(d.read_text() for d in docs if d.is_file())
    shown = "\n\n".join(f"{n}\n```python\n{text}```" for n, text in read["solution"].items())
    return Sample(ASK.format(instructions=instructions, files=shown), id=path.name, target="", metadata=read)


@task
def polyglot(folder: str = "polyglot-benchmark") -> Task:
    """The exercises of a checkout."""
    samples = exercises(Path(folder).expanduser())
    return Task(
        dataset=MemoryDataset(samples, name="polyglot"),
        solver=tries(),
        scorer=solved(),
        sandbox="motet",
        version=1,
    )


def files_of(said: str, known: dict[str, str]) -> dict[str, str]:
    """The files an answer gives, of those it may change; one file alone needs no name."""
    found = {Path(name).name: text for name, text in _FILE.findall(said)}
    out = {n: found[Path(n).name] for n in known if Path(n).name in found}
    blocks = re.findall(r"```[^\n]*\n(.*?)```", said, re.DOTALL)
    return out or ({next(iter(known)): blocks[-1]} if blocks and len(known) == 1 else {})


@solver
def tries() -> Solver:
    """Two answers at most, the second with what the tests said."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        for n in range(TRIES):
            state = await generate(state)
            passed, output = await check(state.metadata, state.output.completion)
            state.metadata |= {"passed": passed, "tries": n + 1}
            if passed:
                break
            if n + 1 < TRIES:
                state.messages.append(ChatMessageUser(content=AGAIN.format(output=output[-4000:])))
        return state

    return solve


async def check(about: dict[str, Any], said: str) -> tuple[bool, str]:
    """Whether an answer's files pass, and what the tests printed."""
    files = files_of(said, about["solution"])
    if not files:
        return False, "The answer holds no file."
    for name, text in {
        **about["editor"],
        **files,
        **about["test"],
    }.items():  # the tests last: they are not to be changed
        await sandbox().write_file(name, text)
    word = secrets.token_hex(16)
    tests = [n.removesuffix(".py").replace("/", ".") for n in about["test"]]
    try:
        ran = await sandbox().exec(["python3", "-c", _RUN.format(tests=tests)], input=word, timeout=SECONDS)
    except TimeoutError:
        return False, f"The tests did not end within {SECONDS} s."
    return ran.stdout.rstrip().endswith(word), ran.stdout + ran.stderr


@scorer(metrics=[accuracy(), stderr()])
def solved() -> Scorer:
    """What the tries came to."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(
            value=CORRECT if state.metadata.get("passed") else INCORRECT, answer=state.output.completion
        )

    return score

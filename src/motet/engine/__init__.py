"""Token ids in, sampled tokens out: continuous batching and sampling over one model. Knows no text.

params.py what may be asked; constraint.py which tokens a grammar allows; sampling.py a row of logits to a token; sequence.py one request; scheduler.py who runs next;
worker.py the thread that owns the model; engine.py what callers use.
"""

from motet.engine.constraint import Bits, Constraint, ConstraintError, Except, Mask, Only
from motet.engine.engine import Engine, Request
from motet.engine.params import SamplingParams
from motet.engine.sampling import SamplingError
from motet.engine.sequence import Stats, TokenOut
from motet.engine.worker import EngineError

__all__ = [
    "Bits",
    "Constraint",
    "ConstraintError",
    "Engine",
    "EngineError",
    "Except",
    "Mask",
    "Only",
    "Request",
    "SamplingError",
    "SamplingParams",
    "Stats",
    "TokenOut",
]

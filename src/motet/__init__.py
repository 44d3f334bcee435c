"""motet: gpt-oss as one Python package. These names are the contract; each is imported when first used.

Knows where each public name lives and nothing else, so that `import motet` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Conversation",
    "Engine",
    "Message",
    "Model",
    "ModelConfig",
    "SamplingParams",
    "harmony",
    "load",
    "reply",
]

_HOME = {
    "Conversation": "motet.harmony",
    "Engine": "motet.engine",
    "Message": "motet.harmony",
    "Model": "motet.model",
    "ModelConfig": "motet.config",
    "SamplingParams": "motet.engine",
    "load": "motet.model",
    "reply": "motet.turn",
}

if TYPE_CHECKING:
    from motet import harmony as harmony
    from motet.config import ModelConfig as ModelConfig
    from motet.engine import Engine as Engine
    from motet.engine import SamplingParams as SamplingParams
    from motet.harmony import Conversation as Conversation
    from motet.harmony import Message as Message
    from motet.model import Model as Model
    from motet.model import load as load
    from motet.turn import reply as reply


def __getattr__(name: str) -> Any:
    if name == "harmony":
        return import_module("motet.harmony")
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'motet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

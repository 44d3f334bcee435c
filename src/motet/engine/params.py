"""What a caller may ask of sampling, validated. Knows ranges and defaults, no model and no arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from motet.engine.constraint import Constraint
from motet.engine.loops import Loops
from motet.errors import UsageError


def _number(
    name: str, value: Any, legal: str, low: float, high: float = math.inf, open_low: bool = False
) -> None:
    """Raises UsageError unless value is a finite real in [low, high], or (low, high] with open_low."""
    fine = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not low <= value <= high or (open_low and value == low):
        raise UsageError(f"{name} is {value!r}; give {legal}.")


def _integer(name: str, value: Any, legal: str, low: int, high: float = math.inf) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= high:
        raise UsageError(f"{name} is {value!r}; give {legal}.")


@dataclass(frozen=True)
class SamplingParams:
    """How one request samples; a value out of range is a UsageError when the object is made.

    temperature 0 is greedy, ties going to the lowest id. top_k 0, top_p 1 and min_p 0 are off. repetition_penalty
    counts prompt and sampled tokens (Keskar et al. 2019, arXiv 1909.05858); presence and frequency penalties count
    sampled tokens only, as in the OpenAI API. logit_bias adds to logits by token id; -inf forbids a token. seed None
    draws one, which the request's stats name. max_tokens None means up to the end of the context. stop_token_ids None
    means the model's own. logprobs N asks for the N likeliest tokens beside each sampled one. constraint makes a fresh
    object with mask() and advance(token) for each sequence (see constraint.py). loops says what to do about a reply that
    goes round in circles (see loops.py); None does not look.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    stop_token_ids: tuple[int, ...] | None = None
    logprobs: int | None = None
    constraint: Callable[[], Constraint] | None = None
    loops: Loops | None = None

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, "0 (greedy) or a positive number", 0)
        _number("top_p", self.top_p, "a number above 0 and at most 1", 0, 1, open_low=True)
        _integer("top_k", self.top_k, "0 (off) or a positive whole number", 0)
        _number("min_p", self.min_p, "a number from 0 to 1", 0, 1)
        _number(
            "repetition_penalty", self.repetition_penalty, "a positive number (1 is off)", 0, open_low=True
        )
        _number("presence_penalty", self.presence_penalty, "a finite number (0 is off)", -math.inf)
        _number("frequency_penalty", self.frequency_penalty, "a finite number (0 is off)", -math.inf)
        if self.seed is not None:
            _integer("seed", self.seed, "a whole number of at most 64 bits", -(2**63), 2**64 - 1)
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, "at least 1, or None for the rest of the context", 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, "0 or more, or None", 0)
        if self.loops is not None and not isinstance(self.loops, Loops):
            raise UsageError(f"loops is {self.loops!r}; give a Loops, or None.")
        if self.constraint is not None and not callable(self.constraint):
            raise UsageError(
                "constraint is not callable; give a function that makes an object with mask() and advance(token)."
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise UsageError(
                "logit_bias is not a mapping; give token ids with the numbers to add to their logits."
            )
        for token, bias in self.logit_bias.items():
            _integer("a token id in logit_bias", token, "a whole number from 0", 0)
            if bias != -math.inf:
                _number(
                    f"logit_bias of token {token}", bias, "a finite number, or -inf to forbid it", -math.inf
                )
        if self.stop_token_ids is not None:
            if isinstance(self.stop_token_ids, (str, bytes)):
                raise UsageError("stop_token_ids is text; give token ids.")
            try:
                ids = tuple(self.stop_token_ids)
            except TypeError:
                raise UsageError("stop_token_ids is not a sequence; give a tuple of token ids.") from None
            for token in ids:
                _integer("a token id in stop_token_ids", token, "a whole number from 0", 0)
            object.__setattr__(self, "stop_token_ids", ids)

    def check_vocabulary(self, size: int) -> None:
        """Raises UsageError when a token id named here is not below `size`."""
        close = self.loops.close if self.loops else ()
        for name, ids in (
            ("logit_bias", self.logit_bias),
            ("stop_token_ids", self.stop_token_ids or ()),
            ("loops", close),
        ):
            for token in ids:
                if token >= size:
                    raise UsageError(f"{name} names token {token}; this model's vocabulary has {size}.")

    @property
    def plain(self) -> bool:
        """Whether the model's logits are used as they are, up to temperature and filters."""
        return (
            not self.logit_bias
            and self.repetition_penalty == 1
            and self.presence_penalty == 0
            and self.frequency_penalty == 0
        )

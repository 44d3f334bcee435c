"""A prompt as every engine takes it: whole, in the vocabulary, shorter than the context. Knows ids and limits only."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from motet.errors import UserError
from motet.model import ContextError


def check_prompt(ids: Sequence[int], vocabulary: int, context: int) -> list[int]:
    """The ids as a list of int. Raises ContextError when they leave no room for an answer, UserError for what is no prompt."""
    try:
        prompt = [operator.index(i) for i in ids]
    except TypeError:
        raise UserError("A prompt is a sequence of token ids; encode text first.") from None
    if not prompt:
        raise UserError("The prompt has no tokens; give at least one.")
    if len(prompt) >= context:
        raise ContextError(
            f"The prompt has {len(prompt)} tokens and the context {context}, which leaves no room for an answer; "
            "shorten the prompt."
        )
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        bad = next(i for i in prompt if not 0 <= i < vocabulary)
        raise UserError(f"Token id {bad} is not in this model's vocabulary of {vocabulary}.")
    return prompt

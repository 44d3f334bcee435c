"""What the fast parts share: functions that torch.compile may fuse, and gathering rows some of which are void."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


class Fused:
    """A function that torch.compile may fuse. Compilation takes seconds, so short runs and tests leave it off."""

    on: ClassVar[bool] = False

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """The function's own arguments and result."""
        if not Fused.on:
            return self.plain(*args)
        if self._compiled is None:
            self._compiled = torch.compile(self.plain)
        return self._compiled(*args)


def fuse(on: bool) -> None:
    """Let torch.compile fuse elementwise work from now on, in every model of this process."""
    import torch._dynamo

    Fused.on = on
    # Training, sampling and measuring see a function with different flags; past the limit it would no longer be fused.
    torch._dynamo.config.recompile_limit = 64


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """rows (M, ...) at index (...,), where M itself means a row of zeros."""
    padded = torch.cat((rows, rows.new_zeros(1, *rows.shape[1:])))
    return padded[index.reshape(-1)].view(*index.shape, *rows.shape[1:])

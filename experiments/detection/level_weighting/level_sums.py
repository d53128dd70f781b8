"""Sums of rows by pyramid level, in few operations: on a GPU each is a launch from the host."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps  # that MMDetection adds to a normaliser


@functools.lru_cache(maxsize=64)
def make_column(count: int, device: torch.device) -> Tensor:
    """Return the numbers from 0 to `count` - 1, (count, 1)."""
    return torch.arange(count, device=device)[:, None]


class SumByBin(torch.autograd.Function):
    """Sums of rows by bin in few operations, backward too; `index_add` would round differently each time on a GPU."""

    @staticmethod
    def forward(ctx: Any, count: int, bins: Tensor, *rows: Tensor) -> Tensor:
        """Return (count,) sums; bins (n,) are those of all rows (n_1,), (n_2,), ... one after another."""
        ctx.bins, ctx.sizes = bins, [*map(len, rows)]
        return torch.cat(rows).masked_fill(bins != make_column(count, bins.device), 0).sum(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Give each row the gradient of its bin."""
        return None, None, *gradient[ctx.bins].split(ctx.sizes)


@functools.lru_cache(maxsize=64)  # batches come in few shapes
def index_levels(rows: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the level of each row, where level k has `rows[k]` rows."""
    return torch.cat([torch.full((n,), k, device=device) for k, n in enumerate(rows)])

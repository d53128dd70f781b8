"""Values of one interval, kept on the device that makes them until the interval ends."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class IntervalBuffer:
    """Up to `length` rows of `width` float64 values; what a row leaves out is 0.

    Appending is one small copy on the values' device, without host synchronisation. Deliberately no module
    buffer: DistributedDataParallel may broadcast those from rank 0, and these values are each rank's own.
    """

    def __init__(self, length: int, width: int) -> None:
        self.length = length
        self.width = width
        self._values = torch.zeros(
            length * width, dtype=torch.float64
        )  # flat: one view for a row of any width
        self._filled = 0
        self._reduced = 0  # rows that are already the mean over ranks

    def __len__(self) -> int:
        return self._filled

    @property
    def is_full(self) -> bool:
        """Return whether the interval is complete."""
        return self._filled == self.length

    def append(self, row: Tensor) -> None:
        """Add a row of at most `width` values, without gradient."""
        if self._values.device != row.device:
            self._values = self._values.to(row.device)
        start = self._filled * self.width
        self._values[start : start + len(row)].copy_(row)
        self._filled += 1

    def synchronise(self) -> None:
        """Replace the rows by their mean over ranks: a collective, with the same number of rows on each.

        Each row is reduced once, so a run that saves in mid-interval and one that does not agree exactly.
        """
        if self._filled > self._reduced and dist.is_available() and dist.is_initialized():
            world_size = dist.get_world_size()
            if world_size > 1:
                rows = self._table()[self._reduced : self._filled]
                dist.all_reduce(rows)
                rows /= world_size
        self._reduced = self._filled

    def rows(self) -> Tensor:
        """Return the (n, width) rows so far, on the CPU: one transfer."""
        return self._table()[: self._filled].cpu().clone()

    def _table(self) -> Tensor:
        return self._values.view(self.length, self.width)

    def clear(self) -> None:
        """Begin the next interval."""
        self._filled = self._reduced = 0
        self._values.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the open interval."""
        return {"rows": self.rows(), "reduced": self._reduced}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the interval of `state_dict()`."""
        self._filled = len(state["rows"])
        self._reduced = state["reduced"]
        self._table()[: self._filled, : state["rows"].shape[1]].copy_(state["rows"])

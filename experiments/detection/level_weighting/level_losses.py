"""One head's level losses: their weights, their record over an interval, and the check that they are finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common.errors import NOT_FINITE, UserError
from experiments.weighting.base import Interval, WeightingRule
from experiments.weighting.buffer import IntervalBuffer


class NotFiniteError(UserError):
    """A loss became NaN or infinite."""

    def __init__(self, message: str) -> None:
        hint = "lower schedule.lr, lengthen schedule.warmup, or check the boxes: msdet data verify NAME"
        super().__init__(message, hint, NOT_FINITE)


@dataclass(frozen=True)
class LevelRecord:
    """One finished interval, as the trace shows it.

    Attributes:
        head: The head's name in the detector, `bbox_head` say.
        levels: K names, `P3` say, finest first.
        iteration: The optimizer step at which the interval ended, counted from 1.
        terms: Loss term to its (K,) interval means, unweighted.
        weights, action: In force during the interval.
        ious: (K,) mean IoU of the interval's positives with their targets (Fig 1), NaN at a level without any;
            None where the head does not tell.
        interval: The rule's statistics of it.
        reward, probabilities: As after the update at its end.
    """

    head: str
    levels: Sequence[str]
    iteration: int
    terms: Mapping[str, Tensor]
    weights: Tensor
    action: str | None
    ious: Tensor | None
    interval: Interval
    reward: int
    probabilities: Mapping[str, float]


class LevelLosses(nn.Module):
    """Weight the level losses of one head by a rule, and keep them for the trace.

    It adds nothing to the detector's state dict; its own `level_state` is saved beside it.

    Args:
        head: The head's name in the detector.
        levels: K level names, finest first.
        rule: The weighting rule over these levels.
    """

    def __init__(self, head: str, levels: Sequence[str], rule: WeightingRule) -> None:
        super().__init__()
        self.head = head
        self.levels = list(levels)
        self.rule = rule
        self.iteration = 0  # optimizer steps so far
        self._columns: list[str] = []  # level-wise terms first, then scalar losses of other heads
        self._num_terms = 0
        self._buffer: IntervalBuffer | None = None
        self._pending: Tensor | None = None  # sum over the micro-batches of the open optimizer step
        self._micro_batches = 0
        self._restored: dict[str, Any] | None = None

    def objective(
        self, terms: Mapping[str, Sequence[Tensor]], others: Mapping[str, Tensor], ious: Tensor | None = None
    ) -> Tensor:
        """Return the weighted sum of the level losses (Eq 1), and record every value.

        Args:
            terms: Loss term to its K scalars, one per level, with gradient.
            others: Scalar losses outside the levels; recorded for the check, not part of the returned sum.
            ious: (2, K), sum of the positives' IoUs and their number at each level; recorded for the trace.

        Returns:
            Scalar Σ_i w_i L_i, with a learnable rule's regulariser where it has one.
        """
        stacked = torch.stack([torch.stack([value.mean() for value in levels]) for levels in terms.values()])
        self._record_losses(list(terms), stacked, others, ious)
        objective = (self.rule.weights * stacked.sum(0)).sum()
        regulariser = getattr(self.rule, "regulariser", None)
        return objective if regulariser is None else objective + regulariser()

    def _record_losses(
        self, names: list[str], stacked: Tensor, others: Mapping[str, Tensor], ious: Tensor | None
    ) -> None:
        with torch.no_grad():
            parts = [stacked.detach().flatten(), *(v.detach().mean().reshape(1) for v in others.values())]
            row = torch.cat(parts if ious is None else [*parts, ious.flatten()])
            self._pending = row if self._pending is None else self._pending + row
        self._micro_batches += 1
        columns = [*names, *others]
        if not self._columns:
            self._columns, self._num_terms = columns, len(names)
        elif columns != self._columns:
            raise RuntimeError(
                f"{self.head}: the detector's losses changed from {self._columns} to {columns}"
            )

    def finish_step(self) -> LevelRecord | None:
        """End an optimizer step: the rule observes its mean level losses.

        Returns:
            The record of the interval, at an interval's end.

        Raises:
            NotFiniteError: A value of the interval is NaN or infinite (checked at its end).
        """
        if self._pending is None:
            return None
        row, self._pending = self._pending / self._micro_batches, None
        self._micro_batches = 0
        buffer = self._values(len(row))
        buffer.append(row)
        self.iteration += 1
        weights, action = self.rule.weights.detach(), self.rule.action
        means = None
        if buffer.is_full:
            self.synchronise()
            self.check_finite()
            means = buffer.rows().mean(0)
            buffer.clear()
        self.rule.observe(row[: self._num_terms * len(self.levels)].reshape(self._num_terms, -1).sum(0))
        return None if means is None else self._record(means, weights, action)

    def _record(self, means: Tensor, weights: Tensor, action: str | None) -> LevelRecord:
        assert self.rule.last is not None  # an interval has just ended
        by_term = means[: self._num_terms * len(self.levels)].reshape(self._num_terms, -1)
        iou_sums = means[self._num_losses :].reshape(-1, len(self.levels))  # two rows, or none
        probabilities = self.rule.probabilities
        names = getattr(self.rule, "actions", ())
        return LevelRecord(
            head=self.head,
            levels=self.levels,
            iteration=self.iteration,
            terms=dict(zip(self._columns, by_term)),
            weights=weights.cpu(),
            action=action,
            ious=iou_sums[0] / iou_sums[1] if len(iou_sums) else None,
            interval=self.rule.last,
            reward=self.rule.reward,
            probabilities={} if probabilities is None else dict(zip(names, probabilities.tolist())),
        )

    @property
    def _num_losses(self) -> int:
        """Return how many values of a row are losses; those behind them are of IoUs."""
        return self._num_terms * len(self.levels) + len(self._columns) - self._num_terms

    def _values(self, width: int) -> IntervalBuffer:
        if self._buffer is None:  # how many values a step has is known from the first step on
            self._buffer = IntervalBuffer(self.rule.alpha, width)
            if self._restored is not None:
                self._buffer.load_state_dict(self._restored)
                self._restored = None
        return self._buffer

    def synchronise(self) -> None:
        """Make the open interval the same on all ranks, before a checkpoint. A collective."""
        if self._buffer is not None:
            self._buffer.synchronise()
        self.rule.synchronise()

    def check_finite(self) -> None:
        """Check the open interval's values; costs one transfer.

        Raises:
            NotFiniteError: Names the first iteration, term and level that is not finite.
        """
        if self._buffer is None or not len(self._buffer):
            return
        rows = self._buffer.rows()[:, : self._num_losses]
        bad = (~torch.isfinite(rows)).nonzero()
        if len(bad):
            step, column = bad[0].tolist()
            value = "NaN" if torch.isnan(rows[step, column]) else "infinite"
            where = self._name(column)
            raise NotFiniteError(
                f"{where} became {value} at iteration {self.iteration - len(rows) + step + 1}"
            )

    def _name(self, column: int) -> str:
        term, level = divmod(column, len(self.levels))
        if term < self._num_terms:
            return f"{self._columns[term]} of level {self.levels[level]} ({self.head})"
        return self._columns[column - self._num_terms * (len(self.levels) - 1)]

    def level_state(self) -> dict[str, Any]:
        """Return everything a resumed run needs, the open interval included; no communication."""
        buffer = self._restored if self._buffer is None else self._buffer.state_dict()
        return {"iteration": self.iteration, "rule": self.rule.state_dict(), "columns": self._columns,
                "num_terms": self._num_terms, "values": buffer}  # fmt: skip

    def load_level_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `level_state()`."""
        self.iteration = state["iteration"]
        self.rule.load_state_dict(state["rule"])
        self._columns = list(state["columns"])
        self._num_terms = state["num_terms"]
        self._buffer, self._restored = None, state["values"]

"""One head's level losses: their record over an interval, and the check that they are finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common.errors import NOT_FINITE, UserError
from experiments.weighting.base import IntervalBuffer, WeightingRule

IOU_EVERY = 20  # optimizer steps of an interval, of which one tells the positives' IoUs


class NotFiniteError(UserError):
    """A loss became NaN or infinite."""

    def __init__(self, message: str) -> None:
        hint = "lower schedule.lr, lengthen schedule.warmup, or check the boxes: msdet data verify NAME"
        super().__init__(message, hint, NOT_FINITE)


class LevelLosses(nn.Module):
    """The level losses of one head, which its rule observes and the trace shows.

    It adds nothing to the detector's state dict; its own `level_state` is saved beside it.

    Args:
        head: The head's name in the detector, `bbox_head` say.
        levels: K level names, `P3` say, finest first.
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

    @property
    def tells_ious(self) -> bool:
        """Return whether the open optimizer step tells the positives' IoUs."""
        step = self.iteration % self.rule.alpha + 1
        return step % IOU_EVERY == 0 or step == self.rule.alpha

    def record(
        self, terms: list[str], others: list[str], values: list[Tensor], ious: Tensor | None = None
    ) -> None:
        """Record the values of one micro-batch, without gradients.

        Args:
            terms: Names of the loss terms that come by level.
            others: Names of losses outside the levels; recorded for the check.
            values: In one tensor or several (n,), each term's K unweighted values, then the others.
            ious: (2, K), sum of the positives' IoUs and their number at each level, where the step tells them.
        """
        columns = [*terms, *others]
        if not self._columns:
            self._columns, self._num_terms = columns, len(terms)
        elif columns != self._columns:
            raise RuntimeError(
                f"{self.head}: the detector's losses changed from {self._columns} to {columns}"
            )
        parts = values if ious is None else [*values, ious.flatten()]
        row = parts[0] if len(parts) == 1 else torch.cat(parts)
        self._pending = row if self._pending is None else self._pending + row
        self._micro_batches += 1

    def finish_step(self) -> list[dict[str, Any]]:
        """End an optimizer step: the rule observes its mean level losses.

        Returns:
            At an interval's end its rows of the trace, else none.

        Raises:
            NotFiniteError: A value of the interval is NaN or infinite (checked at its end).
        """
        if self._pending is None:
            return []
        row = self._pending if self._micro_batches == 1 else self._pending / self._micro_batches
        self._pending, self._micro_batches = None, 0
        if self._buffer is None:  # how many losses there are is known from the first step on
            self._buffer = self._make_buffer()
        self._buffer.append(row)
        self.iteration += 1
        size = self._num_terms * len(self.levels)
        losses = (row if len(row) == size else row[:size]).view(self._num_terms, -1).sum(0)
        if not self._buffer.is_full:
            self.rule.observe(losses)
            return []
        self.synchronise()
        self.check_finite()
        means = self._buffer.rows().mean(0)
        self._buffer.clear()
        weights, action = self.rule.weights.detach().cpu(), self.rule.action  # in force until now
        self.rule.observe(losses)
        return self._make_rows(means, weights, action)

    def _make_rows(self, means: Tensor, weights: Tensor, action: str | None) -> list[dict[str, Any]]:
        """Return one row of the trace per level, column to value; what is absent is None or left out.

        Losses are interval means, unweighted. `iou` is the mean IoU of positives with their targets (Fig 1) over the
        steps with `tells_ious`.
        """
        interval, probabilities = self.rule.last, self.rule.probabilities
        assert interval is not None  # one has just ended
        policy: dict[str, float] = {}
        if probabilities is not None:
            actions = getattr(self.rule, "actions", ())
            policy = {f"p_{name}": p for name, p in zip(actions, probabilities.tolist())}
        by_term = means[: self._num_terms * len(self.levels)].reshape(self._num_terms, -1)
        iou_sum, positives = means[self._num_losses :].reshape(2, -1)
        of_head = {
            "interval": interval.index,
            "iteration": self.iteration,
            "head": self.head,
            "action": action,
            "reward": self.rule.reward if policy else None,
            **policy,
        }
        # Of an RPN, too: `loss_rpn_cls` is that head's loss_cls.
        names = [name.replace("_rpn_", "_") for name in self._columns]
        terms = dict(zip(names, by_term.tolist()))
        of_levels = {
            "level": self.levels,
            "loss": [sum(values) for values in zip(*terms.values())],
            "variance": interval.variance.tolist(),
            "rate": interval.rate.tolist(),
            "iou": [None if math.isnan(iou) else iou for iou in (iou_sum / positives).tolist()],
            "weight": weights.tolist(),
            **terms,
        }
        return [{**of_head, **dict(zip(of_levels, values))} for values in zip(*of_levels.values())]

    @property
    def _num_losses(self) -> int:
        """Return how many values of a row are losses; those behind them are of IoUs."""
        return self._num_terms * len(self.levels) + len(self._columns) - self._num_terms

    def _make_buffer(self) -> IntervalBuffer:
        return IntervalBuffer(self.rule.alpha, self._num_losses + 2 * len(self.levels))

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
        buffer = None if self._buffer is None else self._buffer.state_dict()
        return {"iteration": self.iteration, "rule": self.rule.state_dict(), "columns": self._columns,
                "num_terms": self._num_terms, "values": buffer}  # fmt: skip

    def load_level_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `level_state()`."""
        self.iteration = state["iteration"]
        self.rule.load_state_dict(state["rule"])
        self._columns = list(state["columns"])
        self._num_terms = state["num_terms"]
        self._buffer = None
        if state["values"] is not None:
            self._buffer = self._make_buffer()
            self._buffer.load_state_dict(state["values"])

"""What all weighting rules share: the interval, its values and statistics over all ranks, and exact saving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class IntervalBuffer:
    """Up to `length` rows of `width` float64 values; what a row leaves out is 0.

    Appending is one small copy on the values' device, without host synchronisation. Deliberately no module
    buffer: DistributedDataParallel may broadcast those from rank 0, and these values are each rank's own.
    """

    def __init__(self, length: int, width: int) -> None:
        self.length = length
        self.width = width
        # Flat: one view for a row of any width.
        self._values = torch.zeros(length * width, dtype=torch.float64)
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


@dataclass(frozen=True)
class Interval:
    """Statistics of one interval of alpha iterations (paper, Eq 2-4); every tensor (K,), float64, on the CPU.

    Attributes:
        index: t, counted from 1.
        losses: 𝓛_t, the sum of each level's unweighted losses over the interval, mean over ranks (Eq 2).
        losses_before: 𝓛_{t-1}; zeros at t = 1.
        variance: Var_t, unbiased (Eq 3; the paper's "n" inside is read as alpha).
        rate: r_t, the rate at which the variance decreases (Eq 4), with Var_0 = 1.
    """

    index: int
    losses: Tensor
    losses_before: Tensor
    variance: Tensor
    rate: Tensor


class WeightingRule(nn.Module):
    """Turn the levels' losses of one interval into the levels' weights of the next.

    A rule of one's own overrides `update`, and `extra_state`/`load_extra_state` where it holds more state.
    Inside an interval `observe` is one small copy on the losses' device, without host synchronisation.

    A learnable rule defines `weights` as a property of its own parameters, which carries their gradient, and
    may offer `regulariser()`, a scalar added to the objective. Its weights change with every optimizer step.

    Args:
        num_levels: K.
        seed: Seeds `self.generator`, which neither consumes nor follows the global random state.
        alpha: Iterations (optimizer steps) per interval, at least 2.
        epsilon: ε in the rate of decrease (Eq 4).
    """

    weights: Tensor  # (K,) float32, in force now

    def __init__(self, num_levels: int, seed: int = 0, alpha: int = 100, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.alpha = alpha
        self.epsilon = epsilon
        self.generator = torch.Generator().manual_seed(seed)
        if not self.learnable:
            self.register_buffer("weights", torch.ones(num_levels), persistent=False)
        self.last: Interval | None = None  # the last complete interval
        self.action: str | None = None  # in force now
        self.reward = 0
        self.probabilities: Tensor | None = None
        self._losses = IntervalBuffer(alpha, num_levels)

    @property
    def learnable(self) -> bool:
        """Return whether the weights follow from parameters, not from the interval that has just ended."""
        return isinstance(getattr(type(self), "weights", None), property)

    def update(self, interval: Interval) -> Tensor:
        """Return the (K,) weights in force during the next interval; a learnable rule is not asked."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """Return what a rule holds beyond the base: tensors, numbers, strings, lists or dicts of them."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def observe(self, losses: Tensor) -> None:
        """Take the (K,) unweighted level losses of one optimizer step, after the step used `weights`.

        At the end of an interval this is a collective: every rank must have seen the same number of steps.
        """
        self._losses.append(losses.detach() if losses.requires_grad else losses)
        if self._losses.is_full:
            self._end_interval()

    def synchronise(self) -> None:
        """Make the open interval the same on all ranks, before rank 0 saves it. A collective."""
        self._losses.synchronise()

    def _end_interval(self) -> None:
        self.synchronise()
        losses = self._losses.rows()
        self._losses.clear()
        total = losses.sum(0)
        variance = ((losses - total / self.alpha) ** 2).sum(0) / (self.alpha - 1)
        last = self.last
        before = torch.ones_like(variance) if last is None else last.variance
        self.last = Interval(
            index=1 if last is None else last.index + 1,
            losses=total,
            losses_before=torch.zeros_like(total) if last is None else last.losses,
            variance=variance,
            rate=(before - variance) / (before + self.epsilon),
        )
        if not self.learnable:
            self._set_weights(self.update(self.last))

    def _set_weights(self, weights: Tensor) -> None:
        # A new tensor, not a change in place: whoever holds the old weights keeps what was in force.
        self.weights = weights.detach().to(dtype=torch.float32, device=self.weights.device)

    def state_dict(self, *args: Any, destination: dict | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return all that a resumed run needs, generator and open interval included; no communication.

        As a part of a detector a rule adds nothing to the detector's own state dict.
        """
        if destination is not None or args:
            return destination if destination is not None else args[0]
        state: dict[str, Any] = {
            "num_levels": self.num_levels,
            "alpha": self.alpha,
            "generator": self.generator.get_state(),
            "action": self.action,
            "reward": self.reward,
            "losses": self._losses.state_dict(),
            "last": None if self.last is None else dict(vars(self.last)),
            "parameters": {name: p.detach().cpu().clone() for name, p in self.named_parameters()},
            "extra": self.extra_state(),
        }
        if not self.learnable:
            state["weights"] = self.weights.cpu().clone()
        return state

    def load_state_dict(self, state: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: The state is of a rule with another number of levels or another interval.
        """
        for name in ("num_levels", "alpha"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{name}: the saved rule has {state[name]}, this one {getattr(self, name)}")
        self.generator.set_state(state["generator"].cpu())
        self.action = state["action"]
        self.reward = state["reward"]
        self._losses.load_state_dict(state["losses"])
        self.last = None
        if state["last"] is not None:
            last = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in state["last"].items()}
            self.last = Interval(**last)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(state["parameters"][name])
        if "weights" in state:
            self._set_weights(state["weights"])
        self.load_extra_state(state["extra"])

    # MMEngine walks a model's modules itself, past `state_dict`: these two keep the rule out of that, too.
    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        return

    def _load_from_state_dict(self, *args: Any) -> None:
        return

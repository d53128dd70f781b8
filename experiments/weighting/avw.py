"""Adaptive Variance Weighting: Section 3.2 and Eq 2-5 of the paper, https://arxiv.org/abs/2108.04014."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.weighting.base import Interval, WeightingRule


class AVW(WeightingRule):
    """Raise, after every interval, the `n` levels whose loss variance falls fastest (RLO's action a0, always).

    Args:
        n: N, levels whose loss is enhanced.
        amplification: λ of the first selected level, and of the others.
    """

    def __init__(
        self,
        num_levels: int,
        seed: int = 0,
        alpha: int = 100,
        n: int = 2,
        amplification: Sequence[float] = (1.5, 1.0),
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(num_levels, seed, alpha, epsilon)
        self.n = n
        self.amplification = tuple(amplification)

    def update(self, interval: Interval) -> Tensor:
        self.action = "variance"
        return compute_level_weights(self.action, interval, self.n, self.amplification)


def compute_level_weights(action: str, interval: Interval, n: int, amplification: Sequence[float]) -> Tensor:
    """Return the weights that an action puts in force (Section 3.3, a0..a3).

    Args:
        action: `variance` (a0, largest rate of decrease), `smallest` (a1) or `largest` (a2) loss, `uniform` (a3).
        interval: Statistics of the interval that has just ended.
        n: N, how many levels are selected.
        amplification: λ of the first selected level and of every other. The paper gives 1.5 to "the level
            with the maximal r"; for a1 and a2 it is read as the best level by that action's own key.

    Returns:
        (K,) float64; 1 for a level that is not selected, and for all where no level has any loss.
    """
    weights = torch.ones_like(interval.losses)
    total = interval.losses.sum()
    if action == "uniform" or total == 0:
        return weights
    key = {"variance": interval.rate, "smallest": -interval.losses, "largest": interval.losses}[action]
    selected = torch.sort(key, descending=True, stable=True).indices[:n]  # stable: ties go to the finer level
    factors = torch.full((len(selected),), amplification[1], dtype=weights.dtype)
    factors[0] = amplification[0]
    weights[selected] += factors * interval.losses[selected] / total
    return weights

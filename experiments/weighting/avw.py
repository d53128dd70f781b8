"""Adaptive Variance Weighting: Section 3.2 and Eq 2-5 of the paper, https://arxiv.org/abs/2108.04014."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from experiments.weighting.actions import compute_level_weights
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

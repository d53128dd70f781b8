"""Fixed weights: the control that asks whether a rule's mean weights alone explain its gain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.weighting.base import Interval, WeightingRule


class Static(WeightingRule):
    """w = the given K `weights`, finest level first, in force from the first iteration."""

    def __init__(
        self,
        num_levels: int,
        seed: int = 0,
        alpha: int = 100,
        epsilon: float = 1e-5,
        *,
        weights: Sequence[float],
    ) -> None:
        super().__init__(num_levels, seed, alpha, epsilon)
        self._fixed = torch.tensor(weights, dtype=torch.float32)
        self._set_weights(self._fixed)

    def update(self, interval: Interval) -> Tensor:
        return self._fixed

"""The baseline: every level weighs 1, as in stock MMDetection. Intervals still end, for the trace."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.weighting.base import Interval, WeightingRule


class Uniform(WeightingRule):
    """w = 1 (the paper's action a3 alone)."""

    def update(self, interval: Interval) -> Tensor:
        return torch.ones(self.num_levels)

"""Random Loss Weighting (Lin et al., https://arxiv.org/abs/2111.10603): a control that learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.weighting.base import Interval, WeightingRule


class Random(WeightingRule):
    """w = K softmax(z), z ~ N(0, 1)^K, drawn anew for each interval; 1 during the first, as for every rule."""

    def update(self, interval: Interval) -> Tensor:
        z = torch.randn(self.num_levels, dtype=torch.float64, generator=self.generator)
        return self.num_levels * torch.softmax(z, 0)

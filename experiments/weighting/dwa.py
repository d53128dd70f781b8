"""Dynamic Weight Average (Liu et al., CVPR 2019, https://arxiv.org/abs/1803.10704), over levels, not tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.weighting.base import Interval, WeightingRule

TEMPERATURE = 2.0  # the paper's T


class DWA(WeightingRule):
    """w = K softmax(ρ / 2), ρ_i = 𝓛_{i,t-1} / 𝓛_{i,t-2}: a level whose loss falls slowly weighs more.

    In force during interval t; 1 during the first two, which have no such ratio yet. The paper's epochs are
    intervals here. Where 𝓛_{i,t-2} is 0, a RoI head's level without RoIs say, ρ is read as 1: neither fallen
    nor risen.
    """

    def update(self, interval: Interval) -> Tensor:
        if interval.index < 2:
            return torch.ones(self.num_levels)
        before = interval.losses_before
        ratio = torch.where(before == 0, 1.0, interval.losses / before)
        return self.num_levels * torch.softmax(ratio / TEMPERATURE, 0)

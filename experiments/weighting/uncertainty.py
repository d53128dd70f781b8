"""Uncertainty weighting (Kendall et al., CVPR 2018, https://arxiv.org/abs/1705.07115), over levels, not tasks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.weighting.base import WeightingRule


class Uncertainty(WeightingRule):
    """Σ_i e^{-s_i} L_i / 2 + s_i / 2 with K learnable s_i = log σ_i², the logarithms of the levels' variances.

    s = 0 at the start, so every level begins with w = 1/2, half of what the baseline has. One s per level over
    all of its terms, in the form that the paper gives for regression. Intervals still end, for the trace.
    """

    def __init__(self, num_levels: int, seed: int = 0, alpha: int = 100, epsilon: float = 1e-5) -> None:
        super().__init__(num_levels, seed, alpha, epsilon)
        self.log_variances = nn.Parameter(torch.zeros(num_levels))

    @property
    def weights(self) -> Tensor:  # type: ignore[override]
        """(K,) float32 e^{-s} / 2, with gradient."""
        return torch.exp(-self.log_variances) / 2

    def regulariser(self) -> Tensor:
        """Scalar Σ_i s_i / 2, without which the weights would sink to 0."""
        return self.log_variances.sum() / 2

"""Makes a multi-level detector of MMDetection level-weighted: the mixin, and the detectors that have it.

In a user's own MMDetection config two lines do it, and stock `tools/train.py` trains with them:

    custom_imports = dict(imports=['experiments.detection'])
    model = dict(type='LevelWeightedRetinaNet', weighting=dict(rule='rlo'))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.detectors import RetinaNet
from mmdet.registry import MODELS
from torch import Tensor, nn

from experiments.detection.level_losses import LevelLosses
from experiments.weighting import build_weighting


def level_names(strides: Sequence[int | tuple[int, int]]) -> list[str]:
    """Pyramid levels by stride in pixels: 8 is P3, 16 is P4."""
    return [f"P{round(math.log2(s if isinstance(s, int) else s[0]))}" for s in strides]


class LevelWeighted:
    """Mixin before a one-stage detector whose head returns each loss as a list with one scalar per level.

    Training only: parameters, state dict and inference are those of the detector it is mixed into.

    Args:
        weighting: `rule` and its options, for `build_weighting`; without `seed`, the run's seed is used.

    Raises:
        ValueError: An option that is not allowed.
    """

    bbox_head: Any  # of the detector it is mixed into

    def __init__(self, *args: Any, weighting: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = dict(weighting or {"rule": "uniform"})
        self.weighting_seed = options.pop("seed", None)  # None: the hook seeds the rule with the run's seed
        self.weighting = nn.ModuleList()
        for head, names in self.weighted_heads().items():
            rule = build_weighting(num_levels=len(names), seed=self.weighting_seed or 0, **options)
            self.weighting.append(LevelLosses(head, names, rule))

    def weighted_heads(self) -> dict[str, list[str]]:
        """The heads whose levels are weighted, each with its level names, finest first."""
        return {"bbox_head": level_names(self.bbox_head.prior_generator.strides)}

    def level_terms(self, head: LevelLosses, losses: Mapping[str, Any]) -> dict[str, Sequence[Tensor]]:
        """Those of the detector's losses that are lists over the head's levels."""
        return {
            name: value
            for name, value in losses.items()
            if "loss" in name and isinstance(value, (list, tuple)) and len(value) == len(head.levels)
        }

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective with level weights (Eq 1). The logged terms are unweighted, `loss` is the objective."""
        _, log_vars = super().parse_losses(losses)
        remaining = [name for name in losses if "loss" in name]
        objective = 0
        for head in self.weighting:
            terms = self.level_terms(head, losses)
            if not terms:
                raise TypeError(
                    f"{type(self).__name__}: no loss of {head.head} is a list over {len(head.levels)} levels"
                )
            remaining = [name for name in remaining if name not in terms]
            others = {name: log_vars[name] for name in remaining}
            objective = objective + head.objective(terms, others)
        objective = objective + sum(log_vars[name] for name in remaining)
        log_vars["loss"] = objective
        return objective, log_vars


@MODELS.register_module()
class LevelWeightedRetinaNet(LevelWeighted, RetinaNet):
    """RetinaNet with one weight per pyramid level P3..P7 over classification and regression loss."""


# Which detector a recipe's `model` becomes.
LEVEL_WEIGHTED = {"RetinaNet": "LevelWeightedRetinaNet"}

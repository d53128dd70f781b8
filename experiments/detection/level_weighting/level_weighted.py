"""Makes a multi-level detector of MMDetection level-weighted: the mixins, and the detectors that have one.

In a user's own MMDetection config three lines do it, and stock `tools/train.py` trains with them:

    custom_imports = dict(imports=['experiments.detection'])
    custom_hooks = [dict(type='LevelWeightingHook')]
    model = dict(type='LevelWeightedRetinaNet', weighting=dict(rule='rlo'))
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors import ATSS, FCOS, FOVEA, FSAF, GFL, FasterRCNN, RetinaNet
from mmdet.registry import MODELS
from mmengine.runner import BaseLoop
from torch import Tensor, nn

from experiments.common.errors import UserError
from experiments.detection.level_weighting.level_losses import LevelLosses
from experiments.detection.level_weighting.level_wise import make_level_wise
from experiments.detection.level_weighting.refusals import check_roi_head, name_levels, refuse
from experiments.weighting import OptionError, build_weighting


class LevelWeighted:
    """Mixin before a one-stage detector whose head returns each loss as a list with one scalar per level.

    Heads of the families in `level_wise` are made to do so. Training only: parameters, state dict and inference are
    those of the detector it is mixed into.

    Args:
        weighting: `rule` and its options, for `build_weighting`; without `seed`, the run's seed is used. For a
            two-stage detector also `where`: which head is weighted.
        fast: Let heads ask the host for less; losses are equal to rounding.

    Raises:
        OptionError (a ValueError): An option that is not allowed, or a head whose levels cannot be told apart.
    """

    bbox_head: Any  # these two are of the detector it is mixed into
    training: bool

    def __init__(
        self, *args: Any, weighting: Mapping[str, Any] | None = None, fast: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.is_fast = fast
        options = dict(weighting or {"rule": "uniform"})
        self.weighting_seed = options.pop("seed", None)  # None: the hook seeds the rules with the run's seed
        self.where = options.pop("where", None)
        self.is_driven = False  # whether a LevelWeightingHook ends the optimizer steps
        self._made_weights: tuple[list, dict, Tensor] | None = None  # see `_value_weights`
        self.weighting = nn.ModuleList()
        for number, (head, names) in enumerate(self.weighted_heads().items()):
            seed = (self.weighting_seed or 0) + number
            rule = build_weighting(num_levels=len(names), seed=seed, **options)
            self.weighting.append(LevelLosses(head, names, rule))

    def train_step(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Train on a batch.

        Raises:
            UserError: No LevelWeightingHook drives the rule.
        """
        self.check_driven()
        return super().train_step(*args, **kwargs)

    def extract_feat(self, *args: Any, **kwargs: Any) -> Any:
        """Return the feature maps, the beginning of every loss; it is settled whether the loss tells IoUs.

        Raises:
            UserError: An MMEngine training runs without the hook. Inside another model, or a wrapper for several
                processes, `train_step` is not called.
        """
        if self.training and not self.is_driven and _is_inside_loop():
            self.check_driven()
        for head in self.weighting:
            module = self.head_of(head)
            module.should_tell_ious, module.level_ious = head.tells_ious, None
        return super().extract_feat(*args, **kwargs)

    def check_driven(self) -> None:
        """Check that a LevelWeightingHook drives the rule; without it the weights would stay at 1.

        Raises:
            UserError: Names the line that is missing.
        """
        if not self.is_driven:
            raise UserError(
                f"model: {type(self).__name__} trains without a LevelWeightingHook, so its rule never acts",
                "add to the config: custom_hooks = [dict(type='LevelWeightingHook')]",
            )

    def weighted_heads(self) -> dict[str, list[str]]:
        """Make the weighted heads level-wise; return each one's level names, finest first."""
        if self.where is not None:
            raise OptionError(
                f"where: '{self.where}' is not allowed: {type(self).__name__} has one head; leave it out"
            )
        return {"bbox_head": self._levels_of_head("bbox_head")}

    def _levels_of_head(self, name: str) -> list[str]:
        """Make a dense head of the detector level-wise, and return its level names."""
        head = getattr(self, name, None)
        if head is None:
            raise refuse(type(self).__name__, f"has no `{name}`")
        make_level_wise(head, self.is_fast)
        generator = getattr(head, "prior_generator", None)
        return name_levels(head, getattr(generator, "strides", None))

    def level_terms(self, head: LevelLosses, losses: Mapping[str, Any]) -> dict[str, Sequence[Tensor]]:
        """Return those of the detector's losses that are lists over the head's levels."""
        return {
            name: value
            for name, value in losses.items()
            if "loss" in name and isinstance(value, (list, tuple)) and len(value) == len(head.levels)
        }

    def head_of(self, head: LevelLosses) -> Any:
        """Return the module that computes the level losses."""
        return getattr(self, head.head, self)

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective with level weights (Eq 1), and what is logged: unweighted terms, and it as `loss`.

        On a GPU each operation is a launch, so all values are stacked once and weighted by one product.
        """
        scalars = {name: _scalars(value) for name, value in losses.items() if "loss" in name}
        owners: dict[str, LevelLosses] = {}
        for head in self.weighting:
            level_wise = self.level_terms(head, losses)
            if not level_wise:
                owner = type(getattr(self, head.head, self)).__name__
                raise refuse(owner, f"returns no loss as a list over its {len(head.levels)} levels")
            owners.update(dict.fromkeys(level_wise, head))
        weights = self._value_weights(scalars, owners)
        objective, values = WeightedSum.apply(
            weights, *(part for parts in scalars.values() for part in parts)
        )
        for head in self.weighting:
            regulariser = getattr(head.rule, "regulariser", None)
            objective = objective if regulariser is None else objective + regulariser()
        with torch.no_grad():
            parts = dict(zip(scalars, values.split([*map(len, scalars.values())])))
            totals = {name: part.sum() for name, part in parts.items()}
            others = [name for name in scalars if name not in owners]
            outside = [torch.stack([totals[name] for name in others])] if others else []
            for head in self.weighting:
                terms = [name for name, owner in owners.items() if owner is head]
                own = [values] if terms == [*scalars] else [*(parts[name] for name in terms), *outside]
                head.record(terms, others, own, getattr(self.head_of(head), "level_ious", None))
        logged = {name: totals[name] if name in totals else sum(_scalars(v)) for name, v in losses.items()}
        return objective, {"loss": objective, **logged}

    def _value_weights(
        self, scalars: Mapping[str, Sequence[Tensor]], owners: Mapping[str, LevelLosses]
    ) -> Tensor:
        """Return the weight of each value, 1 outside of the levels; made anew only when a rule has new weights."""
        weights = {name: owners[name].rule.weights if name in owners else None for name in scalars}
        key = [(n, len(scalars[n]), None if w is None else (id(w), w._version)) for n, w in weights.items()]
        if self._made_weights is not None and self._made_weights[0] == key:
            return self._made_weights[-1]
        ones = self.weighting[0].rule.weights.new_ones
        made = torch.cat([ones(len(scalars[name])) if w is None else w for name, w in weights.items()])
        self._made_weights = None if made.requires_grad else (key, weights, made)  # what has an id must live
        return made


class WeightedSum(torch.autograd.Function):
    """Σ weight · value in few operations, backward too, and the values stacked, without gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        """Return a scalar and (n,) of n scalars."""
        stacked = torch.stack(values)
        ctx.weights, ctx.values = weights, stacked
        ctx.mark_non_differentiable(stacked)
        ctx.set_materialize_grads(False)
        return (weights * stacked).sum(), stacked

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        """Give each value its weight, and a learnable rule's weights the values."""
        to_weights = gradient * ctx.values if ctx.needs_input_grad[0] else None
        return to_weights, *(gradient * ctx.weights).unbind()


def _scalars(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the means of a loss, or of the list that it is."""
    parts = [value] if isinstance(value, Tensor) else value
    return [part if part.dim() == 0 else part.mean() for part in parts]


def _is_inside_loop() -> bool:
    """Return whether a loop of MMEngine's is among the callers.

    MMEngine has no current runner to ask, and what its message hub says outlives a training that has failed.
    """
    frames = (frame for frame, _ in traceback.walk_stack(sys._getframe()))
    return any(isinstance(frame.f_locals.get("self"), BaseLoop) for frame in frames)


class LevelWeightedTwoStage(LevelWeighted):
    """Mixin before a two-stage detector: weights the levels of its RoI head, its RPN, or both.

    In the RoI head each sampled RoI counts at the level that it is pooled from. The RPN's loss is left as it is by
    default: the paper's Fig 2 omits the RPN, and Section 3.1 speaks of "the detection head of each scale". `both` means
    two independent rules, the RPN's seeded with the run's seed and the RoI head's with the next. What other heads add,
    the loss of masks say, stays as it is.
    """

    rpn_head: Any
    roi_head: Any

    def weighted_heads(self) -> dict[str, list[str]]:
        where = self.where or "roi"
        if where not in ("roi", "rpn", "both"):
            raise OptionError(f"where: {where!r} is not allowed: roi, rpn or both")
        heads = {}
        if where != "roi":
            heads["rpn_head"] = self._levels_of_head("rpn_head")
        if where != "rpn":
            check_roi_head(self)
            extractor, box_head = self.roi_head.bbox_roi_extractor, self.roi_head.bbox_head
            make_level_wise(box_head)
            box_head.level_of, box_head.num_levels = extractor.map_roi_levels, extractor.num_inputs
            heads["roi_head"] = name_levels(self.roi_head, extractor.featmap_strides)
        return heads

    def level_terms(self, head: LevelLosses, losses: Mapping[str, Any]) -> dict[str, Sequence[Tensor]]:
        lists = super().level_terms(head, losses)
        return {name: terms for name, terms in lists.items() if ("rpn" in name) == (head.head == "rpn_head")}

    def head_of(self, head: LevelLosses) -> Any:
        return self.roi_head.bbox_head if head.head == "roi_head" else super().head_of(head)


@MODELS.register_module()
class LevelWeightedRetinaNet(LevelWeighted, RetinaNet):
    """RetinaNet (with GHM losses, too), P3..P7: classification and regression loss."""


@MODELS.register_module()
class LevelWeightedFCOS(LevelWeighted, FCOS):
    """FCOS, P3..P7: classification, regression and centerness loss under one weight."""


@MODELS.register_module()
class LevelWeightedATSS(LevelWeighted, ATSS):
    """ATSS, P3..P7: classification, regression and centerness loss under one weight."""


@MODELS.register_module()
class LevelWeightedGFL(LevelWeighted, GFL):
    """Generalized Focal Loss, P3..P7: quality, regression and distribution loss under one weight."""


@MODELS.register_module()
class LevelWeightedFSAF(LevelWeighted, FSAF):
    """FSAF, P3..P7; it chooses each object's level by the unweighted losses."""


@MODELS.register_module()
class LevelWeightedFOVEA(LevelWeighted, FOVEA):
    """FoveaBox, P3..P7: classification and regression loss."""


@MODELS.register_module()
class LevelWeightedFasterRCNN(LevelWeightedTwoStage, FasterRCNN):
    """Faster R-CNN: P2..P5 of the RoI head, P2..P6 of the RPN."""


# Which detector a recipe's `model` becomes.
LEVEL_WEIGHTED = {
    name: f"LevelWeighted{name}"
    for name in ("ATSS", "FCOS", "FOVEA", "FSAF", "FasterRCNN", "GFL", "RetinaNet")
}

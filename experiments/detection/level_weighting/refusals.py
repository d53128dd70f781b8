"""Heads, detectors and losses that cannot be weighted by level: refused when the model is built, with the reason.

The reasons of MMDetection's own heads are data: a head is refused for the class whose loss code it runs, so a subclass
that keeps that code is refused too, and one that computes its losses anew is not. What a user's own head returns is
known at the first step only; `LevelWeighted.parse_losses` checks it there.
"""

from __future__ import annotations

import math
from typing import Any

from mmdet.models import losses, roi_heads
from torch import nn

from experiments.common.errors import UserError
from experiments.weighting import OptionError


class NotLevelWiseError(UserError, OptionError):
    """The losses of a model cannot be told apart by pyramid level."""


ONE_NUMBER = "returns each loss as one number for all levels"
ONE_MAP = "predicts from one feature map, not from pyramid levels"
STAGES = "refines its predictions in stages, each with losses of its own"
NO_STRIDES = "has no `prior_generator.strides`, which name the levels"

# The class whose `loss_by_feat` (of a box head: `loss`) a head runs, and why its levels cannot be weighted.
REASONS: dict[str, str] = {
    name: reason
    for reason, names in {
        ONE_NUMBER: "ATSSVLFusionHead AutoAssignHead CenterNetUpdateHead CondInstBboxHead FreeAnchorRetinaHead LADHead "
        "MultiInstanceBBoxHead PAAHead PISARetinaHead SABLHead VFNetHead YOLOXHead",
        ONE_MAP: "CenterNetHead CentripetalHead CornerHead YOLOFHead",
        STAGES: "CascadeRPNHead",
        NO_STRIDES: "GARPNHead GuidedAnchorHead SABLRetinaHead",
        "lists its losses per image, not per level": "PISASSDHead SSDHead YOLACTHead",
        "returns its mask loss as one number for all levels": "RTMDetInsHead",
        "predicts from queries, which belong to no level": "DDQDETRHead DETRHead DINOHead DeformableDETRHead "
        "EmbeddingRPNHead MaskFormerHead",
        "predicts lanes, which belong to no level": "CLRHead",
    }.items()
    for name in names.split()
}
# Losses that ignore `reduction_override`, and so never tell the loss of a row.
WITHOUT_ROWS = (losses.GHMC, losses.GHMR, losses.EQLV2Loss)


def explain_refusal(head: type) -> str | None:
    """Return why the levels of a class of heads cannot be weighted; None where they can, or nobody knows."""
    for method in ("loss_by_feat", "loss"):
        owner = next((c for c in head.__mro__ if method in vars(c)), None)
        if owner is not None:
            of_mmdet = owner.__module__.startswith("mmdet.")
            return REASONS.get(owner.__name__) if of_mmdet else None
    return None


def refuse(name: str, reason: str) -> NotLevelWiseError:
    """Return the error that refuses the head, detector or loss of that name."""
    return NotLevelWiseError(f"rule: {name} {reason}, so its levels cannot be weighted")


def name_levels(owner: nn.Module, strides: Any) -> list[str]:
    """Return the names of a head's pyramid levels, finest first: stride 8 is P3, 16 is P4.

    Args:
        owner: Has the strides; named in the error.
        strides: In pixels, one a level, as MMDetection keeps them: a number, or one for each side.

    Raises:
        NotLevelWiseError: There are none, there is one level only, or the finest level does not come first.
    """
    name = type(owner).__name__
    if strides is None:
        raise refuse(name, NO_STRIDES)
    pixels = [s if isinstance(s, int) else s[0] for s in strides]
    if len(pixels) < 2:
        raise refuse(name, ONE_MAP)
    if pixels != sorted(pixels):
        raise refuse(name, f"lists its levels coarsest first (strides {', '.join(map(str, pixels))})")
    return [f"P{round(math.log2(stride))}" for stride in pixels]


def check_roi_head(detector: Any) -> None:
    """Refuse a two-stage detector whose box losses have no level, or do not come from one box head.

    Args:
        detector: Level-weighted, with `roi_head`, `rpn_head` and `where`, the option as the user gave it.

    Raises:
        NotLevelWiseError: Names the detector, the class at fault and the reason; says where the RPN can be weighted.
    """
    roi_head = getattr(detector, "roi_head", None)
    owner, reason = roi_head, None
    if roi_head is None:
        owner, reason = detector, "has no `roi_head`"
    elif isinstance(roi_head.bbox_head, nn.ModuleList):
        reason = STAGES
    elif not hasattr(roi_head.bbox_roi_extractor, "map_roi_levels"):
        owner, reason = roi_head.bbox_roi_extractor, "pools a RoI from all levels"
    elif isinstance(roi_head, roi_heads.GridRoIHead):
        reason = "returns loss_grid as one number for all levels"
    elif isinstance(roi_head, roi_heads.PISARoIHead) and (roi_head.train_cfg or {}).get("carl"):
        reason = "returns loss_carl (train_cfg.rcnn.carl) as one number for all levels"
    if reason is not None:
        rpn = getattr(detector, "rpn_head", None)
        hint = (
            "; where: rpn weights the RPN" if rpn is not None and explain_refusal(type(rpn)) is None else ""
        )
        name = f"{type(detector).__name__}: {type(owner).__name__}"
        is_default = detector.where is None  # the option that the user set is named
        option = "rule" if is_default else f"where: {detector.where!r} is not allowed"
        raise NotLevelWiseError(f"{option}: {name} {reason}, so its levels cannot be weighted{hint}")


def has_row_loss(module: nn.Module) -> bool:
    """Return whether a loss can be asked for the loss of every row."""
    return not isinstance(module, WITHOUT_ROWS) and getattr(module, "reduction", "mean") == "mean"


def check_row_loss(name: str, module: nn.Module, head: nn.Module) -> None:
    """Refuse a loss of a head with all levels in one tensor that cannot be asked for the loss of every row.

    Raises:
        NotLevelWiseError: Names the loss, `loss_cls` say, and the head.
    """
    if isinstance(module, losses.SeesawLoss) and not module.return_dict:
        # It adds a part over positives to a part over all rows, which differ in length before they are summed.
        raise NotLevelWiseError(
            f"{name}: SeesawLoss cannot be split by level with return_dict=False; leave it out"
        )
    if not has_row_loss(module):
        raise NotLevelWiseError(
            f"{name}: {type(module).__name__} in {type(head).__name__} cannot be split by level; use a loss"
            " with reduction 'mean' that the head normalises"
        )

"""Heads that tell the losses of each pyramid level.

MMDetection's multi-level heads come in two kinds. Most compute their losses level by level and return lists, finest
level first. The others (FCOS, FoveaBox, the RoI head) put all levels into one tensor and return one number; that is
split here: the head's own loss modules are asked for the loss of every row, rows are summed by level, and each sum is
divided by the head's own normaliser of *all* rows. So the parts add up to what the head returns by itself.

`make_level_wise` gives a head a class derived from its own, so that weights, names, targets and inference stay as they
are; what each family of heads needs is a few lines in a mixin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, FoveaHead, FSAFHead, GFLHead, RPNHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from experiments.detection.level_weighting.batched_anchors import BatchedAnchors, CachedAnchors, can_batch
from experiments.detection.level_weighting.level_sums import EPSILON, SumByBin, index_levels
from experiments.detection.level_weighting.localisation import LevelWise
from experiments.detection.level_weighting.refusals import ONE_NUMBER, check_row_loss, explain_refusal, refuse
from experiments.detection.models.guided_loss import GuidedRetinaHead


class ListedLevels(LevelWise):
    """Mixin of AnchorHead: a list over levels already; every anchor is regressed, with weight 0 if not positive."""

    def loss_by_feat(self, cls_scores: Sequence[Tensor], *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._level = -1
        losses = super().loss_by_feat(cls_scores, *args, **kwargs)  # type: ignore[misc]
        self._sum_ious(len(cls_scores), cls_scores[0])
        return losses

    def loss_by_feat_single(self, *args: Any, **kwargs: Any) -> Any:
        self._level += 1  # called once per level, finest first
        return super().loss_by_feat_single(*args, **kwargs)  # type: ignore[misc]

    def _row_levels(self, rows: Tensor) -> Tensor:
        return torch.full((len(rows),), self._level, device=rows.device)

    def _positive(self, *weights: Tensor) -> Tensor | None:
        return (weights[0] > 0).any(1)


class BatchedLevels(ListedLevels):
    """Mixin of AnchorHead with BatchedAnchors, whose losses are called once for all levels."""

    row_levels: Tensor  # (n,) of the rows of all levels, and whether each is a positive
    positive_rows: Tensor

    def _row_levels(self, rows: Tensor) -> Tensor:
        return self.row_levels

    def _positive(self, *weights: Tensor) -> Tensor:
        return self.positive_rows


class ListedPositives(ListedLevels):
    """Mixin of ATSS and GFL: lists, whose `loss_bbox` is given positives only, as decoded boxes."""

    def _positive(self, *weights: Tensor) -> None:
        return None

    def _boxes(self, regression: Tensor) -> Tensor:
        return regression


class ChosenLevels(ListedLevels):
    """Mixin of FSAF, which moves each object to the level of least loss: only positives that stay there count.

    The choice is made on the losses as they are, before any weight.
    """

    def reweight_loss_single(self, *args: Any, **kwargs: Any) -> Any:
        result = super().reweight_loss_single(*args, **kwargs)  # type: ignore[misc]
        level, chosen = args[4], result[2]
        if self.should_tell_ious:
            self._seen[level].positive = chosen
        return result


class SplitLevels(LevelWise):
    """Splits the losses of a head that puts all levels into one tensor.

    Inside `_split` the head's loss modules give the loss of each row. What the head then returns in place of each loss
    is not used, but for the batches on which it does not call a module.
    """

    num_classes: int
    _levels: Tensor | None = None  # (n,) level of every row that is classified; None outside of `_split`

    def prepare(self) -> None:
        for name, module in self.named_children():  # type: ignore[attr-defined]
            if name.startswith("loss_"):
                check_row_loss(name, module, self)
                module.register_forward_pre_hook(self._ask_for_rows, with_kwargs=True)
                module.register_forward_hook(functools.partial(self._keep_rows, name), with_kwargs=True)
        super().prepare()

    def _split(self, levels: Tensor, count: int, loss: Callable[[], dict]) -> dict:
        """Return the head's losses with a list over `count` levels in place of each scalar.

        `levels` (n,) are those of every classified row; `loss` computes the head's own losses.
        """
        self._levels, self._positives = levels, None
        self._rows: dict[str, Tensor] = {}  # term to the loss of each of its rows, normalised
        try:
            losses = loss()
            terms = self._sum_by_level(count)
            self._sum_ious(count, levels)
        finally:
            self._levels = self._positives = None
            self._rows = {}  # a graph that is kept could not be copied
        # Without positives a loss module is not called: what the head returns instead is zero, and stays
        # connected to the predictions, or detached from them, as it is.
        for name, value in losses.items():
            if "loss" in name and name not in terms:
                terms[name] = [value / count] * count
        return {**losses, **terms}

    def _ask_for_rows(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        return None if self._levels is None else (args, {**kwargs, "reduction_override": "none"})

    def _keep_rows(self, name: str, module: nn.Module, args: tuple, kwargs: dict, rows: Any) -> None:
        if self._levels is None:
            return
        if name == "loss_cls":
            self._labels = args[1]
        # Seesaw loss is a dict: a part over the positives, zero where there are none, and one over all rows.
        parts = rows if isinstance(rows, dict) else {name: rows}
        normaliser = kwargs.get("avg_factor")
        for key, value in parts.items():
            if value.dim() == 0 and parts is not rows:
                raise refuse(type(module).__name__, ONE_NUMBER)
            if value.dim() > 0:
                divisor = len(value) if normaliser is None else normaliser + EPSILON
                self._rows[key] = (value.flatten(1).sum(1) if value.dim() > 1 else value) / divisor

    def _sum_by_level(self, count: int) -> dict[str, list[Tensor]]:
        """Return the sums of all terms by level: one reduction, since on a GPU each operation is a launch."""
        if not self._rows:
            return {}
        rows = [*self._rows.values()]
        bins = torch.cat([self._levels_of(len(each)) + count * term for term, each in enumerate(rows)])
        sums = SumByBin.apply(count * len(rows), bins, *rows).unbind()
        return {name: [*sums[count * i : count * (i + 1)]] for i, name in enumerate(self._rows)}

    def _levels_of(self, count: int) -> Tensor:
        """Return the (count,) levels of rows, which are all that are classified, or the positives among them."""
        assert self._levels is not None
        if count == len(self._levels):
            return self._levels
        if self._positives is None:
            # The rows of the positives, found without asking the host how many there are.
            positive = (self._labels >= 0) & (self._labels < self.num_classes)
            numbers = torch.arange(1, count + 1, device=positive.device)
            self._positives = self._levels[torch.searchsorted(positive.cumsum(0), numbers)]
        return self._positives

    def _row_levels(self, rows: Tensor) -> Tensor:
        return self._levels_of(len(rows))

    def _record_box_loss(self, module: nn.Module, args: tuple, loss: Tensor) -> None:
        if self._levels is not None:
            super()._record_box_loss(module, args, loss)


class FlatLevels(SplitLevels):
    """Mixin of FCOS: the levels one after another, each with its rows of all images; `loss_bbox` is given boxes."""

    def loss_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        rows = tuple(len(score) * score.shape[-2:].numel() for score in cls_scores)
        own = functools.partial(super().loss_by_feat, cls_scores, bbox_preds, *args, **kwargs)  # type: ignore[misc]
        return self._split(index_levels(rows, cls_scores[0].device), len(rows), own)

    def _boxes(self, regression: Tensor) -> Tensor:
        return regression


class FoveaLevels(FlatLevels):
    """Mixin of FoveaBox: as FCOS, but `loss_bbox` is given the logarithms of the distances to a box's sides."""

    def _boxes(self, regression: Tensor) -> Tensor:
        left, top, right, bottom = regression.exp().unbind(1)
        return torch.stack([-left, -top, right, bottom], 1)


class RoILevels(SplitLevels):
    """Mixin of a RoI head's box head: each sampled RoI counts at the level that it is pooled from.

    Attributes:
        level_of: (n, 5) RoIs as image, x1, y1, x2, y2 -> (n,) level; set by the detector, with `num_levels`.
    """

    level_of: Callable[[Tensor, int], Tensor]
    num_levels: int

    def loss(
        self,
        cls_score: Tensor | None,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        *args: Any,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> dict:
        own = functools.partial(super().loss, cls_score, bbox_pred, rois, labels, *args, **kwargs)  # type: ignore[misc]
        if reduction_override is not None:  # a sampler asks for the loss of every RoI, before any is chosen
            return own(reduction_override=reduction_override)
        losses = self._split(self.level_of(rois, self.num_levels), self.num_levels, own)
        if cls_score is not None and not cls_score.numel():  # MMDetection leaves this loss out without a RoI
            losses = {"loss_cls": [cls_score.new_zeros(())] * self.num_levels, **losses}
        return losses


# The first family that fits a head counts, and only if the head has the family's own way to its losses.
FAMILIES: list[tuple[type, type[LevelWise]]] = [
    (FSAFHead, ChosenLevels),
    (ATSSHead, ListedPositives),
    (GFLHead, ListedPositives),
    (GuidedRetinaHead, ListedLevels),
    (RPNHead, ListedLevels),
    (AnchorHead, ListedLevels),
    (FoveaHead, FoveaLevels),
    (FCOSHead, FlatLevels),
    (BBoxHead, RoILevels),
]
LOSS_METHODS = ("loss_by_feat", "loss_by_feat_single", "loss")


@functools.cache  # one class for the same bases, so that copies of a head are of its type
def derive_class(mixin: type, base: type, *below: type) -> Any:
    """Return the class of a level-wise head: its family's mixin, its own class, what stands in for AnchorHead."""
    return type(f"LevelWise{base.__name__}", (mixin, base, *below), {"__reduce_ex__": _reduce})


def make_head(*bases: type) -> Any:
    """Return a level-wise head without attributes, for pickle to fill."""
    cls = derive_class(*bases)
    return cls.__new__(cls)


def _reduce(head: Any, protocol: int) -> tuple:
    # Pickle finds classes by name, and a class made at run time has none: it is named by its bases.
    return make_head, type(head).__bases__, *object.__reduce_ex__(head, 2)[2:]


def make_level_wise(head: Any, fast: bool = False) -> None:
    """Give a head a class derived from its own that tells levels apart.

    A head of another family, or one that computes its losses in its own way, stays as it is: it is level-wise if
    it returns lists over levels by itself, and may set `level_ious`, too.

    Args:
        fast: Ask the host for less; equal to rounding. See `batched_anchors`.

    Raises:
        NotLevelWiseError: The head does not tell its losses by level, or has a loss that cannot be split.
    """
    reason = explain_refusal(type(head))
    if reason is not None:
        raise refuse(type(head).__name__, reason)
    family, mixin = next((pair for pair in FAMILIES if isinstance(head, pair[0])), (None, None))
    own = [getattr(type(head), name, None) for name in LOSS_METHODS]
    if mixin is not None and own == [getattr(family, name, None) for name in LOSS_METHODS]:
        # The class changes, not the head: it is built already, by a config that names a class of MMDetection's or
        # the user's own, and a head of one more registered class would have to repeat their parameters.
        below: tuple[type, ...] = ()
        if fast and mixin is ListedLevels and can_batch(head):
            mixin, below = BatchedLevels, (BatchedAnchors,)
        elif fast and isinstance(head, AnchorHead):
            below = (CachedAnchors,)
        head.__class__ = derive_class(mixin, type(head), *below)  # type: ignore[arg-type]
        head.prepare()

"""Anchor heads that ask the host for less, for `--fast`: the same targets and losses, to the rounding of sums.

MMDetection makes anchors anew at each step, assigns them image by image and box by box, reads numbers from the device
on the way, and calls each loss once a level. Here anchors are kept by shape, nothing is read, and each loss is called
once for all levels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.models.task_modules.samplers import PseudoSampler
from torch import Tensor

from experiments.detection.level_weighting.level_sums import EPSILON, SumByBin, index_levels
from experiments.detection.level_weighting.refusals import has_row_loss

KEPT_SHAPES = 32  # of batches; at 1333 x 800 the anchors of one take 3 MB


class CachedAnchors(AnchorHead):
    """Stands between a head's class and AnchorHead: anchors and their valid flags are kept for each shape."""

    def get_anchors(
        self, featmap_sizes: Sequence[Any], batch_img_metas: Sequence[dict], device: Any = "cuda"
    ) -> tuple[list, list]:
        """Return anchors and valid flags by image and level."""
        where = self.prior_generator, tuple(map(tuple, featmap_sizes)), torch.device(device)
        anchors = [[*_anchors(*where)] for _ in batch_img_metas]
        return anchors, [[*_valid(*where, tuple(meta["pad_shape"][:2]))] for meta in batch_img_metas]


class BatchedAnchors(CachedAnchors):
    """Stands there, too: targets of all images and losses of all levels at once, for heads that `can_batch` admits."""

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, list[Tensor]]:
        """Return the losses of each level, finest first."""
        images, device = len(batch_img_metas), cls_scores[0].device
        where = self.prior_generator, tuple(tuple(score.shape[-2:]) for score in cls_scores), device
        by_level = _anchors(*where)
        anchors, rows = torch.cat(by_level), tuple(map(len, by_level))
        outside = [_outside(*where, tuple(meta["pad_shape"][:2])) for meta in batch_img_metas]
        assigned = self._assign(anchors, batch_gt_instances, outside)
        positive = assigned > 0
        targets = self._targets(anchors, batch_gt_instances, assigned, positive)
        counts = positive.sum(1)
        self._raw_positive_infos = {"num_positives": counts.sum()}
        self.row_levels = index_levels(rows, device).repeat(images)
        try:
            losses = self.loss_by_feat_single(
                _flat(cls_scores, self.cls_out_channels),
                _flat(bbox_preds, self.bbox_coder.encode_size),
                anchors,
                *targets,
                positive,
                avg_factor=counts.clamp(min=1).sum(),
            )
        finally:
            del self.row_levels
        return {name: [*loss.unbind()] for name, loss in zip(("loss_cls", "loss_bbox"), losses)}

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchors: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return (K,) classification and (K,) regression losses.

        Args:
            cls_score, bbox_pred: (images, anchors, channels) of all levels.
            anchors: (anchors, 4).
            labels, label_weights, bbox_weights: (images, anchors), the last whether it is a positive.
            bbox_targets: (images, anchors, 4).
            avg_factor: The normaliser, on the device.
        """
        bbox_pred, targets = bbox_pred.flatten(0, 1), bbox_targets.flatten(0, 1)
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchors.repeat(len(labels), 1), bbox_pred)
        self.positive_rows = bbox_weights.flatten()
        cls_rows = self.loss_cls(
            cls_score.flatten(0, 1), labels.flatten(), label_weights.flatten(), reduction_override="none"
        )
        # With weights, MMDetection's box losses ask the device whether any is above 0.
        bbox_rows = self.loss_bbox(bbox_pred, targets, reduction_override="none")
        bbox_rows = _row_sums(bbox_rows) * self.positive_rows
        del self.positive_rows
        levels = self.prior_generator.num_levels
        bins = torch.cat([self.row_levels, self.row_levels + levels])
        sums = SumByBin.apply(2 * levels, bins, _row_sums(cls_rows), bbox_rows)
        loss_cls, loss_bbox = (sums / (avg_factor + EPSILON)).split(levels)
        return loss_cls, loss_bbox

    def _assign(self, anchors: Tensor, instances: Sequence[Any], outside: Sequence[Tensor | None]) -> Tensor:
        """Return (images, anchors): -1 ignored, 0 background, else a box of the batch's, counted from 1."""
        rows, before = [], 0
        for gts, invalid in zip(instances, outside):
            if len(gts):
                overlaps = _overlaps(gts.bboxes, anchors)
                if invalid is not None:
                    overlaps = overlaps.masked_fill(invalid, -1)
                row = _assign_by_overlaps(self.assigner, overlaps, before + 1)
            else:
                row = anchors.new_zeros(len(anchors), dtype=torch.long)
            rows.append(row if invalid is None else row.masked_fill(invalid, -1))
            before += len(gts)
        return torch.stack(rows)

    def _targets(
        self, anchors: Tensor, instances: Sequence[Any], assigned: Tensor, positive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels, their weights and (images, anchors, 4) regression targets."""
        boxes = torch.cat([gts.bboxes for gts in instances])
        labels = torch.cat([gts.labels for gts in instances])
        if not len(boxes):  # any will do where no anchor is a positive
            boxes, labels = anchors[:1], assigned.new_zeros(1)
        chosen = (assigned - 1).clamp(min=0)
        targets = boxes[chosen]
        if not self.reg_decoded_bbox:
            flat = self.bbox_coder.encode(anchors.repeat(len(assigned), 1), targets.flatten(0, 1))
            targets = flat.view_as(targets)
        weights = (assigned >= 0).float()
        if self.train_cfg["pos_weight"] > 0:
            weights = weights.masked_fill(positive, self.train_cfg["pos_weight"])
        return (
            torch.where(positive, labels[chosen], self.num_classes),
            weights,
            torch.where(positive[..., None], targets, 0),
        )


def can_batch(head: Any) -> bool:
    """Return whether all images and levels of a head can be worked on at once, as MMDetection does it one by one."""
    assigner: Any = getattr(head, "assigner", None)
    kind = type(head)
    return (
        type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and assigner.iou_calculator.dtype is None
        and isinstance(assigner.neg_iou_thr, float)
        and assigner.gt_max_assign_all
        and assigner.ignore_iof_thr <= 0  # else boxes that are ignored take part
        and assigner.gpu_assign_thr <= 0
        and assigner.perm_repeat_gt_cfg is None
        and type(head.sampler) is PseudoSampler
        and head.train_cfg["allowed_border"] < 0
        and not head.prior_generator.use_box_type
        and kind.get_targets is AnchorHead.get_targets
        and kind._get_targets_single is AnchorHead._get_targets_single
        and all(map(has_row_loss, (head.loss_cls, head.loss_bbox)))
    )


def _overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return (boxes, anchors) IoUs, computed as BboxOverlaps2D does; its own copies a number to the device."""
    sides = torch.min(boxes[:, None, 2:], anchors[:, 2:]) - torch.max(boxes[:, None, :2], anchors[:, :2])
    width, height = sides.clamp(min=0).unbind(-1)
    overlap = width * height
    union = _areas(boxes)[:, None] + _areas(anchors) - overlap
    return overlap / union.clamp(min=1e-6)


def _areas(boxes: Tensor) -> Tensor:
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    return width * height


def _assign_by_overlaps(assigner: MaxIoUAssigner, overlaps: Tensor, first: int) -> Tensor:
    """Return (anchors,) as MaxIoUAssigner assigns them; boxes are counted from `first`."""
    best, box = overlaps.max(0)
    background = (best < assigner.neg_iou_thr).long() - 1
    assigned = torch.where(best >= assigner.pos_iou_thr, box + first, background)
    if assigner.match_low_quality:  # each box takes the anchors that fit it best; the last box wins
        highest = overlaps.amax(1, keepdim=True)
        taken = (overlaps == highest) & (highest >= assigner.min_pos_iou)
        numbers = torch.arange(first, first + len(overlaps), device=overlaps.device)[:, None]
        last = torch.where(taken, numbers, 0).amax(0)
        assigned = torch.where(last > 0, last, assigned)
    return assigned


def _flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Return (images, anchors of all levels, channels)."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, channels) for each in maps], 1)


def _row_sums(rows: Tensor) -> Tensor:
    return rows.sum(1, dtype=torch.float32) if rows.dim() > 1 else rows.float()


@functools.lru_cache(maxsize=KEPT_SHAPES)
def _anchors(generator: Any, sizes: tuple, device: torch.device) -> tuple:
    return tuple(generator.grid_priors(sizes, device=device))


@functools.lru_cache(maxsize=KEPT_SHAPES)
def _valid(generator: Any, sizes: tuple, device: torch.device, pad_shape: tuple) -> tuple[Tensor, ...]:
    return tuple(generator.valid_flags(sizes, pad_shape, device))


@functools.lru_cache(maxsize=KEPT_SHAPES)
def _outside(generator: Any, sizes: tuple, device: torch.device, pad_shape: tuple) -> Tensor | None:
    """Return which anchors are not valid; None where all are, which is asked once a shape."""
    valid = torch.cat(_valid(generator, sizes, device, pad_shape))
    return None if bool(valid.all()) else ~valid

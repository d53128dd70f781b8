"""How many anchors of an image are foreground, from its annotations alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine import Config
from mmengine.structures import InstanceData
from torch import Tensor

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)
from experiments.training.config.data import test_pipeline

from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner  # isort: skip
from mmdet.models.task_modules.prior_generators import AnchorGenerator, anchor_inside_flags  # isort: skip
from mmdet.registry import MODELS, TRANSFORMS  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip

_MAX_CACHED_SHAPES = 32  # anchors of so many image shapes stay in memory, about 3 MB each at (1333, 800)


class AnchorCounter:
    """Count an image's anchors as they are assigned at test-time size.

    The image passes the test-time pipeline alone, as a blank of its annotated size, and is padded as a batch of
    one is: the anchors of that padded image count. Anchors that the assigner ignores, or that reach further out
    of the image than `allowed_border`, do not. Levels are as large as strided convolutions with padding make
    them: padded size over stride, rounded up.

    Args:
        config: Of a one-stage detector with anchors, as `build_config` makes it.
    """

    def __init__(self, config: Config) -> None:
        register_all_modules(init_default_scope=False)
        model = config.model
        head = MODELS.build({**model.bbox_head, "train_cfg": model.train_cfg, "test_cfg": model.test_cfg})
        self.classes: int = head.num_classes
        self._assigner, self._generator = head.assigner, head.prior_generator
        self._allowed_border = model.train_cfg.get("allowed_border", -1)
        self._divisor = model.get("data_preprocessor", {}).get("pad_size_divisor", 1)
        steps = [s for s in test_pipeline(config) if not str(s["type"]).startswith(("Load", "Pack"))]
        self._steps = [TRANSFORMS.build(s) for s in (dict(type="LoadAnnotations", with_bbox=True), *steps)]
        self._bound = _skip_below(self._assigner, self._generator)
        self._anchors = functools.lru_cache(_MAX_CACHED_SHAPES)(self._make_anchors)

    def count(self, info: Mapping[str, Any]) -> tuple[int, int]:
        """Return the foreground anchors, and the anchors that are not ignored.

        Args:
            info: An image of a MMDetection data set: `height`, `width` in pixels, `instances`.
        """
        shape, boxes, ignored = self._resized(info)
        padded = tuple(math.ceil(side / self._divisor) * self._divisor for side in shape)
        grids, anchors, valid = self._anchors(padded)
        inside = anchor_inside_flags(anchors, valid, shape, self._allowed_border)
        total = int(inside.sum())
        if total < len(anchors):
            anchors = anchors[inside]
        elif self._bound is not None and len(boxes):
            anchors = anchors[select_candidates(grids, boxes.bboxes, self._bound)]
        assigned = self._assigner.assign(InstanceData(priors=anchors), boxes, ignored).gt_inds
        return int((assigned > 0).sum()), total - int((assigned < 0).sum())

    def _resized(self, info: Mapping[str, Any]) -> tuple[tuple[int, int], InstanceData, InstanceData]:
        """Return size (height, width), boxes and ignored boxes of the image as the detector would get it."""
        size = (info["height"], info["width"])
        results: Any = {**info, "img": np.zeros(size, np.uint8), "img_shape": size, "ori_shape": size}
        for step in self._steps:
            results = step(results)
        all_boxes = InstanceData(
            bboxes=results["gt_bboxes"].tensor, labels=torch.from_numpy(results["gt_bboxes_labels"])
        )
        ignored = torch.from_numpy(results["gt_ignore_flags"])
        height, width = results["img_shape"][:2]
        return (height, width), all_boxes[~ignored], all_boxes[ignored]

    def _make_anchors(self, padded: tuple[int, int]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return each level's anchors (rows, columns, anchors a cell, 4), all (n, 4), and which are valid."""
        generator = self._generator
        sizes = [(math.ceil(padded[0] / h), math.ceil(padded[1] / w)) for w, h in generator.strides]
        levels = generator.grid_priors(sizes, device="cpu")
        grids = [level.reshape(*size, -1, 4) for level, size in zip(levels, sizes)]
        return grids, torch.cat(levels), torch.cat(generator.valid_flags(sizes, padded, device="cpu"))


def select_candidates(grids: Sequence[Tensor], boxes: Tensor, threshold: float) -> Tensor:
    """Return which anchors may reach an IoU of `threshold` with a box, or the highest that this box has.

    On a grid the overlaps along x and y cost rows + columns, not rows · columns. With u and v the IoU of the
    two intervals along x and along y, u · v <= IoU <= min(u, v): the union of two boxes that meet lies within
    the product of the two intervals' unions, and its area is at least the union along one axis times the
    overlap along the other.

    Args:
        grids: Per level (rows, columns, anchors a cell, 4) corners; x is the same in all rows, y in all columns.
        boxes: (k, 4) corners.
        threshold: IoU.

    Returns:
        (n,) bool in the order of the anchors, with at least those named above.
    """
    along_x = [_interval_iou(boxes[:, 0::2], grid[0, :, :, 0::2]) for grid in grids]
    along_y = [_interval_iou(boxes[:, 1::2], grid[:, 0, :, 1::2]) for grid in grids]
    along = list(zip(along_x, along_y))
    # (k,) the highest IoU of each box, at least
    surely = torch.stack([(x.amax(1) * y.amax(1)).amax(1) for x, y in along]).amax(0)
    bound = (surely.clamp(max=threshold) * 0.999)[:, None, None]  # rounding stays far within that
    boxes_near = [torch.einsum("kwa,kha->hwa", (x >= bound).float(), (y >= bound).float()) for x, y in along]
    return torch.cat([count.flatten() for count in boxes_near]) > 0


def _interval_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU in one dimension of (k, 2) and (cells, a, 2) intervals: (k, cells, a)."""
    start, end = boxes[:, 0, None, None], boxes[:, 1, None, None]
    overlap = (torch.minimum(end, anchors[..., 1]) - torch.maximum(start, anchors[..., 0])).clamp(min=0)
    return overlap / (end - start + anchors[..., 1] - anchors[..., 0] - overlap).clamp(min=1e-6)


def _skip_below(assigner: Any, generator: Any) -> float | None:
    """Return the IoU below which an anchor that is no box's best is background; None where none is.

    With it the assigner, which is slow on 200 000 anchors, sees only the few hundred that matter.
    """
    if type(assigner) is not MaxIoUAssigner or type(generator) is not AnchorGenerator:
        return None
    iou = assigner.iou_calculator
    plain = type(iou) is BboxOverlaps2D and iou.dtype is None and assigner.perm_repeat_gt_cfg is None
    if not plain or assigner.ignore_iof_thr > 0 or not isinstance(assigner.neg_iou_thr, float):
        return None
    return min(assigner.pos_iou_thr, assigner.neg_iou_thr)

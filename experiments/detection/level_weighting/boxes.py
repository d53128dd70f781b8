"""IoU of predicted boxes with their targets, without a copy between host and device (MMDetection's own makes some)."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor

MAX_SIZE_DELTA = math.log(1000 / 16)  # of width and height, where the coder clips them


def aligned_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU of boxes row by row.

    Args:
        first: (n, 4) as x1, y1, x2, y2 in any common unit.
        second: The same.

    Returns:
        (n,), 0 where a box has no area.
    """
    inside = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    intersection = _area(inside)
    union = _area(first[:, 2:] - first[:, :2]) + _area(second[:, 2:] - second[:, :2]) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(sides: Tensor) -> Tensor:
    width, height = sides.clamp(min=0).unbind(1)
    return width * height


def from_deltas(deltas: Tensor, coder: Any) -> Tensor:
    """Return the boxes of regression deltas, as if every anchor were the unit square from (0, 0) to (1, 1).

    The IoU of two boxes that are coded against one anchor does not depend on it: another anchor stretches and
    shifts both alike.

    Args:
        deltas: (n, 4), as `coder` encodes boxes.
        coder: A box coder of MMDetection.

    Returns:
        (n, 4) as x1, y1, x2, y2.
    """
    if type(coder) is not DeltaXYWHBBoxCoder:
        corners = torch.cat([torch.zeros_like(deltas[:, :2]), torch.ones_like(deltas[:, 2:])], 1)
        return coder.decode(corners, deltas)
    x, y, w, h = (d * std + mean for d, std, mean in zip(deltas.unbind(1), coder.stds, coder.means))
    half_w = w.clamp(-MAX_SIZE_DELTA, MAX_SIZE_DELTA).exp() / 2
    half_h = h.clamp(-MAX_SIZE_DELTA, MAX_SIZE_DELTA).exp() / 2
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], 1)


def from_log_distances(distances: Tensor) -> Tensor:
    """Return boxes around the origin from the logarithms of their sides' distances, left, top, right, bottom."""
    left, top, right, bottom = distances.exp().unbind(1)
    return torch.stack([-left, -top, right, bottom], 1)

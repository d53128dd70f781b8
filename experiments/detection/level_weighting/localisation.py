"""How well the positives of each pyramid level are localised: Fig 1 of the paper, https://arxiv.org/abs/2108.04014."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

MAX_SIZE_DELTA = math.log(1000 / 16)  # of width and height, where the coder clips them


@dataclass
class BoxLossInputs:
    """One call of `loss_bbox`: (n, 4) and (n, 4), and each row's level and whether it is a positive (None: all are)."""

    predicted: Tensor
    target: Tensor
    levels: Tensor
    positive: Tensor | None = None


class LevelWise:
    """Mixin before a head's class: tells how well the positives of each level are localised, outside of autograd.

    Attributes:
        should_tell_ious: Whether the next loss tells them; the detector sets it.
        level_ious: (2, K), sum of the IoUs and number of positives at each level in such a loss; None without.
            An IoU is that of the decoded prediction with its target (paper, Fig 1).
    """

    loss_bbox: nn.Module
    should_tell_ious = False
    level_ious: Tensor | None = None

    def prepare(self) -> None:
        """Register what records the box loss; called once, when the head has become level-wise."""
        self._seen: list[BoxLossInputs] = []
        self.loss_bbox.register_forward_hook(self._record_box_loss)

    def _record_box_loss(self, module: nn.Module, args: tuple, loss: Tensor) -> None:
        if self.should_tell_ious:
            predicted, target, *weights = args
            with torch.no_grad():
                levels, positive = self._row_levels(target), self._positive(*weights)
            self._seen.append(BoxLossInputs(predicted, target, levels, positive))

    def _row_levels(self, rows: Tensor) -> Tensor:
        """Return the (n,) levels of the n rows that `loss_bbox` was given."""
        raise NotImplementedError

    def _positive(self, *weights: Tensor) -> Tensor | None:
        """Return which of these rows are positives, by their weights; None where all are."""
        return None

    def _boxes(self, regression: Tensor) -> Tensor:
        """Return (n, 4) boxes in a frame that a prediction and its target share."""
        if getattr(self, "reg_decoded_bbox", False):
            return regression
        return decode_deltas(regression, self.bbox_coder)  # type: ignore[attr-defined]

    @torch.no_grad()
    def _sum_ious(self, count: int, like: Tensor) -> None:
        """Sum what was seen over each of the `count` levels: once a loss, in a few kernels for all levels."""
        if not self.should_tell_ious:
            return
        seen, self._seen = self._seen, []
        self.level_ious = like.new_zeros(2, count, dtype=torch.float32)
        if not seen:
            return
        predicted, target, levels = (
            torch.cat(parts) for parts in zip(*((each.predicted, each.target, each.levels) for each in seen))
        )
        if seen[0].positive is None:
            positive = torch.ones_like(levels, dtype=torch.bool)
        else:
            positive = torch.cat([each.positive for each in seen if each.positive is not None])
            if not is_waited_for(positive):  # most anchors are no positives
                predicted, target, levels = predicted[positive], target[positive], levels[positive]
                positive = positive[positive]
        ious = compute_aligned_iou(self._boxes(torch.cat([predicted, target])).view(2, -1, 4))
        at_level = positive & (levels == torch.arange(count, device=levels.device)[:, None])
        self.level_ious = torch.stack([torch.where(at_level, ious, 0).sum(1), at_level.sum(1).to(ious)])


# MMDetection's own IoU and decoding copy between host and device.


def compute_aligned_iou(boxes: Tensor) -> Tensor:
    """Return the (n,) IoUs of pairs of boxes, (2, n, 4) as x1, y1, x2, y2 in any unit; 0 where a box has no area."""
    low, high = boxes.split(2, dim=2)
    intersection = (high.amin(0) - low.amax(0)).clamp(min=0).prod(1)
    union = (high - low).clamp(min=0).prod(2).sum(0) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def decode_deltas(deltas: Tensor, coder: Any) -> Tensor:
    """Return the boxes of (n, 4) deltas of a coder of MMDetection, as (n, 4) x1, y1, x2, y2.

    It is as if every anchor were the unit square from (0, 0) to (1, 1): the IoU of two boxes that are coded against
    one anchor does not depend on it, since another anchor stretches and shifts both alike.
    """
    if type(coder) is not DeltaXYWHBBoxCoder:
        corners = torch.cat([torch.zeros_like(deltas[:, :2]), torch.ones_like(deltas[:, 2:])], 1)
        return coder.decode(corners, deltas)
    x, y, w, h = (d * std + mean for d, std, mean in zip(deltas.unbind(1), coder.stds, coder.means))
    half_w = w.clamp(-MAX_SIZE_DELTA, MAX_SIZE_DELTA).exp() / 2
    half_h = h.clamp(-MAX_SIZE_DELTA, MAX_SIZE_DELTA).exp() / 2
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], 1)


def is_waited_for(tensor: Tensor) -> bool:
    """Return whether asking how many elements are true makes the host wait for the device."""
    return tensor.is_cuda

"""How well the positives of each pyramid level are localised: Fig 1 of the paper, https://arxiv.org/abs/2108.04014."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.detection.level_weighting.boxes import aligned_iou, from_deltas


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
            with torch.no_grad():
                self._seen.append(self._box_loss_inputs(*args))

    def _box_loss_inputs(self, predicted: Tensor, target: Tensor, *weights: Tensor) -> BoxLossInputs:
        """Return what is kept of what `loss_bbox` was given."""
        raise NotImplementedError

    def _boxes(self, regression: Tensor) -> Tensor:
        """Return (n, 4) boxes in a frame that a prediction and its target share."""
        if getattr(self, "reg_decoded_bbox", False):
            return regression
        return from_deltas(regression, self.bbox_coder)  # type: ignore[attr-defined]

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
        ious = aligned_iou(self._boxes(predicted), self._boxes(target))
        at_level = positive & (levels == torch.arange(count, device=levels.device)[:, None])
        self.level_ious = torch.stack([torch.where(at_level, ious, 0).sum(1), at_level.sum(1).to(ious)])


def is_waited_for(tensor: Tensor) -> bool:
    """Return whether asking how many elements are true makes the host wait for the device."""
    return tensor.is_cuda

"""Guided Loss: RetinaNet's head without focal loss and without sampling (Chen et al., arXiv 1909.04868)."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import MODELS
from torch import Tensor

from experiments.common.errors import UserError


@MODELS.register_module()
class GuidedRetinaHead(RetinaHead):
    """RetinaHead whose classification loss is rescaled, at every iteration, to the value of its box loss.

    L_cls,i of level i is the plain sigmoid cross-entropy over all anchors that the assigner does not ignore,
    divided by (N_pos + N_images) of the batch; L_reg,i is RetinaHead's. What is returned as `loss_cls` is
    r · L_cls,i with r = stop_gradient(Σ_i L_reg,i / Σ_i L_cls,i): Σ_i r · L_cls,i has the value of Σ_i L_reg,i,
    and r times the gradient of Σ_i L_cls,i. Without positives r is 0.

    Pinned: r comes from the losses of its own process, also on several GPUs; level weights, which come after
    it, meet L_i = r · L_cls,i + L_reg,i.

    Args:
        foreground_prior: π, the share of (anchor, class) pairs that are foreground, as `msdet prior` counts it
            over the training set. The classification bias starts at -log((1-π)/π), so that the first scores
            are π. None: not counted yet. Such a head can be built and can detect, its bias starts as
            RetinaNet's (0.01), but it refuses to train.
        loss_cls: Sigmoid cross-entropy; its `loss_weight` cancels out.
        init_cfg: In place of RetinaHead's initialisation with the bias above.
        kwargs: Those of RetinaHead.

    Raises:
        ValueError: The prior is no probability, the classification loss is another one, or anchors are sampled.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        foreground_prior: float | None = None,
        loss_cls: dict | None = None,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if foreground_prior is not None and not 0 < foreground_prior < 1:
            raise ValueError(f"foreground_prior: {foreground_prior!r} is not allowed: above 0 and below 1")
        super().__init__(
            num_classes,
            in_channels,
            loss_cls=loss_cls or dict(type="CrossEntropyLoss", use_sigmoid=True),
            **kwargs,
        )
        if init_cfg:
            self.init_cfg = init_cfg
        elif foreground_prior is not None:
            self.init_cfg["override"]["bias_prob"] = foreground_prior
        if not (isinstance(self.loss_cls, CrossEntropyLoss) and self.loss_cls.use_sigmoid):
            kind = type(self.loss_cls).__name__
            raise ValueError(f"loss_cls: {kind} is not allowed: CrossEntropyLoss with use_sigmoid")
        if not isinstance(getattr(self, "sampler", None), (PseudoSampler, type(None))):
            kind = type(self.sampler).__name__
            raise ValueError(f"sampler: {kind} is not allowed: Guided Loss takes all anchors, PseudoSampler")
        self.foreground_prior = foreground_prior

    def loss_by_feat_single(self, cls_score: Tensor, *args: Any, avg_factor: Any) -> tuple[Tensor, Tensor]:
        """Return L_cls and L_reg of one level, before r; cls_score is (images, ...)."""
        loss_cls, loss_bbox = super().loss_by_feat_single(cls_score, *args, avg_factor=avg_factor)
        # AnchorHead divides both by its `avg_factor`, which counts at least one positive an image
        positives = self._raw_positive_infos.get("num_positives")  # of heads that work on all images at once
        if positives is None:
            samples = self._raw_positive_infos["sampling_results"]
            positives = sum(sample.pos_inds.numel() for sample in samples)
        return loss_cls * (avg_factor / (positives + len(cls_score))), loss_bbox

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, list[Tensor]]:
        """Return `loss_cls` (r · L_cls,i) and `loss_bbox` (L_reg,i), one scalar a level, finest first.

        Raises:
            UserError: The head was built without its prior.
        """
        if self.foreground_prior is None:
            raise UserError(
                "model.bbox_head.foreground_prior is missing: Guided Loss trains from the counted prior only",
                "msdet prior RECIPE counts it; then --set model.bbox_head.foreground_prior=NUMBER",
            )
        losses = super().loss_by_feat(*args, **kwargs)
        total_cls, total_reg = sum(losses["loss_cls"]), sum(losses["loss_bbox"])
        ratio = (total_reg / total_cls.clamp(min=1e-12)).detach()
        losses["loss_cls"] = [ratio * loss for loss in losses["loss_cls"]]
        return losses

"""AugFPN's consistent supervision: one auxiliary head learns to detect on every lateral map, during training only.

Source: Guo et al., AugFPN (CVPR 2020, https://arxiv.org/abs/1912.05384), Section 3.1. Before the top-down path adds
them up, the maps of neighbouring levels have learnt nothing in common; a head that all of them share, and that sees
every RoI on every map, makes their semantics alike.

What the detector computes anyway is looked at through hooks that live as long as one call of `loss`, so that neck and
heads stay as they are and inference knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox2roi
from mmengine import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from experiments.detection.level_weighting.level_weighted import (
    LevelWeightedFasterRCNN,
    LevelWeightedRetinaNet,
)

# RoIs of a one-stage detector are assigned as those of Faster R-CNN.
ASSIGNER = dict(
    type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False
)
TARGETS = ConfigDict(pos_weight=-1)  # a positive RoI counts as much as a negative one
# The authors' samples per bin: RoIs that are large on a fine map would need hundreds to be covered densely.
ROI_ALIGN = dict(type="RoIAlign", output_size=7, sampling_ratio=2)


@contextmanager
def keep_outputs(modules: Iterable[nn.Module]) -> Iterator[list[Any]]:
    """Yield a list that gets what the modules return inside the block, call by call."""
    outputs: list[Any] = []
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
            stack.enter_context(handle)
        yield outputs


@contextmanager
def keep_results(owner: Any, method: str) -> Iterator[list[Any]]:
    """Yield such a list for a method of an object that is no module, and so has no hooks."""
    original, results = getattr(owner, method), []

    def keeping(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    setattr(owner, method, keeping)
    try:
        yield results
    finally:
        delattr(owner, method)


class ConsistentSupervision:
    """Mixin before a detector with an FPN: adds `loss_aux_cls` and `loss_aux_bbox`, which no level weight touches.

    Each is `aux_weight` times a sum over the lateral maps. The normalisers are those of MMDetection's RoI head and of
    the authors' code: cross-entropy is averaged over the sampled RoIs of the batch, smooth L1 is summed over the
    positive ones and divided by the number of all.

    The auxiliary head is in the detector's state dict as `aux_head.*`. A detector built without `aux_head` loads such
    a checkpoint too and leaves that part out: neither its parameters nor its time are needed to predict.

    Args:
        aux_head: MMDetection's config of the head, `{type: Shared2FCBBoxHead}` for the paper's; channels and classes
            are the detector's where not given. None: no consistent supervision.
        aux_weight: The paper's λ.
    """

    neck: Any  # these two are of the detector it is mixed into
    training: bool

    def __init__(
        self, *args: Any, aux_head: Mapping[str, Any] | None = None, aux_weight: float = 0.25, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.aux_head: Any = None
        self.aux_weight = aux_weight
        if aux_head is None:
            return
        channels = self.neck.out_channels
        of_detector = dict(in_channels=channels, num_classes=self.supervised_head().num_classes)
        self.aux_head = MODELS.build({**of_detector, **aux_head})
        extractor = dict(type="SingleRoIExtractor", roi_layer=ROI_ALIGN, out_channels=channels)
        self.aux_extractors = nn.ModuleList(
            MODELS.build({**extractor, "featmap_strides": [stride]}) for stride in self.lateral_strides()
        )

    def supervised_head(self) -> Any:
        """Return the head whose classes the auxiliary head shares."""
        raise NotImplementedError

    def lateral_strides(self) -> list[int]:
        """Return the strides of the neck's lateral maps in pixels, finest first."""
        raise NotImplementedError

    def watched(self) -> AbstractContextManager[list[Any]]:
        """Keep, during the detector's own loss, what `sampled_rois` needs."""
        raise NotImplementedError

    def sampled_rois(self, kept: list[Any], data_samples: Sequence[Any]) -> list[Any]:
        """Return MMDetection's `SamplingResult` of each image."""
        raise NotImplementedError

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Any]:
        """Return the detector's losses and the two of the auxiliary head, scalars."""
        if self.aux_head is None:
            return super().loss(batch_inputs, batch_data_samples)
        with keep_outputs(self.neck.lateral_convs) as laterals, self.watched() as kept:
            losses = super().loss(batch_inputs, batch_data_samples)
        return {**losses, **self.auxiliary_losses(laterals, self.sampled_rois(kept, batch_data_samples))}

    def auxiliary_losses(self, laterals: Sequence[Tensor], sampling_results: list[Any]) -> dict[str, Tensor]:
        """Return `aux_weight` times the auxiliary head's losses on the same RoIs, summed over the lateral maps.

        `laterals` are M_i (B, C, h_i, w_i), finest first; `sampling_results` are one an image.
        """
        rois = bbox2roi([result.priors for result in sampling_results])
        targets = self.aux_head.get_targets(sampling_results, TARGETS)
        loss_cls = loss_bbox = laterals[0].new_zeros(())
        for extractor, lateral in zip(self.aux_extractors, laterals, strict=True):
            cls_score, bbox_pred = self.aux_head(extractor([lateral], rois))
            terms = self.aux_head.loss(cls_score, bbox_pred, rois, *targets)
            loss_cls = loss_cls + terms.get("loss_cls", cls_score.sum() * 0)  # it is left out without a RoI
            loss_bbox = loss_bbox + terms["loss_bbox"]
        return {"loss_aux_cls": self.aux_weight * loss_cls, "loss_aux_bbox": self.aux_weight * loss_bbox}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.aux_head is None:
            for key in [k for k in state_dict if k.startswith(f"{prefix}aux_head.")]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


class OneStageSupervision(ConsistentSupervision):
    """Mixin before a one-stage detector: its RoIs are its own decoded boxes, through which no gradient flows.

    They are found as at test time, each class for itself, but at a score above 0.01 and with NMS at an IoU of 0.7.

    Args:
        aux_candidates: Boxes of each level before NMS, at most; these three are AugFPN's by default.
        aux_proposals: Boxes of an image after NMS, at most; its ground truth is added.
        aux_rois: RoIs sampled of an image, a quarter of them positive at most.
    """

    bbox_head: Any

    def __init__(
        self,
        *args: Any,
        aux_candidates: int = 2000,
        aux_proposals: int = 1000,
        aux_rois: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.aux_proposal_cfg = ConfigDict(
            nms_pre=aux_candidates,
            score_thr=0.01,
            min_bbox_size=0,
            nms=dict(type="nms", iou_threshold=0.7),
            max_per_img=aux_proposals,
        )
        self.aux_assigner = TASK_UTILS.build(ASSIGNER)
        self.aux_sampler = TASK_UTILS.build(dict(type="RandomSampler", num=aux_rois, pos_fraction=0.25))

    def supervised_head(self) -> Any:
        return self.bbox_head

    def lateral_strides(self) -> list[int]:
        strides = self.bbox_head.prior_generator.strides[: len(self.neck.lateral_convs)]
        return [s if isinstance(s, int) else s[0] for s in strides]

    def watched(self) -> AbstractContextManager[list[Any]]:
        return keep_outputs([self.bbox_head])

    @torch.no_grad()
    def sampled_rois(self, kept: list[Any], data_samples: Sequence[Any]) -> list[Any]:
        truths, ignored, metas = unpack_gt_instances(data_samples)
        # Half precision cannot hold pixel coordinates.
        maps = [[level.float() for level in levels] for levels in kept[0]]
        detections = self.bbox_head.predict_by_feat(*maps, batch_img_metas=metas, cfg=self.aux_proposal_cfg)
        results = []
        for found, truth, ignore in zip(detections, truths, ignored):
            priors = InstanceData(priors=found.bboxes)
            assigned = self.aux_assigner.assign(priors, truth, ignore)
            results.append(self.aux_sampler.sample(assigned, priors, truth))
        return results


class TwoStageSupervision(ConsistentSupervision):
    """Mixin before a two-stage detector: the RoIs are those that its RoI head samples for itself."""

    roi_head: Any

    def supervised_head(self) -> Any:
        return self.roi_head.bbox_head

    def lateral_strides(self) -> list[int]:
        return list(self.roi_head.bbox_roi_extractor.featmap_strides)

    def watched(self) -> AbstractContextManager[list[Any]]:
        return keep_results(self.roi_head.bbox_sampler, "sample")

    def sampled_rois(self, kept: list[Any], data_samples: Sequence[Any]) -> list[Any]:
        return kept


@MODELS.register_module()
class LevelWeightedAugRetinaNet(OneStageSupervision, LevelWeightedRetinaNet):
    """RetinaNet with consistent supervision on M3..M5; its levels P3..P7 are weighted."""


@MODELS.register_module()
class LevelWeightedAugFasterRCNN(TwoStageSupervision, LevelWeightedFasterRCNN):
    """Faster R-CNN with consistent supervision on M2..M5; with `SoftRoIExtractor` only its RPN can be weighted."""

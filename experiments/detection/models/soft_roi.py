"""AugFPN's soft RoI selection: every RoI is pooled from all levels, and a small network weighs them.

Source: Guo et al., AugFPN (CVPR 2020, https://arxiv.org/abs/1912.05384), Section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor, nn

from experiments.detection.models.augfpn import XAVIER


@MODELS.register_module()
class SoftRoIExtractor(BaseRoIExtractor):
    """The sum of a RoI's features on all levels, weighted place by place.

    The weights are sigmoid(conv3x3(ReLU(conv1x1(all features)))), one map per level. A RoI has no level of its own
    here, so the losses of the RoI head cannot be weighted by level.

    Args:
        roi_layer: MMDetection's config of the pooling, `RoIAlign` say.
        out_channels: C, of every pyramid level and of the result.
        featmap_strides: Strides of the levels in pixels, finest first.
        init_cfg: Xavier, as in the authors' code.
    """

    def __init__(
        self, roi_layer: Any, out_channels: int, featmap_strides: list[int], init_cfg: Any = XAVIER
    ) -> None:
        super().__init__(roi_layer, out_channels, featmap_strides, init_cfg=init_cfg)
        levels = len(featmap_strides)
        self.selection = nn.Sequential(
            nn.Conv2d(levels * out_channels, out_channels, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels, levels, 3, padding=1),
        )

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Return the features (n, C, rows, columns) of RoIs.

        Args:
            feats: Pyramid levels (B, C, h_i, w_i), finest first.
            rois: (n, 5) as image, x1, y1, x2, y2 in pixels.
            roi_scale_factor: Enlarges every RoI about its centre first.
        """
        rois = rois.type_as(feats[0])
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        if len(rois):
            pooled = [layer(feat, rois) for layer, feat in zip(self.roi_layers, feats)]
        else:  # compiled operators refuse to run on nothing
            empty = feats[0].new_zeros(0, self.out_channels, *self.roi_layers[0].output_size)
            pooled = [empty for _ in self.roi_layers]
        shares = self.selection(torch.cat(pooled, dim=1)).sigmoid()
        return torch.stack(pooled, dim=1).mul(shares.unsqueeze(2)).sum(1)

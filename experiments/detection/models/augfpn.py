"""AugFPN's neck, whose top level gets back the context that its 1x1 convolution throws away, and its RoI extractor.

Source: Guo et al., AugFPN: Improving Multi-scale Feature Learning for Object Detection (CVPR 2020,
https://arxiv.org/abs/1912.05384), Sections 3.2 and 3.3. Consistent supervision (3.1) has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.necks import FPN
from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor, nn

XAVIER = {"type": "Xavier", "layer": "Conv2d", "distribution": "uniform"}


class GatedSum(nn.Sequential):
    """The sum of maps, weighted place by place: sigmoid(conv3x3(ReLU(conv1x1(all maps)))), one map of weights each."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(count * channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, count, 3, padding=1)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, channels, h, w) of `count` maps of that shape."""
        weights = super().forward(torch.cat(maps, dim=1)).sigmoid()
        return torch.stack(maps, dim=1).mul(weights.unsqueeze(2)).sum(1)


class ResidualFeatureAugmentation(nn.Module):
    """M6, the context of the whole image, from the backbone's top map C5.

    C5 is pooled to several small sizes that keep its aspect ratio; each is brought to the pyramid's channels,
    enlarged again, and the gated sum of all is taken.

    Args:
        in_channels, out_channels: Of C5 and of the pyramid.
        ratios: Sides of the pooled maps, as shares of C5's.
    """

    def __init__(self, in_channels: int, out_channels: int, ratios: Sequence[float]) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        self.reduce = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in self.ratios)
        self.fuse = GatedSum(len(self.ratios), out_channels)

    def forward(self, top: Tensor) -> Tensor:
        """Return M6 (B, out_channels, h, w) of C5 (B, in_channels, h, w)."""
        size = top.shape[-2:]
        contexts = []
        for ratio, conv in zip(self.ratios, self.reduce):
            pooled = F.adaptive_avg_pool2d(top, [max(1, int(ratio * side)) for side in size])
            contexts.append(F.interpolate(conv(pooled), size, mode="bilinear", align_corners=True))
        return self.fuse(contexts)


@MODELS.register_module()
class AugFPN(FPN):
    """FPN with residual feature augmentation: M5 + M6 starts the top-down path.

    Its other weights have FPN's names and shapes, and where M6 is zero it computes what FPN does. The maps above the
    backbone's: with `add_extra_convs` those of RetinaNet and FCOS, P6 = conv(C5) + mean of M6 over the map, P7 =
    conv(P6) without ReLU (as in the authors' code); without it max-pooling, as in Faster R-CNN.

    Args:
        add_extra_convs: 'on_input' (or true) or false.
        norm_cfg: Normalisation of FPN's convolutions; the augmentation has none.
        ratios: Sides of the pooled maps, as shares of C5's. The others are FPN's.

    Raises:
        ValueError: Another `add_extra_convs`, or no ratio or one outside 0..1.
    """

    def __init__(
        self,
        in_channels: list[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        add_extra_convs: bool | str = False,
        norm_cfg: Mapping[str, Any] | None = None,
        ratios: Sequence[float] = (0.1, 0.2, 0.3),
        init_cfg: Any = XAVIER,
    ) -> None:
        if add_extra_convs not in (False, True, "on_input"):
            raise ValueError(
                f"add_extra_convs: {add_extra_convs!r} is not allowed in AugFPN: on_input or false"
            )
        if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
            raise ValueError(
                f"ratios: {list(ratios)} is not allowed: one or more numbers in 0..1, 0 excluded"
            )
        super().__init__(
            in_channels,
            out_channels,
            num_outs,
            start_level=start_level,
            add_extra_convs=add_extra_convs,
            norm_cfg=norm_cfg,
            init_cfg=init_cfg,
        )
        self.augmentation = ResidualFeatureAugmentation(in_channels[-1], out_channels, ratios)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return `num_outs` maps (B, out_channels, h_i, w_i) of the backbone's, finest first."""
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs[self.start_level :])]
        context = self.augmentation(inputs[-1])
        maps[-1] = maps[-1] + context
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], maps[i - 1].shape[-2:], mode="nearest")
        outs = [conv(x) for conv, x in zip(self.fpn_convs, maps)]
        extra_convs = self.fpn_convs[len(maps) :]
        if extra_convs:
            outs.append(extra_convs[0](inputs[-1]) + context.mean((2, 3), keepdim=True))
            for conv in extra_convs[1:]:
                outs.append(conv(outs[-1]))
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)


@MODELS.register_module()
class SoftRoIExtractor(BaseRoIExtractor):
    """Soft RoI selection (Section 3.3): the gated sum of a RoI's features on all levels.

    A RoI has no level of its own here, so the losses of the RoI head cannot be weighted by level. Arguments are those
    of MMDetection's extractors; weights begin as in the authors' code.
    """

    def __init__(
        self, roi_layer: Any, out_channels: int, featmap_strides: list[int], init_cfg: Any = XAVIER
    ) -> None:
        super().__init__(roi_layer, out_channels, featmap_strides, init_cfg=init_cfg)
        self.selection = GatedSum(len(featmap_strides), out_channels)

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
        return self.selection(pooled)

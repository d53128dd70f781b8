"""AugFPN's neck: an FPN whose top level gets back the context that its 1x1 convolution throws away.

Source: Guo et al., AugFPN: Improving Multi-scale Feature Learning for Object Detection (CVPR 2020,
https://arxiv.org/abs/1912.05384), Section 3.2. Consistent supervision (3.1) and soft RoI selection (3.3) have files
of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import Tensor, nn

XAVIER = {"type": "Xavier", "layer": "Conv2d", "distribution": "uniform"}


class ResidualFeatureAugmentation(nn.Module):
    """M6, the context of the whole image, from the backbone's top map C5.

    C5 is pooled to several small sizes that keep its aspect ratio; each is brought to the pyramid's channels,
    enlarged again, and they are added up, weighted place by place.

    Args:
        in_channels, out_channels: Of C5 and of the pyramid.
        ratios: Sides of the pooled maps, as shares of C5's.
    """

    def __init__(self, in_channels: int, out_channels: int, ratios: Sequence[float]) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        count = len(self.ratios)
        self.reduce = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in self.ratios)
        self.fuse = nn.Sequential(
            nn.Conv2d(count * out_channels, out_channels, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels, count, 3, padding=1),
        )

    def forward(self, top: Tensor) -> Tensor:
        """Return M6 (B, out_channels, h, w) of C5 (B, in_channels, h, w)."""
        size = top.shape[-2:]
        contexts = []
        for ratio, conv in zip(self.ratios, self.reduce):
            pooled = F.adaptive_avg_pool2d(top, [max(1, int(ratio * side)) for side in size])
            contexts.append(F.interpolate(conv(pooled), size, mode="bilinear", align_corners=True))
        shares = self.fuse(torch.cat(contexts, dim=1)).sigmoid()
        return torch.stack(contexts, dim=1).mul(shares.unsqueeze(2)).sum(1)


@MODELS.register_module()
class AugFPN(FPN):
    """FPN with residual feature augmentation: M5 + M6 starts the top-down path.

    Its other weights have FPN's names and shapes, and where M6 is zero it computes what FPN does. The maps above the
    backbone's: with `add_extra_convs` those of RetinaNet and FCOS, P6 = conv(C5) + mean of M6 over the map, P7 =
    conv(P6) without ReLU (as in the authors' code); without it max-pooling, as in Faster R-CNN.

    Args:
        in_channels: Of each backbone map, finest first; those from `start_level` on are used.
        out_channels: Of every map of the pyramid.
        num_outs: Maps of the pyramid.
        start_level: The first backbone map used.
        add_extra_convs: 'on_input' (or true) or false.
        norm_cfg: Normalisation of FPN's convolutions; the augmentation has none.
        ratios: Sides of the pooled maps, as shares of C5's.
        init_cfg: Xavier, as FPN's.

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

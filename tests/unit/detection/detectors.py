"""MMDetection's own detectors made small enough for tests, stock and level-weighted, and batches for them."""

from __future__ import annotations

import copy
import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import detection  # noqa: F401  (first: installs operators)

import mmdet  # isort: skip
from mmdet.registry import MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip
from mmengine import Config  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
SIZE = 192
CHANNELS = 16

# Our name: MMDetection's config, and `where` for a two-stage one.
DETECTORS: dict[str, tuple[str, str | None]] = {
    "retinanet": ("retinanet/retinanet_r50_fpn_1x_coco.py", None),
    "ghm": ("ghm/retinanet_r50_fpn_ghm-1x_coco.py", None),
    "fcos": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", None),
    "atss": ("atss/atss_r50_fpn_1x_coco.py", None),
    "gfl": ("gfl/gfl_r50_fpn_1x_coco.py", None),
    "fsaf": ("fsaf/fsaf_r50_fpn_1x_coco.py", None),
    "foveabox": ("foveabox/fovea_r50_fpn_4xb4-1x_coco.py", None),
    "faster-rcnn": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "roi"),
    "faster-rcnn both": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "both"),
    "faster-rcnn rpn": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "rpn"),
}
CASES = {
    # boxes per image, x1 y1 x2 y2: sides 16..190 reach all levels of the shrunk assignment but the coarsest
    "all levels": [
        [[4, 4, 24, 24], [30, 10, 75, 60], [10, 20, 120, 140], [0, 0, 190, 190]],
        [[50, 50, 150, 160], [8, 100, 28, 118]],
    ],
    "finest level only": [[[10, 10, 26, 26]], [[40, 40, 58, 56], [100, 90, 117, 110]]],
    "one image empty": [[[10, 10, 80, 80]], []],
    "no box at all": [[], []],
    "no positives": [
        [[0.5, 0.5, 1, 1]],
        [],
    ],  # where anchors are not made to match: no point is inside of the box
}


def some_fast(*fast: str) -> list[Any]:
    """Every detector as a test's parameter, slow but for those named."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in DETECTORS]


def config_of(name: str) -> Any:
    """The `model` of MMDetection's config: narrow, four classes, a level assignment for small images."""
    model = Config.fromfile(CONFIGS / DETECTORS[name][0]).model
    model.backbone = dict(type="ResNet", depth=18, base_channels=8, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=CHANNELS)
    if "rpn_head" in model:
        model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
        model.rpn_head.anchor_generator.scales = [4]
        model.roi_head.bbox_roi_extractor.update(out_channels=CHANNELS, finest_scale=14)
        model.roi_head.bbox_head.update(in_channels=CHANNELS, fc_out_channels=32, num_classes=4)
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        model.train_cfg.rcnn.sampler.num = 64
        return model
    head = model.bbox_head
    head.update(in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=1, num_classes=4)
    if name in ("fcos", "atss", "gfl"):
        head.norm_cfg = dict(type="GN", num_groups=4)
    if name == "fcos":
        head.regress_ranges = ((-1, 20), (20, 40), (40, 80), (80, 160), (160, 1e8))
    if name == "foveabox":
        head.update(base_edge_list=[8, 16, 32, 64, 128])
        head.scale_ranges = ((1, 32), (16, 64), (32, 128), (64, 256), (128, 1024))
    if "octave_base_scale" in head.get("anchor_generator", {}) and name != "fsaf":
        head.anchor_generator.octave_base_scale = 2
    return model


def build(
    name: str,
    weighting: dict[str, Any] | None = None,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    fast: bool = False,
) -> Any:
    """MMDetection's detector; with `weighting`, ours. The same seed gives the same parameters.

    `changes` maps dotted keys of the config to values in their place.
    """
    register_all_modules(init_default_scope=True)
    model = config_of(name)
    for key, value in (changes or {}).items():
        *path, last = key.split(".")
        functools.reduce(getattr, path, model)[last] = copy.deepcopy(value)
    if weighting is not None:
        where = DETECTORS[name][1]
        model.type = f"LevelWeighted{model.type}"
        model.weighting = weighting if where is None else {"where": where, **weighting}
        model.update({"fast": True} if fast else {})
    torch.manual_seed(seed)
    logging.disable(logging.INFO)  # MMEngine tells of every parameter
    try:
        built = MODELS.build(model)
        built.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    built.train()
    return built


def batch(case: str, seed: int = 0) -> dict[str, Any]:
    """As a data loader gives it: noise with the boxes of a case."""
    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for boxes in CASES[case]:
        inputs.append(torch.randint(0, 255, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                scale_factor=(1.0, 1.0),
                batch_input_shape=(SIZE, SIZE),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.arange(len(boxes)) % 4,
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def losses_of(model: Any, data: dict[str, Any], forward: Any = None, seed: int = 5) -> dict[str, Any]:
    """The losses of a batch; what MMDetection samples at random is the same for the same seed."""
    torch.manual_seed(seed)
    data = model.data_preprocessor(copy.deepcopy(data), True)
    return (forward or model)(**data, mode="loss")


def tell_ious(model: Any) -> Any:
    """Bring a level-weighted detector to the last step of an interval, which tells IoUs; return it."""
    for head in model.weighting:
        head.iteration = head.rule.alpha - 1
    return model


def gradients(model: Any, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict, stock: dict, rtol: float = 1e-5, where: str = "") -> None:
    """The same values, of the same parameters: one without a gradient is skipped by the optimizer's momentum, too."""
    assert stock and set(stock) == set(ours), where
    for name, gradient in ours.items():
        expected = stock[name]
        scale = expected.abs().max().item()
        assert torch.allclose(gradient, expected, rtol=rtol, atol=rtol * scale + 1e-12), (where, name)

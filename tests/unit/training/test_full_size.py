"""Every full-size model of the recipes: one forward and backward pass beside MMDetection's own version of it."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from experiments import detection
from experiments.recipes import catalogue
from experiments.training.config.pretrained import without_pretrained
from tests.unit.training.test_config import built

from mmdet.registry import MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip

WIDTH, HEIGHT = 128, 96
STOCK = {ours: stock for stock, ours in detection.LEVEL_WEIGHTED.items()}
OURS_ALONE = ("-augfpn", "-guided")  # MMDetection has no version of these to compare with
FAST = ["retinanet-r50-rlo"]


def batch(classes: int) -> dict:
    """An image with boxes from 12 pixels to the whole width, and one without any."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[10, 10, 22, 24], [40, 30, 80, 60], [64, 20, 128, 90], [0, 0, 128, 96]]).float()
    samples = []
    for number in (4, 0):
        sample = DetDataSample(metainfo={"img_shape": (HEIGHT, WIDTH), "scale_factor": (1.0, 1.0)})
        labels = torch.randint(classes, (number,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=boxes[:number], labels=labels)
        samples.append(sample)
    images = torch.randint(256, (2, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return {"inputs": list(images), "data_samples": samples}


def model_of(page: ConfigDict) -> nn.Module:
    init_default_scope("mmdet")
    torch.manual_seed(0)
    page = copy.deepcopy(page)
    without_pretrained(page)
    return MODELS.build(page).train()


def gradients(model: nn.Module, classes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective, and the gradient of every parameter that has one."""
    torch.manual_seed(0)  # proposals are sampled
    content = model.data_preprocessor(batch(classes), training=True)
    objective, _ = model.parse_losses(model.loss(content["inputs"], content["data_samples"]))
    objective.backward()
    return objective.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in catalogue.list_pages("recipe")
    ],
)
def test_a_full_size_model_trains_every_parameter_that_mmdetections_trains(name: str):
    page = built(name, classes=[]).model
    if name.startswith("faster-rcnn"):  # fewer proposals, which have no parameters: it is slow enough so
        page.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        page.train_cfg.rcnn.sampler.num = 32
    if name.endswith("-guided"):
        page.bbox_head.foreground_prior = 1e-5  # about COCO's, which a run counts
    classes = 20 if "-voc" in name else 80
    ours = model_of(page)
    ours.init_weights()
    assert isinstance(ours, detection.LevelWeighted)
    levels = ours.weighting[0].levels
    if name.startswith("faster-rcnn"):  # of the RoI head, or of the RPN where a RoI has no level of its own
        assert levels == ["P2", "P3", "P4", "P5", *(["P6"] if name.endswith("-augfpn") else [])]
    else:
        assert levels == ["P3", "P4", "P5", "P6", "P7"]
    at_start = copy.deepcopy(ours.state_dict())  # GHM's losses keep running counts
    objective, found = gradients(ours, classes)
    assert torch.isfinite(objective)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    if name.endswith(OURS_ALONE):
        assert set(found) == {n for n, p in ours.named_parameters() if p.requires_grad}
        return

    page.type = STOCK[page.type]
    page.pop("weighting")
    stock = model_of(page)
    stock.load_state_dict(at_start)
    stock_objective, expected = gradients(stock, classes)
    assert found.keys() == expected.keys()
    assert sum(g.numel() for g in found.values()) > 20e6  # full size, and trained but for the frozen stage
    torch.testing.assert_close(objective, stock_objective, rtol=1e-5, atol=0)  # all weights are 1 yet
    for parameter, gradient in expected.items():
        assert bool(found[parameter].any()) == bool(gradient.any()), parameter

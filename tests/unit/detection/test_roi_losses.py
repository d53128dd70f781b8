"""RoI heads with other samplers and losses: what a sampler asks for, and losses that come as a dict."""

from __future__ import annotations

import pytest
import torch

from experiments.detection.level_weighting.refusals import WITHOUT_ROWS
from experiments.weighting import OptionError
from tests.unit.detection.detectors import CASES, assert_same_gradients, batch, build, gradients, losses_of

from mmdet.models import losses  # isort: skip

SAMPLER = dict(num=24, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True)
OHEM = {"train_cfg.rcnn.sampler": dict(type="OHEMSampler", **SAMPLER)}
PISA = {
    "roi_head.type": "PISARoIHead",
    "train_cfg.rcnn.sampler": dict(type="ScoreHLRSampler", k=0.5, bias=0.0, score_thr=0.05, **SAMPLER),
    "train_cfg.rcnn.isr": dict(k=2, bias=0),
}
SEESAW = {
    "roi_head.bbox_head.loss_cls": dict(type="SeesawLoss", p=0.8, q=2.0, num_classes=4, loss_weight=1.0),
}
SEESAW_SUM = {
    "roi_head.bbox_head.loss_cls": {**SEESAW["roi_head.bbox_head.loss_cls"], "return_dict": False},
}
SIGMOID = {"roi_head.bbox_head.loss_cls": dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=2.0)}
DECODED = {
    "roi_head.bbox_head.reg_decoded_bbox": True,
    "roi_head.bbox_head.loss_bbox": dict(type="GIoULoss", loss_weight=10.0),
}


@pytest.fixture(autouse=True)
def _nms_match(monkeypatch):
    """In place of mmcv's operator: every box is a group of its own."""
    from mmdet.models.task_modules.samplers import score_hlr_sampler

    monkeypatch.setattr(
        score_hlr_sampler, "nms_match", lambda boxes, threshold: torch.arange(len(boxes))[:, None]
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(OHEM, id="ohem"),
        pytest.param(SEESAW, id="seesaw"),
        pytest.param(PISA, id="pisa", marks=pytest.mark.slow),
        pytest.param(SIGMOID, id="sigmoid", marks=pytest.mark.slow),
        pytest.param(DECODED, id="decoded", marks=pytest.mark.slow),
    ],
)
def test_with_weights_one_loss_and_gradients_are_stock_mmdetections(changes):
    stock, ours = (build("faster-rcnn", rule, changes=changes) for rule in (None, dict(rule="rlo")))
    for case in CASES:
        stock_total, stock_logs = stock.parse_losses(losses_of(stock, batch(case)))
        total, logs = ours.parse_losses(losses_of(ours, batch(case)))
        assert total.item() == pytest.approx(stock_total.item(), rel=1e-5), case
        assert list(logs) == list(stock_logs)
        assert_same_gradients(gradients(ours, total), gradients(stock, stock_total), where=case)


@pytest.mark.parametrize("changes", [OHEM, PISA], ids=["ohem", "pisa"])
def test_a_sampler_chooses_by_unweighted_losses(changes):
    model = build("faster-rcnn", dict(rule="uniform"), changes=changes)
    before = losses_of(model, batch("all levels"))
    model.weighting[0].rule.weights = torch.tensor([5.0, 0.0, 3.0, 0.5])
    after = losses_of(model, batch("all levels"))
    assert torch.equal(torch.stack(before["loss_cls"]), torch.stack(after["loss_cls"]))
    assert torch.stack(before["loss_cls"]).count_nonzero() >= 2


def test_both_losses_of_a_seesaw_loss_are_weighted_by_the_level_of_their_rois():
    model = build("faster-rcnn", dict(rule="uniform"), changes=SEESAW)
    losses = losses_of(model, batch("all levels"))
    terms = model.level_terms(model.weighting[0], losses)
    assert list(terms) == ["loss_cls_objectness", "loss_cls_classes", "loss_bbox"]
    found = {name: torch.stack(terms[name]).detach() != 0 for name in terms}
    assert found["loss_cls_classes"].tolist() == found["loss_bbox"].tolist()  # of positives
    assert found["loss_cls_objectness"].sum() >= found["loss_bbox"].sum() >= 2


def test_a_batch_without_any_roi_is_stock_mmdetections():
    stock, ours = (build("faster-rcnn", rule) for rule in (None, dict(rule="rlo")))
    ours.parse_losses(losses_of(ours, batch("all levels")))
    for model in (stock, ours):
        model.train_cfg.rpn_proposal.min_bbox_size = 10**6  # pixels: no proposal is that large
    stock_total, _ = stock.parse_losses(losses_of(stock, batch("no box at all")))
    total, _ = ours.parse_losses(losses_of(ours, batch("no box at all")))
    assert total.item() == pytest.approx(stock_total.item(), rel=1e-5)
    assert_same_gradients(gradients(ours, total), gradients(stock, stock_total))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**PISA, "train_cfg.rcnn.carl": dict(k=1, bias=0.2)}, "PISARoIHead returns loss_carl .*one number"),
        (
            {"roi_head.bbox_head.loss_cls": dict(type="EQLV2Loss", num_classes=5)},
            "loss_cls: EQLV2Loss in .*BBoxHead cannot be split by level",
        ),
        (SEESAW_SUM, "loss_cls: SeesawLoss cannot be split by level with return_dict=False"),
        (
            {"roi_head.bbox_head.loss_bbox": dict(type="GHMR")},
            "loss_bbox: GHMR in .*BBoxHead cannot be split by level",
        ),
    ],
)
def test_a_loss_that_cannot_be_split_is_refused_when_the_model_is_built(changes, message):
    with pytest.raises(OptionError, match=message):
        build("faster-rcnn", dict(rule="rlo"), changes=changes)
    build("faster-rcnn", dict(rule="rlo", where="rpn"), changes=changes)  # leaves the RoI head as it is


CLASSIFICATION = ("CrossEntropyLoss", "EQLV2Loss", "FocalLoss", "GHMC")
BOXES = (
    "BalancedL1Loss", "BoundedIoULoss", "CIoULoss", "DIoULoss", "EIoULoss", "GHMR", "GIoULoss", "IoULoss", "L1Loss",
    "MSELoss", "SIoULoss", "SmoothL1Loss",
)  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFICATION + BOXES)
def test_losses_that_do_not_tell_rows_are_known(name):
    module = getattr(losses, name)(**(dict(num_classes=3) if name == "EQLV2Loss" else {}))
    inputs = (torch.rand(6, 4), torch.arange(6) % 4) if name in CLASSIFICATION else boxes_and_targets()
    if name == "GHMC":
        inputs = (inputs[0], torch.nn.functional.one_hot(inputs[1], 4).float())
    weight = torch.ones(6) if inputs[1].dim() == 1 else torch.ones(6, 4)
    found = module(
        *inputs, weight, avg_factor=3.0, **({} if "GHM" in name else dict(reduction_override="none"))
    )
    assert (len(found) == 6 if found.dim() else False) == (not isinstance(module, WITHOUT_ROWS))


def boxes_and_targets():
    corners = torch.arange(24.0).reshape(6, 4)
    return corners + 1, corners + torch.tensor([0.0, 0.0, 9.0, 9.0])

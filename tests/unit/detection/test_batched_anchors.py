"""Heads under `--fast`: stock MMDetection's losses and gradients on every kind of batch, for less."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch

from experiments.detection.level_weighting.batched_anchors import (
    BatchedAnchors,
    CachedAnchors,
    _assign_by_overlaps,
    can_batch,
)
from tests.unit.detection.detectors import (
    CASES,
    DETECTORS,
    assert_same_gradients,
    batch,
    build,
    gradients,
    losses_of,
    some_fast,
    tell_ious,
)
from tests.unit.detection.test_dispatch import count_step

from mmdet.models.task_modules.assigners import MaxIoUAssigner  # isort: skip
from mmengine.structures import InstanceData  # isort: skip


def fast(name, **changes):
    return build(name, dict(rule="uniform"), fast=True, changes=changes)


def assert_same(ours, stock, data, where):
    ours_losses, stock_losses = losses_of(ours, data), losses_of(stock, data)
    (total, logs), (stock_total, stock_logs) = map(
        lambda model, losses: model.parse_losses(losses), (ours, stock), (ours_losses, stock_losses)
    )
    assert {k: v.item() for k, v in logs.items()} == pytest.approx(
        {k: v.item() for k, v in stock_logs.items()}, rel=1e-5, abs=1e-7
    ), where
    assert_same_gradients(gradients(ours, total), gradients(stock, stock_total), where=where)


@pytest.mark.parametrize("name", some_fast("retinanet", "atss"))
def test_loss_and_gradients_are_stock_mmdetections(name):
    ours, stock = fast(name), build(name)
    for case in CASES:
        assert_same(ours, stock, batch(case), case)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_cfg.assigner.min_pos_iou": 0.3, "train_cfg.pos_weight": 2.0},
        {
            "train_cfg.assigner.match_low_quality": False,
            "bbox_head.bbox_coder.target_stds": [0.1, 0.1, 0.2, 0.2],
        },
        {"bbox_head.reg_decoded_bbox": True, "bbox_head.loss_bbox": dict(type="GIoULoss", loss_weight=2.0)},
    ],
)
def test_other_settings_of_a_batched_head_mean_what_they_mean_to_stock_mmdetection(changes):
    ours, stock = fast("retinanet", **changes), build("retinanet", changes=changes)
    assert isinstance(ours.bbox_head, BatchedAnchors)
    for case in ("all levels", "no positives"):
        assert_same(ours, stock, batch(case), case)


def test_anchors_beyond_the_padded_image_and_boxes_to_ignore_count_as_in_stock_mmdetection():
    ours, stock = fast("retinanet"), build("retinanet")
    data = batch("all levels")
    for sample in data["data_samples"]:
        sample.ignored_instances = InstanceData(
            bboxes=torch.tensor([[0.0, 0.0, 100.0, 100.0]]), labels=torch.tensor([1])
        )
    assert_same(ours, stock, data, "ignored boxes")
    smaller, losses = data["data_samples"][1], []
    for model in (ours, stock):
        inputs = model.data_preprocessor(copy.deepcopy(data), True)
        inputs["data_samples"][1].set_metainfo(dict(pad_shape=(100, 150)))
        losses.append(model.parse_losses(model(**inputs, mode="loss"))[0].item())
    assert smaller.gt_instances.bboxes.max() > 150  # a box reaches out of what is valid
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_cannot_be_batched_is_left_to_mmdetection():
    for changes in (
        {"train_cfg.assigner.ignore_iof_thr": 0.5},
        {"train_cfg.allowed_border": 0},
        {"train_cfg.assigner.gpu_assign_thr": 100},
        {"train_cfg.assigner.iou_calculator": dict(type="BboxOverlaps2D", dtype="fp16")},
    ):
        head = fast("retinanet", **changes).bbox_head
        assert isinstance(head, CachedAnchors) and not isinstance(head, BatchedAnchors), changes
    assert not can_batch(build("ghm").bbox_head) and not can_batch(build("fsaf").bbox_head)
    assert not isinstance(build("retinanet", dict(rule="uniform")).bbox_head, CachedAnchors)


def test_boxes_take_anchors_in_the_order_of_mmdetection_where_overlaps_tie():
    generator = torch.Generator().manual_seed(0)
    for low_quality, least in itertools.product((True, False), (0.0, 0.3)):
        assigner = MaxIoUAssigner(0.5, 0.4, least, match_low_quality=low_quality)
        for _ in range(20):  # few values, so that many overlaps are equal
            overlaps = torch.randint(0, 8, (6, 40), generator=generator) / 10
            expected = assigner.assign_wrt_overlaps(overlaps, torch.zeros(6, dtype=torch.long)).gt_inds
            assert torch.equal(_assign_by_overlaps(assigner, overlaps, 1), expected)
            later = torch.where(expected > 0, expected + 10, expected)  # ten boxes of other images before
            assert torch.equal(_assign_by_overlaps(assigner, overlaps, 11), later)


def test_ious_of_the_trace_are_those_of_a_head_that_works_level_by_level():
    told = []
    for model in (fast("retinanet"), build("retinanet", dict(rule="uniform"))):
        losses_of(tell_ious(model), batch("all levels"))
        told.append(model.bbox_head.level_ious)
    torch.testing.assert_close(*told)
    assert told[0][1].sum() > 0


def test_a_fast_head_can_be_copied_and_pickled():
    model = fast("retinanet")
    losses_of(model, batch("all levels"))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other.bbox_head) is type(model.bbox_head)
        assert_same(other, model, batch("one image empty"), "copy")


def test_retinanet_needs_three_quarters_of_stocks_operations_and_half_of_its_waits():
    stock = count_step(build("retinanet"))
    ours = count_step(fast("retinanet"), fused=True)
    assert ours.operations.total() <= 0.75 * stock.operations.total(), ours.operations
    assert ours.waits.total() <= 0.5 * stock.waits.total(), ours.waits


@pytest.mark.parametrize(
    "name", [name for name in DETECTORS if name not in ("retinanet", "fcos", "foveabox")]
)
@pytest.mark.slow
def test_no_detector_needs_more_than_stock(name):
    stock, ours = count_step(build(name)), count_step(fast(name))
    assert ours.operations.total() <= stock.operations.total() + 15
    assert not ours.waits - stock.waits

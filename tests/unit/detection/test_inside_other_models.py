"""A level-weighted detector inside another model is refused before it trains; copies and wrappers of it train."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from experiments.common.errors import UserError
from tests.unit.detection.detectors import batch, build, config_of, losses_of

from mmdet.registry import MODELS  # isort: skip
from mmengine.hooks import EMAHook  # isort: skip

pytestmark = pytest.mark.gpu
STEPS = 2
DRIVEN = [dict(type="LevelWeightingHook")]


def runner_of(model, folder, hooks=DRIVEN):
    batches = [batch("all levels", seed=n) for n in range(STEPS)]
    data = DataLoader(batches, batch_size=1, collate_fn=lambda items: items[0])
    return Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=data,
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-3)),
        custom_hooks=list(hooks),
        experiment_name=folder.name,
        log_level="ERROR",
        default_scope="mmdet",
    )


class Holder(BaseModel):
    """A user's model around a detector, whose own `parse_losses` adds the levels up."""

    def __init__(self, detector, call):
        super().__init__()
        self.detector, self.call = detector, call
        self.data_preprocessor = detector.data_preprocessor

    def forward(self, inputs, data_samples, mode="loss"):
        if self.call == "forward":
            return self.detector(inputs, data_samples, mode="loss")
        if self.call == "head":
            return self.detector.bbox_head.loss(self.detector.extract_feat(inputs), data_samples)
        return self.detector.loss(inputs, data_samples)


@pytest.mark.parametrize("call", ["forward", "loss", "head"])
def test_a_detector_that_another_model_holds_is_refused_before_it_trains(call, tmp_path):
    model = Holder(build("retinanet", dict(rule="rlo")), call)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as caught:
        runner_of(model, tmp_path).train()
    assert caught.value.message == (
        "model: LevelWeightedRetinaNet inside of Holder would train unweighted: the objective is that of Holder"
    )
    assert caught.value.hint == (
        "train LevelWeightedRetinaNet by itself, or name MMDetection's own RetinaNet in Holder"
    )
    with pytest.raises(UserError, match="LevelWeightedRetinaNet trains without a LevelWeightingHook"):
        runner_of(model, tmp_path, []).train()
    assert all(torch.equal(value, model.state_dict()[key].cpu()) for key, value in before.items())
    runner_of(Holder(build("retinanet"), call), tmp_path, []).train()


@pytest.mark.parametrize("kind", ["SemiBaseDetector", "SoftTeacher"])
def test_a_semi_supervised_detector_of_one_is_refused(kind, tmp_path):
    build("faster-rcnn", dict(rule="rlo"))  # registers everything
    detector = config_of("faster-rcnn")
    detector.update(type="LevelWeightedFasterRCNN", weighting=dict(rule="rlo"))
    model = MODELS.build(
        dict(
            type=kind,
            detector=detector,
            semi_train_cfg=dict(freeze_teacher=True, sup_weight=1.0, unsup_weight=4.0),
            semi_test_cfg=dict(predict_on="teacher"),
        )
    )
    with pytest.raises(UserError, match=f"LevelWeightedFasterRCNN inside of {kind} would train unweighted"):
        runner_of(model, tmp_path).train()


def test_a_training_without_the_hook_stops_with_the_line_to_add(tmp_path):
    model = build("retinanet", dict(rule="rlo", alpha=2))
    line = r"custom_hooks = \[dict\(type='LevelWeightingHook'\)\]"
    runner = runner_of(model, tmp_path, [])
    with pytest.raises(
        UserError, match="LevelWeightedRetinaNet trains without a LevelWeightingHook"
    ) as caught:
        runner.train()
    assert re.search(line, caught.value.hint)
    with pytest.raises(UserError, match="without a LevelWeightingHook"):
        model.train_step(batch("all levels"), runner.optim_wrapper)
    model.parse_losses(losses_of(model, batch("all levels")))  # outside of a training nothing is missing
    model.eval()
    model.val_step(batch("all levels"))
    model.train()
    model.weighting[0].finish_step()
    runner_of(model, tmp_path).train()
    assert (model.weighting[0].iteration, model.is_driven) == (1 + STEPS, False)


def test_a_copy_that_a_hook_keeps_does_not_count(tmp_path):
    model = build("retinanet", dict(rule="rlo", alpha=2))
    runner_of(model, tmp_path, [*DRIVEN, EMAHook()]).train()
    assert model.weighting[0].iteration == STEPS


def test_the_hook_on_a_stock_model_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="RetinaNet is not level-weighted, but has a LevelWeightingHook"):
        runner_of(build("retinanet"), tmp_path).train()

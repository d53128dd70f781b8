"""A level-weighted model is copied and saved as a whole, as MMDetection's own is."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from tests.unit.detection.detectors import batch, build, losses_of, some_fast


def trained(name):
    """After an interval and a half, with gradients: whatever a step leaves behind is there."""
    model = build(name, dict(rule="rlo", alpha=2))
    for _ in range(3):
        total, _ = model.parse_losses(losses_of(model, batch("all levels")))
        total.backward()
        for head in model.weighting:
            head.finish_step()
    return model


def total_of(model):
    return model.parse_losses(losses_of(model, batch("one image empty")))[0]


def through_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))


def through_a_file(model, folder):
    torch.save(model, folder / "model.pt")
    return torch.load(folder / "model.pt", weights_only=False)


@pytest.mark.parametrize("name", some_fast("retinanet", "fcos", "faster-rcnn both"))
def test_a_copy_has_the_same_losses_and_weights(name, tmp_path):
    model = trained(name)
    copies = [copy.deepcopy(model), through_pickle(model, tmp_path), through_a_file(model, tmp_path)]
    expected = total_of(model).item()
    for other in copies:
        assert type(other) is type(model)
        assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
        assert total_of(other).item() == expected
        for head, same in zip(model.weighting, other.weighting):
            assert torch.equal(head.rule.weights, same.rule.weights)
            assert torch.equal(head.rule.generator.get_state(), same.rule.generator.get_state())


def test_a_copy_keeps_nothing_of_its_original():
    model = trained("fcos")
    other = copy.deepcopy(model)
    model.bbox_head.level_ious = None
    total_of(other)
    assert model.bbox_head.level_ious is None  # the copy's losses call the copy's head


@pytest.mark.slow
def test_another_process_loads_a_saved_model(tmp_path):
    model = trained("faster-rcnn")
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import experiments.detection, sys, torch;"
        "model = torch.load(sys.argv[1], weights_only=False);"
        "print(type(model.roi_head.bbox_head).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "model.pt"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "LevelWiseShared2FCBBoxHead"

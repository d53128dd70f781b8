"""A level-weighted step costs the host next to nothing: operations and waits, beside those of stock MMDetection.

Without a GPU waits are seen from the operations that would wait there.
"""

import pytest
import torch

from benchmarks.dispatch import OperationCounter
from experiments.detection.level_weighting import localisation
from tests.unit.detection.detectors import DETECTORS, batch, build, losses_of, some_fast, tell_ious

MORE_OPERATIONS = {"fcos": 30, "foveabox": 30, "faster-rcnn": 40, "faster-rcnn both": 40}  # others: 15


def count_step(model, fused=None):
    """Of one step, from the batch on the device to the rule's having observed it."""

    def step():
        total, _ = model.parse_losses(losses_of(model, batch("all levels")))
        total.backward()
        optimizer.step()
        for head in getattr(model, "weighting", ()):
            assert not head.finish_step()

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, fused=fused)
    model.parse_losses(losses_of(model, batch("all levels")))  # whatever is made once
    with OperationCounter() as counter:
        step()
    return counter


@pytest.mark.parametrize("name", some_fast("retinanet", "fcos", "foveabox", "faster-rcnn"))
def test_a_weighted_step_dispatches_little_more_than_stock_and_waits_no_more_often(name):
    stock, ours = count_step(build(name)), count_step(build(name, dict(rule="rlo")))
    more = ours.operations.total() - stock.operations.total()
    assert more <= MORE_OPERATIONS.get(name, 15), ours.operations - stock.operations
    assert not ours.waits - stock.waits
    assert stock.waits["nonzero"] > 0  # what is counted does occur


@pytest.mark.parametrize("name", some_fast("retinanet", "faster-rcnn"))
def test_a_step_that_tells_ious_waits_no_more_often_than_stock_mmdetection(name, monkeypatch):
    monkeypatch.setattr(localisation, "is_waited_for", lambda tensor: True)  # as on a GPU
    counted = []
    for weighting in (None, dict(rule="rlo")):
        model = build(name, weighting)
        if weighting is not None:
            tell_ious(model)
        losses_of(model, batch("all levels"))
        with OperationCounter() as counter:
            model.parse_losses(losses_of(model, batch("all levels")))
        counted.append(counter.waits)
    assert all(head.level_ious is not None for head in map(model.head_of, model.weighting))
    assert not counted[1] - counted[0]


def test_operations_waits_and_allocations_are_counted():
    with OperationCounter() as counter:
        values = torch.arange(4.0)
        assert values[values > 1].sum().item() == 5
        values.new_tensor([1.0])
        values.view(2, 2).add_(1)
    assert counter.operations == dict(
        arange=1, gt=1, index=1, sum=1, _local_scalar_dense=1, lift_fresh=1, view=1, add_=1
    )
    assert counter.waits == {"index by mask": 1, "_local_scalar_dense": 1, "lift_fresh": 1}
    assert counter.allocations == 4  # arange, gt, index and sum


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
@pytest.mark.parametrize("name", DETECTORS)
def test_on_a_gpu_nothing_of_ours_waits(name, monkeypatch):
    """Stock MMDetection waits by itself in each iteration; what it does inside is left out by comparing warnings."""
    counted = {}
    for weighting in (None, dict(rule="rlo", alpha=50)):
        model = build(name, weighting).cuda()
        model.parse_losses(losses_of(model, batch("all levels")))
        for head in getattr(model, "weighting", ()):
            head.finish_step()  # the first one moves the buffers of an interval to the device
        with pytest.warns(UserWarning) as warned:
            torch.cuda.set_sync_debug_mode("warn")
            try:
                model.parse_losses(losses_of(model, batch("all levels")))
                for head in getattr(model, "weighting", ()):
                    head.finish_step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counted[weighting is not None] = sum("synchroniz" in str(w.message) for w in warned)
    assert counted[True] <= counted[False]

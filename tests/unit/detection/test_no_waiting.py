"""Level weighting never makes the host wait for a device inside an interval.

Without a GPU this is seen from the operations that would wait there: reading a number, asking how many elements are
not zero, and copying a number of the host's into a tensor. Ours may have no more of them than stock MMDetection has.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.detection.level_weighting import localisation
from tests.unit.detection.detectors import DETECTORS, batch, build, losses_of

WAITING = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::lift_fresh",
    "aten::masked_select",
    "aten::is_nonzero",
)


class Waits(TorchDispatchMode):
    """Counts the operations that would wait for a device."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition(".")[0]
        masked = name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or masked:
            self.counted["aten::index by mask" if masked else name] += 1
        return function(*args, **(kwargs or {}))


def waits_of(model):
    """Of one step inside an interval, from the batch on the device to the rule's having observed it."""
    losses_of(model, batch("all levels"))  # whatever is made once
    with Waits() as waits:
        model.parse_losses(losses_of(model, batch("all levels")))
        for head in getattr(model, "weighting", ()):
            assert head.finish_step() is None
    return waits.counted


@pytest.mark.parametrize("name", DETECTORS)
def test_it_waits_no_more_often_than_stock_mmdetection(name, monkeypatch):
    monkeypatch.setattr(localisation, "is_waited_for", lambda tensor: True)  # as on a GPU
    stock, ours = waits_of(build(name)), waits_of(build(name, dict(rule="rlo", alpha=50)))
    assert not ours - stock
    assert stock["aten::nonzero"] > 0  # what is counted does occur


def test_what_would_wait_is_counted():
    with Waits() as waits:
        values = torch.arange(4.0)
        assert values[values > 1].sum().item() == 5
        values.new_tensor([1.0])
    assert set(waits.counted) == {"aten::index by mask", "aten::_local_scalar_dense", "aten::lift_fresh"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", DETECTORS)
def test_on_a_gpu_nothing_of_ours_waits(name, monkeypatch):
    """Stock MMDetection waits by itself in each iteration; what it does inside is left out by comparing warnings."""
    counted = {}
    for weighting in (None, dict(rule="rlo", alpha=50)):
        model = build(name, weighting).cuda()
        losses_of(model, batch("all levels"))
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

"""Which images went through the detector together in an evaluation."""

from __future__ import annotations

import pytest
from mmengine.dataset import DefaultSampler

from experiments.training.prediction import find_batch


@pytest.mark.parametrize(
    ("images", "batch", "ranks"), [(12, 4, 1), (13, 4, 1), (13, 3, 2), (5, 2, 4), (7, 1, 3)]
)
def test_batches_are_those_of_the_evaluations_sampler(
    images: int, batch: int, ranks: int, monkeypatch: pytest.MonkeyPatch
):
    wanted = {}
    for rank in reversed(range(ranks)):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, ranks))
        order = list(DefaultSampler(range(images), shuffle=False))
        batches = [order[i : i + batch] for i in range(0, len(order), batch)]
        # what fills up the last ones is done twice; a rank's own images come first
        wanted |= {i: one for one in reversed(batches) for i in one if i % ranks == rank}
    for place in range(images):
        assert find_batch(place, images, batch, ranks) == wanted[place], place

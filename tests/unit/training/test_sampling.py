"""Which images a step has, and how they are augmented: the same for any processes, micro-batches, workers and stops."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from experiments.training.engine import sampler as sampling
from experiments.training.engine.sampler import (
    ResumableBatchSampler,
    SampleIndex,
    SeededDataset,
    seed_micro_batch,
    split,
)

from mmdet.datasets.samplers import AspectRatioBatchSampler  # isort: skip

IMAGES, BATCH = 10, 4  # so three batches an epoch, the last one smaller
GENERATORS = (random.random, np.random.rand, lambda: torch.rand(()).item())


class Images(torch.utils.data.Dataset):
    """Numbers in place of images, augmented by all three generators; of both orientations, as photographs are."""

    def __init__(self, count: int = IMAGES) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": 3, "height": 2 + 2 * (index % 3 == 0)}

    def __getitem__(self, index: int) -> list[float]:
        return [float(index), *(draw() for draw in GENERATORS)]


def order(count: int, epoch: int, seed: int = 1, world: tuple[int, int] = (0, 1)) -> DefaultSampler:
    """MMEngine's sampler, as the rank of so many processes has it."""
    made = DefaultSampler(Images(count), shuffle=True, seed=seed)
    made.rank, made.world_size = world
    made.num_samples = -(-count // world[1])
    made.total_size = made.num_samples * world[1]
    made.set_epoch(epoch)
    return made


def sampler(
    monkeypatch: pytest.MonkeyPatch,
    world: tuple[int, int] = (0, 1),
    count: int = IMAGES,
    epoch: int = 2,
    batch: int = BATCH,
    ratio: bool = False,
    **options: Any,
) -> ResumableBatchSampler:
    monkeypatch.setattr(sampling, "get_dist_info", lambda: world)
    inner = dict(type="AspectRatioBatchSampler") if ratio else None
    return ResumableBatchSampler(order(count, epoch, world=world), batch, inner, **options)


# -------------------------------------------------------------------------------------- the batches


@pytest.mark.parametrize("ratio", [True, False])
@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_leaving_out_steps_gives_the_rest_of_the_same_pass(skip: int, ratio: bool, monkeypatch):
    whole = list(sampler(monkeypatch, ratio=ratio))
    assert len(whole) == 3
    assert sorted(index for batch in whole for index in batch) == list(range(IMAGES))
    resumed = sampler(monkeypatch, ratio=ratio)
    resumed.skip = skip
    assert list(resumed) == whole[skip:]
    assert list(resumed) == whole  # the next pass is a whole one
    assert len(resumed) == 3
    assert list(sampler(monkeypatch, ratio=ratio, epoch=3)) != whole


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_each_process_has_the_batches_of_stock_training_on_so_many_gpus(ranks: int, monkeypatch):
    for rank in range(ranks):
        ours = sampler(monkeypatch, (rank, ranks), count=21, ratio=True, shards=ranks)
        assert list(ours) == list(AspectRatioBatchSampler(order(21, epoch=2, world=(rank, ranks)), BATCH))


@pytest.mark.parametrize("ratio", [True, False])
@pytest.mark.parametrize("count", [32, 37, 33])  # 33: the last batches have one or two images
@pytest.mark.parametrize(("ranks", "micro"), [(2, 4), (1, 4), (1, 2), (4, 2), (8, 1), (2, 1)])
def test_a_step_has_the_same_images_on_any_number_of_processes(
    ranks: int, micro: int, count: int, ratio: bool, monkeypatch
):
    shards = 2
    reference = [
        list(sampler(monkeypatch, (rank, 2), count=count, ratio=ratio, shards=shards)) for rank in range(2)
    ]
    samplers = [
        sampler(monkeypatch, (rank, ranks), count=count, ratio=ratio, shards=shards, micro_batch=micro)
        for rank in range(ranks)
    ]
    steps = [list(one) for one in samplers]
    assert {len(one) for one in steps} == {len(samplers[0])} == {len(reference[0])}
    for number in range(len(steps[0])):
        wanted = sorted(index for rank in reference for index in rank[number])
        pieces = [
            piece for one, rank in zip(samplers, steps) for piece in split(rank[number], one.sizes[number])
        ]
        assert len(pieces) == shards * BATCH // micro
        assert all(len(piece) <= micro for piece in pieces)
        got = sorted(index for piece in pieces for index in piece)
        if len(wanted) == shards * BATCH or (ranks == 2 and micro == 4):
            assert got == wanted
        else:  # at the end of an epoch some may come twice, so that nobody is left without any
            assert all(pieces)
            assert set(got) == set(wanted)
        # a piece is a part of one batch: images of one orientation stay together
        assert all(any(set(piece) <= set(batch[number]) for batch in reference) for piece in pieces)


def test_processes_that_cannot_share_a_step_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="3 processes cannot share 2 batches of 4 images in pieces of 4"):
        sampler(monkeypatch, (0, 3), shards=2, micro_batch=4)
    with pytest.raises(ValueError, match="in pieces of 3"):
        sampler(monkeypatch, shards=2, micro_batch=3)


def test_a_collated_batch_is_cut_through_all_it_holds():
    batch = {"inputs": [1, 2, 3], "data": {"x": torch.arange(3)}}
    first, second = split(batch, [2, 1])
    assert (first["inputs"], second["inputs"]) == ([1, 2], [3])
    assert (first["data"]["x"].tolist(), second["data"]["x"].tolist()) == ([0, 1], [2])
    assert split(batch, [3]) == [batch]


# --------------------------------------------------------------------------------------- randomness


def augmented(seed: int = 7, epoch: int = 0, workers: int = 0, indices=range(IMAGES)) -> list[list[float]]:
    batches = [[SampleIndex(i, epoch)] for i in indices]
    data = SeededDataset(Images(), seed)
    loader = DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=lambda items: items[0])
    return list(loader)


def test_augmentation_follows_from_seed_epoch_and_sample():
    first = augmented()
    random.random(), np.random.rand(), torch.rand(5)  # wherever the process has come to
    assert augmented() == first
    backwards = augmented(indices=reversed(range(IMAGES)))
    assert backwards[::-1] == first
    for other in (augmented(epoch=1), augmented(seed=8)):
        assert all(a[0] == b[0] and set(a[1:]).isdisjoint(b[1:]) for a, b in zip(first, other))
    assert len({value for item in first for value in item[1:]}) == 3 * IMAGES  # no two images alike


def test_augmentation_does_not_depend_on_the_data_workers():
    assert augmented(workers=2) == augmented(workers=0)


def test_reading_a_sample_leaves_the_generators_as_they_were():
    def draws() -> list[float]:
        normal = [random.gauss(0, 1), float(np.random.randn()), torch.randn(()).item()]  # two keep a spare
        return [*normal, *(draw() for draw in GENERATORS), random.gauss(0, 1)]

    seed_micro_batch(3)
    draws()
    expected = draws()
    seed_micro_batch(3)
    draws()
    SeededDataset(Images(), 0)[4]
    assert draws() == expected


def test_each_micro_batch_has_random_numbers_of_its_own():
    def at(*position: int) -> tuple[float, ...]:
        seed_micro_batch(*position)
        return tuple(draw() for draw in GENERATORS)

    assert at(5, 10, 0) == at(5, 10, 0)
    places = [(5, 10, 0), (5, 10, 1), (5, 11, 0), (6, 10, 0)]
    assert len({value for place in places for value in at(*place)}) == 3 * len(places)


def test_an_index_keeps_its_epoch_on_the_way_to_a_data_worker():
    sent = pickle.loads(pickle.dumps(SampleIndex(3, epoch=9)))
    assert (sent, sent.epoch) == (3, 9)


def test_what_is_asked_of_the_data_set_is_answered_by_it():
    data = SeededDataset(Images(), 0)
    assert data.get_data_info(3) == {"width": 3, "height": 4}
    assert len(pickle.loads(pickle.dumps(data))) == IMAGES
    with pytest.raises(AttributeError):
        getattr(data, "nothing")  # noqa: B009

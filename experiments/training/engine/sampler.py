"""The images of each optimizer step and their augmentation: they follow from recipe and seed alone."""

from __future__ import annotations

import contextlib
import copy
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, Dataset, Sampler


class SampleIndex(int):
    """The index of a sample, and the epoch that wants it: together with the seed all that augments it."""

    epoch: int

    def __new__(cls, index: int, epoch: int = 0) -> SampleIndex:
        made = super().__new__(cls, index)
        made.epoch = epoch
        return made


class SeededDataset(Dataset):
    """A data set whose augmentation follows from (seed, epoch, sample).

    It is the same in any worker, in any order, after any stop. The generators of the process stay as they were.

    Args:
        dataset: MMEngine's; everything but its items is passed through.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with seed_temporarily(self.seed, getattr(index, "epoch", 0), int(index)):
            return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # asked for before it is set, by a copy
            raise AttributeError(name)
        return getattr(self.dataset, name)


@contextlib.contextmanager
def seed_temporarily(*position: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators by a position in the training, for a block."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed(position, torch.default_generator.manual_seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_micro_batch(*position: int) -> None:
    """Seed every generator of this process, its GPU's included, by a position in the training."""
    _seed(position, torch.manual_seed)


def _seed(position: Sequence[int], seed_torch: Callable[[int], Any]) -> None:
    words = np.random.SeedSequence(position).generate_state(3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    seed_torch(words[2])


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(BatchSampler):
    """This process's share of each optimizer step; skips steps without reading an image.

    The order of an epoch is dealt out to `shards`, as stock training deals it to so many GPUs, and each shard
    forms its batches by `inner`. A step has one batch of every shard, cut into pieces of `micro_batch` images;
    the processes take the pieces in turn. So a step has the same images, grouped alike, on any number of
    processes, and its gradient is the mean over the same pieces.

    Args:
        sampler: Gives the order of an epoch.
        batch_size: Images per shard and step.
        inner: Config of the batch sampler that forms the batches; None takes the indices as they come.
        shards: GPUs that the recipe's schedule names.
        micro_batch: Images per piece; None: a whole batch.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        inner: dict | None = None,
        shards: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.inner = inner or dict(type=BatchSampler, drop_last=False)
        self.shards = shards
        micro_batch = micro_batch or batch_size
        self.pieces = batch_size // micro_batch  # of each batch
        self.rank, self.world_size = get_dist_info()
        if batch_size % micro_batch or shards * self.pieces % self.world_size:
            raise ValueError(
                f"{self.world_size} processes cannot share {shards} batches of {batch_size} images"
                f" in pieces of {micro_batch}"
            )
        self.accumulation = shards * self.pieces // self.world_size  # pieces of a step in this process
        self._steps = len(self._batches()[0])
        self.skip = 0  # steps to leave out of the next pass
        self.sizes: deque[list[int]] = deque()  # images of each piece, of the steps that were given out

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        self.sizes.clear()
        epoch = getattr(self.sampler, "epoch", 0)
        for batches in islice(zip(*self._batches()), skip, None):
            pieces = [piece for batch in batches for piece in _cut(batch, self.pieces)]
            own = pieces[self.rank :: self.world_size]
            self.sizes.append([len(piece) for piece in own])
            yield [SampleIndex(index, epoch) for piece in own for index in piece]

    def __len__(self) -> int:
        return self._steps

    def _batches(self) -> list[BatchSampler]:
        order = list(_undivided(self.sampler))
        per_shard = -(-len(order) // self.shards)
        order = [order[i % len(order)] for i in range(per_shard * self.shards)]
        return [
            DATA_SAMPLERS.build(
                dict(self.inner),
                default_args=dict(sampler=_Order(order[shard :: self.shards], self.sampler.dataset),
                                  batch_size=self.batch_size),
            )
            for shard in range(self.shards)
        ]  # fmt: skip


class _Order(list[int], Sampler):
    """A given order of a data set's samples."""

    def __init__(self, indices: list[int], dataset: Any) -> None:
        super().__init__(indices)
        self.dataset = dataset  # batch samplers look at it


def _undivided(sampler: Any) -> Any:
    """Return the sampler as it would be in a single process: dividing the order is ours."""
    whole = copy.copy(sampler)
    if getattr(whole, "world_size", 1) > 1:
        whole.rank, whole.world_size = 0, 1
        whole.num_samples = whole.total_size = len(whole.dataset)
    return whole


def _cut(batch: list[int], pieces: int) -> list[list[int]]:
    """Cut a batch into so many pieces, none empty: an epoch's last batch repeats images if it has too few."""
    batch = [batch[i % len(batch)] for i in range(max(len(batch), pieces))]
    bounds = [len(batch) * i // pieces for i in range(pieces + 1)]
    return [batch[a:b] for a, b in pairwise(bounds)]


def split(batch: Any, sizes: Sequence[int]) -> list[Any]:
    """Cut a collated batch into its pieces, whatever lists, tensors and mappings it is made of."""
    if len(sizes) == 1:
        return [batch]
    if isinstance(batch, dict):
        parts = {key: split(value, sizes) for key, value in batch.items()}
        return [{key: part[i] for key, part in parts.items()} for i in range(len(sizes))]
    bounds = np.cumsum([0, *sizes]).tolist()
    return [batch[a:b] for a, b in pairwise(bounds)]

"""Training by epochs or by a number of iterations, resumable in mid-epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmdet.registry import DATA_SAMPLERS
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(BatchSampler):
    """Batches of indices from another batch sampler; can leave out the first ones without reading an image.

    Args:
        sampler: Gives the indices.
        batch_size: Images per batch.
        inner: Config of the batch sampler that forms the batches; None takes the indices as they come.
    """

    def __init__(self, sampler: Any, batch_size: int, inner: dict | None = None) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        config = inner or dict(type=BatchSampler, drop_last=False)
        self.inner = DATA_SAMPLERS.build(config, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.skip = 0  # batches to leave out of the next pass

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        for number, batch in enumerate(self.inner):
            if number >= skip:
                yield batch

    def __len__(self) -> int:
        return len(self.inner)


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop that starts a resumed epoch where it stopped, and may end after `max_iters`.

    Args:
        max_epochs, max_iters: Length of the training; exactly one of them.
        val_interval: Epochs between evaluations; the end is always evaluated.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        val_interval: int = 1,
    ) -> None:
        if (max_epochs is None) == (max_iters is None):
            raise ValueError("exactly one of max_epochs and max_iters must be given")
        super().__init__(runner, dataloader, max_epochs or 1, val_interval=val_interval)
        if max_iters is not None:
            self._max_iters = max_iters
            self._max_epochs = math.ceil(max_iters / len(self.dataloader))

    def run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        if done:
            self.dataloader.batch_sampler.skip = done
        batches = iter(self.dataloader)
        self.runner.call_hook("before_train_batches")
        for index, batch in enumerate(batches, start=done):
            if self._iter >= self._max_iters:
                break
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

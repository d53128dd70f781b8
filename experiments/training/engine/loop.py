"""Training by epochs or by a number of iterations, resumable in mid-epoch. An iteration is an optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce_params
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from experiments.detection.level_weighting.hook import unwrap
from experiments.training.engine.fast import move_ahead
from experiments.training.engine.sampler import seed_micro_batch, split


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop that starts a resumed epoch where it stopped, and may end after `max_iters`.

    MMEngine counts micro-batches where gradients are accumulated, so that schedules, warm-up, intervals and
    periods of hooks would have to be multiplied. Here one iteration is one optimizer step with all of its
    micro-batches, and whatever counts iterations stays as it is. Every micro-batch has random numbers of its
    own, which follow from (seed, iteration, its place in the step): nothing of them is carried from step to
    step, so none is lost in a stop, and it does not matter which process works on it.

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
        self._steps_per_epoch = len(self.dataloader)
        if max_iters is not None:
            self._max_iters = max_iters
            self._max_epochs = math.ceil(max_iters / self._steps_per_epoch)

    def run(self) -> torch.nn.Module:
        """Train to the end."""
        sampler, wrapper = self.dataloader.batch_sampler, self.runner.optim_wrapper
        counts = [iterations * sampler.accumulation for iterations in (self._iter, self._max_iters)]
        wrapper.initialize_count_status(self.runner.model, *counts)  # the wrapper does count micro-batches
        return super().run()

    def run_epoch(self) -> None:
        """Train an epoch, or what a resumed run has left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self._statistics = list_running_statistics(self.runner.model)
        done = self._iter - self._epoch * self._steps_per_epoch
        if done:
            self.dataloader.batch_sampler.skip = done
        for index, batch in enumerate(self._batches(), start=done):
            if self._iter >= self._max_iters:
                break
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _batches(self) -> Iterable[Any]:
        if not self.runner.cfg.get("fast") or not torch.cuda.is_available():
            return self.dataloader
        return move_ahead(self.dataloader, unwrap(self.runner.model).data_preprocessor.cast_data)

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Take one optimizer step: forward and backward for each of this process's micro-batches."""
        runner, sampler = self.runner, self.dataloader.batch_sampler
        runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        outputs = []
        for number, part in enumerate(split(data_batch, sampler.sizes.popleft())):
            seed_micro_batch(runner.seed, self._iter, sampler.rank + number * sampler.world_size)
            outputs.append(runner.model.train_step(part, optim_wrapper=runner.optim_wrapper))
        if self._statistics:
            # Each rank has seen other images. Else it would evaluate with statistics of its own, and a resumed run
            # would go on with those of rank 0. At each step, so that it does not matter when a run is saved.
            all_reduce_params(self._statistics, op="mean")
        runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=_mean(outputs))
        self._iter += 1


def list_running_statistics(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the running means and variances that training changes: none where they are frozen."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]


def _mean(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of what the micro-batches logged, without waiting for a device."""
    if len(outputs) == 1:
        return outputs[0]
    return {name: sum(output[name] for output in outputs) / len(outputs) for name in outputs[0]}

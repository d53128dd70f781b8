"""A module of the user's own: memory runs out as long as a forward pass has more than one image."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Scarce(Hook):
    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 6 and runner.train_dataloader.batch_sampler.pieces == 1:
            raise MemoryError("no more to be had")

"""Losses for the log, read from the device once for each line of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook that waits for the device once every few iterations, with the same log.

    Args:
        every: Iterations of an epoch between two lines of the log.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._pending: list[dict[str, Any]] = []
        self._norm: torch.Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Keep the norm of gradients, which MMEngine reads from the device at each step."""
        super().before_train(runner)
        clip = getattr(runner.optim_wrapper, "clip_func", None)
        if clip is not None:
            runner.optim_wrapper.clip_func = functools.partial(self._clip, clip)

    def _clip(self, clip: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._norm = clip(*args, **kwargs)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Keep the losses; pass on those that are kept before the log needs them."""
        clipped = {} if self._norm is None else {"grad_norm": self._norm}
        self._pending.append({name: _detach(value) for name, value in {**clipped, **(outputs or {})}.items()})
        is_last = self.is_last_train_iter(runner) or self.end_of_epoch(runner.train_dataloader, batch_idx)
        if is_last or self.every_n_inner_iters(batch_idx, self.every):
            self._pass_on(runner)

    def _pass_on(self, runner: Runner) -> None:
        values = [value for losses in self._pending for value in losses.values()]
        if all(isinstance(value, torch.Tensor) for value in values) and values:
            values = torch.stack([value.float() for value in values]).tolist()
        names = (name for losses in self._pending for name in losses)
        for name, value in zip(names, values):
            runner.message_hub.update_scalar(f"train/{name}", value)
        self._pending = []


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value

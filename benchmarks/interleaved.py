"""A training that pauses after some iterations, so that several can take turns in one process."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from mmengine.hooks import Hook

from experiments.training.engine.fast import set_device_math


class TrainingEnded(Exception):
    """Enough was measured."""


class Training(Hook):
    """`runner.train()` in a thread of its own, of which one at a time has its turn.

    The runner's own loop is not touched: it waits inside this hook, its last one. Loading of images, hooks and the end
    of an epoch are inside a turn, as they are in any training.

    Args:
        runner: MMEngine's or msdet's, not yet trained.
        fast: Whether the device computes as with --fast in its turns.

    Attributes:
        peak_bytes: Memory of the device in a turn beyond what all trainings keep, at most; 0 without one.
    """

    priority = "LOWEST"

    def __init__(self, runner: Any, fast: bool = False) -> None:
        self.runner, self.fast = runner, fast
        self.cuda, self.peak_bytes = torch.cuda.is_available(), 0
        self.error: BaseException | None = None
        self._left = 0  # iterations of this turn
        self._has_ended = False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        runner.register_hook(self)
        self._thread = threading.Thread(target=self._train, daemon=True)  # Ctrl-C need not wait for it

    def advance(self, iterations: int) -> float:
        """Train for so many iterations, and return the seconds that they took.

        Raises:
            Whatever the training raised.
        """
        self._left = iterations
        set_device_math(self.fast)
        kept = 0
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            kept = torch.cuda.memory_allocated()
        began = time.perf_counter()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._paused.acquire()
        seconds = time.perf_counter() - began
        if self.cuda:
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated() - kept)
        if self.error is not None:
            raise self.error
        return seconds

    def end(self) -> None:
        """End the training; in the middle of a turn (Ctrl-C) its iteration is finished first."""
        self._has_ended = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join(timeout=60)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Pause at the end of a turn until the next one."""
        self._left -= 1
        if self._left != 0 and not self._has_ended:
            return
        if self.cuda:
            torch.cuda.synchronize()
        self._paused.release()
        self._go.acquire()
        if self._has_ended:
            raise TrainingEnded

    def _train(self) -> None:
        try:
            self.runner.train()
            self.error = RuntimeError("the training came to its end before the measurement did")
        except TrainingEnded:
            return
        except BaseException as error:
            self.error = error
        self._paused.release()

"""A training that pauses after some iterations, so that several can take turns in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook


class Turns(Hook):
    """Pause the runner's own loop behind its last hook. The loop is not touched: it waits inside the hook."""

    priority = "LOWEST"

    def __init__(self, cuda: bool) -> None:
        self.cuda = cuda
        self.left = 0  # iterations of this turn
        self.ended = False
        self.go, self.paused = threading.Semaphore(0), threading.Semaphore(0)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Pause at the end of a turn."""
        self.left -= 1
        if self.left == 0 or self.ended:
            self.pause()

    def pause(self) -> None:
        """Wait for the next turn."""
        if self.cuda:
            torch.cuda.synchronize()
        self.paused.release()
        self.go.acquire()
        if self.ended:
            raise TrainingEnded


class TrainingEnded(Exception):
    """Enough was measured."""


class Training:
    """`runner.train()` in a thread of its own, of which one at a time has its turn.

    Loading of images, hooks and the end of an epoch are inside a turn, as they are in any training.

    Args:
        runner: MMEngine's or msdet's, not yet trained.
        cuda: Whether the device's work has to be waited for.
        before: Called before each turn, for settings that all trainings share.

    Attributes:
        peak_bytes: Memory of the device in a turn beyond what all trainings keep, at most; 0 without one.
    """

    def __init__(self, runner: Any, cuda: bool, before: Callable[[], None] = lambda: None) -> None:
        self.runner = runner
        self.cuda, self.before, self.peak_bytes = cuda, before, 0
        self.turns = Turns(cuda)
        self.error: BaseException | None = None
        runner.register_hook(self.turns)
        self._thread = threading.Thread(target=self._train, daemon=True)  # Ctrl-C need not wait for it

    def advance(self, iterations: int) -> float:
        """Train for so many iterations, and return the seconds that they took.

        Raises:
            Whatever the training raised.
        """
        self.turns.left = iterations
        self.before()
        kept = self._reset_peak()
        began = time.perf_counter()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self.turns.go.release()
        self.turns.paused.acquire()
        seconds = time.perf_counter() - began
        if self.cuda:
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated() - kept)
        if self.error is not None:
            raise self.error
        return seconds

    def _reset_peak(self) -> int:
        if not self.cuda:
            return 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def end(self) -> None:
        """End the training; in the middle of a turn (Ctrl-C) its iteration is finished first."""
        self.turns.ended = True
        self.turns.go.release()
        if self._thread.ident is not None:
            self._thread.join(timeout=60)

    def _train(self) -> None:
        try:
            self.runner.train()
            self.error = RuntimeError("the training came to its end before the measurement did")
        except TrainingEnded:
            return
        except BaseException as error:
            self.error = error
        self.turns.paused.release()

"""Requests to stop, and the consensus of all ranks on the optimizer step after which they stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from experiments.common.errors import INTERRUPTED, UserError
from experiments.common.processes import has_launcher
from experiments.runs.run_folder import RunFolder

STOP = threading.Event()  # set by a signal; honoured after the optimizer step under way
HEARTBEAT_S = 5
SAME_MOMENT_S = 1.0


class Interrupted(UserError):
    """Raised where a run that was asked to stop has saved a checkpoint."""

    def __init__(self, iteration: int) -> None:
        super().__init__(
            f"stopped at iteration {iteration}", "type the same command to resume it", INTERRUPTED
        )
        self.iteration = iteration


class StopConsensus:
    """Tells every rank at the same step that one of them was asked to stop.

    A signal may reach one rank only, or all of them at different steps, and ranks that stop at different steps
    wait for each other for ever. So each step reduces a flag on the CPU, beside the training, and reads it one
    step later: no device is waited for.
    """

    def __init__(self) -> None:
        self._several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if self._several else None
        self._pending: tuple[torch.Tensor, Any] | None = None

    def __call__(self) -> bool:
        """Return whether to stop now. A collective: every rank calls it at every step."""
        if not self._several:
            return STOP.is_set()
        stop = self._read_flag()
        flag = torch.tensor([float(STOP.is_set())])
        self._pending = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stop

    def _read_flag(self) -> bool:
        if self._pending is None:
            return False
        flag, work = self._pending
        work.wait()
        self._pending = None
        return bool(flag.item())

    def wait_for_all(self) -> None:
        """Return when every rank has called this. A collective."""
        if self._several:
            self._read_flag()
            dist.barrier(group=self._group)


def stop_when_asked(world_size: int) -> None:
    """Let SIGINT and SIGTERM ask for a checkpoint and the end; a second one ends a single process at once.

    What comes in the same moment is the same request: Slurm signals every process of a job. Several ranks take
    every signal as the same request, since torchrun sends them one more when the first of them ends.
    """
    asked_at = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal asked_at
        if not STOP.is_set():
            asked_at = time.monotonic()
            STOP.set()
        elif world_size == 1 and time.monotonic() > asked_at + SAME_MOMENT_S:
            raise KeyboardInterrupt

    def reset_in_child() -> None:
        """Let a forked child, of a pool or a data loader, end when it is told to."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    os.register_at_fork(after_in_child=reset_in_child)


def start_heartbeat(run: RunFolder, parent: int) -> None:
    """Keep the progress file's time fresh, and ask this process to stop when nobody waits for the run any more.

    That is when the parent has died, or the process that started torchrun, or somebody has cancelled the run.
    """

    def beat() -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            with contextlib.suppress(OSError):
                os.utime(run.progress)
            if STOP.is_set():  # asked again, a single process would end at once
                continue
            if not has_launcher(parent) or run.cancel.exists():
                os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()

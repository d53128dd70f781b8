"""Asking a run to stop, and how all of its ranks come to stop behind the same optimizer step."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from experiments.common.errors import INTERRUPTED, UserError
from experiments.runs.run_folder import RunFolder

STOP = threading.Event()  # set by a signal; honoured after the optimizer step under way
HEARTBEAT_S = 5
SAME_MOMENT_S = 1.0
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Interrupted(UserError):
    """The run was asked to stop and has saved where it is."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}", "type the same command to go on", INTERRUPTED)
        self.iteration = iteration


class StopConsensus:
    """Tells every rank at the same step that one of them was asked to stop.

    A signal may reach one rank only, or all of them at different steps; ranks that stopped at different steps
    would wait for each other for ever. Each step a flag goes round on the CPU beside the training, and is read one
    step later: no device is waited for.
    """

    def __init__(self) -> None:
        self._several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if self._several else None
        self._asked: tuple[torch.Tensor, Any] | None = None

    def __call__(self) -> bool:
        """Whether to stop now. A collective: every rank asks at every step."""
        if not self._several:
            return STOP.is_set()
        stop = self._heard()
        flag = torch.tensor([float(STOP.is_set())])
        self._asked = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stop

    def _heard(self) -> bool:
        if self._asked is None:
            return False
        flag, work = self._asked
        work.wait()
        self._asked = None
        return bool(flag.item())

    def wait_for_all(self) -> None:
        """Goes on when every rank has come here."""
        if self._several:
            self._heard()
            dist.barrier(group=self._group)


def stop_when_asked() -> None:
    """SIGINT and SIGTERM ask for a checkpoint and the end; a second one ends at once.

    What comes in the same moment is the same request: Slurm signals every process of a job, and the launcher of
    several ranks passes it on to them.
    """
    asked = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if not STOP.is_set():
            asked = time.monotonic()
            STOP.set()
        elif time.monotonic() > asked + SAME_MOMENT_S:
            raise KeyboardInterrupt

    def forget() -> None:
        """A forked child, of a pool or a data loader, ends when it is told to."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    os.register_at_fork(after_in_child=forget)


def ignore_signals() -> None:
    """What is left is to write down what became of the run, and takes a moment: nothing interrupts it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die_with(launcher: int) -> None:
    """Ends this rank at once when the launcher of the ranks dies: the others are not there to stop together with."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it died before it was watched
        os.kill(os.getpid(), signal.SIGKILL)


def heartbeat(run: RunFolder, launcher: int) -> None:
    """Keeps the progress file's time fresh; asks this process to stop when its launcher has died, or when somebody
    has cancelled the run."""

    def beat() -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            with contextlib.suppress(OSError):
                os.utime(run.progress)
            if STOP.is_set():  # asked already: once more would end it at once
                continue
            if os.getppid() != launcher or is_cancelled(run):
                os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()


def is_cancelled(run: RunFolder) -> bool:
    return Path(run.cancel).exists()

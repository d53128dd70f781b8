"""The processes that started a worker: it does not outlive them. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from experiments.common.processes import is_alive, process_started

LAUNCHER = "MSDET_LAUNCHER"  # environment variable: the process that started torchrun
PR_SET_PDEATHSIG = 1  # of prctl(2)


def make_launcher_environment() -> dict[str, str]:
    """Return the environment that names this process as the one that starts torchrun."""
    return {LAUNCHER: f"{os.getpid()} {process_started(os.getpid()) or ''}"}


def _launcher() -> tuple[int, str | None] | None:
    """Return the number of the process that started torchrun, and when it began; None if a person did."""
    pid, _, started = os.environ.get(LAUNCHER, "").partition(" ")
    return (int(pid), started or None) if pid else None


def has_launcher(parent: int) -> bool:
    """Return whether the processes that started this one still live.

    Args:
        parent: The parent process as this one began.
    """
    launcher = _launcher()
    return os.getppid() == parent and (launcher is None or is_alive(*launcher))


def die_with(torchrun: int) -> None:
    """Kill this rank as soon as torchrun dies: torchrun, and no rank, keeps the run's lock.

    Args:
        torchrun: The parent process as this one began.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher, is_orphan = _launcher(), os.getppid() != torchrun
    if launcher is not None:  # torchrun may have died before its number was read
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{torchrun}/stat").read_text()
            is_orphan |= int(stat.rpartition(")")[2].split()[1]) != launcher[0]  # field 4 of proc(5)
    if is_orphan:
        os.kill(os.getpid(), signal.SIGKILL)

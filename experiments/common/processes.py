"""Processes: which one has a PID, whether it is alive, its cores, and the launcher that no worker outlives."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

# Begins the code of each Python process that msdet starts with `-c`. The working directory goes to the end of the
# path: the user's `imports` are found there, but a `signal.py` or a folder `experiments` hides no other module.
PATHS = "import os, sys; sys.path[:] = [p for p in sys.path if p] + [os.getcwd()]; "
STALE_AFTER_S = 120  # a heartbeat comes every few seconds; a machine that swaps may miss some
CORES_VARIABLE = "MSDET_CORES"  # tells a worker of how many cores each process of its run has
LAUNCHER = "MSDET_LAUNCHER"  # environment variable: the process that started torchrun
PR_SET_PDEATHSIG = 1  # of prctl(2)
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds, and of what period
_seen: dict[Path, tuple[int, float]] = {}  # modification time of a file, and since when it has been that


def identify_process() -> dict[str, Any]:
    """Return host, pid and start time of this process, which together identify it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_started": process_started(pid)}


def has_ended(process: dict[str, Any] | None) -> bool:
    """Whether a process is known to have ended; of one on another host that is not known."""
    if process is None or process["host"] != socket.gethostname():
        return False
    return not is_alive(process["pid"], process["pid_started"])


def count_cores() -> int:
    """Return the number of CPU cores that this process may use, as affinity, container and Slurm's task limit it."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no Linux, or "max"
        quota, period = CPU_QUOTA.read_text().split()
        count = min(count, -(-int(quota) // int(period)))
    with contextlib.suppress(ValueError):
        count = min(count, int(os.environ.get("SLURM_CPUS_PER_TASK", "")))
    return max(1, count)


def count_cores_per_process() -> int:
    """Return the cores of each process of a run: its launcher's answer, else this machine's divided by its ranks."""
    given, ranks = os.environ.get(CORES_VARIABLE, ""), os.environ.get("LOCAL_WORLD_SIZE", "")
    if given.isdecimal():
        return int(given)
    return max(1, count_cores() // int(ranks)) if ranks.isdecimal() else count_cores()


def process_started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None where the system does not tell."""
    fields = _read_stat(pid)
    return fields[19] if fields else None  # field 22 of proc(5)


def _read_stat(pid: int) -> list[str]:
    """Return the fields of proc(5) after the command's name, from the third; none where there is no such file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int, started: str | None) -> bool:
    """Whether the process with this PID and start time is alive on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started is None or process_started(pid) == started


def measure_seconds_unchanged(path: Path) -> float:
    """Return for how long this process has seen the same modification time, by its own clock; inf for no file.

    Unlike a file's age, this does not depend on the clock of the machine that writes it.
    """
    try:
        modified = path.stat().st_mtime_ns
    except OSError:
        return math.inf
    before, since = _seen.get(path, (None, 0.0))
    if modified != before:
        _seen[path] = (modified, since := time.monotonic())
    return time.monotonic() - since


def make_launcher_environment() -> dict[str, str]:
    """Return the environment that names this process as the one that starts torchrun."""
    return {LAUNCHER: f"{os.getpid()} {process_started(os.getpid()) or ''}"}


def _launcher() -> tuple[int, str | None] | None:
    """Return the number of the process that started torchrun, and when it began; None if a person did."""
    pid, _, started = os.environ.get(LAUNCHER, "").partition(" ")
    return (int(pid), started or None) if pid else None


def has_launcher(parent: int) -> bool:
    """Return whether `parent`, this process's parent as it began, and the one that started torchrun live."""
    launcher = _launcher()
    return os.getppid() == parent and (launcher is None or is_alive(*launcher))


def die_with(torchrun: int) -> None:
    """Kill this rank as soon as torchrun, its parent as it began, dies.

    Torchrun keeps the run's lock, and no rank does.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher, is_orphan = _launcher(), os.getppid() != torchrun
    if launcher is not None:  # torchrun may have died before its number was read
        fields = _read_stat(torchrun)
        is_orphan |= bool(fields) and int(fields[1]) != launcher[0]  # field 4 of proc(5)
    if is_orphan:
        os.kill(os.getpid(), signal.SIGKILL)

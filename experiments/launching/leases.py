"""Places for runs on this machine: leased GPUs if there are any, else a number of runs at once.

Of all processes on this machine, one run at a time has a GPU. A lease is a lock on an open file, and the file stays
open in the worker that uses the GPU. So the kernel keeps it exactly as long as the last process with that file
lives: no crash leaves one behind, and a worker that survives the command that started it keeps its own.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.common.locks import NO_LOCKS, lock
from experiments.common.processes import count_cores
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.runs.record import Launch

FOLDER_VARIABLE = "MSDET_LEASES"
DEFAULT_FOLDER = "/tmp/msdet-leases"  # not $TMPDIR, which differs from user to user


@dataclass(frozen=True)
class Lease:
    """GPUs of this process until `release`, and of a child with `descriptors` in its `pass_fds` until it ends."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment that shows a worker its GPUs only; empty without GPUs.

        By UUID, since CUDA may count them in another order than nvidia-smi.
        """
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self.gpus)} if self.gpus else {}

    def release(self) -> None:
        """Close this process's descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def lease(gpus: Sequence[Gpu], count: int) -> Lease | None:
    """Lease the first `count` GPUs that are free; return None, and lease none, if there are fewer.

    Raises:
        UserError: The folder of the leases cannot be used.
    """
    taken: dict[int, Gpu] = {}  # by the descriptors of their locks
    # else two commands that want two GPUs each might take one each, again and again
    allocation = _lock("allocate.lock", math.inf)
    assert allocation is not None  # it waits
    try:
        for gpu in gpus:
            if len(taken) < count and (descriptor := _lock(f"{gpu.uuid}.lock", 0)) is not None:
                taken[descriptor] = gpu
    finally:
        os.close(allocation)
    found = Lease(tuple(taken.values()), tuple(taken))
    if len(taken) < count:
        found.release()
        return None
    return found


def _lock(name: str, patience_s: float) -> int | None:
    """Lock a file that any user may lock, and return its descriptor; None where another process has the lock."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    path = folder / name.replace("/", "-")
    try:
        if not folder.is_dir():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                folder.chmod(0o1777)  # whatever the umask
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            os.chmod(path, 0o644)
        # Reading is enough for a lock, and a kernel may forbid more in a shared folder.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        if lock(descriptor, patience_s):
            return descriptor
        os.close(descriptor)
        return None
    except OSError as error:
        # A file in the place of a lock would end with this process, and the worker may go on.
        why = "its file system has no locks" if error.errno in NO_LOCKS else error.strerror or error
        raise UserError(
            f"GPUs cannot be leased: {path}: {why}",
            f"name a folder on a local disk that all users can write: export {FOLDER_VARIABLE}=DIR",
        ) from None


class ResourcePool:
    """What one command may use of the machine and its GPUs."""

    def __init__(self, execution: Execution, gpus: Sequence[Gpu]) -> None:
        self.gpus = list(gpus)
        self.most_gpus = execution.most_gpus(gpus)
        self.jobs = execution.jobs or (None if gpus else 1)
        if execution.nodes > 1:
            self.jobs = 1  # there is one rendezvous endpoint
        self._taken: list[Lease] = []

    def take(self, launch: Launch) -> Lease | None:
        """Take a place for one run; return None if there is none now. Without GPUs the lease is empty."""
        if self.jobs is not None and len(self._taken) >= self.jobs:
            return None
        if self.gpus and sum(len(t.gpus) for t in self._taken) + launch.processes > self.most_gpus:
            return None
        found = lease(self.gpus, launch.processes) if self.gpus else Lease((), ())
        if found is not None:
            self._taken.append(found)
        return found

    def give_back(self, taken: Lease) -> None:
        """Free the place of a run that has ended."""
        self._taken = [other for other in self._taken if other is not taken]
        taken.release()

    def places(self, launch: Launch) -> int:
        """Return how many runs of this kind there is room for at a time, were the machine free."""
        at_once = max(1, self.most_gpus // launch.processes) if self.gpus else self.jobs or 1
        return min(at_once, self.jobs or at_once)

    def threads(self, launch: Launch) -> int | None:
        """Return the number of threads for each process of a run; None, for all cores, if one process is alone.

        More threads than cores would wait for each other most of the time.
        """
        processes = self.places(launch) * launch.processes
        return None if processes == 1 else max(1, count_cores() // processes)

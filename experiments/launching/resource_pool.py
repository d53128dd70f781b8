"""Places for runs on this machine: leased GPUs if there are any, else a number of runs at once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease, lease
from experiments.runs.record import Launch


class ResourcePool:
    """What one command may use of the machine.

    Args:
        gpus: The machine's.
    """

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

    def threads(self, launch: Launch) -> int | None:
        """Return the number of threads for each process of a run; None, for all cores, if one process is alone.

        More threads than cores would wait for each other most of the time.
        """
        at_once = max(1, self.most_gpus // launch.processes) if self.gpus else self.jobs or 1
        processes = min(at_once, self.jobs or at_once) * launch.processes
        return None if processes == 1 else max(1, cores() // processes)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

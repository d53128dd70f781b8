"""What a Slurm job does on its node: it starts the run's worker, waits, and hands the run back to the queue in time.

submitit pickles a `SlurmRun` at submission and calls it on the node. Before a time-out or a preemption Slurm sends
USR2; submitit then calls `checkpoint`, and what that returns is queued again under the same job id.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common.errors import DONE, FAILED, INTERRUPTED, UserError
from experiments.launching.local import LocalWorker
from experiments.launching.retry_policy import RetryDecision, decide_retry, iterations_saved
from experiments.launching.torchrun import Rendezvous
from experiments.runs.run_folder import RunFolder
from experiments.runs.run_lock import acquire_lock, inheriting

TELLS = signal.SIGUSR2  # what submitit listens to


class SlurmRun:
    """One run as a job.

    Args:
        folder: The run folder, absolute.
        before: What became of its attempts in this job so far.
    """

    def __init__(self, folder: Path, before: Sequence[RetryDecision] = ()) -> None:
        self.folder, self.before = folder, list(before)

    def __call__(self) -> None:
        """Works on the run; ends this process with the run's exit code.

        The worker belongs to a thread. The main thread only sleeps, for Python runs signal handlers in it, in
        the middle of whatever it does.
        """
        self._stop = threading.Event()  # have the worker save and end
        self._leave = threading.Event()  # Slurm has told the worker to end; start no other
        self._ended = threading.Event()
        self._code = FAILED
        self._attempts = 0  # of this job since it was last begun
        signal.signal(signal.SIGTERM, lambda number, frame: self._leave.set())
        threading.Thread(target=self._work, daemon=True).start()
        _sleep_until(self._ended)
        sys.exit(self._code)

    def checkpoint(self) -> Any:
        """Has the worker save and end; returns what submitit queues again."""
        from submitit.helpers import DelayedSubmission

        if hasattr(self, "_ended"):
            self._stop.set()
            _sleep_until(self._ended)
            if self._code != INTERRUPTED or RunFolder(self.folder).read().status == "cancelled":
                sys.exit(self._code)  # it has come to its own end meanwhile
        return DelayedSubmission(SlurmRun(self.folder, self.before))

    def _work(self) -> None:
        # Slurm sends USR2 to every process of a job. Children inherit this thread's mask, so it does not kill them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {TELLS})
        try:
            self._code = self._lead() if _node() == 0 else self._follow()
        except UserError as error:
            print(f"error: {error.message}", file=sys.stderr)
            self._code = error.exit_code
        finally:
            self._ended.set()

    def _lead(self) -> int:
        """Works on the run as often as its failures call for; the exit code."""
        run = RunFolder(self.folder)
        with acquire_lock(run) as lock:
            while run.read().status not in ("done", "cancelled"):
                saved = iterations_saved(run)
                worker = self._attempt(run, inheriting(lock), [lock])
                verdict = decide_retry(run, worker, saved, self.before, self._asked())
                self.before.append(verdict)
                if verdict.message:
                    print(f"{run.name}: {verdict.message}", file=sys.stderr)
                if not verdict.again or self._asked():
                    return verdict.code
            return DONE if run.read().status == "done" else INTERRUPTED

    def _follow(self) -> int:
        """Take part in one attempt after the other, as the nodes other than the first do.

        The first node decides whether there is another attempt; when it has ended, srun soon ends them, too.
        """
        run = RunFolder(self.folder)
        code = INTERRUPTED
        while not self._asked() and code != DONE and run.read().status != "done":
            code = self._attempt(run, {}, []).exit_code()
        return code

    def _attempt(self, run: RunFolder, environment: dict[str, str], descriptors: list[int]) -> LocalWorker:
        launch = run.read().launch
        if launch.threads is not None:
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(launch.threads)
        self._attempts += 1
        rendezvous = _rendezvous(self._attempts) if launch.nodes > 1 else None
        worker = LocalWorker(run, launch, rendezvous, environment, descriptors)
        stopped = False
        while not worker.wait(0.2):
            if self._stop.is_set() and not stopped:  # only once: asked again, it ends without saving
                worker.stop()
                stopped = True
        return worker

    def _asked(self) -> bool:
        return self._stop.is_set() or self._leave.is_set()


def _node() -> int:
    return int(os.environ.get("SLURM_NODEID", 0))


def _rendezvous(attempt: int) -> Rendezvous:
    """Return where the nodes' torchruns meet: on a port of the first node that depends on the job."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    number, restart = int(job.raw_job_id), os.environ.get("SLURM_RESTART_COUNT", "0")
    endpoint = f"{job.hostnames[0]}:{20000 + number % 9000}"
    return Rendezvous(endpoint, f"{number}-{restart}-{attempt}", is_leader=_node() == 0)


def _sleep_until(event: threading.Event) -> None:
    while not event.is_set():  # not `wait`, whose lock a signal handler may find taken
        time.sleep(0.1)

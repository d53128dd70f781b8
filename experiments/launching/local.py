"""A worker process on this machine: started, asked to stop, and read back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from functools import cached_property
from pathlib import Path

from experiments.common.errors import DONE, FAILED, INTERRUPTED, UserError
from experiments.common.locks import share_lock
from experiments.common.printable import printable
from experiments.common.processes import CORES_VARIABLE, PATHS, is_alive, make_launcher_environment
from experiments.launching.leases import Lease
from experiments.launching.torchrun import RankFailure, Rendezvous, build_command, find_cause, record_cause
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import LOCK_FD, RunFolder

BOOT = PATHS + "from experiments.training.worker import main; sys.exit(main())"
TAIL_BYTES = 64 * 1024


class LocalWorker:
    """One worker, or torchrun with its ranks, in a session of its own: Ctrl-C reaches it through `stop` only.

    Args:
        folder: Of a run that `prepare` has made ready.
        lease: Its GPUs; without GPUs it sees what this process sees.
        lock: Descriptor of the run's lock; None where another machine leads, and holds it. The worker keeps it and
            the leases open. Ranks have none of them; torchrun, which keeps them, outlives its ranks.

    Raises:
        UserError: The process cannot be started.
    """

    def __init__(
        self, folder: RunFolder, launch: Launch, rendezvous: Rendezvous | None, lease: Lease, lock: int | None
    ) -> None:
        self.folder = folder
        self._world_size = launch.processes * launch.nodes
        self._is_leader = rendezvous is None or lock is not None
        self._stops = 0
        environment = {"PYTHONWARNINGS": "ignore", **os.environ, **lease.environment()}
        descriptors = lease.descriptors
        if lock is not None:
            environment[LOCK_FD], descriptors = str(lock), (lock, *descriptors)
        if launch.threads is not None:
            environment[CORES_VARIABLE] = str(launch.threads)
            environment["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS") or str(launch.threads)
        if self._world_size > 1:
            environment |= make_launcher_environment()
            self._attempts_before = len(folder.read().attempts)
            if self._is_leader:
                for stale in folder.path.glob(".rank*.json"):
                    stale.unlink(missing_ok=True)
        worker = [sys.executable, "-u", "-c", BOOT, str(folder.path)]
        try:
            with open(folder.log, "a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    build_command(worker, launch, rendezvous),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=descriptors,
                    env=environment,
                )
            share_lock(folder.lock, self._process.pid)
        except OSError as error:
            raise UserError(f"no worker can be started in {folder.path}: {error}") from None

    def wait(self, seconds: float) -> bool:
        """Return whether it has ended, after waiting at most so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Ask for a checkpoint and the end; asked again, it ends at once, as it does before a rank is at work.

        Of several ranks rank 0 is asked, and tells the others: torchrun would give them 30 s only. It is asked
        itself if rank 0 is on another machine. Ranks die with it.
        """
        if self._process.poll() is not None:
            return
        self._stops += 1
        if self._world_size == 1:
            self._process.send_signal(signal.SIGTERM)
            return
        attempt = None
        with contextlib.suppress(UserError):  # an unreadable record
            attempt = self._attempt(self.folder.read())
        if attempt is None or self._stops > 1:
            self._process.kill()
            return
        is_here = attempt.host == socket.gethostname() and is_alive(attempt.pid, attempt.pid_started)
        with contextlib.suppress(ProcessLookupError):
            os.kill(attempt.pid if is_here else self._process.pid, signal.SIGTERM)

    def _attempt(self, record: Record) -> Attempt | None:
        """Return what rank 0 has recorded of this attempt; None if it is not at work yet."""
        return record.attempts[-1] if len(record.attempts) > self._attempts_before else None

    @cached_property
    def failure(self) -> RankFailure | None:
        """Return why the attempt did not end well, of several ranks the cause; None where the run is done.

        A killed worker counts as interrupted, since its run can be resumed.
        """
        if self._process.returncode == 0:
            return None
        record = self.folder.read()
        return self._failure_of_ranks(record) if self._world_size > 1 else self._failure_of_worker(record)

    def _failure_of_worker(self, record: Record) -> RankFailure:
        code = self._process.returncode
        last = record.attempts[-1] if record.attempts else None
        hint = last.hint if last else None
        if code < 0:
            why = f"the worker was killed by {signal.Signals(-code).name}; the run resumes from its last checkpoint"
            return RankFailure(0, INTERRUPTED, why, hint)
        if last and last.message and last.exit_code in (None, code):  # else it is of an earlier attempt
            return RankFailure(0, code, last.message, hint)
        said = "".join(read_last_lines(self.folder.log, 1)).removeprefix("error: ")
        return RankFailure(0, code, said or "the worker did not start", hint)

    def _failure_of_ranks(self, record: Record) -> RankFailure | None:
        """Return the failure that ended the ranks, and write it into the record."""
        attempt = self._attempt(record)
        if attempt is not None and record.status == "done":  # what a rank does after that does not matter
            return None
        cause = find_cause(self.folder, attempt, self._world_size)
        has_ended = attempt is not None and attempt.exit_code is not None
        if self._stops and not has_ended and cause.code in (INTERRUPTED, FAILED):
            why = "stopped at once; steps after the last checkpoint are repeated"
            cause = RankFailure(0, INTERRUPTED, why)
        is_recorded = attempt is not None and attempt.exit_code == cause.code and cause.rank == 0
        if self._is_leader and not is_recorded:
            record_cause(self.folder, record, attempt, cause, self._world_size)
        return cause


def read_last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines of a log that are not blank, read from its end; none if there is no such file."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines() if line.strip()][-count:]


def combine_exit_codes(codes: list[int]) -> int:
    """Return one code for several runs: 0 if all are done, 75 if one was interrupted, theirs if equal, else 1."""
    failures = set(codes) - {DONE}
    if INTERRUPTED in failures:
        return INTERRUPTED
    return FAILED if len(failures) > 1 else next(iter(failures), DONE)

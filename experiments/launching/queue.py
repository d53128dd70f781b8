"""The queue of planned runs: as many at once as there are places, each as often as its failures call for.

A run is claimed before it is prepared, and its worker inherits the lock: of several commands that are started on
the same runs, one works on each. A run that another command has locked is looked at again later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from experiments.common.errors import BAD_INPUT, DONE, INTERRUPTED, NOT_FINITE, UserError
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease, ResourcePool
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun, claim_run, prepare
from experiments.launching.queue_items import (
    ActiveRun,
    QueueItem,
    State,
    find_worker_elsewhere,
    report_as_it_is,
)
from experiments.launching.retry_policy import count_iterations_saved, decide_retry
from experiments.launching.torchrun import Rendezvous, is_local
from experiments.runs.run_folder import InUseError, lock_environment

__all__ = ["Queue", "QueueItem", "State"]

WORKER_POLL_INTERVAL_S = 0.02
MARK_QUEUED_S = 0.1  # of each step, for marking runs as queued
LOCK_POLL_INTERVAL_S = 0.5
TYPE_AGAIN = "type the same command again on each machine"


class Queue:
    """All runs of one command.

    Args:
        planned: The runs, in their order.
        command: As typed; kept in the records.
        execution: How they are executed.
        gpus: The machine's.

    Attributes:
        entries: One item for each run.
        asked: How often the command was asked to stop: once for a checkpoint first, twice for at once.
    """

    def __init__(
        self,
        planned: Sequence[PlannedRun],
        command: Sequence[str],
        execution: Execution | None = None,
        gpus: Sequence[Gpu] = (),
    ) -> None:
        self.entries = [QueueItem(run) for run in planned]
        self.command = command
        self.execution = execution or Execution()
        self._pool = ResourcePool(self.execution, gpus)
        self.asked = 0
        self._forwarded = 0
        self._is_leader = self.execution.rdzv is None or is_local(self.execution.rdzv)

    def stop(self) -> None:
        """Ask all workers to save and end, and start no other; asked again, they end at once.

        Safe in a signal handler: the next `step` does it.
        """
        self.asked += 1

    def step(self, timeout_s: float) -> bool:
        """Start what has a place, wait at most so long for a worker to end; return whether anything is left."""
        self._forward_stop()
        if self.asked:
            for entry in self.entries:
                if entry.state == "waiting":
                    entry.end("interrupted", INTERRUPTED, "not begun: the command was stopped first")
                elif entry.state == "locked":
                    entry.end("interrupted", INTERRUPTED, f"locked by {entry.message}", "msdet runs")
        else:
            self._fill()
            self._mark_queued()
        deadline = time.monotonic() + timeout_s
        while not (ended := [e for e in self.entries if e._work and e._work.worker.wait(0)]):
            if time.monotonic() >= deadline or self._forwarded < self.asked or not self._is_left():
                break
            time.sleep(WORKER_POLL_INTERVAL_S)
        for entry in ended:
            self._handle_exit(entry)
        return self._is_left()

    def _is_left(self) -> bool:
        return any(not entry.is_over for entry in self.entries)

    def _forward_stop(self) -> None:
        while self._forwarded < self.asked:
            self._forwarded += 1
            for entry in self.entries:
                if entry._work is not None:
                    entry._work.worker.stop()

    def _fill(self) -> None:
        """Give each free place to the first run that fits; locked ones come last."""
        now = time.monotonic()
        waiting = [e for e in self.entries if e.state == "waiting"]
        locked = [
            e for e in self.entries if e.state == "locked" and now - e._checked_at > LOCK_POLL_INTERVAL_S
        ]
        too_many: float = float("inf")  # processes for which there is no place now
        for entry in (*waiting, *locked):
            if self.asked:
                return
            try:
                if entry.state == "waiting" and entry.run.todo in ("skip", "failed", "unreadable"):
                    report_as_it_is(entry)  # needs no place
                elif entry.run.launch.processes < too_many and not self._try_start(entry):
                    too_many = entry.run.launch.processes
            except (UserError, OSError) as error:
                entry.end_by(error)

    def _mark_queued(self) -> None:
        """Mark runs that have no place yet as queued, so that other terminals see them and can cancel them.

        Each step marks for a moment only, since there may be thousands. `--retry-failed` and `--force` apply once:
        a run that is cancelled while it waits stays cancelled.
        """
        deadline = time.monotonic() + MARK_QUEUED_S
        for entry in self.entries:
            if time.monotonic() > deadline or not self._is_leader:
                return
            if entry.state != "waiting" or entry.is_marked or entry.run.todo not in ("start", "resume"):
                continue
            entry.is_marked = True
            # A run that is locked is dealt with when it would start.
            with contextlib.suppress(UserError), claim_run(entry.run):
                threads = self._pool.threads(entry.run.launch)
                if prepare(entry.run, self.command, threads) in ("start", "resume"):
                    entry.run = replace(entry.run, retry_failed=False, force=False)

    def _try_start(self, entry: QueueItem) -> bool:
        """Take a place and start the run there, if it is still to be done; return whether there was a place."""
        lease = self._pool.take(entry.run.launch)
        if lease is None:
            return False
        claim = contextlib.ExitStack()
        try:
            if not self._is_leader:
                raise InUseError(entry.run.folder, "the machine that leads")
            lock = claim.enter_context(claim_run(entry.run))
            todo = prepare(entry.run, self.command, self._pool.threads(entry.run.launch))
            if todo in ("start", "resume"):
                self._start(entry, claim, lock, lease)
            elif todo == "running":
                raise InUseError(entry.run.folder, find_worker_elsewhere(entry.run.folder))
            else:
                report_as_it_is(entry)
        except InUseError as error:
            entry.state, entry.message, entry._checked_at = "locked", error.owner, time.monotonic()
            if entry.run.launch.nodes > 1:
                self._join(entry, claim, lease)
        finally:
            if entry._work is None:
                claim.close()
                self._pool.give_back(lease)
        return True

    def _join(self, entry: QueueItem, claim: contextlib.ExitStack, lease: Lease) -> None:
        """Take part in the attempt of the machine that leads, once that has prepared the run."""
        if not entry.run.folder.record_file.exists():
            return
        record = entry.run.folder.read()
        if record.status == "done":
            report_as_it_is(entry)
        elif record.status in ("queued", "running") and record.launch.nodes == entry.run.launch.nodes:
            self._start(entry, claim, None, lease)

    def _start(self, entry: QueueItem, claim: contextlib.ExitStack, lock: int | None, lease: Lease) -> None:
        """Start an attempt. `lock` is None where another machine leads, and holds it."""
        folder = entry.run.folder
        launch = folder.read().launch
        environment = lock_environment(lock) if lock is not None else {}
        if lease.gpus:
            environment |= lease.environment()
        rendezvous = None
        if self.execution.rdzv is not None:
            attempt = f"{folder.path.parent.name}-{folder.path.name}"
            rendezvous = Rendezvous(self.execution.rdzv, attempt, is_leader=lock is not None)
        descriptors = lease.descriptors if lock is None else (lock, *lease.descriptors)
        worker = LocalWorker(folder, launch, rendezvous, environment, descriptors)
        entry._work = ActiveRun(worker, claim, lock, lease, count_iterations_saved(folder))
        entry.message = entry.message if entry.attempts else None  # else it says who had locked the run
        entry.state, entry.attempts = "running", entry.attempts + 1
        entry.gpus = tuple(str(gpu.index) for gpu in lease.gpus)

    def _handle_exit(self, entry: QueueItem) -> None:
        """Start another attempt in the same place, or end the run and give the place back."""
        work = entry._work
        assert work is not None
        try:
            if work.lock is None:
                self._end_joined(entry, work)
            elif self._retry_if_needed(entry, work, work.lock):
                return
        except (UserError, OSError) as error:
            entry.end_by(error)
        entry._work, entry.gpus = None, ()
        work.claim.close()
        self._pool.give_back(work.lease)
        if entry.code and entry.run.launch.nodes > 1:  # else the other machines' commands run ahead
            for other in self.entries:
                if not other.is_over:
                    other.end("interrupted", INTERRUPTED, "not begun: a run before it has ended", TYPE_AGAIN)

    def _end_joined(self, entry: QueueItem, work: ActiveRun) -> None:
        """End a run whose record another machine keeps."""
        code, message = work.worker.exit_code(), work.worker.message()
        if code in (DONE, BAD_INPUT, NOT_FINITE):
            entry.end("failed" if code else "done", code, message, work.worker.hint() if code else None)
        else:
            entry.end("interrupted", INTERRUPTED, message, TYPE_AGAIN)

    def _retry_if_needed(self, entry: QueueItem, work: ActiveRun, lock: int) -> bool:
        """Start another attempt if the last one calls for it; return whether it does."""
        decision = decide_retry(entry.run.folder, work.worker, work.saved, entry.decisions, bool(self.asked))
        entry.decisions.append(decision)
        if decision.should_retry and entry.run.launch.nodes > 1:  # the other machines' commands have ended
            entry.end("interrupted", INTERRUPTED, work.worker.message(), TYPE_AGAIN)
            return False
        if decision.should_retry:
            entry.message, entry.hint = decision.message, decision.hint
            entry._work = None
            self._start(entry, work.claim, lock, work.lease)
            return True
        entry.end(decision.state, decision.code, decision.message, decision.hint)
        return False

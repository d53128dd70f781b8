"""The queue of planned runs: as many at once as there are places, each as often as its failures call for.

A run is claimed before it is prepared, and its worker inherits the lock: of several commands that are started on
the same runs, one works on each. A run that another command has locked is looked at again later.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from experiments.common.errors import DONE, FAILED, INTERRUPTED, NOT_RETRIED, UserError, find_storage_error
from experiments.common.processes import STALE_AFTER_S
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease, ResourcePool
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun, claim_run, prepare
from experiments.launching.retry_policy import RetryDecision, decide_retry
from experiments.launching.torchrun import Rendezvous, is_local
from experiments.runs.run_folder import InUseError

WORKER_POLL_INTERVAL_S = 0.02
MARK_QUEUED_S = 0.1  # of each step, for marking runs as queued
LOCK_POLL_INTERVAL_S = 0.5
TYPE_AGAIN = "type the same command again on each machine"

State = Literal["waiting", "running", "locked", "done", "failed", "interrupted", "cancelled", "skipped"]


@dataclass
class ActiveRun:
    """What a run holds while a worker is on it."""

    worker: LocalWorker
    lock: int | None  # None: another machine leads, and holds it
    lease: Lease
    saved: int  # iterations that the attempt began with
    claim: contextlib.ExitStack  # gives lock and place back


@dataclass
class QueueItem:
    """One run in the queue, as the views show it.

    Attributes:
        state: `locked`: another msdet process works on it. `skipped`: it was done before.
        code: Exit code, once nothing is left to do.
        gpus: Indices of the GPUs that it has.
        attempts: Number of workers that this queue has started for it.
        message, hint: Why it did not end well, or why it is retried, and what to do.
        decisions: On its attempts, in order.
        is_marked: Whether its record says that it is queued.
    """

    run: PlannedRun
    state: State = "waiting"
    code: int | None = None
    gpus: tuple[str, ...] = ()
    attempts: int = 0
    message: str | None = None
    hint: str | None = None
    decisions: list[RetryDecision] = field(default_factory=list)
    is_marked: bool = False
    _work: ActiveRun | None = None
    _checked_at: float = 0.0  # when it was last found locked

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "running", "locked")

    def end(self, state: State, code: int, message: str | None = None, hint: str | None = None) -> None:
        """Set the state in which the run leaves the queue."""
        self.state, self.code, self.message, self.hint = state, code, message, hint

    def end_by(self, error: UserError | OSError) -> None:
        """Set the state in which an error of this process ends the run: a full disk only interrupts it."""
        folder = self.run.folder.path
        if reason := find_storage_error(error):
            message = f"the results folder {folder} cannot be written: {reason}"
            self.end("interrupted", INTERRUPTED, message, "free some space, then type the same command")
        elif isinstance(error, UserError):
            self.end("failed", error.exit_code, error.message, error.hint)
        else:
            self.end("failed", FAILED, f"{folder}: {error}")

    def end_as_recorded(self) -> None:
        """End a run that was done, failed or cancelled before, or by another command, as its record says."""
        folder = self.run.folder
        record = folder.read()
        if record.status == "done":
            self.end("skipped" if self.state == "waiting" else "done", DONE)
            return
        last = record.attempts[-1] if record.attempts else None
        state: State = "cancelled" if record.status == "cancelled" else "failed"
        code = INTERRUPTED if state == "cancelled" else (last and last.exit_code) or FAILED
        reason = (last and last.message) or state
        hint = f"resume it with --retry-failed; log: {folder.log}"
        self.end(state, code, f"{state} before: {reason}", hint)


class Queue:
    """All runs of one command.

    Args:
        command: As typed; kept in the records.
        gpus: The machine's.

    Attributes:
        entries: One item for each run, in order.
        asked: How often the command was asked to stop: once for a checkpoint first, twice for at once.
    """

    def __init__(
        self, planned: Sequence[PlannedRun], command: Sequence[str], execution: Execution, gpus: Sequence[Gpu]
    ) -> None:
        self.entries = [QueueItem(run) for run in planned]
        self.command = command
        self.execution = execution
        self._pool = ResourcePool(execution, gpus)
        self.asked = 0
        self._forwarded = 0
        self._is_leader = execution.rdzv is None or is_local(execution.rdzv)

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
        due = [e for e in self.entries if e.state == "locked" and now - e._checked_at > LOCK_POLL_INTERVAL_S]
        too_many = math.inf  # processes for which there is no place now
        for entry in (*waiting, *due):
            if self.asked:
                return
            try:
                if entry.state == "waiting" and entry.run.todo in ("skip", "failed", "unreadable"):
                    entry.end_as_recorded()  # needs no place
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
        with contextlib.ExitStack() as claim:
            claim.callback(self._pool.give_back, lease)
            try:
                if not self._is_leader:
                    raise InUseError(entry.run.folder, "the machine that leads")
                lock = claim.enter_context(claim_run(entry.run))
                todo = prepare(entry.run, self.command, self._pool.threads(entry.run.launch))
                if todo in ("start", "resume"):
                    self._start(entry, claim, lock, lease)
                elif todo == "running":  # its lock does not reach here
                    last = entry.run.folder.read().attempts[-1]
                    until = f"resumed here after {STALE_AFTER_S} s without a heartbeat"
                    raise InUseError(entry.run.folder, f"process {last.pid} on {last.host} ({until})")
                else:
                    entry.end_as_recorded()
            except InUseError as error:
                entry.state, entry.message, entry._checked_at = "locked", error.owner, time.monotonic()
                if entry.run.launch.nodes > 1:
                    self._join(entry, claim, lease)
        return True

    def _join(self, entry: QueueItem, claim: contextlib.ExitStack, lease: Lease) -> None:
        """Take part in the attempt of the machine that leads, once that has prepared the run."""
        if not entry.run.folder.record_file.exists():
            return
        record = entry.run.folder.read()
        if record.status == "done":
            entry.end_as_recorded()
        elif record.status in ("queued", "running") and record.launch.nodes == entry.run.launch.nodes:
            self._start(entry, claim, None, lease)

    def _start(self, entry: QueueItem, claim: contextlib.ExitStack, lock: int | None, lease: Lease) -> None:
        """Start an attempt, which takes over the claim.

        `lock` is None where another machine leads, and holds it.
        """
        folder = entry.run.folder
        launch = folder.read().launch
        rendezvous = None
        if self.execution.rdzv is not None:
            attempt = f"{folder.path.parent.name}-{folder.path.name}"
            rendezvous = Rendezvous(self.execution.rdzv, attempt)
        worker = LocalWorker(folder, launch, rendezvous, lease, lock)
        entry._work = ActiveRun(worker, lock, lease, folder.count_iterations_saved(), claim.pop_all())
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
            elif self._retry_if_needed(entry, work):
                return
        except (UserError, OSError) as error:
            entry.end_by(error)
        entry._work, entry.gpus = None, ()
        work.claim.close()
        if entry.code and entry.run.launch.nodes > 1:  # else the other machines' commands run ahead
            for other in self.entries:
                if not other.is_over:
                    other.end("interrupted", INTERRUPTED, "not begun: a run before it has ended", TYPE_AGAIN)

    def _end_joined(self, entry: QueueItem, work: ActiveRun) -> None:
        """End a run whose record another machine keeps."""
        failure = work.worker.failure
        if failure is None:
            entry.end("done", DONE)
        elif failure.code in NOT_RETRIED:
            hint = failure.hint or f"log: {entry.run.folder.log}"
            entry.end("failed", failure.code, failure.message, hint)
        else:
            entry.end("interrupted", INTERRUPTED, failure.message, TYPE_AGAIN)

    def _retry_if_needed(self, entry: QueueItem, work: ActiveRun) -> bool:
        """Start another attempt if the last one calls for it; return whether it does."""
        failure = work.worker.failure
        decision = decide_retry(entry.run.folder, failure, work.saved, entry.decisions, bool(self.asked))
        entry.decisions.append(decision)
        if failure is None or not decision.should_retry:
            entry.end(decision.state, decision.code, decision.message, decision.hint)
        elif entry.run.launch.nodes > 1:  # the other machines' commands have ended
            entry.end("interrupted", INTERRUPTED, failure.message, TYPE_AGAIN)
        else:
            entry.message, entry.hint = decision.message, decision.hint
            self._start(entry, work.claim, work.lock, work.lease)
            return True
        return False

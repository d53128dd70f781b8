"""Works through planned runs: as many at once as there are places, each as often as its failures call for.

A run is claimed before it is prepared, and its lock goes on to its worker: of several commands that are started
on the same runs, one works on each. What another command works on is left to it, and looked at again later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from experiments.common.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, NOT_FINITE, UserError
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun, claim_run, prepare
from experiments.launching.queue_items import ActiveRun, QueueItem, State, report_as_it_is
from experiments.launching.resource_pool import ResourcePool
from experiments.launching.retry_policy import decide_retry, iterations_saved
from experiments.launching.torchrun import Rendezvous, is_local
from experiments.runs.run_lock import InUseError, inheriting

__all__ = ["Queue", "QueueItem", "State"]

LOOK_EVERY_S = 0.02  # whether a worker has ended
LINE_UP_S = 0.1  # of each step
LOCK_POLL_INTERVAL_S = 0.5  # whether another command has left a run
TYPE_AGAIN = "type the same command again on each machine"


class Queue:
    """All runs of one command.

    Args:
        command: As typed; kept in the records.
        gpus: The machine's.
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
        self.slots = ResourcePool(self.execution, gpus)
        self.asked = 0  # to stop: once for a checkpoint first, twice for at once
        self._passed_on = 0
        self._is_leader = self.execution.rdzv is None or is_local(self.execution.rdzv)

    def stop(self) -> None:
        """Asks all workers to save and end, and begins nothing more; asked again, they end at once.

        Safe in a signal handler: the next `step` does it.
        """
        self.asked += 1

    def step(self, timeout_s: float) -> bool:
        """Starts what has a place, and waits at most so long for a worker to end. Whether anything is left."""
        self._pass_on()
        if self.asked:
            for entry in self.entries:
                if entry.state == "waiting":
                    entry.end("interrupted", INTERRUPTED, "not begun: the command was stopped first")
                elif entry.state == "locked":
                    entry.end("interrupted", INTERRUPTED, "locked by another msdet process", "msdet runs")
        else:
            self._fill()
            self._mark_queued()
        deadline = time.monotonic() + timeout_s
        while not (ended := [e for e in self.entries if e._work and e._work.worker.wait(0)]):
            if time.monotonic() >= deadline or self._passed_on < self.asked or not self._is_left():
                break
            time.sleep(LOOK_EVERY_S)
        for entry in ended:
            self._handle_exit(entry)
        return self._is_left()

    def _is_left(self) -> bool:
        return any(not entry.is_over for entry in self.entries)

    def _pass_on(self) -> None:
        while self._passed_on < self.asked:
            self._passed_on += 1
            for entry in self.entries:
                if entry._work is not None:
                    entry._work.worker.stop()

    def _fill(self) -> None:
        """Gives each free place to the first run that fits; locked ones come last."""
        now = time.monotonic()
        waiting = [e for e in self.entries if e.state == "waiting"]
        locked = [e for e in self.entries if e.state == "locked" and now - e._looked > LOCK_POLL_INTERVAL_S]
        too_many: float = float("inf")  # workers that there is no place for now
        for entry in (*waiting, *locked):
            if self.asked:
                return
            try:
                if entry.state == "waiting" and entry.run.todo in ("skip", "failed", "unreadable"):
                    report_as_it_is(entry)  # for which no place is needed
                elif entry.run.launch.processes < too_many and not self._try_start(entry):
                    too_many = entry.run.launch.processes
            except UserError as error:
                entry.end("failed", error.exit_code, error.message, error.hint)

    def _mark_queued(self) -> None:
        """Marks what has no place yet as queued, so that other terminals see it and can cancel it.

        A moment's worth at each step: there may be thousands. What `--retry-failed` and `--force` allow is used up
        by that: a run that is cancelled while it waits stays cancelled.
        """
        deadline = time.monotonic() + LINE_UP_S
        for entry in self.entries:
            if time.monotonic() > deadline or not self._is_leader:
                return
            if entry.state != "waiting" or entry.in_line or entry.run.todo not in ("start", "resume"):
                continue
            entry.in_line = True
            with (
                contextlib.suppress(UserError),
                claim_run(entry.run),
            ):  # or else it is found out when its turn comes
                if prepare(entry.run, self.command, self.slots.threads(entry.run.launch)) in (
                    "start",
                    "resume",
                ):
                    entry.run = replace(entry.run, retry_failed=False, force=False)

    def _try_start(self, entry: QueueItem) -> bool:
        """Takes a place, and starts the run there unless it needs none. False where there is no place."""
        lease = self.slots.take(entry.run.launch)
        if lease is None:
            return False
        claim = contextlib.ExitStack()
        try:
            if not self._is_leader:
                raise InUseError("another machine leads")
            lock = claim.enter_context(claim_run(entry.run))
            todo = prepare(entry.run, self.command, self.slots.threads(entry.run.launch))
            if todo in ("start", "resume"):
                self._start(entry, claim, lock, lease)
            elif todo == "running":
                raise InUseError("on a machine whose locks do not reach here")
            else:
                report_as_it_is(entry)
        except InUseError:
            entry.state, entry._looked = "locked", time.monotonic()
            if entry.run.launch.nodes > 1:
                self._join(entry, claim, lease)
        finally:
            if entry._work is None:
                claim.close()
                self.slots.give_back(lease)
        return True

    def _join(self, entry: QueueItem, claim: contextlib.ExitStack, lease: Lease) -> None:
        """Takes part in the attempt of the machine that leads, once that has prepared the run."""
        if not entry.run.folder.record_file.exists():
            return
        record = entry.run.folder.read()
        if record.status == "done":
            report_as_it_is(entry)
        elif record.status in ("queued", "running") and record.launch.nodes == entry.run.launch.nodes:
            self._start(entry, claim, None, lease)

    def _start(self, entry: QueueItem, claim: contextlib.ExitStack, lock: int | None, lease: Lease) -> None:
        folder = entry.run.folder
        launch = folder.read().launch
        environment = inheriting(lock) if lock is not None else {}
        if lease.gpus:
            environment |= lease.environment()
        if launch.threads is not None:
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(launch.threads)
        rendezvous = None
        if self.execution.rdzv is not None:
            attempt = f"{folder.path.parent.name}-{folder.path.name}"
            rendezvous = Rendezvous(self.execution.rdzv, attempt, is_leader=lock is not None)
        descriptors = lease.descriptors if lock is None else (lock, *lease.descriptors)
        worker = LocalWorker(folder, launch, rendezvous, environment, descriptors)
        entry._work = ActiveRun(worker, claim, lock, lease, iterations_saved(folder))
        entry.state, entry.attempts = "running", entry.attempts + 1
        entry.gpus = tuple(str(gpu.index) for gpu in lease.gpus)

    def _handle_exit(self, entry: QueueItem) -> None:
        """Another attempt at once, in the same place, or the end."""
        work = entry._work
        assert work is not None
        try:
            if work.lock is None:
                self._end_joined(entry, work)
            elif self._retry_if_needed(entry, work, work.lock):
                return
        except (UserError, OSError) as error:
            message = error.message if isinstance(error, UserError) else f"{entry.run.folder.path}: {error}"
            entry.end("failed", getattr(error, "exit_code", FAILED), message, getattr(error, "hint", None))
        entry._work, entry.gpus = None, ()
        work.claim.close()
        self.slots.give_back(work.lease)
        if entry.code and entry.run.launch.nodes > 1:  # else the other machines' commands run ahead
            for other in self.entries:
                if not other.is_over:
                    other.end("interrupted", INTERRUPTED, "not begun: a run before it has ended", TYPE_AGAIN)

    def _end_joined(self, entry: QueueItem, work: ActiveRun) -> None:
        """Ends a run whose record another machine keeps, as its record says."""
        code, message = work.worker.exit_code(), work.worker.message()
        if code in (DONE, BAD_INPUT, NOT_FINITE):
            entry.end("failed" if code else "done", code, message, work.worker.hint() if code else None)
        else:
            entry.end("interrupted", INTERRUPTED, message, TYPE_AGAIN)

    def _retry_if_needed(self, entry: QueueItem, work: ActiveRun, lock: int) -> bool:
        """What follows the attempt. True if another has begun."""
        verdict = decide_retry(entry.run.folder, work.worker, work.saved, entry.verdicts, bool(self.asked))
        entry.verdicts.append(verdict)
        if verdict.again and entry.run.launch.nodes > 1:
            entry.end("interrupted", INTERRUPTED, work.worker.message(), TYPE_AGAIN)
            return False
        if verdict.again:
            entry.message, entry.hint = verdict.message, verdict.hint
            entry._work = None
            self._start(entry, work.claim, lock, work.lease)
            return True
        entry.end(verdict.state, verdict.code, verdict.message, verdict.hint)
        return False

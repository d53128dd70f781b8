"""Works through planned runs: as many at once as there are places, each as often as its failures call for.

A run is claimed before it is prepared, and its lock goes on to its worker: of several commands that are started
on the same runs, one works on each. What another command works on is left to it, and looked at again later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from experiments.errors import DONE, FAILED, INTERRUPTED, UserError
from experiments.launching.after import Verdict, after_attempt, iterations_saved
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun, claimed, prepare
from experiments.launching.slots import Slots
from experiments.runs import InUseError, inheriting

State = Literal["waiting", "running", "elsewhere", "done", "failed", "interrupted", "cancelled", "skipped"]
LOOK_EVERY_S = 0.02  # whether a worker has ended
ELSEWHERE_EVERY_S = 0.5  # whether another command has left a run


@dataclass
class Entry:
    """One run in the queue, and what has become of it so far. Views read it.

    Attributes:
        state: `elsewhere`: another process works on it. `skipped`: there was nothing to do, it was done before.
        code: Exit code, once nothing is left to do.
        gpus: Indices of the GPUs that it has.
        attempts: Workers started for it by this queue.
        message, hint: Why it did not end well, or why it is tried again.
    """

    run: PlannedRun
    state: State = "waiting"
    code: int | None = None
    gpus: tuple[str, ...] = ()
    attempts: int = 0
    message: str | None = None
    hint: str | None = None
    verdicts: list[Verdict] = field(default_factory=list)  # of its attempts, in order
    _work: _Work | None = None
    _looked: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "running", "elsewhere")

    def end(self, state: State, code: int, message: str | None = None, hint: str | None = None) -> None:
        self.state, self.code, self.message, self.hint = state, code, message, hint


@dataclass
class _Work:
    """What belongs to a run at work: given up when it leaves the queue."""

    worker: LocalWorker
    claim: contextlib.ExitStack
    lock: int
    lease: Lease
    saved: int  # iterations that the attempt began with


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
        self.entries = [Entry(run) for run in planned]
        self.command = command
        self.execution = execution or Execution()
        self.slots = Slots(self.execution, gpus)
        self.asked = 0  # to stop: once for a checkpoint first, twice for at once
        self._passed_on = 0

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
                elif entry.state == "elsewhere":
                    entry.end("interrupted", INTERRUPTED, "another process works on it", "msdet runs")
        else:
            self._fill()
        deadline = time.monotonic() + timeout_s
        while not (ended := [e for e in self.entries if e._work and e._work.worker.wait(0)]):
            if time.monotonic() >= deadline or self._passed_on < self.asked or not self._is_left():
                break
            time.sleep(LOOK_EVERY_S)
        for entry in ended:
            self._settle(entry)
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
        """Gives each free place to the first run that fits; those that were elsewhere come last."""
        now = time.monotonic()
        waiting = [e for e in self.entries if e.state == "waiting"]
        elsewhere = [
            e for e in self.entries if e.state == "elsewhere" and now - e._looked > ELSEWHERE_EVERY_S
        ]
        too_many: float = float("inf")  # workers that there is no place for now
        for entry in (*waiting, *elsewhere):
            if self.asked:
                return
            try:
                if entry.state == "waiting" and entry.run.todo in ("skip", "failed", "unreadable"):
                    _report_as_it_is(entry)  # for which no place is needed
                elif entry.run.launch.processes < too_many and not self._begin(entry):
                    too_many = entry.run.launch.processes
            except UserError as error:
                entry.end("failed", error.exit_code, error.message, error.hint)

    def _begin(self, entry: Entry) -> bool:
        """Takes a place, and starts the run there unless it needs none. False where there is no place."""
        lease = self.slots.take(entry.run.launch)
        if lease is None:
            return False
        claim = contextlib.ExitStack()
        try:
            lock = claim.enter_context(claimed(entry.run))
            todo = prepare(entry.run, self.command, self.slots.threads(entry.run.launch))
            if todo in ("start", "resume"):
                self._start(entry, claim, lock, lease)
            elif todo == "running":
                raise InUseError("on a machine whose locks do not reach here")
            else:
                _report_as_it_is(entry)
        except InUseError:
            entry.state, entry._looked = "elsewhere", time.monotonic()
        finally:
            if entry._work is None:
                claim.close()
                self.slots.give_back(lease)
        return True

    def _start(self, entry: Entry, claim: contextlib.ExitStack, lock: int, lease: Lease) -> None:
        folder = entry.run.folder
        record = folder.read()
        environment = inheriting(lock) | (lease.environment() if lease.gpus else {})
        if record.launch.threads is not None:
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(record.launch.threads)
        worker = LocalWorker(
            folder,
            launch=record.launch,
            rdzv=self.execution.rdzv,
            environment=environment,
            descriptors=(lock, *lease.descriptors),
        )
        entry._work = _Work(worker, claim, lock, lease, iterations_saved(folder))
        entry.state, entry.attempts = "running", entry.attempts + 1
        entry.gpus = tuple(str(gpu.index) for gpu in lease.gpus)

    def _settle(self, entry: Entry) -> None:
        """Another attempt at once, in the same place, or the end."""
        work = entry._work
        assert work is not None
        try:
            verdict = after_attempt(
                entry.run.folder, work.worker, work.saved, entry.verdicts, bool(self.asked)
            )
            entry.verdicts.append(verdict)
            if verdict.again:
                entry.message, entry.hint = verdict.message, verdict.hint
                entry._work = None
                self._start(entry, work.claim, work.lock, work.lease)
                return
            entry.end(verdict.state, verdict.code, verdict.message, verdict.hint)
        except (UserError, OSError) as error:
            message = error.message if isinstance(error, UserError) else f"{entry.run.folder.path}: {error}"
            entry.end("failed", getattr(error, "exit_code", FAILED), message, getattr(error, "hint", None))
        entry._work, entry.gpus = None, ()
        work.claim.close()
        self.slots.give_back(work.lease)


def _report_as_it_is(entry: Entry) -> None:
    """The end of a run that nothing is to be done for: done, failed or cancelled earlier or by another command."""
    folder = entry.run.folder
    record = folder.read()
    if record.status == "done":
        entry.end("skipped" if entry.state == "waiting" else "done", DONE)
        return
    last = record.attempts[-1] if record.attempts else None
    state: State = "cancelled" if record.status == "cancelled" else "failed"
    code = INTERRUPTED if state == "cancelled" else (last and last.exit_code) or FAILED
    reason = (last and last.message) or state
    entry.end(state, code, f"{state} before: {reason}", f"--retry-failed tries again; log: {folder.log}")

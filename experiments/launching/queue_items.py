"""One run in the queue: its state, its decisions and what it holds while it runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Literal

from experiments.common.errors import DONE, FAILED, INTERRUPTED, UserError, find_storage_error
from experiments.common.processes import STALE_AFTER_S
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun
from experiments.launching.retry_policy import RetryDecision
from experiments.runs.run_folder import RunFolder

State = Literal["waiting", "running", "locked", "done", "failed", "interrupted", "cancelled", "skipped"]


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
        if find_storage_error(error) is not None:
            message = (
                f"the results folder {self.run.folder.path} cannot be written: {find_storage_error(error)}"
            )
            self.end("interrupted", INTERRUPTED, message, "free some space, then type the same command")
        elif isinstance(error, UserError):
            self.end("failed", error.exit_code, error.message, error.hint)
        else:
            self.end("failed", FAILED, f"{self.run.folder.path}: {error}")


@dataclass
class ActiveRun:
    """What a run holds while a worker is on it."""

    worker: LocalWorker
    claim: contextlib.ExitStack
    lock: int | None  # None: another machine leads, and holds it
    lease: Lease
    saved: int  # iterations that the attempt began with


def find_worker_elsewhere(folder: RunFolder) -> str:
    """Return the process that works on a run whose lock does not reach here, and when it is no longer waited for."""
    attempt = folder.read().attempts[-1]
    return (
        f"process {attempt.pid} on {attempt.host} (resumed here after {STALE_AFTER_S} s without a heartbeat)"
    )


def report_as_it_is(entry: QueueItem) -> None:
    """End a run that was done, failed or cancelled before, or by another command, as its record says."""
    folder = entry.run.folder
    record = folder.read()
    if record.status == "done":
        entry.end("skipped" if entry.state == "waiting" else "done", DONE)
        return
    last = record.attempts[-1] if record.attempts else None
    state: State = "cancelled" if record.status == "cancelled" else "failed"
    code = INTERRUPTED if state == "cancelled" else (last and last.exit_code) or FAILED
    reason = (last and last.message) or state
    entry.end(state, code, f"{state} before: {reason}", f"resume it with --retry-failed; log: {folder.log}")

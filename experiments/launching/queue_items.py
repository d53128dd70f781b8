"""One run in the queue, and what has become of it so far."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Literal

from experiments.common.errors import DONE, FAILED, INTERRUPTED
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlannedRun
from experiments.launching.retry_policy import RetryDecision

State = Literal["waiting", "running", "locked", "done", "failed", "interrupted", "cancelled", "skipped"]


@dataclass
class QueueItem:
    """Views read it.

    Attributes:
        state: `locked`: another msdet process works on it. `skipped`: there was nothing to do, it was done before.
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
    verdicts: list[RetryDecision] = field(default_factory=list)  # of its attempts, in order
    _work: ActiveRun | None = None
    in_line: bool = False  # marked as queued
    _looked: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "running", "locked")

    def end(self, state: State, code: int, message: str | None = None, hint: str | None = None) -> None:
        self.state, self.code, self.message, self.hint = state, code, message, hint


@dataclass
class ActiveRun:
    """What belongs to a run at work: given up when it leaves the queue."""

    worker: LocalWorker
    claim: contextlib.ExitStack
    lock: int | None  # None: another machine leads, and holds it
    lease: Lease
    saved: int  # iterations that the attempt began with


def report_as_it_is(entry: QueueItem) -> None:
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
    entry.end(state, code, f"{state} before: {reason}", f"resume it with --retry-failed; log: {folder.log}")

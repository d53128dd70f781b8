"""Cancelling runs: those at work save and end, those that wait are left out. No torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Literal

from experiments.common.errors import UserError
from experiments.common.processes import is_alive
from experiments.launching.slurm.job import cancel_jobs, slurm_states
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import RunFolder
from experiments.runs.run_lock import InUseError, acquire_lock

Outcome = Literal["cancelled", "was over", "ended first"]


class Cancel:
    """Cancels one run, in steps that never wait.

    A run at work is asked by a file, which its worker looks for every few seconds wherever it is, and by a signal at
    once where that is possible. A run that nobody works on is marked in its record, under its lock.

    Attributes:
        before: How the run stood.
        outcome: None while it has not ended. `was over`: there was nothing to cancel; `ended first`: it was done, or
            had failed for good, before it saw that it was asked.
        note: What the user should know besides.
    """

    def __init__(self, run: RunFolder) -> None:
        """Raises UserError where the record cannot be read."""
        self.run = run
        self.before: Status = run.state()
        self.outcome: Outcome | None = None
        self.note: str | None = None
        self._asked = False
        self._job_asked = False

    def step(self) -> bool:
        """Does what can be done now; whether the run has ended.

        Raises:
            UserError: The run's folder cannot be written.
        """
        if self.outcome is None:
            try:
                self._step()
            except OSError as error:
                raise UserError(
                    f"{self.run.path} cannot be written: {error.strerror or error}",
                    "cancel it as the user who started it",
                ) from None
        return self.outcome is not None

    def _step(self) -> None:
        record = self.run.read()
        state = self.run.state(record)
        if state == "cancelled":
            self.outcome = "was over" if self.before == "cancelled" else "cancelled"
        elif state == "done":
            self._is_over("was over" if self.before == "done" else "ended first")
        elif state == "running":
            self._ask(record)
        else:
            with (
                contextlib.suppress(InUseError),
                acquire_lock(self.run, patience_s=0),
            ):  # else somebody is about to start it
                self._mark(self.run.read())

    def _mark(self, record: Record) -> None:
        """Nobody works on the run, and nobody can begin to now."""
        if record.status == "done":
            self._is_over("ended first")
        elif record.status == "failed":
            self._is_over("was over" if self.before == "failed" else "ended first")
        else:
            record.status = "cancelled"
            self.run.write(record)
            self.run.cancel.unlink(missing_ok=True)
            self._cancel_job(record)
            self.outcome = "cancelled"

    def _is_over(self, outcome: Outcome) -> None:
        if self._asked:
            self.run.cancel.unlink(missing_ok=True)  # nobody is left to see it
        self.outcome = outcome

    def _ask(self, record: Record) -> None:
        if self._asked:
            return
        self._asked = True
        self.run.cancel.touch()
        attempt = record.attempts[-1]
        here = attempt.host == socket.gethostname() and attempt.pid_started is not None
        if here and is_alive(attempt.pid, attempt.pid_started):
            with contextlib.suppress(OSError):  # another user's: the file does it
                os.kill(attempt.pid, signal.SIGTERM)
        self._cancel_job(record)

    def _cancel_job(self, record: Record) -> None:
        """Takes the run's job out of Slurm, if it still has one there."""
        if not record.slurm or self._job_asked:
            return
        self._job_asked = True
        job = record.slurm["job_id"]
        states = slurm_states([job])
        if states is None:
            self.note = (
                f"Slurm cannot be asked from here; its job {job} ends by itself when it looks at the run"
            )
        elif job in states and states[job].is_active:
            try:
                cancel_jobs([job])
            except UserError as error:
                self.note = error.message

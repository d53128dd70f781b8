"""The cancellation of runs: those at work save and end, those that wait are skipped. No torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Literal

from experiments.common.errors import UserError
from experiments.common.files import refusing
from experiments.common.processes import is_alive
from experiments.launching.slurm.job import ask_states, cancel_job
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import InUseError, RunFolder, acquire_lock, refuse_links

Outcome = Literal["cancelled", "was over", "ended first", "refused"]


class Cancel:
    """The cancellation of one run, in steps that never wait.

    A run at work is asked by a file, for which its worker looks every few seconds on any machine, and by a signal
    where that is possible. A run that nobody works on is marked in its record, under its lock.

    Attributes:
        before: The run's state at the beginning.
        outcome: None while it has not ended. `was over`: there was nothing to cancel; `ended first`: it was done or
            had failed before it saw the request; `refused`: its folder cannot be written.
        note: What the user should know besides.
    """

    def __init__(self, run: RunFolder) -> None:
        """Raise UserError if the record cannot be read."""
        self.run = run
        self.before: Status = run.state()
        self.outcome: Outcome | None = None
        self.note: str | None = None
        self._asked = False

    def step(self) -> bool:
        """Do what can be done now; return whether the run has ended.

        Raises:
            UserError: The run's folder cannot be written.
        """
        if self.outcome is None:
            with refusing(f"{self.run.path} cannot be written", "cancel it as the user who started it"):
                self._step()
        return self.outcome is not None

    def _step(self) -> None:
        record = self.run.read()
        state = self.run.state(record)
        if state == "cancelled":
            self.outcome = "was over" if self.before == "cancelled" else "cancelled"
        elif state == "done":
            self._is_over(state)
        elif state == "running":
            self._ask(record)
        else:  # a run that is locked is about to start
            with contextlib.suppress(InUseError), acquire_lock(self.run, patience_s=0):
                self._mark(self.run.read())

    def _mark(self, record: Record) -> None:
        """Mark a run that this process has locked."""
        if record.status in ("done", "failed"):
            self._is_over(record.status)
        else:
            record.status = "cancelled"
            self.run.write(record)
            self.run.cancel.unlink(missing_ok=True)
            if not self._asked:  # else its job was asked, too
                self._cancel_job(record)
            self.outcome = "cancelled"

    def _is_over(self, state: Status) -> None:
        if self._asked:
            self.run.cancel.unlink(missing_ok=True)  # nobody is left to see it
        self.outcome = "was over" if self.before == state else "ended first"

    def _ask(self, record: Record) -> None:
        if self._asked:
            return
        self._asked = True
        refuse_links(self.run)
        self.run.cancel.touch()
        attempt = record.attempts[-1]
        here = attempt.host == socket.gethostname() and attempt.pid_started is not None
        if here and is_alive(attempt.pid, attempt.pid_started):
            with contextlib.suppress(OSError):  # another user's: the file does it
                os.kill(attempt.pid, signal.SIGTERM)
        self._cancel_job(record)

    def _cancel_job(self, record: Record) -> None:
        """Take the run's job out of Slurm, if it has one there."""
        if not record.slurm:
            return
        job = record.slurm["job_id"]
        states = ask_states([job])
        if states is None:
            self.note = f"Slurm cannot be asked from here; job {job} ends by itself when it reads the run"
        elif job in states and states[job].is_active:
            try:
                cancel_job(job)
            except UserError as error:
                self.note = error.message

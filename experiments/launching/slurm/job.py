"""One run as a Slurm job: what the job does on its node, and what Slurm says of it. No torch.

submitit pickles a `SlurmRun` at submission and calls it on the node. Before a time-out or a preemption Slurm sends
USR2; submitit then calls `checkpoint`, and what that returns is queued again under the same job id. States come
from one call of `squeue` and the jobs' own logs: no accounting database is asked.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.common.errors import DONE, FAILED, INTERRUPTED, UserError
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker, read_last_lines
from experiments.launching.retry_policy import RetryDecision, decide_retry
from experiments.launching.torchrun import Rendezvous
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import RunFolder, acquire_lock

SUBMITIT_SIGNAL = signal.SIGUSR2  # what submitit listens to
PENDING_STATES = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING_STATES = (
    *("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED"),
    *("STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
)
ACTIVE_STATES = (*PENDING_STATES, *RUNNING_STATES)
SQUEUE_TIMEOUT_S = 10  # a controller under load may take long
SCANCEL_TIMEOUT_S = 60
LOG_LINES = 50  # of a job's error log that are looked through

_ENDED = re.compile(r"CANCELLED AT \S+(?: DUE TO (.+?))? \*\*\*")  # a reason: TIME LIMIT, PREEMPTION, ...
_REQUEUED = "JOB REQUEUE"
_SPEAKER = re.compile(r"^(?:slurmstepd\S*|srun): error: ")
_NOT_A_REASON = re.compile(
    r"^submitit |^srun: (got SIG|Job step aborted|forcing job|error: \S+: task)|CANCELLED AT"
)


class SlurmRun:
    """One run as a job.

    Args:
        folder: The run folder, absolute.
        before: Decisions on its attempts in this job so far.
    """

    def __init__(self, folder: Path, before: Sequence[RetryDecision] = ()) -> None:
        self.folder, self.before = folder, list(before)

    def __call__(self) -> None:
        """Work on the run, and end this process with the run's exit code.

        The worker belongs to a thread. The main thread only sleeps, since Python runs signal handlers in it, in
        the middle of whatever it does.
        """
        self._stop = threading.Event()  # have the worker save and end
        self._leave = threading.Event()  # Slurm has told the worker to end; start no other
        self._ended = threading.Event()
        self._code = FAILED
        self._attempts = 0  # of this job since it last began
        signal.signal(signal.SIGTERM, lambda number, frame: self._leave.set())
        threading.Thread(target=self._work, daemon=True).start()
        _sleep_until(self._ended)
        sys.exit(self._code)

    def checkpoint(self) -> Any:
        """Have the worker save and end, and return what submitit queues again."""
        from submitit.helpers import DelayedSubmission

        if hasattr(self, "_ended"):
            self._stop.set()
            _sleep_until(self._ended)
            if self._code != INTERRUPTED or RunFolder(self.folder).read().status == "cancelled":
                sys.exit(self._code)  # it has ended by itself meanwhile
        return DelayedSubmission(SlurmRun(self.folder, self.before))

    def _work(self) -> None:
        # Slurm sends USR2 to every process of a job. Children inherit this thread's mask, so it does not kill them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {SUBMITIT_SIGNAL})
        try:
            self._code = self._lead() if os.environ.get("SLURM_NODEID", "0") == "0" else self._follow()
        except UserError as error:
            print(f"error: {error.message}", file=sys.stderr)
            self._code = error.exit_code
        finally:
            self._ended.set()

    def _lead(self) -> int:
        """Work on the run as often as its failures call for; return the exit code."""
        run = RunFolder(self.folder)
        with acquire_lock(run) as lock:
            while run.read().status not in ("done", "cancelled"):
                saved = run.count_iterations_saved()
                worker = self._attempt(run, lock)
                decision = decide_retry(run, worker.failure, saved, self.before, self._is_asked())
                self.before.append(decision)
                if decision.message:
                    print(f"{run.name}: {decision.message}", file=sys.stderr)
                if not decision.should_retry or self._is_asked():
                    return decision.code
            return DONE if run.read().status == "done" else INTERRUPTED

    def _follow(self) -> int:
        """Take part in one attempt after the other, as the nodes other than the first do.

        The first node decides whether there is another attempt; when it has ended, srun soon ends them, too.
        """
        run = RunFolder(self.folder)
        code = INTERRUPTED
        while not self._is_asked() and code != DONE and run.read().status != "done":
            failure = self._attempt(run, None).failure
            code = failure.code if failure else DONE
        return code

    def _attempt(self, run: RunFolder, lock: int | None) -> LocalWorker:
        launch = run.read().launch
        self._attempts += 1
        rendezvous = _rendezvous(self._attempts) if launch.nodes > 1 else None
        no_lease = Lease((), ())  # Slurm has reserved the GPUs, and shows this process no others
        worker = LocalWorker(run, launch, rendezvous, no_lease, lock)
        is_told = False
        while not worker.wait(0.2):
            if self._stop.is_set() and not is_told:  # only once: asked again, it ends without saving
                worker.stop()
                is_told = True
        return worker

    def _is_asked(self) -> bool:
        return self._stop.is_set() or self._leave.is_set()


def _rendezvous(attempt: int) -> Rendezvous:
    """Return where the nodes' torchruns meet: on a port of the first node that depends on the job."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    number, restart = int(job.raw_job_id), os.environ.get("SLURM_RESTART_COUNT", "0")
    return Rendezvous(f"{job.hostnames[0]}:{20000 + number % 9000}", f"{number}-{restart}-{attempt}")


def _sleep_until(event: threading.Event) -> None:
    while not event.is_set():  # not `wait`, whose lock a signal handler may find taken
        time.sleep(0.1)


@dataclass(frozen=True)
class SlurmState:
    """One job as Slurm knows it: its state and, where it has one, the reason (`Resources`, `Priority`)."""

    state: str
    reason: str = ""

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES


def ask_states(job_ids: Iterable[str | None]) -> dict[str, SlurmState] | None:
    """Return the states of jobs by their ids; ended ones too while Slurm remembers them (minutes).

    Args:
        job_ids: `record.slurm["job_id"]` of many records; None is left out.

    Returns:
        None where Slurm cannot be asked: not installed here, or no answer.
    """
    wanted = {job for job in job_ids if job}
    if not wanted:
        return {}
    numbers = sorted({job.partition("_")[0] for job in wanted}, key=int)  # of arrays, as a whole
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    command.append(f"--jobs={','.join(numbers)}")
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if said.returncode != 0 and "Invalid job id" not in said.stderr:
        return None
    states = {}
    for line in said.stdout.splitlines():
        job, state, reason = line.split("|", 2)
        if job in wanted:
            states[job] = SlurmState(state, "" if reason in ("None", "(null)") else reason)
    return states


def find_status(
    record: Record, status: Status, states: dict[str, SlurmState] | None
) -> tuple[Status, str | None]:
    """Return a run's status, and why, where Slurm has something to say about it.

    Args:
        status: The run's state as its folder tells it.
        states: What `ask_states` returned for records that include this one.
    """
    if not record.slurm or states is None or status in ("done", "cancelled"):
        return status, None
    job = states.get(record.slurm["job_id"])
    if job is not None and job.state in RUNNING_STATES:
        return "running", None
    if job is not None and job.state in PENDING_STATES:
        return "queued", job.reason or None
    if status not in ("queued", "interrupted"):
        return status, None
    return _status_without_job(record.slurm, job, status)


def _status_without_job(
    slurm: dict[str, str], job: SlurmState | None, status: Status
) -> tuple[Status, str | None]:
    """Return the status of a run that has not ended though its job has left the queue, and why."""
    log = [line.strip() for line in read_last_lines(find_error_log(slurm), LOG_LINES)]
    name = f"Slurm job {slurm['job_id']}"
    ends = [match[1] for match in map(_ENDED.search, log) if match and match[1] != _REQUEUED]
    if (job is not None and job.state == "CANCELLED") or None in ends:
        return "cancelled", f"{name} was cancelled"
    if job is None and not log and status == "queued":
        return "cancelled", f"{name} left the queue before it began"
    reasons = [line for line in log if not _NOT_A_REASON.search(line)]
    why = _SPEAKER.sub("", reasons[-1] if reasons else log[-1] if log else "")
    if ends:
        why = f"{name} was ended by Slurm: {ends[-1].lower()}"
    elif not why and job is not None:
        why = f"{name}: {' '.join([job.state, job.reason]).strip()}"
    # A run that has begun is resumed by the same command; one that never could has failed.
    return ("failed" if status == "queued" else status), why or None


def find_error_log(slurm: dict[str, str]) -> Path:
    """Return the error log of the job that a record's `slurm` names."""
    return Path(slurm["folder"]) / f"{slurm['job_id']}_0_log.err"


def cancel_job(job_id: str) -> None:
    """Take a job, or a whole array, out of Slurm's queue.

    One that runs is told to save first, and has `KillWait` seconds for it.

    Raises:
        UserError: Slurm refuses, or is not here.
    """
    command = ["scancel", job_id]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SCANCEL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"scancel {job_id}: {error}", "type it where Slurm is installed") from None
    if said.returncode != 0:
        raise UserError(f"scancel {job_id}: {said.stderr.strip() or said.stdout.strip()}", "squeue --me")

"""What Slurm says of runs, from one call of `squeue` and the jobs' own logs: no accounting database is asked."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import RunFolder

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
AT_WORK = (
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
)
UNDER_WAY = (*WAITING, *AT_WORK)
PATIENCE_S = 10  # a controller under load may take long; a listing does not wait for it for ever

_ENDED = re.compile(r"CANCELLED AT \S+(?: DUE TO (.+?))? \*\*\*")  # a reason: TIME LIMIT, PREEMPTION, ...
_REQUEUED = "JOB REQUEUE"
_SPEAKER = re.compile(r"^(?:slurmstepd\S*|srun): error: ")
_NOT_A_REASON = re.compile(
    r"^submitit |^srun: (got SIG|Job step aborted|forcing job|error: \S+: task)|CANCELLED AT"
)


@dataclass(frozen=True)
class SlurmState:
    """One job as Slurm knows it: its state and, where it has one, the reason (`Resources`, `Priority`)."""

    state: str
    reason: str = ""

    @property
    def under_way(self) -> bool:
        return self.state in UNDER_WAY


def slurm_states(job_ids: Iterable[str | None]) -> dict[str, SlurmState] | None:
    """The states of jobs by their ids, ended ones too for as long as Slurm remembers them (minutes).

    Args:
        job_ids: `record.slurm["job_id"]` of many records; None is left out.

    Returns:
        None where Slurm cannot be asked: not installed here, or no answer. Empty without a call where there is
        no id.
    """
    wanted = {job for job in job_ids if job}
    if not wanted:
        return {}
    numbers = sorted({job.partition("_")[0] for job in wanted}, key=int)  # of arrays, as a whole
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        "--format=%i|%T|%r",
        f"--jobs={','.join(numbers)}",
    ]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
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


def status_in_slurm(
    run: RunFolder, record: Record, states: dict[str, SlurmState] | None
) -> tuple[Status, str | None]:
    """A run's status as it reads now, and why, where Slurm has something to say about it.

    Args:
        states: What `slurm_states` answered for a list of records that holds this one.
    """
    status = run.state(record)
    if not record.slurm or states is None or status in ("done", "cancelled"):
        return status, None
    job = states.get(record.slurm["job_id"])
    if job is not None and job.state in AT_WORK:
        return "running", None
    if job is not None and job.state in WAITING:
        return "queued", job.reason or None
    if status not in ("queued", "interrupted"):
        return status, None
    return _gone(record.slurm, job, status)


def _gone(slurm: dict[str, str], job: SlurmState | None, status: Status) -> tuple[Status, str | None]:
    """What became of a run whose job has left the queue while the run was not at its end."""
    log, name = last_lines(slurm), f"Slurm job {slurm['job_id']}"
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
    # A run that has worked goes on where the same command is typed again; one that never could has failed.
    return ("failed" if status == "queued" else status), why or None


def last_lines(slurm: dict[str, str], most: int = 50) -> list[str]:
    """The last lines with anything in them of a job's error log; none where it has written none.

    Args:
        slurm: A record's `slurm`.
    """
    path = error_log(slurm)
    try:
        with open(path, "rb") as stream:
            stream.seek(max(path.stat().st_size - 200 * most, 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-most:]


def error_log(slurm: dict[str, str]) -> Path:
    return Path(slurm["folder"]) / f"{slurm['job_id']}_0_log.err"


def cancel_jobs(job_ids: Iterable[str]) -> None:
    """Takes jobs out of Slurm's queue; one that runs is told to save first, and has `KillWait` seconds for it.

    Raises:
        UserError: Slurm refuses, or is not here.
    """
    jobs = list(job_ids)
    if not jobs:
        return
    try:
        said = subprocess.run(["scancel", *jobs], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"scancel {' '.join(jobs)}: {error}", "type it where Slurm is installed") from None
    if said.returncode != 0:
        raise UserError(
            f"scancel {' '.join(jobs)}: {said.stderr.strip() or said.stdout.strip()}", "squeue --me"
        )

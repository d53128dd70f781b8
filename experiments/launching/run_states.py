"""What is known of runs: record and state, from Slurm where the record cannot know it. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from experiments.common.errors import UserError
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import RunFolder


class KnownRun(NamedTuple):
    """A run, its record, its state, and Slurm's reason for it, if any."""

    run: RunFolder
    record: Record
    state: Status
    slurm_reason: str | None = None


def read_runs(runs: Iterable[RunFolder]) -> tuple[list[KnownRun], list[UserError]]:
    """Return what is known of the runs, and an error for each that cannot be read.

    Each record is read once, and Slurm is asked once for all.
    """
    known, errors = [], []
    for run in runs:
        try:
            record = run.read()
        except UserError as error:
            errors.append(error)
        else:
            known.append(KnownRun(run, record, run.state(record)))
    asked = [one for one in known if one.record.slurm and one.state in ("queued", "interrupted", "failed")]
    if not asked:
        return known, errors
    from experiments.launching.slurm.job import ask_states, find_status

    jobs = ask_states(one.record.slurm["job_id"] for one in asked if one.record.slurm)
    answers = {one.run: find_status(one.record, one.state, jobs) for one in asked}
    return [KnownRun(*one[:2], *answers.get(one.run, one[2:])) for one in known], errors


def read_run(run: RunFolder) -> KnownRun:
    """Return what is known of one run; raise UserError where its record cannot be read."""
    known, errors = read_runs([run])
    for error in errors:
        raise error
    return known[0]

"""Hands planned runs to Slurm: one job for a run, one job array for a sweep. What happens on the node is in
`slurm_job`. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from experiments.common.errors import UserError
from experiments.common.locks import file_lock
from experiments.launching.execution import Execution
from experiments.launching.plan import PlannedRun, claim_run, prepare
from experiments.launching.slurm.job import SlurmRun
from experiments.launching.slurm.options import SlurmOptions
from experiments.launching.slurm.sbatch import check_installed, executor_for, has_gpus, sbatch, scontrol
from experiments.launching.slurm.state import cancel_jobs, slurm_states
from experiments.runs.run_lock import InUseError

WHY_NOT = {
    "skip": "done already",
    "failed": "failed before; --retry-failed tries again",
    "running": "another process works on it",
    "unreadable": "its record is of a newer msdet",
}


@dataclass(frozen=True)
class Submission:
    """What became of one planned run.

    Attributes:
        job_id: `12`, or `12_3` in an array; None where nothing was submitted.
        why: Why nothing was.
    """

    run: PlannedRun
    job_id: str | None
    why: str | None = None


def on_slurm(execution: Execution, options: SlurmOptions) -> Execution:
    """How runs are executed there: the options that `--slurm` and the command share, brought together.

    Raises:
        UserError: They contradict each other, or no job can be submitted from here.
    """
    check_installed()
    if options.gpus and execution.workers is not None and options.gpus != execution.workers:
        raise UserError(
            f"--slurm gpus={options.gpus} contradicts {execution.workers} workers for a run",
            "leave one of them out",
        )
    workers = options.gpus or execution.workers
    if workers is None and not has_gpus(options):
        workers = 1
    nodes = options.nodes or execution.nodes
    return replace(execution, gpus=workers, gpus_per_run=None, nodes=nodes, slurm=True)


def submit(
    planned: Sequence[PlannedRun], options: SlurmOptions, results: Path, command: Sequence[str]
) -> list[Submission]:
    """Submits what is left to do and is not in Slurm's hands already; the runs' folders are ready when it returns.

    Runs with different numbers of workers become an array each.

    Args:
        planned: With an execution from `on_slurm`.
        results: The results folder; logs of jobs go to `slurm/` in it, which the nodes must see, too.
        command: As it was typed, for the records.

    Raises:
        UserError: Slurm is not here or refuses; nothing has been changed then.
    """
    check_installed()
    with _one_at_a_time(results / "slurm"):
        jobs = {run.folder.path: _job(run) for run in planned}
        states = slurm_states(jobs.values())
        found: dict[Path, Submission] = {}
        arrays: dict[tuple[int, int], list[PlannedRun]] = {}
        for run in planned:
            job = jobs[run.folder.path]
            state = (states or {}).get(job) if job else None
            if state is not None and state.under_way:
                why = f"in Slurm already, as job {job} ({state.state.lower()})"
                found[run.folder.path] = Submission(run, None, why)
            elif run.todo not in ("start", "resume"):
                found[run.folder.path] = Submission(run, None, WHY_NOT[run.todo])
            else:
                arrays.setdefault((run.launch.processes, run.launch.nodes), []).append(run)
        for runs in arrays.values():
            found.update({one.run.folder.path: one for one in _submit_array(runs, options, results, command)})
    return [found[run.folder.path] for run in planned]


def _job(run: PlannedRun) -> str | None:
    """The id of the Slurm job that had the run last."""
    try:
        return (run.folder.read().slurm or {}).get("job_id")
    except UserError:  # not there yet, or broken: `prepare` deals with that
        return None


def _submit_array(
    runs: list[PlannedRun], options: SlurmOptions, results: Path, command: Sequence[str]
) -> list[Submission]:
    """One job or array, held back until its runs' folders are ready, so that none is touched if Slurm refuses."""
    logs = _new_folder(results.resolve() / "slurm")
    launch = runs[0].launch
    executor = executor_for(options, launch, logs, _name(runs))
    ids = sbatch(executor, [SlurmRun(run.folder.path.resolve()) for run in runs])
    array = ids[0].partition("_")[0]
    threads = max(1, options.cpus // launch.processes) if options.cpus else None
    try:
        submitted = [_hand_over(run, job_id, logs, command, threads) for run, job_id in zip(runs, ids)]
        scontrol("release", array)
    except BaseException:
        cancel_jobs([array])
        raise
    return submitted


def _hand_over(
    run: PlannedRun, job_id: str, logs: Path, command: Sequence[str], threads: int | None
) -> Submission:
    """Makes the run's folder ready for its job, which is held back until then."""
    try:
        with claim_run(run):
            todo = prepare(run, command, threads)
            if todo in ("start", "resume"):
                record = run.folder.read()
                record.slurm = {"job_id": job_id, "folder": str(logs)}
                run.folder.write(record)
                return Submission(run, job_id)
    except InUseError:
        todo = "running"
    cancel_jobs([job_id])  # another command has come first
    return Submission(run, None, WHY_NOT[todo])


def _name(runs: Sequence[PlannedRun]) -> str:
    names = {run.recipe.name for run in runs}
    return names.pop() if len(names) == 1 else "msdet"


def _new_folder(parent: Path) -> Path:
    """A folder for the logs of one submission, named after the time."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}"
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir()
            return parent / name
    raise UserError(f"{parent / stem} is there already", "try again")


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two commands started at once submit one after the other, so that the second sees the jobs of the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock"):
            yield
    except OSError as error:
        raise UserError(
            f"the results folder {folder} cannot be written: {error.strerror or error}",
            "name another one: --results-dir DIR",
        ) from None

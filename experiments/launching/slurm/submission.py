"""Planned runs to Slurm, through submitit: one job for a run, one job array for a sweep. No torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.common.files import make_unique_name, refusing
from experiments.common.locks import file_lock
from experiments.common.processes import PATHS
from experiments.launching.execution import Execution
from experiments.launching.plan import PlannedRun, claim_run, prepare
from experiments.launching.slurm.job import SlurmRun, ask_states, cancel_job
from experiments.launching.slurm.options import SlurmOptions
from experiments.runs.record import Launch
from experiments.runs.run_folder import InUseError

REASONS = {
    "skip": "done",
    "failed": "failed or cancelled; resume it with --retry-failed",
    "running": "locked by another msdet process",
    "unreadable": "record written by a newer msdet",
}
# Does what `python -u -m <module> <arguments>` does, which submitit appends.
BOOT = PATHS + 'import runpy; sys.argv = sys.argv[3:]; runpy.run_module(sys.argv[0], run_name="__main__")'
MAX_REQUEUES = 1_000_000  # of a job after its time-outs; submitit counts them down
SINFO_TIMEOUT_S = 30


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


def check_installed() -> None:
    """Check that jobs can be submitted from here.

    Raises:
        UserError: Slurm's commands or submitit are missing.
    """
    for command in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        if shutil.which(command) is None:
            raise UserError(
                f"--slurm: there is no {command} on this machine's PATH",
                "type it on a login node of the cluster, or leave --slurm out",
            )
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--slurm: submitit is not installed", "pip install 'msdet[slurm]'")


def resolve_execution(execution: Execution, options: SlurmOptions) -> Execution:
    """Return how runs are executed there: the options of `--slurm` and of the command, brought together.

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
    if workers is None and not _has_gpus(options):
        workers = 1
    nodes = options.nodes or execution.nodes
    return replace(execution, gpus=workers, gpus_per_run=None, nodes=nodes, slurm=True)


def submit(
    planned: Sequence[PlannedRun], options: SlurmOptions, results: Path, command: Sequence[str]
) -> list[Submission]:
    """Submit what is left to do and has no job yet; the runs' folders are ready when it returns.

    Runs with different numbers of workers become an array each.

    Args:
        planned: With an execution from `resolve_execution`.
        results: Logs of jobs go to `slurm/` in it, which the nodes must see, too.
        command: As typed, for the records.

    Raises:
        UserError: Slurm refuses; nothing has been changed then.
    """
    with _submission_lock(results / "slurm"):
        jobs = [_last_job(run) for run in planned]
        states = ask_states(jobs) or {}
        found: dict[Path, Submission] = {}
        arrays: dict[tuple[int, int], list[PlannedRun]] = {}
        for run, job in zip(planned, jobs):
            state = states.get(job) if job else None
            if state is not None and state.is_active:
                why = f"in Slurm already, as job {job} ({state.state.lower()})"
                found[run.folder.path] = Submission(run, None, why)
            elif run.todo not in ("start", "resume"):
                found[run.folder.path] = Submission(run, None, REASONS[run.todo])
            else:
                arrays.setdefault((run.launch.processes, run.launch.nodes), []).append(run)
        for runs in arrays.values():
            found.update({one.run.folder.path: one for one in _submit_array(runs, options, results, command)})
    return [found[run.folder.path] for run in planned]


def _last_job(run: PlannedRun) -> str | None:
    """Return the id of the Slurm job that had the run last."""
    try:
        return (run.folder.read().slurm or {}).get("job_id")
    except UserError:  # not there yet, or broken: `prepare` deals with that
        return None


def _submit_array(
    runs: list[PlannedRun], options: SlurmOptions, results: Path, command: Sequence[str]
) -> list[Submission]:
    """Submit one job or array, held back until its runs' folders are ready: if Slurm refuses, none is changed."""
    logs = results.resolve() / "slurm"
    logs /= make_unique_name(f"{datetime.now():%Y%m%d-%H%M%S}", {path.name for path in logs.iterdir()})
    logs.mkdir()
    launch = runs[0].launch
    names = {run.recipe.name for run in runs}
    executor = _executor(options, launch, logs, names.pop() if len(names) == 1 else "msdet")
    ids = _sbatch(executor, [SlurmRun(run.folder.path.resolve()) for run in runs])
    array = ids[0].partition("_")[0]
    threads = max(1, options.cpus // launch.processes) if options.cpus else None
    try:
        submitted = [_hand_over(run, job_id, logs, command, threads) for run, job_id in zip(runs, ids)]
        said = subprocess.run(["scontrol", "release", array], capture_output=True, text=True)
        if said.returncode != 0:
            raise UserError(f"scontrol release {array}: {said.stderr.strip()}", "squeue --me")
    except BaseException:
        cancel_job(array)
        raise
    return submitted


def _hand_over(
    run: PlannedRun, job_id: str, logs: Path, command: Sequence[str], threads: int | None
) -> Submission:
    """Make the run's folder ready for its job, which is held back until then."""
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
    cancel_job(job_id)  # another command has come first
    return Submission(run, None, REASONS[todo])


def _has_gpus(options: SlurmOptions) -> bool:
    """Return whether jobs are to ask for GPUs: as `gpus` says, else if a node of the partition has some."""
    if options.gpus is not None:
        return options.gpus > 0
    partition = [f"--partition={options.partition}"] if options.partition else []
    command = ["sinfo", "--noheader", "--format=%G", *partition]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SINFO_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "gpu" in said.stdout


def _executor(options: SlurmOptions, launch: Launch, logs: Path, name: str) -> Any:
    """Return submitit's executor of jobs that ask for what the options say, and are held back."""
    import submitit

    python = shlex.join([sys.executable, "-u", "-c", BOOT])
    executor = submitit.SlurmExecutor(logs, max_num_timeout=MAX_REQUEUES, python=python)
    srun = [f"--cpus-per-task={options.cpus}"] if options.cpus else []  # it does not inherit that
    if launch.nodes > 1:
        srun += ["--kill-on-bad-exit=1", "--wait=60"]  # nodes wait for each other
    optional = {key: getattr(options, key) for key in ("partition", "mem", "account", "qos", "constraint")}
    optional |= {"cpus_per_task": options.cpus, "array_parallelism": options.max, "srun_args": srun or None}
    optional["gpus_per_node"] = launch.processes if _has_gpus(options) else None
    executor.update_parameters(
        job_name=name,
        time=options.time_min,
        nodes=launch.nodes,
        ntasks_per_node=1,
        signal_delay_s=options.signal_delay_s,
        wckey=None,  # submitit's own default would be a name that accounting may not know
        additional_parameters={"hold": True, **options.sbatch},
        **{key: value for key, value in optional.items() if value is not None},
    )
    return executor


def _sbatch(executor: Any, calls: list[SlurmRun]) -> list[str]:
    """Submit the calls as a job, or as an array if there are several; return the jobs' ids, in order."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # submitit prints what sbatch said, and raises it as well
            jobs = executor.submit_array(calls)
    except (RuntimeError, OSError) as error:
        lines = [line for line in (str(error) or said.getvalue()).splitlines() if line.strip()]
        told = lines[0].removeprefix("sbatch: error: ") if lines else type(error).__name__
        raise UserError(f"sbatch rejected the job: {told}", "sinfo --long") from None
    return [job.job_id for job in jobs]


@contextlib.contextmanager
def _submission_lock(folder: Path) -> Iterator[None]:
    """Let one command submit after the other, so that the second sees the jobs of the first."""
    with refusing(f"the results folder {folder} cannot be written", "--results-dir DIR"):
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock"):
            yield

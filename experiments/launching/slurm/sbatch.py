"""Slurm's commands as a submission needs them: sbatch, through submitit, and what says whether it can be called."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.launching.slurm.job import SlurmRun
from experiments.launching.slurm.options import SlurmOptions
from experiments.runs.record import Launch

ANY_NUMBER = 1_000_000  # of times that a job is queued again after its time-out; submitit counts them down


def check_installed() -> None:
    """Whether jobs can be submitted from here.

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


def has_gpus(options: SlurmOptions) -> bool:
    """Whether jobs are to ask for GPUs: as `gpus` says, else if a node of the partition has some."""
    if options.gpus is not None:
        return options.gpus > 0
    partition = [f"--partition={options.partition}"] if options.partition else []
    try:
        said = subprocess.run(
            ["sinfo", "--noheader", "--format=%G", *partition], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "gpu" in said.stdout


def executor_for(options: SlurmOptions, launch: Launch, logs: Path, name: str) -> Any:
    """submitit's executor of jobs that ask for what the options say; held back until they are released."""
    import submitit

    # The working directory stays off the path: a folder there that is called `experiments` is not ours.
    safe = " -P" if sys.version_info >= (3, 11) else ""
    executor = submitit.SlurmExecutor(
        logs, max_num_timeout=ANY_NUMBER, python=shlex.quote(sys.executable) + safe
    )
    srun = [f"--cpus-per-task={options.cpus}"] if options.cpus else []  # it does not inherit that
    if launch.nodes > 1:
        srun += ["--kill-on-bad-exit=1", "--wait=60"]  # nodes wait for each other
    asked = {
        "partition": options.partition,
        "mem": options.mem,
        "cpus_per_task": options.cpus,
        "srun_args": srun or None,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "array_parallelism": options.max,
        "gpus_per_node": launch.processes if has_gpus(options) else None,
    }
    executor.update_parameters(
        job_name=name,
        time=options.time_min,
        nodes=launch.nodes,
        ntasks_per_node=1,
        signal_delay_s=options.signal_delay_s,
        wckey=None,  # submitit's own default would be a name that accounting may not know
        additional_parameters={"hold": True, **options.sbatch},
        **{key: value for key, value in asked.items() if value is not None},
    )
    return executor


def sbatch(executor: Any, calls: list[SlurmRun]) -> list[str]:
    """Submits the calls as a job, or as an array if there are several; the jobs' ids, in order."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # submitit prints what sbatch said, and raises it as well
            jobs = executor.submit_array(calls)
    except (RuntimeError, OSError) as error:
        lines = [line for line in (str(error) or said.getvalue()).splitlines() if line.strip()]
        told = lines[0].removeprefix("sbatch: error: ") if lines else type(error).__name__
        raise UserError(f"Slurm takes no such job: {told}", "sinfo --long") from None
    return [job.job_id for job in jobs]


def scontrol(verb: str, job: str) -> None:
    """Raises UserError where Slurm refuses."""
    said = subprocess.run(["scontrol", verb, job], capture_output=True, text=True)
    if said.returncode != 0:
        raise UserError(f"scontrol {verb} {job}: {said.stderr.strip()}", "squeue --me")

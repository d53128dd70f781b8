"""The record of a run, `record.json`: what it is, its state and its attempts. No torch."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from experiments.common.errors import UserError

SCHEMA_VERSION = 2  # 1 had no launch, notes, slurm and imported

Status = Literal["queued", "running", "interrupted", "done", "failed", "cancelled"]


class NewerSchemaError(UserError):
    """A record that only a newer msdet can read; it is not broken."""


class Attempt(BaseModel):
    """One start of a run's training, by one process or a group of them. Times are ISO 8601 in UTC.

    Attributes:
        pid_started: Tells this process from a later one with the same number.
        micro_batch: Images per process and forward pass.
        first_iteration: Optimizer steps that were done when it began.
        hint: The command that solves what `message` says.
    """

    model_config = ConfigDict(extra="forbid")

    started: str
    host: str
    pid: int
    pid_started: str | None = None
    world_size: int = 1
    micro_batch: int = 0
    accumulation: int = 1
    device: str = "cpu"
    first_iteration: int = 0
    last_iteration: int | None = None
    ended: str | None = None
    exit_code: int | None = None
    exit_class: str | None = None
    message: str | None = None
    hint: str | None = None


class Launch(BaseModel):
    """Execution of the next attempt; not part of the run's identity.

    Attributes:
        processes: Workers on each machine, one GPU each where there are any.
        nodes: Machines.
        micro_batch: Images per worker and forward pass; None takes the schedule's `images_per_gpu`, or less where
            more workers than it names share the batch. Accumulation follows: the batch is the recipe's.
        reduced: Whether `micro_batch` was halved after running out of memory.
        threads: CPU threads of each process (OMP_NUM_THREADS); None takes as many as the machine has. A resumed
            run keeps the number, since another changes the last bits of sums.
        track: Trackers beside the run folder: tensorboard, wandb, mlflow.
    """

    model_config = ConfigDict(extra="forbid")

    processes: int = 1
    nodes: int = 1
    micro_batch: int | None = None
    reduced: bool = False
    threads: int | None = None
    track: list[str] = []


class Record(BaseModel):
    """`record.json`: all that tables and later readers need to know of a run.

    Attributes:
        recipe_id: Hash of the resolved recipe; `config_hash` includes the data-set fingerprint, too.
        metrics: Final evaluation in percent, unrounded: AP, AP50, AP75, APS, APM, APL (COCO) or mAP (VOC).
        timings: `total_s` over the attempts that ended; `seconds_per_iteration` of the last.
        dataset: name, format, root, fingerprint, images, classes, problems, warning, foreground_prior (if counted).
        git: commit, dirty, patch; like `environment` (versions, devices, host) those of the newest attempt.
        earlier: Attempts that ran on another environment: how many were over then, environment, git.
        notes: What changes the meaning of the numbers, such as a lost trace or a damaged checkpoint.
        queue: The command in whose queue the run waits: host, pid, pid_started.
        slurm: job_id ("12_3") and the folder of its logs; of the last job that had the run.
        imported: Where it came from, if stock MMDetection trained it.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    recipe: str
    recipe_id: str
    config_hash: str
    seed: int
    profile: str | None = None
    status: Status = "queued"
    metrics: dict[str, float] = {}
    iterations: int = 0
    timings: dict[str, float] = {}
    attempts: list[Attempt] = []
    dataset: dict[str, Any] = {}
    git: dict[str, Any] | None = None
    environment: dict[str, Any] = {}
    earlier: list[dict[str, Any]] = []
    command: list[str] = []
    launch: Launch = Launch()
    notes: list[str] = []
    queue: dict[str, Any] | None = None
    slurm: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    created: str = ""
    updated: str = ""


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

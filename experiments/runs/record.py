"""The record of a run, `record.json`: what it is, its state and its attempts. No torch."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema
from typing_extensions import TypedDict

from experiments.common.errors import UserError

SCHEMA_VERSION = 2  # 1 had no launch, notes, slurm and imported

Status = Literal["queued", "running", "interrupted", "done", "failed", "cancelled"]
# Bounds are far beyond any run, and within what Python and the system take.
Count = Annotated[int, Field(ge=0, le=10**12)]
Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
ProcessNumber = Annotated[int, Field(ge=0, lt=2**31)]


def _keys(kind: Any) -> GetPydanticSchema:
    """Have the keys of a `dict[str, Any]` checked by those of a TypedDict; the dict keeps what else it has."""
    kind.__pydantic_config__ = ConfigDict(extra="allow")
    return GetPydanticSchema(lambda source, handler: handler.generate_schema(kind))


class _Process(TypedDict):
    host: str
    pid: ProcessNumber
    pid_started: str | None


class _SlurmJob(TypedDict):
    job_id: Annotated[str, Field(pattern=r"^[0-9]{1,12}(_[0-9]{1,12})?$")]
    folder: str


class _Git(TypedDict, total=False):
    commit: str | None
    dirty: bool
    patch: str | None
    patch_sha256: str
    patch_characters: Count
    untracked: dict[str, Count]


class _Dataset(TypedDict, total=False):
    name: str | None
    format: str | None
    root: str | None
    fingerprint: str | None
    images: dict[str, Count]
    classes: list[str]
    problems: dict[str, dict[str, Count]]
    warning: str | None
    foreground_prior: Number | None


class _Environment(TypedDict, total=False):
    packages: dict[str, str]
    gpus: list[str]
    host: str
    own_modules: dict[str, str | None]


class _Imported(TypedDict, total=False):
    source: str
    checkpoint: str | None
    files: dict[str, str]
    unknown: list[str]
    differs: list[str]


class _Earlier(TypedDict, total=False):
    attempts: Count
    environment: _Environment
    git: _Git | None


class NewerSchemaError(UserError):
    """A record that only a newer msdet can read; it is not broken."""


class Attempt(BaseModel, extra="forbid"):
    """One start of a run's training, by one process or a group of them. Times are ISO 8601 in UTC.

    Attributes:
        pid_started: Tells this process from a later one with the same number.
        micro_batch: Images per process and forward pass.
        fast: Whether it ran with --fast.
        first_iteration: Optimizer steps that were done when it began.
        hint: The command that solves what `message` says.
    """

    started: str
    host: str
    pid: ProcessNumber
    pid_started: str | None = None
    world_size: Count = 1
    micro_batch: Count = 0
    accumulation: Count = 1
    fast: bool = False
    device: str = "cpu"
    first_iteration: Count = 0
    last_iteration: Count | None = None
    ended: str | None = None
    exit_code: int | None = None
    exit_class: str | None = None
    message: str | None = None
    hint: str | None = None


class Launch(BaseModel, extra="forbid"):
    """Execution of the next attempt; not part of the run's identity.

    Attributes:
        processes: Workers on each machine, one GPU each where there are any.
        nodes: Machines.
        micro_batch: Images per worker and forward pass; None takes the schedule's `images_per_gpu`, or less where
            more workers than it names share the batch. Accumulation follows: the batch is the recipe's.
        reduced: Whether `micro_batch` was halved after running out of memory.
        threads: CPU threads of each process (OMP_NUM_THREADS); None takes as many as the machine has. A resumed
            run keeps the number, since another changes the last bits of sums.
        fast: Faster execution, equal to rounding: channels-last memory, fused kernels, fewer waits.
        track: Trackers beside the run folder: tensorboard, wandb, mlflow.
    """

    processes: Count = 1
    nodes: Count = 1
    micro_batch: Count | None = None
    reduced: bool = False
    threads: Count | None = None
    fast: bool = False
    track: list[str] = []


class Record(BaseModel, extra="forbid"):
    """`record.json`: all that tables and later readers need to know of a run.

    Attributes:
        recipe_id: Hash of the resolved recipe; `config_hash` includes the data-set fingerprint, too.
        metrics: Final evaluation in percent, unrounded: AP, AP50, AP75, APS, APM, APL (COCO) or mAP (VOC).
        timings: `total_s` over the attempts that ended; `seconds_per_iteration` of the last.
        dataset: name, format, root, fingerprint, images, classes, problems, warning, foreground_prior (if counted).
        git: commit, dirty, patch; like `environment` (versions, devices, host) those of the newest attempt.
        earlier: Attempts that ran on another environment: how many were over then, environment, git.
        digests: SHA-256 of the final metrics and of the files that the run wrote; see `experiments.runs.outputs`.
        notes: What changes the meaning of the numbers, such as a lost trace or a damaged checkpoint.
        queue: The command in whose queue the run waits: host, pid, pid_started.
        slurm: job_id ("12_3") and the folder of its logs; of the last job that had the run.
        imported: Where it came from, if stock MMDetection trained it.
    """

    schema_version: int = SCHEMA_VERSION
    recipe: str
    recipe_id: str
    config_hash: str
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    profile: str | None = None
    status: Status = "queued"
    metrics: dict[str, Number] = {}
    iterations: Count = 0
    timings: dict[str, Number] = {}
    attempts: list[Attempt] = []
    dataset: Annotated[dict[str, Any], _keys(_Dataset)] = {}
    git: Annotated[dict[str, Any], _keys(_Git)] | None = None
    environment: Annotated[dict[str, Any], _keys(_Environment)] = {}
    earlier: list[Annotated[dict[str, Any], _keys(_Earlier)]] = []
    command: list[str] = []
    launch: Launch = Launch()
    digests: dict[str, str] = {}
    notes: list[str] = []
    queue: Annotated[dict[str, Any], _keys(_Process)] | None = None
    slurm: Annotated[dict[str, Any], _keys(_SlurmJob)] | None = None
    imported: Annotated[dict[str, Any], _keys(_Imported)] | None = None
    created: str = ""
    updated: str = ""


def format_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def parse_time(text: str | None) -> datetime | None:
    """Return a recorded time, in UTC where it has no zone; None where it is none, or before 1970."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment if 1970 < moment.year < 9000 else None

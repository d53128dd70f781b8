"""The run folder: the names of its files, its record, its states. One run is one recipe with one seed. No torch."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import write_text
from experiments.common.processes import has_ended, is_alive

SCHEMA_VERSION = 2  # 1 had no launch, notes, slurm and imported
KEPT_CHECKPOINTS = 2  # of each run, the newest: one more than needed, should that be damaged
STALE_AFTER_S = 120  # a heartbeat comes every few seconds; a machine that swaps may miss some

Status = Literal["queued", "running", "interrupted", "done", "failed", "cancelled"]


class Attempt(BaseModel):
    """One process's (or process group's) work on a run. Times are ISO 8601 in UTC."""

    model_config = ConfigDict(extra="forbid")

    started: str
    host: str
    pid: int
    pid_started: str | None = None  # tells this process from a later one with the same number
    world_size: int = 1
    micro_batch: int = 0  # images per process and forward pass
    accumulation: int = 1
    device: str = "cpu"
    first_iteration: int = 0  # optimizer steps already done when it began
    last_iteration: int | None = None
    ended: str | None = None
    exit_code: int | None = None
    exit_class: str | None = None
    message: str | None = None
    hint: str | None = None  # what to do about it


class Launch(BaseModel):
    """How the next attempt is to be executed: no part of what the run is.

    Attributes:
        processes: Workers on each machine, one GPU each where there are any.
        nodes: Machines.
        micro_batch: Images per worker and forward pass; None takes the schedule's `images_per_gpu`, or less where
            more workers than it names share the batch. Accumulation follows: the batch is the recipe's.
        reduced: Whether `micro_batch` was halved after running out of memory.
        threads: Of each process, for what it does on the CPU (OMP_NUM_THREADS); None: as many as the machine has. A
            run that goes on keeps them, since another number changes the last bits of sums.
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
    """`record.json`: what a table, and a reader years later, needs to know of a run.

    `metrics` hold the final evaluation in percent, unrounded: AP, AP50, AP75, APS, APM, APL (COCO) or
    mAP (VOC). `config_hash` includes the data-set fingerprint, `recipe_id` does not.
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
    timings: dict[str, float] = {}  # total_s over attempts that ended; seconds_per_iteration of the last
    attempts: list[Attempt] = []
    dataset: dict[
        str, Any
    ] = {}  # name, format, root, fingerprint, images, classes, problems, warning, foreground_prior (if counted)
    git: dict[str, Any] | None = None  # commit, dirty, patch
    environment: dict[str, Any] = {}  # versions, devices and host of the newest attempt, as `git` is its code
    # where attempts before it ran on something else: attempts (how many were over then), environment, git
    earlier: list[dict[str, Any]] = []
    command: list[str] = []
    launch: Launch = Launch()
    notes: list[str] = []  # what a reader of the numbers must know: a lost trace, a damaged checkpoint
    queue: dict[str, Any] | None = None  # the command that waits with it: host, pid, pid_started
    slurm: dict[str, Any] | None = None  # job_id ("12_3"), folder of its logs; the last job that had the run
    imported: dict[str, Any] | None = None  # where it came from, if stock MMDetection trained it
    created: str = ""
    updated: str = ""


class _File:
    """The path of a file in the run folder. Made when asked for: of a thousand runs most files are never touched."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunFolder, kind: type[RunFolder]) -> Path:
        return run.path / self.name


class RunFolder:
    """All file names of one run, and access to its record.

    Args:
        path: `<results>/runs/<recipe>/<config-hash8>/seed<k>`.
    """

    recipe = _File("recipe.yaml")
    config = _File("config.py")
    record_file = _File("record.json")
    progress = _File("progress.json")
    metrics = _File("metrics.csv")
    trace = _File("trace.csv")
    log = _File("log.txt")
    detections = _File("detections")
    checkpoints = _File("checkpoints")
    lock = _File(".lock")
    cancel = _File(".cancel")  # asks the worker, wherever it is, to save, end and stay away

    def __init__(self, path: Path | str) -> None:
        self.path = path if isinstance(path, Path) else Path(path)

    @classmethod
    def of(cls, results: Path, recipe: str, config_hash: str, seed: int) -> RunFolder:
        return cls(Path(results) / "runs" / recipe / config_hash / f"seed{seed}")

    @property
    def name(self) -> str:
        """What a person types to mean this run: `<recipe>/<hash>/seed<k>`."""
        return "/".join(self.path.parts[-3:])

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end, by iteration number."""
        found = self.saved_checkpoints()
        return found[0] if found else None

    def saved_checkpoints(self) -> list[Path]:
        """All that were written to their end, the newest first."""
        return sorted(self.checkpoints.glob("iter_*.pth"), key=iteration_of, reverse=True)

    def failure_of_rank(self, rank: int) -> Path:
        """Where a rank other than 0 leaves why it failed: exit_code, exit_class, message, hint."""
        return self.path / f".rank{rank}.json"

    def read(self) -> Record:
        """The record as it was written.

        Raises:
            UserError: It is missing, broken, or of a newer schema.
        """
        try:
            content = json.loads(self.record_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.path} has no record.json, so it is no run folder", "msdet runs") from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.record_file} cannot be read: {error}", "msdet run ... --force makes it anew"
            ) from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise NewerSchemaError(
                f"{self.record_file} has schema {version}, this msdet reads up to {SCHEMA_VERSION}",
                "use the msdet that wrote it, or a newer one",
            )
        try:
            return Record.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{self.record_file} is not a run record: {where}: {first['msg']}") from None

    def write(self, record: Record) -> None:
        record.updated = now()
        write_text(self.record_file, record.model_dump_json(indent=2) + "\n")

    def state(self, record: Record | None = None) -> Status:
        """The status as it reads now: `running` without a live process is `interrupted`, and so is `queued`
        without the command that waited with it."""
        record = record or self.read()
        if record.status == "queued" and record.slurm is None and has_ended(record.queue):
            return "interrupted"
        if record.status == "running" and not self._alive(record):
            return "interrupted"
        return record.status

    def _alive(self, record: Record) -> bool:
        if not record.attempts:
            return False
        attempt = record.attempts[-1]
        if attempt.host == socket.gethostname():
            return is_alive(attempt.pid, attempt.pid_started)
        try:
            return time.time() - self.progress.stat().st_mtime < STALE_AFTER_S
        except OSError:
            return False


def iteration_of(checkpoint: Path) -> int:
    """Optimizer steps that were done when it was saved, from its name."""
    return int(checkpoint.stem.removeprefix("iter_"))


class NewerSchemaError(UserError):
    """A record that only a newer msdet understands; it is not broken."""


class SeveralRunsError(UserError):
    """More than one run is meant where one is needed."""


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def results_dir(option: Path | None = None) -> Path:
    """`--results-dir`, else `$MSDET_RESULTS`, else `./results`."""
    return Path(option or os.environ.get("MSDET_RESULTS") or "results")


def iterate(results: Path, unreadable: Callable[[OSError], object] | None = None) -> Iterator[RunFolder]:
    """Every run folder below a results folder, in the order of their names.

    Args:
        unreadable: Told of each folder that may not be looked into.
    """
    tell = unreadable or (lambda error: None)
    for recipe in _inside(Path(results) / "runs", tell):
        for config in _inside(recipe, tell):
            for run in _inside(config, tell):
                if run.name.startswith("seed") and _is_there(run / "record.json", tell):
                    yield RunFolder(run)


def _is_there(file: Path, tell: Callable[[OSError], object]) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        tell(error)
        return False
    return True


def _inside(folder: Path, tell: Callable[[OSError], object]) -> list[Path]:
    """What lies in a folder, by name; nothing where there is no such folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        tell(error)
        return []


def resolve(reference: str, results: Path) -> RunFolder:
    """The run that a person means: its folder, `<recipe>/<hash>/seed<k>`, or any unambiguous part of that.

    Raises:
        UserError: Nothing fits, or more than one run does.
    """
    for path in (Path(reference), Path(results) / "runs" / reference):
        if (path / "record.json").is_file():
            return RunFolder(path)
    runs = {run.name: run for run in iterate(results)}
    if reference in runs:
        return runs[reference]
    fitting = [run for name, run in runs.items() if fits(reference, name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = ", ".join(run.name for run in fitting[:3])
        raise SeveralRunsError(
            f"run '{reference}' fits {len(fitting)} runs: {some}{', ...' if len(fitting) > 3 else ''}",
            "msdet runs",
        )
    if not runs:
        raise UserError(
            f"run '{reference}' not found: there are no runs in {Path(results).resolve()}", "msdet run --help"
        )
    raise UserError(
        f"run '{reference}' not found in {Path(results).resolve()}; {did_you_mean(reference, runs)}",
        "msdet runs",
    )


def fits(reference: str, name: str) -> bool:
    """Whether `reference` is a run's name or whole parts of it that follow each other."""
    return f"/{reference.strip('/')}/" in f"/{name}/"


def starting_weights(init_from: str, results: Path) -> Path:
    """The file that a recipe's `init_from` means: a file, or the last checkpoint of a run.

    Raises:
        UserError: Neither is there.
    """
    if init_from.endswith(".pth") or Path(init_from).is_file():
        if not Path(init_from).is_file():
            raise UserError(
                f"init_from: no file {Path(init_from).absolute()}",
                "name a file of weights, or a run: msdet runs",
            )
        return Path(init_from)
    try:
        run = resolve(init_from, results)
    except UserError as error:
        raise UserError(f"init_from: {error.message}", error.hint) from None
    checkpoint = run.last_checkpoint()
    if checkpoint is None:
        raise UserError(f"init_from: run {run.name} has no checkpoint yet", "msdet runs")
    return checkpoint

"""The folder of one run (one recipe with one seed): file names, record, state, and the lock of who works on it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from experiments.common.errors import UserError
from experiments.common.files import MAX_TEXT_BYTES, explain_unreadable, read_text, write_text
from experiments.common.locks import LockedError, file_lock
from experiments.common.printable import printable, printable_values
from experiments.common.processes import STALE_AFTER_S, has_ended, is_alive, measure_seconds_unchanged
from experiments.runs.record import SCHEMA_VERSION, NewerSchemaError, Record, Status, format_now

_CHECKPOINT = re.compile(r"iter_[0-9]{1,18}\.pth")
LOCK_FD = "MSDET_LOCK_FD"  # environment variable: the descriptor of an inherited lock
KEPT_CHECKPOINTS = 2  # newest of each run: one more than needed, in case that is damaged


class _File:
    """The path of a file in the run folder, built on access: of a thousand runs most files are never touched."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunFolder, kind: type[RunFolder]) -> Path:
        return run.path / self.name


class RunFolder:
    """The file names of one run, and access to its record.

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
    digests = _File("checkpoints.sha256")
    lock = _File(".lock")
    cancel = _File(".cancel")  # asks the worker, on any machine, to save, end and not start again

    def __init__(self, path: Path | str) -> None:
        self.path = path if isinstance(path, Path) else Path(path)

    @classmethod
    def of(cls, results: Path, recipe: str, config_hash: str, seed: int) -> RunFolder:
        """Return the folder of a run below a results folder, whether it exists or not."""
        return cls(Path(results) / "runs" / recipe / config_hash / f"seed{seed}")

    @functools.cached_property
    def name(self) -> str:
        """`<recipe>/<hash>/seed<k>`, as typed to name this run."""
        return printable("/".join(self.path.parts[-3:]))

    def last_checkpoint(self) -> Path | None:
        """Return the checkpoint of the most iterations; None before the first."""
        return next(iter(self.saved_checkpoints()), None)

    def newest_checkpoint(self) -> Path:
        """Return the same; raise UserError before the first."""
        checkpoint = self.last_checkpoint()
        if checkpoint is None:
            raise UserError(f"run {self.name} has no checkpoint yet", "msdet runs")
        return checkpoint

    def saved_checkpoints(self) -> list[Path]:
        """Return the completely written checkpoints, newest first."""
        named = (path for path in self.checkpoints.glob("iter_*.pth") if _CHECKPOINT.fullmatch(path.name))
        return sorted(named, key=parse_iteration, reverse=True)

    def count_iterations_saved(self) -> int:
        """Return the number of optimizer steps that the newest checkpoint holds."""
        checkpoint = self.last_checkpoint()
        return parse_iteration(checkpoint) if checkpoint else 0

    def failure_of_rank(self, rank: int) -> Path:
        """Return the file in which a rank other than 0 reports its exit_code, exit_class, message and hint."""
        return self.path / f".rank{rank}.json"

    def read(self) -> Record:
        """Return the record as it was written.

        Raises:
            NewerSchemaError: Its schema is newer than this msdet.
            UserError: It is missing or broken.
        """
        fault = explain_unreadable(self.record_file, MAX_TEXT_BYTES)
        if fault == "no such file":
            raise UserError(f"{self.path} has no record.json, so it is no run folder", "msdet runs")
        try:
            text = "" if fault else self.record_file.read_text(encoding="utf-8")
            content = json.loads(text)
            if "\\u" in text or text != printable(text):
                content = printable_values(content)
                json.dumps(content, ensure_ascii=False).encode()  # half a character is no text
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{self.record_file} cannot be read: {fault or error}", "msdet run RECIPE --force"
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

    def read_progress(self) -> dict[str, Any]:
        """Return what the worker wrote last; empty where there is nothing, or it is damaged."""
        try:
            content = json.loads(read_text(self.progress))
        except (UserError, ValueError, RecursionError):
            return {}
        return printable_values(content) if isinstance(content, dict) else {}

    def write(self, record: Record) -> None:
        """Write `record.json`, with the time of writing, whole or not at all."""
        record.updated = format_now()
        write_text(self.record_file, record.model_dump_json(indent=2) + "\n")

    def state(self, record: Record | None = None) -> Status:
        """Return the status, but `interrupted` for a run whose process or waiting command has died.

        Args:
            record: The run's record, where the caller has read it.
        """
        record = record or self.read()
        if record.status == "queued" and record.slurm is None and has_ended(record.queue):
            return "interrupted"
        if record.status == "running" and not self._is_alive(record):
            return "interrupted"
        return record.status

    def _is_alive(self, record: Record) -> bool:
        if not record.attempts:
            return False
        attempt = record.attempts[-1]
        is_here = attempt.host == socket.gethostname()
        if is_here and (attempt.pid_started is not None or not is_alive(attempt.pid, None)):
            return is_alive(attempt.pid, attempt.pid_started)
        # Its heartbeat decides, by its date, and by whether it comes: a date ahead of this clock tells nothing.
        beats = [self.progress, self.record_file] if is_here else [self.progress]
        if min(map(measure_seconds_unchanged, beats)) > STALE_AFTER_S:
            return False
        with contextlib.suppress(OSError):
            return time.time() - max(path.stat().st_mtime for path in beats if path.exists()) < STALE_AFTER_S
        return False


def parse_iteration(checkpoint: Path) -> int:
    """Return how many optimizer steps a checkpoint was saved after, from its name."""
    return int(checkpoint.stem.removeprefix("iter_"))


class InUseError(UserError):
    """A run that another process has locked: `owner`, as messages call it."""

    def __init__(self, run: RunFolder, owner: str) -> None:
        super().__init__(f"run {run.name} is locked by {owner}", "msdet runs")
        self.owner = owner


@contextlib.contextmanager
def acquire_lock(run: RunFolder, patience_s: float = 30) -> Iterator[int]:
    """Lock the run for this process and for children that inherit the descriptor.

    Yields the descriptor. A child that inherits it finds its number in the environment: LOCK_FD.

    Args:
        run: The run, whose folder exists.
        patience_s: Seconds that a process which was asked to stop has to save.

    Raises:
        InUseError: Another process still has the lock after `patience_s`.
        UserError: A file in the folder is a link.
    """
    refuse_links(run)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(run.lock, patience_s))
        except LockedError as error:
            raise InUseError(run, str(error)) from None
        yield descriptor


def refuse_links(run: RunFolder) -> None:
    """Raise UserError where a file of the run is a link: what is written there would change a file elsewhere."""
    folders = [folder for folder in (run.path, run.checkpoints, run.detections) if folder.is_dir()]
    for path in (path for folder in folders for path in folder.iterdir()):
        if path.is_symlink():
            raise UserError(f"{path} is a link, and msdet writes through none in a run folder", f"rm {path}")


def inherits_lock(run: RunFolder) -> bool:
    """Whether this process was given the run's lock by the one that started it."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[LOCK_FD])), run.lock.stat())
    except (KeyError, ValueError, OSError):
        return False

"""`msdet logs`: print the end of a run's log, and follow it."""

from __future__ import annotations

import codecs
import os
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from experiments.common.errors import UserError
from experiments.runs.lookup import resolve, results_dir
from experiments.runs.record import Record, Status
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import ACTIVE_STATES, format_duration, format_metrics
from msdet_cli.options import RESULTS, ResultsOpt, RunArg

BLOCK_BYTES = 64 * 1024
POLL_INTERVAL_S = 0.5
SLURM_POLL_INTERVAL_S = 5


def logs(
    run: RunArg,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the run ends.")
    ] = False,
    lines: Annotated[int, typer.Option("-n", metavar="LINES", min=0, help="Number of last lines.")] = 20,
    results: ResultsOpt = RESULTS,
) -> None:
    """Print the end of a run's log; with -f follow it.

    For a Slurm job that has not started training this is the output of the job itself.

    \b
    msdet logs retinanet-r50-rlo/1a2b3c4d/seed0
    msdet logs seed0 -f
    """
    folder = resolve(run, results_dir(results))
    try:
        if follow:
            _follow(folder, lines)
        else:
            path = _source(folder)
            if path is None:
                raise UserError(f"{folder.name} has no log yet ({_state(folder)[0]})", "msdet runs")
            _print_log(_tail(path, lines))
    except KeyboardInterrupt:
        pass


def _source(folder: RunFolder) -> Path | None:
    """Return the run's log, or until there is one its Slurm job's output; None if there is neither."""
    if _has_text(folder.log):
        return folder.log
    try:
        slurm = folder.read().slurm
    except UserError:
        slurm = None
    if slurm:
        from experiments.launching.slurm.job import error_log

        for path in (error_log(slurm), error_log(slurm).with_suffix(".out")):
            if _has_text(path):
                _print_note(f"{folder.name} has no log yet; this is Slurm job {slurm['job_id']}, {path}:")
                return path
    return None


def _has_text(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _tail(path: Path, lines: int) -> bytes:
    """Return the last lines of a file, reading from its end."""
    with open(path, "rb") as stream:
        start = stream.seek(0, os.SEEK_END)
        text = b""
        while start > 0 and text.count(b"\n") <= lines:
            step = min(BLOCK_BYTES, start)
            start = stream.seek(start - step)
            text = stream.read(step) + text
    return b"".join(text.splitlines(keepends=True)[-lines:]) if lines else b""


def _follow(folder: RunFolder, lines: int) -> None:
    """Print what is appended until the run ends, then its result."""
    follower, ended = _Follower(folder, lines), None
    while True:
        state, record = _state(folder)  # before the log is read, so that its last lines are not missed
        follower.copy()
        seen = (state, len(record.attempts))
        if state not in ACTIVE_STATES and ended == seen:
            break
        ended = seen  # a failed run may be retried at once, so its state must hold for two polls
        is_queued = state == "queued" and record.slurm
        time.sleep(SLURM_POLL_INTERVAL_S if is_queued else POLL_INTERVAL_S)
    if follower.path is None:
        raise UserError(f"{folder.name} has no log ({state})", "msdet runs")
    _print_note(_result(folder, state, record))


class _Follower:
    """Copies a growing log to standard output, also when a Slurm job's output or an old log is replaced."""

    def __init__(self, folder: RunFolder, lines: int) -> None:
        self.folder, self.lines = folder, lines
        self.path: Path | None = None
        self._stream: BinaryIO | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def copy(self) -> None:
        if self._stream is None or (self.path != self.folder.log and _has_text(self.folder.log)):
            self._open()
        elif self._was_replaced():
            self._open(whole=True)
        if self._stream is not None:
            while new := self._stream.read(BLOCK_BYTES):
                sys.stdout.write(self._decoder.decode(new))
            sys.stdout.flush()

    def _open(self, whole: bool = False) -> None:
        path = self.folder.log if whole else _source(self.folder)
        if path is None:
            return
        if self._stream is not None:
            self._stream.close()
            whole = True
        stream = open(path, "rb")  # noqa: SIM115 (closed with the next one, or the process)
        if not whole:
            stream.seek(max(0, path.stat().st_size - len(_tail(path, self.lines))))
        self.path, self._stream = path, stream

    def _was_replaced(self) -> bool:
        assert self.path is not None and self._stream is not None
        try:
            now, read = self.path.stat(), os.fstat(self._stream.fileno())
        except OSError:
            return False
        return now.st_size > 0 and (now.st_ino != read.st_ino or now.st_size < self._stream.tell())


def _state(folder: RunFolder) -> tuple[Status, Record]:
    """Return the run's state, from Slurm where the record cannot know it, and its record."""
    record = folder.read()
    state = folder.state(record)
    if record.slurm and state in ("queued", "interrupted"):
        from experiments.launching.slurm.job import slurm_states, status_in_slurm

        state = status_in_slurm(folder, record, slurm_states([record.slurm["job_id"]]))[0]
    return state, record


def _result(folder: RunFolder, state: Status, record: Record) -> str:
    if state == "done":
        took = format_duration(record.timings.get("total_s"))
        return f"{folder.name}: done{f' in {took}' if took else ''}: {format_metrics(record.metrics)}"
    message = record.attempts[-1].message if record.attempts else None
    return f"{folder.name}: {state}" + (f": {message}" if message else "")


def _print_log(text: bytes) -> None:
    sys.stdout.write(text.decode("utf-8", "replace"))
    if text and not text.endswith(b"\n"):
        sys.stdout.write("\n")
    sys.stdout.flush()


def _print_note(line: str) -> None:
    """Print a line that is not part of the log."""
    print(line, file=sys.stderr)

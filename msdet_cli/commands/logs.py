"""`msdet logs`: print the end of a run's log, and follow it."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO

from experiments.common.errors import UserError
from experiments.common.printable import printable
from experiments.launching.run_states import KnownRun, read_run
from experiments.runs.lookup import resolve
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import ACTIVE_STATES, format_duration, format_metrics
from msdet_cli.options import RESULTS, ResultsOpt, RunArg, option

BLOCK_BYTES = 64 * 1024
MAX_TAIL_BYTES = 16 << 20  # of a log without ends of lines
POLL_INTERVAL_S = 0.5
SLURM_POLL_INTERVAL_S = 5


def logs(
    run: RunArg,
    follow: Annotated[bool, option("--follow -f", "Follow the log until the run ends.")] = False,
    lines: Annotated[int, option("-n LINES", "Number of last lines.", min=0)] = 20,
    results: ResultsOpt = RESULTS,
) -> None:
    """Print the end of a run's log; with -f follow it.

    For a Slurm job that has not started training this is the output of the job itself.

    \b
    msdet logs retinanet-r50-rlo/1a2b3c4d/seed0
    msdet logs seed0 -f
    """
    folder = resolve(run, results)
    copy = _LogCopy(folder, lines)
    with contextlib.suppress(KeyboardInterrupt):
        if follow:
            _follow(copy)
            return
        copy.update()
        if copy.path is None:
            raise UserError(f"{folder.name} has no log yet ({read_run(folder).state})", "msdet runs")


def _follow(copy: _LogCopy) -> None:
    """Print what is appended until the run ends, then its result."""
    ended = None
    while True:
        known = read_run(copy.folder)  # before the log is read, so that its last lines are not missed
        copy.update()
        seen = (known.state, len(known.record.attempts))
        if known.state not in ACTIVE_STATES and ended == seen:
            break
        ended = seen  # a failed run may be retried at once, so its state must hold for two polls
        is_queued = known.state == "queued" and known.record.slurm
        time.sleep(SLURM_POLL_INTERVAL_S if is_queued else POLL_INTERVAL_S)
    if copy.path is None:
        raise UserError(f"{copy.folder.name} has no log ({known.state})", "msdet runs")
    print(_describe_result(known), file=sys.stderr)


class _LogCopy:
    """Copies a log to standard output as it grows, also when a Slurm job's output or an old log is replaced."""

    def __init__(self, folder: RunFolder, lines: int) -> None:
        self.folder, self.lines = folder, lines
        self.path: Path | None = None
        self._stream: BinaryIO | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def update(self) -> None:
        """Copy the last lines, and in further calls what has come since."""
        if self._stream is None or (self.path != self.folder.log and _has_text(self.folder.log)):
            self._open(_find_log(self.folder))
        elif self._was_replaced():
            self._open(self.path)
        if self._stream is not None:
            while new := self._stream.read(BLOCK_BYTES):
                text = self._decoder.decode(new).replace("\r\n", "\n").replace("\r", "\n")
                sys.stdout.write(printable(text))
            sys.stdout.flush()

    def _open(self, path: Path | None) -> None:
        if path is None:
            return
        stream = open(path, "rb")  # noqa: SIM115 (closed with the next one, or the process)
        if self._stream is None:
            _seek_last_lines(stream, self.lines)
        else:
            self._stream.close()
        self.path, self._stream = path, stream

    def _was_replaced(self) -> bool:
        assert self.path is not None and self._stream is not None
        try:
            now, read = self.path.stat(), os.fstat(self._stream.fileno())
        except OSError:
            return False
        return now.st_size > 0 and (now.st_ino != read.st_ino or now.st_size < self._stream.tell())


def _find_log(folder: RunFolder) -> Path | None:
    """Return the run's log, or until there is one its Slurm job's output; None if there is neither."""
    if _has_text(folder.log):
        return folder.log
    slurm = None
    with contextlib.suppress(UserError):
        slurm = folder.read().slurm
    if slurm:
        from experiments.launching.slurm.job import find_error_log

        for path in (find_error_log(slurm), find_error_log(slurm).with_suffix(".out")):
            if _has_text(path):
                note = f"{folder.name} has no log yet; this is Slurm job {slurm['job_id']}, {path}:"
                print(note, file=sys.stderr)
                return path
    return None


def _has_text(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _seek_last_lines(stream: BinaryIO, lines: int) -> None:
    """Move to where the last lines of a file begin, reading from its end."""
    start = end = stream.seek(0, os.SEEK_END)
    text, block = b"", BLOCK_BYTES
    while lines and start > 0 and text.count(b"\n") <= lines and len(text) < MAX_TAIL_BYTES:
        start, block = stream.seek(max(start - block, 0)), 2 * block
        text = stream.read(end - start)
    stream.seek(end - sum(map(len, text.splitlines(keepends=True)[-lines:])))


def _describe_result(known: KnownRun) -> str:
    name, record = known.run.name, known.record
    if known.state == "done":
        took = format_duration(record.timings.get("total_s"))
        return f"{name}: done{f' in {took}' if took else ''}: {format_metrics(record.metrics)}"
    message = record.attempts[-1].message if record.attempts else None
    return f"{name}: {known.state}" + (f": {message}" if message else "")

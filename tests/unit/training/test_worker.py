"""The worker: its signals, and a record that it leaves however it ends."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.common import files
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder
from experiments.training import worker
from experiments.training.engine import stopping


def test_a_signal_asks_the_worker_and_ends_its_children_and_a_cancelled_run_is_asked_once(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.signals", str(tmp_path)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "after the end of a pool: False",
        "after a signal: True",
        "ended at the second",
        "before it is cancelled: False",
        "after it is cancelled: True",
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """A run that is ready for a worker in this process, which has no heartbeat."""
    monkeypatch.setattr(stopping, "start_heartbeat", lambda *of: None)
    monkeypatch.setattr(stopping, "stop_when_asked", lambda world_size: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = RunFolder(tmp_path / "runs" / "r" / "0123abcd" / "seed0")
    folder.path.mkdir(parents=True)
    folder.write(Record(recipe="r", recipe_id="", config_hash="0123abcd", seed=0))
    yield folder
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*arguments: Any, **options: Any) -> Any:
        raise error

    return act


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code", "status", "exit_class"),
    [
        (FULL, 75, "interrupted", "full or read-only"),
        (MemoryError(), 4, "failed", "out of memory"),
        (KeyboardInterrupt(), 75, "interrupted", "interrupted"),
        (ValueError("x"), 1, "failed", "failed"),
    ],
)
def test_the_record_says_how_a_training_ended(
    error: BaseException,
    code: int,
    status: str,
    exit_class: str,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(worker, "train", raising(error))
    assert worker.main([str(run.path)]) == code
    record = run.read()
    assert (record.status, record.attempts[-1].exit_class) == (status, exit_class)


def test_a_rank_that_fails_says_why_without_secrets(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What torchrun prints of a failed rank is what the rank leaves in the file that the variable names."""
    told = tmp_path / "error.json"
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LAUNCHER": "",
        "TORCHELASTIC_ERROR_FILE": told,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(worker, "die_with", lambda torchrun: None)
    monkeypatch.setattr(worker, "train", raising(ValueError("no tracker at https://ada:lovelace@host")))
    assert worker.main([str(run.path)]) == 1
    said = capsys.readouterr().err + run.record_file.read_text() + (told.read_text() if told.exists() else "")
    assert "Traceback" in said and "https://***@host" in said and "lovelace" not in said


def test_memory_that_runs_out_while_torch_is_imported_is_class_4(run: RunFolder, monkeypatch):
    monkeypatch.setattr(stopping, "stop_when_asked", raising(MemoryError()))
    assert worker.main([str(run.path)]) == 4
    assert run.read().attempts[-1].exit_class == "out of memory"


@pytest.mark.parametrize("writes", [0, 1])
def test_a_full_disk_leaves_the_record_as_it_was(
    writes: int, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The first write says `running`, the second how it ended; each may fail."""
    fsync, done = files.os.fsync, []
    before = run.record_file.read_text()

    def full(descriptor: int) -> None:
        if len(done) >= writes:
            raise FULL
        done.append(fsync(descriptor))

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(worker, "train", lambda *of: None)
    assert worker.main([str(run.path)]) == 75
    said = capsys.readouterr().err
    assert "No space left" in said and "Traceback" not in said
    assert [path.name for path in run.path.glob(".*.tmp")] == []
    if writes == 0:
        assert run.record_file.read_text() == before
    else:
        assert run.read().status == "running"  # of a process that has ended: interrupted

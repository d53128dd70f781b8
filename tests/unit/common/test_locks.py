"""Locks of files, by the kernel and on file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.common import locks, processes
from experiments.common.locks import LockedError, file_lock
from experiments.common.processes import STALE_AFTER_S


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_noted", set())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the watch for other machines' files takes for the time."""
    now = [1000.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now[0]))
    yield now


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def try_lock(path: Path) -> str | None:
    """Lock and unlock a file; return who has it, if another has."""
    try:
        with file_lock(path, patience_s=0):
            return None
    except LockedError as error:
        return str(error)


def test_without_flock_one_at_a_time_has_the_lock(no_flock, tmp_path, capsys):
    path = tmp_path / ".lock"
    with file_lock(path, patience_s=0):
        assert try_lock(path) == f"process {os.getpid()} on {os.uname().nodename}"
        assert try_lock(tmp_path / ".other") is None
    assert try_lock(path) is None
    assert names(tmp_path) == [".lock", ".other"]
    assert (
        capsys.readouterr().err
        == f"note: {tmp_path}: this file system has no locks; files take their place\n"
    )


def test_without_flock_two_never_have_the_lock(no_flock, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_POLL_INTERVAL_S", 0.001)
    inside, most, done = [], [], []

    def work() -> None:
        for _ in range(8):
            with file_lock(tmp_path / ".lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 32 and max(most) == 1
    assert names(tmp_path) == [".lock"]


def test_a_lock_of_a_process_that_has_ended_is_taken_over(no_flock, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".lock.{os.uname().nodename}.{ended.pid}.12345.0123abcd").touch()
    assert try_lock(tmp_path / ".lock") is None
    assert names(tmp_path) == [".lock"]


@pytest.mark.parametrize("days_ahead", [-3, 0, 3])
def test_a_lock_of_another_machine_is_taken_over_once_it_stops_moving(no_flock, tmp_path, clock, days_ahead):
    other, dated = tmp_path / ".lock.node7.cluster.4711.12345.0123abcd", time.time() + 86400 * days_ahead
    other.touch()
    os.utime(other, (dated, dated))
    for beat in range(5):  # whatever its clock says, it is alive while it writes
        assert try_lock(tmp_path / ".lock") == "process 4711 on node7.cluster"
        clock[0] += STALE_AFTER_S - 1
        os.utime(other, (dated + beat, dated + beat + 1))
    assert try_lock(tmp_path / ".lock") == "process 4711 on node7.cluster"
    clock[0] += STALE_AFTER_S - 1
    assert try_lock(tmp_path / ".lock") == "process 4711 on node7.cluster"
    clock[0] += 2
    assert try_lock(tmp_path / ".lock") is None
    assert names(tmp_path) == [".lock"]


def test_a_child_keeps_a_lock_of_a_process_that_was_killed(no_flock, tmp_path):
    taker = """
import errno, fcntl, os, subprocess, sys
from pathlib import Path
from experiments.common.locks import file_lock, share_lock
def refuse(descriptor, operation): raise OSError(errno.ENOLCK, "")
fcntl.flock = refuse
with file_lock(path := Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, stdout=subprocess.DEVNULL)
    share_lock(path, child.pid)
    print(child.pid, flush=True)
    os._exit(9)
"""
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", taker, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    child = int(process.stdout.readline())
    assert process.wait() == 9
    assert try_lock(path) == f"process {child} on {os.uname().nodename}"
    process.stdin.close()
    deadline = time.monotonic() + 30
    while try_lock(path) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert names(tmp_path) == [".lock"]


def test_the_owner_of_a_lock_shows_that_it_lives(no_flock, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.01)
    with file_lock(tmp_path / ".lock"):
        (own,) = (path for path in tmp_path.iterdir() if path.name != ".lock")
        os.utime(own, (0, 0))
        deadline = time.monotonic() + 10
        while own.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_files_that_are_no_owners_stay(no_flock, tmp_path):
    (tmp_path / ".lock.swp").touch()
    assert try_lock(tmp_path / ".lock") is None
    assert names(tmp_path) == [".lock", ".lock.swp"]


def test_any_other_failure_is_no_reason_for_a_file(tmp_path, monkeypatch):
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="I/O error"):
        try_lock(tmp_path / ".lock")

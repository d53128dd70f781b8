"""A worker process on this machine, with a few lines of Python in the place of the real worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.launching import local
from experiments.launching.gpus import Gpu
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker, combine_exit_codes
from experiments.launching.torchrun import RankFailure
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import RunFolder

PATIENCE_S = 30
NO_GPUS = Lease((), ())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.of(tmp_path / "results", "r50", "aaaa1111", 0)
    run.path.mkdir(parents=True)
    run.write(a_record())
    return run


def a_record(status: str = "queued", **attempt: object) -> Record:
    attempts = (
        [Attempt(**{"started": "", "host": os.uname().nodename, "pid": 1, **attempt})] if attempt else []
    )
    return Record(
        recipe="r50", recipe_id="1" * 8, config_hash="aaaa1111", seed=0, status=status, attempts=attempts
    )


def started(folder: RunFolder, lease: Lease = NO_GPUS) -> LocalWorker:
    return LocalWorker(folder, Launch(), None, lease, None)


def worker(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: str) -> LocalWorker:
    monkeypatch.setattr(local, "BOOT", f"import os, signal, sys, time\n{code}")
    return started(folder)


def ended(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: str) -> LocalWorker:
    process = worker(folder, monkeypatch, code)
    assert process.wait(PATIENCE_S)
    return process


def ready(folder: RunFolder) -> None:
    """Waits until the worker has said so in its log."""
    deadline = time.monotonic() + PATIENCE_S
    while "ready" not in folder.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_takes_the_run_folder_and_writes_the_log(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    folder.log.write_text("of an earlier attempt\n")
    code = "print(sys.argv[1]); print('to stderr', file=sys.stderr); print(sys.stdin.read() == '')"
    done = ended(folder, monkeypatch, code)
    lines = folder.log.read_text().splitlines()
    assert lines == ["of an earlier attempt", str(folder.path), "to stderr", "True"]
    assert done.failure is None


def test_a_worker_is_out_of_reach_of_the_terminals_ctrl_c(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    ended(folder, monkeypatch, "print(os.getsid(0) == os.getpid(), os.getsid(0))")
    own, session = folder.log.read_text().split()
    assert own == "True"
    assert int(session) != os.getsid(0)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 75])
def test_its_exit_code_and_what_it_recorded(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: int):
    folder.write(a_record("failed", message="loss_cls became NaN", hint="lower schedule.lr"))
    process = ended(folder, monkeypatch, f"print('another last line'); sys.exit({code})")
    assert process.failure == RankFailure(0, code, "loss_cls became NaN", "lower schedule.lr")


def test_without_a_record_of_why_the_logs_last_line_tells(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    process = ended(folder, monkeypatch, "print('error: out of luck\\n\\n'); sys.exit(1)")
    assert process.failure == RankFailure(0, 1, "out of luck")


def test_a_worker_that_said_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    assert ended(folder, monkeypatch, "sys.exit(1)").failure.message == "the worker did not start"


def test_a_killed_worker_counts_as_interrupted(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    process = ended(folder, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    assert process.failure.code == 75
    assert "SIGKILL" in process.failure.message
    assert "last checkpoint" in process.failure.message


def test_stop_asks_and_the_worker_ends_in_its_own_way(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    code = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nprint('ready', flush=True)\n"
        f"time.sleep({2 * PATIENCE_S})"
    )
    process = worker(folder, monkeypatch, code)
    try:
        ready(folder)
        assert not process.wait(0)
        process.stop()
        assert process.wait(PATIENCE_S)
        assert process.failure.code == 75
        process.stop()  # of an ended one: nothing
    finally:
        if not process.wait(0):
            process._process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)


def test_what_an_earlier_attempt_recorded_is_not_taken_for_this_ones(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    folder.write(a_record("failed", message="loss_cls became NaN", exit_code=3))
    process = ended(folder, monkeypatch, "print('ImportError: no torch'); sys.exit(1)")
    assert process.failure.message == "ImportError: no torch"


def test_a_worker_sees_the_gpus_of_its_lease_and_keeps_that_open(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with open(tmp_path / "kept", "w") as stream:
        code = f"print(os.environ['CUDA_VISIBLE_DEVICES'], os.fstat({stream.fileno()}).st_ino)"
        monkeypatch.setattr(local, "BOOT", f"import os; {code}")
        process = started(folder, Lease((Gpu(1, "GPU-bb22", "H100"),), (stream.fileno(),)))
        assert process.wait(PATIENCE_S)
        assert folder.log.read_text().split() == ["GPU-bb22", str(os.fstat(stream.fileno()).st_ino)]


def test_a_folder_that_is_not_there_is_the_users_to_mend(tmp_path: Path):
    with pytest.raises(UserError, match="no worker can be started"):
        started(RunFolder(tmp_path / "absent"))


def test_the_real_worker_is_ours_whatever_lies_in_the_working_directory(folder: RunFolder):
    """A package of the same name does not take its place, and a user's modules are found all the same."""
    Path("experiments").mkdir()
    Path("experiments/__init__.py").write_text("raise SystemExit('the wrong package')")
    Path("signal.py").write_text("raise SystemExit('the wrong signal')")
    folder.record_file.unlink()
    process = started(folder)
    assert process.wait(2 * PATIENCE_S)
    assert process._process.returncode == 2
    assert "has no record.json" in local.read_last_lines(folder.log, 1)[0]


def test_the_working_directory_comes_last_on_the_path(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    prologue = local.BOOT.partition("from experiments")[0].rstrip("; ")
    monkeypatch.setattr(local, "BOOT", f"{prologue}; print(sys.path[-1] == os.getcwd(), sys.path.count(''))")
    assert started(folder).wait(PATIENCE_S)
    assert folder.log.read_text().split() == ["True", "0"]


@pytest.mark.parametrize(
    ("codes", "shared"),
    [
        ([], 0),
        ([0], 0),
        ([0, 0], 0),
        ([3], 3),
        ([0, 3, 0], 3),
        ([3, 3], 3),
        ([2, 3], 1),
        ([4, 1, 0], 1),
        ([75], 75),
        ([0, 75], 75),
        ([3, 75], 75),
        ([2, 75, 4], 75),
    ],
)
def test_one_code_for_several_runs(codes: list[int], shared: int):
    assert combine_exit_codes(codes) == shared

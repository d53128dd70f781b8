"""One run on several processes: real torch starts the ranks, and a few lines of Python take the place of the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.common.processes import is_alive
from experiments.launching.elastic import Failure
from experiments.runs.record import Attempt, Record
from experiments.runs.run_folder import RunFolder

PATIENCE_S = 20

# What every rank does: rank 0 keeps the record, each says that it is there, SIGTERM is asked of all by a file.
PRELUDE = """
import json, os, signal, sys, time
from experiments.runs.record import Attempt, now
from experiments.runs.run_folder import RunFolder
run, rank = RunFolder(sys.argv[1]), int(os.environ["RANK"])
record = run.read()
if rank == 0:
    world_size = int(os.environ["WORLD_SIZE"])
    record.attempts.append(Attempt(started=now(), host="here", pid=os.getpid(), world_size=world_size))
    record.status = "running"
    run.write(record)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
(run.path / f"env{rank}").write_text(json.dumps({**os.environ, "pid": os.getpid()}))
def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
until(lambda: all((run.path / f"env{k}").exists() for k in range(int(os.environ["WORLD_SIZE"]))))
def end(code, message=None):
    if rank == 0:
        record.attempts[-1].exit_code, record.attempts[-1].message = code, message
        record.status = {0: "done", 75: "interrupted"}.get(code, "failed")
        run.write(record)
    elif code:
        run.failure_of_rank(rank).write_text(json.dumps({"exit_code": code, "message": message, "hint": None}))
    sys.exit(code)
"""

LAUNCH = """
import sys
from experiments.launching import elastic, ranks
ranks.FAILING_S, ranks.AT_ONCE_S = 1.0, 1.0
elastic.BOOT = {worker!r}
sys.exit(elastic.main(sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.of(tmp_path, "r50", "aaaa1111", 0)
    folder.path.mkdir(parents=True)
    folder.write(Record(recipe="r50", recipe_id="1" * 8, config_hash="aaaa1111", seed=0))
    return folder


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(run: RunFolder) -> Iterator[Start]:
    """Starts two ranks that do what the code says."""
    started: list[subprocess.Popen[str]] = []

    def starting(code: str, *options: str, **more: object) -> subprocess.Popen[str]:
        script = LAUNCH.format(worker=PRELUDE + textwrap.dedent(code))
        words = [sys.executable, "-c", script, str(run.path), *(options or ("--processes=2",))]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
        started.append(process)
        return process

    yield starting
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> int:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said, said
    return process.returncode


def of_ranks(run: RunFolder) -> list[dict[str, str]]:
    """The environment of both ranks, once they are there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return [json.loads((run.path / f"env{rank}").read_text()) for rank in range(2)]
        except (OSError, ValueError):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def last(run: RunFolder) -> Attempt:
    (attempt,) = run.read().attempts
    return attempt


def test_both_ranks_work_and_keep_the_open_files(run: RunFolder, start: Start, tmp_path: Path):
    with open(tmp_path / "kept", "w") as kept:
        fd = kept.fileno()
        process = start(f"os.fstat({fd}); end(0)", "--processes=2", f"--descriptors={fd}", pass_fds=[fd])
        assert ended(process) == 0
    first, second = of_ranks(run)
    assert [first["RANK"], second["RANK"], first["WORLD_SIZE"]] == ["0", "1", "2"]
    assert first["MASTER_PORT"] == second["MASTER_PORT"] != "29500"
    assert first["TORCHELASTIC_MAX_RESTARTS"] == "0"
    assert run.read().status == "done"


@pytest.mark.slow
def test_the_cause_is_recorded_and_not_what_followed_from_it(run: RunFolder, start: Start):
    process = start("""
        if rank == 1:
            end(4, "out of memory: tried to allocate 2 GiB")
        until(lambda: run.failure_of_rank(1).exists())
        end(1, "RuntimeError: Connection closed by peer")
    """)
    assert ended(process) == 4
    attempt = last(run)
    assert (attempt.exit_code, attempt.exit_class) == (4, "out of memory")
    assert attempt.message == "rank 1: out of memory: tried to allocate 2 GiB"
    assert run.read().status == "failed"


def test_a_killed_rank_is_an_interruption_and_the_waiting_one_is_not_waited_for(run: RunFolder, start: Start):
    process = start("until(lambda: False)")  # as in a collective: for ever
    first, second = of_ranks(run)
    os.kill(second["pid"], signal.SIGKILL)
    assert ended(process) == 75
    attempt = last(run)
    assert (attempt.exit_code, attempt.exit_class) == (75, "interrupted")
    assert "rank 1 was ended by SIGKILL" in attempt.message
    assert run.read().status == "interrupted"
    assert not is_alive(first["pid"], None)


def test_a_signal_reaches_the_ranks_once_and_they_take_the_time_they_need(run: RunFolder, start: Start):
    process = start("""
        until(lambda: asked)
        if rank == 0:
            time.sleep(2)  # a checkpoint; the other has ended long ago
        end(75, f"stopped at iteration 7, asked {len(asked)} times")
    """)
    of_ranks(run)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 75
    assert last(run).message == "stopped at iteration 7, asked 1 times"
    assert run.read().status == "interrupted"


@pytest.mark.slow
def test_one_rank_that_was_asked_is_not_a_reason_to_hurry_the_other(run: RunFolder, start: Start):
    """A batch system may signal any of them; among themselves they agree to stop."""
    process = start("""
        if rank == 1:
            until(lambda: asked)
            (run.path / "agreed").touch()
            end(75, "stopped at iteration 7")
        until((run.path / "agreed").exists)
        time.sleep(2)
        end(75, f"stopped at iteration 7, asked {len(asked)} times")
    """)
    os.kill(of_ranks(run)[1]["pid"], signal.SIGTERM)
    assert ended(process) == 75
    assert last(run).message == "stopped at iteration 7, asked 0 times"


@pytest.mark.slow
def test_a_second_signal_ends_at_once(run: RunFolder, start: Start):
    process = start("until(lambda: False)")
    first, second = of_ranks(run)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == 75
    assert run.read().status == "interrupted"
    assert not is_alive(first["pid"], None) and not is_alive(second["pid"], None)


@pytest.mark.slow
def test_a_rank_that_cannot_begin_is_recorded_all_the_same(run: RunFolder, start: Start):
    (run.path / "env0").mkdir()  # where rank 0 wants to write: before its attempt it has said nothing
    process = start("end(0)")
    assert process.communicate(timeout=PATIENCE_S) and process.returncode == 1
    assert run.read().status == "failed" and last(run).exit_code == 1


@pytest.mark.slow
def test_ranks_that_lose_their_command_are_asked_to_stop(run: RunFolder, start: Start):
    """The process between them notices that the one that started it is gone."""
    code = "until(lambda: asked)\nend(75, 'stopped')"
    script = LAUNCH.format(worker=PRELUDE + code)
    command = [sys.executable, "-c", script, str(run.path), "--processes=2"]
    middle = f"import subprocess; subprocess.run({command!r}, stderr=subprocess.DEVNULL)"
    process = subprocess.Popen([sys.executable, "-c", middle])
    pids = [rank["pid"] for rank in of_ranks(run)]
    process.kill()
    process.wait()
    deadline = time.monotonic() + PATIENCE_S
    while any(is_alive(pid, None) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert run.read().status == "interrupted"


@pytest.mark.parametrize(
    ("codes", "cause"),
    [((1, 4), 1), ((75, 3), 1), ((1, 75), 1), ((2, 1), 0), ((1, 1), 0), ((75, 75), 0), ((17, 75), 1)],
)
def test_which_failure_is_the_cause(codes: tuple[int, int], cause: int):
    failures = [Failure(rank, code, "", ended_at=float(rank)) for rank, code in enumerate(codes)]
    assert min(failures, key=Failure.order).rank == cause


def test_a_rank_that_was_left_alone_is_not_the_cause_even_if_it_ended_first():
    alone = Failure(0, 1, "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:123", ended_at=1.0)
    cause = Failure(1, 1, "rank 1: ValueError: no such image", ended_at=2.0)
    assert min([alone, cause], key=Failure.order) is cause

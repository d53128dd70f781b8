"""One run on several processes: real torchrun starts the ranks of `fake_rank.py`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.common import processes
from experiments.common.processes import PATHS, is_alive
from experiments.launching import local
from experiments.launching.execution import Execution
from experiments.launching.leases import Lease
from experiments.launching.local import LocalWorker
from experiments.launching.plan import PlanOptions, plan
from experiments.launching.queue import TYPE_AGAIN, Queue
from experiments.launching.torchrun import find_cause, is_local
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import RunFolder
from tests.children import search_path

PATIENCE_S = 60
FAKE_RANK = Path(__file__).with_name("fake_rank.py")
BOOT = PATHS + f"import runpy; runpy.run_path({str(FAKE_RANK)!r}, run_name='__main__')"
COMMAND = """
import sys
from tests.unit.launching.test_torchrun import command
sys.exit(command(*sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(local, "BOOT", BOOT)
    folder = RunFolder.of(tmp_path, "r50", "aaaa1111", 0)
    folder.path.mkdir(parents=True)
    folder.write(Record(recipe="r50", recipe_id="1" * 8, config_hash="aaaa1111", seed=0))
    return folder


Start = Callable[[str], LocalWorker]


@pytest.fixture
def start(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts two ranks that follow a scenario."""
    started: list[LocalWorker] = []

    def starting(scenario: str) -> LocalWorker:
        monkeypatch.setenv("SCENARIO", scenario)
        worker = LocalWorker(run, Launch(processes=2), None, Lease((), ()), None)
        started.append(worker)
        return worker

    yield starting
    for worker in started:
        if not worker.wait(0):
            worker._process.kill()
            worker.wait(PATIENCE_S)


def ranks(run: RunFolder) -> list[dict[str, Any]]:
    """The environments of both ranks, once they are at work."""
    files = [run.path / f"env{rank}.json" for rank in range(2)]
    wait_until(lambda: all(file.exists() for file in files))
    return [json.loads(file.read_text()) for file in files]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def last(run: RunFolder) -> Attempt:
    (attempt,) = run.read().attempts
    return attempt


@pytest.mark.slow
def test_torchrun_starts_the_ranks_on_a_free_port(
    run: RunFolder, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("signal.py").write_text("raise SystemExit('the wrong signal')")  # must hide nothing from torchrun
    worker = start("done")
    assert worker.wait(PATIENCE_S)
    assert worker.failure is None
    first, second = ranks(run)
    assert [first["RANK"], second["RANK"], first["WORLD_SIZE"]] == ["0", "1", "2"]
    assert first["MASTER_PORT"] == second["MASTER_PORT"] != "29500"
    assert first["TORCHELASTIC_MAX_RESTARTS"] == "0"
    assert run.read().status == "done"


def test_the_cause_is_recorded_and_not_what_followed_from_it(run: RunFolder, start: Start):
    worker = start("out of memory")
    assert worker.wait(PATIENCE_S)
    assert (worker.failure.code, worker.failure.message) == (4, "rank 1: out of memory")
    attempt = last(run)
    assert (attempt.exit_code, attempt.exit_class) == (4, "out of memory")
    assert attempt.message == "rank 1: out of memory"
    assert run.read().status == "failed"


def test_a_killed_rank_is_an_interruption(run: RunFolder, start: Start):
    worker = start("collective")
    os.kill(ranks(run)[1]["pid"], signal.SIGKILL)
    assert worker.wait(PATIENCE_S)
    assert worker.failure.code == 75
    assert "rank 1 was killed" in (last(run).message or "")
    assert run.read().status == "interrupted"


@pytest.mark.slow
def test_stop_asks_rank_0_and_all_ranks_end_in_their_own_time(run: RunFolder, start: Start):
    worker = start("stop")
    ranks(run)
    worker.stop()
    assert worker.wait(PATIENCE_S)
    assert (worker.failure.code, last(run).message) == (75, "stopped at iteration 7")
    assert run.read().status == "interrupted"


def test_a_stop_before_the_ranks_are_at_work_ends_at_once(run: RunFolder, start: Start):
    worker = start("busy")
    worker.stop()
    assert worker.wait(5)
    assert worker.failure.code == 75
    assert run.read().status == "interrupted"


@pytest.mark.slow
def test_a_second_stop_ends_at_once(run: RunFolder, start: Start):
    worker = start("busy")
    pids = [rank["pid"] for rank in ranks(run)]
    worker.stop()
    assert not worker.wait(0.5)
    worker.stop()
    assert worker.wait(5)
    wait_until(lambda: not any(is_alive(pid, None) for pid in pids))
    assert worker.failure.code == 75
    assert "stopped at once" in (last(run).message or "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_ranks_die_with_torchrun_which_holds_the_lock(run: RunFolder, start: Start):
    worker = start("busy")
    pids = [rank["pid"] for rank in ranks(run)]
    worker._process.kill()
    assert worker.wait(PATIENCE_S)
    wait_until(lambda: not any(is_alive(pid, None) for pid in pids))
    assert worker.failure.code == 75
    assert run.read().status == "interrupted"


@pytest.mark.slow
def test_ranks_that_do_not_start_are_recorded(run: RunFolder, start: Start):
    worker = start("no start")
    assert worker.wait(PATIENCE_S)
    assert (worker.failure.code, worker.failure.message) == (1, "the ranks did not start")
    assert run.read().status == "failed" and last(run).exit_code == 1


def test_a_worker_knows_whether_its_launcher_lives(monkeypatch: pytest.MonkeyPatch):
    parent = os.getppid()
    assert processes.has_launcher(parent) and not processes.has_launcher(parent + 1)
    for name, value in processes.make_launcher_environment().items():
        monkeypatch.setenv(name, value)
    assert processes.has_launcher(parent)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv(processes.LAUNCHER, f"{ended.pid} 1")
    assert not processes.has_launcher(parent)


@pytest.mark.parametrize(
    ("codes", "cause"),
    [((1, 4), 1), ((75, 3), 1), ((1, 75), 1), ((2, 1), 0), ((1, 1), 0), ((75, 75), 0), ((17, 75), 1)],
)
def test_which_failure_is_the_cause(run: RunFolder, codes: tuple[int, int], cause: int):
    found = cause_of(run, (codes[0], "one"), (codes[1], "other"))
    assert (found.rank, found.code) == (cause, codes[cause])


def test_a_lost_connection_is_not_the_cause(run: RunFolder):
    lost = "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:123"
    assert cause_of(run, (1, lost), (1, "ValueError: no such image")).rank == 1
    assert cause_of(run, (1, lost), (1, lost)).code == 75  # a rank on another machine was killed


def cause_of(run: RunFolder, *failures: tuple[int, str]):
    attempt = Attempt(started="", host="", pid=1, exit_code=failures[0][0], message=failures[0][1])
    left = {"exit_code": failures[1][0], "message": failures[1][1], "hint": None}
    run.failure_of_rank(1).write_text(json.dumps(left))
    return find_cause(run, attempt, 2)


# ------------------------------------------------------------------------------- several machines


def queue_of(place: Path, rdzv: str) -> Queue:
    execution = Execution(gpus=1, nodes=2, rdzv=rdzv)
    execution.check()
    recipe = load_recipe("retinanet-r50", "tiny")
    return Queue(
        plan([("", recipe)], PlanOptions([0], place / "results", generate=False, execution=execution)),
        [],
        execution,
        [],
    )


def command(place: str, rdzv: str) -> int:
    local.BOOT = BOOT
    queue = queue_of(Path(place), rdzv)
    while queue.step(0.1):
        pass
    (entry,) = queue.entries
    print(json.dumps([entry.state, entry.attempts, entry.message, entry.hint]))
    return entry.code or 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_what_ends_an_attempt_ends_the_command_on_each_machine(place: Path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        rdzv = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": search_path(), "SCENARIO": "once"}
    words = [sys.executable, "-c", COMMAND, str(place), rdzv]

    def on_both() -> list[tuple[int, list[Any]]]:
        both = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=120)[0] for process in both]
        return [(process.returncode, json.loads(line)) for process, line in zip(both, said)]

    message = "rank 1: no such image"
    assert on_both() == [(75, ["interrupted", 1, message, TYPE_AGAIN])] * 2
    assert [(code, said[0]) for code, said in on_both()] == [(0, "done")] * 2
    first, second = queue_of(place, rdzv).entries[0].run.folder.read().attempts
    assert (first.exit_code, first.message) == (1, message)
    assert (second.exit_code, second.world_size) == (0, 2)


def test_which_machine_leads():
    assert is_local("localhost:29400") and is_local("127.0.0.1:29400")
    assert not is_local("192.0.2.1:29400")  # an address that is given to nobody
    assert not is_local("no-such-host.invalid:29400")


def test_a_machine_that_does_not_lead_prepares_nothing_and_waits(place: Path):
    queue = queue_of(place, "192.0.2.1:29400")
    assert queue.step(0.1)
    assert queue.entries[0].state == "locked"
    assert not (place / "results").exists()
    queue.stop()
    assert not queue.step(0.1)

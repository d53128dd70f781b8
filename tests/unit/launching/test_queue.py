"""Many runs at once: places, claims, failures, and queues that die; a short script takes the worker's place."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.common import processes
from experiments.common.processes import STALE_AFTER_S
from experiments.launching import local
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu, list_visible_gpus
from experiments.launching.local import combine_exit_codes
from experiments.launching.plan import PlannedRun, PlanOptions, plan
from experiments.launching.queue import Queue, QueueItem
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder, acquire_lock
from tests.children import search_path

PATIENCE_S = 60

WORKER = Path(__file__).with_name("fake_worker.py").read_text(encoding="utf-8")

# A command of its own: plans the seeds and works through them; its exit code is theirs.
COMMAND = """
import sys
from tests.unit.launching.test_queue import command
sys.exit(command(*sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("PLACE", tmp_path),
        ("MSDET_LEASES", tmp_path / "leases"),
        ("XDG_CACHE_HOME", tmp_path),
    ):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("SECONDS", "0.05")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "BOOT", WORKER)
    (tmp_path / "plan.json").write_text("{}")
    return tmp_path


def command(place: str, seeds: str, gpus: str, jobs: str) -> int:
    local.BOOT = WORKER
    queue = a_queue(Path(place), range(int(seeds)), int(gpus), jobs=int(jobs) or None)
    while queue.step(0.1):
        pass
    return combine_exit_codes([entry.code or 0 for entry in queue.entries])


def start(place: Path, seeds: int, gpus: int = 0, jobs: int = 0) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", COMMAND, str(place), str(seeds), str(gpus), str(jobs)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": search_path()})


def planned(place: Path, seeds: Any, **options: Any) -> list[PlannedRun]:
    recipe = load_recipe("retinanet-r50", "tiny")
    return plan([("", recipe)], PlanOptions(list(seeds), place / "results", generate=False, **options))


def a_queue(place: Path, seeds: Any, gpus: int = 0, jobs: int | None = None, **options: Any) -> Queue:
    machine = [Gpu(index, f"GPU-{index}", "fake") for index in range(gpus)]
    return Queue(planned(place, seeds, **options), ["msdet"], Execution(jobs=jobs), machine)


def worked(queue: Queue) -> list[QueueItem]:
    deadline = time.monotonic() + PATIENCE_S
    while queue.step(0.5):
        assert time.monotonic() < deadline, [(e.run.seed, e.state) for e in queue.entries]
    return queue.entries


def todo(place: Path, **seeds: Any) -> None:
    (place / "plan.json").write_text(json.dumps({seed.removeprefix("seed"): t for seed, t in seeds.items()}))


def events(place: Path) -> list[tuple[int, str, str | None, int]]:
    return [tuple(json.loads(line)) for line in (place / "events").read_text().splitlines()]


def finished(place: Path) -> list[int]:
    return sorted(seed for seed, what, *_ in events(place) if what == "done")


def until(what: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ----------------------------------------------------------------------------------------- places


def test_eight_runs_on_two_gpus_keep_both_busy_and_no_third(place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-0, fake'\necho '1, GPU-1, fake'\n")
    (place / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("SECONDS", "0.4")
    queue = Queue(planned(place, range(8)), ["msdet"], Execution(), list_visible_gpus())
    left = True
    while left:
        left = queue.step(5)
        states = [entry.state for entry in queue.entries]
        if "waiting" in states:  # a place that has come free is given away by the next step, before it waits
            queue._fill()
            assert [entry.state for entry in queue.entries].count("running") == 2
    busy: dict[str, int] = {}
    most = 0
    for seed, what, gpu, _ in events(place):
        assert gpu in ("GPU-0", "GPU-1")
        if what == "start":
            assert gpu not in busy  # never held twice
            busy[gpu] = seed
        else:
            assert busy.pop(gpu) == seed
        most = max(most, len(busy))
    assert most == 2
    assert finished(place) == list(range(8))
    assert [entry.code for entry in queue.entries] == [0] * 8


def test_without_gpus_as_many_as_jobs_and_one_by_default(place: Path):
    for jobs, most in ((None, 1), (3, 3)):
        queue = a_queue(place / str(jobs), range(4), jobs=jobs)
        queue._fill()
        assert [entry.state for entry in queue.entries].count("running") == most
        assert [entry.code for entry in worked(queue)] == [0] * 4


# --------------------------------------------------------------------------------- several commands


def test_two_commands_at_once_do_each_run_once(place: Path):
    commands = [start(place, seeds=6, jobs=2) for _ in range(2)]
    assert [process.wait(PATIENCE_S) for process in commands] == [0, 0]
    assert finished(place) == list(range(6))
    assert len(events(place)) == 12  # every start was one to the end
    assert all(len(run.folder.read().attempts) == 1 for run in planned(place, range(6)))


def test_a_killed_command_loses_no_run_and_the_next_does_none_twice(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECONDS", "0.4")
    process = start(place, seeds=6, gpus=2)
    until(lambda: (place / "events").exists() and len(finished(place)) >= 2)
    until(lambda: len([1 for _, what, *_ in events(place) if what == "start"]) >= 4)
    process.kill()
    process.wait()
    monkeypatch.setenv("SECONDS", "0.05")
    entries = worked(a_queue(place, range(6), gpus=2))
    assert [entry.code for entry in entries] == [0] * 6
    assert finished(place) == list(range(6))
    at_work: dict[str, int] = {}
    for seed, what, gpu, _ in events(place):  # also across both commands, a GPU is one run's
        assert gpu is not None
        if what == "start":
            assert gpu not in at_work and seed not in at_work.values()
            at_work[gpu] = seed
        else:
            assert at_work.pop(gpu) == seed


def test_what_another_command_works_on_comes_last_and_is_taken_over(place: Path):
    queue = a_queue(place, range(3))
    first = queue.entries[0].run.folder
    first.path.mkdir(parents=True)
    with acquire_lock(first):
        until(lambda: not queue.step(0.1) or [e.state for e in queue.entries[1:]] == ["done", "done"])
        assert queue.entries[0].state == "locked"
        assert not first.record_file.exists()  # not even prepared
    assert [entry.state for entry in worked(queue)] == ["done"] * 3
    assert [seed for seed, what, *_ in events(place) if what == "start"] == [1, 2, 0]


def test_what_another_command_has_done_meanwhile_is_reported_as_done(place: Path):
    queue = a_queue(place, [0])
    folder = queue.entries[0].run.folder
    folder.path.mkdir(parents=True)
    with acquire_lock(folder):
        queue.step(0)
        assert queue.entries[0].state == "locked"
    assert worked(a_queue(place, [0]))[0].state == "done"
    (entry,) = worked(queue)
    assert (entry.state, entry.code, entry.attempts) == ("done", 0, 0)
    assert finished(place) == [0]


def test_without_locks_of_files_one_command_works_on_a_run(place: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("SECONDS", "1")
    queue, other = a_queue(place, [0], force=True), a_queue(place, [0])
    until(lambda: queue.step(0.1) and queue.entries[0].state == "running")
    assert other.step(0)
    assert other.entries[0].state == "locked"
    # the command or its worker: both hold the run
    assert re.fullmatch(rf"process \d+ on {re.escape(os.uname().nodename)}", other.entries[0].message)
    assert [worked(one)[0].state for one in (queue, other)] == ["done", "done"]
    assert finished(place) == [0]


def test_a_run_of_another_machine_is_waited_for_while_it_shows_life(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    queue, now = a_queue(place, [0]), [0.0]
    (entry,), folder = queue.entries, queue.entries[0].run.folder
    worked(a_queue(place, [0]))
    record = folder.read()
    record.status, record.attempts[-1].host, record.attempts[-1].pid = "running", "node7", 4711
    folder.write(record)
    folder.progress.write_text("{}")
    tomorrow = time.time() + 86400
    os.utime(folder.progress, (tomorrow, tomorrow))
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("experiments.launching.queue.LOCK_POLL_INTERVAL_S", -1)
    for beat in range(3):
        assert queue.step(0)
        assert entry.state == "locked"
        assert entry.message == "process 4711 on node7 (resumed here after 120 s without a heartbeat)"
        now[0] += STALE_AFTER_S
        os.utime(folder.progress, (tomorrow, tomorrow + beat + 1))
    assert queue.step(0)
    assert entry.state == "locked"
    now[0] += STALE_AFTER_S + 1
    assert [e.state for e in worked(queue)] == ["done"]
    assert [attempt.host for attempt in folder.read().attempts] == ["node7", os.uname().nodename]


# ---------------------------------------------------------------------------------------- failures


def outcome(entry: QueueItem) -> tuple[str, int | None, int]:
    return entry.state, entry.code, entry.attempts


def test_every_failure_has_what_it_calls_for(place: Path):
    todo(
        place,
        seed0=[[3, False]],  # a loss that is no number: in vain to try again
        seed1=[[2, False]],  # bad input
        seed2=[[1, False]],  # anything else, once
        seed3=[[1, False]] * 5,  # again and again
        seed4=[[-9, False], [-9, True], [75, True]],  # killed, and told to end by somebody else
        seed5=[[-9, False]] * 9,  # killed before it gets anywhere
        seed6=[[4, False]],  # out of memory
        seed7=[[4, False]] * 3,
        seed8=[[-9, False], [-9, False], [-9, True], [-9, False], [-9, False], [-9, True]],  # slowly it does
    )
    queue = a_queue(place, range(10), jobs=3)
    entries = worked(queue)
    assert [outcome(entry) for entry in entries] == [
        ("failed", 3, 1),
        ("failed", 2, 1),
        ("done", 0, 2),
        ("failed", 1, 3),
        ("done", 0, 4),
        ("failed", 1, 3),
        ("done", 0, 2),
        ("failed", 4, 2),
        ("done", 0, 7),
        ("done", 0, 1),  # nothing has stopped the last
    ]
    whole = entries[0].run.launch.micro_batch
    assert whole == 8
    for seed, shares in ((6, [8, 4]), (7, [8, 4]), (2, [8, 8])):
        assert [images for s, what, _, images in events(place) if s == seed and what == "start"] == shares
    reduced = entries[6].run.folder.read().launch
    assert (reduced.micro_batch, reduced.reduced) == (4, True)
    assert "killed 3 times without progress" in (entries[5].message or "")
    assert "SIGKILL" in (entries[5].message or "")
    assert entries[5].run.folder.read().status == "failed"
    assert "in 3 attempts" in (entries[3].message or "")
    assert "half the images" in (entries[7].message or "")


def test_a_full_disk_interrupts_a_run_and_the_same_command_resumes_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    todo(place, seed0=[[75, "full or read-only"]])
    (entry,) = worked(a_queue(place, [0]))
    assert outcome(entry) == ("interrupted", 75, 1)  # to try again at once is in vain
    write = RunFolder.write

    def full(run: RunFolder, record: Record) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "write", full)  # the command's own writes
    (entry,) = worked(a_queue(place, [0]))
    assert outcome(entry) == ("interrupted", 75, 0)
    assert "No space left on device" in str(entry.message) and "same command" in str(entry.hint)
    monkeypatch.setattr(RunFolder, "write", write)
    (entry,) = worked(a_queue(place, [0]))
    assert outcome(entry) == ("done", 0, 1)


def test_one_image_at_a_time_is_not_halved(place: Path):
    todo(place, seed0=[[4, False]])
    runs = plan(
        [("", load_recipe("retinanet-r50", "tiny", ["schedule.images_per_gpu=1"]))],
        PlanOptions(
            [0],
            place / "results",
            generate=False,
        ),
    )
    (entry,) = worked(Queue(runs, ["msdet"], Execution(), []))
    assert outcome(entry) == ("failed", 4, 1)
    assert "with one image per forward pass" in (entry.message or "")


def test_a_reduced_micro_batch_stays_reduced_when_the_run_goes_on(place: Path):
    todo(place, seed0=[[4, True], [3, True]])
    worked(a_queue(place, [0]))
    (entry,) = worked(a_queue(place, [0], retry_failed=True))
    assert outcome(entry) == ("done", 0, 1)
    assert [images for _, what, _, images in events(place) if what == "start"] == [8, 4, 4]


def test_a_cancelled_run_is_not_taken_up_again(place: Path, monkeypatch: pytest.MonkeyPatch):
    todo(place, seed0=[[75, True]])
    queue = a_queue(place, range(2))
    queue.step(0)
    queue.entries[0].run.folder.cancel.touch()
    assert [outcome(entry) for entry in worked(queue)] == [("cancelled", 75, 1), ("done", 0, 1)]
    folder = queue.entries[0].run.folder
    assert folder.read().status == "cancelled" and not folder.cancel.exists()
    (again,) = worked(a_queue(place, [0]))
    assert outcome(again) == ("cancelled", 75, 0)
    (retried,) = worked(a_queue(place, [0], retry_failed=True))
    assert outcome(retried) == ("done", 0, 1)


def test_what_waits_is_seen_and_can_be_cancelled(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECONDS", "1")
    monkeypatch.setattr(
        "experiments.launching.queue.MARK_QUEUED_S", 60
    )  # all in one step, on a busy machine too
    queue = a_queue(place, range(3), retry_failed=True)
    queue.step(0)
    waiting = [entry.run.folder for entry in queue.entries[1:]]
    assert [folder.state() for folder in waiting] == ["queued", "queued"]
    record = waiting[0].read()
    record.status = "cancelled"
    waiting[0].write(record)  # as `msdet cancel` does
    assert [outcome(entry) for entry in worked(queue)] == [
        ("done", 0, 1),
        ("cancelled", 75, 0),
        ("done", 0, 1),
    ]
    record = waiting[1].read()
    record.status, record.queue = "queued", {"host": os.uname().nodename, "pid": 2**22, "pid_started": None}
    assert waiting[1].state(record) == "interrupted"  # its command is gone
    record.slurm = {"job_id": "1"}
    assert waiting[1].state(record) == "queued"


def test_what_failed_before_waits_for_retry_failed(place: Path):
    todo(place, seed0=[[3, False]])
    worked(a_queue(place, [0, 1]))
    again = worked(a_queue(place, [0, 1]))
    assert [outcome(entry) for entry in again] == [("failed", 3, 0), ("skipped", 0, 0)]
    assert "said 3" in (again[0].message or "") and "--retry-failed" in (again[0].hint or "")
    retried = worked(a_queue(place, [0, 1], retry_failed=True))
    assert [outcome(entry) for entry in retried] == [("done", 0, 1), ("skipped", 0, 0)]


def test_records_that_cannot_be_read_do_not_stop_the_others(place: Path):
    todo(place, seed0=[[3, True]])
    worked(a_queue(place, [0, 1]))
    broken, newer = (RunFolder(run.folder.path) for run in planned(place, [0, 1]))
    half = broken.record_file.read_text()[:100]
    broken.record_file.write_text(half)
    newer.record_file.write_text('{"schema_version": 99}')
    todo(place)
    entries = worked(a_queue(place, range(3)))
    assert [outcome(entry) for entry in entries] == [("done", 0, 1), ("failed", 2, 0), ("done", 0, 1)]
    assert "schema 99" in (entries[1].message or "")
    assert newer.record_file.read_text() == '{"schema_version": 99}'
    assert (broken.path / "record.json.damaged").read_text() == half
    assert "record.json.damaged" in broken.read().notes[0]
    assert (broken.checkpoints / "iter_1.pth").exists()


def test_a_worker_that_cannot_be_started_does_not_stop_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    real = local.build_command
    monkeypatch.setattr(
        local,
        "build_command",
        lambda worker, *a: ["/nowhere"] if worker[-1].endswith("seed0") else real(worker, *a),
    )
    queue = a_queue(place, range(2))
    assert [outcome(entry)[:2] for entry in worked(queue)] == [("failed", 2), ("done", 0)]
    assert "no worker can be started" in (queue.entries[0].message or "")
    with acquire_lock(queue.entries[0].run.folder, patience_s=0):  # given up
        pass


# -------------------------------------------------------------------------------------- being asked


def test_asked_to_stop_all_save_and_nothing_more_begins(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECONDS", "30")
    queue = a_queue(place, range(3), jobs=2)
    queue.step(0)
    until(lambda: (place / "events").exists() and len(events(place)) == 2)
    queue.stop()
    entries = worked(queue)
    assert [outcome(entry) for entry in entries] == [
        ("interrupted", 75, 1), ("interrupted", 75, 1), ("interrupted", 75, 0),
    ]  # fmt: skip
    assert [entry.run.folder.last_checkpoint() is not None for entry in entries] == [True, True, False]
    assert len(events(place)) == 4


def test_asked_twice_the_workers_are_asked_twice(place: Path, monkeypatch: pytest.MonkeyPatch):
    script = "import signal, sys, time\nn = []\nsignal.signal(signal.SIGTERM, lambda *_: n.append(1))\n"
    script += "print('ready', flush=True)\nend = time.monotonic() + 30\n"
    monkeypatch.setattr(
        local, "BOOT", script + "while len(n) < 2 and time.monotonic() < end: time.sleep(0.01)\nsys.exit(75)"
    )
    queue = a_queue(place, [0])
    queue.step(0)
    log = queue.entries[0].run.folder.log
    until(lambda: "ready" in log.read_text())
    queue.stop()
    assert queue.step(0.3) and queue.entries[0].state == "running"
    queue.stop()
    began = time.monotonic()
    assert [outcome(entry) for entry in worked(queue)] == [("interrupted", 75, 1)]
    assert time.monotonic() - began < 10


def test_threads_that_a_run_began_with_are_kept(place: Path):
    todo(place, seed0=[[3, True]])
    worked(a_queue(place, [0], jobs=2))
    (entry,) = worked(a_queue(place, [0], retry_failed=True))
    assert entry.run.folder.read().launch.threads == max(1, len(os.sched_getaffinity(0)) // 2)
    (other,) = worked(a_queue(place, [1]))
    assert other.run.folder.read().launch.threads is None

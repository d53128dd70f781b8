"""Runs that are broken off in every way a machine or a person can: the same command goes on, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
import torch

from experiments.common.processes import is_alive
from experiments.runs.record import Attempt
from experiments.runs.run_folder import RunFolder

from .conftest import Place, ended, rows, small, wait_until

ITERATIONS = 26

# A module of the user's own that holds a run before a chosen iteration: where it is broken off is no matter of luck.
GATE = """\
import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from experiments.training.engine.stopping import STOP


@HOOKS.register_module()
class Gate(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        hold = Path("hold")
        while hold.exists() and hold.read_text() == str(runner.iter) and not STOP.is_set():
            Path(f"held-{runner.iter}").touch()
            time.sleep(0.01)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        hold = Path("hold")
        while hold.exists() and hold.read_text() == f"evaluation-{runner.iter}" and not STOP.is_set():
            Path(f"held-evaluation-{runner.iter}").touch()
            time.sleep(0.01)
"""

GATED = ["imports=[gate]", "set.+default_hooks.gate={type: Gate}", "schedule.eval_every=1"]
RUN = ["run", "retinanet-r50-rlo", *small("weighting.alpha=4", *GATED, iterations=ITERATIONS)]


def gated(place: Place) -> Place:
    (place.folder / "gate.py").write_text(GATE, encoding="utf-8")
    return place


def held_before(place: Place, what: int | str, command: list[str] = RUN) -> subprocess.Popen[str]:
    """The command, started, its run waiting before an iteration or an evaluation."""
    (place.folder / "hold").write_text(str(what), encoding="utf-8")
    process = place.start(*command)
    mark = place.folder / f"held-{what}"
    try:
        wait_until(lambda: mark.exists() or process.poll() is not None, f"a run held before {what}")
        assert mark.exists(), ended(process)
    except BaseException:
        process.terminate()
        raise
    return process


def killed_at(place: Place, run: RunFolder, then: int | str | None = None) -> None:
    """Kills the worker where it is held, and has the one that takes up its run held before something else."""
    worker = run.read().attempts[-1].pid
    os.kill(worker, signal.SIGSTOP)  # else it would go on as soon as nothing holds it
    hold = place.folder / "hold"
    hold.unlink() if then is None else hold.write_text(str(then), encoding="utf-8")
    os.kill(worker, signal.SIGKILL)


def result(run: RunFolder) -> dict[str, object]:
    """All that a run computes: what it logs of it, and every weight and optimizer state in its last checkpoint."""
    checkpoint = torch.load(run.checkpoints / f"iter_{ITERATIONS}.pth", map_location="cpu", weights_only=True)
    return {
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer"]["state"],
        "rule": checkpoint["weighting"],
        "trace": run.trace.read_text(),
        "metrics": run.metrics.read_text(),
        "detections": json.loads((run.detections / "val.bbox.json").read_text()),
    }


def assert_same(ours: object, theirs: object, where: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert ours == theirs, where


def lasted(attempt: Attempt) -> float:
    """Seconds, rounded down; an attempt that was killed has no end."""
    if attempt.ended is None:
        return 0.0
    return (datetime.fromisoformat(attempt.ended) - datetime.fromisoformat(attempt.started)).total_seconds()


@pytest.fixture
def unbroken(make_place) -> Iterator[Callable[[], RunFolder]]:
    """The same run left alone. It is worked on beside the test, which calls for it in the end."""
    place = gated(make_place("unbroken"))
    process = place.start(*RUN)

    def finished() -> RunFolder:
        said = ended(process)
        assert said.returncode == 0, said.stdout + said.stderr
        return place.only_run()

    yield finished
    process.terminate()
    process.communicate(timeout=60)


def test_a_run_broken_off_four_times_ends_as_if_it_never_was(
    place: Place, unbroken: Callable[[], RunFolder]
) -> None:
    gated(place)

    # Ctrl-C: the iteration under way is finished and saved, in mid-epoch and mid-interval
    process = held_before(place, 6)
    run = place.only_run()
    assert run.state() == "running"
    process.send_signal(signal.SIGINT)
    said = ended(process)
    assert said.returncode == 75, said.stderr
    assert "type the same command to resume it" in said.stdout
    assert "Traceback" not in said.stdout + said.stderr + run.log.read_text()
    assert run.state() == run.read().status == "interrupted"
    assert run.last_checkpoint().name == "iter_7.pth"

    # SIGTERM, as a batch system sends it
    process = held_before(place, 13)
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    assert run.last_checkpoint().name == "iter_14.pth"

    # the worker is killed: what came after the last checkpoint (interval 4 ends with iteration 16) is done again
    process = held_before(place, 18)
    assert [row["interval"] for row in rows(run.trace)][-1] == "4"
    assert run.last_checkpoint().name == "iter_15.pth"
    killed_at(place, run, then=21)
    wait_until(lambda: (place.folder / "held-21").exists(), "the run taken up by the same command")

    # the command itself is killed: its worker saves and ends without it; the next command waits for that
    process.kill()
    said_before, _ = process.communicate()
    assert "SIGKILL" in said_before
    assert run.state() == "running"
    said = place.msdet(*RUN)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "locked by another msdet process" in said.stdout

    attempts = run.read().attempts
    assert [a.exit_code for a in attempts] == [75, 75, None, 75, 0]
    assert [a.first_iteration for a in attempts] == [0, 7, 14, 15, 22]
    assert [a.last_iteration for a in attempts] == [7, 14, None, 22, ITERATIONS]
    assert run.state() == "done"
    assert run.read().timings["total_s"] >= sum(map(lasted, attempts)) - len(attempts)
    assert len(rows(run.metrics)) > 1  # evaluations before and after a stop
    reference = unbroken()
    assert run.path.parts[-3:] == reference.path.parts[-3:]
    assert_same(result(run), result(reference), "result")
    for folder in (run, reference):  # the last two, and nothing of an unfinished save
        names = {path.name for path in folder.checkpoints.iterdir()}
        assert names == {"iter_25.pth", f"iter_{ITERATIONS}.pth"}


@pytest.mark.slow
def test_a_run_broken_off_while_it_evaluates_evaluates_again(place: Place) -> None:
    gated(place)
    command = ["run", "retinanet-r50-rlo", *small(*GATED, "schedule.iterations=null", "schedule.epochs=2")]
    process = held_before(place, "evaluation-12", command)
    run = place.only_run()
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    assert not run.metrics.exists()
    process = held_before(place, "evaluation-24", command)
    assert [row["iteration"] for row in rows(run.metrics)] == ["12"]
    killed_at(place, run)
    said = ended(process)  # it takes up the run by itself
    assert said.returncode == 0, said.stdout
    assert [row["iteration"] for row in rows(run.metrics)] == ["12", "24"]
    assert [a.first_iteration for a in run.read().attempts] == [0, 12, 24]


def test_a_worker_ends_when_its_command_is_killed_while_it_loads(place: Place) -> None:
    process = place.start("run", "retinanet-r50-rlo", *small("weighting.alpha=4", iterations=500))
    run = wait_until(lambda: [r for r in place.runs() if r.read().attempts], "a worker at work")[0]
    process.kill()
    process.communicate()
    worker = run.read().attempts[-1]
    try:
        what = "the end of a worker without its command"
        wait_until(lambda: not is_alive(worker.pid, worker.pid_started), what)
    finally:
        if is_alive(worker.pid, worker.pid_started):
            os.kill(worker.pid, signal.SIGKILL)
    assert run.state() == "interrupted"


def test_two_commands_at_once_do_a_run_once(place: Place) -> None:
    command = ["run", "retinanet-r50-rlo", *small("weighting.alpha=4")]
    first, second = [place.start(*command) for _ in range(2)]
    for said in (ended(first), ended(second)):
        assert said.returncode == 0, said.stdout + said.stderr
        assert "done" in said.stdout
    run = place.only_run()
    assert run.state() == "done"
    assert [attempt.exit_code for attempt in run.read().attempts] == [0]
    assert len(rows(run.trace)) == 5 * 3
    assert len(rows(run.metrics)) == 1


def test_an_unreadable_record_is_kept_and_the_run_goes_on_from_its_checkpoint(place: Place) -> None:
    gated(place)
    command = ["run", "retinanet-r50-rlo", *small("weighting.alpha=4", *GATED, iterations=9)]
    process = held_before(place, 5, command)
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    run = place.only_run()
    half = run.record_file.read_text()[:300]
    run.record_file.write_text(half)
    (place.folder / "hold").unlink()
    said = place.msdet(*command)
    assert said.returncode == 0, said.stdout + said.stderr
    assert (run.path / "record.json.damaged").read_text() == half
    record = run.read()
    assert [attempt.first_iteration for attempt in record.attempts] == [6]
    assert "record.json.damaged" in record.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["checkpoint", "trace"])
def test_what_was_lost_while_a_run_was_stopped_is_named_and_survived(
    what: str, place: Place, unbroken: Callable[[], RunFolder]
) -> None:
    gated(place)
    process = held_before(place, 11)
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    (place.folder / "hold").unlink()
    run = place.only_run()
    newest = run.last_checkpoint()
    assert newest.name == "iter_12.pth"
    if what == "checkpoint":
        newest.write_bytes(newest.read_bytes()[:-1000])
    else:
        run.trace.unlink()
    said = place.msdet(*RUN)
    assert said.returncode == 0, said.stdout + said.stderr
    record, (note,) = run.read(), run.read().notes
    assert note in run.log.read_text()
    ours, theirs = result(run), result(unbroken())
    if what == "checkpoint":
        assert record.attempts[-1].first_iteration == 10
        assert note.endswith("it was set aside as iter_12.pth.damaged, iter_10.pth is taken instead")
    else:
        assert note == "trace.csv was lost before iteration 12: it lacks the intervals up to there"
        assert [row["interval"] for row in rows(run.trace)] == [t for t in "456" for _ in range(5)]
        del ours["trace"], theirs["trace"]
    assert_same(ours, theirs, "result")

"""Runs ended in random ways at random points, on one process and on two: each ends as if it never had been.

The points follow from their numbers, so that each is found again. `KILL_RUNS=60 pytest
tests/end_to_end/test_kill_points.py` tries so many runs of one to three points each. What each point did is kept in
`results/reliability/kill_points.csv`. Some points that were chosen are in test_interrupt.py and test_processes.py.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from experiments.common.processes import is_alive, process_started
from experiments.runs.run_folder import RunFolder
from tests.kept import RESULTS, keep_rows, short_commit

from .broken_off import GATED, assert_same, gated, held, hold, result
from .conftest import Place, children, ended, parent, rows, small, wait_until
from .forked import ForkedCommand, load_mmdetection

ITERATIONS, EVERY, EPOCH = 20, 5, 12
RUNS = int(os.environ.get("KILL_RUNS", "16"))
COLUMNS = ["run", "processes", "data_workers", "signal", "target", "phase", "iteration", "hit", "differences",
           "commit"]  # fmt: skip
DATA_WORKERS = [f"set.{part}_dataloader.num_workers={count}" for part, count in (("train", 2), ("val", 1))]
STOPPED_S, PATIENCE_S = 1.0, 1800

pytestmark = pytest.mark.slow


@dataclass
class Point:
    """Where a run is ended, and how; `hit`: whether the signal was sent there. `STOP` is followed by `CONT`."""

    phase: str
    iteration: int
    signal: str
    target: str
    hit: bool = False

    def __str__(self) -> str:
        return f"{self.signal} {self.target} in {self.phase} {self.iteration}"


@dataclass(frozen=True)
class Trial:
    """A run's processes, the loader's workers of each, and the points in the order of their iterations."""

    processes: int
    data_workers: int
    points: list[Point]

    @property
    def command(self) -> list[str]:
        sets = [*GATED, "image_size=[96, 96]", *DATA_WORKERS * bool(self.data_workers)]
        sets += [f"schedule.gpus={self.processes}", f"schedule.eval_every={self.processes}"]
        few = small("weighting.alpha=4", *sets, iterations=ITERATIONS, checkpoint_every=EVERY)
        return ["run", "retinanet-r50-rlo", "--gpus", str(self.processes), *few]


def drawn(number: int) -> Trial:
    """Draw a trial. A checkpoint lies between its points: three kills without one end a run for good."""
    dice = random.Random(number)
    processes, data_workers = 1 + (number % 10 == 9), 2 * dice.choice([0, 1, 1])
    ways = [("worker", "KILL TERM STOP"), ("command", "KILL TERM INT STOP")]
    if processes > 1:
        ways += [("rank 1", "KILL TERM STOP"), ("launcher", "KILL TERM STOP")]
    if data_workers:
        ways += [("data worker", "KILL TERM INT STOP")] * 2
        ways += [("data worker of rank 1", "KILL TERM STOP")] * (processes - 1)
    places = {
        "train": range(1, ITERATIONS),
        "checkpoint": range(EVERY, ITERATIONS, EVERY),
        "evaluation": (*range(EPOCH, ITERATIONS, EPOCH), ITERATIONS),
    }
    points: list[Point] = []
    wanted = dice.choice([1, 2, 3, 3, 3])
    for _ in range(40):
        phase = dice.choice(["train", "train", "checkpoint", "evaluation"])
        target, signals = dice.choice(ways)
        point = Point(phase, dice.choice(places[phase]), dice.choice(signals.split()), target)
        if len(points) < wanted and all(abs(point.iteration - p.iteration) > EVERY for p in points):
            points.append(point)
    return Trial(processes, data_workers, sorted(points, key=lambda point: point.iteration))


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load_mmdetection()


@pytest.fixture(scope="module")
def unbroken(make_place) -> Callable[[int], dict[str, Any]]:
    """What the run computes when it is left alone, by the number of its processes. Data workers change nothing."""
    known: dict[int, dict[str, Any]] = {}

    def result_of(processes: int) -> dict[str, Any]:
        if processes not in known:
            place = gated(make_place(f"unbroken{processes}"))
            said = ended(ForkedCommand(place, Trial(processes, 0, []).command))
            assert said.returncode == 0, said.stdout + said.stderr
            known[processes] = result(place.only_run(), ITERATIONS)
        return known[processes]

    return result_of


def end_everywhere(place: Place, trial: Trial) -> None:
    """Type the command, end it at each point that it comes to, type it again where it has ended; at last it is done."""
    process = None
    for point, following in zip(trial.points, [*trial.points[1:], None]):
        hold(place, point.phase, point.iteration)
        process = come_to_point(place, trial, process)
        rank_0 = held(place)
        if process.poll() is not None or rank_0 is None:
            break
        began = process_started(rank_0)
        target = find_target(process, rank_0, point)
        if target is not None:
            os.kill(target, getattr(signal, f"SIG{point.signal}"))
        point.hit = target is not None
        if target is None or point.signal == "STOP":
            release(place, following)  # it goes on beside the stopped process, and may wait for that
            time.sleep(STOPPED_S)
            if target is not None:
                os.kill(target, signal.SIGCONT)
        else:
            release(place, None)
            what = f"the end of the worker after {point}"
            wait_until(lambda pid=rank_0, began=began: not is_alive(pid, began), what, PATIENCE_S)
    release(place, None)
    come_to_point(place, trial, process)


def release(place: Place, following: Point | None) -> None:
    """Let rank 0 go on, to the point that follows if there is one."""
    if following is None:
        (place.folder / "hold").unlink(missing_ok=True)
    else:
        hold(place, following.phase, following.iteration)


def come_to_point(place: Place, trial: Trial, process: ForkedCommand | None) -> ForkedCommand:
    """The command, held at the point, or done without; typed again where it was interrupted."""
    while True:
        process = process or ForkedCommand(place, trial.command)
        try:
            wait_until(
                lambda p=process: held(place) or p.poll() is not None, "the end of the command", PATIENCE_S
            )
        except BaseException:
            process.kill()
            raise
        if process.poll() is None:
            return process
        said = ended(process)
        assert "Traceback" not in said.stdout + said.stderr
        assert said.returncode in (0, 75, -signal.SIGKILL), said.stdout + said.stderr
        if said.returncode == 0:
            return process
        process = None


def find_target(process: ForkedCommand, rank_0: int, point: Point) -> int | None:
    """The process that the point names; None where it has ended."""
    try:
        launcher = parent(rank_0)
        if point.target in ("command", "worker", "launcher"):
            return {"command": process.pid, "worker": rank_0, "launcher": launcher}[point.target]
        rank = rank_0
        if point.target.endswith("rank 1"):
            (rank,) = set(children(launcher)) - {rank_0}
        return rank if point.target == "rank 1" else children(rank)[-1 - point.iteration % 2]
    except (OSError, ValueError, IndexError):
        return None


@pytest.mark.parametrize("number", range(RUNS))
def test_a_run_ended_at_random_points(
    number: int, place: Place, unbroken: Callable[[int], dict[str, Any]]
) -> None:
    gated(place)
    trial = drawn(number)
    wanted = unbroken(trial.processes)
    end_everywhere(place, trial)
    run = place.only_run()
    where = f"after {', then '.join(map(str, trial.points))}: "
    try:
        assert_same(result(run, ITERATIONS), wanted, where)
    except AssertionError:
        keep(number, trial, run, differences=1)
        raise
    keep(number, trial, run, differences=0)
    assert trial.points[0].hit
    assert run.state() == "done"
    assert not list(run.path.rglob("*.tmp"))
    assert [row["iteration"] for row in rows(run.metrics)] == ["12", "20"]
    reasons = [attempt.message for attempt in run.read().attempts[:-1] if attempt.exit_code is not None]
    assert all(reasons), reasons
    if trial.processes == 1:
        assert "Traceback" not in run.log.read_text()
    if any(p.hit and p.target.startswith("data") and p.signal != "STOP" for p in trial.points):
        assert any("DataLoader worker" in str(reason) for reason in reasons), reasons


def keep(number: int, trial: Trial, run: RunFolder, differences: int) -> None:
    """Put the run's points in the place of older ones."""
    same = {"run": number, "processes": trial.processes, "data_workers": trial.data_workers,
            "differences": differences, "commit": short_commit(run.read().git)}  # fmt: skip
    points = [{**asdict(point), **same, "hit": int(point.hit)} for point in trial.points]
    keep_rows(RESULTS / "reliability" / "kill_points.csv", COLUMNS, "run", points)

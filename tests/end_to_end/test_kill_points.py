"""Runs ended in random ways at random points, on one process and on two: each ends as if it never had been.

The points follow from their numbers. `pytest tests/end_to_end/test_kill_points.py` counts them: one test each. Some
that were chosen are in test_interrupt.py and test_processes.py, which take less time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .broken_off import GATED, assert_same, gated, result, start_held
from .conftest import Place, ended, rows, small

ITERATIONS, EVERY, EPOCH = 20, 5, 6
RUNS = 24

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Point:
    """Where a run is ended, and how: `KILL worker`, say."""

    phase: str
    iteration: int
    how: str

    def __str__(self) -> str:
        return f"{self.how} in {self.phase} {self.iteration}"


def drawn(number: int) -> tuple[int, list[Point]]:
    """Processes, and one or two points in the order of their iterations."""
    dice = random.Random(number)
    processes = 1 + number % 2
    ways = ["KILL worker", "KILL command", "TERM command", "INT command", "TERM worker"]
    if processes > 1:
        ways += ["KILL rank 1", "KILL launcher"]
    places = {
        "train": range(1, ITERATIONS),
        "checkpoint": range(EVERY, ITERATIONS, EVERY),
        "evaluation": (*range(EPOCH, ITERATIONS, EPOCH), ITERATIONS),
    }
    points = []
    for _ in range(dice.choice([1, 1, 2])):
        phase = dice.choice(["train", "train", "checkpoint", "evaluation"])
        points.append(Point(phase, dice.choice(places[phase]), dice.choice(ways)))
    return processes, sorted(points, key=lambda point: (point.iteration, point.phase == "evaluation"))


def command(processes: int) -> list[str]:
    return ["run", "retinanet-r50-rlo", "--gpus", str(processes), *small(
        "weighting.alpha=4", *GATED, "schedule.gpus=2", iterations=ITERATIONS, checkpoint_every=EVERY)]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(make_place) -> Callable[[int], dict[str, Any]]:
    """What the run computes when it is left alone, by the number of its processes."""
    known: dict[int, dict[str, Any]] = {}

    def result_of(processes: int) -> dict[str, Any]:
        if processes not in known:
            place = gated(make_place(f"unbroken{processes}"))
            said = place.msdet(*command(processes))
            assert said.returncode == 0, said.stdout + said.stderr
            known[processes] = result(place.only_run(), ITERATIONS)
        return known[processes]

    return result_of


def end_at(place: Place, point: Point, words: list[str]) -> None:
    """The command, ended at the point in the way it says, and waited for."""
    process, rank_0 = start_held(place, point.phase, point.iteration, words)
    try:
        if rank_0 is not None and process.poll() is None:
            signal_to(process, rank_0, point.how)
        said = ended(process)
    finally:
        process.kill()
    assert "Traceback" not in said.stdout + said.stderr
    # A killed worker is taken up again by the command that started it.
    assert said.returncode in (0, 75, -signal.SIGKILL), said.stdout + said.stderr


def signal_to(process: subprocess.Popen[str], rank_0: int, how: str) -> None:
    name, _, whom = how.partition(" ")
    if whom == "command":
        target = process.pid
    elif whom == "worker":
        target = rank_0
    else:
        launcher = parent(rank_0)
        target = launcher if whom == "launcher" else other_rank(rank_0)
    os.kill(target, getattr(signal, f"SIG{name}"))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def other_rank(rank_0: int) -> int:
    launcher = parent(rank_0)
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(int(word) for word in children if int(word) != rank_0)


@pytest.mark.parametrize("number", range(RUNS))
def test_a_run_ended_at_a_random_point(
    number: int, place: Place, unbroken: Callable[[int], dict[str, Any]], record_property
) -> None:
    gated(place)
    processes, points = drawn(number)
    record_property("points", "; ".join(map(str, points)))
    words = command(processes)
    for point in points:
        end_at(place, point, words)
    (place.folder / "hold").unlink()
    said = place.msdet(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    assert run.state() == "done"
    # Ranks agree to stop one batch later: behind the last batch of an evaluation there is none, and the run ends.
    at_the_end = processes > 1 and "KILL" not in points[-1].how and points[-1].phase == "evaluation"
    assert len(run.read().attempts) > 1 or at_the_end, "it was never ended"
    assert not list(run.path.rglob("*.tmp"))
    assert [row["iteration"] for row in rows(run.metrics)] == ["6", "12", "18", "20"]
    assert_same(result(run, ITERATIONS), unbroken(processes), f"after {', then '.join(map(str, points))}: ")

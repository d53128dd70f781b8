"""Runs ended in random ways at random points, on one process and on two: each ends as if it never had been.

The points follow from their numbers. `pytest tests/end_to_end/test_kill_points.py` counts them: one test each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.runs.run_folder import RunFolder

from .conftest import Place, ended, rows, small, wait_until

ITERATIONS, EVERY, EPOCH = 20, 5, 6
POINTS = 24

# Holds rank 0 once, at the point that the file `hold` names, until it is ended.
GATE = """\
import json
import os
import time
from pathlib import Path

from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from experiments.training.engine.stopping import STOP

PUT = LocalBackend.put


def hold(phase, iteration):
    point, mark = Path("hold"), Path("held")
    if os.environ.get("RANK", "0") != "0" or not point.exists():
        return
    wanted = json.loads(point.read_text())
    if [phase, iteration] != wanted[:2] or mark.exists():
        return
    mark.write_text(str(os.getpid()))
    while not STOP.is_set():
        time.sleep(0.01)


def put(self, content, path):
    name = Path(path).name
    if name.startswith("iter_"):
        iteration = int(name.split("_")[1].split(".")[0])
        Path(path).write_bytes(content[: len(content) // 2])
        hold("checkpoint", iteration)
    PUT(self, content, path)


LocalBackend.put = put


@HOOKS.register_module()
class Gate(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        hold("train", runner.iter)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 1:
            hold("evaluation", runner.iter)
"""


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
        "weighting.alpha=4", "imports=[gate]", "set.+default_hooks.gate={type: Gate}", "schedule.eval_every=1",
        "schedule.gpus=2", iterations=ITERATIONS, checkpoint_every=EVERY)]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(make_place) -> Callable[[int], dict[str, Any]]:
    """What the run computes when it is left alone, by the number of its processes."""
    known: dict[int, dict[str, Any]] = {}

    def result_of(processes: int) -> dict[str, Any]:
        if processes not in known:
            place = gated(make_place(f"unbroken{processes}"))
            said = place.msdet(*command(processes))
            assert said.returncode == 0, said.stdout + said.stderr
            known[processes] = result(place.only_run())
        return known[processes]

    return result_of


def gated(place: Place) -> Place:
    (place.folder / "gate.py").write_text(GATE, encoding="utf-8")
    place.extra = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return place


def result(run: RunFolder) -> dict[str, Any]:
    """All that a run computes, as text and tensors."""
    checkpoint = torch.load(run.checkpoints / f"iter_{ITERATIONS}.pth", map_location="cpu", weights_only=True)
    content = {key: checkpoint[key] for key in ("state_dict", "optimizer", "param_schedulers", "weighting")}
    detections = json.loads((run.detections / "val.bbox.json").read_text())
    files = {"trace": run.trace.read_text(), "metrics": run.metrics.read_text(), "detections": detections}
    return {**content, **files, "final": run.read().metrics}


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def end_at(place: Place, point: Point, words: list[str]) -> None:
    """The command, ended at the point in the way it says, and waited for."""
    mark: Path = place.folder / "held"
    mark.unlink(missing_ok=True)
    (place.folder / "hold").write_text(json.dumps([point.phase, point.iteration]))
    process = place.start(*words)
    try:
        wait_until(
            lambda: (mark.exists() and mark.read_text()) or process.poll() is not None, f"{point}", 120
        )
        if process.poll() is None:
            signal_to(process, int(mark.read_text()), point.how)
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
        others = [pid for pid in children(launcher) if pid != rank_0]
        target = launcher if whom == "launcher" else others[0]
    os.kill(target, getattr(signal, f"SIG{name}"))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(POINTS))
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
    assert not list(run.checkpoints.glob("*.tmp"))
    assert [row["iteration"] for row in rows(run.metrics)] == ["6", "12", "18", "20"]
    ours, theirs = result(run), unbroken(processes)
    for key in theirs:
        assert same(ours[key], theirs[key]), f"{key} differs after {', then '.join(map(str, points))}"

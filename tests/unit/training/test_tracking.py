"""Trackers: a real TensorBoard event file against the run's own trace, over a run that was broken off."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.common import trackers
from experiments.common.errors import UserError
from experiments.data.shapes import generator as shapes
from experiments.recipes import loading as recipes
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Attempt, Launch, Record, format_now
from experiments.runs.run_folder import RunFolder
from experiments.training.hooks import tracking
from experiments.training.worker import train
from tests.children import search_path

ROOT = Path(__file__).resolve().parents[3]
ITERATIONS, BROKEN_AT, CHECKPOINT_EVERY, ALPHA = (
    10,
    9,
    4,
    3,
)  # resumed from 8: one step and the end of an interval again

# A module of the user's own that ends the process as a power cut does.
POWER_CUT = f"""\
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class PowerCut(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == {BROKEN_AT} and os.path.exists("cut"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def prepared(folder: Path, data_root: Path, *track: str) -> RunFolder:
    """A run that is ready for a worker: 10 iterations of 2 images, intervals of 3."""
    recipe = load_recipe(
        "retinanet-r50-rlo",
        "tiny",
        sets=[
            f"schedule.iterations={ITERATIONS}", f"checkpoint_every={CHECKPOINT_EVERY}", f"weighting.alpha={ALPHA}",
            "schedule.images_per_gpu=2", "schedule.warmup=5", "imports=[power_cut]",
            "set.+default_hooks.cut={type: PowerCut}", "set.default_hooks.logger.interval=1",
        ],
    )  # fmt: skip
    (folder / "power_cut.py").write_text(POWER_CUT)
    run = RunFolder.of(folder / "results", recipe.name, "0" * 8, 0)
    run.path.mkdir(parents=True)
    run.recipe.write_text(recipes.dump(recipe))
    data = {
        "name": "shapes",
        "format": "coco",
        "root": str(data_root),
        "fingerprint": "0" * 16,
        "classes": list(shapes.CLASSES),
    }
    record = Record(recipe=recipe.name, recipe_id="", config_hash="0" * 8, seed=0, dataset=data)
    run.write(record.model_copy(update={"launch": Launch(track=list(track))}))
    return run


def work(run: RunFolder, **env: str) -> subprocess.CompletedProcess[str]:
    folder = run.path.parents[3].parent
    return subprocess.run(
        [sys.executable, "-m", "experiments.training.worker", str(run.path)], cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path(), **env},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def traced(run: RunFolder) -> list[dict[str, str]]:
    with open(run.trace, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


ACTIONS = ["variance", "smallest", "largest", "uniform"]


def expected(run: RunFolder) -> dict[str, dict[int, np.float32]]:
    """Every number of trace.csv, as an event file of single precision keeps it: tag to iteration to value."""
    tags: dict[str, dict[int, np.float32]] = {}
    for row in traced(run):
        at, head = int(row["iteration"]), row["head"]
        shared = {name: row[name] for name in ("reward", *(f"p_{action}" for action in ACTIONS))}
        shared["action"] = str(ACTIONS.index(row["action"])) if row["action"] else ""
        own = {name: value for name, value in row.items()
               if name not in ("interval", "iteration", "head", "level", *shared)}  # fmt: skip
        for name, value in [*((f"{k}/{head}/{row['level']}", v) for k, v in own.items()),
                            *((f"{k}/{head}", v) for k, v in shared.items())]:  # fmt: skip
            if value:
                tags.setdefault(name, {})[at] = np.float32(value)
    return tags


def scalars(run: RunFolder) -> dict[str, list[tuple[int, np.float32]]]:
    """What TensorBoard shows: tag to (step, value)s."""
    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, np.float32(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def holds(run: RunFolder, metrics: dict[str, float]) -> None:
    """TensorBoard shows the trace, and what MMEngine's own hook sends: each step once."""
    seen, trace = scalars(run), expected(run)
    assert {int(row["iteration"]) for row in traced(run)} == {3, 6, 9}
    assert {tag for tag in seen if "/bbox_head" in tag} == set(trace)
    assert {tag.split("/")[0] for tag in trace} == {
        "loss_cls", "loss_bbox", "loss", "variance", "rate", "iou", "weight", "action", "reward",
        "p_variance", "p_smallest", "p_largest", "p_uniform",
    }  # fmt: skip
    for tag, values in trace.items():
        assert seen[tag] == sorted(values.items()), tag
    steps = list(range(1, ITERATIONS + 1))
    assert [step for step, _ in seen["loss"]] == [step for step, _ in seen["lr"]] == steps
    assert seen["AP"] == [(ITERATIONS, np.float32(metrics["AP"]))]


@pytest.mark.slow
def test_tensorboard_shows_what_the_trace_holds(tmp_path: Path, shapes_root: Path):
    run = prepared(tmp_path, shapes_root, "tensorboard")
    record = run.read()
    record.attempts.append(Attempt(started=format_now(), host="", pid=0))
    train(run, record, record.attempts[0], rank=0)
    holds(run, record.metrics)
    assert "ResumedTensorboard" not in run.config.read_text()  # no part of what the run is


@pytest.mark.slow
def test_a_run_that_was_killed_is_shown_whole_and_once(tmp_path: Path, shapes_root: Path):
    run = prepared(tmp_path, shapes_root, "tensorboard")
    (tmp_path / "cut").touch()
    assert work(run).returncode == -signal.SIGKILL
    assert run.last_checkpoint().name == "iter_8.pth"
    assert max(step for step, _ in scalars(run)["loss"]) == BROKEN_AT  # nothing was lost with the process
    (tmp_path / "cut").unlink()
    done = work(run)
    assert done.returncode == 0, done.stderr
    assert len(list((run.path / "tensorboard").iterdir())) == 2
    holds(run, run.read().metrics)


def test_unknown_and_missing_trackers_are_said_before_anything_starts(tmp_path: Path, monkeypatch):
    trackers.check([])
    trackers.check(["tensorboard"])
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        trackers.check(["tensorbord"])
    (tmp_path / "wandb").mkdir()  # as W&B leaves one in the working directory
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError, match=f"'{name}' is not installed") as caught:
            trackers.check([name])
        assert caught.value.hint == f"pip install 'msdet[{name}]'"


def test_every_tracker_is_an_extra():
    text = (ROOT / "pyproject.toml").read_text()
    for name in trackers.TRACKERS:
        assert f'\n{name} = ["{name}' in text


def test_the_tracker_s_address_is_not_in_the_config_that_the_log_has(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:lovelace@mlflow.example:5000")
    monkeypatch.setattr(trackers, "check", lambda names: None)
    config = Config({"visualizer": {"vis_backends": []}, "default_hooks": {"logger": {}}})
    tracking.add(config, ["mlflow"], RunFolder(tmp_path / "recipe/0123abcd/seed0"), 0)
    assert "ResumedMLflow" in config.pretty_text
    assert "lovelace" not in config.pretty_text

"""The main road: two whole tiny trainings, what lies on disk afterwards, and what can be done with it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.common.cache import FileFacts
from experiments.runs.outputs import find_changed_files
from experiments.runs.run_flags import list_marks
from experiments.runs.run_folder import RunFolder

from .conftest import TRAINED, TRAINED_ITERATIONS, Place, Trained, rows, shorten_profile

ITERATIONS, ALPHA, LEVELS = TRAINED_ITERATIONS, 10, ["P3", "P4", "P5", "P6", "P7"]
ACTIONS = ["variance", "smallest", "largest", "uniform"]
COCO_NAMES = ["AP", "AP50", "AP75", "APS", "APM", "APL"]

both = pytest.mark.parametrize("which", ["baseline", "rlo"])


def test_two_recipes_train_to_a_useful_but_unsaturated_ap(trained: Trained) -> None:
    for run in (trained.baseline, trained.rlo):
        record = run.read()
        print(f"{run.name}: {record.timings['total_s']:.0f} s, AP {record.metrics['AP']:.1f}")
        assert 20 <= record.metrics["AP"] <= 45
        assert f"{run.name}: done" in trained.said.stdout
        assert f"AP {record.metrics['AP']:.1f}" in trained.said.stdout
    assert "next: msdet report" in trained.said.stdout
    assert "Traceback" not in trained.said.stdout + trained.said.stderr


@both
def test_the_run_folder_holds_what_the_design_promises(trained: Trained, which: str) -> None:
    run = getattr(trained, which)
    there = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    promised = {"recipe.yaml", "config.py", "record.json", "progress.json", "metrics.csv", "trace.csv", "log.txt",
                "detections/val.bbox.json", f"checkpoints/iter_{ITERATIONS}.pth", "checkpoints.sha256"}  # fmt: skip
    assert promised <= there
    assert not [name for name in there if name.endswith(".tmp")]
    assert len(list(run.checkpoints.iterdir())) <= 2
    progress = json.loads(run.progress.read_text())
    assert (progress["iteration"], progress["total"]) == (ITERATIONS, ITERATIONS)
    assert progress["phase"] == "evaluate" and progress["batch"] == progress["batches"] > 1
    (evaluation,) = rows(run.metrics)
    assert evaluation["iteration"] == str(ITERATIONS)
    assert {name: float(evaluation[name]) for name in COCO_NAMES} == run.read().metrics


@both
def test_the_record_says_what_was_done_and_with_what(trained: Trained, which: str) -> None:
    run = getattr(trained, which)
    record = json.loads(run.record_file.read_text())
    recipe, digest, _ = run.path.parts[-3:]
    assert (record["recipe"], record["config_hash"], record["seed"]) == (recipe, digest, 0)
    assert (record["profile"], record["status"], record["schema_version"]) == ("tiny", "done", 2)
    assert record["iterations"] == ITERATIONS
    assert list(record["metrics"]) == COCO_NAMES
    (attempt,) = record["attempts"]
    assert (attempt["exit_code"], attempt["exit_class"], attempt["message"]) == (0, "done", None)
    assert (attempt["world_size"], attempt["micro_batch"], attempt["accumulation"]) == (1, 8, 1)
    assert (attempt["first_iteration"], attempt["last_iteration"]) == (0, ITERATIONS)
    lasted = datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])
    assert 0 <= record["timings"]["total_s"] <= lasted.total_seconds() + 2
    assert 0 < record["timings"]["seconds_per_iteration"] * ITERATIONS < record["timings"]["total_s"]
    data = record["dataset"]
    assert Path(data["root"]) == trained.place.folder / "data" / "shapes"
    annotations = json.loads((Path(data["root"]) / "annotations" / "train.json").read_text())
    assert data["images"]["train"] == len(annotations["images"])
    assert data["classes"] == [category["name"] for category in annotations["categories"]]
    assert re.fullmatch(r"[0-9a-f]{16}", data["fingerprint"])
    assert {"torch", "onedl-mmdetection", "msdet"} <= set(record["environment"]["packages"])
    assert record["command"][1:] == list(TRAINED)
    for name in ("metrics.csv", "trace.csv", "detections/val.bbox.json"):
        assert record["digests"][name] == hashlib.sha256((run.path / name).read_bytes()).hexdigest()
    assert list_marks(run.read(), find_changed_files(run, record["digests"], FileFacts())) == ""


@both
def test_metrics_are_those_that_pycocotools_finds_in_the_saved_detections(
    trained: Trained, which: str
) -> None:
    run = getattr(trained, which)
    annotations = Path(run.read().dataset["root"]) / "annotations" / "val.json"
    expected = pycocotools_ap(annotations, run.detections / "val.bbox.json")
    assert run.read().metrics == pytest.approx(expected, abs=1e-6)


def pycocotools_ap(annotations: Path, detections: Path) -> dict[str, float]:
    """The six COCO numbers in percent, by the reference implementation alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * float(v) for name, v in zip(COCO_NAMES, evaluation.stats) if v >= 0}


@both
def test_the_trace_has_a_row_for_each_interval_and_level(trained: Trained, which: str) -> None:
    run = getattr(trained, which)
    header = run.trace.read_text().splitlines()[0]
    assert header == (
        "interval,iteration,head,level,loss_cls,loss_bbox,loss_centerness,loss,variance,rate,iou,weight,action,reward,"
        "p_variance,p_smallest,p_largest,p_uniform"
    )
    trace = rows(run.trace)
    place = [(int(r["interval"]), int(r["iteration"]), r["level"]) for r in trace]
    assert place == [(t, t * ALPHA, level) for t in range(1, ITERATIONS // ALPHA + 1) for level in LEVELS]
    positives = {row["level"] for row in trace if row["iou"]}
    assert positives >= set(LEVELS[:4])  # the coarsest may have none
    for row in trace:
        assert row["iou"] == "" or 0 < float(row["iou"]) < 1
        assert float(row["loss"]) == pytest.approx(float(row["loss_cls"]) + float(row["loss_bbox"]))
        assert math.isfinite(float(row["loss"])) and float(row["variance"]) >= 0
        assert row["loss_centerness"] == ""  # RetinaNet has none


def test_the_baselines_levels_weigh_one_and_have_no_action(trained: Trained) -> None:
    trace = rows(trained.baseline.trace)
    assert {float(row["weight"]) for row in trace} == {1.0}
    for column in ("action", "reward", *(f"p_{a}" for a in ACTIONS)):
        assert {row[column] for row in trace} == {""}


def test_the_losses_of_the_first_interval_are_the_same_for_both(trained: Trained) -> None:
    """Until the first interval ends RLO is the baseline: same seed, same data, same weights of 1."""
    for column in ("loss_cls", "loss_bbox", "variance"):
        ours, theirs = (
            [row[column] for row in rows(run.trace)[:5]] for run in (trained.rlo, trained.baseline)
        )
        assert ours == theirs


def test_rlo_weights_rewards_and_probabilities_follow_from_the_trace(trained: Trained) -> None:
    """The method written once more, from losses and actions alone (alpha 10, n 2, gamma 0.01, beta 0.1 to 0.9)."""
    trace = rows(trained.rlo.trace)
    intervals = [trace[start : start + 5] for start in range(0, len(trace), 5)]
    p = dict.fromkeys(ACTIONS, 0.25)
    loss_before, variance_before, expected = np.zeros(5), np.ones(5), np.ones(5)
    rewards, seen = [], set()
    for t, levels in enumerate(intervals):
        loss = np.array([float(row["loss"]) for row in levels])
        variance = np.array([float(row["variance"]) for row in levels])
        rate = (variance_before - variance) / (variance_before + 1e-5)
        np.testing.assert_allclose([float(row["rate"]) for row in levels], rate, rtol=1e-9)
        np.testing.assert_allclose([float(row["weight"]) for row in levels], expected, rtol=1e-6)
        (action,) = {row["action"] for row in levels}
        reward = 0 if t == 0 else int(np.sign(loss_before.sum() - loss.sum()))
        assert {row["reward"] for row in levels} == {str(reward)}
        if t == 0:
            assert action == ""
        else:
            new = min(max(p[action] + (0.01 if reward > 0 else -0.01), 0.1), 0.9)
            p = {a: new if a == action else v * (1 - new) / (1 - p[action]) for a, v in p.items()}
        for row in levels:
            found = [float(row[f"p_{a}"]) for a in ACTIONS]
            assert found == pytest.approx(list(p.values()), abs=1e-12)
            assert sum(found) == pytest.approx(1, abs=1e-12)
        if t + 1 < len(intervals):
            drawn = intervals[t + 1][0]["action"]
            order = {"variance": -rate, "smallest": loss, "largest": -loss}.get(drawn)
            expected = np.ones(5)
            if order is not None:
                first, second = np.argsort(order, kind="stable")[:2]
                expected[first] += 1.5 * loss[first] / loss.sum()
                expected[second] += loss[second] / loss.sum()
            seen.add(drawn)
        loss_before, variance_before = loss, variance
        rewards.append(reward)
    assert seen == set(ACTIONS)
    assert {1, -1} <= set(rewards)


def test_the_same_command_again_changes_nothing(trained: Trained) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        folder = trained.place.folder
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}

    before = state()
    again = trained.place.msdet(*TRAINED, timeout=60)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done already") == 2
    assert state() == before


def test_the_commands_that_look_at_runs_agree_with_the_record(trained: Trained) -> None:
    place = trained.place
    listed = {run["run"]: run for run in json.loads(place.msdet("runs", "--json").stdout)}
    assert set(listed) == {trained.baseline.name, trained.rlo.name}
    for run in (trained.baseline, trained.rlo):
        assert listed[run.name]["state"] == "done"
        assert listed[run.name]["record"]["metrics"] == run.read().metrics
    page = place.msdet("report", "table1", "--format", "md").stdout
    difference = trained.rlo.read().metrics["AP"] - trained.baseline.read().metrics["AP"]
    ours = page[page.index("tiny") :]
    for run in (trained.baseline, trained.rlo):
        assert f"{run.read().metrics['AP']:.1f}" in ours
    assert f"{difference:+.1f}".replace("-", "−") in ours.replace("-", "−")


def test_eval_of_a_run_gives_its_metrics_again(trained: Trained) -> None:
    said = trained.place.invoke("eval", trained.rlo.name, "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["metrics"] == pytest.approx(trained.rlo.read().metrics, abs=1e-6)


def test_predict_detects_what_the_evaluation_kept(trained: Trained) -> None:
    """To the last bit with as many threads: each image goes through beside those that were beside it then."""
    ids = [5, 2]
    words = [
        "--val-ids",
        ",".join(map(str, ids)),
        "--against",
        trained.baseline.name,
        "--json",
        "--out",
        "drawn",
    ]
    told = trained.place.invoke("predict", trained.rlo.name, *words)
    assert told.returncode == 0, told.stderr
    images = json.loads(told.stdout)["images"]
    assert [image["id"] for image in images] == ids
    names = {entry["id"]: entry["name"] for entry in _annotations(trained.rlo)["categories"]}
    for number, run in enumerate((trained.baseline, trained.rlo)):
        kept = json.loads((run.detections / "val.bbox.json").read_text())
        for image in images:
            own = list(image["detections"].values())[number]
            wanted = sorted((e for e in kept if e["image_id"] == image["id"]), key=lambda e: -e["score"])
            assert [d["class"] for d in own] == [names[e["category_id"]] for e in wanted]
            assert len(own) > 5
            for found, entry in zip(own, wanted):
                assert [*found["box"], found["score"]] == pytest.approx(
                    [*entry["bbox"], entry["score"]], abs=1e-3
                )
            assert (trained.place.folder / image["drawn"]).stat().st_size > 10_000


def _annotations(run: RunFolder) -> dict[str, Any]:
    return json.loads((Path(run.read().dataset["root"]) / "annotations" / "val.json").read_text())


def test_recipe_and_config_in_the_run_folder_are_runnable(trained: Trained) -> None:
    from mmengine import Config

    run = trained.rlo
    recipe = yaml.safe_load(run.recipe.read_text())
    assert recipe["profile"] == "tiny" and recipe["weighting"]["alpha"] == ALPHA
    said = trained.place.msdet("run", str(run.recipe), "--dry-run", "--json")
    (planned,) = json.loads(said.stdout)
    assert (planned["run"], planned["todo"]) == (run.name, "skip")  # the same hash, so it is done already
    config = Config.fromfile(run.config)
    assert config.model.type == "LevelWeightedRetinaNet"
    assert (config.model.weighting.rule, config.model.weighting.alpha) == ("rlo", ALPHA)
    assert config.randomness.seed == 0


def stock_config(run: RunFolder):
    """The run's config with MMDetection's own detector in place of ours, and nothing else of ours."""
    from mmengine import Config

    config = Config.fromfile(run.config, import_custom_modules=False)
    config.model.type = "RetinaNet"
    config.model.pop("weighting")
    config.pop("custom_imports")
    return config


@both
def test_weights_load_in_stock_mmdetection_and_detect_the_same(
    trained: Trained, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    from experiments import detection  # noqa: F401  (stands in for the compiled operators, nothing more)

    from mmdet.apis import inference_detector, init_detector  # isort: skip
    from mmdet.utils import register_all_modules  # isort: skip

    run = getattr(trained, which)
    checkpoint = torch.load(run.last_checkpoint(), map_location="cpu", weights_only=True)
    assert {"state_dict", "optimizer", "param_schedulers", "weighting"} <= set(checkpoint)
    register_all_modules(init_default_scope=True)
    model = init_detector(stock_config(run), str(run.last_checkpoint()), device="cpu", palette="random")
    said = "".join(capfd.readouterr())
    assert type(model).__name__ == "RetinaNet"
    assert "do not match" not in said and "missing" not in said and "unexpected" not in said
    assert list(model.state_dict()) == list(checkpoint["state_dict"])
    root = Path(run.read().dataset["root"])
    kept = json.loads((run.detections / "val.bbox.json").read_text())
    truth = json.loads((root / "annotations" / "val.json").read_text())
    categories = [category["id"] for category in truth["categories"]]
    for image in truth["images"][:3]:
        found = inference_detector(model, str(root / "val" / image["file_name"])).pred_instances
        ours = [d for d in kept if d["image_id"] == image["id"]]
        assert len(found) == len(ours) > 0
        assert found.scores.numpy() == pytest.approx([d["score"] for d in ours], abs=1e-4)
        assert [categories[label] for label in found.labels.tolist()] == [d["category_id"] for d in ours]
        boxes = np.array([d["bbox"] for d in ours])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(found.bboxes.numpy(), boxes, atol=0.05)


def test_a_run_that_is_done_resolves_alike_from_any_folder(trained: Trained, place: Place) -> None:
    """The hash is of the experiment: neither the working directory nor the place of the data is in it."""
    results = trained.place.folder / "results"
    shorten_profile(place.folder)
    said = place.msdet(*TRAINED, "--dry-run", "--json", "--results-dir", str(results))
    assert [planned["todo"] for planned in json.loads(said.stdout)] == ["skip", "skip"]

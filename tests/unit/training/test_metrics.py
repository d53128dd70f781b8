"""Metrics against pycocotools and against an average precision written here from VOC's definition."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS as MMENGINE_METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments import detection  # noqa: F401  (first: it installs the operators)
from experiments.data.ground_truth import GroundTruth
from experiments.data.readers import Box, Image
from experiments.reporting.breakdown.voc_pass import compute_voc_aps
from experiments.training.metrics import ExactCocoMetric, ExactVocMetric

CLASSES = ("cat", "dog", "cow")
CATEGORIES = {"cat": 9, "dog": 3, "cow": 12}  # MMDetection numbers classes by their place, not by their id
SMALL, MEDIUM, LARGE = (6, 30), (34, 90), (100, 200)  # sides in pixels, well inside COCO's size classes
NAMES = ("AP", "AP50", "AP75", "APS", "APM", "APL")


def random_box(rng: np.random.Generator, sides: tuple[int, int]) -> np.ndarray:
    """x1, y1, x2, y2 in an image of 400 x 300 pixels."""
    width, height = rng.uniform(*sides, size=2)
    x, y = rng.uniform(0, 400 - width), rng.uniform(0, 300 - height)
    return np.array([x, y, x + width, y + height], dtype=np.float32)


def detections_of(
    rng: np.random.Generator, truth: list[tuple[int, np.ndarray]], sides: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and labels: most objects are found, once or twice and more or less well; some are not there."""
    boxes, labels = [], []
    for label, box in truth:
        for _ in range(rng.integers(0, 3)):
            size = np.tile(box[2:] - box[:2], 2)
            boxes.append(box + rng.normal(0, rng.choice([0.01, 0.08, 0.2]), size=4) * size)
            labels.append(label if rng.random() < 0.9 else rng.integers(len(CLASSES)))
    for _ in range(rng.integers(0, 4)):
        boxes.append(random_box(rng, sides))
        labels.append(rng.integers(len(CLASSES)))
    scores = rng.random(len(boxes)).astype(np.float32)  # drawn, so all different
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), scores, np.array(labels, dtype=np.int64)


def instances(**values: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in values.items()}


# ------------------------------------------------------------------------------------------------ COCO


class CocoCase:
    """Annotations on disk, and detections in the form in which MMDetection hands them to a metric."""

    def __init__(self, folder: Path, seed: int, sizes: list[tuple[int, int]], images: int = 25) -> None:
        rng = np.random.default_rng(seed)
        self.samples: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []  # the same detections as pycocotools wants them
        content: dict[str, list[dict[str, Any]]] = {
            "images": [], "annotations": [],
            "categories": [{"id": i, "name": n} for n, i in CATEGORIES.items()],
        }  # fmt: skip
        for image_id in range(5, 5 + images):
            content["images"].append(
                {"id": image_id, "file_name": f"{image_id}.jpg", "width": 400, "height": 300}
            )
            truth = []
            for _ in range(rng.integers(0, 6)):
                label, box = int(rng.integers(2 + seed % 2)), random_box(rng, sizes[rng.integers(len(sizes))])
                truth.append((label, box))
                x1, y1, x2, y2 = map(float, box)
                content["annotations"].append(
                    {"id": len(content["annotations"]) + 1, "image_id": image_id, "iscrowd": int(rng.random() < 0.1),
                     "category_id": CATEGORIES[CLASSES[label]], "bbox": [x1, y1, x2 - x1, y2 - y1],
                     "area": (x2 - x1) * (y2 - y1)}
                )  # fmt: skip
            boxes, scores, labels = detections_of(rng, truth, sizes[0])
            predicted = instances(bboxes=boxes, scores=scores, labels=labels)
            self.samples.append({"img_id": image_id, "ori_shape": (300, 400), "pred_instances": predicted})
            for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels):
                self.results.append(
                    {"image_id": image_id, "category_id": CATEGORIES[CLASSES[label]], "score": score,
                     "bbox": [x1, y1, x2 - x1, y2 - y1]}
                )  # fmt: skip
        self.annotations = folder / "annotations.json"
        self.annotations.write_text(json.dumps(content))

    def measured(self, **options: Any) -> dict[str, float]:
        metric = ExactCocoMetric(ann_file=str(self.annotations), metric="bbox", **options)
        metric.dataset_meta = {"classes": CLASSES}
        with contextlib.redirect_stdout(io.StringIO()):
            for start in range(0, len(self.samples), 4):  # in batches
                metric.process({}, self.samples[start : start + 4])
            return dict(metric.evaluate(len(self.samples)))

    def expected(self, results: list[dict[str, Any]] | None = None) -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(self.annotations))
            evaluation = COCOeval(truth, truth.loadRes(self.results if results is None else results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {n: 100 * v for n, v in zip(NAMES, evaluation.stats) if v != -1}


@pytest.mark.parametrize("seed", range(2))
def test_coco_metrics_are_pycocotools(seed: int, tmp_path: Path):
    case = CocoCase(tmp_path, seed, [SMALL, MEDIUM, LARGE])
    expected = case.expected()
    assert set(expected) == set(NAMES)
    assert all(5 < value < 95 for value in expected.values())  # neither all wrong nor all right
    measured = case.measured()
    assert list(measured) == list(NAMES)
    assert measured == pytest.approx(expected, rel=0, abs=1e-9)
    assert any(abs(value - round(value, 1)) > 1e-3 for value in measured.values())  # unrounded


@pytest.mark.parametrize(("sizes", "absent"), [([SMALL], {"APM", "APL"}), ([MEDIUM, LARGE], {"APS"})])
def test_a_size_without_ground_truth_has_no_ap(
    sizes: list[tuple[int, int]], absent: set[str], tmp_path: Path
):
    case = CocoCase(tmp_path, 1, sizes)
    expected = case.expected()
    assert set(expected) == set(NAMES) - absent
    assert case.measured() == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize(("sizes", "absent"), [([SMALL, MEDIUM, LARGE], set()), ([SMALL], {"APM", "APL"})])
def test_no_detections_at_all_is_zero(sizes: list[tuple[int, int]], absent: set[str], tmp_path: Path):
    case = CocoCase(tmp_path, 2, sizes)
    empty = instances(
        bboxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, np.int64)
    )
    case.samples = [{**sample, "pred_instances": empty} for sample in case.samples]
    measured = case.measured(outfile_prefix=str(tmp_path / "detections" / "val"))
    assert measured == dict.fromkeys([name for name in NAMES if name not in absent], 0.0)
    assert json.loads((tmp_path / "detections" / "val.bbox.json").read_text()) == []


def test_the_coco_detections_that_are_kept_are_those_that_were_evaluated(tmp_path: Path):
    case = CocoCase(tmp_path, 3, [SMALL, MEDIUM, LARGE])
    measured = case.measured(outfile_prefix=str(tmp_path / "run" / "detections" / "val"))
    assert [path.name for path in (tmp_path / "run" / "detections").iterdir()] == ["val.bbox.json"]
    kept = json.loads((tmp_path / "run" / "detections" / "val.bbox.json").read_text())

    def by_score(entry: dict[str, Any]) -> float:
        return entry["score"]

    assert sorted(kept, key=by_score) == sorted(case.results, key=by_score)
    assert case.expected(kept) == pytest.approx(measured, rel=0, abs=1e-9)


# ------------------------------------------------------------------------------------------------- VOC


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """IoU as VOC's development kit has it: corners are pixels, so a box is one wider than their difference."""
    width = min(one[2], two[2]) - max(one[0], two[0]) + 1
    height = min(one[3], two[3]) - max(one[1], two[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, two)]
    return width * height / (sum(areas) - width * height)


def average_precision(truth: list[list[tuple]], found: list[tuple]) -> float:
    """11-point AP of one class. Truth per image as (box, difficult); found as (score, image, box)."""
    taken = [[False] * len(image) for image in truth]
    positives = sum(not difficult for image in truth for _, difficult in image)
    hits = []
    for _, image, box in sorted(found, key=lambda entry: -entry[0]):
        overlaps = [overlap(box, other) for other, _ in truth[image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] < 0.5:
            hits.append(False)
        elif truth[image][best][1]:
            continue  # difficult: neither right nor wrong
        else:
            hits.append(not taken[image][best])
            taken[image][best] = True
    right = np.cumsum(hits) if hits else np.zeros(0)
    recall, precision = right / positives, right / np.arange(1, len(hits) + 1)
    points = [precision[recall * 10 >= tenth - 1e-9] for tenth in range(11)]
    return sum(point.max() if len(point) else 0.0 for point in points) / 11


class VocCase:
    """Whole-pixel boxes, many of them small: there VOC's one pixel more decides about matches."""

    def __init__(self, seed: int, difficult: float = 0.3, objects: int = 13) -> None:
        rng = np.random.default_rng(seed)
        self.truth: list[list[list[tuple]]] = [[[] for _ in range(8)] for _ in CLASSES]  # by class and image
        self.samples: list[dict[str, Any]] = []
        for label in range(2):  # the third class has no objects
            for number in range(objects + 5):  # 13 that count: no share of them falls on a tenth
                box = np.round(random_box(rng, (4, 14)))
                hard = number >= objects if difficult else False
                self.truth[label][rng.integers(8)].append((box, hard))
        for image in range(8):
            listed = [(c, box, hard) for c in range(3) for box, hard in self.truth[c][image]]
            boxes, scores, labels = detections_of(rng, [(c, box) for c, box, _ in listed], (4, 14))
            sample: dict[str, Any] = {"img_id": f"2007_{image:06d}", "ori_shape": (300, 400)}
            for key, wanted in (("gt_instances", False), ("ignored_instances", True)):
                chosen = [(c, box) for c, box, hard in listed if hard is wanted]
                sample[key] = instances(
                    bboxes=np.array([box for _, box in chosen], np.float32).reshape(-1, 4),
                    labels=np.array([c for c, _ in chosen], np.int64),
                )
            sample["pred_instances"] = instances(bboxes=boxes, scores=scores, labels=labels)
            self.samples.append(sample)

    def measured(self, **options: Any) -> dict[str, float]:
        metric = ExactVocMetric(metric="mAP", eval_mode="11points", **options)
        metric.dataset_meta = {"classes": CLASSES}
        for start in range(0, len(self.samples), 3):
            metric.process({}, self.samples[start : start + 3])
        return dict(metric.evaluate(len(self.samples)))

    def found(self) -> list[list[tuple]]:
        """By class: score, image, box."""
        found: list[list[tuple]] = [[] for _ in CLASSES]
        for image, sample in enumerate(self.samples):
            predicted = sample["pred_instances"]
            for label, score, box in zip(predicted["labels"], predicted["scores"], predicted["bboxes"]):
                found[label].append((score.item(), image, box.numpy()))
        return found

    def expected(self, found: list[list[tuple]] | None = None, truth: Any = None) -> float:
        """Mean over the classes that have objects, in percent."""
        truth = self.truth if truth is None else truth
        return 50 * sum(average_precision(truth[c], (found or self.found())[c]) for c in range(2))


@pytest.mark.parametrize("seed", range(2))
def test_voc_map_is_the_eleven_point_average_precision(seed: int):
    case = VocCase(seed)
    expected = case.expected()
    assert 10 < expected < 90
    assert case.measured() == {"mAP": pytest.approx(expected, rel=0, abs=1e-5)}


@pytest.mark.parametrize("seed", range(2))
def test_the_error_analysis_takes_the_same_map_apart(seed: int, tmp_path: Path):
    """`experiments.reporting` may not use MMDetection's function, and computes its own."""
    case = VocCase(seed)
    measured = case.measured(outfile_prefix=str(tmp_path / "val"))["mAP"]
    images = []
    for number, sample in enumerate(case.samples):
        boxes = [
            Box(CLASSES[c], (x1, y1, x2 - x1, y2 - y1), 0, "difficult" if hard else "")
            for c in range(3)
            for (x1, y1, x2, y2), hard in ((box.tolist(), hard) for box, hard in case.truth[c][number])
        ]
        images.append(Image(sample["img_id"], tmp_path, None, boxes))
    kept = json.loads((tmp_path / "val.bbox.json").read_text())
    classes, mean, counts = compute_voc_aps(GroundTruth(images, list(CLASSES), {}, ""), kept, CLASSES)
    assert mean == measured  # to the last bit
    for label in range(2):
        alone = 100 * average_precision(case.truth[label], case.found()[label])
        assert classes[CLASSES[label]] == pytest.approx(alone, rel=0, abs=1e-5)
        assert counts[CLASSES[label]] == sum(not hard for image in case.truth[label] for _, hard in image)
    assert list(classes) == list(CLASSES[:2])  # the third has no objects


def test_difficult_objects_and_the_pixel_more_both_count_in_these_cases(monkeypatch: pytest.MonkeyPatch):
    """That the test above can fail."""
    easy, plain = [], []
    for seed in range(4):
        case = VocCase(seed)
        as_easy = [[[(box, False) for box, _ in image] for image in by_class] for by_class in case.truth]
        easy.append(abs(case.expected(truth=as_easy) - case.expected()))
        before = case.expected()
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "overlap", _without_the_pixel(overlap))
            plain.append(abs(case.expected() - before))
    assert max(easy) > 1
    assert max(plain) > 1


def _without_the_pixel(legacy: Any) -> Any:
    less = np.array([0, 0, 1, 1])
    return lambda one, two: legacy(one - less, two - less)


def test_the_voc_detections_that_are_kept_are_those_that_were_evaluated(tmp_path: Path):
    case = VocCase(5)
    measured = case.measured(outfile_prefix=str(tmp_path / "detections" / "val"))
    kept = json.loads((tmp_path / "detections" / "val.bbox.json").read_text())
    assert len(kept) == sum(map(len, case.found()))
    numbers = {sample["img_id"]: i for i, sample in enumerate(case.samples)}
    found: list[list[tuple]] = [[] for _ in CLASSES]
    for entry in kept:
        assert entry["category"] == CLASSES[entry["category_id"]]
        x, y, width, height = entry["bbox"]
        box = np.array([x, y, x + width, y + height])
        found[entry["category_id"]].append((entry["score"], numbers[entry["image_id"]], box))
    assert measured["mAP"] == pytest.approx(case.expected(found), rel=0, abs=1e-5)


def test_voc_without_detections_is_zero(tmp_path: Path):
    case = VocCase(6)
    empty = instances(
        bboxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, np.int64)
    )
    case.samples = [{**sample, "pred_instances": empty} for sample in case.samples]
    assert case.measured(outfile_prefix=str(tmp_path / "val")) == {"mAP": 0.0}
    assert json.loads((tmp_path / "val.bbox.json").read_text()) == []


def test_both_are_registered_under_their_names():
    from mmdet.registry import METRICS

    assert METRICS.get("ExactCocoMetric") is ExactCocoMetric
    assert METRICS.get("ExactVocMetric") is ExactVocMetric
    assert MMENGINE_METRICS.get("ExactCocoMetric") is None  # MMDetection's registry, not MMEngine's

"""Real images, COCO- and VOC-format: metrics against independent implementations, dirty boxes included."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from .conftest import SHARED_DATA, Place, rows
from .test_run import pycocotools_ap

COCO, BCCD = SHARED_DATA / "coco-mini", SHARED_DATA / "bccd"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason="no ../shared/data/coco-mini beside the checkout")
needs_bccd = pytest.mark.skipif(not BCCD.is_dir(), reason="no ../shared/data/bccd beside the checkout")
SHORT = ["--set", "schedule.iterations=20", "--set", "weighting.alpha=5", "--set", "schedule.warmup=5"]
ZERO_SIZE = {
    "train": "BloodImage_00343",
    "val": "BloodImage_00338",
}  # each has a box without width and height


def bccd_page(place: Place, train: list[str], val: list[str]) -> Path:
    """A user's own data set: BCCD's images with the given lists, and the YAML that describes it."""
    root = place.folder / "blood"
    (root / "ImageSets").mkdir(parents=True)
    for name in ("Annotations", "JPEGImages"):
        (root / name).symlink_to(BCCD / "BCCD" / name)
    for split, ids in (("train", train), ("val", val)):
        (root / "ImageSets" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    content = {
        "name": "blood",
        "format": "voc",
        "root": str(root),
        "splits": {s: {"annotations": f"ImageSets/{s}.txt"} for s in ("train", "val")},
    }
    path = place.folder / "blood.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def listed(split: str) -> list[str]:
    return (BCCD / "BCCD" / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def eleven_point_map(annotations: Path, ids: list[str], detections: list[dict]) -> float:
    """VOC 2007's mean average precision in percent, from the XML files: IoU 0.5, each object found once."""
    truth: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for image in ids:
        for thing in ElementTree.parse(annotations / f"{image}.xml").getroot().iter("object"):
            assert thing.findtext("difficult") == "0"  # BCCD has none, so nothing is left out below
            corners = [float(thing.findtext(f"bndbox/{k}")) - 1 for k in ("xmin", "ymin", "xmax", "ymax")]
            truth[thing.findtext("name"), image].append(corners)
    precisions = []
    for name in sorted({name for name, _ in truth}):
        total = sum(len(boxes) for (kind, _), boxes in truth.items() if kind == name)
        found: set[tuple[str, int]] = set()
        hits = []
        for d in sorted((d for d in detections if d["category"] == name), key=lambda d: -d["score"]):
            overlaps = [iou(d["bbox"], box) for box in truth[name, d["image_id"]]]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= 0.5 and (d["image_id"], best) not in found
            if hit:
                found.add((d["image_id"], best))
            hits.append(hit)
        true = np.cumsum(hits)
        recall, precision = true / total, true / np.arange(1, len(hits) + 1)
        points = [precision[recall >= r].max(initial=0) for r in np.arange(11) / 10]
        precisions.append(float(np.mean(points)))
    return 100 * float(np.mean(precisions))


def iou(xywh: list[float], corners: list[float]) -> float:
    """As VOC's development kit counts: the corner pixels belong to the box, so it is one pixel wider and higher."""
    x, y, w, h = xywh
    width = min(x + w, corners[2]) - max(x, corners[0]) + 1
    height = min(y + h, corners[3]) - max(y, corners[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = (w + 1) * (h + 1) + (corners[2] - corners[0] + 1) * (corners[3] - corners[1] + 1)
    return width * height / (areas - width * height)


def check_coco(
    place: Place, *options: str, timeout: float, recipe: str = "retinanet-r50-rlo"
) -> dict[str, float]:
    command = ["run", recipe, "-p", "tiny", "--dataset", "coco", "--data-root", str(COCO)]
    said = place.msdet(*command, *options, timeout=timeout)
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    record = run.read()
    assert record.dataset["images"] == {"train": 120, "val": 66}
    assert len(record.dataset["classes"]) == 80
    annotations = COCO / "annotations" / "instances_val2017.json"
    assert record.metrics == pytest.approx(
        pycocotools_ap(annotations, run.detections / "val.bbox.json"), abs=1e-6
    )
    return record.metrics


def check_bccd(
    place: Place, val: list[str], *options: str, timeout: float, recipe: str = "retinanet-r50-rlo"
) -> float:
    command = ["run", recipe, "-p", "tiny", "--dataset", "blood.yaml", *options]
    said = place.msdet(*command, timeout=timeout)
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    assert run.read().dataset["classes"] == ["Platelets", "RBC", "WBC"]
    for row in rows(run.trace):
        assert np.isfinite([float(row["loss_cls"]), float(row["loss_bbox"]), float(row["variance"])]).all()
    detections = json.loads((run.detections / "val.bbox.json").read_text())
    assert {d["image_id"] for d in detections} <= set(val)
    found = run.read().metrics
    expected = eleven_point_map(BCCD / "BCCD" / "Annotations", val, detections)
    assert found == {"mAP": pytest.approx(expected, abs=1e-5)}  # MMDetection counts in single precision
    return found["mAP"]


@needs_coco
def test_coco_mini_gives_the_metrics_of_pycocotools(place: Place) -> None:
    check_coco(place, *SHORT, timeout=180)


@needs_bccd
def test_bccd_with_boxes_of_no_size_gives_the_map_of_an_independent_count(place: Place) -> None:
    train, val = listed("train"), listed("val")
    # 20 iterations of 8 images: each of these is drawn several times
    train = [*[i for i in train if i != ZERO_SIZE["train"]][:23], ZERO_SIZE["train"]]
    val = [*[i for i in val if i != ZERO_SIZE["val"]][:20], ZERO_SIZE["val"]]
    bccd_page(place, train, val)
    assert check_bccd(place, val, *SHORT, "--set", "schedule.lr=0.002", timeout=180) > 0


@needs_coco
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fcos-r50-rlo", "faster-rcnn-r50-rlo"])
def test_coco_mini_with_other_detectors(place: Place, recipe: str) -> None:
    check_coco(place, *SHORT, timeout=600, recipe=recipe)
    heads = {(row["head"], row["level"]) for row in rows(place.only_run().trace)}
    fcos = {("bbox_head", f"P{k}") for k in range(3, 8)}
    assert heads == (fcos if recipe.startswith("fcos") else {("roi_head", f"P{k}") for k in range(2, 6)})


@needs_bccd
@pytest.mark.slow
def test_bccd_with_the_recipe_for_voc(place: Place) -> None:
    bccd_page(place, listed("train"), listed("val"))
    check_bccd(place, listed("val"), *SHORT, timeout=600, recipe="faster-rcnn-r50-voc-rlo")


@needs_coco
@pytest.mark.slow
def test_coco_mini_whole_tiny_run(place: Place) -> None:
    metrics = check_coco(place, timeout=1500)
    assert metrics["AP50"] > 0  # 120 images of 80 classes teach little


@needs_bccd
@pytest.mark.slow
def test_bccd_whole_tiny_run_learns(place: Place) -> None:
    bccd_page(place, listed("train"), listed("val"))
    assert check_bccd(place, listed("val"), timeout=1500) > 30

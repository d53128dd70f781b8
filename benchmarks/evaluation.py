"""faster-coco-eval, which msdet evaluates with, against pycocotools, COCO's own: time and result."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import numpy as np

from benchmarks.ratios import Progress, estimate_ratio, summarize_times, take_turns
from experiments.common.metric_names import COCO_METRICS

CLASSES = 80  # of COCO
REPEATS = 3  # evaluations with each
TOLERANCE = 1e-6  # as shares of 1
METRICS = (*COCO_METRICS, "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
WIDTH, HEIGHT = 640, 480  # pixels


def measure(images: int, progress: Progress) -> dict[str, Any]:
    """Return the seconds of an evaluation with either, in turns, from detections to COCO's twelve numbers.

    Args:
        images: With about 7 objects and 50 detections each; 5,000 are what COCO's val2017 has.
    """
    import faster_coco_eval
    import pycocotools.coco
    import pycocotools.cocoeval

    tools = {
        "faster_coco_eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
        "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    }
    progress("making up detections")
    truth, detections = make_detections(images)
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    numbers: dict[str, list[float]] = {}
    for number, name in take_turns(tools, REPEATS):
        progress(f"round {number + 1} of {REPEATS}: {name}")
        took, numbers[name] = _evaluate(*tools[name], truth, detections)
        seconds[name].append(took)
    pairs = {metric: list(pair) for metric, *pair in zip(METRICS, *(numbers[name] for name in tools))}
    largest = max(abs(a - b) for a, b in pairs.values())
    return {
        "images": images,
        "classes": CLASSES,
        "truths": len(truth["annotations"]),
        "detections": len(detections),
        "repeats": REPEATS,
        **{name: summarize_times(took) for name, took in seconds.items()},
        "ratio": estimate_ratio(seconds["pycocotools"], seconds["faster_coco_eval"]),
        "metrics": pairs,
        "largest_difference": largest,
        "equal": largest <= TOLERANCE,
    }


def _evaluate(coco: Any, evaluation: Any, truth: dict, detections: list[dict]) -> tuple[float, list[float]]:
    """Return the seconds, and the twelve numbers as shares of 1."""
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco()
        reference.dataset = truth
        reference.createIndex()
        copies = [dict(found) for found in detections]  # both add keys to what they are given
        began = time.perf_counter()
        judged = evaluation(reference, reference.loadRes(copies), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        took = time.perf_counter() - began
    return took, [float(value) for value in judged.stats[: len(METRICS)]]


def make_detections(images: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """Return a COCO ground truth and detections of it, as a middling detector makes them.

    The objects are of all of COCO's sizes, one in a hundred is a crowd. Most are found, up to three times over, some
    under another class; the other detections are of nothing.
    """
    random = np.random.default_rng(seed)
    truths: list[dict] = []
    found: list[dict] = []
    for image in range(1, images + 1):
        count = 1 + random.poisson(6.3)
        boxes, classes = _boxes(random, count), random.integers(1, CLASSES + 1, count)
        for box, label in zip(boxes.round(2), classes):
            place = dict(id=len(truths) + 1, image_id=image, category_id=int(label), bbox=box.tolist())
            shape = dict(area=float(box[2] * box[3]), iscrowd=int(random.random() < 0.01))
            truths.append({**place, **shape})
        hits = np.repeat(np.arange(count), random.integers(0, 4, count) * (random.random(count) < 0.9))
        near = boxes[hits] + random.normal(0, 0.08, (len(hits), 4)) * np.tile(boxes[hits][:, 2:], 2)
        guessed = np.where(
            random.random(len(hits)) < 0.85, classes[hits], random.integers(1, CLASSES + 1, len(hits))
        )
        misses = random.poisson(40)
        scores = np.concatenate([random.beta(4, 3, len(hits)), random.beta(1, 6, misses)])
        labels = np.concatenate([guessed, random.integers(1, CLASSES + 1, misses)])
        detected = zip(np.concatenate([near, _boxes(random, misses)]), labels, scores)
        for box, label, score in list(detected)[:100]:
            place = dict(image_id=image, category_id=int(label), bbox=box.round(2).tolist())
            found.append({**place, "score": round(float(score), 4)})
    sizes = dict(width=WIDTH, height=HEIGHT)
    return {
        "images": [dict(id=i, **sizes, file_name=f"{i}.jpg") for i in range(1, images + 1)],
        "categories": [dict(id=i, name=f"class {i}") for i in range(1, CLASSES + 1)],
        "annotations": truths,
    }, found


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Return (count, 4) as x, y, width, height in pixels; sides spread evenly over their logarithm, 8 to 400."""
    sides = np.exp(random.uniform(np.log(8), np.log(400), (count, 1))) * random.uniform(0.7, 1.4, (count, 2))
    corners = random.uniform(0, 1, (count, 2)) * np.maximum([WIDTH, HEIGHT] - sides, 0)
    return np.concatenate([corners, sides], 1)

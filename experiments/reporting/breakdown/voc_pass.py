"""AP of each class as MMDetection's VOC evaluation has it, which takes nothing from MMDetection.

At IoU 0.5, a box being one pixel wider than the difference of its corners; in each image, in the order of their
scores, a detection is right if the object it overlaps most is not taken yet, wrong if it is; difficult objects count
neither way. AP is the mean, over recall 0, 0.1, ..., 1, of the best precision at that recall or above (VOC2007).
Single precision where MMDetection computes in it, so that the mean over classes is its mAP to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data.ground_truth import GroundTruth
from experiments.data.readers import Image

IOU = 0.5
_EPSILON = np.finfo(np.float32).eps


def voc_average_precisions(
    truth: GroundTruth, detections: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> tuple[dict[str, float], float, dict[str, int]]:
    """Return AP of each class that has objects, their mean, both in percent, and object counts.

    Args:
        truth: In VOC format.
        detections: As kept: image_id, category, bbox (x, y, width, height), score.
    """
    found: dict[tuple[str, Any], list[list[float]]] = {}
    for entry in detections:
        x, y, width, height = entry["bbox"]
        box = [x, y, x + width, y + height, entry["score"]]
        found.setdefault((entry["category"], entry["image_id"]), []).append(box)
    values, counts = {}, {}
    for name in classes:
        boxes = [_boxes(image, name) for image in truth.images]
        counts[name] = sum(int((~aside).sum()) for _, aside in boxes)
        if counts[name]:
            of_images = [found.get((name, image.id), []) for image in truth.images]
            values[name] = _average_precision(of_images, boxes, counts[name])
    mean = float(np.array(list(values.values()), np.float32).mean()) if values else 0.0
    return {name: 100 * float(value) for name, value in values.items()}, 100 * mean, counts


def _boxes(image: Image, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 4) corners in pixels, those that count first, and which those are."""
    own = sorted((box for box in image.boxes if box.category == name), key=lambda box: box.is_ignored)
    corners = [box.corners for box in own]
    return np.array(corners, np.float32).reshape(-1, 4), np.array([box.is_ignored for box in own], bool)


def _average_precision(
    found: Sequence[Sequence[Sequence[float]]], truth: Sequence[tuple[np.ndarray, np.ndarray]], count: int
) -> np.float32:
    """Return AP of one class; `found` has each image's (x1, y1, x2, y2, score)."""
    arrays = [np.array(boxes, np.float32).reshape(-1, 5) for boxes in found]
    judged = [_judge(boxes, *of_image) for boxes, of_image in zip(arrays, truth)]
    order = np.argsort(-np.concatenate([boxes[:, 4] for boxes in arrays]))
    right = np.cumsum(np.concatenate([right for right, _ in judged])[order], dtype=np.float32)
    wrong = np.cumsum(np.concatenate([wrong for _, wrong in judged])[order], dtype=np.float32)
    recall = right / np.float64(count)
    precision = right / np.maximum(right + wrong, _EPSILON)
    total = np.float32(0)
    for threshold in np.arange(0, 1 + 1e-3, 0.1):
        reached = precision[recall >= threshold]
        total += reached.max() if reached.size else np.float32(0)
    return np.float32(total / np.float32(11))


def _judge(boxes: np.ndarray, truth: np.ndarray, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of an image's detections are right and which are wrong; one may be neither."""
    right, wrong = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    if not len(boxes):
        return right, wrong
    if not len(truth):
        return right, ~wrong
    overlaps = _overlaps(boxes[:, :4], truth)
    best, objects = overlaps.max(axis=1), overlaps.argmax(axis=1)
    taken = np.zeros(len(truth), bool)
    for i in np.argsort(-boxes[:, 4]):
        if best[i] < IOU:
            wrong[i] = True
        elif not aside[objects[i]]:
            right[i], wrong[i] = not taken[objects[i]], taken[objects[i]]
            taken[objects[i]] = True
    return right, wrong


def _overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (n, m) IoU in single precision."""
    one = np.float32(1)
    starts = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    sides = np.maximum(ends - starts + one, np.float32(0))
    shared = sides[..., 0] * sides[..., 1]
    areas = [np.prod(b[:, 2:] - b[:, :2] + one, axis=1) for b in (boxes, truth)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)

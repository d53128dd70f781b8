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

IOU = 0.5


def compute_voc_aps(
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
        counts[name] = 0
        judged = []  # of each image: scores, right, wrong
        for image in truth.images:
            own = sorted((b for b in image.boxes if b.category == name), key=lambda box: box.is_ignored)
            counts[name] += sum(not box.is_ignored for box in own)
            boxes = np.array(found.get((name, image.id), []), np.float32).reshape(-1, 5)
            objects = np.array([box.corners for box in own], np.float32).reshape(-1, 4)
            is_ignored = np.array([box.is_ignored for box in own], bool)
            judged.append((boxes[:, 4], *_judge(boxes, objects, is_ignored)))
        if counts[name]:
            scores, right, wrong = (np.concatenate(parts) for parts in zip(*judged))
            values[name] = _average_precision(scores, right, wrong, counts[name])
    mean = float(np.array(list(values.values()), np.float32).mean()) if values else 0.0
    return {name: 100 * float(value) for name, value in values.items()}, 100 * mean, counts


def _average_precision(scores: np.ndarray, right: np.ndarray, wrong: np.ndarray, count: int) -> np.float32:
    """Return AP of one class from what each of its detections is."""
    order = np.argsort(-scores)
    rights = np.cumsum(right[order], dtype=np.float32)
    wrongs = np.cumsum(wrong[order], dtype=np.float32)
    recall = rights / np.float64(count)
    precision = rights / np.maximum(rights + wrongs, np.finfo(np.float32).eps)
    total = np.float32(0)
    for threshold in np.arange(0, 1 + 1e-3, 0.1):
        total += precision[recall >= threshold].max(initial=np.float32(0))
    return np.float32(total / np.float32(11))


def _judge(boxes: np.ndarray, objects: np.ndarray, is_ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of an image's detections are right and which are wrong; one may be neither."""
    right, wrong = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    if not len(boxes) or not len(objects):
        return right, ~wrong
    overlaps = _overlaps(boxes[:, :4], objects)
    best, nearest = overlaps.max(axis=1), overlaps.argmax(axis=1)
    taken = np.zeros(len(objects), bool)
    for i in np.argsort(-boxes[:, 4]):
        if best[i] < IOU:
            wrong[i] = True
        elif not is_ignored[nearest[i]]:
            right[i], wrong[i] = not taken[nearest[i]], taken[nearest[i]]
            taken[nearest[i]] = True
    return right, wrong


def _overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return (n, m) IoU in single precision."""
    one = np.float32(1)
    starts = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    shared = np.prod(np.maximum(ends - starts + one, np.float32(0)), axis=2)
    areas = [np.prod(b[:, 2:] - b[:, :2] + one, axis=1) for b in (boxes, objects)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)

"""AP by class, object size and pyramid level with COCO's own protocol: faster-coco-eval, on other area ranges.

Under an area range, ground truth outside it is ignored (finding it is neither right nor wrong), and so are detections
outside it that match nothing. Both ends belong to a range, so an object on a border counts on either side.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from experiments.common.metric_names import MAX_AREA, SIZE_RANGES
from experiments.data.ground_truth import GroundTruth
from experiments.reporting.breakdown.level_ranges import Levels

OCTAVES = (0, 8, 16, 32, 64, 128, 256, 512)  # px, sqrt(area)
SIZES = {
    **SIZE_RANGES,
    **{f"{low}-{high} px": (low**2, high**2) for low, high in itertools.pairwise(OCTAVES)},
    f"from {OCTAVES[-1]} px": (OCTAVES[-1] ** 2, MAX_AREA),
}

Areas = Mapping[str, tuple[float, float]]
Values = dict[str, float]
Counts = dict[str, int]


class CocoPass:
    """One run's detections against the validation set.

    Args:
        truth: In COCO format.
        detections: As kept: image_id, category_id, bbox (x, y, width, height), score.
    """

    def __init__(self, truth: GroundTruth, detections: Sequence[Mapping[str, Any]]) -> None:
        self.truth = COCO(truth.numbered())
        self.names = {e["id"]: e["name"] for e in self.truth.dataset["categories"]}  # by ascending id
        numbered = truth.numbered_detections(detections)
        nothing = {**self.truth.dataset, "annotations": []}
        self.found = self.truth.loadRes(numbered) if numbered else COCO(nothing)
        self._counting = [a for a in self.truth.anns.values() if not a["iscrowd"]]

    def by_size(self) -> tuple[Values, Values, dict[str, Counts]]:
        """Return AP of each class, then of "all" and each size by the annotations' own `area`.

        Returns:
            Both in percent, without what has no ground truth; and the number of objects of `classes` and `sizes`.
        """
        precision = self._precision(SIZES)
        classes = _averages(self.names.values(), precision[..., 0].transpose(2, 0, 1))
        sizes, counts = self._ranges(precision, SIZES)
        by_class = Counter(self.names[a["category_id"]] for a in self._counting)
        return classes, sizes, {"classes": by_class, "sizes": counts}

    def by_level(self, levels: Levels) -> tuple[Values, Counts]:
        """Return AP over the objects of each level's sizes, in percent, and their number.

        Ground truth and detections get the square of their size as the level's assignment measures it, in the image
        as it is tested, as their `area`; the level's range, squared, is the area range.
        """
        images = {i: (entry["width"], entry["height"]) for i, entry in self.truth.imgs.items()}
        for box in [*self.truth.anns.values(), *self.found.anns.values()]:
            _, _, width, height = box["bbox"]
            box["area"] = levels.size(width, height, images[box["image_id"]]) ** 2
        areas = {n: (low**2, min(high**2, MAX_AREA)) for n, (low, high) in levels.ranges.items()}
        values, counts = self._ranges(self._precision(areas), areas)
        values.pop("all", None)
        return values, counts

    def _precision(self, areas: Areas) -> np.ndarray:
        """Return precision by IoU threshold, recall, class and area ("all" first); -1: no ground truth."""
        ranges = {name: list(ends) for name, ends in areas.items()}
        evaluation = COCOeval_faster(self.truth, self.found, "bbox", ranges=ranges)
        evaluation.params.catIds = list(self.names)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])[..., -1]

    def _ranges(self, precision: np.ndarray, areas: Areas) -> tuple[Values, Counts]:
        """Return AP of "all" and of each range, and the objects of each."""
        ends = {"all": (0, np.inf), **areas}
        counts = {n: sum(low <= a["area"] <= high for a in self._counting) for n, (low, high) in ends.items()}
        return _averages(ends, precision.transpose(3, 0, 1, 2)), counts


def _averages(names: Any, slices: np.ndarray) -> Values:
    """Return mean precision in percent as COCO's `summarize` takes it, where there is ground truth."""
    return {n: 100 * float(np.mean(s[s > -1])) for n, s in zip(names, slices) if (s > -1).any()}

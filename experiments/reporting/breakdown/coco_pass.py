"""AP by class, object size and pyramid level with COCO's own protocol: faster-coco-eval, on other area ranges.

Under an area range, ground truth outside it is ignored (finding it is neither right nor wrong), and so are detections
outside it that match nothing. Both ends belong to a range, so an object on a border counts on either side.
"""

from __future__ import annotations

import functools
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

Areas = Mapping[str, tuple[float, float]]
Values = dict[str, float]
Counts = dict[str, int]


def octaves() -> dict[str, tuple[float, float]]:
    """Return area ranges (px^2) one octave of sqrt(area) wide."""
    named = {f"{low}-{high} px": (low**2, high**2) for low, high in itertools.pairwise(OCTAVES)}
    return {**named, f"from {OCTAVES[-1]} px": (OCTAVES[-1] ** 2, MAX_AREA)}


class CocoPass:
    """One run's detections against the validation set.

    Args:
        truth: In COCO format.
        detections: As kept: image_id, category_id, bbox (x, y, width, height), score.
    """

    def __init__(self, truth: GroundTruth, detections: Sequence[Mapping[str, Any]]) -> None:
        self.truth = COCO(truth.numbered())
        self.names = {e["id"]: e["name"] for e in self.truth.dataset["categories"]}
        numbered = truth.numbered_detections(detections)
        self.found = (
            self.truth.loadRes(numbered) if numbered else COCO({**self.truth.dataset, "annotations": []})
        )

    def by_size(self) -> tuple[Values, Values, Counts]:
        """Return AP of each class, then of "all" and each size by the annotations' own `area`.

        Returns:
            Both in percent, without what has no ground truth; and the number of objects of each of them.
        """
        areas = {**SIZE_RANGES, **octaves()}
        precision = self._precision(areas)
        by_class = {name: precision[:, :, k, 0, -1] for k, name in enumerate(self._order())}
        per_range, counts = self._ranges(precision, areas)
        counts |= Counter(self.names[a["category_id"]] for a in self._counting)
        return _averages(by_class), per_range, counts

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
        return {name: values[name] for name in areas if name in values}, counts

    def _precision(self, areas: Areas) -> np.ndarray:
        """Return precision by IoU threshold, recall, class, area ("all" first), limit; -1: no ground truth."""
        evaluation = COCOeval_faster(
            self.truth, self.found, "bbox", ranges={name: list(ends) for name, ends in areas.items()}
        )
        evaluation.params.catIds = list(self.names)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])

    def _order(self) -> list[str]:
        """Return the classes in the order of `evaluate`, which is that of their ids."""
        return [self.names[i] for i in sorted(self.names)]

    def _ranges(self, precision: np.ndarray, areas: Areas) -> tuple[Values, Counts]:
        slices = {name: precision[:, :, :, i, -1] for i, name in enumerate(["all", *areas])}
        counts = {"all": len(self._counting)}
        for name, (low, high) in areas.items():
            counts[name] = sum(low <= a["area"] <= high for a in self._counting)
        return _averages(slices), counts

    @functools.cached_property
    def _counting(self) -> list[dict[str, Any]]:
        """Ground truth that can be found or missed."""
        every = self.truth.anns.values()
        return [a for a in every if a["category_id"] in self.names and not a.get("iscrowd")]


def _averages(slices: Mapping[str, np.ndarray]) -> Values:
    """Return mean precision in percent as COCO's `summarize` takes it, where there is ground truth."""
    return {n: 100 * float(np.mean(s[s > -1])) for n, s in slices.items() if (s > -1).any()}

"""MMDetection's metrics without its rounding to three digits, keeping the detections that were evaluated."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faster_coco_eval import COCOeval_faster
from mmdet.evaluation import FasterCocoMetric, VOCMetric
from mmdet.registry import METRICS

from experiments.files import write_json

COCO_METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL")


@METRICS.register_module()
class ExactCocoMetric(FasterCocoMetric):
    """COCO box AP in percent, unrounded: seeds differ by less than MMDetection's last digit.

    A size without ground truth has no AP and is left out. `outfile_prefix` keeps the detections as
    `<prefix>.bbox.json` in the COCO results format.
    """

    default_prefix = None
    cat_ids: list[int] | None
    img_ids: list[int] | None

    def compute_metrics(self, results: list) -> dict[str, float]:
        _, predictions = zip(*results)
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.getCatIds(catNms=self.dataset_meta["classes"])
        if self.img_ids is None:
            self.img_ids = self._coco_api.getImgIds()
        with tempfile.TemporaryDirectory() as folder:
            target = Path(self.outfile_prefix or f"{folder}/val")
            target.parent.mkdir(parents=True, exist_ok=True)
            written = Path(self.results2json(predictions, f"{target}.tmp")["bbox"])
            detections = target.with_name(f"{target.name}.bbox.json")
            os.replace(written, detections)
            some = any(len(p["bboxes"]) for p in predictions)
            found = self._coco_api.loadRes(str(detections)) if some else _without_boxes(self._coco_api)
        evaluation = COCOeval_faster(self._coco_api, found, "bbox")
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return {n: 100 * float(v) for n, v in zip(COCO_METRICS, evaluation.stats) if v >= 0}


def _without_boxes(truth: Any) -> Any:
    """What `loadRes` should give for an empty list, which it does not take."""
    found = type(truth)()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


@METRICS.register_module()
class ExactVocMetric(VOCMetric):
    """VOC mean average precision at IoU 0.5 in percent, unrounded.

    Args:
        outfile_prefix: Keeps the detections as `<prefix>.bbox.json`: as COCO results, with the image's id in
            VOC's own words, `category_id` counted from 0 in the order of the classes, and `category`.
    """

    default_prefix = None

    def __init__(self, outfile_prefix: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        before = len(self.results)
        super().process(data_batch, data_samples)
        for (truth, _), sample in zip(self.results[before:], data_samples):
            truth["img_id"] = sample["img_id"]

    def compute_metrics(self, results: list) -> dict[str, float]:
        if self.outfile_prefix is not None:
            self._keep_detections(results)
        return {"mAP": 100 * float(super().compute_metrics(results)["mAP"])}

    def _keep_detections(self, results: list) -> None:
        kept = []
        for truth, by_class in results:
            for label, boxes in enumerate(by_class):
                for x1, y1, x2, y2, score in boxes.tolist():
                    category = self.dataset_meta["classes"][label]
                    box = [x1, y1, x2 - x1, y2 - y1]
                    kept.append({"image_id": truth["img_id"], "category_id": label, "category": category,
                                 "bbox": box, "score": score})  # fmt: skip
        target = Path(f"{self.outfile_prefix}.bbox.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, kept, indent=None)

"""MMDetection's metrics without its rounding to three digits, keeping the detections that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)

from mmdet.evaluation import VOCMetric  # isort: skip
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from experiments.common.files import write_json
from experiments.common.metric_names import COCO_METRICS
from experiments.data.ground_truth import GroundTruth, read_coco_truth


@METRICS.register_module()
class ExactCocoMetric(BaseMetric):
    """COCO box AP in percent, unrounded: seeds differ by less than MMDetection's last digit.

    A size without ground truth has no AP and is left out.

    Args:
        ann_file: The instances JSON.
        metric: "bbox"; here because MMDetection's configs have it.
        outfile_prefix: Keeps the detections as `<prefix>.bbox.json` in the COCO results format, with the ids of the
            file.
    """

    default_prefix = None

    def __init__(
        self, ann_file: str, metric: str = "bbox", outfile_prefix: str | None = None, **kwargs: Any
    ) -> None:
        if metric != "bbox":
            raise ValueError(f"metric {metric!r} is not allowed: bbox")
        super().__init__(**kwargs)
        self.ann_file = ann_file
        self.outfile_prefix, self.collect_dir = outfile_prefix, _exchange_folder(outfile_prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take one batch's detections."""
        for sample in data_samples:
            found = sample["pred_instances"]
            columns = (found[key].cpu().tolist() for key in ("bboxes", "scores", "labels"))
            self.results.append((sample["img_id"], *columns))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return AP, AP50, AP75, APS, APM and APL of all images."""
        truth = read_coco_truth(Path(self.ann_file), self.dataset_meta["classes"])
        ids = [truth.category_ids[name] for name in self.dataset_meta["classes"]]
        detections = [
            {"image_id": image, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score, "category_id": ids[label]}
            for image, *columns in results
            for (x1, y1, x2, y2), score, label in zip(*columns)
        ]
        keep_detections(self.outfile_prefix, detections)
        return compute_coco_aps(truth, detections)


def compute_coco_aps(truth: GroundTruth, detections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return COCO's AP in percent, by the names of COCO_METRICS; a size without ground truth is left out.

    Args:
        truth: The validation split, as `read_coco_truth` returns it.
        detections: In the COCO results format, with the ids of the annotation file.
    """
    api = COCO(truth.numbered())
    numbered = truth.numbered_detections(detections)
    found = api.loadRes(numbered) if numbered else COCO({**api.dataset, "annotations": []})
    evaluation = COCOeval_faster(api, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {n: 100 * float(v) for n, v in zip(COCO_METRICS, evaluation.stats) if v >= 0}


def _exchange_folder(prefix: str | None) -> str | None:
    """Return where ranks hand over results; MMEngine takes the working directory, which machines need not share."""
    return None if prefix is None else f"{prefix}.parts"


def keep_detections(prefix: str | None, detections: Sequence[dict[str, Any]]) -> None:
    """Write `<prefix>.bbox.json`, whole or not at all; nothing where there is no prefix."""
    if prefix is not None:
        target = Path(f"{prefix}.bbox.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, detections, indent=None)


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
        self.outfile_prefix, self.collect_dir = outfile_prefix, _exchange_folder(outfile_prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        before = len(self.results)
        super().process(data_batch, data_samples)
        for (truth, _), sample in zip(self.results[before:], data_samples):
            truth["img_id"] = sample["img_id"]

    def compute_metrics(self, results: list) -> dict[str, float]:
        classes = self.dataset_meta["classes"]
        kept = [
            {"image_id": truth["img_id"], "category_id": label, "category": classes[label],
             "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for truth, by_class in results
            for label, boxes in enumerate(by_class)
            for x1, y1, x2, y2, score in boxes.tolist()
        ]  # fmt: skip
        keep_detections(self.outfile_prefix, kept)
        return {"mAP": 100 * float(super().compute_metrics(results)["mAP"])}

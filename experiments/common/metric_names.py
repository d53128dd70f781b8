"""Names and size classes of the evaluation: COCO's protocol and VOC's mAP."""

from __future__ import annotations

COCO_METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL")
METRICS = (*COCO_METRICS, "mAP")  # in the order in which tables show them
MAIN_METRICS = ("AP", "mAP")  # of COCO and of VOC

MAX_AREA = 1e5**2  # px^2, the end of COCO's last size class
SIZE_RANGES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, MAX_AREA)}  # px^2


def classify_size(area: float) -> str:
    """Return COCO's size class of an object of `area` px^2; one on a limit belongs to the larger class."""
    return next((name for name, (_, end) in SIZE_RANGES.items() if area < end), "large")

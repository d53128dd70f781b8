"""Flags of runs whose numbers need a remark in every table, and that remark. No torch, no pandas."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from experiments.runs.outputs import has_changed_metrics
from experiments.runs.record import Record

REDUCED, IMPORTED, ODD_DATA, CHANGED = "†", "‡", "§", "¶"
LEGEND = {
    REDUCED: "ran out of memory and resumed with half the images per forward pass and twice the accumulation.",
    IMPORTED: "imported: trained by MMDetection outside msdet; COCO metrics rounded to 0.1 point by it.",
    ODD_DATA: "problems of the data set change its numbers: record.json counts them, `msdet data verify` lists them.",
    CHANGED: "the number, metrics.csv or trace.csv is not as the run wrote it: changed or damaged since.",
}


def list_marks(record: Record, changed: Sequence[str] = ()) -> str:
    """Return the marks of a run, whose files in `changed` are not as it wrote them; "" for one without flags."""
    is_so = (
        record.launch.reduced,
        record.imported is not None,
        bool(record.dataset.get("warning")),
        bool(changed) or has_changed_metrics(record),
    )
    return "".join(mark for mark, has_it in zip(LEGEND, is_so) if has_it)


def merge_marks(marks: Collection[str]) -> str:
    """Return each mark that occurs in any of `marks` once."""
    return "".join(mark for mark in LEGEND if any(mark in text for text in marks))


def explain_marks(marks: Collection[str]) -> list[str]:
    """Return one line on each mark that occurs in any of `marks`."""
    return [f"{mark} {LEGEND[mark]}" for mark in merge_marks(marks)]

"""Flags of runs whose numbers need a remark in every table, and that remark. No torch, no pandas."""

from __future__ import annotations

from collections.abc import Collection

from experiments.runs.record import Record

REDUCED, IMPORTED, ODD_DATA = "†", "‡", "§"
LEGEND = {
    REDUCED: "ran out of memory and resumed with half the images per forward pass and twice the accumulation.",
    IMPORTED: "imported: trained by MMDetection outside msdet; COCO metrics rounded to 0.1 point by it.",
    ODD_DATA: "problems of the data set change its numbers: record.json counts them, `msdet data verify` lists them.",
}


def marks_of(record: Record) -> str:
    """Return the marks of a run; "" for one without flags."""
    is_so = (record.launch.reduced, record.imported is not None, bool(record.dataset.get("warning")))
    return "".join(mark for mark, has_it in zip((REDUCED, IMPORTED, ODD_DATA), is_so) if has_it)


def merge_marks(marks: Collection[str]) -> str:
    """Return each mark that occurs in any of `marks` once."""
    return "".join(mark for mark in LEGEND if any(mark in text for text in marks))


def explain_marks(marks: Collection[str]) -> list[str]:
    """Return one line on each mark that occurs in any of `marks`."""
    return [f"{mark} {LEGEND[mark]}" for mark in merge_marks(marks)]

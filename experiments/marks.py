"""The marks that set a run's number apart in every table, and what they mean. No torch, no pandas."""

from __future__ import annotations

from experiments.runs import Record

REDUCED, IMPORTED = "†", "‡"
LEGEND = {
    REDUCED: "ran out of memory, and went on with half the images per forward pass and twice the accumulated steps.",
    IMPORTED: "imported: trained by MMDetection outside msdet; COCO metrics rounded to 0.1 point by it.",
}


def marks_of(record: Record) -> str:
    """Empty for a run as any other."""
    return (REDUCED if record.launch.reduced else "") + (IMPORTED if record.imported is not None else "")


def joined(marks: list[str]) -> str:
    """All marks that occur in any of these, each once."""
    return "".join(mark for mark in LEGEND if any(mark in text for text in marks))


def legend(marks: str) -> list[str]:
    """One line for each of the marks."""
    return [f"{mark} {LEGEND[mark]}" for mark in LEGEND if mark in marks]

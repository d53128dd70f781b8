"""The marks that set a run's number apart in every table, and what they mean. No torch, no pandas."""

from __future__ import annotations

from experiments.runs.record import Record

REDUCED, IMPORTED, ODD_DATA = "†", "‡", "§"
LEGEND = {
    REDUCED: "ran out of memory, and went on with half the images per forward pass and twice the accumulated steps.",
    IMPORTED: "imported: trained by MMDetection outside msdet; COCO metrics rounded to 0.1 point by it.",
    ODD_DATA: "entries of the data set change its numbers: record.json counts them, `msdet data verify` shows them.",
}


def marks_of(record: Record) -> str:
    """Empty for a run as any other."""
    is_so = {
        REDUCED: record.launch.reduced,
        IMPORTED: record.imported is not None,
        ODD_DATA: bool(record.dataset.get("warning")),
    }
    return "".join(mark for mark in LEGEND if is_so[mark])


def joined(marks: list[str]) -> str:
    """All marks that occur in any of these, each once."""
    return "".join(mark for mark in LEGEND if any(mark in text for text in marks))


def legend(marks: str) -> list[str]:
    """One line for each of the marks."""
    return [f"{mark} {LEGEND[mark]}" for mark in LEGEND if mark in marks]

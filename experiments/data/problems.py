"""What can be wrong with a data set: the kinds, how much each matters, and a log that collects them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError, make_one_line

MAX_EXAMPLES = 5  # of each kind of problem
MAX_PIXELS = 1e9  # of a coordinate: beyond it, areas leave the range of single precision

PREVENTS = None  # training and evaluation
MENTIONED = ""  # changes no number

# Kind of problem to its effect: one of the two above, or what follows a count in the warning of `run` and `eval`.
KINDS: dict[str, str | None] = {
    "annotation file unusable": PREVENTS,
    "annotation entry wrong": PREVENTS,
    "duplicate id": PREVENTS,
    "unknown image id": PREVENTS,
    "unknown category id": PREVENTS,
    "classes wrong": PREVENTS,
    "missing image": PREVENTS,
    "unreadable image": PREVENTS,
    "no boxes to train on": PREVENTS,
    "no boxes to evaluate": PREVENTS,
    "empty box": "empty boxes (not trained on, never found)",
    "box under 1 pixel": "boxes under 1 pixel (not trained on)",
    "box wholly outside": "boxes wholly outside the image (not trained on)",
    "box without area": "boxes without area (width x height taken)",
    "box marked ignore": "boxes marked ignore (treated as crowds)",
    "same box twice": "boxes given twice",
    "image size differs": "images of another size than annotated",
    "image turned by EXIF": "images turned by EXIF data",
    "16-bit image": "16-bit images (read as 8 bits, so often nearly black)",
    "same image twice": "images given twice",
    "image in both splits": "images also in the training set",
    "class names alike": "class names alike but for case or spaces",
    "over 100 objects": "images with more than 100 objects (COCO AP cannot reach 100)",
    "box partly outside": MENTIONED,
    "box under min_box_size": MENTIONED,
    "image under min_image_size": MENTIONED,
    "image without size": MENTIONED,
    "unusual id": MENTIONED,
}


class ProblemLog:
    """Counts and first examples of problems by kind; a strict one raises at the first that prevents training."""

    def __init__(self, strict: bool = False) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.error: str | None = None  # the first problem that prevents training
        self._strict = strict

    def add(self, kind: str, text: str, source: Path | None = None, error: str | None = None) -> None:
        """Add a problem.

        Args:
            kind: One of KINDS.
            text: What is wrong, and where in the file, in one line.
            source: The file.
            error: The message if it prevents training; None joins `source` and `text`.

        Raises:
            UserError: The log is strict and the problem prevents training.
        """
        whole = text if source is None else f"{source}: {text}"
        if KINDS[kind] is PREVENTS:
            if self._strict:
                raise UserError(error or whole)
            self.error = self.error or error or whole
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(make_one_line(text if kind != "annotation file unusable" else whole))

    def as_dict(self) -> dict[str, Any]:
        """Return kind to `count`, `prevents_training`, `changes_numbers`, `examples`, in the order of KINDS."""
        return {
            kind: {
                "count": self.counts[kind],
                "prevents_training": effect is PREVENTS,
                "changes_numbers": bool(effect),
                "examples": self.examples[kind],
            }
            for kind, effect in KINDS.items()
            if kind in self.counts
        }


def count_in_words(count: int, things: str) -> str:
    """Return `3 empty boxes`, `1 empty box`. `things` is in the plural, and its noun one of those below."""
    if count == 1:
        for plural, singular in (("boxes", "box"), ("images", "image"), ("names", "name")):
            things = things.replace(plural, singular, 1)
    return f"{count} {things}"


def has_control_characters(text: str) -> bool:
    """Whether text holds line breaks, tabs, terminal codes or halves of surrogate pairs."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def is_pixels(value: Any) -> bool:
    """Whether a value is a finite number that can be a coordinate; integers may have any number of digits."""
    return type(value) in (int, float) and -MAX_PIXELS <= value <= MAX_PIXELS  # type: True is an int, too


def find_missing_files(folder: Path, names: Collection[str]) -> list[str]:
    """Return those of `names` (paths below `folder`) that do not exist, in the order given.

    Each folder is listed once, which is faster than a system call for each of 100,000 files.

    Raises:
        UserError: A folder exists and cannot be listed.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        below, _, last = name.rpartition("/")
        if below not in listed:
            try:
                with os.scandir(folder / below) as entries:
                    listed[below] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                listed[below] = set()
            except OSError as error:
                raise UserError(f"{folder / below}: cannot be listed: {error.strerror or error}") from None
        if last not in listed[below]:
            missing.append(name)
    return missing

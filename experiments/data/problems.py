"""One thing wrong with a data set: `find_dataset` stops at the first, `verify` collects them all."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from experiments.errors import UserError


class Problem(NamedTuple):
    """`kind` groups alike problems (a key of KINDS); `text` says what and where, in one line."""

    kind: str
    text: str


# What each kind means. True: nothing can be trained or evaluated with it; False: it can, but look at it.
KINDS = {
    "annotation file unusable": True,
    "annotation entry wrong": True,
    "duplicate id": True,
    "unknown image id": True,
    "unknown category id": True,
    "classes wrong": True,
    "no boxes to train on": True,
    "missing image": True,
    "unreadable image": True,
    "image size differs": False,
    "annotation id 0": False,
    "empty box": False,
    "box partly outside": False,
    "box wholly outside": False,
}


def shown_value(value: object) -> str:
    """A value from an annotation file, short enough for a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def missing_files(folder: Path, names: Collection[str]) -> list[str]:
    """Which of `names` (paths below `folder`) are not there, in the order given.

    Every folder is listed once, instead of asking for each of 100,000 files. UserError where one exists and
    cannot be listed.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        below, _, last = name.rpartition("/")
        if below not in listed:
            listed[below] = _listing(folder / below)
        if last not in listed[below]:
            missing.append(name)
    return missing


def _listing(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror or error}") from None

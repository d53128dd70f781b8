"""`trace.csv`: one row per interval and level."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common.files import replacing, set_aside

COLUMNS = [
    "interval", "iteration", "head", "level",
    "loss_cls", "loss_bbox", "loss_centerness", "loss",
    "variance", "rate", "iou", "weight", "action", "reward",
    "p_variance", "p_smallest", "p_largest", "p_uniform",
]  # fmt: skip
_WORDS = ("head", "level", "action")
PER_LEVEL = (*COLUMNS[4:11], "weight")  # numbers that each level has of its own
PROBABILITIES = tuple(COLUMNS[-4:])


class Trace:
    """Append rows as intervals end; losses are interval means, unweighted; what is absent is empty.

    `weight` and `action` were in force during the interval; `reward` and `p_*` are as after its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, iteration: int) -> None:
        """Drop rows of intervals that ended after `iteration`: the resumed run makes them again."""
        rows: list[list[str]] = []
        if self.path.exists():
            try:
                rows = read_trace(self.path)
            except ValueError:  # nothing is appended to what is no trace
                set_aside(self.path)
        with replacing(self.path) as stream:
            kept = (row for row in rows if int(row[1]) <= iteration)
            csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *kept])

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of one interval, column to value."""
        with open(self.path, "a", encoding="utf-8") as stream:
            csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n").writerows(rows)

    def sync(self) -> None:
        """Bring all rows to the disk: a checkpoint must not be newer than what it resumes."""
        with open(self.path, "rb+") as stream:
            os.fsync(stream.fileno())


def read_trace(path: Path) -> list[list[str]]:
    """Return the whole rows of a trace; what was cut short, or has text where numbers belong, is left out.

    Raises:
        ValueError: The file is no trace: empty, no text, or of other columns.
        OSError: It cannot be read.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        try:
            header, *rows = list(csv.reader(stream)) or [[]]
        except csv.Error as error:
            raise ValueError(str(error)) from None
    if header != COLUMNS:
        raise ValueError("it does not begin with the columns of a trace")
    return [row for row in rows if len(row) == len(COLUMNS) and _is_whole(dict(zip(COLUMNS, row)))]


def _is_whole(row: dict[str, str]) -> bool:
    try:
        for column in set(COLUMNS) - set(_WORDS):
            float(row[column] or 0)
    except ValueError:
        return False
    return row["interval"].isdecimal() and row["iteration"].isdecimal()


def make_scalars(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return what a tracker plots of one interval: numbers by `<column>/<head>/<level>`.

    What levels share is named `<column>/<head>`. The action is a number: 0 variance, 1 smallest, 2 largest,
    3 uniform.
    """
    values: dict[str, float | None] = {}
    for row in rows:
        for column in PER_LEVEL:
            values[f"{column}/{row['head']}/{row['level']}"] = row.get(column)
        for column in ("reward", *PROBABILITIES):
            values[f"{column}/{row['head']}"] = row.get(column)
        if f"p_{row['action']}" in PROBABILITIES:  # a user's own rule may have others
            values[f"action/{row['head']}"] = PROBABILITIES.index(f"p_{row['action']}")
    return {name: value for name, value in values.items() if value is not None}

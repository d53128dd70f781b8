"""`trace.csv`: one row per interval and level."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from experiments.common.files import set_aside, write_text
from experiments.detection.level_weighting.level_losses import LevelRecord

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
        write_text(self.path, _lines([COLUMNS, *(row for row in rows if int(row[1]) <= iteration)]))

    def append(self, record: LevelRecord) -> None:
        """Write the rows of one interval."""
        cells = [["" if row.get(c) is None else row[c] for c in COLUMNS] for row in make_rows(record)]
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(_lines(cells))

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


def make_rows(record: LevelRecord) -> list[dict[str, Any]]:
    """Return one row per level, column to value; what is absent is None or left out."""
    # Of an RPN, too: `loss_rpn_cls` is that head's loss_cls.
    terms = {name.replace("_rpn_", "_"): values for name, values in record.terms.items()}
    rows = []
    for k, level in enumerate(record.levels):
        row = {
            "interval": record.interval.index,
            "iteration": record.iteration,
            "head": record.head,
            "level": level,
            "loss": sum(values[k].item() for values in terms.values()),
            "variance": record.interval.variance[k].item(),
            "rate": record.interval.rate[k].item(),
            "iou": _number(None if record.ious is None else record.ious[k].item()),
            "weight": record.weights[k].item(),
            "action": record.action,
            "reward": record.reward if record.probabilities else None,
        }
        row.update({name: values[k].item() for name, values in terms.items() if name in COLUMNS})
        row.update({f"p_{action}": p for action, p in record.probabilities.items()})
        rows.append(row)
    return rows


def make_scalars(record: LevelRecord) -> dict[str, float]:
    """Return what a tracker plots of an interval: numbers by `<column>/<head>/<level>`.

    What levels share is named `<column>/<head>`. The action is a number: 0 variance, 1 smallest, 2 largest,
    3 uniform.
    """
    values: dict[str, float | None] = {}
    for row in make_rows(record):
        for column in PER_LEVEL:
            values[f"{column}/{record.head}/{row['level']}"] = row.get(column)
        for column in ("reward", *PROBABILITIES):
            values[f"{column}/{record.head}"] = row.get(column)
    if f"p_{record.action}" in PROBABILITIES:  # a user's own rule may have others
        values[f"action/{record.head}"] = PROBABILITIES.index(f"p_{record.action}")
    return {name: value for name, value in values.items() if value is not None}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _lines(rows: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

"""`trace.csv`: one row per interval and level."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from experiments.common.files import write_text
from experiments.detection.level_weighting.level_losses import LevelRecord

COLUMNS = [
    "interval", "iteration", "head", "level",
    "loss_cls", "loss_bbox", "loss_centerness", "loss",
    "variance", "rate", "iou", "weight", "action", "reward",
    "p_variance", "p_smallest", "p_largest", "p_uniform",
]  # fmt: skip
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
        kept = [COLUMNS]
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as stream:
                rows = list(csv.reader(stream))[1:]
            whole = [
                row for row in rows if len(row) == len(COLUMNS) and row[1].isdigit()
            ]  # not one cut short
            kept += [row for row in whole if int(row[1]) <= iteration]
        write_text(self.path, _lines(kept))

    def append(self, record: LevelRecord) -> None:
        """Write the rows of one interval."""
        cells = [["" if row.get(c) is None else row[c] for c in COLUMNS] for row in rows_of(record)]
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(_lines(cells))


def rows_of(record: LevelRecord) -> list[dict[str, Any]]:
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


def scalars(record: LevelRecord) -> dict[str, float]:
    """Return what a tracker plots of an interval: numbers by `<column>/<head>/<level>`.

    What levels share is named `<column>/<head>`. The action is a number: 0 variance, 1 smallest, 2 largest,
    3 uniform.
    """
    values: dict[str, float | None] = {}
    for row in rows_of(record):
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

"""Side files of a run that is resumed: checked, set aside where damaged; what they lost is named. No torch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common.files import explain_unreadable, remove_leftovers, replacing, set_aside
from experiments.detection.level_weighting.trace import read_trace
from experiments.runs.run_folder import RunFolder


def clear_the_way(run: RunFolder) -> list[str]:
    """Remove what killed writers left; set aside what is in the place of a file or folder, and note it."""
    remove_leftovers(run.path)
    folders = (run.checkpoints, run.detections)
    files = (run.config, run.digests, run.detections / "val.bbox.json")
    wrong = [path for path in folders if os.path.lexists(path) and not path.is_dir()]
    wrong += [path for path in files if os.path.lexists(path) and not path.is_file()]
    return [f"{path.name} was of another kind; it was set aside as {set_aside(path).name}" for path in wrong]


def check_side_files(run: RunFolder, iteration: int, evaluations: int, alpha: int | None) -> list[str]:
    """Set aside a locked run's progress, metrics and trace if damaged; return notes on them, and on what is lost.

    Args:
        iteration: Where the run resumes.
        evaluations: Of the validation set, that were made before.
        alpha: Iterations per interval, each of which left rows in the trace.
    """
    notes: list[str] = []
    _checked(run.progress, lambda path: dict(json.loads(path.read_text(encoding="utf-8"))), notes)
    metrics = _checked(run.metrics, read_metrics, notes) or []
    trace = _checked(run.trace, read_trace, notes) or []
    if sum(int(row["iteration"]) <= iteration for row in metrics) < evaluations:
        notes.append(f"metrics.csv was lost before iteration {iteration}: it lacks earlier evaluations")
    rows = Counter(int(row[0]) for row in trace if int(row[1]) <= iteration)
    levels = max(rows.values(), default=1)
    wanted = range(1, iteration // alpha + 1) if alpha is not None else ()
    lost = [interval for interval in wanted if rows[interval] < levels]
    if lost:
        which = f"{len(lost)} of the {len(wanted)} intervals up to there, the first of them {lost[0]}"
        notes.append(f"trace.csv was lost before iteration {iteration}: it lacks {which}")
    return notes


def _checked(path: Path, read: Callable[[Path], Any], notes: list[str]) -> Any:
    """Return what a file holds; None where there is none, or it was set aside."""
    fault = explain_unreadable(path)
    if fault == "no such file":
        return None
    try:
        if fault is not None:  # a pipe would be waited for
            raise ValueError(fault)
        return read(path)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        notes.append(f"{path.name} was damaged ({error}); it was set aside as {set_aside(path).name}")
        return None


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv; a last one that was cut short is left out.

    Raises:
        ValueError: The file is no such table.
        OSError: It cannot be read.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        text = stream.read()
    table = csv.DictReader(io.StringIO(text[: text.rindex("\n") + 1] if "\n" in text else text))
    try:
        rows = list(table)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if list(table.fieldnames or ())[:1] != ["iteration"]:
        raise ValueError("it does not begin with the column iteration")
    for row in rows:
        if None in row or None in row.values() or not row["iteration"].isdecimal():
            raise ValueError(f"line {rows.index(row) + 2} does not fit its columns")
        for value in row.values():
            float(value or 0)
    return rows


def write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a metrics.csv whole or not at all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

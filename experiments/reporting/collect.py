"""Run folders to a data frame, one row a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError
from experiments.marks import marks_of
from experiments.runs import Attempt, Record, RunFolder, iterate

METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "mAP")  # the order in which tables show them
COLUMNS = (
    "run", "recipe", "recipe_id", "config_hash", "seed", "profile", "dataset", "fingerprint", "state",
    "iterations", "seconds", "world_size", "micro_batch", "accumulation", "execution", "commit", "marks", "notes",
    "created", "results", "path",
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """What a results folder holds.

    Attributes:
        runs: One row a run, columns COLUMNS and one per metric (percent, NaN where the run has none; only
            finished runs have any). Text columns hold "" where nothing is known; `path` is text.
        problems: One sentence for each folder that could not be read.
    """

    runs: pd.DataFrame
    problems: list[str]

    @property
    def metrics(self) -> list[str]:
        return metric_names(self.runs)


def collect(results: Path | Sequence[Path]) -> Collected:
    """All runs below one results folder or several; a broken or newer record is a problem, never an error."""
    places = [results] if isinstance(results, (str, Path)) else results
    return _frame((folder, str(place)) for place in places for folder in iterate(place))


def frame(folders: Iterable[RunFolder]) -> Collected:
    """The same for given run folders."""
    return _frame((folder, str(Path(*folder.path.parts[:-4]))) for folder in folders)


def _frame(folders: Iterable[tuple[RunFolder, str]]) -> Collected:
    rows, problems = [], []
    for folder, place in folders:
        try:
            record = folder.read()
            rows.append(_row(folder, record) | {"results": place})
        except UserError as error:
            problems.append(f"{error.message}." + (f" ({error.hint})" if error.hint else ""))
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    names.sort(key=lambda n: METRICS.index(n) if n in METRICS else len(METRICS))
    runs = pd.DataFrame(rows, columns=[*COLUMNS, *names])
    return Collected(runs.astype(dict.fromkeys(names, float)), problems)


def metric_names(runs: pd.DataFrame) -> list[str]:
    """The metrics that at least one of the runs has, the main one (AP or mAP) first."""
    return [name for name in runs.columns if name not in COLUMNS and runs[name].notna().any()]


def _row(folder: RunFolder, record: Record) -> dict[str, Any]:
    state = folder.state(record)
    last = record.attempts[-1] if record.attempts else None
    row: dict[str, Any] = {
        "run": folder.name,
        "recipe": record.recipe,
        "recipe_id": record.recipe_id,
        "config_hash": record.config_hash,
        "seed": record.seed,
        "profile": record.profile or "",
        "dataset": str(record.dataset.get("name") or ""),
        "fingerprint": _text(record.dataset.get("fingerprint")),
        "state": state,
        "iterations": record.iterations,
        "seconds": record.timings.get("total_s", math.nan),
        "world_size": last.world_size if last else math.nan,
        "micro_batch": last.micro_batch if last else math.nan,
        "accumulation": last.accumulation if last else math.nan,
        "execution": execution(record.attempts),
        "commit": _text((record.git or {}).get("commit")),
        "marks": marks_of(record),
        "notes": "; ".join(record.notes),
        "created": record.created,
        "path": str(folder.path),
    }
    if state == "done":  # an earlier attempt may have left metrics of a run that is being done again
        # COCO's tools write -1 where no object of a size exists: no measurement, not a low one
        row.update(
            {name: value for name, value in record.metrics.items() if value >= 0 and name not in COLUMNS}
        )
    return row


def execution(attempts: Iterable[Attempt]) -> str:
    """`processes x images per process [x accumulated steps]`; a run resumed otherwise names each in turn.

    Empty where no attempt got as far as loading data.
    """
    texts = [
        f"{a.world_size} x {a.micro_batch}" + (f" x {a.accumulation}" if a.accumulation > 1 else "")
        for a in attempts
        if a.micro_batch > 0
    ]
    return ", then ".join(text for text, _ in groupby(texts))


def _text(value: Any) -> str:
    return "" if value is None else str(value)

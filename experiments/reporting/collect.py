"""Run folders to a data frame, one row a run."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.common.cache import FileFacts
from experiments.common.errors import UserError
from experiments.common.metric_names import METRICS
from experiments.runs.lookup import iterate
from experiments.runs.outputs import changed_files
from experiments.runs.record import Attempt, Record
from experiments.runs.run_flags import CHANGED, marks_of, merge_marks
from experiments.runs.run_folder import RunFolder

NUMBERS = ("seed", "iterations", "seconds", "world_size", "micro_batch", "accumulation")
COLUMNS = (
    "run", "recipe", "recipe_id", "config_hash", "seed", "profile", "dataset", "fingerprint", "state",
    "iterations", "seconds", "world_size", "micro_batch", "accumulation", "execution", "commit", "marks", "notes",
    "created", "ended", "results", "path",
)  # fmt: skip


LIVE = ("queued", "running")  # what these say is looked at anew each time: the process may have ended


@dataclass(frozen=True)
class Collected:
    """What results folders hold.

    Attributes:
        runs: One row a run, columns COLUMNS and one per metric (percent, NaN where the run has none; only
            finished runs have any). Text columns hold "" where nothing is known; `path` is text, and so is
            `results`, the results folder as it was given. `run` is a run's name, or its path where two results
            folders have a run of that name.
        problems: One sentence for each folder that could not be read.
        facts: By results folder, what is known of its files.
    """

    runs: pd.DataFrame
    problems: list[str]
    facts: dict[str, FileFacts] = field(default_factory=dict, repr=False, compare=False)

    def select(self, **values: Sequence[str] | None) -> Collected:
        """Return only the runs with one of these values in a column; `none` is an empty one, nothing asks for none."""
        runs = self.runs
        for column, allowed in values.items():
            if allowed:
                wanted = {"" if value == "none" else value for value in allowed}
                runs = runs.take([row for row, value in enumerate(runs[column]) if value in wanted])
        return replace(self, runs=runs.reset_index(drop=True))


def collect(results: Path | str | Sequence[Path]) -> Collected:
    """Return all runs below results folders; a broken or newer record is a problem, never an error.

    A folder that is given twice, or reached by two ways, counts once. What was read before and has not changed
    since is taken from the cache.
    """
    places = [Path(results)] if isinstance(results, (str, Path)) else [Path(place) for place in results]
    facts: dict[str, FileFacts] = {}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    seen: dict[tuple[int, int], str] = {}

    def report_unreadable(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror}.")

    for place in dict.fromkeys(places):
        known = facts[str(place)] = FileFacts(["runs", str(place.absolute())], _code_digest())
        names = set()
        for folder in iterate(place, report_unreadable):
            name = folder.name
            names.add(name)
            if len(places) == 1 or not _is_again(folder, seen):
                _add(rows, problems, folder, name, str(place), known)
        known.forget_all_but(names)
        known.save()
    return Collected(_frame(rows), problems, facts)


def collect_folders(folders: Iterable[RunFolder]) -> Collected:
    """Return the same for given run folders."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for folder in folders:
        _add(rows, problems, folder, folder.name, str(Path(*folder.path.parts[:-4])), FileFacts())
    return Collected(_frame(rows), problems)


@functools.lru_cache(maxsize=1)
def _code_digest() -> str:
    """Return a digest of the sources that compute facts, so that no version number can be forgotten."""
    package = Path(__file__).resolve().parents[1]
    sources = [p for name in ("common", "recipes", "runs") for p in sorted((package / name).glob("*.py"))]
    more = ("reporting/collect.py", "reporting/tables/matching.py", "data/spec.py", "weighting/options.py")
    digest = hashlib.sha256()
    for source in (*sources, *(package / name for name in more)):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _is_again(folder: RunFolder, seen: dict[tuple[int, int], str]) -> bool:
    """Return whether the folder was reached before by another path; hard links do not count."""
    found, path = folder.path.stat(), str(folder.path)
    before = seen.setdefault((found.st_dev, found.st_ino), path)
    return before != path and os.path.realpath(before) == os.path.realpath(path)


def _add(
    rows: list[dict[str, Any]],
    problems: list[str],
    folder: RunFolder,
    name: str,
    place: str,
    facts: FileFacts,
) -> None:
    def read() -> tuple[dict[str, Any], bool]:
        record = folder.read()
        return {**_row(folder, record), "digests": record.digests}, record.status not in LIVE

    try:
        row = facts.fact(f"{name}/record.json", folder.record_file, read)
    except UserError as error:
        problems.append(f"{error.message}." + (f" ({error.hint})" if error.hint else ""))
    else:
        digests = row["digests"] if row["state"] == "done" else {}
        changed = CHANGED if changed_files(folder, digests, facts) else ""
        marks = {"marks": merge_marks([row["marks"], changed])}
        rows.append(row | marks | {"run": name, "results": place, "path": str(folder.path)})


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row if name not in (*COLUMNS, "digests")))
    names.sort(key=lambda n: METRICS.index(n) if n in METRICS else len(METRICS))
    columns = {
        name: pd.Series([row.get(name, math.nan) for row in rows], dtype=_kind(name))
        for name in (*COLUMNS, *names)
    }
    runs = pd.DataFrame(columns)
    if len(set(runs["results"])) > 1:
        again = runs["run"].duplicated(keep=False)
        runs["run"] = runs["run"].mask(again, runs["path"])
    return runs


def _kind(column: str) -> type | None:
    """Return a column's type: objects for text, all in one block, which makes taking rows five times faster."""
    if column in NUMBERS:
        return None
    return object if column in COLUMNS else float


def metric_names(runs: pd.DataFrame) -> list[str]:
    """Return the metrics that at least one run has, the main one (AP or mAP) first."""
    return [name for name in runs.columns if name not in COLUMNS and runs[name].notna().any()]


def _row(folder: RunFolder, record: Record) -> dict[str, Any]:
    state = folder.state(record)
    last = record.attempts[-1] if record.attempts else None
    row: dict[str, Any] = {
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
        "execution": describe_execution(record.attempts),
        "commit": _text((record.git or {}).get("commit")),
        "marks": marks_of(record),
        "notes": "; ".join(record.notes),
        "created": record.created,
        "ended": _text(last and last.ended) if state == "done" else "",
    }
    if state == "done":  # an earlier attempt may have left metrics of a run that is being done again
        # COCO's tools write -1 where no object of a size exists: no measurement, not a low one
        row.update(
            {name: value for name, value in record.metrics.items() if value >= 0 and name not in COLUMNS}
        )
    return row


def describe_execution(attempts: Iterable[Attempt]) -> str:
    """Return `processes x images per process [x accumulated steps] [fast]`, of each attempt that differs.

    Empty where no attempt got as far as loading data.
    """
    texts = [
        f"{a.world_size} x {a.micro_batch}"
        + (f" x {a.accumulation}" if a.accumulation > 1 else "")
        + (" fast" if a.fast else "")
        for a in attempts
        if a.micro_batch > 0
    ]
    return ", then ".join(text for text, _ in groupby(texts))


def _text(value: Any) -> str:
    return "" if value is None else str(value)

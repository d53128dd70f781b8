"""Run folders to rows of plain values, one row a run."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from experiments.common.cache import FileFacts
from experiments.common.errors import UserError
from experiments.common.metric_names import METRICS
from experiments.runs.lookup import iterate
from experiments.runs.outputs import find_changed_files
from experiments.runs.record import Attempt, Record
from experiments.runs.run_flags import CHANGED, list_marks, merge_marks
from experiments.runs.run_folder import RunFolder

Run = dict[str, Any]  # what `_row` returns, and where it lies: `results` and `path`
Item = TypeVar("Item")
LIVE = ("queued", "running")  # what these say is looked at anew each time: the process may have ended


@dataclass(frozen=True)
class Collected:
    """What results folders hold.

    Attributes:
        runs: One a run folder; only finished ones have `metrics` (percent, by name). Texts are "" and `seconds` is
            NaN where nothing is known; `path` is text, and so is `results`, the results folder as it was given.
        problems: One sentence for each folder that could not be read.
        facts: By results folder, what is known of its files.
    """

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    facts: dict[str, FileFacts] = field(default_factory=dict, repr=False, compare=False)

    def add(self, folder: RunFolder, place: str, facts: FileFacts) -> None:
        """Add the run of a folder, or the problem that it has; `place` is its results folder."""
        name = folder.name

        def read() -> tuple[Run, bool]:
            record = folder.read()
            return _row(folder, record), record.status not in LIVE

        try:
            row = facts.fact(f"{name}/record.json", folder.record_file, read)
        except UserError as error:
            self.problems.append(f"{error.message}." + (f" ({error.hint})" if error.hint else ""))
            return
        digests = row["digests"] if row["state"] == "done" else {}
        changed = CHANGED if find_changed_files(folder, digests, facts) else ""
        marks = merge_marks([row["marks"], changed])
        self.runs.append({**row, "marks": marks, "results": place, "path": str(folder.path)})

    def select(self, **values: Sequence[str] | None) -> Collected:
        """Return only the runs with one of these values in a column; `none` is an empty one, nothing asks for none."""
        runs = self.runs
        for column, allowed in values.items():
            if allowed:
                wanted = {"" if value == "none" else value for value in allowed}
                runs = [run for run in runs if run[column] in wanted]
        return replace(self, runs=runs)


def collect(results: Path | str | Sequence[Path]) -> Collected:
    """Return all runs below results folders; a broken or newer record is a problem, never an error.

    A folder that is given twice, or reached by two ways, counts once. What was read before and has not changed
    since is taken from the cache.
    """
    places = [Path(results)] if isinstance(results, (str, Path)) else [Path(place) for place in results]
    found = Collected()
    seen: dict[tuple[int, int], str] = {}

    def report_unreadable(error: OSError) -> None:
        found.problems.append(f"{error.filename} cannot be read: {error.strerror}.")

    for place in dict.fromkeys(places):
        known = found.facts[str(place)] = FileFacts(["runs", str(place.absolute())], _code_digest())
        names = set()
        for folder in iterate(place, report_unreadable):
            names.add(folder.name)
            if len(places) == 1 or not _is_again(folder, seen):
                found.add(folder, str(place), known)
        known.forget_all_but(names)
        known.save()
    return found


def collect_folders(folders: Iterable[RunFolder]) -> Collected:
    """Return the same for given run folders."""
    found = Collected()
    for folder in folders:
        found.add(folder, str(Path(*folder.path.parts[:-4])), FileFacts())
    return found


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


def list_metrics(runs: Iterable[Run]) -> list[str]:
    """Return the metrics that at least one run has, the main one (AP or mAP) first."""
    names = dict.fromkeys(name for run in runs for name in run["metrics"])
    return sorted(names, key=lambda name: METRICS.index(name) if name in METRICS else len(METRICS))


def find_parent(run: Run) -> str:
    """Return the folder that a run's folder lies in."""
    return run["path"].rpartition(os.sep)[0]


def split_by(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Return the runs, or others, in one list for each value of a key, in their order."""
    parts: dict[Hashable, list[Item]] = {}
    for item in items:
        parts.setdefault(key(item), []).append(item)
    return list(parts.values())


def _row(folder: RunFolder, record: Record) -> Run:
    state = folder.state(record)
    # an earlier attempt may have left metrics of a run that is being done again
    measured = record.metrics if state == "done" else {}
    return {
        "recipe": record.recipe,
        "recipe_id": record.recipe_id,
        "config_hash": record.config_hash,
        "seed": record.seed,
        "profile": record.profile or "",
        "dataset": record.dataset.get("name") or "",
        "fingerprint": record.dataset.get("fingerprint") or "",
        "state": state,
        "iterations": record.iterations,
        "seconds": record.timings.get("total_s", math.nan),
        "execution": describe_execution(record.attempts),
        "commit": (record.git or {}).get("commit") or "",
        "marks": list_marks(record),
        "notes": "; ".join(record.notes),
        "created": record.created,
        "ended": (record.attempts[-1].ended or "") if state == "done" and record.attempts else "",
        # COCO's tools write -1 where no object of a size exists: no measurement, not a low one
        "metrics": {name: value for name, value in measured.items() if value >= 0},
        "digests": record.digests,
    }


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

"""`trace.csv` of the seeds of one config as data frames: by interval and level, and by interval."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.runs.run_folder import RunFolder

KEYS = ["run", "seed", "head", "interval", "iteration"]
OF_LEVELS = ["loss_cls", "loss_bbox", "loss_centerness", "iou", "weight"]
POLICY = ["p_variance", "p_smallest", "p_largest", "p_uniform"]
LEVEL_COLUMNS = [*KEYS, "level", *OF_LEVELS]
INTERVAL_COLUMNS = [*KEYS, "action", "reward", *POLICY]
TEXTS = ("head", "level", "action")
NEEDED = {"interval", "iteration", "head", "level", "weight"}  # each row has them


@dataclass(frozen=True)
class Traces:
    """What can be read of the traces of several runs.

    Attributes:
        levels: A row per run, interval, head and level: KEYS, `level`, OF_LEVELS. Losses are the interval's mean,
            unweighted; `weight` was in force during it. `run` counts the folders, `seed` is that of the folder.
        intervals: A row per run, interval and head: KEYS, `action` (in force during it; NaN in the first), `reward`
            and POLICY (as after its end; NaN where the rule has no policy).
        problems: A sentence for each trace that is missing, broken, or not whole.
    """

    levels: pd.DataFrame
    intervals: pd.DataFrame
    problems: list[str]

    @property
    def heads(self) -> list[str]:
        """In the order of the trace; two where a two-stage detector has both its heads weighted."""
        return [str(head) for head in self.levels["head"].unique()]

    def of(self, head: str) -> Traces:
        return Traces(only(self.levels, "head", head), only(self.intervals, "head", head), self.problems)

    @property
    def level_names(self) -> list[str]:
        """Finest first, as every interval has them."""
        return [str(level) for level in self.levels["level"].unique()]

    @property
    def seeds(self) -> list[int]:
        """Of the runs that have a trace; a seed as often as it was run."""
        return [int(seed) for seed in self.levels.drop_duplicates("run")["seed"]]


def read(folders: Sequence[Path]) -> Traces:
    """Return the traces of one config's run folders; what cannot be read is in `problems`."""
    frames, problems, missing = [], [], []
    for number, folder in enumerate(sorted(folders, key=_seed)):
        run = RunFolder(folder)
        try:
            rows, lost = _rows(run.trace)
        except FileNotFoundError:
            missing.append(run)
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{run.trace} cannot be read: {' '.join(str(error).split())}.")
            continue
        if rows.empty:
            problems.append(f"{run.trace} has no interval yet.")
            continue
        problems += _gaps(run.trace, rows, lost)
        rows.insert(0, "run", number)
        rows.insert(1, "seed", _seed(folder))
        frames.append(rows)
    if missing:
        problems.insert(0, _without(missing, len(folders)))
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=LEVEL_COLUMNS)
    intervals = rows.drop_duplicates(["run", "head", "interval"])
    return Traces(rows.reindex(columns=LEVEL_COLUMNS), intervals.reindex(columns=INTERVAL_COLUMNS), problems)


def only(frame: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """Return the rows that have a value; the frame's index has no double entries."""
    return frame.drop(frame.index[frame[column] != value])


def _rows(trace: Path) -> tuple[pd.DataFrame, int]:
    """Return all whole rows of a trace, and how many lines are not.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no trace.
    """
    data = trace.read_bytes()
    header = data.partition(b"\n")[0].decode("utf-8", "replace").strip().split(",")
    if not set(header) >= NEEDED:
        raise ValueError("its first line does not name the columns of a trace")
    lost = 0
    if not data.endswith(b"\n") or data.count(b",") != data.count(b"\n") * (len(header) - 1) or b"\0" in data:
        first, *lines = data.decode("utf-8", "replace").splitlines()
        whole = [line for line in lines if _cells(line) == len(header)]
        lost = len(lines) - len(whole)
        data = "\n".join([first, *whole]).encode()
    columns = [c for c in header if c in {*KEYS, *TEXTS, *OF_LEVELS, "reward", *POLICY}]
    texts = dict.fromkeys(TEXTS, "object")
    rows = pd.read_csv(
        io.BytesIO(data), usecols=columns, dtype=texts, low_memory=False, encoding_errors="replace"
    )
    for column in [*KEYS[3:], *OF_LEVELS, "reward", *POLICY]:
        rows[column] = pd.to_numeric(rows[column], errors="coerce") if column in rows else float("nan")
    rows["action"] = rows.get("action", None)
    good = rows.dropna(subset=sorted(NEEDED)).drop_duplicates(["head", "interval", "level"], keep="last")
    return good.astype({"interval": int, "iteration": int}), lost + len(rows) - len(good)


def _cells(line: str) -> int:
    """Return how many cells a line has; 0 for one with bytes that no trace holds."""
    if "\0" in line or "\ufffd" in line:
        return 0
    return line.count(",") + 1 if '"' not in line else len(next(csv.reader([line])))


def _gaps(trace: Path, rows: pd.DataFrame, lost: int) -> list[str]:
    texts = []
    if lost:
        texts.append(f"{trace}: {lost} lines cannot be used (cut short, broken or doubled).")
    for head, part in rows.groupby("head", sort=False):
        last, found = int(part["interval"].max()), part.groupby("interval").size()
        missing = last - len(found) + int((found < found.max()).sum())
        if missing:
            texts.append(f"{trace}: {missing} of {last} intervals of {head} are missing or lack levels.")
    return texts


def _without(missing: Sequence[RunFolder], number: int) -> str:
    """Return a sentence on runs without a trace."""
    which = (
        f"{missing[0].path} has"
        if len(missing) == 1
        else f"{len(missing)} of {number} runs of {missing[0].path.parent} have"
    )
    return f"{which} no trace.csv: not begun, or imported from a training without one."


def _seed(folder: Path) -> int:
    digits = folder.name.removeprefix("seed")
    return int(digits) if digits.isdigit() else 0

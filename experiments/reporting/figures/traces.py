"""`trace.csv` and `metrics.csv` of run folders as data frames; what is damaged is a sentence."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from experiments.common.errors import UserError
from experiments.common.files import MAX_TEXT_BYTES, explain_unreadable
from experiments.recipes import loading as recipes
from experiments.runs.run_folder import RunFolder

TEXTS = ["head", "level", "action"]
OF_LEVELS = ["loss_cls", "loss_bbox", "loss_centerness", "loss", "iou", "weight"]
POLICY = ["p_variance", "p_smallest", "p_largest", "p_uniform"]
NEEDED = ["interval", "iteration", "head", "level", "weight"]  # each row has them
COLUMNS = [*NEEDED[:2], *TEXTS, *OF_LEVELS, "reward", *POLICY]


@dataclass(frozen=True)
class Traces:
    """What can be read of the traces of several runs.

    Attributes:
        levels: A row per run, interval, head and level: `run` (counts the folders), `seed` (of the folder) and COLUMNS.
            Losses are the interval's mean, unweighted. `weight` and `action` were in force during it; `reward` and
            POLICY are as after its end, NaN where the rule has none.
        problems: A sentence for each trace that is missing, broken, or not whole.
    """

    levels: pd.DataFrame
    problems: list[str]

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """One row per run, interval and head: for what all levels share."""
        return self.levels.drop_duplicates(["run", "head", "interval"])

    @property
    def heads(self) -> list[str]:
        """In the order of the trace; two where a two-stage detector has both its heads weighted."""
        return [str(head) for head in self.levels["head"].unique()]

    def of(self, head: str) -> Traces:
        return Traces(self.levels.query("head == @head"), self.problems)

    @cached_property
    def probabilities(self) -> list[str]:
        """Those of POLICY that have a value somewhere."""
        return [column for column in POLICY if self.intervals[column].notna().any()]

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
    problems: list[str] = []
    missing = [folder for folder in folders if not RunFolder(folder).trace.exists()]
    if missing:
        which = f"{missing[0]} has"
        if len(missing) > 1:
            which = f"{len(missing)} of {len(folders)} runs of {missing[0].parent} have"
        problems.append(f"{which} no trace.csv: not begun, or imported from a training without one.")
    frames = []
    found = [folder for folder in folders if folder not in missing]
    for number, folder in enumerate(sorted(found, key=seed_of)):
        trace = RunFolder(folder).trace
        rows = read_rows(trace, NEEDED, problems)
        if rows is not None and rows.empty:
            problems.append(f"{trace} has no interval yet.")
        elif rows is not None:
            rows = rows.drop_duplicates(["head", "interval", "level"], keep="last")
            problems += _gaps(trace, rows)
            frames.append(rows.reindex(columns=COLUMNS).assign(run=number, seed=seed_of(folder)))
    empty = pd.DataFrame(columns=[*COLUMNS, "run", "seed"])
    return Traces(pd.concat(frames, ignore_index=True) if frames else empty, problems)


def read_rows(path: Path, needed: Sequence[str], problems: list[str]) -> pd.DataFrame | None:
    """Return the whole rows of a file that a run appends to; None where it cannot be read.

    Args:
        needed: Columns without which a row is none.
        problems: Gets a sentence where the file or some of its lines cannot be used.
    """
    fault = explain_unreadable(path, MAX_TEXT_BYTES)
    if fault is not None:
        problems.append(f"{path}: {fault}.")
        return None
    header, *lines = list(_cells(path.read_text(encoding="utf-8", errors="replace"))) or [[]]
    if not set(header) >= set(needed):
        problems.append(
            f"{path} cannot be read: its first line does not name the columns {', '.join(needed)}."
        )
        return None
    rows = pd.DataFrame([cells for cells in lines if len(cells) == len(header)], columns=header, dtype=str)
    for column in {"interval", "iteration"} & set(header):
        is_whole = rows[column].str.fullmatch(r"0*[1-9][0-9]*")  # both count from 1
        rows = rows.drop(rows.index[~is_whole])
    for column in rows.columns.difference(TEXTS):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    rows = rows.replace("", None).dropna(subset=needed)
    if lost := len(lines) - len(rows):
        problems.append(f"{path}: {lost} line{'s' * (lost > 1)} cannot be used (cut short or broken).")
    return rows


def describe_runs(folders: Sequence[Path]) -> str:
    """Return `retinanet-r50-rlo (bae2048e: rlo, alpha 10, n 2; profile tiny on shapes)` of one config's runs."""
    recipe, digest = folders[0].parts[-3:-1]
    for folder in folders:
        with contextlib.suppress(UserError):
            own = recipes.load_recipe(str(RunFolder(folder).recipe.resolve()))
            rule, data = own.weighting, own.dataset.name
            options = [f"{key} {rule[key]}" for key in ("alpha", "n", "gamma") if key in rule]
            words = ", ".join([str(rule.get("rule")), *options])
            where = f"profile {own.profile} on {data}" if own.profile else data
            return f"{recipe} ({digest}: {words}; {where})"
    return f"{recipe} ({digest})"


def seed_of(folder: Path) -> int:
    """Return the seed in a run folder's name; 0 where it has none."""
    digits = folder.name.removeprefix("seed")
    return int(digits) if digits.isdecimal() else 0


def _cells(text: str) -> Iterator[list[str]]:
    """Yield the cells of each line; none for one that no such file holds."""
    for line in text.splitlines():
        is_text = "\0" not in line and "\ufffd" not in line and len(line) < csv.field_size_limit()
        yield next(csv.reader([line]), []) if is_text else []


def _gaps(trace: Path, rows: pd.DataFrame) -> list[str]:
    texts = []
    for head, part in rows.groupby("head", sort=False):
        last, found = int(part["interval"].max()), part.groupby("interval").size()
        missing = last - int((found == found.max()).sum())
        if missing:
            texts.append(f"{trace}: {missing} of {last} intervals of {head} are missing or lack levels.")
    return texts

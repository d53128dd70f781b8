"""The report's sections on where differences lie, and on what was detected."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.reporting.breakdown.breakdown_figures import class_picture, level_picture
from experiments.reporting.breakdown.comparison import (
    KINDS,
    BreakdownGroup,
    comparison_grid,
    comparison_problem,
    has_same_levels,
    load_group,
    part_difference,
)
from experiments.reporting.breakdown.detection_gallery import detections_picture
from experiments.reporting.breakdown.run_breakdown import evaluated
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Section
from experiments.runs.run_folder import RunFolder

MAX_PAIRS = 4  # on a page: on COCO each run takes tens of seconds the first time
LEVELS = (
    "By level: objects belong to the level that the detector's own assignment gives to their size at test scale,"
    " whichever level found them. By size: the root of the annotations' area in the original image; small, medium and"
    " large are COCO's. An object on a border counts on both sides, as COCO's ranges have it."
)


@dataclass(frozen=True)
class Pair:
    """Finished runs of an RLO row beside those that they are compared with.

    Attributes:
        labels: Of the baseline's row and of the other.
    """

    table: MeasuredTable
    labels: tuple[str, str]
    baseline: list[Path]
    other: list[Path]

    @property
    def title(self) -> str:
        where = self.table.common or "full size"
        return f"{self.labels[1]} against {self.labels[0]}, {where}"


def sections(report: Report) -> list[Section]:
    """Return AP by part and drawn detections, for RLO rows of each context's first table with any.

    Works on the finished runs of both rows; says so on standard error where it takes its time.
    """
    pairs = list(_pairs(report))
    made = []
    for number, pair in enumerate(pairs[:MAX_PAIRS], start=1):
        suffix = "" if number == 1 else f"-{number}"
        made.append(_differences(pair, suffix))
        made.append(_detections(pair, suffix))
    if len(pairs) > MAX_PAIRS:
        rest = "; ".join(pair.title for pair in pairs[MAX_PAIRS:])
        text = f"Not taken apart here: {rest}. For any of them: msdet errors BASELINE RUN."
        made.append(Section("Where other differences lie", [text]))
    return made


def _pairs(report: Report) -> Iterator[Pair]:
    """Yield the pairs of each context's first table that has any; no two runs twice."""
    seen: set[object] = set()
    known: set[tuple[Path, ...]] = set()
    for table in report.tables:
        if table.context in seen:
            continue
        for pair in _pairs_of(table):
            seen.add(table.context)
            folders = tuple(pair.other)
            if folders not in known:
                known.add(folders)
                yield pair


def _pairs_of(table: MeasuredTable) -> Iterator[Pair]:
    for row in table.rows:
        if not row.is_rlo or row.group is None or row.baseline is None:
            continue
        if not row.group.is_imported and not row.baseline.is_imported:  # those keep no detections
            label = next(
                other.definition.label
                for other in table.rows
                if other.definition.id == row.definition.baseline
            )
            sides = row.baseline.finished_folders, row.group.finished_folders
            yield Pair(table, (label, row.definition.label), *sides)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _differences(pair: Pair, suffix: str) -> Section:
    title = f"Where the differences lie: {pair.title}"
    sides = [
        load_group(label, map(RunFolder, folders), say=_say)
        for label, folders in zip(pair.labels, (pair.baseline, pair.other))
    ]
    problems = [f"Left out: {text}" for one in sides for text in one.problems]
    why_not = comparison_problem(*sides)
    if why_not:
        return Section(title, [why_not, *problems])
    baseline, other = sides
    grids = [made for kind in KINDS if (made := comparison_grid(baseline, [other], kind)) is not None]
    drawn = [
        class_picture(baseline, other, f"errors-classes{suffix}"),
        level_picture(baseline, other, f"errors-levels{suffix}"),
    ]
    texts = [*remarks(baseline, other), *problems]
    return Section(title, texts, grids, [p for p in drawn if p], (*baseline.folders, *other.folders))


def remarks(baseline: BreakdownGroup, other: BreakdownGroup) -> list[str]:
    """Return what must be said beside the numbers."""
    found = [part_difference(other, baseline, "classes", part) for part in baseline.parts("classes")]
    judged = [c.verdict for c in found if c is not None and c.verdict != "too few seeds"]
    texts = [
        "Mean ± sample standard deviation over seeds (number of seeds); Δ: difference with its 95 % interval, paired"
        " by seed where two or more match."
    ]
    if judged:
        outside = sum(verdict in ("gain", "loss") for verdict in judged)
        texts[0] += (
            f" {outside} of {len(judged)} classes have an interval that leaves out 0; without any true difference 1 in"
            " 20 would by chance, so no single class is evidence."
        )
    else:
        texts[0] += " With fewer than three seeds on each side nothing here is told from noise."
    if baseline.first.remark:
        texts.append(baseline.first.remark)
    elif not has_same_levels(baseline, other):
        texts.append("No AP by level: a level stands for other object sizes on either side.")
    else:
        absent = [name for name in baseline.first.level_sizes if name not in baseline.first.levels]
        texts.append(LEVELS + (f" {', '.join(absent)}: no object of that size." if absent else ""))
    return texts


def _detections(pair: Pair, suffix: str) -> Section:
    """Return Fig. 3, of the lowest seed that both rows have."""
    title = f"Detections: {pair.title}"
    folders = [{path.name: path for path in side} for side in (pair.baseline, pair.other)]
    common = [name for name in folders[0] if name in folders[1]]
    chosen = [by_name[common[0]] if common else next(iter(by_name.values())) for by_name in folders]
    try:
        baseline, other = (evaluated(RunFolder(path)) for path in chosen)
        drawn = detections_picture(baseline, other, pair.labels, f"detections{suffix}")
    except UserError as error:
        return Section(title, [f"No detections are drawn: {error.message}."])
    return Section(title, pictures=[drawn], folders=chosen)

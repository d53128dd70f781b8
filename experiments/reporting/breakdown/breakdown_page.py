"""The report's sections on where differences lie, and on what was detected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.reporting.breakdown.comparison import (
    BreakdownGroup,
    build_comparison_grids,
    draw_breakdown,
    find_comparison_problem,
    has_same_levels,
    load_group,
)
from experiments.reporting.breakdown.image_drawing import draw_detections
from experiments.reporting.breakdown.run_breakdown import open_evaluation
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
    """Finished runs of an RLO row beside those that they are compared with; the baseline's come first."""

    labels: tuple[str, str]
    folders: tuple[list[Path], list[Path]]
    title: str


def build_breakdown_sections(report: Report) -> list[Section]:
    """Return AP by part and drawn detections, for RLO rows of each context's first table with any.

    Works on the finished runs of both rows; says so on standard error where it takes its time.
    """
    pairs: dict[tuple[Path, ...], Pair] = {}  # no two runs twice
    seen: set[object] = set()
    for table in report.tables:
        found = list(_pairs_of(table)) if table.context not in seen else []
        seen |= {table.context for _ in found}
        for pair in found:
            pairs.setdefault(tuple(pair.folders[1]), pair)
    every, made = list(pairs.values()), []
    for number, pair in enumerate(every[:MAX_PAIRS], start=1):
        suffix = "" if number == 1 else f"-{number}"
        made += [_differences(pair, f"errors{suffix}"), _detections(pair, f"detections{suffix}")]
    if titles := "; ".join(pair.title for pair in every[MAX_PAIRS:]):
        text = f"Not taken apart here: {titles}. For any of them: msdet errors BASELINE RUN."
        made.append(Section("Where other differences lie", [text]))
    return made


def _pairs_of(table: MeasuredTable) -> Iterator[Pair]:
    labels = {row.definition.id: row.definition.label for row in table.rows}
    for row in table.rows:
        if not row.is_rlo or row.group is None or row.baseline is None:
            continue
        if not row.group.is_imported and not row.baseline.is_imported:  # those keep no detections
            names = labels.get(row.definition.baseline or "", "the baseline"), row.definition.label
            title = f"{names[1]} against {names[0]}, {table.common or 'full size'}"
            yield Pair(names, (row.baseline.finished_folders, row.group.finished_folders), title)


def _differences(pair: Pair, stem: str) -> Section:
    title = f"Where the differences lie: {pair.title}"
    baseline, other = (
        load_group(label, map(RunFolder, folders)) for label, folders in zip(pair.labels, pair.folders)
    )
    problems = [f"Left out: {text}" for one in (baseline, other) for text in one.problems]
    why_not = find_comparison_problem(baseline, other)
    if why_not:
        return Section(title, [why_not, *problems])
    return Section(
        title,
        [*list_remarks(baseline, other), *problems],
        list(build_comparison_grids(baseline, [other])),
        draw_breakdown(baseline, other, stem),
        (*baseline.folders, *other.folders),
    )


def list_remarks(baseline: BreakdownGroup, other: BreakdownGroup) -> list[str]:
    """Return what must be said beside the numbers."""
    changes = other.differences(baseline, "classes").values()
    judged = [change.verdict for change in changes if change and change.verdict != "too few seeds"]
    text = (
        "Mean ± sample standard deviation over seeds (number of seeds); Δ: difference with its 95 % interval, paired"
        " by seed where two or more match."
    )
    if judged:
        outside = len(judged) - judged.count("within noise")
        text += (
            f" {outside} of {len(judged)} classes have an interval that leaves out 0; without any true difference 1 in"
            " 20 would by chance, so no single class is evidence."
        )
    else:
        text += " With fewer than three seeds on each side nothing here is told from noise."
    first = baseline.first
    if first.remark:
        return [text, first.remark]
    if not has_same_levels(baseline, other):
        return [text, "No AP by level: a level stands for other object sizes on either side."]
    absent = [name for name in first.level_sizes if name not in first.levels]
    return [text, LEVELS + (f" {', '.join(absent)}: no object of that size." if absent else "")]


def _detections(pair: Pair, name: str) -> Section:
    """Return Fig. 3, of the lowest seed that both rows have."""
    title = f"Detections: {pair.title}"
    one, two = ({path.name: path for path in side} for side in pair.folders)
    seed = next((seed for seed in one if seed in two), None)
    chosen = [side[seed or next(iter(side))] for side in (one, two)]
    try:
        baseline, other = (open_evaluation(RunFolder(path)) for path in chosen)
        drawn = draw_detections(baseline, other, pair.labels, name)
    except UserError as error:
        return Section(title, [f"No detections are drawn: {error.message}."])
    return Section(title, pictures=[drawn], folders=chosen)

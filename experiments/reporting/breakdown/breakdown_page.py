"""The report's sections on where differences lie, and on what was detected."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.reporting.breakdown.breakdown_figures import draw_breakdown
from experiments.reporting.breakdown.comparison import (
    KINDS,
    BreakdownGroup,
    build_comparison_grid,
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
    first, rest = list(pairs.values())[:MAX_PAIRS], list(pairs.values())[MAX_PAIRS:]
    made = []
    for number, pair in enumerate(first, start=1):
        suffix = "" if number == 1 else f"-{number}"
        made += [_differences(pair, f"errors{suffix}"), _detections(pair, f"detections{suffix}")]
    if rest:
        titles = "; ".join(pair.title for pair in rest)
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
        load_group(label, map(RunFolder, folders), say=lambda text: print(text, file=sys.stderr))
        for label, folders in zip(pair.labels, pair.folders)
    )
    problems = [f"Left out: {text}" for one in (baseline, other) for text in one.problems]
    why_not = find_comparison_problem(baseline, other)
    if why_not:
        return Section(title, [why_not, *problems])
    return Section(
        title,
        [*list_remarks(baseline, other), *problems],
        [made for kind in KINDS if (made := build_comparison_grid(baseline, [other], kind)) is not None],
        draw_breakdown(baseline, other, stem),
        (*baseline.folders, *other.folders),
    )


def list_remarks(baseline: BreakdownGroup, other: BreakdownGroup) -> list[str]:
    """Return what must be said beside the numbers."""
    found = [
        change.verdict for change in other.differences(baseline, "classes").values() if change is not None
    ]
    judged = [verdict for verdict in found if verdict != "too few seeds"]
    texts = [
        "Mean ± sample standard deviation over seeds (number of seeds); Δ: difference with its 95 % interval, paired"
        " by seed where two or more match."
    ]
    if judged:
        outside = len(judged) - judged.count("within noise")
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

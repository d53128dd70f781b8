"""Breakdowns of several configs beside a baseline's, part by part, over their seeds: as a table, and drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.common.errors import UserError
from experiments.reporting.breakdown.run_breakdown import Breakdown, load_breakdown, open_evaluation
from experiments.reporting.figures.forest import Effect, draw_differences
from experiments.reporting.figures.series import name_seeds
from experiments.reporting.figures.style import render_picture
from experiments.reporting.stats.statistics import Difference, Spread, compute_difference, compute_spread
from experiments.reporting.tables.sections import Grid, Picture
from experiments.runs.run_folder import RunFolder

KINDS = {"classes": "class", "levels": "level", "sizes": "size"}
DRAWN = {
    "classes": "class, the greatest gain first",
    "levels": "pyramid level: over the objects whose size the detector's own assignment gives to it",
}
MAX_PARTS = 24  # more cannot be read at column width: then both ends are drawn


@dataclass(frozen=True)
class BreakdownGroup:
    """The finished runs of one config.

    Attributes:
        label: What they are called in headings and legends.
        by_seed: What each came to.
        folders: Their run folders, by seed.
        problems: One sentence for each run that is left out, and why.
    """

    label: str
    by_seed: dict[int, Breakdown]
    folders: tuple[Path, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def first(self) -> Breakdown:
        return self.by_seed[min(self.by_seed)]

    def values(self, kind: str, part: str = "") -> dict[int, float]:
        """Return AP in percent by seed; `kind` is one of KINDS, or "overall"."""
        if kind == "overall":
            return {seed: one.overall for seed, one in self.by_seed.items()}
        found = {seed: getattr(one, kind).get(part) for seed, one in self.by_seed.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, kind: str, part: str = "") -> Spread | None:
        return compute_spread(self.values(kind, part).values())

    def minus(self, baseline: BreakdownGroup, kind: str, part: str = "") -> Difference | None:
        """Return the difference of one part in points, paired by seed as everywhere."""
        return compute_difference(self.values(kind, part), baseline.values(kind, part))

    def differences(self, baseline: BreakdownGroup, kind: str) -> dict[str, Difference | None]:
        """Return those of the baseline's parts: classes by their gain, those without a difference last."""
        parts = dict.fromkeys(part for one in baseline.by_seed.values() for part in getattr(one, kind))
        changes = {part: self.minus(baseline, kind, part) for part in parts}
        if kind == "classes":
            changes = dict(sorted(changes.items(), key=lambda one: -one[1].value if one[1] else math.inf))
        return changes


def load_group(label: str, runs: Iterable[RunFolder], data_root: Path | None = None) -> BreakdownGroup:
    """Return the breakdowns of one config's runs; runs that have none are problems."""
    by_seed: dict[int, Breakdown] = {}
    folders, problems = {}, []
    for run in runs:
        try:
            one = open_evaluation(run, data_root)
            by_seed[one.record.seed] = load_breakdown(one)
            folders[one.record.seed] = run.path
        except UserError as error:
            problems.append(f"{error.message}.")
    return BreakdownGroup(label, by_seed, tuple(folders[seed] for seed in sorted(folders)), problems)


def find_comparison_problem(baseline: BreakdownGroup, other: BreakdownGroup) -> str:
    """Return why two groups cannot be compared; empty where they can."""
    for one in (baseline, other):
        if not one.by_seed:
            return f"{one.label} has no run that could be taken apart."
    if len({made.data for one in (baseline, other) for made in one.by_seed.values()}) > 1:
        return f"{baseline.label} and {other.label} were not evaluated on the same annotations."
    return ""


def has_same_levels(*groups: BreakdownGroup) -> bool:
    """Return whether a level stands for the same object sizes in all groups."""
    return len({str(made.level_sizes) for one in groups for made in one.by_seed.values()}) == 1


def build_comparison_grids(baseline: BreakdownGroup, others: Sequence[BreakdownGroup]) -> Iterator[Grid]:
    """Yield a grid for each of KINDS that runs have parts of: one row a part below a row for all.

    Classes come from the greatest gain of the first of `others` to its greatest loss, levels and sizes in their
    own order.
    """

    def cells(kind: str, part: str = "") -> list[str]:
        found: list[object] = [baseline.spread(kind, part)]
        for other in others:
            found += [other.spread(kind, part), other.minus(baseline, kind, part)]
        return ["" if value is None else str(value) for value in found]

    first = baseline.first
    titles = {
        "classes": f"{first.metric} by class",
        "levels": f"{first.metric} by pyramid level, object size as {first.level_measure} in the tested image",
        "sizes": f"{first.metric} by object size",
    }
    for kind, title in titles.items():
        parts = others[0].differences(baseline, kind)
        if not parts or (kind == "levels" and not has_same_levels(baseline, *others)):
            continue
        names = {part: f"{part}: {first.level_sizes[part]}" if kind == "levels" else part for part in parts}
        counts = first.counts.get(kind, {})
        header = [KINDS[kind], "objects", baseline.label]
        for other in others:
            header += [other.label, "Δ [95 %]"]
        rows = [[f"all ({first.metric})", "", *cells("overall")]]
        rows += [[names[part], f"{counts.get(part, 0):,}", *cells(kind, part)] for part in parts]
        yield Grid(header, rows, 1, title)


def draw_breakdown(baseline: BreakdownGroup, other: BreakdownGroup, stem: str) -> list[Picture]:
    """Draw each class's and level's difference with its interval and the pairs of seeds, below that over all."""
    first, made = baseline.first, []
    overall = other.minus(baseline, "overall")
    if overall is None:
        return []
    own, theirs = (name_seeds(sorted(group.by_seed)) for group in (other, baseline))
    seeds = own if own == theirs else f"{own} against {theirs}"
    for kind, sort in DRAWN.items():
        if kind == "levels" and not has_same_levels(baseline, other):
            continue
        sizes = first.level_sizes if kind == "levels" else {}
        names = {part: f"{part}, {size}" for part, size in sizes.items()}
        rows = [
            Effect(f"{names.get(part, part)} ({first.counts[kind][part]:,})", change)
            for part, change in other.differences(baseline, kind).items()
            if change is not None
        ]
        if not rows:
            continue
        caption = (
            f"Difference in {first.metric} by {sort}; {other.label} minus {baseline.label} ({seeds}), in points: mean"
            " with its 95 % interval, where there are two seeds or more; small dots: the seeds, paired. In brackets:"
            " how many objects."
        )
        drawn, half = rows, MAX_PARTS // 2
        if len(rows) > MAX_PARTS:
            drawn, between = [*rows[:half], *rows[-half:]], len(rows) - 2 * half
            caption += f" The {half} greatest gains and losses; {between} between are in the table."
        listed = "; ".join(f"{row.label} {row.difference}" for row in drawn)
        alt = f"{first.metric} of {other.label} minus {baseline.label}: {listed}."
        figure = draw_differences([Effect("all", overall), *drawn], first.metric, baseline.label)
        made.append(render_picture(figure, f"{stem}-{kind}", caption, alt))
    return made

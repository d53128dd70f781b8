"""Breakdowns of several configs beside a baseline's, part by part, over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.common.errors import UserError
from experiments.reporting.breakdown.run_breakdown import Breakdown, breakdown, evaluated
from experiments.reporting.stats.statistics import Difference, Spread, difference, spread
from experiments.reporting.tables.sections import Grid
from experiments.runs.run_folder import RunFolder

KINDS = {"classes": "class", "levels": "level", "sizes": "size"}
Say = Callable[[str], None]


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

    def values(self, kind: str, part: str) -> dict[int, float]:
        """Return AP in percent by seed; `kind` is one of KINDS, or "overall"."""
        if kind == "overall":
            return {seed: one.overall for seed, one in self.by_seed.items()}
        found = {seed: getattr(one, kind).get(part) for seed, one in self.by_seed.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, kind: str, part: str) -> Spread | None:
        return spread(self.values(kind, part).values())

    def parts(self, kind: str) -> list[str]:
        return list(dict.fromkeys(part for one in self.by_seed.values() for part in getattr(one, kind)))

    @property
    def first(self) -> Breakdown:
        return self.by_seed[min(self.by_seed)]


def load_group(
    label: str, runs: Iterable[RunFolder], data_root: Path | None = None, say: Say | None = None
) -> BreakdownGroup:
    """Return the breakdowns of one config's runs; runs that have none are problems.

    Args:
        say: Told of each run that is not remembered.
    """
    by_seed: dict[int, Breakdown] = {}
    folders, problems = {}, []
    for run in runs:
        try:
            one = evaluated(run, data_root)
            by_seed[one.record.seed] = breakdown(one, say)
            folders[one.record.seed] = run.path
        except UserError as error:
            problems.append(f"{error.message}.")
    return BreakdownGroup(label, by_seed, tuple(folders[seed] for seed in sorted(folders)), problems)


def part_difference(
    other: BreakdownGroup, baseline: BreakdownGroup, kind: str, part: str
) -> Difference | None:
    """Return the difference of one part in points, paired by seed as everywhere."""
    return difference(other.values(kind, part), baseline.values(kind, part))


def comparison_problem(baseline: BreakdownGroup, other: BreakdownGroup) -> str:
    """Return why two groups cannot be compared; empty where they can."""
    for one in (baseline, other):
        if not one.by_seed:
            return f"{one.label} has no run that could be taken apart."
    if len({made.data for one in (baseline, other) for made in one.by_seed.values()}) > 1:
        return f"{baseline.label} and {other.label} were not evaluated on the same annotations."
    return ""


def has_same_levels(baseline: BreakdownGroup, other: BreakdownGroup) -> bool:
    """Return whether a level stands for the same object sizes in both groups."""
    return (
        len({tuple(made.level_sizes.items()) for one in (baseline, other) for made in one.by_seed.values()})
        == 1
    )


def comparison_grid(baseline: BreakdownGroup, others: Sequence[BreakdownGroup], kind: str) -> Grid | None:
    """Return one row a part below a row for all; None where no run has any.

    Classes come from the greatest gain of the first of `others` to its greatest loss, levels and sizes in their
    own order.
    """
    parts = baseline.parts(kind)
    if not parts or (kind == "levels" and not all(has_same_levels(baseline, other) for other in others)):
        return None
    if kind == "classes":
        parts = by_gain(baseline, others[0], parts)
    metric, counts = baseline.first.metric, baseline.first.counts.get(kind, {})
    header = [KINDS[kind], "objects", baseline.label]
    for other in others:
        header += [other.label, "Δ [95 %]"]
    rows = [_row(baseline, others, "overall", f"all ({metric})", "")]
    for part in parts:
        name = f"{part}: {baseline.first.level_sizes[part]}" if kind == "levels" else part
        rows.append(_row(baseline, others, kind, name, f"{counts.get(part, 0):,}", part))
    titles = {
        "classes": f"{metric} by class",
        "levels": f"{metric} by pyramid level, object size as {baseline.first.level_measure} in the tested image",
        "sizes": f"{metric} by object size",
    }
    return Grid(header, rows, 1, titles[kind])


def by_gain(baseline: BreakdownGroup, other: BreakdownGroup, parts: Sequence[str]) -> list[str]:
    """Return classes, the greatest gain first, those without a difference last."""
    changes = {part: part_difference(other, baseline, "classes", part) for part in parts}
    return sorted(parts, key=lambda part: (changes[part] is None, -getattr(changes[part], "value", 0.0)))


def _row(
    baseline: BreakdownGroup,
    others: Sequence[BreakdownGroup],
    kind: str,
    name: str,
    count: str,
    part: str = "",
) -> list[str]:
    row = [name, count, _text(baseline.spread(kind, part))]
    for other in others:
        row += [_text(other.spread(kind, part)), _text(part_difference(other, baseline, kind, part))]
    return row


def _text(value: object) -> str:
    return "" if value is None else str(value)

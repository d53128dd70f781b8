"""Figures of the error analysis: differences by class and by pyramid level, with intervals."""

from __future__ import annotations

from experiments.reporting.breakdown.comparison import BreakdownGroup, has_same_levels
from experiments.reporting.figures.forest import Effect, draw_differences
from experiments.reporting.figures.series import name_seeds
from experiments.reporting.figures.style import render_picture
from experiments.reporting.tables.sections import Picture

MAX_PARTS = 24  # more cannot be read at column width: then both ends are drawn
SORTS = {
    "classes": "class, the greatest gain first",
    "levels": "pyramid level: over the objects whose size the detector's own assignment gives to it",
}


def draw_breakdown(baseline: BreakdownGroup, other: BreakdownGroup, stem: str) -> list[Picture]:
    """Draw each class's and level's difference with its interval and the pairs of seeds, below that over all."""
    first, made = baseline.first, []
    overall = other.minus(baseline, "overall")
    if overall is None:
        return []
    for kind, sort in SORTS.items():
        if kind == "levels" and not has_same_levels(baseline, other):
            continue
        changes = other.differences(baseline, kind)
        names = (
            {part: f"{part}, {size}" for part, size in first.level_sizes.items()} if kind == "levels" else {}
        )
        rows = [
            Effect(f"{names.get(part, part)} ({first.counts[kind][part]:,})", change)
            for part, change in changes.items()
            if change is not None
        ]
        if not rows:
            continue
        half = MAX_PARTS // 2
        drawn = rows if len(rows) <= MAX_PARTS else [*rows[:half], *rows[-half:]]
        caption = (
            f"Difference in {first.metric} by {sort}; {other.label} minus {baseline.label} ({_seeds(baseline, other)}),"
            " in points: mean with its 95 % interval, where there are two seeds or more; small dots: the seeds,"
            " paired. In brackets: how many objects."
        )
        if len(drawn) < len(rows):
            caption += (
                f" The {half} greatest gains and losses; {len(rows) - 2 * half} between are in the table."
            )
        listed = "; ".join(f"{row.label} {row.difference}" for row in drawn)
        alt = f"{first.metric} of {other.label} minus {baseline.label}: {listed}."
        figure = draw_differences([Effect("all", overall), *drawn], first.metric, baseline.label)
        made.append(render_picture(figure, f"{stem}-{kind}", caption, alt))
    return made


def _seeds(baseline: BreakdownGroup, other: BreakdownGroup) -> str:
    one, two = (name_seeds(sorted(group.by_seed)) for group in (other, baseline))
    return one if one == two else f"{one} against {two}"

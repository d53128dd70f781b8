"""Figures of the error analysis: differences by class with intervals, AP by pyramid level."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from experiments.reporting.breakdown.comparison import BreakdownGroup, has_same_levels
from experiments.reporting.figures.forest import Effect, draw_differences
from experiments.reporting.figures.style import (
    BLUE,
    COLUMN_IN,
    PALE,
    RED,
    add_legend,
    drawing,
    fold,
    new_figure,
    picture,
)
from experiments.reporting.tables.sections import Picture

MAX_CLASSES = 24  # more names than these cannot be read at column width: then both ends are drawn


def breakdown_pictures(baseline: BreakdownGroup, other: BreakdownGroup, stem: str) -> list[Picture]:
    """Return the figures by class and by level, where there is anything to draw."""
    drawn = [
        class_picture(baseline, other, f"{stem}-classes"),
        level_picture(baseline, other, f"{stem}-levels"),
    ]
    return [picture for picture in drawn if picture is not None]


def class_picture(baseline: BreakdownGroup, other: BreakdownGroup, name: str) -> Picture | None:
    """Draw each class's difference with its 95 % interval and the pairs of seeds, below that over all."""
    metric, counts = baseline.first.metric, baseline.first.counts.get("classes", {})
    rows = [
        Effect(f"{part} ({counts[part]:,})", change)
        for part, change in other.classes_by_gain(baseline).items()
        if change is not None
    ]
    overall = other.minus(baseline, "overall")
    if not rows or overall is None:
        return None
    half = MAX_CLASSES // 2
    drawn = rows if len(rows) <= MAX_CLASSES else [*rows[:half], *rows[-half:]]
    caption = (
        f"Difference in {metric} by class, {other.label} minus {baseline.label} ({_seeds(baseline, other)}), in points:"
        " mean with its 95 % interval, where there are two seeds or more; small dots: the seeds, paired. In brackets:"
        " how many objects."
    )
    if len(drawn) < len(rows):
        caption += (
            f" The {half} greatest gains and losses; {len(rows) - 2 * half} classes between are in the table."
        )
    alt = (
        f"{metric} of {other.label} minus {baseline.label} by class: from {rows[0].difference.value:+.1f} points"
        f" ({rows[0].label}) to {rows[-1].difference.value:+.1f} ({rows[-1].label})."
    )
    figure = draw_differences([Effect("all classes", overall), *drawn], metric, baseline.label)
    return picture(figure, name, caption, alt)


def level_picture(baseline: BreakdownGroup, other: BreakdownGroup, name: str) -> Picture | None:
    """Draw AP by level as bars, baseline beside the other, with whiskers of one standard deviation."""
    levels = baseline.parts("levels")
    if not levels or not has_same_levels(baseline, other):
        return None
    caption = (
        f"AP by pyramid level, {baseline.label} and {other.label} ({_seeds(baseline, other)}): AP over the objects"
        " whose size the detector's own assignment gives to the level, whichever level found them. Whiskers: one"
        " standard deviation over the seeds."
    )
    parts = [f"{n} {baseline.spread('levels', n)} and {other.spread('levels', n)}" for n in levels]
    alt = f"AP by level of {baseline.label} and {other.label}: {', '.join(parts)}."
    return picture(draw_level_bars(baseline, other), name, caption, alt)


@drawing()
def draw_level_bars(baseline: BreakdownGroup, other: BreakdownGroup) -> Figure:
    """Draw a pair of bars for each level."""
    levels, first = baseline.parts("levels"), baseline.first
    figure = new_figure(2.0)
    axes = figure.subplots()
    for shift, face, colour, hatch, one in (
        (-0.2, BLUE, BLUE, "", baseline),
        (0.2, "white", RED, "///", other),
    ):
        found = {place: spread for place, n in enumerate(levels) if (spread := one.spread("levels", n))}
        deviations = [math.nan if spread.sd is None else spread.sd for spread in found.values()]
        axes.bar(
            [place + shift for place in found], [spread.mean for spread in found.values()], 0.38, yerr=deviations,
            color=face, edgecolor=colour, hatch=hatch, linewidth=0.8, label=one.label,
            error_kw={"elinewidth": 0.9, "capsize": 2},
        )  # fmt: skip
    column_in = 0.85 * COLUMN_IN / len(levels)
    names = [[n, first.level_sizes[n].replace(" px", ""), f"{first.counts['levels'][n]:,}"] for n in levels]
    labels = [[line for text in texts for line in fold(text, column_in)] for texts in names]
    axes.set_xticks(range(len(levels)), ["\n".join(lines) for lines in labels])
    axes.set_xlabel(f"level, {first.level_measure} in px as tested, objects")
    axes.set_ylabel(f"{first.metric}, %")
    axes.grid(axis="y", color=PALE)
    add_legend(figure)
    return figure


def _seeds(baseline: BreakdownGroup, other: BreakdownGroup) -> str:
    one, two = (", ".join(map(str, sorted(s.by_seed))) for s in (other, baseline))
    return f"seeds {one}" if one == two else f"seeds {one} against {two}"

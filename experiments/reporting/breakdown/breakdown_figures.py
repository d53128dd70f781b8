"""Figures of the error analysis: differences by class with intervals, AP by pyramid level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.reporting.breakdown.comparison import (
    BreakdownGroup,
    by_gain,
    has_same_levels,
    part_difference,
)
from experiments.reporting.figures.style import BLUE, COLUMN_IN, GREY, PALE, RED, drawing, new_figure, picture
from experiments.reporting.tables.sections import Picture

MAX_CLASSES = 24  # more names than these cannot be read at column width: then both ends are drawn
_ROW_IN = 0.15


def class_picture(baseline: BreakdownGroup, other: BreakdownGroup, name: str) -> Picture | None:
    """Draw each class's mean difference with its 95 % interval, and each pair of seeds as a ring."""
    changes = {part: part_difference(other, baseline, "classes", part) for part in baseline.parts("classes")}
    known = {part: found for part, found in changes.items() if found is not None}
    if not known:
        return None
    ordered = by_gain(baseline, other, list(known))
    drawn, left_out = _ends(ordered)
    with drawing():
        figure = new_figure(0.95 + _ROW_IN * len(drawn), COLUMN_IN)
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.8)
        overall = part_difference(other, baseline, "overall", "")
        if overall is not None:
            axes.axvline(overall.value, color=RED, linewidth=0.8, linestyle=(0, (4, 2)))
        for row, part in enumerate(drawn):
            _dot(axes, row, known[part])
        counts = baseline.first.counts["classes"]
        axes.set_yticks(range(len(drawn)), [f"{part} ({counts[part]:,})" for part in drawn])
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.grid(axis="x")
        metric = baseline.first.metric
        axes.set_xlabel(f"{metric} of {other.label} minus\n{baseline.label}, points")
    seeds = _seeds(baseline, other)
    caption = (
        f"Difference in {metric} by class, {other.label} minus {baseline.label} ({seeds})."
        " Dot: mean; bar: its 95 % interval, where there are two seeds or more; rings: the seeds, paired."
        " Dashed: over all classes. In brackets: how many objects."
    )
    if left_out:
        caption += (
            f" The {len(drawn) // 2} greatest gains and losses; {left_out} classes between are in the table."
        )
    return picture(figure, name, caption, _class_alt(baseline, other, known, ordered))


def _dot(axes: Any, row: int, found: Any) -> None:
    if found.low is not None:
        axes.plot([found.low, found.high], [row, row], color=RED, linewidth=1.1, solid_capstyle="butt")
    axes.plot(found.pairs, [row] * len(found.pairs), "o", color=GREY, markerfacecolor="none", markersize=3.5)
    axes.plot([found.value], [row], "o", color=RED, markersize=4)


def _ends(ordered: Sequence[str]) -> tuple[list[str], int]:
    """Return both ends of a long list, and how many are left out between."""
    if len(ordered) <= MAX_CLASSES:
        return list(ordered), 0
    half = MAX_CLASSES // 2
    return [*ordered[:half], *ordered[-half:]], len(ordered) - 2 * half


def _class_alt(
    baseline: BreakdownGroup, other: BreakdownGroup, known: dict[str, Any], ordered: Sequence[str]
) -> str:
    best, worst = ordered[0], ordered[-1]
    return (
        f"{baseline.first.metric} of {other.label} minus {baseline.label} by class: from"
        f" {known[best].value:+.1f} points ({best}) to {known[worst].value:+.1f} ({worst})."
    )


def level_picture(baseline: BreakdownGroup, other: BreakdownGroup, name: str) -> Picture | None:
    """Draw AP by level as bars, baseline beside the other, with whiskers of one standard deviation."""
    levels = baseline.parts("levels")
    if not levels or not has_same_levels(baseline, other):
        return None
    with drawing():
        figure = new_figure(2.1, COLUMN_IN)
        axes = figure.subplots()
        for shift, colour, hatch, one in ((-0.2, BLUE, "", baseline), (0.2, RED, "///", other)):
            spreads = [one.spread("levels", level) for level in levels]
            at = [i + shift for i, found in enumerate(spreads) if found]
            heights = [found.mean for found in spreads if found]
            axes.bar(at, heights, 0.38, color=colour if not hatch else "white", edgecolor=colour, hatch=hatch,
                     linewidth=0.8, label=one.label)  # fmt: skip
            shown = [(x, s.mean, s.sd) for x, s in zip(at, (s for s in spreads if s)) if s.sd is not None]
            if shown:
                x, y, sd = zip(*shown)
                axes.errorbar(x, y, sd, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
        sizes, counts = baseline.first.level_sizes, baseline.first.counts["levels"]
        axes.set_xticks(
            range(len(levels)), [f"{n}\n{sizes[n].replace(' px', '')}\n{counts[n]:,}" for n in levels]
        )
        axes.set_xlabel(f"level, {baseline.first.level_measure} in px as tested, objects")
        axes.set_ylabel(f"{baseline.first.metric}, %")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.22)  # room for the legend
        axes.grid(axis="y", color=PALE)
        axes.legend(loc="upper left", ncols=2)
    caption = (
        f"AP by pyramid level, {baseline.label} and {other.label} ({_seeds(baseline, other)}): AP over the objects"
        " whose size the detector's own assignment gives to the level, whichever level found them. Whiskers: one"
        " standard deviation over the seeds."
    )
    parts = [f"{n} {_mean(baseline, n)} and {_mean(other, n)}" for n in levels]
    alt = f"AP by level of {baseline.label} and {other.label}: {', '.join(parts)}."
    return picture(figure, name, caption, alt)


def _mean(one: BreakdownGroup, level: str) -> str:
    found = one.spread("levels", level)
    return "none" if found is None else f"{found.mean:.1f}"


def _seeds(baseline: BreakdownGroup, other: BreakdownGroup) -> str:
    one, two = (", ".join(map(str, sorted(s.by_seed))) for s in (other, baseline))
    return f"seeds {one}" if one == two else f"seeds {one} against {two}"

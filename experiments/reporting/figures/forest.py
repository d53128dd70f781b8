"""Forest plots: each row's difference to its baseline, with its interval."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.figures.style import BLUE, GREY, RED, drawing, new_figure, picture
from experiments.reporting.stats.statistics import MIN_SEEDS, Difference
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Picture

MAX_ROWS = 40  # more cannot be read on a page
ROW_IN, WIDEST_LABEL = 0.27, 24
COLOURS = {"gain": BLUE, "loss": RED, "within noise": GREY, "too few seeds": GREY}


@dataclass(frozen=True)
class Effect:
    """One row of the figure.

    Attributes:
        published: The published difference; None where it does not compare, or nothing is published.
    """

    label: str
    difference: Difference
    published: float | None = None


def differences(table: MeasuredTable, name: str) -> Picture | None:
    """Draw a table's differences; None where it has none, or more than a page can bear."""
    rows = effects(table)
    if not 0 < len(rows) <= MAX_ROWS:
        return None
    metric, baselines = table.columns[0], _baselines(table)
    to = baselines[0] if len(baselines) == 1 else "each row's own baseline"
    caption = (
        f"{table.title}. Difference in {metric} to {to}, in points: mean (filled) with its 95 % confidence interval,"
        " small dots the single seeds' differences. Blue: gain, red: loss, grey: within noise or too few seeds."
    )
    if any(row.published is not None for row in rows):
        caption += " Open diamonds: the published difference."
    if any(row.difference.low is not None and row.difference.n < MIN_SEEDS for row in rows):
        caption += " An arrow: the interval goes on, for two seeds say little."
    if table.context is not None and table.has_published:
        caption += f" {table.notes[0]}" if table.notes else ""  # what a profile made of the rows' intervals
    alt = f"{table.title}: " + "; ".join(f"{row.label} {row.difference}" for row in rows) + "."
    return picture(draw_differences(rows, metric), name, caption, alt)


def effects(table: MeasuredTable) -> list[Effect]:
    """Return the rows of a table that have a difference."""
    several = len({row.definition.backbone for row in table.rows if row.difference}) > 1
    return [
        Effect(
            _label(row, several),
            row.difference,
            row.published_difference if table.context is None else None,
        )
        for row in table.rows
        if row.difference is not None
    ]


def draw_differences(rows: list[Effect], metric: str) -> Figure:
    """Draw one row each, top to bottom, with the numbers beside it."""
    with drawing():
        figure = new_figure(ROW_IN * len(rows) + 0.75)
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        low, high = _limits(rows)
        for place, row in enumerate(rows):
            _draw_row(axes, place, row, low, high)
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [textwrap.fill(row.label, WIDEST_LABEL) for row in rows])
        axes.tick_params(axis="y", length=0, pad=6)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"Δ {metric} to the baseline, points")
    return figure


def _draw_row(axes: Axes, place: int, row: Effect, low: float, high: float) -> None:
    change, colour = row.difference, COLOURS[row.difference.verdict]
    if change.low is not None and change.high is not None:
        left, right = max(change.low, low), min(change.high, high)
        axes.plot([left, right], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
        for end, edge, marker in ((change.low, low, "<"), (change.high, high, ">")):
            cut = end < low if marker == "<" else end > high
            x, shape, size = (edge, marker, 4) if cut else (end, "|", 5)
            axes.plot([x], [place], shape, color=colour, markersize=size, clip_on=False)
    axes.plot(
        change.pairs, [place + 0.22] * len(change.pairs), ".", color=colour, markersize=3.2, alpha=0.7,
        markeredgewidth=0,
    )  # fmt: skip
    axes.plot([change.value], [place], "o", color=colour, markersize=4.5, markeredgewidth=0)
    if row.published is not None:
        axes.plot(
            [row.published], [place - 0.2], "D", markerfacecolor="white", markeredgecolor="black", markersize=3.5,
            markeredgewidth=0.8,
        )  # fmt: skip
    axes.text(1.06, place, str(change), transform=axes.get_yaxis_transform(), va="center", fontsize=6.5)


def _limits(rows: list[Effect]) -> tuple[float, float]:
    """Return the x range of all but intervals of two seeds, which are 13 standard errors wide."""
    numbers = [0.0]
    for row in rows:
        change = row.difference
        numbers += [change.value, *change.pairs]
        numbers += [row.published] if row.published is not None else []
        if change.n >= MIN_SEEDS and change.low is not None and change.high is not None:
            numbers += [change.low, change.high]
    room = max(0.1 * (max(numbers) - min(numbers)), 0.1)
    return min(numbers) - room, max(numbers) + room


def _label(row: TableRow, with_backbone: bool) -> str:
    text = row.definition.label + (
        f", {row.definition.backbone}" if with_backbone and row.definition.backbone else ""
    )
    if row.group is None:
        return text
    return (
        text
        + (f" ({row.group.distinguishing_label})" if row.group.distinguishing_label else "")
        + row.group.marks
    )


def _baselines(table: MeasuredTable) -> list[str]:
    wanted = [row.definition.baseline for row in table.rows if row.difference]
    labels = {row.definition.id: row.definition.label for row in table.rows}
    return list(dict.fromkeys(labels.get(name or "", "the baseline") for name in wanted))

"""Forest plots: each row's difference to its baseline, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.figures import style
from experiments.reporting.stats.statistics import MIN_SEEDS, Difference
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Picture

MAX_ROWS = 40  # more cannot be read on a page
ROW_IN = 0.27
COLOURS = {"gain": style.BLUE, "loss": style.RED}  # grey: no verdict


@dataclass(frozen=True)
class Effect:
    """One row of the figure.

    Attributes:
        published: The published difference; None where it does not compare, or nothing is published.
    """

    label: str
    difference: Difference
    published: float | None = None


def draw_forest(table: MeasuredTable, name: str) -> Picture | None:
    """Draw a table's differences; None where it has none, or more than a page can bear."""
    rows = list_effects(table)
    if not 0 < len(rows) <= MAX_ROWS:
        return None
    metric, labels = table.columns[0], {row.definition.id: row.full_label for row in table.rows}
    to = {labels.get(row.definition.baseline or "", "the baseline") for row in table.rows if row.difference}
    baseline = to.pop() if len(to) == 1 else "each row's own baseline"
    caption = (
        f"{table.title}. Difference in {metric} to {baseline}, in points: mean (filled) with its 95 % confidence"
        " interval, small dots the single seeds' differences. Blue: gain, red: loss, grey: neither."
    )
    if any(row.published is not None for row in rows):
        caption += " Open diamonds: the published difference."
    if any(row.difference.low is not None and row.difference.n < MIN_SEEDS for row in rows):
        caption += " An arrow: the interval goes on, for two seeds say little."
    if table.context is not None and table.has_published:
        caption += f" {table.notes[0]}" if table.notes else ""  # what a profile made of the rows' intervals
    alt = f"{table.title}: " + "; ".join(f"{row.label} {row.difference}" for row in rows) + "."
    return style.render_picture(draw_differences(rows, metric, baseline), name, caption, alt)


def list_effects(table: MeasuredTable) -> list[Effect]:
    """Return the rows of a table that have a difference."""
    several = len({row.definition.backbone for row in table.rows if row.difference is not None}) > 1
    compares = table.context is None
    return [
        Effect(_label(row, several), row.difference, row.published_difference if compares else None)
        for row in table.rows
        if row.difference is not None
    ]


@style.drawing()
def draw_differences(rows: list[Effect], metric: str, baseline: str) -> Figure:
    """Draw one row each, top to bottom, with the numbers beside it."""
    figure = style.make_figure(ROW_IN * len(rows) + 0.75)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(*_limits(rows))
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    style.name_rows(axes, [row.label for row in rows])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("\n".join(style.fold(f"Δ {metric} to {baseline}, points", 0.7 * style.COLUMN_IN)))
    return figure


def _draw_row(axes: Axes, place: int, row: Effect) -> None:
    change, (low, high) = row.difference, axes.get_xlim()
    colour = COLOURS.get(change.verdict, style.GREY)
    if change.low is not None and change.high is not None:
        ends = [max(change.low, low), min(change.high, high)]
        axes.plot(ends, [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
        for x, is_cut, arrow in ((ends[0], change.low < low, "<"), (ends[1], change.high > high, ">")):
            marker, size = (arrow, 4) if is_cut else ("|", 5)
            axes.plot([x], [place], marker, color=colour, markersize=size, clip_on=False)
    places = [place + 0.22] * len(change.pairs)
    axes.plot(change.pairs, places, ".", color=colour, markersize=3.2, alpha=0.7, markeredgewidth=0)
    axes.plot([change.value], [place], "o", color=colour, markersize=4.5, markeredgewidth=0)
    if row.published is not None:
        outline = {"markerfacecolor": "white", "markeredgecolor": "black", "markeredgewidth": 0.8}
        axes.plot([row.published], [place - 0.2], "D", markersize=3.5, **outline)
    beside = axes.get_yaxis_transform()
    axes.text(1.06, place, str(change), transform=beside, va="center", fontsize=style.NOTE_PT)


def _limits(rows: list[Effect]) -> tuple[float, float]:
    """Return the x range of all but intervals of two seeds, which are 13 standard errors wide."""
    known = [0.0]
    for row in rows:
        change = row.difference
        ends = (change.low, change.high) if change.n >= MIN_SEEDS else ()
        known += [x for x in (change.value, *change.pairs, row.published, *ends) if x is not None]
    room = max(0.1 * (max(known) - min(known)), 0.1)
    return min(known) - room, max(known) + room


def _label(row: TableRow, with_backbone: bool) -> str:
    text, group = row.full_label, row.group
    if with_backbone and row.definition.backbone:
        text += f", {row.definition.backbone}"
    if group is not None and group.distinguishing_label:
        text += f" ({group.distinguishing_label})"
    return text + (group.marks if group is not None else "")

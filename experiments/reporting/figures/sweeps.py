"""A metric as one number of the recipe varies: Tables 4 and 5 as curves, and a user's own ablations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.config_text import flat
from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.reporting.figures.style import BLUE, GREY, ORANGE, drawing, new_figure, picture
from experiments.reporting.stats.statistics import Spread
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Picture

MAX_ROWS = 100
MAX_TICKS = 8
NAMES = {"weighting.alpha": "α, iterations of an interval", "weighting.n": "N, levels enhanced"}
LOG_FROM = 8  # largest value over smallest


@dataclass(frozen=True)
class Point:
    """One value of the key.

    Attributes:
        spread: As measured; None where nothing was.
        seeds: The single results behind it.
        published: None also where it does not compare.
    """

    x: float
    spread: Spread | None
    seeds: tuple[float, ...]
    published: float | None


@dataclass(frozen=True)
class Sweep:
    """A metric over the values of one key.

    Attributes:
        key: Dotted, of the recipe.
        points: By ascending value.
        baseline: Measured, and as published; None where there is none.
    """

    key: str
    metric: str
    points: list[Point]
    baseline_label: str
    baseline: Spread | None
    baseline_published: float | None


def curves(table: MeasuredTable, name: str) -> list[Picture]:
    """Draw each block in which one number varies and at least two of its values were run."""
    found = [sweep for _, rows in table.blocks if (sweep := sweep_of(table, rows)) is not None]
    return [
        picture(draw_sweep(sweep), f"{name}-{_short(sweep.key)}", *_texts(table, sweep)) for sweep in found
    ]


def sweep_of(table: MeasuredTable, rows: list[TableRow]) -> Sweep | None:
    """Return what varies among a block's own rows; None where that is not one number."""
    own_rows = [row for row in rows if not row.definition.reference]
    if not 2 <= len(own_rows) <= MAX_ROWS:
        return None
    as_published, metric = table.context is None, table.columns[0]
    with_recipe = [(row, recipe) for row in own_rows if (recipe := _recipe(row, as_published)) is not None]
    keys = {key for _, recipe in with_recipe for key in recipe}
    varied = [key for key in keys if len({repr(recipe.get(key)) for _, recipe in with_recipe}) > 1]
    if len(varied) != 1 or not all(_is_number(recipe.get(varied[0])) for _, recipe in with_recipe):
        return None
    points = [_point(row, recipe[varied[0]], metric, as_published) for row, recipe in with_recipe]
    if len({point.x for point in points if point.spread is not None}) < 2:
        return None
    base = next((row for row in rows if row.definition.reference), None)
    return Sweep(
        varied[0],
        metric,
        sorted(points, key=lambda point: point.x),
        base.definition.label if base else "",
        base.group.metrics.get(metric) if base and base.group else None,
        base.definition.published[0] if base and base.definition.published and as_published else None,
    )


def draw_sweep(sweep: Sweep) -> Figure:
    """Draw mean ± standard deviation with single seeds, the baseline's band, published values."""
    measured = [(point.x, point.spread) for point in sweep.points if point.spread is not None]
    with drawing():
        figure = new_figure(2.2)
        axes = figure.subplots()
        _draw_baseline(axes, sweep)
        published = [(point.x, point.published) for point in sweep.points if point.published is not None]
        if published:
            axes.plot(*zip(*published), color=ORANGE, linestyle="--", marker="D", markersize=3.5,
                      markerfacecolor="white", label="published")  # fmt: skip
        several = any(spread.n > 1 for _, spread in measured)
        axes.errorbar(
            [x for x, _ in measured], [spread.mean for _, spread in measured],
            yerr=[spread.sd or 0.0 for _, spread in measured] if several else None,
            color=BLUE, marker="o", markersize=4, capsize=2.5, elinewidth=1.2, zorder=3,
            label="measured" + (", mean ± sd" if several else ""),
        )  # fmt: skip
        dots = [(point.x, value) for point in sweep.points for value in point.seeds if several]
        if dots:
            axes.plot(*zip(*dots), "o", markersize=2.6, markerfacecolor="none", markeredgecolor=BLUE,
                      markeredgewidth=0.6, alpha=0.6, label="single seeds")  # fmt: skip
        _x_axis(axes, sweep)
        axes.set_ylabel(sweep.metric)
        axes.grid(axis="y")
        figure.legend(loc="outside upper center", ncols=2, columnspacing=1.2)
    return figure


def _draw_baseline(axes: Axes, sweep: Sweep) -> None:
    if sweep.baseline is not None:
        mean, sd = sweep.baseline.mean, sweep.baseline.sd
        axes.axhline(
            mean, color=GREY, linewidth=0.9, label="baseline" + (", mean ± sd" if sd is not None else "")
        )
        if sd is not None:
            axes.axhspan(mean - sd, mean + sd, color=GREY, alpha=0.18, linewidth=0)
    if sweep.baseline_published is not None:
        axes.axhline(
            sweep.baseline_published, color=ORANGE, linestyle=":", linewidth=1, label="baseline, published"
        )


def _x_axis(axes: Axes, sweep: Sweep) -> None:
    values = sorted({point.x for point in sweep.points})
    if values[0] > 0 and values[-1] / values[0] >= LOG_FROM:
        axes.set_xscale("log")
    if len(values) <= MAX_TICKS:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(NAMES.get(sweep.key, _short(sweep.key)))


def _texts(table: MeasuredTable, sweep: Sweep) -> tuple[str, str]:
    """Return caption and alternative text."""
    counts = sorted({point.spread.n for point in sweep.points if point.spread is not None})
    seeds = (
        f"{counts[0]} to {counts[-1]} seeds"
        if len(counts) > 1
        else f"{counts[0]} seed{'s' * (counts[0] > 1)}"
    )
    caption = f"{table.title}. {sweep.metric} by {sweep.key}, {seeds} a value"
    caption += ": mean ± standard deviation, open dots the single seeds." if counts[-1] > 1 else "."
    if sweep.baseline is not None:
        caption += f" Grey: {sweep.baseline_label}, {sweep.baseline}."
    if table.context is not None and table.has_published:
        caption += " Values as run here; the published curve is not drawn, for it does not compare."
    listed = "; ".join(f"{point.x:g}: {point.spread}" for point in sweep.points if point.spread is not None)
    return caption, f"{sweep.metric} by {sweep.key}: {listed}."


def _point(row: TableRow, x: float, metric: str, as_published: bool) -> Point:
    spread = row.group.metrics.get(metric) if row.group else None
    seeds = tuple(float(v) for v in row.group.runs[metric].dropna()) if row.group and spread else ()
    return Point(
        float(x),
        spread,
        seeds,
        row.definition.published[0] if row.definition.published and as_published else None,
    )


def _recipe(row: TableRow, as_published: bool) -> dict[str, Any] | None:
    """Return the recipe of a row's runs, key by key; without runs, the row's own at full size."""
    recipe = row.recipe
    if row.group is None and row.definition.recipe is not None and as_published:
        with contextlib.suppress(UserError):  # the report names what cannot be read
            recipe = recipes.load_recipe(row.definition.recipe, overrides=row.definition.overrides())
    return flat(recipes.identity(recipe)) if recipe is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(key: str) -> str:
    return key.removeprefix("weighting.")

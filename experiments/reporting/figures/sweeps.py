"""A metric as one number of the recipe varies: Tables 4 and 5 as curves, and a user's own ablations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.config_text import flatten_keys
from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.reporting.figures import style
from experiments.reporting.stats.statistics import Spread
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Picture

MAX_ROWS = 100
NAMES = {"weighting.alpha": "α, iterations of an interval", "weighting.n": "N, levels enhanced"}
LOG_FROM = 8  # largest value over smallest


@dataclass(frozen=True)
class Sweep:
    """A metric over the values of one key.

    Attributes:
        key: Dotted, of the recipe.
        rows: Value to row, by ascending value.
        baseline: The row that has no value of the key; None where there is none.
    """

    table: MeasuredTable
    key: str
    rows: dict[float, TableRow]
    baseline: TableRow | None

    @property
    def metric(self) -> str:
        return self.table.columns[0]

    @property
    def measured(self) -> dict[float, Spread]:
        found = {x: self.spread(row) for x, row in self.rows.items()}
        return {x: spread for x, spread in found.items() if spread is not None}

    @property
    def short_key(self) -> str:
        return self.key.removeprefix("weighting.")

    def spread(self, row: TableRow | None) -> Spread | None:
        return row.group.metrics.get(self.metric) if row and row.group else None

    def published(self, row: TableRow | None) -> float | None:
        """Return a published value; None also where it does not compare."""
        values = row.definition.published if row and self.table.context is None else None
        return values[0] if values else None


def draw_sweeps(table: MeasuredTable, name: str) -> list[Picture]:
    """Draw each block in which one number varies and at least two of its values were run."""
    found = [sweep for _, rows in table.blocks if (sweep := find_sweep(table, rows)) is not None]
    return [
        style.render_picture(draw_sweep(sweep), f"{name}-{sweep.short_key}", *_texts(sweep))
        for sweep in found
    ]


def find_sweep(table: MeasuredTable, rows: list[TableRow]) -> Sweep | None:
    """Return what varies among a block's own rows; None where that is not one number."""
    own_rows = [row for row in rows if not _is_baseline(row)]
    own_rows = own_rows or [row for row in rows if not row.definition.reference]
    if not 2 <= len(own_rows) <= MAX_ROWS:
        return None
    found = [(row, recipe) for row in own_rows if (recipe := _recipe(row, table.context is None))]
    keys = {key for _, recipe in found for key in recipe}
    varied = [key for key in keys if len({repr(recipe.get(key)) for _, recipe in found}) > 1]
    if len(varied) != 1 or not all(type(recipe.get(varied[0])) in (int, float) for _, recipe in found):
        return None
    by_value = {float(recipe[varied[0]]): row for row, recipe in reversed(found)}
    own = set(map(id, own_rows))
    base = next((row for row in [*rows, *table.rows] if id(row) not in own and _is_baseline(row)), None)
    sweep = Sweep(table, varied[0], dict(sorted(by_value.items())), base)
    return sweep if len(sweep.measured) > 1 else None


@style.drawing()
def draw_sweep(sweep: Sweep) -> Figure:
    """Draw mean ± standard deviation with single seeds, the baseline's band, published values."""
    measured = sweep.measured
    figure = style.make_figure(2.0)
    axes = figure.subplots()
    _draw_baseline(axes, sweep)
    published = {x: sweep.published(row) for x, row in sweep.rows.items() if sweep.published(row) is not None}
    if published:
        axes.plot(*zip(*published.items()), color=style.ORANGE, linestyle="--", marker="D", markersize=3.5,
                  markerfacecolor="white", label="published")  # fmt: skip
    several = any(spread.n > 1 for spread in measured.values())
    axes.errorbar(
        list(measured), [spread.mean for spread in measured.values()],
        yerr=[spread.sd or 0.0 for spread in measured.values()] if several else None,
        color=style.BLUE, marker="o", markersize=4, capsize=2.5, elinewidth=1.2, zorder=3,
        label="measured" + (", mean ± sd" if several else ""),
    )  # fmt: skip
    if several:
        groups = {x: sweep.rows[x].group for x in measured}
        dots = [(x, y) for x, group in groups.items() if group for y in group.by_seed(sweep.metric).values()]
        axes.plot(*zip(*dots), "o", markersize=2.6, markerfacecolor="none", markeredgecolor=style.BLUE,
                  markeredgewidth=0.6, alpha=0.6, label="single seeds")  # fmt: skip
    least, greatest = min(sweep.rows), max(sweep.rows)
    if least > 0 and greatest / least >= LOG_FROM:
        axes.set_xscale("log")
    axes.set_xticks(list(sweep.rows), [f"{value:g}" for value in sweep.rows])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("\n".join(style.fold(NAMES.get(sweep.key, sweep.short_key), 0.8 * style.COLUMN_IN)))
    axes.set_ylabel(sweep.metric)
    axes.grid(axis="y")
    style.add_legend(figure)
    style.thin_ticks(axes)
    return figure


def _draw_baseline(axes: Axes, sweep: Sweep) -> None:
    spread, published = sweep.spread(sweep.baseline), sweep.published(sweep.baseline)
    if spread is not None:
        label = "baseline" + (", mean ± sd" if spread.sd is not None else "")
        axes.axhline(spread.mean, color=style.GREY, linewidth=0.9, label=label)
        if spread.sd is not None:
            ends = spread.mean - spread.sd, spread.mean + spread.sd
            axes.axhspan(*ends, color=style.GREY, alpha=0.18, linewidth=0)
    if published is not None:
        axes.axhline(published, color=style.ORANGE, linestyle=":", linewidth=1, label="baseline, published")


def _texts(sweep: Sweep) -> tuple[str, str]:
    """Return caption and alternative text."""
    measured, baseline = sweep.measured, sweep.spread(sweep.baseline)
    counts = sorted({spread.n for spread in measured.values()})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    caption = (
        f"{sweep.table.title}. {sweep.metric} by {sweep.key}, {seeds} seed{'s' * (counts[-1] > 1)} a value"
    )
    caption += ": mean ± standard deviation, open dots the single seeds." if counts[-1] > 1 else "."
    if sweep.baseline is not None and baseline is not None:
        caption += f" Grey: {sweep.baseline.definition.label}, {baseline}."
    if sweep.table.context is not None and sweep.table.has_published:
        caption += " Values as run here; the published curve is not drawn, for it does not compare."
    listed = "; ".join(f"{x:g}: {spread}" for x, spread in measured.items())
    return caption, f"{sweep.metric} by {sweep.key}: {listed}."


def _is_baseline(row: TableRow) -> bool:
    is_uniform = row.recipe is not None and row.recipe.weighting.get("rule") == "uniform"
    return row.definition.reference or is_uniform


def _recipe(row: TableRow, as_published: bool) -> dict[str, Any] | None:
    """Return the recipe of a row's runs, key by key; without runs, the row's own at full size."""
    recipe = row.recipe
    if row.group is None and row.definition.recipe is not None and as_published:
        with contextlib.suppress(UserError):  # the report names what cannot be read
            recipe = recipes.load_recipe(row.definition.recipe, overrides=row.definition.overrides())
    return flatten_keys(recipes.describe_identity(recipe)) if recipe is not None else None

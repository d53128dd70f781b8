"""Series over training: thinned to what a column can show, mean and spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.reporting.figures import style

MAX_POINTS = 200  # of a line: more than a column can show
MARKERS = 6  # on a line, to tell it apart in grey


def count_intervals_per_point(frame: pd.DataFrame, most: int = MAX_POINTS) -> int:
    """Return how many intervals a point stands for, so that a run has at most `most` points."""
    return math.ceil(frame["interval"].max() / most)


def thin(frame: pd.DataFrame, columns: Sequence[str], most: int = MAX_POINTS) -> pd.DataFrame:
    """Average consecutive intervals, so that a run has at most `most` points.

    Returns:
        A row per run, `level` (where the frame has levels) and point, with `interval` and `iteration` of the
        point's end and the means of the columns.
    """
    every = count_intervals_per_point(frame, most)
    point: pd.Series = ((frame["interval"] - 1) // every).rename("point")
    keys = [*(key for key in ("run", "level") if key in frame), point]
    means = frame.groupby(keys, sort=False)[list(columns)].mean().reset_index()
    ends = frame.groupby(point)[["interval", "iteration"]].max()
    return means.join(ends, on="point")


def average_over_seeds(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return mean and sample standard deviation (NaN for one seed) over the runs, a row a point.

    A point that no run has is NaN, so that a line breaks there.
    """
    spread = frame.groupby(["point", "iteration"])[column].agg(mean="mean", sd="std").reset_index("iteration")
    return spread.reindex(range(int(spread.index.max()) + 1))


def draw_line(axes: Axes, spread: pd.DataFrame, look: style.Look, label: str, number: int) -> None:
    """Draw the mean as a line, with a band of ± one standard deviation."""
    step = max(1, len(spread) // MARKERS)
    axes.plot(
        spread["iteration"], spread["mean"],
        color=look.colour, linestyle=look.dash,
        label=f" {label}" if label.startswith("_") else label,  # matplotlib leaves out names that begin so
        marker=look.marker, markevery=(number * step // 5 % step, step),
        markeredgewidth=0.8 if look.marker in "x+" else 0,
    )  # fmt: skip
    low, high = spread["mean"] - spread["sd"], spread["mean"] + spread["sd"]
    if spread["sd"].notna().any():
        axes.fill_between(spread["iteration"], low, high, color=look.colour, alpha=0.15, linewidth=0)
        for edge in (low, high):  # where bands overlap
            axes.plot(spread["iteration"], edge, color=look.colour, alpha=0.4, linewidth=0.4)


@style.drawing()
def draw_panels(panels: Mapping[str, Mapping[str, pd.DataFrame]], panel_in: float) -> Figure:
    """Draw a panel for each title and in it a line for each name; frames are those of `average_over_seeds`."""
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    looks = style.choose_series_looks(list(names))
    figure = style.make_figure(panel_in * len(panels) + 0.25)
    each = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, lines) in zip(each, panels.items()):
        for number, (name, spread) in enumerate(lines.items()):
            draw_line(axes, spread, looks[name], name, number)
        axes.set_title(title)
        axes.grid(axis="y")
    label_iteration_axis(each[-1])
    style.add_legend(figure)
    return figure


def draw_steps(axes: Axes, spread: pd.DataFrame, look: style.Look) -> None:
    """Draw what was in force as steps filled down to 1, with a band as in `draw_line`."""
    ends = spread["iteration"].interpolate()  # of an interval that is missing
    edges = np.concatenate([[0], ends])
    axes.stairs(spread["mean"], edges, color=look.colour, linewidth=0.9, baseline=None)
    axes.stairs(spread["mean"], edges, color=look.colour, alpha=0.3, fill=True, baseline=1)
    if spread["sd"].notna().any():
        low, high = (np.repeat(spread["mean"] + sign * spread["sd"], 2) for sign in (-1, 1))
        axes.fill_between(np.repeat(edges, 2)[1:-1], low, high, color=look.colour, alpha=0.25, linewidth=0)


def label_iteration_axis(axes: Axes) -> None:
    """Label the x axis with iterations, in thousands from 10,000 on."""
    axes.set_xlabel("Iteration")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 10_000 else f"{x:g}"))


def describe_seeds(seeds: Sequence[int]) -> str:
    """Return `seed 0`, or `mean over seeds 0, 1, 2` or `mean over 30 seeds` and what the band is."""
    names = name_seeds(seeds)
    return names if len(seeds) == 1 else f"mean over {names}, band ± one standard deviation"


def name_seeds(seeds: Sequence[int]) -> str:
    """Return `seed 0`, `seeds 0, 1, 2` or `30 seeds`."""
    if len(seeds) > 6:
        return f"{len(seeds)} seeds"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def describe_points(frame: pd.DataFrame, most: int = MAX_POINTS, name: str = "point") -> str:
    """Return the sentence that says how many intervals a point of `thin` is the mean of, if several."""
    every = count_intervals_per_point(frame, most)
    return f" Each {name} is the mean of {every} intervals." if every > 1 else ""

"""Weights of each level over training, and RLO's action probabilities and actions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reporting.figures import series, style
from experiments.reporting.figures.traces import Traces
from experiments.reporting.tables.sections import Picture

MAX_STEPS, MAX_CELLS, MAX_ROWS = 60, 480, 10
LEVEL_IN, PROBABILITIES_IN, ROW_IN = 0.3, 1.2, 0.13


def draw_policy_figure(traces: Traces, name: str, what: str) -> Picture | None:
    """Draw one head's weights and policy, those of `what`; None where no weight ever changed."""
    later = traces.levels.loc[traces.levels["interval"] > 1]  # in the first every rule has weight 1
    weights = later.groupby(["run", "level"])["weight"]
    if not (weights.max() > weights.min()).any():
        return None
    caption = f"{what}: weight of each level (filled from 1), {series.describe_seeds(traces.seeds)}."
    caption += series.describe_points(traces.levels, MAX_STEPS, "step")
    if traces.probabilities:
        points = series.describe_points(traces.intervals)
        caption += f" Below, the probabilities of the actions.{points}"
    if len(_actions(traces)) > 1:
        caption += _describe_actions(traces)
    alt = f"Weights of {', '.join(traces.level_names)} over iterations: {what}."
    return style.render_picture(draw_policy(traces), name, caption, alt)


@style.drawing()
def draw_policy(traces: Traces) -> Figure:
    """Draw a panel of each level's weights, then of probabilities and of actions where there are several."""
    looks, actions = style.choose_series_looks(traces.level_names), _actions(traces)
    heights = [LEVEL_IN] * len(looks) + [PROBABILITIES_IN] * bool(traces.probabilities)
    if len(actions) > 1:
        heights.append(ROW_IN * min(MAX_ROWS, len(traces.seeds)) + 0.12)
    figure = style.make_figure(sum(heights) + 0.17 * len(heights) + 0.25)
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    _draw_weights(panels[: len(looks)], traces, looks)
    if traces.probabilities:
        _draw_probabilities(panels[len(looks)], traces, actions)
    if len(actions) > 1:
        _draw_actions(panels[-1], traces, actions)
    series.label_iteration_axis(panels[-1])
    if len(panels) > len(looks):
        handles = [
            Line2D(
                [], [], color=look.colour, linestyle=look.dash, linewidth=1.6, label=action,
                marker=look.marker, markersize=6, markerfacecolor=look.area,
            )
            for action, look in actions.items()
        ]  # fmt: skip
        style.add_legend(figure, handles, "outside lower center")
    return figure


def _draw_weights(panels: list[Axes], traces: Traces, looks: dict[str, style.Look]) -> None:
    """Draw a low panel for each level, because overlapping steps cannot be read."""
    points = series.thin(traces.levels, ["weight"], MAX_STEPS)
    for axes, (level, look) in zip(panels, looks.items()):
        series.draw_steps(axes, series.average_over_seeds(points.query("level == @level"), "weight"), look)
        axes.axhline(1, color="black", linewidth=0.5)
        axes.set_ylabel(level, rotation=0, ha="right", va="center", color=look.colour, fontweight="bold")
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(low, high)
    panels[0].set_title("Weight of each level")


def _draw_probabilities(axes: Axes, traces: Traces, looks: dict[str, style.Look]) -> None:
    points = series.thin(traces.intervals, traces.probabilities)
    for number, column in enumerate(traces.probabilities):
        action = column.removeprefix("p_")
        series.draw_line(axes, series.average_over_seeds(points, column), looks[action], action, number)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_title("Probability of each action")


def _draw_actions(axes: Axes, traces: Traces, actions: dict[str, style.Look]) -> None:
    """Draw a strip a run; where intervals outnumber columns, every n-th."""
    cells = build_action_cells(traces, list(actions))
    colours = ListedColormap([look.area for look in actions.values()])
    end = float(traces.intervals["iteration"].max())
    axes.imshow(
        np.ma.masked_invalid(cells), cmap=colours, vmin=-0.5, vmax=len(actions) - 0.5, aspect="auto",
        interpolation="nearest", extent=(0, end, len(cells) - 0.5, -0.5),
    )  # fmt: skip
    for row in range(1, len(cells)):
        axes.axhline(row - 0.5, color="white", linewidth=1)
    axes.set_yticks(range(len(cells)), [f"seed {seed}" for seed in traces.seeds[: len(cells)]])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Action in force")


def build_action_cells(traces: Traces, actions: list[str]) -> np.ndarray:
    """Return (runs, intervals) action numbers, NaN before the first, at most MAX_ROWS x MAX_CELLS."""
    last = int(traces.intervals["interval"].max())
    every = series.count_intervals_per_point(traces.intervals, MAX_CELLS)
    shown = traces.intervals.loc[traces.intervals["interval"] % every == 0]
    numbers = shown["action"].map({action: float(n) for n, action in enumerate(actions)})
    table = shown.assign(number=numbers).pivot(index="run", columns="interval", values="number")
    return table.reindex(columns=range(every, last + 1, every)).iloc[:MAX_ROWS].to_numpy(float)


def _actions(traces: Traces) -> dict[str, style.Look]:
    """Return the looks of actions drawn or with a probability."""
    drawn = set(traces.intervals["action"].dropna())
    return style.choose_action_looks(drawn | {column.removeprefix("p_") for column in traces.probabilities})


def _describe_actions(traces: Traces) -> str:
    text = " The strips show the action that was in force in each interval, a row for each seed"
    every = series.count_intervals_per_point(traces.intervals, MAX_CELLS)
    text += f" (of one interval in {every})" if every > 1 else ""
    if len(traces.seeds) > MAX_ROWS:
        text += f"; the first {MAX_ROWS} of {len(traces.seeds)} seeds"
    rewards = traces.intervals.loc[traces.intervals["interval"] > 1, "reward"].dropna()
    if len(rewards):
        positive = (rewards > 0).mean()
        text += f". Of {len(rewards)} rewards {positive:.0%} were positive: the total loss had fallen"
    return text + "."

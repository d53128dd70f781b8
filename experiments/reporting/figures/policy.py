"""Weights of each level over training, and RLO's action probabilities and actions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reporting.figures import series, style
from experiments.reporting.figures.traces import POLICY, Traces
from experiments.reporting.tables.sections import Picture

MAX_STEPS, MAX_CELLS, MAX_ROWS = 60, 480, 10
LEVEL_IN, PROBABILITIES_IN, ROW_IN = 0.3, 1.2, 0.13


def draw_policy_figure(traces: Traces, name: str, what: str) -> Picture | None:
    """Draw one head's weights and policy, those of `what`; None where no weight ever changed."""
    later = traces.levels.loc[traces.levels["interval"] > 1]  # in the first every rule has weight 1
    weights = later.groupby(["run", "level"])["weight"]
    if not (weights.max() > weights.min()).any():
        return None
    figure, every = draw_policy(traces)
    caption = f"{what}: weight of each level (filled from 1), {series.describe_seeds(traces.seeds)}."
    if every["weights"] > 1:
        caption += f" Each step is the mean of {every['weights']} intervals."
    if "probabilities" in every:
        points = series.describe_points(every["probabilities"])
        caption += f" Below, the probabilities of the actions.{points}"
    if "actions" in every:
        caption += _of_actions(traces, every["actions"])
    alt = f"Weights of {', '.join(traces.level_names)} over iterations: {what}."
    return style.render_picture(figure, name, caption, alt)


@style.drawing()
def draw_policy(traces: Traces) -> tuple[Figure, dict[str, int]]:
    """Draw panels `weights`, `probabilities`, `actions`; return also the intervals of a point."""
    looks, actions = style.choose_series_looks(traces.level_names), _actions(traces)
    has_policy = bool(traces.intervals[POLICY].notna().any().any())
    heights = [LEVEL_IN] * len(looks) + [PROBABILITIES_IN] * has_policy
    if len(actions) > 1:
        heights.append(ROW_IN * min(MAX_ROWS, len(traces.seeds)) + 0.12)
    figure = style.make_figure(sum(heights) + 0.17 * len(heights) + 0.25)
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    every = {"weights": _draw_weights(panels[: len(looks)], traces, looks)}
    panels, last = panels[len(looks) :], panels[-1]
    if has_policy:
        every["probabilities"] = _draw_probabilities(panels.pop(0), traces)
    if panels:
        every["actions"] = _draw_actions(panels.pop(0), traces, actions)
    series.label_iteration_axis(last)
    if len(every) > 1:
        handles = [
            Line2D(
                [], [], color=look.colour, linestyle=look.dash, linewidth=1.6, label=action,
                marker=look.marker, markersize=6, markerfacecolor=look.area,
            )
            for action, look in actions.items()
        ]  # fmt: skip
        style.add_legend(figure, handles, "outside lower center")
    return figure, every


def _draw_weights(panels: list[Axes], traces: Traces, looks: dict[str, style.Look]) -> int:
    """Draw a low panel for each level, because overlapping steps cannot be read."""
    points, every = series.thin(traces.levels, ["weight"], MAX_STEPS)
    for axes, (level, look) in zip(panels, looks.items()):
        series.draw_steps(axes, series.average_over_seeds(points.query("level == @level"), "weight"), look)
        axes.axhline(1, color="black", linewidth=0.5)
        axes.set_ylabel(level, rotation=0, ha="right", va="center", color=look.colour, fontweight="bold")
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(low, high)
    panels[0].set_title("Weight of each level")
    return every


def _draw_probabilities(axes: Axes, traces: Traces) -> int:
    points, every = series.thin(traces.intervals, POLICY)
    looks = style.choose_action_looks(())
    for number, column in enumerate(c for c in POLICY if points[c].notna().any()):
        action = column.removeprefix("p_")
        series.draw_line(axes, series.average_over_seeds(points, column), looks[action], action, number)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_title("Probability of each action")
    return every


def _draw_actions(axes: Axes, traces: Traces, actions: dict[str, style.Look]) -> int:
    """Draw a strip a run; where intervals outnumber columns, every n-th."""
    cells, every = build_action_cells(traces, list(actions))
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
    return every


def build_action_cells(traces: Traces, actions: list[str]) -> tuple[np.ndarray, int]:
    """Return (runs, intervals) action numbers, NaN before the first, at most MAX_ROWS x MAX_CELLS.

    Returns:
        The cells, and every how-manieth interval they are.
    """
    last = int(traces.intervals["interval"].max())
    every = -(-last // MAX_CELLS)
    shown = traces.intervals.loc[traces.intervals["interval"] % every == 0]
    numbers = shown["action"].map({action: float(n) for n, action in enumerate(actions)})
    table = shown.assign(number=numbers).pivot(index="run", columns="interval", values="number")
    return table.reindex(columns=range(every, last + 1, every)).iloc[:MAX_ROWS].to_numpy(float), every


def _actions(traces: Traces) -> dict[str, style.Look]:
    """Return actions drawn or with a probability, the paper's first, then others by name."""
    drawn = set(traces.intervals["action"].dropna())
    drawn |= {c.removeprefix("p_") for c in POLICY if traces.intervals[c].notna().any()}
    looks = style.choose_action_looks(sorted(drawn))
    return {action: look for action, look in looks.items() if action in drawn}


def _of_actions(traces: Traces, every: int) -> str:
    text = " The strips show the action that was in force in each interval, a row for each seed"
    text += f" (of one interval in {every})" if every > 1 else ""
    if len(traces.seeds) > MAX_ROWS:
        text += f"; the first {MAX_ROWS} of {len(traces.seeds)} seeds"
    rewards = traces.intervals.loc[traces.intervals["interval"] > 1, "reward"].dropna()
    if len(rewards):
        positive = (rewards > 0).mean()
        text += f". Of {len(rewards)} rewards {positive:.0%} were positive: the total loss had fallen"
    return text + "."

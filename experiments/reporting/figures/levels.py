"""Fig 1 (b-d) of the paper: each level's losses and the IoU of its positives over training."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments.reporting.figures import series
from experiments.reporting.figures.style import render_picture
from experiments.reporting.figures.traces import Traces
from experiments.reporting.tables.sections import Picture

PANELS = {
    "loss_cls": "classification loss",
    "loss_bbox": "regression loss",
    "loss_centerness": "centerness loss",
    "iou": "mean IoU of positives",
}
PANEL_IN = 1.15


def draw_level_curves(traces: Traces, name: str, what: str) -> Picture | None:
    """Draw one head's traces by level; None where they hold nothing of levels.

    Args:
        what: Whose traces they are, for the caption.
    """
    shown = _panels(traces)
    if not shown:
        return None
    figure, every = draw_levels(traces)
    with_positives = set(traces.levels.dropna(subset=["iou"])["level"].unique())
    without = [level for level in traces.level_names if level not in with_positives]
    caption = (
        f"{what}: {', '.join(PANELS[column] for column in shown)}, for each level over training, finest level first;"
        f" {series.describe_seeds(traces.seeds)}. Losses are unweighted.{series.describe_points(every)}"
    )
    if "iou" in shown and without:
        caption += f" Without positives: {', '.join(without)}."
    alt = f"{what}: lines of {', '.join(traces.level_names)} over iterations, in panels of loss and IoU."
    return render_picture(figure, name, caption, alt)


def draw_levels(traces: Traces) -> tuple[Figure, int]:
    """Draw a panel a quantity and a line a level; return also the intervals in a point."""
    shown = _panels(traces)
    points, every = series.thin(traces.levels, shown)
    by_level = {str(level): own for level, own in points.groupby("level", sort=False)}
    panels = {
        PANELS[column][0].upper() + PANELS[column][1:]: {
            level: series.average_over_seeds(by_level[level], column) for level in traces.level_names
        }
        for column in shown
    }
    figure = series.draw_panels(panels, PANEL_IN)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure, every


def _panels(traces: Traces) -> list[str]:
    """Return the quantities that have a value somewhere."""
    return [column for column in PANELS if traces.levels[column].notna().any()]

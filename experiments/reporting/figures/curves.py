"""Curves over training: losses and IoU by level (Fig 1 b-d of the paper); loss and AP of several configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.common.metric_names import MAIN_METRICS
from experiments.recipes.differences import NamedRecipes, join_differences
from experiments.reporting.figures import series
from experiments.reporting.figures.style import render_picture
from experiments.reporting.figures.traces import Traces, describe_runs, read, read_rows, seed_of
from experiments.reporting.tables.sections import Picture
from experiments.runs.run_folder import RunFolder

LEVEL_PANELS = {
    "loss_cls": "Classification loss",
    "loss_bbox": "Regression loss",
    "loss_centerness": "Centerness loss",
    "iou": "Mean IoU of positives",
}
PANELS = {"loss": "Loss, unweighted, all levels together", **{name: f"{name}, %" for name in MAIN_METRICS}}
LEVEL_PANEL_IN, PANEL_IN = 1.15, 1.5


def draw_level_curves(traces: Traces, name: str, what: str) -> Picture | None:
    """Draw one head's traces, those of `what`, by level; None where they hold nothing of levels."""
    shown = _level_panels(traces)
    if not shown:
        return None
    with_positives = set(traces.levels.dropna(subset=["iou"])["level"].unique())
    without = [level for level in traces.level_names if level not in with_positives]
    quantities = ", ".join(title[0].lower() + title[1:] for title in shown.values())
    caption = (
        f"{what}: {quantities}, for each level over training, finest level first;"
        f" {series.describe_seeds(traces.seeds)}. Losses are unweighted.{series.describe_points(traces.levels)}"
    )
    if "iou" in shown and without:
        caption += f" Without positives: {', '.join(without)}."
    alt = f"{what}: lines of {', '.join(traces.level_names)} over iterations, in panels of loss and IoU."
    return render_picture(draw_levels(traces), name, caption, alt)


def draw_levels(traces: Traces) -> Figure:
    """Draw a panel a quantity and a line a level."""
    shown = _level_panels(traces)
    points = series.thin(traces.levels, list(shown))
    by_level = {str(level): own for level, own in points.groupby("level", sort=False)}
    panels = {
        title: {level: series.average_over_seeds(by_level[level], column) for level in traces.level_names}
        for column, title in shown.items()
    }
    figure = series.draw_panels(panels, LEVEL_PANEL_IN)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure


def _level_panels(traces: Traces) -> dict[str, str]:
    """Return the titles of the quantities that have a value somewhere."""
    return {key: title for key, title in LEVEL_PANELS.items() if traces.levels[key].notna().any()}


@dataclass(frozen=True)
class Training:
    """What the runs of one config recorded.

    Attributes:
        heads: Whose losses are summed.
        lines: Of each of PANELS that there is, as `series.average_over_seeds` has it.
    """

    label: str
    what: str
    heads: list[str]
    lines: dict[str, pd.DataFrame]


def draw_training_curves(configs: Sequence[Sequence[Path]], name: str) -> tuple[list[Picture], list[str]]:
    """Draw the trainings of several configs' run folders; none where nothing was recorded. Return problems, too."""
    problems: list[str] = []
    found = [read_training(folders, label, problems) for folders, label in zip(configs, make_labels(configs))]
    trainings = [training for training in found if training.lines]
    if not trainings:
        return [], problems
    if len({str(training.heads) for training in trainings if training.heads}) > 1:
        problems.append("The losses are of different heads: they do not compare.")
    figure, shown = draw_curves(trainings)
    loss = "loss (unweighted, of all levels together, mean of each interval)"
    caption = f"{' and '.join(column.replace('loss', loss) for column in shown)} over training"
    if any(line["sd"].notna().any() for training in trainings for line in training.lines.values()):
        caption += "; lines: mean over the seeds that came so far, bands: ± one standard deviation"
    caption += f". {'; '.join(each.what for each in trainings)}."
    alt = f"Curves of {', '.join(shown)} over iterations: {', '.join(each.label for each in trainings)}."
    return [render_picture(figure, name, caption[0].upper() + caption[1:], alt)], problems


def draw_curves(trainings: Sequence[Training]) -> tuple[Figure, list[str]]:
    """Draw a panel a quantity and a line a config; return also which quantities."""
    shown = [column for column in PANELS if any(column in training.lines for training in trainings)]
    panels = {
        PANELS[column]: {t.label: t.lines[column] for t in trainings if column in t.lines} for column in shown
    }
    return series.draw_panels(panels, PANEL_IN), shown


def make_labels(configs: Sequence[Sequence[Path]]) -> list[str]:
    """Return a label for each config's runs: the recipe, and where needed what differs from its page, or the hash."""
    recipes, named = [folders[0].parts[-3] for folders in configs], NamedRecipes()
    labels = []
    for folders, recipe in zip(configs, recipes):
        digest, page = folders[0].parts[-2], RunFolder(folders[0]).recipe
        found = named.list_differences(page, digest, recipe) if recipes.count(recipe) > 1 else []
        labels.append(f"{recipe}, {join_differences(found)}" if found else recipe)
    for end in (-1, None):  # without the seed, then with it
        names = ["/".join(folders[0].parts[-3:end]) for folders in configs]
        labels = [one if labels.count(one) == 1 else name for one, name in zip(labels, names)]
    return labels


def read_training(folders: Sequence[Path], label: str, problems: list[str]) -> Training:
    """Return what one config's runs recorded; `problems` gets a sentence for each file that is not whole."""
    traces = read(folders)
    problems += traces.problems
    lines = {}
    loss = _total_loss(traces)
    if not loss.empty:
        lines["loss"] = series.average_over_seeds(series.thin(loss, ["loss"]), "loss")
    evaluations = []
    for folder in folders:
        path = RunFolder(folder).metrics
        if not path.exists():
            problems.append(f"{path.parent} has no metrics.csv: not evaluated yet.")
        elif (rows := read_rows(path, ["iteration"], problems)) is not None:
            evaluations.append(rows.drop_duplicates("iteration", keep="last"))
    found = pd.concat(evaluations, ignore_index=True) if evaluations else pd.DataFrame()
    for column in MAIN_METRICS:
        if column in found and found[column].notna().any():
            rows = found.dropna(subset=[column])
            points = rows["iteration"].rank(method="dense").astype(int) - 1
            lines[column] = series.average_over_seeds(rows.assign(point=points), column)
    seeds = series.name_seeds(sorted(seed_of(folder) for folder in folders))
    return Training(label, f"{describe_runs(folders)}, {seeds}", traces.heads, lines)


def _total_loss(traces: Traces) -> pd.DataFrame:
    """Return the sum over heads and levels at each run's intervals, where none of them is missing."""
    keys = ["run", "interval", "iteration"]
    sums = traces.levels.groupby(keys)["loss"].agg(loss="sum", parts="count").reset_index()
    return sums.query("parts > 0 and parts == parts.max()")

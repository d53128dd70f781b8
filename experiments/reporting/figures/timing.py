"""Figure 4 of the paper, inference time by neck, from `msdet bench`; and our own: AP against time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.bench.grids import where
from experiments.reporting.figures.style import BLUE, LEVELS, SKY, drawing, new_figure, picture
from experiments.reporting.stats.statistics import Spread
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Picture

MEASURES = {"model": ("model only", BLUE), "end_to_end": ("end to end", SKY)}
THICK = 0.38
TABLE = "fig4"

Part = Mapping[str, Any]


def inference_time(part: Part, name: str) -> Picture:
    """Draw bars of one measurement, a pair for each model in the order of the table."""
    result = part["result"]
    caption = (
        f"Inference time of one image, batch 1 at {result['size'][0]} x {result['size'][1]}: medians, with quartiles as"
        f" whiskers, over {result['models'][0]['model']['n']} inferences. {_conditions(part)}"
    )
    alt = "Milliseconds, model only: " + "; ".join(
        f"{model['label']} {1000 * model['model']['median_s']:.3g}" for model in result["models"]
    )
    return picture(draw_times(result["models"]), name, caption, f"{alt}.")


def ap_against_time(part: Part, report: Report, name: str) -> Picture | None:
    """Draw AP of Figure 4 over inference time; None where fewer than two models have both."""
    result = part["result"]
    for table in report.tables:
        found = _measured(table, result) if table.name == TABLE else {}
        models = [model for model in result["models"] if model["id"] in found]
        if len(models) < 2:
            continue
        metric = table.columns[0]
        caption = (
            f"{metric} ({table.common or 'as published: full size'}; mean ± standard deviation over seeds) against"
            f" inference time, model only (median, quartiles). {_conditions(part)}"
        )
        alt = "; ".join(
            f"{m['label']} {found[m['id']]} at {1000 * m['model']['median_s']:.3g} ms" for m in models
        )
        return picture(
            draw_ap_against_time(models, found, metric), name, caption, f"{metric} and time: {alt}."
        )
    return None


def draw_times(models: list[dict[str, Any]]) -> Figure:
    """Draw milliseconds from 0, the first model on top."""
    with drawing():
        figure = new_figure(0.42 * len(models) + 0.7)
        axes = figure.subplots()
        ends = [1000 * model[kind]["q3_s"] for model in models for kind in MEASURES]
        for place, model in enumerate(models):
            for offset, (kind, (_, colour)) in zip((-THICK / 2, THICK / 2), MEASURES.items()):
                _draw_bar(axes, place + offset, model[kind], colour, max(ends))
        axes.set_yticks(range(len(models)), [model["label"] for model in models])
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlim(0, 1.18 * max(ends))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Inference time of an image, ms")
        bars = [axes.barh([0], [0], color=colour, label=label) for label, colour in MEASURES.values()]
        figure.legend(handles=bars, loc="outside upper center", ncols=2)
    return figure


def draw_ap_against_time(models: list[dict[str, Any]], found: Mapping[str, Spread], metric: str) -> Figure:
    """Draw a point for each model, its spreads as crosses."""
    with drawing():
        figure = new_figure(2.3)
        axes = figure.subplots()
        for model, look in zip(models, LEVELS):
            x, low, high = (1000 * model["model"][key] for key in ("median_s", "q1_s", "q3_s"))
            spread = found[model["id"]]
            axes.errorbar(
                [x], [spread.mean], xerr=[[x - low], [high - x]], yerr=spread.sd, color=look.colour,
                marker=look.marker, markersize=5, elinewidth=0.9, linestyle="none", label=model["label"],
            )  # fmt: skip
        axes.grid()
        axes.set_xlabel("Inference time, model only, ms")
        axes.set_ylabel(metric)
        figure.legend(loc="outside upper center", ncols=2, columnspacing=1.2)
    return figure


def _draw_bar(axes: Axes, place: float, times: Mapping[str, float], colour: str, longest: float) -> None:
    x, low, high = (1000 * times[key] for key in ("median_s", "q1_s", "q3_s"))
    axes.barh([place], [x], THICK, color=colour, xerr=[[x - low], [high - x]], error_kw={"elinewidth": 0.8})
    digits = 0 if x >= 100 else 1
    axes.text(high + 0.015 * longest, place, f"{x:.{digits}f}", va="center", fontsize=6.5)


def _measured(table: MeasuredTable, result: Part) -> dict[str, Spread]:
    """Return the main metric by row id, of rows run as the measurement was."""
    found: dict[str, Spread] = {}
    for row in table.rows:
        if row.group is None or table.columns[0] not in row.group.metrics:
            continue
        run = row.group.runs.iloc[0]
        if (run["profile"], run["dataset"]) == (result["profile"] or "", result["dataset"]):
            found.setdefault(row.definition.id, row.group.metrics[table.columns[0]])
    return found


def _conditions(part: Part) -> str:
    result = part["result"]
    profile = f"Profile {result['profile']}, classes of {result['dataset']}. " if result["profile"] else ""
    return f"{profile}Measured on {where(part)}."

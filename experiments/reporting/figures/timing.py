"""Figure 4 of the paper, inference time by neck, from `msdet bench`; and our own: AP against time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.bench.grids import Part, describe_measurement
from experiments.reporting.figures import style
from experiments.reporting.stats.statistics import Spread
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Picture

MEASURES = {"model": ("model only", style.BLUE), "end_to_end": ("end to end", style.SKY)}
THICK = 0.38
TABLE = "fig4"


def draw_inference_time(part: Part, name: str) -> Picture:
    """Draw bars of one measurement, a pair for each model in the order of the table."""
    result = part["result"]
    caption = (
        f"Inference time of one image, batch 1 at {result['size'][0]} x {result['size'][1]}: medians, with quartiles as"
        f" whiskers, over {result['models'][0]['model']['n']} inferences. {_conditions(part)}"
    )
    times = "; ".join(f"{m['label']} {_milliseconds(m['model'])[0]:.3g}" for m in result["models"])
    alt = f"Milliseconds, model only: {times}."
    return style.render_picture(draw_times(result["models"]), name, caption, alt)


def draw_ap_over_time(part: Part, report: Report, name: str) -> Picture | None:
    """Draw AP of Figure 4 over inference time; None where fewer than two models have both."""
    result = part["result"]
    for table in report.by_name.get(TABLE, ()):
        found = _measured(table, result)
        models = [model for model in result["models"] if model["id"] in found]
        if len(models) < 2:
            continue
        metric = table.columns[0]
        caption = (
            f"{metric} ({table.common or 'as published: full size'}; mean ± standard deviation over seeds) against"
            f" inference time, model only (median, quartiles). {_conditions(part)}"
        )
        points = [(m["label"], found[m["id"]], _milliseconds(m["model"])[0]) for m in models]
        alt = "; ".join(f"{label} {spread} at {time:.3g} ms" for label, spread, time in points)
        figure = draw_ap_against_time(models, found, metric)
        return style.render_picture(figure, name, caption, f"{metric} and time: {alt}.")
    return None


@style.drawing()
def draw_times(models: list[dict[str, Any]]) -> Figure:
    """Draw milliseconds from 0, the first model on top."""
    figure = style.make_figure(0.42 * len(models) + 0.5)
    axes = figure.subplots()
    longest = max(_milliseconds(model[kind])[2] for model in models for kind in MEASURES)
    for offset, (kind, (label, colour)) in zip((-THICK / 2, THICK / 2), MEASURES.items()):
        times, low, high = np.transpose([_milliseconds(model[kind]) for model in models])
        places, errors = np.arange(len(models)) + offset, [times - low, high - times]
        axes.barh(places, times, THICK, color=colour, label=label, xerr=errors, error_kw={"elinewidth": 0.8})
        for place, time, end in zip(places, times, high):
            text = f"{time:.{0 if time >= 100 else 1}f}"
            axes.text(end + 0.015 * longest, place, text, va="center", fontsize=style.NOTE_PT)
    style.name_rows(axes, [model["label"] for model in models])
    axes.set_xlim(0, 1.18 * longest)
    axes.set_xlabel("Inference time of an image, ms")
    style.add_legend(figure)
    return figure


@style.drawing()
def draw_ap_against_time(models: list[dict[str, Any]], found: Mapping[str, Spread], metric: str) -> Figure:
    """Draw a point for each model, its spreads as crosses."""
    figure = style.make_figure(1.9)
    axes: Axes = figure.subplots()
    for model, look in zip(models, style.choose_series_looks([model["id"] for model in models]).values()):
        x, low, high = _milliseconds(model["model"])
        spread = found[model["id"]]
        axes.errorbar(
            [x], [spread.mean], xerr=[[x - low], [high - x]], yerr=spread.sd, color=look.colour,
            marker=look.marker, markersize=5, elinewidth=0.9, linestyle="none", label=model["label"],
        )  # fmt: skip
    axes.grid()
    axes.set_xlabel("Inference time, model only, ms")
    axes.set_ylabel(metric)
    style.add_legend(figure)
    return figure


def _milliseconds(times: Mapping[str, float]) -> tuple[float, float, float]:
    """Return median and quartiles."""
    return 1000 * times["median_s"], 1000 * times["q1_s"], 1000 * times["q3_s"]


def _measured(table: MeasuredTable, result: Part) -> dict[str, Spread]:
    """Return the main metric by row id, of rows run as the measurement was."""
    found: dict[str, Spread] = {}
    for row in table.rows:
        if row.group is None or table.columns[0] not in row.group.metrics:
            continue
        run = row.group.runs[0]
        if (run["profile"], run["dataset"]) == (result["profile"] or "", result["dataset"]):
            found.setdefault(row.definition.id, row.group.metrics[table.columns[0]])
    return found


def _conditions(part: Part) -> str:
    result = part["result"]
    profile = f"Profile {result['profile']}, classes of {result['dataset']}. " if result["profile"] else ""
    return f"{profile}Measured on {describe_measurement(part)}."

"""Names in figures: by matplotlib's own extents no text meets another, and every name can be read whole."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from experiments.reporting.breakdown.image_drawing import BASELINE, TRUTH, Panel, draw_side_by_side
from experiments.reporting.figures import forest, style, timing
from experiments.reporting.stats.statistics import Difference, Spread

WORDS = ["schedule.iterations=30", "RLO", "α = 5", "retinanet-r50-rlo", "W" * 30, "with_under_scores", "漢字"]
LENGTHS = (3, 40, 200)
COUNTS = (pytest.param(2, marks=pytest.mark.slow), 8, pytest.param(40, marks=pytest.mark.slow))


def make_names(length: int, count: int) -> list[str]:
    """Return names of one length that end in their number."""
    draw = random.Random(length)
    texts = ["n" + " ".join(draw.choice(WORDS) for _ in range(length)) for _ in range(count)]
    return [f"{text[: length - 2]}{number:02d}" for number, text in enumerate(texts)]


def drawn_texts(figure: Figure) -> list[Text]:
    """Return the texts that are seen: ticks beyond an axis' ends have names, too."""
    with style.drawing():
        figure.draw_without_rendering()
    unseen: set[Any] = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not axis.axes.axison or not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t not in unseen and t.get_visible() and t.get_text().strip()]


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap, and each text that leaves the figure."""
    found = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    width, height = figure.canvas.get_width_height()
    pairs = []
    for i, (one, box) in enumerate(found):
        if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            pairs.append((one, "the figure's edge"))
        for two, other in found[:i]:
            shared = Bbox.intersection(box, other)
            if shared is not None and min(shared.width, shared.height) > 0.5:  # of a pixel
                pairs.append((one, two))
    return pairs


def assert_readable(names: list[str], figure: Figure) -> None:
    written = "".join("".join(text.get_text().split()) for text in drawn_texts(figure))
    assert [name for name in names if "".join(name.split()) not in written] == []


def test_texts_that_overlap_are_noticed():
    figure = style.make_figure(2)
    axes = figure.subplots()
    axes.set_xticks([0, 1], ["a" * 60, "b" * 60])
    figure.text(0.99, 0.5, "beyond the edge")
    assert len(collisions(figure)) >= 2


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_rows_of_a_figure_never_collide(count: int, length: int):
    names = make_names(length, count)
    change = Difference(0.5, 0.1, -1.0, 2.0, True, 3, (0.1, 0.5, 0.9))
    figure = forest.draw_differences([forest.Effect(name, change, 0.8) for name in names], "AP", "uniform")
    assert collisions(figure) == []
    assert_readable(names, figure)
    has_numbers = any(label.get_text() == "[1]" for label in figure.axes[0].get_yticklabels())
    assert has_numbers == (length == 200) or length == 40  # a name of 40 fits or not


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_legends_never_collide(count: int, length: int):
    names = make_names(length, count)
    with style.drawing():
        figure = style.make_figure(1.5)
        axes = figure.subplots()
        for name in names:
            axes.plot([0, 1], [0, 1], label=name)
        style.add_legend(figure)
    assert collisions(figure) == []
    assert_readable(names, figure)
    assert axes.get_window_extent().height > 0.5 * figure.dpi  # the figure grew, not the axes shrank


@pytest.mark.parametrize("length", LENGTHS)
def test_figures_of_two_or_eight_names_never_collide(length: int):
    names = make_names(length, 8)
    times = {"median_s": 0.1, "q1_s": 0.09, "q3_s": 0.12}
    models = [{"id": n, "label": n, "model": times, "end_to_end": times} for n in names]
    panels = [Panel(name, ink, []) for name, ink in zip(names, (TRUTH, BASELINE))]
    for figure, shown in (
        (timing.draw_times(models), names),
        (timing.draw_ap_against_time(models, {n: Spread(40.0, 1.0, 3) for n in names}, "AP"), names),
        (draw_side_by_side([(np.zeros((48, 64, 3), np.uint8), panels)]), names[:2]),
    ):
        assert collisions(figure) == []
        assert_readable(shown, figure)


@pytest.mark.parametrize("values", [[1, 2, 100], [5, 50, 100, 200, 500], [1e-4, 2e-4, 3e-4, 1.0], range(100)])
def test_values_of_a_sweep_that_lie_close_are_not_written_over_each_other(values: list[float]):
    with style.drawing():
        figure = style.make_figure(1.5)
        axes = figure.subplots()
        axes.plot(values, values)
        axes.set_xticks(list(values), [f"{value:g}" for value in values])
        style.thin_ticks(axes)
    assert collisions(figure) == []
    shown = [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
    assert len(shown) >= 2 and len(axes.get_xticks()) == len(list(values))

"""Boxes on images, side by side as in the paper's Fig 3: ground truth green, baseline blue, RLO red."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from experiments.common.errors import UserError
from experiments.reporting.figures.style import (
    BLUE,
    DPI,
    GREEN,
    LINE_SPACING,
    RED,
    TEXT_PT,
    Look,
    drawing,
    fold,
    new_figure,
    text_width_in,
)

THRESHOLD = 0.5  # the score from which the paper draws a detection
WIDTH_IN = 5.4  # of three columns, so that four rows of them fit on a page
BOX_PT = 6

TRUTH = Look(GREEN, "-")
BASELINE = Look(BLUE, (0, (4, 1.2)))
WEIGHTED = Look(RED, (0, (6, 1, 1.5, 1)))


@dataclass(frozen=True)
class Labelled:
    """x, y, width, height in pixels of the image, and what stands at it: a class, with its score if it has one."""

    box: tuple[float, float, float, float]
    label: str


@dataclass(frozen=True)
class Panel:
    """One drawing of an image."""

    title: str
    ink: Look
    boxes: Sequence[Labelled]


def labelled(box: Sequence[float], category: str, score: float | None = None) -> Labelled:
    """Return a box with its text: the category, and the score of a detection."""
    x, y, width, height = box
    return Labelled((x, y, width, height), category if score is None else f"{category} {score:.2f}")


def read_image(path: Path) -> Any:
    """Return an image as (height, width, 3) uint8 RGB, rotated by its EXIF data as in MMDetection.

    Raises:
        UserError: Not there, or no image.
    """
    import cv2
    import numpy as np

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"image {path}: {error.strerror or error}") from None
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    if image is None:
        raise UserError(f"{path} is no image, or a damaged or cut off one")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@drawing()
def side_by_side(rows: Sequence[tuple[Any, Sequence[Panel]]], figure_in: float = WIDTH_IN) -> Figure:
    """Return a figure with one row an image and one column a panel.

    Args:
        rows: Each an image as `read_image` gives it, and its panels.
        figure_in: Width of the whole figure, in inches.
    """
    columns = max(len(panels) for _, panels in rows)
    panel_in = figure_in / columns
    titles = [fold(panel.title, 0.85 * panel_in, TEXT_PT) for panel in rows[0][1]]
    heights = [panel_in * image.shape[0] / image.shape[1] for image, _ in rows]
    above = max(map(len, titles)) * LINE_SPACING * TEXT_PT / 72
    figure = new_figure(sum(heights) + above + 0.1, figure_in, "compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (image, panels) in zip(axes, rows):
        for place, panel in zip(row, panels):
            _draw(place, image, panel, panel_in)
    for place, title, panel in zip(axes[0], titles, rows[0][1]):
        place.set_title("\n".join(title), color=panel.ink.colour, fontweight="bold")
    return figure


def _draw(axes: Axes, image: Any, panel: Panel, panel_in: float) -> None:
    height, width = image.shape[:2]
    axes.imshow(_smaller(image, round(panel_in * DPI)), extent=(0, width, height, 0), interpolation="auto")
    axes.set_axis_off()
    for one in panel.boxes:
        x, y, w, h = one.box
        for colour, wide, dash in (("white", 2.2, "-"), (panel.ink.colour, 1.2, panel.ink.dash)):
            axes.add_patch(
                Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=wide, linestyle=dash)
            )
    taken: list[Bbox] = []
    for one in panel.boxes:  # above every outline
        taken.append(_place(one, (width, height), width / panel_in, taken))
        axes.text(*taken[-1].min, one.label, color=panel.ink.colour, fontsize=BOX_PT, ha="left", va="top",
                  path_effects=[withStroke(linewidth=2.4, foreground="white")], clip_on=True,
                  ).set_in_layout(False)  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _place(one: Labelled, image: tuple[int, int], inch: float, taken: Sequence[Bbox]) -> Bbox:
    """Return the first place above, below or in the corners of the box that meets no other label.

    Args:
        image: Width and height.
        inch: How many of its pixels are an inch of the figure.
    """
    x, y, w, h = one.box
    width, height = text_width_in(one.label, BOX_PT) * inch, 1.25 * BOX_PT / 72 * inch
    right = x + w - width
    places = [(x, y - height), (x, y + h), (right, y - height), (right, y + h), (x, y), (x, y + h - height)]
    inside = [
        Bbox.from_bounds(min(max(left, 0), max(image[0] - width, 0)), top, width, height)
        for left, top in places
        if 0 <= top <= image[1] - height
    ]
    free = [area for area in inside if not area.count_overlaps(taken)]
    return next(iter([*free, *inside]), Bbox.from_bounds(max(x, 0), max(y, 0), width, height))


def _smaller(image: Any, pixels: int) -> Any:
    """Return the image no wider than a figure shows it: the file holds it once for each column."""
    import cv2

    height, width = image.shape[:2]
    if width <= pixels:
        return image
    return cv2.resize(image, (pixels, max(1, round(height * pixels / width))), interpolation=cv2.INTER_AREA)

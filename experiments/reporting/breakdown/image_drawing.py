"""Boxes on images, side by side as in the paper's Fig 3: ground truth green, baseline blue, RLO red."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common.errors import UserError
from experiments.reporting.figures.style import BLUE, DPI, GREEN, RED, drawing, new_figure

THRESHOLD = 0.5  # the score from which the paper draws a detection
WIDTH_IN = 5.4  # of three columns, so that four rows of them fit on a page
TEXT_PT = 6


@dataclass(frozen=True)
class Ink:
    """How one column's boxes are drawn: colour, and a dash for where colours cannot be told apart."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]


TRUTH = Ink(GREEN, "-")
BASELINE = Ink(BLUE, (0, (4, 1.2)))
WEIGHTED = Ink(RED, (0, (6, 1, 1.5, 1)))


@dataclass(frozen=True)
class Labelled:
    """x, y, width, height in pixels of the image, and what stands at it: a class, with its score if it has one."""

    box: tuple[float, float, float, float]
    label: str


@dataclass(frozen=True)
class Panel:
    """One drawing of an image."""

    title: str
    ink: Ink
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


def side_by_side(rows: Sequence[tuple[Any, Sequence[Panel]]], width_in: float = WIDTH_IN) -> Any:
    """Return a figure with one row an image and one column a panel.

    Args:
        rows: Each an image as `read_image` gives it, and its panels.
        width_in: Of the whole figure, in inches.
    """
    columns = max(len(panels) for _, panels in rows)
    width = width_in / columns
    heights = [width * image.shape[0] / image.shape[1] for image, _ in rows]
    with drawing():
        figure = new_figure(sum(heights) + 0.25, width_in)
        axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for row, (image, panels) in enumerate(rows):
            for place, panel in zip(axes[row], panels):
                _draw(place, image, panel, width, with_title=row == 0)
    return figure


def _draw(axes: Any, image: Any, panel: Panel, width_in: float, with_title: bool) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    height, width = image.shape[:2]
    axes.imshow(_smaller(image, round(width_in * DPI)), extent=(0, width, height, 0), interpolation="auto")
    axes.set_axis_off()
    if with_title:
        axes.set_title(panel.title, color=panel.ink.colour, fontweight="bold")
    white = [withStroke(linewidth=2.4, foreground="white")]
    for one in panel.boxes:
        x, y, w, h = one.box
        for colour, wide, dash in (("white", 2.2, "-"), (panel.ink.colour, 1.2, panel.ink.dash)):
            axes.add_patch(
                Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=wide, linestyle=dash)
            )
    point = width / (width_in * 72)  # pixels of the image
    taken: list[_Area] = []
    for one in panel.boxes:  # above every outline
        area = _place(one, (width, height), point, taken)
        taken.append(area)
        axes.text(area.x, area.y, one.label, color=panel.ink.colour, fontsize=TEXT_PT, ha="left", va="top",
                  path_effects=white, clip_on=True).set_in_layout(False)  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


class _Area(NamedTuple):
    """Of a label: its upper left corner and its size, in pixels of the image."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: _Area) -> bool:
        apart_x = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (apart_x or self.y + self.height <= other.y or other.y + other.height <= self.y)


def _place(one: Labelled, image: tuple[int, int], point: float, taken: Sequence[_Area]) -> _Area:
    """Return the first place above, below or in the corners of the box that meets no other label."""
    x, y, w, h = one.box
    width, height = len(one.label) * 0.58 * TEXT_PT * point, 1.25 * TEXT_PT * point
    places = [
        (x, y - height),
        (x, y + h),
        (x + w - width, y - height),
        (x + w - width, y + h),
        (x, y),
        (x, y + h - height),
    ]
    inside = [
        _Area(min(max(a, 0), max(image[0] - width, 0)), b, width, height)
        for a, b in places
        if 0 <= b <= image[1] - height
    ]
    free = [area for area in inside if not any(area.meets(other) for other in taken)]
    return next(iter([*free, *inside]), _Area(max(x, 0), max(y, 0), width, height))


def _smaller(image: Any, pixels: int) -> Any:
    """Return the image no wider than a figure shows it: the file holds it once for each column."""
    import cv2

    height, width = image.shape[:2]
    if width <= pixels:
        return image
    return cv2.resize(image, (pixels, max(1, round(height * pixels / width))), interpolation=cv2.INTER_AREA)

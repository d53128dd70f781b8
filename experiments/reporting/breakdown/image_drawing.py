"""Boxes on images, side by side as in the paper's Fig 3: ground truth green, baseline blue, RLO red.

A report's are drawn from kept detections: what was evaluated is drawn, and no model is run.
"""

from __future__ import annotations

import random
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
from experiments.data.image_files import read_pixels
from experiments.reporting.breakdown.run_breakdown import Evaluated
from experiments.reporting.figures import style
from experiments.reporting.tables.sections import Picture

THRESHOLD = 0.5  # the score from which the paper draws a detection
WIDTH_IN = 5.4  # of three columns, so that four rows of them fit on a page
BOX_PT = 6
IMAGES = 4
CHOICE_SEED = 0  # the images are drawn once and for all, before anybody has seen what is on them

TRUTH = style.Look(style.GREEN, "-")
BASELINE = style.Look(style.BLUE, (0, (4, 1.2)))
WEIGHTED = style.Look(style.RED, (0, (6, 1, 1.5, 1)))

ImageId = int | str


@dataclass(frozen=True)
class Labelled:
    """x, y, width, height in pixels of the image, and what stands at it: the score only of a detection."""

    box: Sequence[float]
    category: str
    score: float | None = None

    @property
    def label(self) -> str:
        return self.category if self.score is None else f"{self.category} {self.score:.2f}"


@dataclass(frozen=True)
class Panel:
    """One drawing of an image."""

    title: str
    ink: style.Look
    boxes: Sequence[Labelled]


def draw_detections(baseline: Evaluated, other: Evaluated, labels: tuple[str, str], name: str) -> Picture:
    """Draw random images with ground truth and the detections that two runs' evaluations kept.

    Args:
        labels: Of the baseline and of the other.

    Raises:
        UserError: An image is not on this machine, or detections cannot be read; names it.
    """
    total = len(other.truth.images)
    images = [other.truth.images[place] for place in sample_places(total, IMAGES, CHOICE_SEED)]
    ids = [image.id for image in images]
    pixels = [read_image(image.path) for image in images]
    truth = {
        i.id: [Labelled(box.xywh, box.category) for box in i.boxes if not box.is_ignored] for i in images
    }
    found = [truth, *(select_boxes(one, ids, THRESHOLD) for one in (baseline, other))]
    columns = list(zip(("ground truth", *labels), (TRUTH, BASELINE, WEIGHTED), found))
    rows = [
        (image, [Panel(title, ink, boxes[i]) for title, ink, boxes in columns])
        for i, image in zip(ids, pixels)
    ]
    seeds = f"seed {other.record.seed}"
    if baseline.record.seed != other.record.seed:
        seeds += f" against seed {baseline.record.seed}"
    caption = (
        f"Ground truth (green), {labels[0]} (blue) and {labels[1]} (red), {seeds}, detections with a score of"
        f" {THRESHOLD:g} or more, as their evaluation kept them. {len(ids)} images drawn at random (generator seed"
        f" {CHOICE_SEED}) from the {total} of the validation set, none picked by hand: image"
        f" {', '.join(map(str, ids))}."
    )
    counts = [sum(map(len, boxes.values())) for boxes in found]
    alt = (
        f"{len(ids)} validation images with boxes: {counts[0]} objects, {counts[1]} detections by {labels[0]},"
        f" {counts[2]} by {labels[1]}."
    )
    return style.render_picture(draw_side_by_side(rows), name, caption, alt)


def select_boxes(one: Evaluated, ids: Sequence[ImageId], threshold: float) -> dict[ImageId, list[Labelled]]:
    """Return a run's kept detections on some images, with at least the threshold's score."""
    boxes: dict[ImageId, list[Labelled]] = {i: [] for i in ids}
    for entry in one.detections():
        if entry["image_id"] in boxes and entry["score"] >= threshold:
            boxes[entry["image_id"]].append(Labelled(entry["bbox"], entry["category"], entry["score"]))
    return boxes


def sample_places(images: int, count: int, seed: int) -> list[int]:
    """Return `count` places among the images of a set, ascending, always the same for one seed."""
    return sorted(random.Random(seed).sample(range(images), min(count, images)))


def read_image(path: Path) -> Any:
    """Return an image as (height, width, 3) uint8 RGB, rotated by its EXIF data as in MMDetection.

    Raises:
        UserError: Not there, or no image.
    """
    try:
        return read_pixels(path)[..., ::-1]
    except ValueError as error:
        raise UserError(f"image {path}: {error}") from None


@style.drawing()
def draw_side_by_side(rows: Sequence[tuple[Any, Sequence[Panel]]], figure_in: float = WIDTH_IN) -> Figure:
    """Return a figure of this width with one row an image, as `read_image` gives it, and one column a panel."""
    columns = max(len(panels) for _, panels in rows)
    panel_in = figure_in / columns
    titles = [style.fold(panel.title, 0.85 * panel_in, style.TEXT_PT) for panel in rows[0][1]]
    heights = [panel_in * image.shape[0] / image.shape[1] for image, _ in rows]
    above = max(map(len, titles)) * style.LINE_SPACING * style.TEXT_PT / 72
    figure = style.make_figure(sum(heights) + above + 0.1, figure_in, "compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (image, panels) in zip(axes, rows):
        for place, panel in zip(row, panels):
            _draw(place, image, panel, panel_in)
    for place, title, panel in zip(axes[0], titles, rows[0][1]):
        place.set_title("\n".join(title), color=panel.ink.colour, fontweight="bold")
    return figure


def _draw(axes: Axes, image: Any, panel: Panel, panel_in: float) -> None:
    height, width = image.shape[:2]
    axes.imshow(_smaller(image, round(panel_in * style.DPI)), extent=(0, width, height, 0))
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
    width, height = style.measure_text_width_in(one.label, BOX_PT) * inch, 1.25 * BOX_PT / 72 * inch
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

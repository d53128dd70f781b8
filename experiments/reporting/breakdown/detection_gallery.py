"""The paper's Fig. 3 from kept detections: what was evaluated is drawn, and no model is run."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.reporting.breakdown.image_drawing import (
    BASELINE,
    THRESHOLD,
    TRUTH,
    WEIGHTED,
    Labelled,
    Panel,
    labelled,
    read_image,
    side_by_side,
)
from experiments.reporting.breakdown.run_breakdown import Evaluated
from experiments.reporting.breakdown.validation_set import random_places
from experiments.reporting.figures.style import picture
from experiments.reporting.tables.sections import Picture

IMAGES = 4
CHOICE_SEED = 0  # the images are drawn once and for all, before anybody has seen what is on them


def detections_picture(
    baseline: Evaluated, other: Evaluated, labels: tuple[str, str], name: str, threshold: float = THRESHOLD
) -> Picture:
    """Draw random images with ground truth and the detections that two runs' evaluations kept.

    Args:
        labels: Of the baseline and of the other.

    Raises:
        UserError: An image is not on this machine, or detections cannot be read; names it.
    """
    places = random_places(len(other.truth.images), IMAGES, CHOICE_SEED)
    images = [other.truth.images[place] for place in places]
    ids = [image.id for image in images]
    pixels = [read_image(image.path) for image in images]
    truth = {
        i.id: [labelled(box.xywh, box.category) for box in i.boxes if not box.is_ignored] for i in images
    }
    found = [truth, *(drawn_boxes(one, ids, threshold) for one in (baseline, other))]
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
        f" {threshold:g} or more, as their evaluation kept them. {len(ids)} images drawn at random (generator seed"
        f" {CHOICE_SEED}) from the {len(other.truth.images)} of the validation set, none picked by hand: image"
        f" {', '.join(map(str, ids))}."
    )
    counts = [sum(map(len, boxes.values())) for boxes in found]
    alt = (
        f"{len(ids)} validation images with boxes: {counts[0]} objects, {counts[1]} detections by {labels[0]},"
        f" {counts[2]} by {labels[1]}."
    )
    return picture(side_by_side(rows), name, caption, alt)


def drawn_boxes(
    one: Evaluated, ids: Sequence[int | str], threshold: float
) -> dict[int | str, list[Labelled]]:
    """Return a run's kept detections on some images, with at least the threshold's score."""
    boxes: dict[int | str, list[Labelled]] = {i: [] for i in ids}
    for entry in one.detections():
        if entry["image_id"] in boxes and entry["score"] >= threshold:
            boxes[entry["image_id"]].append(labelled(entry["bbox"], entry["category"], entry["score"]))
    return boxes

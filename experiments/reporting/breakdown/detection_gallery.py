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
    ids = [other.truth.images[place].id for place in places]
    images = other.truth.by_id
    pixels = [read_image(images[i].path) for i in ids]
    found = [drawn_boxes(one, ids, threshold) for one in (baseline, other)]
    rows = []
    for i, image in zip(ids, pixels):
        truth = [labelled(box.xywh, box.category) for box in images[i].boxes if not box.is_ignored]
        panels = [Panel("ground truth", TRUTH, truth), Panel(labels[0], BASELINE, found[0][i])]
        rows.append((image, [*panels, Panel(labels[1], WEIGHTED, found[1][i])]))
    seeds = f"seed {other.record.seed}"
    if baseline.record.seed != other.record.seed:
        seeds += f" against seed {baseline.record.seed}"
    caption = (
        f"Ground truth (green), {labels[0]} (blue) and {labels[1]} (red), {seeds}, detections with a score of"
        f" {threshold:g} or more, as their evaluation kept them. {len(ids)} images drawn at random (generator seed"
        f" {CHOICE_SEED}) from the {len(images)} of the validation set, none picked by hand: image"
        f" {', '.join(map(str, ids))}."
    )
    counts = [sum(len(panels[k].boxes) for _, panels in rows) for k in range(3)]
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
            boxes[entry["image_id"]].append(labelled(entry["bbox"], one.category(entry), entry["score"]))
    return boxes

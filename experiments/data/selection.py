"""The choice of boxes and images to train on, shared by the training set and every count of it."""

from __future__ import annotations

from collections.abc import Collection

from experiments.data.readers import Box, Image


def classify_box(box: Box, size: tuple[int, int] | None, min_box_size: int = 1) -> str | None:
    """Return the kind of problem (`problems.KINDS`) that keeps a box out of training; None for a usable one.

    The rule is that of MMDetection's CocoDataset, applied to every format. Crowds, ignored and difficult boxes are
    not learnt either, but they are marked so in the annotations and are no problem.

    Args:
        box: The box.
        size: The image's (width, height) in pixels; None is unknown, so no box lies outside.
        min_box_size: That of the data set's page, in pixels.
    """
    x, y, width, height = box.xywh
    if width <= 0 or height <= 0:
        return "empty box"
    if size is not None and (x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0):
        return "box wholly outside"
    if width < 1 or height < 1:
        return "box under 1 pixel"
    if width < min_box_size or height < min_box_size:
        return "box under min_box_size"
    return None


def has_training_boxes(image: Image, classes: Collection[str]) -> bool:
    """Whether an image has any box of the classes; without one it is left out of training, as in MMDetection.

    An image whose boxes are all crowds or too small counts as background and stays.
    """
    return any(box.category in classes for box in image.boxes)

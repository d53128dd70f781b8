"""Images and boxes as all readers return them, whatever the format, and which boxes can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Box:
    """One annotated object.

    Attributes:
        category: Its class name, stripped.
        xywh: x, y, width, height in pixels of the original image; the corner is counted from 0.
        area: In px^2: the annotated one, or width x height where there is none.
        role: "" for an object to learn and to count. "crowd" and "ignore" (COCO) and "difficult" (VOC) mark
            objects that are neither learnt nor counted.
        number: COCO: the annotation's id. VOC: its position in the XML file, from 1.
        segmentation: The annotated mask, unchanged; None where there is none.
    """

    category: str
    xywh: tuple[float, float, float, float]
    area: float
    role: str = ""
    number: int = 0
    segmentation: Any = None

    @property
    def is_ignored(self) -> bool:
        """Whether finding it is neither right nor wrong."""
        return self.role != ""

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 as in training."""
        x, y, width, height = self.xywh
        return x, y, x + width, y + height


@dataclass(slots=True)
class Image:
    """One image; `size` is the annotated (width, height) in pixels, None where not annotated."""

    id: int | str
    path: Path
    size: tuple[int, int] | None
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Annotations:
    """The content of one split, or of one annotation file of it.

    Attributes:
        images: In the order of the files, which is the order of training and evaluation.
        classes: COCO: all categories in the order of the file. VOC: the names that occur, sorted.
        category_ids: COCO: class name to category id. Empty for VOC.
        sources: Every annotation file that was read.
        raw_digests: For each file the number of images it lists (None for an XML file) and the SHA-256 of its
            bytes, for the fingerprint.
    """

    images: Sequence[Image] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    category_ids: dict[str, int] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)
    raw_digests: list[tuple[int | None, bytes]] = field(default_factory=list)


def classify_box(box: Box, size: tuple[int, int] | None, min_box_size: int = 1) -> str | None:
    """Return the kind of problem (`problems.KINDS`) that keeps a box out of training; None for a usable one.

    The rule is that of MMDetection's CocoDataset, applied to every format, in the training set and every count of it.
    Crowds, ignored and difficult boxes are not learnt either, but are marked so in the annotations: no problem.

    Args:
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

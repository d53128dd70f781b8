"""Images and boxes as columns of numbers: 60 bytes a box, in memory that processes can share."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.readers.annotations import Annotations, Box, Image

_ROLES = ("", "crowd", "ignore", "difficult")


class ImageTable(Sequence[Image]):
    """The images of some annotations, each made from the columns when it is asked for.

    Whole numbers of pixels become floats of the same value.

    Args:
        columns: Of N images and M boxes, in their order: `id` (N,), `path` (N,) as bytes, `size` (N, 2) in pixels, 0
            where not annotated, `end` (N,) of each image's boxes, `xywh` (M, 4), `area`, `category`, `role` and
            `number` (M,); with masks also `mask`, their JSON as bytes, and `mask_end` (M,).
        names: The class name that each number in `category` means.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        self.columns, self.names = columns, names

    @classmethod
    def of(cls, read: Annotations) -> ImageTable:
        """Return the images of a reader as a table."""
        if isinstance(read.images, cls):
            return read.images
        images = read.images
        boxes = [box for image in images for box in image.boxes]
        labels = {name: label for label, name in enumerate(read.classes)}
        columns = {
            "id": _ids([image.id for image in images]),
            "path": np.array([os.fsencode(image.path) for image in images], "S"),
            "size": np.array([image.size or (0, 0) for image in images], np.int32).reshape(-1, 2),
            "end": np.cumsum([len(image.boxes) for image in images], dtype=np.int64),
            "xywh": np.array([box.xywh for box in boxes], np.float64).reshape(-1, 4),
            "area": np.array([box.area for box in boxes], np.float64),
            "category": np.array([labels[box.category] for box in boxes], np.int32),
            "role": np.array([_ROLES.index(box.role) for box in boxes], np.uint8),
            "number": _ids([box.number for box in boxes]),
        }
        if any(box.segmentation is not None for box in boxes):
            masks = [json.dumps(box.segmentation).encode() for box in boxes]
            columns["mask"] = np.frombuffer(b"".join(masks), np.uint8)
            columns["mask_end"] = np.cumsum([len(mask) for mask in masks], dtype=np.int64)
        return cls(columns, read.classes)

    def have_boxes_of(self, classes: Collection[str]) -> np.ndarray:
        """Return which images have any box of the classes, as (N,) bool; only those are trained on, as in MMDetection.

        An image whose boxes are all crowds or too small counts as background and stays.
        """
        is_wanted = np.array([name in classes for name in self.names], bool)
        wanted_before = np.concatenate([[0], np.cumsum(is_wanted[self.columns["category"]])])
        return np.diff(wanted_before[self.columns["end"]], prepend=0) > 0

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitem__(self, place: Any) -> Any:
        index = range(len(self))[place]
        width, height = self.columns["size"][index].tolist()
        size = (width, height) if width and height else None
        return Image(self.columns["id"].item(index), Path(self.path(index)), size, self.boxes(index))

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return os.fsdecode(self.columns["path"].item(index))

    def boxes(self, index: int) -> list[Box]:
        """Return the boxes of an image."""
        end = self.columns["end"]
        own = slice(end.item(index - 1) if index else 0, end.item(index))
        fields = (self.columns[name][own].tolist() for name in ("category", "xywh", "area", "role", "number"))
        return [
            Box(self.names[category], tuple(xywh), area, _ROLES[role], number, mask)
            for category, xywh, area, role, number, mask in zip(*fields, self._masks(own))
        ]

    def _masks(self, own: slice) -> list[Any]:
        if "mask" not in self.columns:
            return [None] * (own.stop - own.start)
        ends = self.columns["mask_end"]
        bounds = [ends.item(own.start - 1) if own.start else 0, *ends[own].tolist()]
        return [json.loads(self.columns["mask"][a:b].tobytes()) for a, b in pairwise(bounds)]

    def __deepcopy__(self, memo: Any) -> ImageTable:
        return self  # nothing in it changes


def _ids(values: list[Any]) -> np.ndarray:
    """Return ids as a column: of integers, of text, or of Python's own integers where one is too large."""
    if values and isinstance(values[0], str):
        return np.array(values)
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)

"""The ground truth of an evaluation: the validation set's images and objects, in either format. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.data.image_files import read_image_facts
from experiments.data.problems import ProblemLog
from experiments.data.readers import Annotations, Image, read_split
from experiments.data.readers.stored import recall_coco
from experiments.data.spec import DatasetSpec


@dataclass(frozen=True)
class GroundTruth:
    """A validation set.

    Attributes:
        images: In the order of the evaluation, each with the objects of the trained classes only.
        classes: The trained ones, in the order of their labels.
        category_ids: Class name to its id in a COCO file; empty for VOC.
        digest: SHA-256 of the annotations' bytes.
    """

    images: list[Image]
    classes: list[str]
    category_ids: dict[str, int]
    digest: str

    @classmethod
    def of(cls, read: Annotations, classes: Sequence[str]) -> GroundTruth:
        """Return the ground truth of what a reader returned, without objects of other classes."""
        images = [
            Image(image.id, image.path, image.size, [box for box in image.boxes if box.category in classes])
            for image in read.images
        ]
        digest = hashlib.sha256(b"".join(raw for _, raw in read.raw_digests))
        return cls(images, list(classes), read.category_ids, digest.hexdigest())

    @cached_property
    def by_id(self) -> dict[int | str, Image]:
        """The images by their ids."""
        return {image.id: image for image in self.images}

    def numbered(self) -> dict[str, Any]:
        """Return a COCO instances mapping with ids counted from 1, since the evaluators misread others.

        They take annotation id 0 for "no match", lose negative and very large ids, and ignore the key `ignore`.
        Images and categories keep their order by id, and with it the order of equal scores.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        numbers, categories = self._image_numbers, self._category_numbers
        for name, number in numbers.items():
            image = self.by_id[name]
            width, height = image.size or read_image_facts(image.path).size or (0, 0)
            images.append({"id": number, "file_name": image.path.name, "width": width, "height": height})
        for image in self.images:
            for box in image.boxes:
                place = {"image_id": numbers[image.id], "category_id": categories[box.category]}
                shape = {"bbox": list(box.xywh), "area": box.area, "iscrowd": int(box.is_ignored)}
                annotations.append({"id": len(annotations) + 1, **place, **shape})
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        return {"images": images, "annotations": annotations, "categories": listed}

    def numbered_detections(self, detections: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return COCO results (image_id, category_id, bbox, score) with the ids of `numbered`, not of the file.

        Raises:
            KeyError: An id does not occur in this data set.
        """
        images = self._image_numbers
        categories = {self.category_ids[name]: number for name, number in self._category_numbers.items()}
        numbered = []
        for entry in detections:
            place = {"image_id": images[entry["image_id"]], "category_id": categories[entry["category_id"]]}
            numbered.append({**place, "bbox": entry["bbox"], "score": entry["score"]})
        return numbered

    @cached_property
    def _image_numbers(self) -> dict[int | str, int]:
        return {name: number for number, name in enumerate(sorted(self.by_id), start=1)}  # type: ignore[type-var]

    @cached_property
    def _category_numbers(self) -> dict[str, int]:
        ordered = sorted(self.classes, key=lambda name: self.category_ids[name])
        return {name: number for number, name in enumerate(ordered, start=1)}


def read_ground_truth(spec: DatasetSpec, root: Path, classes: Sequence[str]) -> GroundTruth:
    """Return the ground truth of the validation split; image files are read only for a missing size.

    Args:
        classes: The trained classes, in the order of their labels.

    Raises:
        UserError: An annotation file is missing or broken; names it.
    """
    try:
        read = read_split(spec, root, "val", ProblemLog(strict=True))
    except UserError as error:
        raise UserError(error.message, f"msdet data verify {spec.name}") from None
    return GroundTruth.of(read, classes)


def read_coco_truth(path: Path, classes: Sequence[str]) -> GroundTruth:
    """Return the ground truth of one instances JSON, without looking for its images."""
    return GroundTruth.of(recall_coco(path, Path()), classes)

"""The validation set as an evaluation sees it: its images and their ground truth, in either format. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.data import coco, voc
from experiments.data.spec import DatasetSpec
from experiments.errors import UserError


@dataclass(frozen=True)
class TrueBox:
    """One object.

    Attributes:
        box: x, y, width, height in pixels of the original image, its corner counted from 0.
        aside: Neither right nor wrong when it is found: COCO's crowds, VOC's difficult objects.
    """

    category: str
    box: tuple[float, float, float, float]
    aside: bool = False


@dataclass(frozen=True)
class TrueImage:
    """One image: its id as in the kept detections, its file (which may be elsewhere) and its objects."""

    id: int | str
    path: Path
    boxes: list[TrueBox] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """A validation set.

    Attributes:
        images: In the order of the evaluation.
        digest: SHA-256 of the annotations' bytes.
        content: The JSON of a set in COCO format; None for VOC.
    """

    images: list[TrueImage]
    digest: str
    content: dict[str, Any] | None = None

    @property
    def by_id(self) -> dict[int | str, TrueImage]:
        return {image.id: image for image in self.images}


def read_truth(spec: DatasetSpec, root: Path, classes: Sequence[str]) -> Truth:
    """Reads the annotations of the validation split; the images themselves are not looked at.

    Args:
        root: The data set's folder.
        classes: Those that were trained; objects of others are left out, as they are in the evaluation.

    Raises:
        UserError: An annotation file is missing or broken; names it.
    """
    part = spec.splits["val"][0]  # the evaluation takes the first alone
    annotations, folder = root / part.annotations, root / part.images
    if spec.format == "coco":
        return _read_coco(annotations, folder, classes)
    return _read_voc(annotations, folder, classes)


def _read_coco(annotations: Path, folder: Path, classes: Sequence[str]) -> Truth:
    content, raw = coco.read(annotations)
    for problem in coco.problems(content):
        raise UserError(f"{annotations}: {problem.text}", "msdet data verify NAME")
    names = {entry["id"]: entry["name"] for entry in content["categories"] if entry["name"] in classes}
    images = {e["id"]: TrueImage(e["id"], folder / e["file_name"]) for e in content["images"]}
    for entry in content["annotations"]:
        if entry["category_id"] in names:
            box = TrueBox(names[entry["category_id"]], tuple(entry["bbox"]), bool(entry.get("iscrowd")))
            images[entry["image_id"]].boxes.append(box)
    return Truth(list(images.values()), hashlib.sha256(raw).hexdigest(), content)


def _read_voc(annotations: Path, folder: Path, classes: Sequence[str]) -> Truth:
    ids, raw = voc.read_list(annotations)
    digest, images = hashlib.sha256(raw), []
    for name in ids:
        page, raw = voc.read_xml(folder / voc.ANNOTATIONS / f"{name}.xml")
        digest.update(hashlib.sha256(raw).digest())
        boxes = [_voc_box(thing) for thing in page.objects if thing.name in classes]
        images.append(TrueImage(name, folder / voc.IMAGES / f"{name}.jpg", boxes))
    return Truth(images, digest.hexdigest())


def _voc_box(thing: voc.VocObject) -> TrueBox:
    """Corners as MMDetection reads them: cut to whole pixels, counted from 0, without the last one's width."""
    x, y, *_ = (int(value) - 1 for value in thing.box)
    return TrueBox(thing.name, (x, y, *thing.size), thing.difficult)

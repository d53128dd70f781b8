"""What the annotations of a split hold, in one form for both formats, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data import coco, voc
from experiments.data.problems import KINDS
from experiments.data.spec import DatasetSpec
from experiments.errors import UserError

EXAMPLES = 5  # of each kind of problem


class Box(NamedTuple):
    """`corners` is (x1, y1, x2, y2) in pixels from 0. `role` is 'crowd', 'difficult', or '' for others."""

    where: str
    name: str
    corners: tuple[float, float, float, float]
    area: float
    role: str = ""


class Image(NamedTuple):
    path: Path
    size: tuple[float, float] | None  # (width, height) as annotated
    boxes: list[Box]


class Findings:
    """Problems by kind: how many, and the first few."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(text)

    def as_dict(self) -> dict[str, Any]:
        return {
            kind: {"count": self.counts[kind], "prevents_training": serious, "examples": self.examples[kind]}
            for kind, serious in KINDS.items()
            if self.counts[kind]
        }


def read_coco(
    spec: DatasetSpec, place: Path, split: str, findings: Findings
) -> tuple[list[Image], list[str]]:
    """The images of a split and its categories in the order of the file."""
    part = spec.splits[split][0]  # type: ignore[index]
    try:
        content, _ = coco.read(place / part.annotations)
    except UserError as error:
        findings.add("annotation file unusable", error.message)
        return [], []
    for problem in coco.problems(content):
        findings.add(*problem)
    names = {entry["id"]: entry["name"] for entry in coco.sound_entries(content, "categories")}
    images: dict[int, Image] = {}
    for entry in coco.sound_entries(content, "images"):
        path = place / part.images / entry["file_name"]
        images.setdefault(entry["id"], Image(path, (entry["width"], entry["height"]), []))
    for entry in coco.sound_entries(content, "annotations"):
        if entry["id"] == 0:
            findings.add("annotation id 0", "COCO evaluators count this box as never found; number from 1")
        if entry["image_id"] in images and entry["category_id"] in names:
            x, y, width, height = entry["bbox"]
            where = f"annotation {entry['id']} of {images[entry['image_id']].path.name}"
            role = "crowd" if entry.get("iscrowd") else ""
            box = Box(where, names[entry["category_id"]], (x, y, x + width, y + height), entry["area"], role)
            images[entry["image_id"]].boxes.append(box)
    return list(images.values()), list(dict.fromkeys(names.values()))


def read_voc(spec: DatasetSpec, place: Path, split: str, findings: Findings) -> tuple[list[Image], list[str]]:
    """The images of a split and the class names met there, sorted."""
    images = []
    for part in spec.splits[split]:  # type: ignore[index]
        folder = place / part.images
        try:
            ids, _ = voc.read_list(place / part.annotations)
        except UserError as error:
            findings.add("annotation file unusable", error.message)
            continue
        for name in ids:
            try:
                content, _ = voc.read_xml(folder / voc.ANNOTATIONS / f"{name}.xml")
            except UserError as error:
                findings.add("annotation file unusable", error.message)
                content = voc.VocImage(None, [])
            numbered = enumerate(content.objects, start=1)
            boxes = [_voc_box(thing, f"object {i} of {name}") for i, thing in numbered]
            images.append(Image(folder / voc.IMAGES / f"{name}.jpg", content.size, boxes))
    return images, sorted({box.name for image in images for box in image.boxes})


def _voc_box(thing: voc.VocObject, where: str) -> Box:
    x1, y1, x2, y2 = thing.box
    width, height = thing.size
    # VOC counts pixels from 1; MMDetection subtracts 1 from all four corners
    corners = (x1 - 1, y1 - 1, x2 - 1, y2 - 1)
    area, role = max(width, 0) * max(height, 0), "difficult" if thing.difficult else ""
    return Box(where, thing.name, corners, area, role)

"""The files of the built-in data, in COCO or in VOC format. Both have the same scenes.

    COCO: annotations/{train,val}.json             {train,val}/000000.png
    VOC:  ImageSets/Main/{train,val}.txt           JPEGImages/train_000000.jpg, Annotations/train_000000.xml

VOC images are JPEGs, since XMLDataset asks for no other suffix; so their pixels differ slightly from the PNGs'.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data.readers.voc import ANNOTATIONS, IMAGES

JPEG_QUALITY = 95  # of 100


class Box(NamedTuple):
    """An object: (x, y, width, height) in whole pixels from 0, and its visible pixels (`area`)."""

    category: int
    corner_and_size: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True)
class CocoLayout:
    """Instances JSON per split; ids counted from 1.

    Attributes:
        folders: Those that hold files, relative to the root.
    """

    classes: tuple[str, ...]
    description: Mapping[str, Any]
    folders: tuple[str, ...] = ("annotations", "train", "val")

    def image(self, split: str, index: int) -> str:
        """Return the path of an image; its suffix is its encoding."""
        return f"{split}/{index:06d}.png"

    def annotations(self, split: str, count: int) -> list[str]:
        """Return the paths of a split's annotation files."""
        return [f"annotations/{split}.json"]

    def write(self, root: Path, split: str, scenes: Sequence[Sequence[Box]], size: int) -> None:
        """Write a split's annotation files, for square images of `size` pixels ordered by index."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, boxes in enumerate(scenes, start=1):
            name = Path(self.image(split, number - 1)).name
            images.append({"id": number, "file_name": name, "width": size, "height": size})
            for box in boxes:
                place = {"image_id": number, "category_id": box.category + 1}
                shape = {"bbox": list(box.corner_and_size), "area": box.area, "iscrowd": 0}
                annotations.append({"id": len(annotations) + 1, **place, **shape})
        content = {
            "info": dict(self.description),
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.classes, start=1)],
        }
        (root / f"annotations/{split}.json").write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class VocLayout:
    """One XML file per image, with VOC's coordinates: pixels counted from 1, the last one inclusive.

    MMDetection subtracts 1 from all four, so boxes are (x, y, x + w - 1, y + h - 1) where they are
    (x, y, x + w, y + h) in COCO format: centres differ by half a pixel, as with the real VOC.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...] = (IMAGES, ANNOTATIONS, "ImageSets/Main")

    def image(self, split: str, index: int) -> str:
        return f"{IMAGES}/{self._id(split, index)}.jpg"

    def annotations(self, split: str, count: int) -> list[str]:
        xml = [f"{ANNOTATIONS}/{self._id(split, index)}.xml" for index in range(count)]
        return [f"ImageSets/Main/{split}.txt", *xml]

    def write(self, root: Path, split: str, scenes: Sequence[Sequence[Box]], size: int) -> None:
        listing, *xml = self.annotations(split, len(scenes))
        for index, (place, boxes) in enumerate(zip(xml, scenes)):
            page = ElementTree.ElementTree(self._page(f"{self._id(split, index)}.jpg", boxes, size))
            ElementTree.indent(page)
            page.write(root / place, encoding="utf-8")
        ids = [self._id(split, index) for index in range(len(scenes))]
        (root / listing).write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")

    def _id(self, split: str, index: int) -> str:
        return f"{split}_{index:06d}"

    def _page(self, name: str, boxes: Sequence[Box], size: int) -> ElementTree.Element:
        page = ElementTree.Element("annotation")
        _put(page, filename=name)
        _put(ElementTree.SubElement(page, "size"), width=size, height=size, depth=3)
        for box in boxes:
            thing = ElementTree.SubElement(page, "object")
            _put(thing, name=self.classes[box.category], difficult=0)
            x, y, width, height = box.corner_and_size
            corners = ElementTree.SubElement(thing, "bndbox")
            _put(corners, xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
        return page


def _put(node: ElementTree.Element, **children: Any) -> None:
    for tag, text in children.items():
        ElementTree.SubElement(node, tag).text = str(text)


def encode(image: Any, suffix: str) -> bytes:
    """Return an (H, W, 3) uint8 image in OpenCV's BGR order as the bytes of a PNG or JPEG file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image, options)[1].tobytes()

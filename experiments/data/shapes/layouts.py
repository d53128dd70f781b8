"""The files of the built-in data, in COCO or in VOC format. Both have the same scenes.

    COCO: annotations/{train,val}.json             {train,val}/000000.png
    VOC:  ImageSets/Main/{train,val}.txt           JPEGImages/train_000000.jpg, Annotations/train_000000.xml

VOC images are JPEGs, since XMLDataset asks for no other suffix; so their pixels differ slightly from the PNGs'.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.data.ground_truth import GroundTruth
from experiments.data.readers import Box, Image
from experiments.data.readers.voc import ANNOTATIONS, IMAGES, list_files

GENERATOR_VERSION = 1  # increase it with every change that alters an image or an annotation
CLASSES = ("disc", "square", "triangle", "star")


class CocoLayout:
    """Instances JSON per split; ids counted from 1.

    Attributes:
        folders: Those that hold files, relative to the root.
    """

    folders = ("annotations", "train", "val")

    def image(self, split: str, index: int) -> str:
        """Return the path of an image; its suffix is its encoding."""
        return f"{split}/{index:06d}.png"

    def files(self, split: str, count: int) -> list[str]:
        """Return the paths of all files of a split of `count` images."""
        return [f"annotations/{split}.json", *(self.image(split, index) for index in range(count))]

    def write(self, root: Path, split: str, scenes: Sequence[Sequence[Box]], size: int) -> None:
        """Write a split's annotation files, for square images of `size` pixels ordered by index."""
        images = [
            Image(index, root / self.image(split, index), (size, size), list(boxes))
            for index, boxes in enumerate(scenes)
        ]
        truth = GroundTruth(images, list(CLASSES), {name: i for i, name in enumerate(CLASSES)}, digest="")
        info = {"description": "msdet shapes", "version": str(GENERATOR_VERSION)}
        content = {"info": info, **truth.numbered()}
        (root / f"annotations/{split}.json").write_text(json.dumps(content), encoding="utf-8")


class VocLayout:
    """One XML file per image, with VOC's coordinates: pixels counted from 1, the last one inclusive.

    MMDetection subtracts 1 from all four, so boxes are (x, y, x + w - 1, y + h - 1) where they are
    (x, y, x + w, y + h) in COCO format: centres differ by half a pixel, as with the real VOC.
    """

    folders = (IMAGES, ANNOTATIONS, "ImageSets/Main")

    def image(self, split: str, index: int) -> str:
        return f"{IMAGES}/{_id(split, index)}.jpg"

    def files(self, split: str, count: int) -> list[str]:
        return [f"ImageSets/Main/{split}.txt", *list_files([_id(split, index) for index in range(count)])]

    def write(self, root: Path, split: str, scenes: Sequence[Sequence[Box]], size: int) -> None:
        ids = [_id(split, index) for index in range(len(scenes))]
        for name, boxes in zip(ids, scenes):
            page = ElementTree.ElementTree(self._page(f"{name}.jpg", boxes, size))
            ElementTree.indent(page)
            page.write(root / ANNOTATIONS / f"{name}.xml", encoding="utf-8")
        listing = "".join(f"{name}\n" for name in ids)
        (root / f"ImageSets/Main/{split}.txt").write_text(listing, encoding="utf-8")

    def _page(self, name: str, boxes: Sequence[Box], size: int) -> ElementTree.Element:
        page = ElementTree.Element("annotation")
        _put(page, filename=name)
        _put(ElementTree.SubElement(page, "size"), width=size, height=size, depth=3)
        for box in boxes:
            thing = ElementTree.SubElement(page, "object")
            _put(thing, name=box.category, difficult=0)
            x, y, width, height = box.xywh
            corners = ElementTree.SubElement(thing, "bndbox")
            _put(corners, xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
        return page


def _id(split: str, index: int) -> str:
    return f"{split}_{index:06d}"


def _put(node: ElementTree.Element, **children: Any) -> None:
    for tag, text in children.items():
        ElementTree.SubElement(node, tag).text = str(text)

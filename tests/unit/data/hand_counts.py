"""What a data set holds, read anew from the rules: nothing here comes from the product's readers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2

Box = tuple[str, tuple[float, ...], bool]  # class, corners, whether it is neither learnt nor counted


def is_learnt(box: Box, size: tuple[int, int]) -> bool:
    """The rule, written anew: a pixel wide and high, and not wholly beside the image."""
    x1, y1, x2, y2 = box[1]
    return x2 - x1 >= 1 and y2 - y1 >= 1 and x1 < size[0] and y1 < size[1] and x2 > 0 and y2 > 0


def size_of(path: Path) -> tuple[int, int]:
    height, width = cv2.imread(str(path), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def coco_boxes(root: Path, split: str) -> list[tuple[Path, tuple[int, int], list[Box]]]:
    raw = (root / f"{split}.json").read_bytes()
    content = json.loads(raw.decode(json.detect_encoding(raw)))
    names = {c["id"]: c["name"].strip() for c in content["categories"]}
    by_image: list[tuple[Path, tuple[int, int], list[Box]]] = []
    for image in content["images"]:
        path = root / split / image["file_name"]
        annotated = (image.get("width") or 0, image.get("height") or 0)
        size = annotated if all(annotated) else size_of(path)
        boxes: list[Box] = []
        for entry in content["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, w, h = entry["bbox"]
                ignored = bool(entry.get("iscrowd") or entry.get("ignore"))
                boxes.append((names[entry["category_id"]], (x, y, x + w, y + h), ignored))
        by_image.append((path, size, boxes))
    return by_image


def voc_boxes(root: Path, split: str) -> list[tuple[Path, tuple[int, int], list[Box]]]:
    by_image: list[tuple[Path, tuple[int, int], list[Box]]] = []
    for line in (root / f"{split}.txt").read_text(encoding="utf-8-sig").splitlines():
        if name := line.strip():
            path = root / "JPEGImages" / f"{name}.jpg"
            tree = ElementTree.fromstring((root / "Annotations" / f"{name}.xml").read_bytes())
            width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
            boxes: list[Box] = []
            for node in tree.findall("object"):
                texts = [node.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
                corners = tuple(int(float(text)) - 1 for text in texts)
                label, flag = node.findtext("name") or "", node.findtext("difficult")
                boxes.append((label.strip(), corners, flag is not None and int(flag) != 0))
            by_image.append((path, (width, height) if width and height else size_of(path), boxes))
    return by_image

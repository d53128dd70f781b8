"""Data for the tests of training: built-in shapes, made once, and small sets of a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.data.shapes import generator as shapes
from experiments.recipes.loading import load_recipe

TRAIN_IMAGES, VAL_IMAGES = 48, 8


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.delenv("MSDET_RESULTS", raising=False)


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of the built-in data: each follows from its own number, so they are the same ones."""
    params = load_recipe("retinanet-r50-rlo", "tiny").dataset.generate
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, {**params, "train_images": TRAIN_IMAGES, "val_images": VAL_IMAGES})
    return root


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 99, np.uint8))


def write_coco(root: Path, images: str, boxes: dict[str, list[list[float]]], split: str) -> None:
    """`<root>/<split>.json` and its images below the folder `images`; boxes as [class id, x, y, w, h]."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    for image_id, (name, listed) in enumerate(boxes.items(), start=1):
        write_image(root / images / name)
        content["images"].append({"id": image_id, "file_name": name, "width": 64, "height": 48})
        for category, *box in listed:
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image_id, "category_id": category, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    (root / f"{split}.json").write_text(json.dumps(content))


def write_voc(root: Path, list_file: str, objects: dict[str, list[tuple]]) -> None:
    """A VOC folder with `ImageSets/Main/<list_file>.txt`; objects as (name, difficult, x1, y1, x2, y2)."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, listed in objects.items():
        write_image(root / "JPEGImages" / f"{name}.jpg")
        text = "<annotation><size><width>64</width><height>48</height><depth>3</depth></size>"
        for label, difficult, *box in listed:
            corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
            text += f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
        (root / "Annotations" / f"{name}.xml").write_text(text + "</annotation>")
    (root / "ImageSets" / "Main" / f"{list_file}.txt").write_text("".join(f"{name}\n" for name in objects))

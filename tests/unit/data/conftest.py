"""Small data sets in both formats, sound unless a test damages them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from experiments.data.spec import DatasetSpec

pytest.register_assert_rewrite("tests.unit.data.loading")

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"  # beside the repository, where it is there


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that no answer comes from an earlier run."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("MSDET_NO_CACHE", raising=False)
    return folder


@pytest.fixture
def real_coco() -> DatasetSpec:
    if not (REAL / "coco-mini").is_dir():
        pytest.skip(f"no real COCO images in {REAL / 'coco-mini'}")
    splits = {
        split: {"annotations": f"annotations/instances_{split}2017.json", "images": f"{split}2017"}
        for split in ("train", "val")
    }
    return DatasetSpec(name="coco-mini", format="coco", root=str(REAL / "coco-mini"), splits=splits)


@pytest.fixture
def real_voc() -> DatasetSpec:
    if not (REAL / "bccd").is_dir():
        pytest.skip(f"no real VOC images in {REAL / 'bccd'}")
    splits = {split: {"annotations": f"ImageSets/Main/{split}.txt"} for split in ("train", "val")}
    return DatasetSpec(name="bccd", format="voc", root=str(REAL / "bccd" / "BCCD"), splits=splits)


def write_image(path: Path, width: int = 40, height: int = 30) -> None:
    """Noise that no other file has: the same image twice is a problem."""
    seed = list(str(path).encode())
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


class CocoSet:
    """A COCO-format set of 3 + 2 images, 40 x 30 pixels; `write` after changing `content`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, dict[str, Any]] = {}
        for split, count in (("train", 3), ("val", 2)):
            (root / split).mkdir(parents=True)
            images = [
                {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, count + 1)
            ]
            for image in images:
                write_image(root / split / image["file_name"])
            boxes = [
                {
                    "id": i,
                    "image_id": i,
                    "category_id": 7 * i,
                    "bbox": [1, 2, 10, 20],
                    "area": 200,
                    "iscrowd": 0,
                }
                for i in (1, 2)
            ]
            categories = [{"id": 7, "name": "cat"}, {"id": 14, "name": "dog"}]
            self.content[split] = {"images": images, "annotations": boxes, "categories": categories}
        self.write()

    def path(self, split: str) -> Path:
        return self.root / f"{split}.json"

    def write(self) -> None:
        for split, content in self.content.items():
            self.path(split).write_text(json.dumps(content))

    def spec(self, **changes: Any) -> DatasetSpec:
        splits = {split: {"annotations": f"{split}.json", "images": split} for split in ("train", "val")}
        return DatasetSpec(
            **{"name": "mine", "format": "coco", "root": str(self.root), "splits": splits, **changes}
        )


class VocSet:
    """A VOC-format set of 3 + 2 images, 40 x 30 pixels."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("JPEGImages", "Annotations"):
            (root / folder).mkdir(parents=True)
        self.lists = {"train": ["a", "b", "c"], "val": ["d", "e"]}
        for split, ids in self.lists.items():
            (root / f"{split}.txt").write_text("\n".join(ids) + "\n")
            for name in ids:
                write_image(root / "JPEGImages" / f"{name}.jpg")
                self.write_xml(name, [("cat", (1, 2, 11, 22), 0), ("dog", (5, 5, 40, 30), 1)])

    def xml(self, name: str) -> Path:
        return self.root / "Annotations" / f"{name}.xml"

    def write_xml(
        self, name: str, objects: list[tuple[str, tuple[float, ...], int]], size: str = "40 30"
    ) -> None:
        width, height = size.split()
        lines = [f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
        for label, box, difficult in objects:
            corners = "".join(
                f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            lines.append(
                f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
            )
        self.xml(name).write_text("\n".join([*lines, "</annotation>"]))

    def spec(self, **changes: Any) -> DatasetSpec:
        splits = {split: {"annotations": f"{split}.txt"} for split in ("train", "val")}
        return DatasetSpec(
            **{"name": "mine", "format": "voc", "root": str(self.root), "splits": splits, **changes}
        )


@pytest.fixture
def coco_set(tmp_path: Path) -> CocoSet:
    return CocoSet(tmp_path / "coco-set")


@pytest.fixture
def voc_set(tmp_path: Path) -> VocSet:
    return VocSet(tmp_path / "voc-set")

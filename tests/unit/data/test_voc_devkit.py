"""The shipped `voc` data set on a small made-up VOCdevkit, against MMDetection's own VOC configuration."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
from mmengine import Config

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from experiments.recipes import catalogue

PART = "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{right}</xmax><ymax>40</ymax></bndbox></object>"  # noqa: E501


def devkit(root: Path, classes: list[str]) -> None:
    """All classes in VOC2007 trainval, the last one in VOC2012 trainval, the first one in VOC2007 test."""
    pages = {
        ("VOC2007", "trainval"): {"000005": classes[:12], "000007": classes[12:]},
        ("VOC2012", "trainval"): {"2008_000008": classes[-1:]},
        ("VOC2007", "test"): {"000001": classes[:1]},
    }
    for (year, listing), images in pages.items():
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / year / folder).mkdir(parents=True, exist_ok=True)
        (root / year / "ImageSets/Main" / f"{listing}.txt").write_text("".join(f"{i}\n" for i in images))
        for name, things in images.items():
            cv2.imwrite(str(root / year / "JPEGImages" / f"{name}.jpg"), np.full((48, 64, 3), 99, np.uint8))
            objects = "".join(PART.format(name=thing, right=50) for thing in things)
            size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
            page = f"<annotation>{size}{objects}</annotation>"
            (root / year / "Annotations" / f"{name}.xml").write_text(page)


@pytest.fixture
def voc() -> DatasetSpec:
    return catalogue.load_dataset("voc")


def test_it_is_found_and_sound(voc: DatasetSpec, tmp_path: Path) -> None:
    devkit(tmp_path / "VOCdevkit", voc.classes)
    found = find_dataset(voc, tmp_path / "VOCdevkit")
    assert found.classes == voc.classes
    assert found.images == {"train": 3, "val": 1}
    assert verify(voc, tmp_path / "VOCdevkit")["usable"]


def test_a_set_without_its_second_year_or_a_class_is_refused(voc: DatasetSpec, tmp_path: Path) -> None:
    devkit(tmp_path / "few", voc.classes[:-1])
    with pytest.raises(UserError, match="'tvmonitor' is not in"):
        find_dataset(voc, tmp_path / "few")
    devkit(tmp_path / "half", voc.classes)
    (tmp_path / "half" / "VOC2012").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"VOC2012/ImageSets/Main/trainval\.txt"):
        find_dataset(voc, tmp_path / "half")


def test_it_is_mmdetections_own_definition(voc: DatasetSpec) -> None:
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    stock = Config.fromfile(folder / "_base_/datasets/voc0712.py")
    repeated = stock.train_dataloader.dataset
    assert voc.root == stock.data_root.rstrip("/")
    assert voc.repeat == repeated.times
    for ours, theirs in zip(
        [*voc.splits["train"], *voc.splits["val"]],
        [*repeated.dataset.datasets, stock.val_dataloader.dataset],
        strict=True,
    ):
        assert ours.annotations == theirs.ann_file
        assert ours.images + "/" == theirs.data_prefix.sub_data_root
    assert {part.filter_cfg.bbox_min_size for part in repeated.dataset.datasets} == {voc.min_box_size}

    from mmdet.datasets import VOCDataset

    assert tuple(voc.classes) == VOCDataset.METAINFO["classes"]

"""The built-in data in VOC format: the same scenes as in COCO format, found, checked and made in the same way."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, VOCDataset
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.data.readers import Box, voc
from experiments.data.shapes import generator as shapes
from experiments.data.shapes.layouts import VocLayout
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from experiments.recipes import catalogue
from msdet_cli.app import app

SMALL = {"seed": 3, "train_images": 51, "val_images": 4, "size": 96, "min_side": 10, "max_side": 70}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`coco` and `voc` below it."""
    folder = tmp_path_factory.mktemp("both")
    for layout in ("coco", "voc"):
        shapes.generate(folder / layout, SMALL, layout=layout)
    return folder


def voc_spec(root: Path, **changes: object) -> DatasetSpec:
    page = catalogue.load_dataset("shapes-voc").model_dump()
    return DatasetSpec.model_validate({**page, "root": str(root), "generate": SMALL, **changes})


def instances(dataset: CocoDataset | VOCDataset) -> list[list[dict]]:
    dataset.full_init()
    return [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_mmdetection_reads_the_same_boxes_and_labels_from_both_formats(split: str, root: Path) -> None:
    options = {"lazy_init": True, "test_mode": True, "metainfo": {"classes": shapes.CLASSES}}
    coco = CocoDataset(
        data_root=str(root / "coco"),
        ann_file=f"annotations/{split}.json",
        data_prefix={"img": f"{split}/"},
        **options,
    )
    other = VOCDataset(
        data_root=str(root / "voc"),
        ann_file=f"ImageSets/Main/{split}.txt",
        data_prefix={"sub_data_root": ""},
        **options,
    )
    images, others = instances(coco), instances(other)
    assert len(images) == len(others) == SMALL[f"{split}_images"]
    assert sum(map(len, images)) > SMALL[f"{split}_images"]
    for one, two in zip(images, others):
        assert [thing["bbox_label"] for thing in one] == [thing["bbox_label"] for thing in two]
        assert not any(thing["ignore_flag"] for thing in two)
        for a, b in zip(one, two):
            # the last pixel is inside in VOC's convention, the first one outside in COCO's
            assert np.subtract(a["bbox"], b["bbox"]).tolist() == [0, 0, 1, 1]


def test_coordinates_count_from_one_and_include_the_last_pixel(tmp_path: Path) -> None:
    layout = VocLayout()
    for folder in layout.folders:
        (tmp_path / folder).mkdir(parents=True)
    # column 7 and rows 0..2 of an 8 pixel image
    layout.write(tmp_path, "val", [[Box("square", (7, 0, 1, 3), 3)], []], 8)
    assert (tmp_path / "ImageSets/Main/val.txt").read_text() == "val_000000\nval_000001\n"
    page = ElementTree.parse(tmp_path / "Annotations/val_000000.xml").getroot()
    assert [corner.text for corner in page.findall("object/bndbox/*")] == ["8", "1", "8", "3"]
    assert page.findtext("object/name") == "square"
    assert ElementTree.parse(tmp_path / "Annotations/val_000001.xml").getroot().find("object") is None


def test_the_images_are_the_same_but_for_the_jpegs_loss(root: Path) -> None:
    for split in shapes.SPLITS:
        png = cv2.imread(str(root / "coco" / split / "000002.png")).astype(int)
        jpeg = cv2.imread(str(root / "voc" / "JPEGImages" / f"{split}_000002.jpg")).astype(int)
        assert png.shape == jpeg.shape
        assert np.abs(png - jpeg).mean() < 5 < np.abs(png - png[:, ::-1]).mean()


def test_it_is_found_made_and_verified_as_the_other_is(tmp_path: Path) -> None:
    spec = voc_spec(tmp_path / "set")
    promised = find_dataset(spec, generate=False)
    assert not (tmp_path / "set").exists()
    made = find_dataset(spec)
    assert made == promised
    assert find_dataset(spec) == made
    assert made.classes == list(shapes.CLASSES)
    assert made.images == {"train": 51, "val": 4}
    found = verify(spec)
    assert found["usable"]
    assert not any(content["problems"] for content in found["splits"].values())
    assert found["splits"]["train"]["images_without_boxes"] == 1  # every 50th
    coco = shapes.compute_fingerprint(SMALL)
    assert made.fingerprint == shapes.compute_fingerprint(SMALL, "voc") != coco


@pytest.mark.parametrize(
    "lost", ["JPEGImages/val_000003.jpg", "Annotations/val_000003.xml", "ImageSets/Main/train.txt"]
)
def test_a_set_that_lacks_a_file_is_not_current(lost: str, tmp_path: Path) -> None:
    few = {**SMALL, "train_images": 2}
    shapes.generate(tmp_path / "set", few, layout="voc")
    assert shapes.is_current(tmp_path / "set", few, "voc")
    (tmp_path / "set" / lost).unlink()
    assert not shapes.is_current(tmp_path / "set", few, "voc")
    with pytest.raises(UserError, match="or not all of them"):
        find_dataset(voc_spec(tmp_path / "set", generate=few))


def test_the_two_formats_do_not_take_each_others_place(tmp_path: Path) -> None:
    few = {**SMALL, "train_images": 2}
    shapes.generate(tmp_path / "set", few)
    assert not shapes.is_current(tmp_path / "set", few, "voc")
    with pytest.raises(UserError, match="another format"):
        shapes.generate(tmp_path / "set", few, layout="voc")
    shapes.generate(tmp_path / "set", few, layout="voc", force=True)
    assert shapes.is_current(tmp_path / "set", few, "voc")
    assert not (tmp_path / "set" / "annotations").exists()


def test_a_few_images_that_lack_a_shape_still_have_all_classes(tmp_path: Path) -> None:
    few = {**SMALL, "train_images": 1, "val_images": 6}
    found = find_dataset(voc_spec(tmp_path / "set", generate=few))
    met = {box.category for box in voc.read_xml(next((tmp_path / "set").glob("Annotations/train*")))[1]}
    assert len(met) < len(found.classes) == len(shapes.CLASSES)


def test_the_data_commands_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = catalogue.list_pages("dataset")["shapes-voc"].read_text()
    page = page.replace("train_images: 400", "train_images: 12").replace("val_images: 150", "val_images: 2")
    Path("few.yaml").write_text(page)
    runner = CliRunner()
    listed = runner.invoke(app, ["data", "ls"]).output
    assert "shapes-voc" in listed and "voc" in listed
    made = runner.invoke(app, ["data", "make", "few.yaml"])
    assert made.exit_code == 0 and "12 train, 2 val images, 4 classes" in made.output
    checked = runner.invoke(app, ["data", "verify", "few.yaml"])
    assert checked.exit_code == 0 and "VOC format" in checked.output

"""The training sets of msdet against MMDetection's own, and refused sets with nothing left to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope

from experiments.data.find import FoundDataset, find_dataset
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from experiments.recipes.loading import load_recipe
from experiments.training.config.builder import build_config
from experiments.training.config.data import walk_innermost
from experiments.training.datasets import AnnotatedCocoDataset
from tests.unit.data.conftest import CocoSet, VocSet
from tests.unit.data.loading import (
    boxes,
    evaluation_set,
    infos,
    random_detections,
    refusal,
    training_set,
)

from mmdet.datasets import CocoDataset, VOCDataset  # isort: skip

STOCK_MIN_SIZE = 32  # pixels, of an image's side, in MMDetection's configs

Info = tuple[str, Any, int, int, list[tuple[Any, int, int]]]


def as_rows(dataset: Any) -> list[Info]:
    """Path, id, width, height, and each box with its label and flag, in order."""
    return [
        (str(Path(info["img_path"])), info["img_id"], info["width"], info["height"],
         [(tuple(box["bbox"]), box["bbox_label"], box["ignore_flag"]) for box in info["instances"]])
        for info in infos(dataset)
    ]  # fmt: skip


def stock(found: FoundDataset, split: str, min_box_size: int | None = 1) -> list[Info]:
    """The same by MMDetection's own class, with the settings of its configs."""
    rows = []
    for part in found.spec.splits[split]:  # type: ignore[index]
        options: dict[str, Any] = dict(
            data_root=str(found.root), ann_file=part.annotations, metainfo=dict(classes=tuple(found.classes)),
            pipeline=[], test_mode=split == "val", serialize_data=False,
        )  # fmt: skip
        if split == "train":
            options["filter_cfg"] = dict(filter_empty_gt=True, min_size=STOCK_MIN_SIZE)
        if found.spec.format == "coco":
            dataset = CocoDataset(data_prefix=dict(img=part.images), **options)
        else:
            if split == "train":
                options["filter_cfg"]["bbox_min_size"] = min_box_size
            dataset = VOCDataset(data_prefix=dict(sub_data_root=part.images), **options)
        rows += as_rows(dataset)
    return rows


def without_empty(rows: list[Info]) -> list[Info]:
    """MMDetection keeps VOC boxes without width or height as boxes that are not learnt."""
    return [
        (*row[:4], [box for box in row[4] if box[0][2] > box[0][0] and box[0][3] > box[0][1]]) for row in rows
    ]


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("direction", ["none", "horizontal", "vertical", "diagonal"])
def test_the_pipeline_makes_the_pixels_and_boxes_that_mmdetections_makes(
    direction: str, is_float: bool, coco_set: CocoSet
) -> None:
    init_default_scope("mmdet")
    pipeline = [
        dict(type="LoadImageFromFile", to_float32=is_float),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="Resize", scale=(133, 80), keep_ratio=True),
        *([] if direction == "none" else [dict(type="RandomFlip", prob=1.0, direction=direction)]),
        dict(type="PackDetInputs"),
    ]
    options: dict[str, Any] = dict(
        data_root=str(coco_set.root), ann_file="train.json", data_prefix=dict(img="train/"),
        metainfo=dict(classes=("cat", "dog")), filter_cfg=dict(filter_empty_gt=True), pipeline=pipeline,
    )  # fmt: skip
    for stock, ours in zip(CocoDataset(**options), AnnotatedCocoDataset(**options), strict=True):
        assert torch.equal(stock["inputs"], ours["inputs"]) and ours["inputs"].is_contiguous()
        expected, found = stock["data_samples"], ours["data_samples"]
        assert {**found.metainfo, "img_path": ""} == {**expected.metainfo, "img_path": ""}
        assert Path(found.img_path) == Path(expected.img_path)
        for name in ("gt_instances", "ignored_instances"):
            a, b = expected.get(name), found.get(name)
            assert torch.equal(a.bboxes.tensor, b.bboxes.tensor) and torch.equal(a.labels, b.labels)
        assert len(found.gt_instances) == 1


def test_clean_coco_is_read_as_mmdetection_reads_it(coco_set: CocoSet) -> None:
    for split, content in coco_set.content.items():
        for number, image in enumerate(content["images"]):
            image.update(width=320 + number, height=240)
        extra = [{"id": 50 + i, "image_id": 1, "category_id": 14, "bbox": [i, 2.5, 30.25, 9], "area": 200,
                  "iscrowd": i % 2} for i in range(4)]  # fmt: skip
        content["annotations"] = [*reversed(content["annotations"]), *extra]
        if split == "train":
            content["categories"].reverse()
            content["images"].reverse()
    coco_set.content["val"]["categories"].reverse()
    coco_set.write()
    found = find_dataset(coco_set.spec(min_image_size=STOCK_MIN_SIZE))
    for split, dataset in (("train", training_set(found)), ("val", evaluation_set(found))):
        rows = as_rows(dataset)
        assert rows == stock(found, split) and sum(len(row[4]) for row in rows) == 6


@pytest.mark.parametrize("min_box_size", [1, 12])
def test_clean_voc_is_read_as_mmdetection_reads_it(min_box_size: int, voc_set: VocSet) -> None:
    for number, name in enumerate("abcde"):
        things = [
            ("cat", (1 + number, 2, 31.7, 22), 0),
            ("dog", (5, 5, 40, 30), 1),
            ("cat", (5, 5, 9, 40), 0),
        ]
        voc_set.write_xml(name, things, size="320 240")
    (voc_set.root / "train.txt").write_text("c\na\nb\n")
    found = find_dataset(voc_set.spec(min_image_size=STOCK_MIN_SIZE, min_box_size=min_box_size))
    for split, dataset in (("train", training_set(found)), ("val", evaluation_set(found))):
        rows = as_rows(dataset)
        assert rows == stock(found, split, min_box_size)
        assert sum(len(row[4]) for row in rows) == {"train": 9, "val": 6}[split]
    assert boxes(infos(training_set(found))) == (6 if min_box_size == 1 else 3)


def test_real_coco_is_read_as_mmdetection_reads_it(real_coco: DatasetSpec) -> None:
    for classes in ([], ["person", "dog"]):
        found = find_dataset(
            real_coco.model_copy(update={"min_image_size": STOCK_MIN_SIZE, "classes": classes})
        )
        train, val = as_rows(training_set(found)), as_rows(evaluation_set(found))
        assert train == stock(found, "train") and val == stock(found, "val")
        told = verify(found.spec, read_images=False)["splits"]
        for split, rows in (("train", train), ("val", val)):
            learnt = sum(flag == 0 for row in rows for _, _, flag in row[4])
            assert learnt == told[split]["boxes"] > 0
        assert len(train) == told["train"]["images"] - told["train"]["images_without_boxes"]


def test_real_voc_is_read_as_mmdetection_reads_it(real_voc: DatasetSpec) -> None:
    """Apart from one empty box in each split, which MMDetection keeps as one that is not learnt."""
    found = find_dataset(real_voc.model_copy(update={"min_image_size": STOCK_MIN_SIZE}))
    train = as_rows(training_set(found))
    assert train == without_empty(stock(found, "train"))
    assert as_rows(evaluation_set(found)) == stock(found, "val")
    told = verify(found.spec, read_images=False)["splits"]["train"]
    learnt = sum(flag == 0 for row in train for _, _, flag in row[4])
    assert learnt == told["boxes"] - told["problems"]["empty box"]["count"]


def test_the_models_own_data_set_leaves_no_rule_behind(coco_set: CocoSet) -> None:
    """MMDetection's VOC config leaves out boxes under 32 pixels, which its COCO data set does not know."""
    found = find_dataset(coco_set.spec())
    page = load_recipe("retinanet-r50-voc", "tiny").model_copy(update={"dataset": found.spec})
    config = build_config(page, found.classes, found.root, Path("run"))
    (part,) = walk_innermost(config.train_dataloader.dataset)
    assert part.filter_cfg == dict(filter_empty_gt=True, min_size=0)
    assert "times" not in config.train_dataloader.dataset


# Nothing left


NOTHING: list[tuple[str, dict[str, Any], str]] = [
    ("train", {"ignore": 1}, "no boxes to train on: 2 ignore"),
    ("train", {"iscrowd": 1}, "no boxes to train on: 2 crowd"),
    ("train", {"bbox": [50, 50, 9, 9]}, "no boxes to train on: 2 box wholly outside"),
    ("train", {"bbox": [5, 5, 0, 9]}, "no boxes to train on: 2 empty box"),
    ("train", {"bbox": [5, 5, 0.5, 9]}, "no boxes to train on: 2 box under 1 pixel"),
    ("val", {"ignore": 1}, "no boxes to evaluate: 2 ignore"),
    ("val", {"iscrowd": 1}, "no boxes to evaluate: 2 crowd"),
    ("val", {"bbox": [5, 5, 0, 9]}, "no boxes to evaluate: 2 empty box"),
]


@pytest.mark.parametrize(("split", "change", "message"), NOTHING)
def test_nothing_left_is_refused_with_the_reason(
    split: str, change: dict[str, Any], message: str, coco_set: CocoSet
) -> None:
    for entry in coco_set.content[split]["annotations"]:
        entry.update(change)
    coco_set.write()
    assert f"{coco_set.path(split)}: holds {message}" in refusal(coco_set.spec())
    coco_set.content[split]["annotations"] = []
    coco_set.write()
    assert f"{coco_set.path(split)}: holds {message.split(':')[0]}" in refusal(coco_set.spec())


@pytest.mark.parametrize("split", ["train", "val"])
def test_nothing_left_in_voc_is_refused_with_the_reason(split: str, voc_set: VocSet) -> None:
    for name in voc_set.lists[split]:
        voc_set.write_xml(name, [("cat", (1, 2, 11, 22), 1), ("dog", (5, 5, 5, 9), 0)])
    text = refusal(voc_set.spec())
    what = "no boxes to train on" if split == "train" else "no boxes to evaluate"
    assert what in text and f"{len(voc_set.lists[split])} difficult" in text and "empty box" in text
    for name in voc_set.lists[split]:
        voc_set.write_xml(name, [])
    assert what in refusal(voc_set.spec())


def test_no_object_of_the_classes_in_the_validation_set_is_refused(
    coco_set: CocoSet, voc_set: VocSet
) -> None:
    coco_set.content["val"]["annotations"] = coco_set.content["val"]["annotations"][:1]
    coco_set.write()
    assert "no boxes to evaluate: 1 of another class" in refusal(coco_set.spec(classes=["dog"]))
    for name in voc_set.lists["train"]:
        voc_set.write_xml(name, [("dog", (1, 2, 11, 22), 0)])
    assert "no boxes to evaluate: " in refusal(voc_set.spec(classes=["dog"]))
    assert random_detections(find_dataset(coco_set.spec()))

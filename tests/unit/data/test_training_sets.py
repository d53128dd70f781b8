"""What msdet trains on, against MMDetection's own data sets; and what every key of a data set's page does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.data.spec import DatasetSpec, SplitPart
from experiments.data.verify import verify
from experiments.recipes.loading import load_recipe
from experiments.training.config.builder import build_config
from experiments.training.config.data import innermost
from tests.unit.data.conftest import CocoSet, VocSet
from tests.unit.data.loading import (
    assert_trains_on,
    boxes,
    config_of,
    evaluated,
    evaluation_set,
    infos,
    kinds,
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
    (part,) = innermost(config.train_dataloader.dataset)
    assert part.filter_cfg == dict(filter_empty_gt=True, min_size=0)
    assert "times" not in config.train_dataloader.dataset


# Every key of a page


def key_name(coco_set: CocoSet, voc_set: VocSet) -> None:
    assert "data set 'other'" in refusal(coco_set.spec(name="other", root="nowhere"))
    coco_set.content["val"]["annotations"][0]["area"] = 0
    coco_set.write()
    found = find_dataset(coco_set.spec(name="other"))
    assert "'other'" in str(found.warning()) and verify(found.spec)["name"] == "other"
    assert found.fingerprint == find_dataset(coco_set.spec()).fingerprint


def key_format(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given in (coco_set, voc_set):
        spec = given.spec()
        other = "voc" if spec.format == "coco" else "coco"
        assert verify(spec)["format"] == spec.format
        refusal(given.spec(format=other))
        evaluator = config_of(find_dataset(spec)).val_evaluator.type
        assert evaluator == {"coco": "ExactCocoMetric", "voc": "ExactVocMetric"}[spec.format]


def key_root(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given in (coco_set, voc_set):
        found = find_dataset(given.spec(root="nowhere"), given.root)
        for dataset in (training_set(found), evaluation_set(found)):
            assert all(info["img_path"].startswith(f"{given.root}/") for info in infos(dataset))
        assert verify(given.spec(root="nowhere"), given.root) == verify(given.spec())
        assert "no such folder" in refusal(given.spec(root="nowhere"))


def key_splits(coco_set: CocoSet, voc_set: VocSet) -> None:
    """Parts, their order, and their folders of images: learnt, evaluated and counted are all of them."""
    second = VocSet(voc_set.root / "more")
    second.write_xml("a", [("cat", (3, 3, 20, 20), 0)] * 2)
    second.write_xml("d", [("cat", (4, 4, 20, 20), 0)])
    splits = {
        s: [{"annotations": f"more/{s}.txt", "images": "more/"}, {"annotations": f"{s}.txt"}]
        for s in ("train", "val")
    }
    found = assert_trains_on(voc_set.spec(splits=splits), images=6, learnt=7, ignored=5, same_box_twice=1)
    assert found.images == {"train": 6, "val": 4}
    assert [info["img_id"] for info in infos(evaluation_set(found))] == ["more/d", "more/e", "d", "e"]
    told = verify(found.spec)["splits"]
    assert [told[split]["boxes"] for split in ("train", "val")] == [7, 4]
    one = find_dataset(voc_set.spec())
    assert found.fingerprint != one.fingerprint
    perfect = [
        [(b["bbox"], 0.9, b["bbox_label"]) for b in i["instances"]] for i in infos(evaluation_set(found))
    ]
    half = [listed if number < 2 else [] for number, listed in enumerate(perfect)]
    scores = [evaluated(found, given, voc_set.root / "val")["mAP"] for given in (perfect, half)]
    assert scores[0] == pytest.approx(100) and scores[1] < 60
    (coco_set.root / "train").rename(coco_set.root / "pictures")
    part = {"annotations": "train.json", "images": "pictures/"}
    spec = coco_set.spec(splits={"train": part, "val": {"annotations": "val.json", "images": "val"}})
    assert_trains_on(spec, images=2, learnt=2)
    with pytest.raises(ValueError, match="one annotation file a split"):
        coco_set.spec(splits={"train": [part, part], "val": part})


def key_classes(coco_set: CocoSet, voc_set: VocSet) -> None:
    """Their objects alone are learnt, counted and evaluated; VOC numbers them as the page does."""
    found = assert_trains_on(coco_set.spec(classes=["dog"]), images=1, learnt=1)
    assert found.classes == ["dog"]
    told = verify(found.spec)["splits"]["train"]
    assert told["classes"] == {"dog": 1} and told["other_classes"] == {"cat": 1}
    exact = [
        [(b["bbox"], 0.9, b["bbox_label"]) for b in i["instances"]] for i in infos(evaluation_set(found))
    ]
    assert [len(listed) for listed in exact] == [0, 1]
    assert evaluated(found, exact, coco_set.root / "kept")["AP"] == pytest.approx(100)
    found = assert_trains_on(voc_set.spec(classes=["dog", "cat"]), images=3, learnt=3, ignored=3)
    assert found.classes == ["dog", "cat"]
    assert {
        b["bbox_label"] for i in infos(training_set(found)) for b in i["instances"] if not b["ignore_flag"]
    } == {1}
    assert_trains_on(voc_set.spec(classes=["cat"]), images=3, learnt=3)
    assert "'cow' is not in" in refusal(voc_set.spec(classes=["cow"]))


def key_repeat(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given, count in ((coco_set, 2), (voc_set, 3)):
        found = find_dataset(given.spec(repeat=4))
        config = config_of(found)
        assert len(training_set(found)) == 4 * count
        assert config.val_dataloader.dataset.type.startswith("Annotated") and len(evaluation_set(found)) == 2
        assert found.images == find_dataset(given.spec()).images


def key_min_box_size(coco_set: CocoSet, voc_set: VocSet) -> None:
    """Smaller boxes are marked as not to be learnt, in training alone."""
    coco_set.content["train"]["annotations"][0]["bbox"] = [1, 2, 9.5, 20]
    coco_set.content["val"]["annotations"][0]["bbox"] = [1, 2, 9.5, 20]
    coco_set.write()
    voc_set.write_xml("a", [("cat", (1, 2, 10, 22), 0)])
    assert_trains_on(coco_set.spec(), images=2, learnt=2)
    for given, images, learnt, ignored in ((coco_set, 2, 1, 1), (voc_set, 3, 2, 3)):
        spec = given.spec(min_box_size=10)
        found = assert_trains_on(
            spec, images=images, learnt=learnt, ignored=ignored, box_under_min_box_size=1
        )
        assert boxes(infos(evaluation_set(found))) == 2 and kinds(spec, "val") == {}
        exact = [
            [(b["bbox"], 0.9, b["bbox_label"]) for b in i["instances"]] for i in infos(evaluation_set(found))
        ]
        assert next(iter(evaluated(found, exact, given.root / "kept").values())) == pytest.approx(100)
    assert "no boxes to train on: 2 box under min_box_size" in refusal(coco_set.spec(min_box_size=30))
    assert "no boxes to train on" in refusal(voc_set.spec(min_box_size=30))


def key_min_image_size(coco_set: CocoSet, voc_set: VocSet) -> None:
    """Smaller images are left out, in training alone."""
    coco_set.content["train"]["images"][0]["height"] = 29
    coco_set.write()
    found = find_dataset(coco_set.spec(min_image_size=30))
    assert (
        found.problems["train"]
        == kinds(found.spec)
        == {"image size differs": 1, "image under min_image_size": 1}
    )
    listed = infos(training_set(found))
    assert [info["img_id"] for info in listed] == [2] and boxes(listed) == 1
    assert len(evaluation_set(found)) == 2
    assert found.fingerprint != find_dataset(coco_set.spec()).fingerprint
    for given in (coco_set, voc_set):
        assert "under min_image_size" in refusal(given.spec(min_image_size=31))
    assert_trains_on(voc_set.spec(min_image_size=30), images=3, learnt=3, ignored=3)


def key_generate(coco_set: CocoSet, voc_set: VocSet) -> None:
    small = {"train_images": 3, "val_images": 2, "size": 64, "max_side": 50}
    splits = {
        "coco": {s: {"annotations": f"annotations/{s}.json", "images": s} for s in ("train", "val")},
        "voc": {s: {"annotations": f"ImageSets/Main/{s}.txt"} for s in ("train", "val")},
    }
    for kind, of_kind in splits.items():
        root = str(coco_set.root / f"made-{kind}")
        spec = DatasetSpec(name="dots", format=kind, root=root, splits=of_kind, generate=small)  # type: ignore[arg-type]
        found = find_dataset(spec)
        assert found.images == {"train": 3, "val": 2} and len(training_set(found)) == 3
        assert len(evaluation_set(found)) == 2 and verify(spec)["usable"]


KEYS: dict[str, Callable[[CocoSet, VocSet], None]] = {
    name.removeprefix("key_"): case for name, case in globals().items() if name.startswith("key_")
}


@pytest.mark.parametrize("key", DatasetSpec.model_fields)
def test_every_key_of_a_page_is_used_everywhere(key: str, coco_set: CocoSet, voc_set: VocSet) -> None:
    KEYS[key](coco_set, voc_set)


def test_the_keys_of_a_part_are_those_that_these_tests_know() -> None:
    assert set(SplitPart.model_fields) == {"annotations", "images"}
    assert set(KEYS) == set(DatasetSpec.model_fields)


@pytest.mark.parametrize("change", [{"min_box_size": 30}, {"min_image_size": 31}, {"classes": ["cat"]}])
def test_a_changed_page_is_not_answered_from_memory(change: dict[str, Any], voc_set: VocSet) -> None:
    for path in [voc_set.root, *voc_set.root.rglob("*")]:
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)  # what changed just now is not remembered
    first = find_dataset(voc_set.spec())
    try:
        assert find_dataset(voc_set.spec(**change)) != first
    except UserError as error:
        assert "no boxes to train on" in error.message


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

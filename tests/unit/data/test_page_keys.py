"""Every key of a data set's page, in training, evaluation, verification and the messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.data.spec import DatasetSpec, SplitPart
from experiments.data.verify import verify
from tests.unit.data.conftest import CocoSet, VocSet
from tests.unit.data.loading import (
    assert_trains_on,
    boxes,
    config_of,
    evaluated,
    evaluation_set,
    infos,
    kinds,
    refusal,
    training_set,
)


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

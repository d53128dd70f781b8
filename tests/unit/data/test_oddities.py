"""Annotations as people have them. What is accepted is trained on as counted by hand; the rest is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from experiments.data.find import find_dataset
from tests.unit.data.conftest import CocoSet, VocSet, write_image
from tests.unit.data.loading import assert_trains_on, kinds, refusal

Harm = Callable[[dict[str, Any]], Any]
DIGITS = 10**400


def box(**changes: Any) -> Harm:
    """Change the first annotation; None takes a key away."""
    return lambda content: content["annotations"][0].update(changes)


def without(section: str, key: str) -> Harm:
    return lambda content: content[section][0].pop(key, None)


def image(**changes: Any) -> Harm:
    return lambda content: content["images"][0].update(changes)


def another(**changes: Any) -> Harm:
    """Add an annotation to the first image, a cat with corners (1, 2) and (11, 22) unless changed."""
    entry = {"id": 9, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20], "area": 200, **changes}
    return lambda content: content["annotations"].append(entry)


# By hand: 3 images, the third without boxes; a cat on the first, a dog on the second.
ACCEPTED: dict[str, tuple[Harm, dict[str, int]]] = {
    "area 0": (box(area=0), {"box_without_area": 1}),
    "area null": (box(area=None), {"box_without_area": 1}),
    "area missing": (without("annotations", "area"), {"box_without_area": 1}),
    "area negative": (box(area=-4.0), {"box_without_area": 1}),
    "area 0 everywhere": (
        lambda c: [entry.update(area=0) for entry in c["annotations"]],
        {"box_without_area": 2},
    ),
    "ignore 1": (box(ignore=1), {"learnt": 1, "ignored": 1, "box_marked_ignore": 1}),
    "ignore true": (box(ignore=True), {"learnt": 1, "ignored": 1, "box_marked_ignore": 1}),
    "ignore 0": (box(ignore=0), {}),
    "iscrowd 1": (box(iscrowd=1), {"learnt": 1, "ignored": 1}),
    "iscrowd true": (box(iscrowd=True), {"learnt": 1, "ignored": 1}),
    "iscrowd 1.0": (box(iscrowd=1.0), {"learnt": 1, "ignored": 1}),
    "iscrowd null": (box(iscrowd=None), {}),
    "iscrowd missing": (without("annotations", "iscrowd"), {}),
    "both": (box(iscrowd=1, ignore=1), {"learnt": 1, "ignored": 1}),
    "a crowd alone keeps its image": (
        lambda c: c["annotations"].append({**c["annotations"][0], "id": 5, "image_id": 3, "iscrowd": 1}),
        {"images": 3, "ignored": 1},
    ),
    "size 0 x 0": (image(width=0, height=0), {"image_without_size": 1}),
    "size null": (image(width=None, height=None), {"image_without_size": 1}),
    "height missing": (without("images", "height"), {"image_without_size": 1}),
    "whole numbers as floats": (image(width=40.0, height=30.0), {}),
    "width and height swapped": (
        lambda c: (image(width=30, height=40)(c), another(bbox=[31, 2, 5, 9])(c)),
        {"image_size_differs": 1, "box_wholly_outside": 1},
    ),
    "no width": (another(bbox=[5, 5, 0, 9]), {"empty_box": 1}),
    "negative height": (another(bbox=[5, 5, 9, -9]), {"empty_box": 1}),
    "half a pixel wide": (another(bbox=[5, 5, 0.5, 9]), {"box_under_1_pixel": 1}),
    "right of the image": (another(bbox=[40, 5, 9, 9]), {"box_wholly_outside": 1}),
    "left of the image": (another(bbox=[-9, 5, 9, 9]), {"box_wholly_outside": 1}),
    "half outside": (another(bbox=[35, 5, 9, 9]), {"learnt": 3, "box_partly_outside": 1}),
    "a billion pixels wide": (
        another(bbox=[0, 0, 1e9, 1e9], area=1e18),
        {"learnt": 3, "box_partly_outside": 1},
    ),
    "the same box twice": (another(), {"learnt": 3, "same_box_twice": 1}),
    "the same box three times": (
        lambda c: (another()(c), another(id=10)(c)),
        {"learnt": 4, "same_box_twice": 2},
    ),
    "the same place, another class": (another(category_id=14), {"learnt": 3}),
    "annotation id 0": (box(id=0), {"unusual_id": 1}),
    "annotation id of 400 digits": (box(id=DIGITS), {"unusual_id": 1}),
    "image id negative": (lambda c: (image(id=-5)(c), box(image_id=-5)(c)), {"unusual_id": 1}),
    "image id of 400 digits": (lambda c: (image(id=DIGITS)(c), box(image_id=DIGITS)(c)), {"unusual_id": 1}),
    "over 100 objects in training": (
        lambda c: [another(id=100 + i, bbox=[i / 8, 3, 9, 20])(c) for i in range(1, 101)],
        {"learnt": 102},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_in_coco_is_trained_on_as_counted(name: str, coco_set: CocoSet) -> None:
    harm, counts = ACCEPTED[name]
    harm(coco_set.content["train"])
    coco_set.write()
    assert_trains_on(coco_set.spec(), **{"images": 2, "learnt": 2, **counts})


def numbers(*values: Any) -> list[Any]:
    return [*values, "5", True, float("nan"), float("inf"), DIGITS, [1], {}]


REFUSED: list[tuple[str, str, list[Any]]] = [
    ("annotations", "iscrowd", ["0", "1", "", 2, -1, 0.5, [], {}, float("nan"), DIGITS]),
    ("annotations", "ignore", ["0", "1", 2, [], DIGITS]),
    ("annotations", "area", numbers("")),
    ("annotations", "bbox", numbers(None, 5, [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, None], [1, 2, 3, True],
                                    [1, 2, 3, float("nan")], [1, 2, float("inf"), 4], [1, 2, 3, DIGITS])),
    ("annotations", "id", [None, "1", 1.0, True, []]),
    ("annotations", "image_id", [None, "1", 1.0, True, {}]),
    ("annotations", "category_id", [None, "7", 7.0, True]),
    ("images", "id", [None, "1", 1.0, True]),
    ("images", "width", numbers("", -1, 40.5)),
    ("images", "height", numbers("", -1, 30.5)),
    ("images", "file_name", [None, 5, "", "  ", "a\0b.png", "\ud800.png", ["1.png"]]),
    ("categories", "id", [None, "7", 7.0, True]),
    ("categories", "name", [None, 5, True, "", "  ", "\n", ["cat"], "\ud800"]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "values"), REFUSED, ids=[f"{r[0]}.{r[1]}" for r in REFUSED])
def test_a_wrong_type_is_refused_with_file_entry_and_field(
    section: str, key: str, values: list[Any], coco_set: CocoSet
) -> None:
    entry = coco_set.content["train"][section][0]
    for value in values:
        coco_set.path("train").write_text(
            json.dumps({**coco_set.content["train"], section: [{**entry, key: value}]})
        )
        text = refusal(coco_set.spec())
        for part in (f"{coco_set.path('train')}: ", f"{section}[0]: ", key):
            assert part in text, (value, text)


NUMBERS = [
    ("images", "id"), ("images", "width"), ("images", "height"), ("annotations", "id"), ("annotations", "image_id"),
    ("annotations", "category_id"), ("annotations", "area"), ("annotations", "iscrowd"), ("annotations", "ignore"),
    ("annotations", "bbox"), ("categories", "id"), ("categories", "name"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key"), NUMBERS)
def test_thousands_of_digits_are_refused(section: str, key: str, coco_set: CocoSet) -> None:
    coco_set.content["train"][section][0][key] = "HERE"
    coco_set.write()
    text = coco_set.path("train").read_text()
    for spelling in ("9" * 5000, "-" + "9" * 5000, "[" + "9" * 5000 + "]"):
        coco_set.path("train").write_text(text.replace('"HERE"', spelling))
        assert str(coco_set.path("train")) in refusal(coco_set.spec())


def test_ids_of_400_digits_that_lead_nowhere_are_refused(coco_set: CocoSet) -> None:
    for key in ("image_id", "category_id"):
        entry = {**coco_set.content["train"]["annotations"][0], key: DIGITS}
        content = {**coco_set.content["train"], "annotations": [entry]}
        coco_set.path("train").write_text(json.dumps(content))
        assert f"annotation 1: {key} {str(DIGITS)[:10]}" in refusal(coco_set.spec())


# Names of classes


def rename(coco_set: CocoSet, name: Any, index: int = 0, splits: tuple[str, ...] = ("train", "val")) -> None:
    for split in splits:
        coco_set.content[split]["categories"][index]["name"] = name
    coco_set.write()


def test_spaces_around_a_name_are_no_part_of_it(coco_set: CocoSet, voc_set: VocSet) -> None:
    rename(coco_set, " cat\t\n", splits=("train",))
    assert find_dataset(coco_set.spec()).classes == ["cat", "dog"]
    assert_trains_on(coco_set.spec(classes=[" cat "]), images=1, learnt=1)
    voc_set.xml("a").write_text(voc_set.xml("a").read_text().replace(">cat<", ">\n  cat \t<"))
    assert find_dataset(voc_set.spec()).classes == ["cat", "dog"]
    assert_trains_on(voc_set.spec(classes=["cat "]), images=3, learnt=3)


def test_two_categories_of_one_name_are_refused(coco_set: CocoSet) -> None:
    rename(coco_set, " dog ")
    assert "categories: 'dog' is the name of two" in refusal(coco_set.spec())


def test_names_that_differ_only_in_case_or_spaces_are_warned_of(coco_set: CocoSet, voc_set: VocSet) -> None:
    rename(coco_set, "DOG")
    for split in ("train", "val"):
        assert kinds(coco_set.spec(), split) == {"class names alike": 1}
    assert "class name alike but for case" in str(find_dataset(coco_set.spec()).warning())
    text = voc_set.xml("a").read_text()
    voc_set.xml("a").write_text(text.replace(">cat<", ">Cat<"))
    assert kinds(voc_set.spec()) == {"class names alike": 1}


def test_a_name_in_another_case_in_the_validation_set_alone_is_warned_of(voc_set: VocSet) -> None:
    """The page lists the classes, so its objects would be left out without a word."""
    voc_set.xml("d").write_text(voc_set.xml("d").read_text().replace(">cat<", ">CAT<"))
    spec = voc_set.spec(classes=["cat", "dog"])
    assert kinds(spec, "val") == {"class names alike": 1}
    assert "class name alike" in str(find_dataset(spec).warning())
    assert "class 'CAT' is not met in the training set" in refusal(voc_set.spec())


# JSON as bytes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_any_unicode_encoding_is_the_same(encoding: str, coco_set: CocoSet) -> None:
    rename(coco_set, "Käse 猫")
    text = json.dumps(coco_set.content["train"], ensure_ascii=False)
    coco_set.path("train").write_bytes(text.encode(encoding))
    assert find_dataset(coco_set.spec()).classes == ["Käse 猫", "dog"]
    assert_trains_on(coco_set.spec(), images=2, learnt=2)


@pytest.mark.parametrize("encoding", ["latin-1", "euc-kr", "gb2312"])
def test_json_in_another_encoding_is_refused(encoding: str, coco_set: CocoSet) -> None:
    rename(coco_set, "Käse" if encoding == "latin-1" else "고양이" if encoding == "euc-kr" else "猫狗鸟")
    text = json.dumps(coco_set.content["train"], ensure_ascii=False)
    coco_set.path("train").write_bytes(text.encode(encoding))
    assert f"{coco_set.path('train')}: not valid JSON" in refusal(coco_set.spec())


# Small images, many objects


def test_images_under_32_pixels_are_trained_on(coco_set: CocoSet, voc_set: VocSet) -> None:
    """MMDetection's configs leave them out."""
    write_image(coco_set.root / "train" / "1.png", 20, 12)
    coco_set.content["train"]["images"][0].update(width=20, height=12)
    coco_set.content["train"]["annotations"][0]["bbox"] = [1, 1, 9, 9]
    coco_set.write()
    assert_trains_on(coco_set.spec(), images=2, learnt=2)
    write_image(voc_set.root / "JPEGImages" / "a.jpg", 20, 12)
    voc_set.write_xml("a", [("cat", (1, 1, 9, 9), 0)], size="20 12")
    assert_trains_on(voc_set.spec(), images=3, learnt=3, ignored=2)


@pytest.mark.parametrize("count", [100, 101])
def test_more_than_100_objects_on_an_image_are_warned_of(count: int, coco_set: CocoSet) -> None:
    content = coco_set.content["val"]
    content["annotations"] = [
        {**content["annotations"][0], "id": i, "bbox": [i / 8, 2, 10, 20]} for i in range(1, count + 1)
    ]
    content["annotations"].append({**content["annotations"][0], "id": 999, "iscrowd": 1})
    coco_set.write()
    assert kinds(coco_set.spec(), "val") == ({"over 100 objects": 1} if count > 100 else {})

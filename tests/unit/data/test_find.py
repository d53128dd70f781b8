"""Finding a data set: what it answers, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from experiments.common.errors import UserError
from experiments.data import inspection
from experiments.data.find import find_dataset, resolve_root
from experiments.data.shapes import generator as shapes
from experiments.data.spec import DatasetSpec
from tests.unit.data.conftest import CocoSet, VocSet

TINY = {"train_images": 3, "val_images": 2, "size": 64, "max_side": 50}


def failure(spec: DatasetSpec, root: Path | None = None) -> str:
    """The message that looking for `spec` ends with, after checking that it is one line."""
    with pytest.raises(UserError) as caught:
        find_dataset(spec, root)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2
    return caught.value.message + " | " + (caught.value.hint or "")


def built_in(root: Path) -> DatasetSpec:
    splits = {s: {"annotations": f"annotations/{s}.json", "images": s} for s in ("train", "val")}
    return DatasetSpec(name="shapes", format="coco", root=str(root), splits=splits, generate=TINY)


def test_coco_answers(coco_set: CocoSet) -> None:
    found = find_dataset(coco_set.spec())
    assert found.root == coco_set.root and found.root.is_absolute()
    assert found.classes == ["cat", "dog"]
    assert found.images == {"train": 3, "val": 2}
    assert len(found.fingerprint) == 16


def test_voc_answers(voc_set: VocSet) -> None:
    found = find_dataset(voc_set.spec())
    assert (found.classes, found.images) == (["cat", "dog"], {"train": 3, "val": 2})
    assert find_dataset(voc_set.spec(classes=["cat"])).classes == ["cat"]


def test_voc_parts_add_up(voc_set: VocSet) -> None:
    splits = {
        "train": [{"annotations": "train.txt"}, {"annotations": "val.txt"}],
        "val": {"annotations": "val.txt"},
    }
    assert find_dataset(voc_set.spec(splits=splits)).images == {"train": 5, "val": 2}


def test_classes_stand_in_the_order_in_which_coco_tools_number_them(coco_set: CocoSet) -> None:
    for content in coco_set.content.values():
        content["categories"].reverse()
    coco_set.write()
    api = COCO(str(coco_set.path("train")))
    expected = [c["name"] for c in api.loadCats(api.getCatIds(catNms=["cat", "dog"]))]
    assert expected == ["dog", "cat"]
    assert find_dataset(coco_set.spec()).classes == expected
    assert find_dataset(coco_set.spec(classes=["cat", "dog"])).classes == expected


def test_the_root_argument_comes_first_and_tilde_is_home(
    coco_set: CocoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_dataset(coco_set.spec(root="nowhere"), coco_set.root).root == coco_set.root
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_root(coco_set.spec(root="~/coco-set")) == coco_set.root
    monkeypatch.chdir(tmp_path)
    assert resolve_root(coco_set.spec(root="coco-set")) == coco_set.root


def test_the_fingerprint_follows_the_annotations_not_their_place(coco_set: CocoSet, tmp_path: Path) -> None:
    first = find_dataset(coco_set.spec()).fingerprint
    moved = tmp_path / "moved"
    coco_set.root.rename(moved)
    assert find_dataset(coco_set.spec(), moved).fingerprint == first
    (moved / "val.json").write_text((moved / "val.json").read_text() + " ")
    assert find_dataset(coco_set.spec(), moved).fingerprint != first


def test_the_voc_fingerprint_follows_every_listed_xml(voc_set: VocSet) -> None:
    first = find_dataset(voc_set.spec()).fingerprint
    voc_set.write_xml("unlisted", [("cat", (1, 1, 2, 2), 0)])
    assert find_dataset(voc_set.spec()).fingerprint == first
    voc_set.write_xml("e", [("cat", (1, 2, 11, 23), 0)])
    assert find_dataset(voc_set.spec()).fingerprint != first


def test_a_missing_folder_says_where_it_looked_and_what_else_to_do(coco_set: CocoSet, tmp_path: Path) -> None:
    text = failure(coco_set.spec(), tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere"),
        "train.json",
        "val.json",
        "train/",
        "--data-root PATH",
        "-p tiny",
    ):
        assert part in text


def entry_without(section: str, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[section][0].pop(key)


COCO_HARM: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("no images", lambda c: c.pop("images"), "'images' is missing; needed: images, annotations, categories"),
    ("no annotations", lambda c: c.pop("annotations"), "'annotations' is missing"),
    ("no categories", lambda c: c.pop("categories"), "'categories' is missing"),
    ("images no list", lambda c: c.update(images={}), "'images' is not a list"),
    ("no image at all", lambda c: c.update(images=[], annotations=[]), "holds no images"),
    ("no class at all", lambda c: c.update(categories=[], annotations=[]), "categories: there are none"),
    ("no box at all", lambda c: c.update(annotations=[]), "holds no boxes to train on"),
    ("only a crowd", lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "holds no boxes to train on"),
    (
        "half a pixel",
        lambda c: c["images"][0].update(width=40.5),
        "images[0]: width 40.5 is not a whole number",
    ),
    ("image without name", lambda c: c["images"][1].update(file_name=""), "images[1]: file_name ''"),
    ("box without category", entry_without("annotations", "category_id"), "[0]: 'category_id' is missing"),
    (
        "area as text",
        lambda c: c["annotations"][0].update(area="9"),
        "annotations[0]: area '9' is not a number",
    ),
    ("crowd as text", lambda c: c["annotations"][0].update(iscrowd="0"), "[0]: iscrowd '0' is not 0 or 1"),
    ("box of three", lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotations[1]: bbox [1, 2, 3]"),
    (
        "box of NaN",
        lambda c: c["annotations"][1].update(bbox=[1, 2, 3, float("nan")]),
        "is not [x, y, width, height]",
    ),
    ("id as text", lambda c: c["images"][0].update(id="1"), "images[0]: id '1' is not a whole number"),
    (
        "unknown image",
        lambda c: c["annotations"][0].update(image_id=99),
        "annotation 1: image_id 99 is not among",
    ),
    (
        "unknown category",
        lambda c: c["annotations"][0].update(category_id=8),
        "annotation 1: category_id 8 is not",
    ),
    ("same image id", lambda c: c["images"][1].update(id=1), "images: id 1 is given to two entries"),
    ("same box id", lambda c: c["annotations"][1].update(id=1), "annotations: id 1 is given to two entries"),
    ("same class name", lambda c: c["categories"][1].update(name="cat"), "'cat' is the name of two"),
]


@pytest.mark.parametrize(("harm", "message"), [h[1:] for h in COCO_HARM], ids=[h[0] for h in COCO_HARM])
def test_what_is_wrong_in_a_coco_file_is_named(
    harm: Callable[[dict[str, Any]], Any], message: str, coco_set: CocoSet
) -> None:
    find_dataset(coco_set.spec())
    harm(coco_set.content["train"])
    coco_set.write()
    text = failure(coco_set.spec())
    assert str(coco_set.path("train")) in text and message in text


def test_a_truncated_json_is_named_with_the_position(coco_set: CocoSet) -> None:
    path = coco_set.path("val")
    whole = path.read_text()
    for kept in (len(whole) // 2, len(whole) - 1):
        path.write_text(whole[:kept])
        text = failure(coco_set.spec())
        assert f"{path}: not valid JSON (the file looks cut off)" in text
        assert f"of {kept}" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"[1, 2]", "holds a list, not a mapping"),
        (b'{"images": [1,, 2]}', "Expecting value at line 1, column 15, character 14 of 19"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"images": [3], "annotations": [], "categories": []}', "images[0]: 3 is not a mapping"),
    ],
)
def test_what_is_no_coco_json_is_named(content: bytes, message: str, coco_set: CocoSet) -> None:
    coco_set.path("train").write_bytes(content)
    text = failure(coco_set.spec())
    assert str(coco_set.path("train")) in text and message in text


def test_missing_files_and_folders_are_named(coco_set: CocoSet) -> None:
    (coco_set.root / "train" / "2.png").unlink()
    text = failure(coco_set.spec())
    assert f"1 of the 3 images that {coco_set.path('train')} names are missing" in text
    assert str(coco_set.root / "train" / "2.png") in text and "msdet data verify mine" in text
    coco_set.path("val").unlink()
    assert f"no such file: {coco_set.path('val')}" in failure(coco_set.spec())


def test_images_in_folders_of_their_own_are_found(coco_set: CocoSet) -> None:
    (coco_set.root / "train" / "city").mkdir()
    (coco_set.root / "train" / "1.png").rename(coco_set.root / "train" / "city" / "1.png")
    assert "1.png" in failure(coco_set.spec())
    coco_set.content["train"]["images"][0]["file_name"] = "city/1.png"
    coco_set.write()
    assert find_dataset(coco_set.spec()).images["train"] == 3


def test_a_class_that_is_not_there_is_named_with_the_nearest(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given in (coco_set, voc_set):
        text = failure(given.spec(classes=["cat", "dgo"]))
        assert "'dgo' is not in" in text and "did you mean 'dog'?" in text and "there are: cat, dog" in text


def test_categories_of_both_splits_must_agree(coco_set: CocoSet) -> None:
    categories = coco_set.content["val"]["categories"]
    categories.append({"id": 3, "name": "dogs"})
    coco_set.write()
    assert "'dogs' is only here; did you mean 'dog'?" in failure(coco_set.spec())
    assert find_dataset(coco_set.spec(classes=["dog"])).classes == ["dog"]
    categories[:] = [{"id": 14, "name": "dog"}, {"id": 7, "name": "cat"}]
    coco_set.write()
    assert "number 1 is 'dog' here and 'cat' there" in failure(coco_set.spec())


def test_a_voc_class_only_in_val_is_named(voc_set: VocSet) -> None:
    voc_set.write_xml("e", [("cart", (1, 2, 11, 22), 0)])
    text = failure(voc_set.spec())
    assert (
        str(voc_set.xml("e")) in text and "'cart' is not met in the training set; did you mean 'cat'?" in text
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.txt: is empty"),
        (b"\n\n", "train.txt: is empty"),
        (b"a 1\nb -1\n", "line 1: 'a 1' is not one image id"),
        (b"a\nb\na\n", "line 3: image id 'a' is listed twice"),
        (b"\xff\xfe", "is not a text file"),
        (b"a\nz\n", "z.xml: no such file, but its image is listed"),
    ],
)
def test_what_is_wrong_in_a_voc_list_is_named(content: bytes, message: str, voc_set: VocSet) -> None:
    (voc_set.root / "train.txt").write_bytes(content)
    assert message in failure(voc_set.spec())


def test_a_missing_voc_list_is_named(voc_set: VocSet) -> None:
    (voc_set.root / "val.txt").unlink()
    assert f"no such file: {voc_set.root / 'val.txt'}" in failure(voc_set.spec())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "not valid XML: no element found: line"),
        ("<name>cat</name>", "", "object 1: 'name' is missing"),
        ("<xmax>11</xmax>", "", "object 1: 'bndbox/xmax' is missing"),
        ("<xmax>11</xmax>", "<xmax>wide</xmax>", "object 1: 'bndbox/xmax' is 'wide', not a number"),
        ("<xmax>11</xmax>", "<xmax>nan</xmax>", "not a number"),
        ("<width>40</width>", "<width>40.5</width>", "'size/width' is '40.5', not a whole number"),
        ("<difficult>0</difficult>", "<difficult>no</difficult>", "object 1: 'difficult' is 'no'"),
    ],
)
def test_what_is_wrong_in_a_voc_xml_is_named(old: str, new: str, message: str, voc_set: VocSet) -> None:
    text = voc_set.xml("b").read_text()
    assert old in text
    voc_set.xml("b").write_text(text.replace(old, new, 1))
    found = failure(voc_set.spec())
    assert str(voc_set.xml("b")) in found and message in found


def test_a_missing_xml_and_a_picture_of_another_kind_are_named(voc_set: VocSet) -> None:
    voc_set.xml("d").unlink()
    assert f"{voc_set.xml('d')}: no such file" in failure(voc_set.spec())
    (voc_set.root / "JPEGImages" / "a.jpg").rename(voc_set.root / "JPEGImages" / "a.png")
    text = failure(voc_set.spec())
    assert (
        str(voc_set.root / "JPEGImages" / "a.jpg") in text
        and "VOC images must be JPEGImages/<id>.jpg" in text
    )


def test_voc_without_boxes_cannot_be_trained_on(voc_set: VocSet) -> None:
    for name in ("a", "b", "c"):
        voc_set.write_xml(name, [])
    assert "no boxes to train on" in failure(voc_set.spec())


# Built-in data


def test_built_in_data_is_made_when_needed(tmp_path: Path) -> None:
    spec = built_in(tmp_path / "shapes")
    dry = find_dataset(spec, generate=False)
    assert not (tmp_path / "shapes").exists()
    made = find_dataset(spec)
    assert made == dry == find_dataset(spec, generate=False)
    assert made.classes == list(shapes.CLASSES) and made.images == {"train": 3, "val": 2}
    assert made.fingerprint == shapes.compute_fingerprint(TINY)
    assert (tmp_path / "shapes" / "val" / "000001.png").is_file()


def test_stale_built_in_data_stops_with_the_command_that_remakes_it(tmp_path: Path) -> None:
    find_dataset(built_in(tmp_path))
    spec = built_in(tmp_path).model_copy(update={"generate": {**TINY, "seed": 1}})
    assert "msdet data make shapes --force" in failure(spec)
    with pytest.raises(UserError):
        find_dataset(spec, generate=False)


# The cache


def settle(*roots: Path) -> None:
    """Makes everything look an hour old: what changed just now is never remembered."""
    for root in roots:
        for path in [root, *root.rglob("*")]:
            os.utime(path, (path.stat().st_mtime - 3600,) * 2)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid(spec: DatasetSpec, *others: Any) -> Any:
        raise AssertionError(f"{spec.name} is read")

    return lambda: monkeypatch.setattr(inspection, "read_split", forbid)


def test_a_second_look_reads_nothing_and_answers_the_same(
    coco_set: CocoSet, own_cache: Path, no_reading: Callable[[], None]
) -> None:
    settle(coco_set.root)
    first = find_dataset(coco_set.spec())
    assert len(list((own_cache / "msdet" / "datasets").iterdir())) == 1
    no_reading()
    assert find_dataset(coco_set.spec()) == first
    with pytest.raises(AssertionError, match="is read"):
        find_dataset(coco_set.spec(classes=["dog"]))


@pytest.mark.parametrize("change", ["annotations", "a missing image", "just changed"])
def test_the_cache_never_hides_a_change(change: str, coco_set: CocoSet) -> None:
    if change != "just changed":
        settle(coco_set.root)
    first = find_dataset(coco_set.spec())
    if change == "a missing image":
        (coco_set.root / "val" / "1.png").unlink()
        assert "1.png" in failure(coco_set.spec())
        return
    stamp = coco_set.path("val").stat()
    text = coco_set.path("val").read_text()
    coco_set.path("val").write_text(text.replace("200", "201"))  # of the same size
    if change == "just changed":  # as if both fell into one tick of the file system's clock
        os.utime(coco_set.path("val"), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert find_dataset(coco_set.spec()).fingerprint != first.fingerprint


def test_an_edited_xml_is_noticed(voc_set: VocSet) -> None:
    settle(voc_set.root)
    first = find_dataset(voc_set.spec())
    voc_set.xml("a").write_text(voc_set.xml("a").read_text().replace(">11<", ">12<"))
    assert find_dataset(voc_set.spec()).fingerprint != first.fingerprint


@pytest.mark.parametrize("harm", ["not JSON", "other version", "a folder", "in the way", "switched off"])
def test_a_cache_that_does_not_work_changes_nothing(
    harm: str, coco_set: CocoSet, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(coco_set.root)
    if harm == "in the way":
        (own_cache / "msdet").write_text("a file where a folder should be")
    if harm == "switched off":
        monkeypatch.setenv("MSDET_NO_CACHE", "1")
    first = find_dataset(coco_set.spec())
    for path in (own_cache / "msdet").rglob("*.json"):
        if harm == "not JSON":
            path.write_text("{")
        elif harm == "other version":
            path.write_text(re.sub('"version": [0-9]+', '"version": -1', path.read_text(), count=1))
        else:
            path.unlink()
            path.mkdir()
    assert find_dataset(coco_set.spec()) == first
    if harm == "switched off":
        assert not (own_cache / "msdet").exists()


# Real data, and what importing costs


def test_real_coco(real_coco: DatasetSpec) -> None:
    found = find_dataset(real_coco)
    assert found.images == {"train": 120, "val": 66}
    assert len(found.classes) == 80 and found.classes[0] == "person" and found.classes[79] == "toothbrush"
    assert find_dataset(real_coco) == found


def test_real_voc(real_voc: DatasetSpec) -> None:
    found = find_dataset(real_voc)
    assert (found.images, found.classes) == ({"train": 205, "val": 87}, ["Platelets", "RBC", "WBC"])
    assert find_dataset(real_voc) == found


def test_importing_it_stays_light() -> None:
    heavy = ("numpy", "cv2", "torch", "rich")
    code = f"import sys, experiments.data.find; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

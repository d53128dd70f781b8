"""VOC lists and XML files as people have them, and annotation paths that are no plain files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.data.problems import ProblemLog
from experiments.data.readers.coco import read_coco
from experiments.data.readers.voc import read_list, read_xml
from tests.unit.data.conftest import CocoSet, VocSet, write_image
from tests.unit.data.loading import (
    assert_trains_on,
    evaluated,
    evaluation_set,
    infos,
    kinds,
    random_detections,
    refusal,
    training_set,
)

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"
DIGITS = "9" * 5000

# By hand: 3 images, on each a cat and a difficult dog. What replaces what in the first XML file, and what follows.
ACCEPTED: dict[str, tuple[tuple[str, str], dict[str, int]]] = {
    "size 0 x 0": ((SIZE, SIZE.replace("40", "0").replace("30", "0")), {"image_without_size": 1}),
    "width 0": ((SIZE, SIZE.replace("40", "0")), {"image_without_size": 1}),
    "size missing": ((SIZE, ""), {"image_without_size": 1}),
    "width and height swapped": (
        (SIZE, "<size><width>30</width><height>40</height></size>"),
        {"image_size_differs": 1, "box_partly_outside": 1},
    ),
    "size with spaces": ((SIZE, SIZE.replace("40", "\n 40 ")), {}),
    "difficult missing": (("<difficult>0</difficult>", ""), {}),
    "difficult 1": (("<difficult>0</difficult>", "<difficult> 1 </difficult>"), {"learnt": 2, "ignored": 4}),
    "difficult 2": (("<difficult>0</difficult>", "<difficult>2</difficult>"), {"learnt": 2, "ignored": 4}),
    "fractions are cut": (("<xmax>11<", "<xmax>11.9<"), {}),
    "empty": (("<xmax>11<", "<xmax>1<"), {"learnt": 2, "empty_box": 1}),
    "the other way round": (("<xmin>1<", "<xmin>30<"), {"learnt": 2, "empty_box": 1}),
    "beyond the image": (
        ("<xmin>1</xmin><ymin>2</ymin><xmax>11<", "<xmin>41</xmin><ymin>2</ymin><xmax>49<"),
        {"learnt": 2, "box_wholly_outside": 1},
    ),
    "counted from 0": (("<xmin>1<", "<xmin>0<"), {"box_partly_outside": 1}),
    "a comment in the name": ((">cat<", ">c<!-- -->at<"), {}),
    "a part with a name and a box of its own": (
        ("<difficult>0</difficult>", "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"),
        {},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_in_voc_is_trained_on_as_counted(name: str, voc_set: VocSet) -> None:
    (old, new), counts = ACCEPTED[name]
    text = voc_set.xml("a").read_text()
    assert old in text
    voc_set.xml("a").write_text(text.replace(old, new, 1))
    assert_trains_on(voc_set.spec(), **{"images": 3, "learnt": 3, "ignored": 3, **counts})


def test_the_same_box_twice_is_warned_of(voc_set: VocSet) -> None:
    voc_set.write_xml("a", [("cat", (1, 2, 11, 22), 0)] * 3 + [("dog", (1, 2, 11, 22), 0)])
    assert_trains_on(voc_set.spec(), images=3, learnt=6, ignored=2, same_box_twice=2)


REFUSED: list[tuple[str, str, str]] = [
    *((">cat<", f">{name}<", "object 1: 'name' is missing") for name in ("", "  ", "\n")),
    ("<name>cat</name>", "", "object 1: 'name' is missing"),
    ("<xmin>1</xmin>", "", "object 1: 'bndbox/xmin' is missing"),
    *(("<xmin>1<", f"<xmin>{value}<", "object 1: 'bndbox/xmin'")
      for value in ("", "one", "nan", "inf", "-inf", "1e400", "1e10", DIGITS, "9" * 400, "1,5", "1 2")),
    *(("<difficult>0<", f"<difficult>{value}<", "object 1: 'difficult'")
      for value in ("", "no", "0.5", "nan", DIGITS, "9" * 400, "true")),
    *(("<width>40<", f"<width>{value}<", "'size/width'")
      for value in ("", "wide", "40.5", "nan", "1e400", DIGITS, "9" * 400, "4 0")),
    ("<width>40<", "<width>-40<", "'size' is -40 x 30"),
    ("<height>30</height>", "", "'size/height' is missing"),
    ("annotation>", "annotations>", "its root element is 'annotations', not 'annotation'"),
    ("<annotation>", '<annotation xmlns="http://example.org">', "its root element is "),
    ("<annotation>", "<annotation>\0", "not valid XML"),
    ("</annotation>", "", "not valid XML"),
    ("</annotation>", "</annotation><annotation/>", "not valid XML"),
    ("<name>cat", "<name>&nbsp;", "not valid XML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[f"{new[:20]!r}" for _, new, _ in REFUSED])
def test_what_is_wrong_in_an_xml_file_is_refused_with_file_entry_and_field(
    old: str, new: str, message: str, voc_set: VocSet
) -> None:
    text = voc_set.xml("a").read_text()
    assert old in text
    voc_set.xml("a").write_text(text.replace(old, new))
    found = refusal(voc_set.spec())
    assert f"{voc_set.xml('a')}: " in found and message in found


def test_an_entity_that_grows_without_bound_is_refused(voc_set: VocSet) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    text = f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]>' + voc_set.xml("a").read_text().replace(
        ">cat<", ">&e9;<"
    )
    voc_set.xml("a").write_text(text)
    assert f"{voc_set.xml('a')}: not valid XML" in refusal(voc_set.spec())


@pytest.mark.parametrize(
    ("encoding", "name", "is_read"),
    [("utf-8", "猫", True), ("utf-8-sig", "猫", True), ("utf-16", "猫", True), ("latin-1", "Käse", True),
     ("cp1252", "Käse", True), ("koi8-r", "кот", True), ("euc-kr", "고양이", False), ("gb2312", "猫", False),
     ("shift_jis", "猫", False)],
)  # fmt: skip
def test_encodings_of_xml(encoding: str, name: str, is_read: bool, voc_set: VocSet) -> None:
    """Python's parser knows one byte a character and Unicode; the rest is refused, never misread."""
    text = voc_set.xml("a").read_text().replace("cat", name)
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    voc_set.xml("a").write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding))
    if is_read:
        assert sorted(find_dataset(voc_set.spec()).classes) == sorted(["cat", "dog", name])
    else:
        assert f"{voc_set.xml('a')}: not valid XML" in refusal(voc_set.spec())


@pytest.mark.parametrize("encoding", ["klingon", "", "utf-7", "base64", "rot13", "idna", "x" * 300])
def test_an_encoding_that_nobody_knows_is_refused(encoding: str, voc_set: VocSet) -> None:
    text = voc_set.xml("a").read_text()
    voc_set.xml("a").write_text(f'<?xml version="1.0" encoding="{encoding}"?>{text}')
    assert f"{voc_set.xml('a')}: not valid XML" in refusal(voc_set.spec())


# Lists


@pytest.mark.parametrize(
    "raw",
    [b"\xef\xbb\xbfa\nb\nc\n", b"\n\na\n\nb\n\n\nc\n\n", b"a  \nb\t\n c \n", b"a\r\nb\r\nc\r\n", b"a\rb\rc",
     b"a\nb\nc", b"a\n \t \nb\nc\n"],
)  # fmt: skip
def test_lists_that_are_read_as_they_are_meant(raw: bytes, voc_set: VocSet) -> None:
    (voc_set.root / "train.txt").write_bytes(raw)
    assert_trains_on(voc_set.spec(), images=3, learnt=3, ignored=3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"a\n\0\nb\n", "line 2: '\\x00'"), (b"a\nb\0\n", "line 2"), (b"a 1\nb -1\n", "line 1: 'a 1'"),
     ("a\nb\n".encode("utf-16"), "UTF-8"), ("a\nb\n".encode("utf-16-le"), "line 1"), (b"a\nb\na\n", "listed twice"),
     (b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 300, "File name too long"),
     (b"x" * 5000, ""), (b"zzz", "no such file, but its image is listed")],
)  # fmt: skip
def test_lists_that_are_refused(raw: bytes, message: str, voc_set: VocSet) -> None:
    (voc_set.root / "train.txt").write_bytes(raw)
    text = refusal(voc_set.spec())
    assert message in text and (str(voc_set.root) in text or "xxx.xml" in text)


# Several lists, several folders


def two_folders(voc_set: VocSet) -> VocSet:
    """Move the set to the folder `one`; `two` has the same ids with other images and boxes."""
    (voc_set.root / "one").mkdir()
    for folder in ("JPEGImages", "Annotations"):
        (voc_set.root / folder).rename(voc_set.root / "one" / folder)
    second = VocSet(voc_set.root / "two")
    for number, name in enumerate(second.lists["val"]):
        second.write_xml(name, [("cat", (9 + number, 9, 25, 25), 0), ("dog", (2, 2, 15, 12), 0)])
    return second


def test_several_validation_lists_are_evaluated_as_one(voc_set: VocSet, tmp_path: Path) -> None:
    """The issue's case: 84.8 mAP of the first list alone in place of 67.9."""
    voc_set.write_xml("d", [("cat", (9, 9, 25, 25), 0), ("dog", (2, 2, 15, 12), 0)])
    for name in ("d", "e"):
        (voc_set.root / f"{name}.txt").write_text(name)
    joined = find_dataset(voc_set.spec())
    splits = {
        "train": {"annotations": "train.txt"},
        "val": [{"annotations": "d.txt"}, {"annotations": "e.txt"}],
    }
    apart = find_dataset(voc_set.spec(splits=splits))
    assert joined.images == apart.images == {"train": 3, "val": 2}
    for seed in range(3):
        detections = random_detections(joined, seed)
        both = evaluated(joined, detections, tmp_path / "both")
        assert evaluated(apart, detections, tmp_path / "apart") == both
        assert (tmp_path / "apart.bbox.json").read_text() == (tmp_path / "both.bbox.json").read_text()
    infos_apart = infos(evaluation_set(apart))
    assert [info["img_id"] for info in infos_apart] == ["d", "e"]


def test_two_folders_with_the_same_ids_are_told_apart(voc_set: VocSet, tmp_path: Path) -> None:
    from experiments.data.ground_truth import read_ground_truth
    from experiments.reporting.breakdown.voc_pass import compute_voc_aps

    two_folders(voc_set)
    splits = {
        split: [
            {"annotations": f"{split}.txt", "images": "one"},
            {"annotations": f"two/{split}.txt", "images": "two/"},
        ]
        for split in ("train", "val")
    }
    spec = voc_set.spec(splits=splits)
    found = assert_trains_on(spec, images=6, learnt=6, ignored=6)
    listed = infos(evaluation_set(found))
    assert [info["img_id"] for info in listed] == ["one/d", "one/e", "two/d", "two/e"]
    detections = random_detections(found)
    measured = evaluated(found, detections, tmp_path / "val")["mAP"]
    assert 0 < measured < 100

    import json

    truth = read_ground_truth(spec, found.root, found.classes)
    assert len(truth.by_id) == 4
    kept = json.loads((tmp_path / "val.bbox.json").read_text())
    assert compute_voc_aps(truth, kept, found.classes)[1] == measured


def test_an_image_in_two_lists_is_refused(voc_set: VocSet) -> None:
    (voc_set.root / "more.txt").write_text("c\nd\n")
    parts = [{"annotations": "train.txt"}, {"annotations": "more.txt"}]
    spec = voc_set.spec(splits={"train": parts, "val": {"annotations": "val.txt"}})
    assert "'c' is listed twice in" in refusal(spec)


def test_two_images_of_one_id_are_refused(voc_set: VocSet) -> None:
    """`two/d` in the folder above, and `d` in the folder `two`."""
    two_folders(voc_set)
    for folder in ("JPEGImages", "Annotations"):
        shutil.copytree(voc_set.root / "two" / folder, voc_set.root / folder / "two")
    (voc_set.root / "val.txt").write_text("two/d\n")
    val = [{"annotations": "val.txt"}, {"annotations": "two/val.txt", "images": "two"}]
    spec = voc_set.spec(splits={"train": {"annotations": "train.txt", "images": "one"}, "val": val})
    assert "image id 'two/d' is listed twice in" in refusal(spec)


@pytest.mark.parametrize("count", [3, 20, 23])
def test_a_path_with_voc2007_in_it_keeps_its_own_classes(
    count: int, voc_set: VocSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """MMDetection takes the 20 VOC names there: it prints them, or fails where there are more classes."""
    names = [f"cell-{number:02d}" for number in range(count)]
    root = tmp_path / "VOC2007"
    voc_set.root.rename(root)
    voc_set.root = root
    for name in (*"abcde",):
        voc_set.write_xml(
            name, [(label, (1 + 3 * (i % 9), 2, 12 + 3 * (i % 9), 22), 0) for i, label in enumerate(names)]
        )
    splits = {
        split: {"annotations": f"VOC2007/{split}.txt", "images": "VOC2007"} for split in ("train", "val")
    }
    spec = voc_set.spec(root=str(tmp_path), splits=splits)
    found = assert_trains_on(spec, images=3, learnt=3 * count)
    assert found.classes == names
    exact = [
        [(box["bbox"], 0.9, box["bbox_label"]) for box in info["instances"]]
        for info in infos(evaluation_set(found))
    ]
    capfd.readouterr()
    assert evaluated(found, exact, tmp_path / "val") == {"mAP": pytest.approx(100)}
    printed = "".join(capfd.readouterr())
    assert "aeroplane" not in printed
    if "cell" in printed:  # where the table is logged at all
        assert all(name in printed for name in names)
    kept = (tmp_path / "val.bbox.json").read_text()
    assert all(f'"category": "{name}"' in kept for name in names) and "aeroplane" not in kept


def test_an_id_may_have_folders_in_it(voc_set: VocSet) -> None:
    for folder in ("JPEGImages", "Annotations"):
        (voc_set.root / folder / "city.1").mkdir()
    write_image(voc_set.root / "JPEGImages" / "city.1" / "x.y.jpg")
    voc_set.write_xml("city.1/x.y", [("cow", (1, 2, 11, 22), 0)])
    (voc_set.root / "val.txt").write_text("city.1/x.y\nd\n")
    assert f"{voc_set.xml('city.1/x.y')}: " in refusal(voc_set.spec())
    voc_set.write_xml("city.1/x.y", [("cat", (1, 2, 11, 22), 0)])
    assert find_dataset(voc_set.spec()).images["val"] == 2


# Paths that are no plain files


def put(kind: str, path: Path) -> None:
    """Put something that is no regular file in the place of `path`."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"device": "/dev/zero", "terminal": "/dev/tty", "loop": path.name, "broken link": "nowhere"}
        path.symlink_to(targets[kind])


KINDS = {
    "pipe": "not a regular file", "device": "not a regular file", "terminal": "not a regular file",
    "folder": "it is a folder", "loop": "symbolic links", "broken link": "a link to nowhere, which is not there",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_annotation_path_that_is_no_plain_file_is_refused(
    kind: str, coco_set: CocoSet, voc_set: VocSet
) -> None:
    if kind == "terminal" and not Path("/dev/tty").exists():
        pytest.skip("no /dev/tty")
    cases = [
        (coco_set, coco_set.path("val")),
        (voc_set, voc_set.root / "train.txt"),
        (voc_set, voc_set.xml("b")),
    ]
    for given, path in cases:
        kept = path.read_bytes()
        put(kind, path)
        text = refusal(given.spec())
        assert str(path) in text and KINDS[kind] in text
        for read in (lambda p: read_coco(p, p.parent, ProblemLog()), read_list, read_xml):
            with pytest.raises(UserError, match=KINDS[kind]):
                read(path)
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_path_that_is_no_plain_file_is_refused(
    kind: str, coco_set: CocoSet, voc_set: VocSet
) -> None:
    if kind == "terminal" and not Path("/dev/tty").exists():
        pytest.skip("no /dev/tty")
    for given, path in (
        (coco_set, coco_set.root / "train" / "2.png"),
        (voc_set, voc_set.root / "JPEGImages" / "e.jpg"),
    ):
        put(kind, path)
        assert str(path) in refusal(given.spec())


def test_a_link_to_a_file_elsewhere_is_read(voc_set: VocSet, coco_set: CocoSet, tmp_path: Path) -> None:
    for path in (
        voc_set.root / "train.txt",
        voc_set.xml("a"),
        coco_set.path("train"),
        coco_set.root / "train",
    ):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert_trains_on(voc_set.spec(), images=3, learnt=3, ignored=3)
    assert_trains_on(coco_set.spec(), images=2, learnt=2)


@pytest.mark.parametrize("name", ["x" * 300 + ".json", "x" * 5000])
def test_a_path_that_is_too_long_is_refused(name: str, coco_set: CocoSet) -> None:
    val = {"annotations": "val.json", "images": "val"}
    for train in ({"annotations": name}, {"annotations": "train.json", "images": name}):
        refusal(coco_set.spec(splits={"train": train, "val": val}))
    refusal(coco_set.spec(root=name))
    coco_set.content["train"]["images"][0]["file_name"] = name
    coco_set.write()
    assert "1 of the 3 images that" in refusal(coco_set.spec())


def test_nothing_of_a_class_is_learnt_where_all_is_difficult(voc_set: VocSet) -> None:
    """Classes are numbered all the same, and the loader agrees."""
    found = find_dataset(voc_set.spec())
    labels = {
        box["bbox_label"]
        for info in infos(training_set(found))
        for box in info["instances"]
        if not box["ignore_flag"]
    }
    assert found.classes == ["cat", "dog"] and labels == {0}
    assert kinds(voc_set.spec()) == {}

"""Image files as people have them: what `find_dataset` and `verify` say against what the loader really reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from torch.utils.data import DataLoader

from experiments.common.errors import BAD_INPUT, UserError
from experiments.data.find import find_dataset
from experiments.data.verify import verify
from tests.unit.data.conftest import CocoSet, VocSet, write_image
from tests.unit.data.loading import evaluation_set, kinds, training_set

ORIENTATION = 274  # the EXIF tag


def noise(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As MMEngine's runner has it: OpenCV's threads do not survive in the processes of a loader."""
    cv2.setNumThreads(0)


def loaded(dataset: Any, index: int = 0) -> tuple[np.ndarray, tuple[int, int]]:
    """An image as training reads it, and its width and height."""
    step = next(step for step in dataset.pipeline.transforms if type(step).__name__ == "LoadImageFromFile")
    results = step(dataset.get_data_info(index))
    height, width = results["ori_shape"]
    return results["img"], (width, height)


# 16 bits


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".ppm", ".jp2"])
@pytest.mark.parametrize("bits", [8, 16])
def test_16_bit_images_are_warned_of(suffix: str, bits: int, coco_set: CocoSet) -> None:
    pixels = noise(160, 160)[..., 0] if suffix == ".pgm" else noise(160, 160)
    path = coco_set.root / "train" / f"deep{suffix}"
    cv2.imwrite(str(path), pixels.astype(np.uint16) * 7 if bits == 16 else pixels)  # a sensor of 11 bits
    coco_set.content["train"]["images"][0].update(file_name=path.name, width=160, height=160)
    coco_set.write()
    found = find_dataset(coco_set.spec())
    read, _ = loaded(training_set(found))
    assert read.dtype == np.uint8
    if bits == 16:
        assert read.mean() < 10  # of 127
        assert found.problems["train"] == kinds(coco_set.spec()) == {"16-bit image": 1}
        assert "16-bit image" in str(found.warning())
    else:
        assert read.mean() > 100 and found.problems == {}


# EXIF


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("annotated", [(40, 30), (30, 40)], ids=["as stored", "as seen"])
def test_images_turned_by_exif_are_warned_of(
    orientation: int, annotated: tuple[int, int], coco_set: CocoSet
) -> None:
    """Annotated in the frame that the loader reads, or in the other one: both are told, from what it reads."""
    exif = PillowImage.Exif()
    exif[ORIENTATION] = orientation
    path = coco_set.root / "train" / "phone.jpg"
    PillowImage.fromarray(noise()).save(path, exif=exif)
    image = coco_set.content["train"]["images"][0]
    image.update(file_name=path.name, width=annotated[0], height=annotated[1])
    coco_set.content["train"]["annotations"][0]["bbox"] = [1, 1, 9, 9]
    coco_set.write()
    found = find_dataset(coco_set.spec())
    dataset = training_set(found)
    _, size = loaded(dataset)
    expected = {"image size differs": 1} if size != annotated else {}
    expected |= {"image turned by EXIF": 1} if orientation in range(2, 9) else {}
    assert found.problems.get("train", {}) == kinds(coco_set.spec()) == expected
    assert size == ((30, 40) if orientation in range(5, 9) else (40, 30))
    told = verify(coco_set.spec(), read_images=False)
    assert told["usable"]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_the_size_that_is_told_is_the_one_that_is_read(suffix: str, coco_set: CocoSet) -> None:
    """Which kinds of files OpenCV turns is its own affair: what counts is that both agree."""
    exif = PillowImage.Exif()
    exif[ORIENTATION] = 6
    path = coco_set.root / "train" / f"phone.{suffix}"
    PillowImage.fromarray(noise()).save(path, exif=exif)
    image = coco_set.content["train"]["images"][0]
    image.update(file_name=path.name, width=None, height=None)
    coco_set.write()
    dataset = training_set(find_dataset(coco_set.spec()))
    info = dataset.get_data_info(0)
    assert (info["width"], info["height"]) == loaded(dataset)[1]


# Sizes


def test_an_image_of_one_by_2000_pixels_is_refused_before_the_start(
    coco_set: CocoSet, voc_set: VocSet
) -> None:
    """Fitted into 160 x 160 it would have a side of 0 pixels; in 1333 x 800 there is one left."""
    write_image(coco_set.root / "val" / "1.png", 1, 2000)
    coco_set.content["val"]["images"][0].update(width=1, height=2000)
    coco_set.content["val"]["annotations"][0].update(bbox=[0, 0, 1, 900])
    coco_set.write()
    write_image(voc_set.root / "JPEGImages" / "a.jpg", 3000, 1)
    voc_set.write_xml("a", [("cat", (1, 1, 900, 2), 0)], size="3000 1")
    for given, path in ((coco_set, "val/1.png"), (voc_set, "JPEGImages/a.jpg")):
        found = find_dataset(given.spec())
        for scale in ((160, 160),) if given is coco_set else (None, (160, 160), (1333, 800)):
            with pytest.raises(UserError, match="is too thin") as caught:
                found.check_resizable(scale)
            assert str(given.root / path) in caught.value.message and caught.value.exit_code == BAD_INPUT
    find_dataset(coco_set.spec()).check_resizable(None)
    with pytest.raises(UserError, match=r"1\.png: 1 x 2000 pixels"):
        evaluation_set(find_dataset(coco_set.spec()))[0]


@pytest.mark.parametrize(
    ("width", "height"), [(1, 319), (1, 320), (1, 321), (321, 1), (2, 640), (2, 642), (640, 2)]
)
def test_where_an_image_is_too_thin_is_where_resizing_fails(
    width: int, height: int, coco_set: CocoSet
) -> None:
    write_image(coco_set.root / "val" / "1.png", width, height)
    coco_set.content["val"]["images"][0].update(width=width, height=height)
    coco_set.content["val"]["annotations"][0].update(bbox=[0, 0, 1, 1])
    coco_set.write()
    found = find_dataset(coco_set.spec())
    failures = []
    for call in (lambda: found.check_resizable((160, 160)), lambda: evaluation_set(found)[0]):
        try:
            call()
            failures.append(False)
        except UserError:
            failures.append(True)
    assert failures[0] == failures[1] == (max(width, height) / min(width, height) > 320)


# Damaged


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    contents = {"cut off": raw[: len(raw) // 2], "the last bytes missing": raw[:-9], "empty": b"",
                "text": b"no image", "a page": b"<html><body>404</body></html>", "zeros": bytes(len(raw)),
                "the head alone": raw[:200]}  # fmt: skip
    path.write_bytes(contents[how])


DAMAGES = ["cut off", "the last bytes missing", "empty", "text", "a page", "zeros", "the head alone"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_image_is_found_by_verify_and_named_by_the_loader(how: str, voc_set: VocSet) -> None:
    path = voc_set.root / "JPEGImages" / "b.jpg"
    found = find_dataset(voc_set.spec())
    dataset = training_set(found)
    damage(path, how)
    told = verify(voc_set.spec())
    problem = told["splits"]["train"]["problems"]["unreadable image"]
    assert not told["usable"] and problem["count"] == 1 and problem["examples"][0].startswith(f"{path}: ")
    with pytest.raises(UserError) as caught:
        dataset[1]
    assert caught.value.exit_code == BAD_INPUT
    assert caught.value.message.startswith(f"image {path}: ")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["cut off", "missing", "too thin"])
def test_the_error_of_an_image_is_one_line_whatever_process_met_it(
    how: str, workers: int, tmp_path: Path
) -> None:
    voc_set = VocSet(tmp_path / "ImageError: a folder that looks like the line of a traceback")
    path = voc_set.root / "JPEGImages" / "b.jpg"
    dataset = training_set(find_dataset(voc_set.spec()))
    if how == "missing":
        path.unlink()
    elif how == "too thin":
        write_image(path, 1, 2000)
    else:
        damage(path, how)
    iterator, met = iter(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=len)), []
    try:
        list(iterator)
    except UserError as error:
        met.append((error.message, error.hint, error.exit_code))
    finally:
        if workers:
            iterator._shutdown_workers()  # or its processes live until garbage is collected
    ((message, hint, code),) = met
    assert code == BAD_INPUT and "verify" in str(hint)
    assert message.startswith(f"image {path}: ") and len(message.splitlines()) == 1
    assert "Traceback" not in message and "worker" not in message


def test_damaged_images_that_the_first_bytes_tell_stop_before_the_start(voc_set: VocSet) -> None:
    path = voc_set.root / "JPEGImages" / "b.jpg"
    for how in ("empty", "text"):
        write_image(path)
        damage(path, how)
        with pytest.raises(UserError, match=str(path)):
            find_dataset(voc_set.spec())


# The same image twice


def place_again(how: str, first: Path, second: Path) -> None:
    second.unlink()
    if how == "link":
        second.symlink_to(first)
    elif how == "hard link":
        os.link(first, second)
    else:
        shutil.copy(first, second)


WAYS = ["link", "hard link", "copy"]


@pytest.mark.parametrize("how", WAYS)
def test_the_same_image_twice_in_a_split_is_warned_of(how: str, coco_set: CocoSet, voc_set: VocSet) -> None:
    place_again(how, coco_set.root / "train" / "1.png", coco_set.root / "train" / "2.png")
    place_again(how, voc_set.root / "JPEGImages" / "a.jpg", voc_set.root / "JPEGImages" / "c.jpg")
    for given in (coco_set, voc_set):
        found = find_dataset(given.spec())
        assert found.problems == {"train": {"same image twice": 1}} and kinds(given.spec(), "val") == {}
        assert "image given twice" in str(found.warning())


@pytest.mark.parametrize("how", WAYS)
def test_the_same_image_in_both_splits_is_warned_of(how: str, coco_set: CocoSet, voc_set: VocSet) -> None:
    place_again(how, coco_set.root / "train" / "1.png", coco_set.root / "val" / "2.png")
    place_again(how, voc_set.root / "JPEGImages" / "a.jpg", voc_set.root / "JPEGImages" / "d.jpg")
    for given in (coco_set, voc_set):
        found = find_dataset(given.spec())
        assert found.problems == {"val": {"image in both splits": 1}} and kinds(given.spec()) == {}
        assert "also in the training set" in str(found.warning())


def test_one_file_under_two_ids_is_warned_of(coco_set: CocoSet) -> None:
    coco_set.content["train"]["images"][1]["file_name"] = "../train/./1.png"
    coco_set.content["val"]["images"][1]["file_name"] = "1.png"
    coco_set.write()
    problems = find_dataset(coco_set.spec()).problems
    assert problems == {split: {"same image twice": 1} for split in ("train", "val")}


def test_a_validation_set_that_is_the_training_set_is_warned_of(coco_set: CocoSet, voc_set: VocSet) -> None:
    part = {"annotations": "train.json", "images": "train"}
    spec = coco_set.spec(splits={"train": part, "val": part})
    assert find_dataset(spec).problems == {"val": {"image in both splits": 3}}
    spec = voc_set.spec(splits={split: {"annotations": "train.txt"} for split in ("train", "val")})
    assert find_dataset(spec).problems == {"val": {"image in both splits": 3}}
    told = verify(spec, read_images=False)["splits"]["val"]["problems"]
    assert told["image in both splits"]["count"] == 3


def test_images_that_differ_in_their_last_byte_are_two(coco_set: CocoSet) -> None:
    path = coco_set.root / "train" / "2.png"
    path.write_bytes((coco_set.root / "train" / "1.png").read_bytes()[:-1] + b"?")
    assert "same image twice" not in kinds(coco_set.spec())

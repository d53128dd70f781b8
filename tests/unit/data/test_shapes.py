"""The built-in data set: repeatable, tight boxes, complete or absent."""

from __future__ import annotations

import errno
import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from experiments.common.errors import INTERRUPTED, UserError
from experiments.data.shapes import drawing
from experiments.data.shapes import generator as shapes

SMALL = {"seed": 3, "train_images": 6, "val_images": 4, "size": 96, "min_side": 10, "max_side": 70}


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def many(count: int = 150, **params: float) -> list[list[drawing.Shape]]:
    """The objects of many images; drawing the pixels too would take longer and tell no more."""
    size, sides = int(params.get("size", 160)), (params.get("low", 12.0), params.get("high", 130.0))
    placed = []
    for index in range(count):
        rng = shapes.make_image_rng(5, "train", index)
        placed.append(drawing.place(rng, size, sides))
    return placed


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shapes.generate(tmp_path / name, SMALL)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(one) == 6 + 4 + 2 + 1
    assert one == two


def test_another_seed_gives_other_images_and_boxes(tmp_path: Path) -> None:
    shapes.generate(tmp_path / "one", SMALL)
    shapes.generate(tmp_path / "two", {**SMALL, "seed": 4})
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)
    assert one["train/000000.png"] != one["val/000000.png"]


def test_images_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    shapes.generate(tmp_path / "few", SMALL)
    shapes.generate(tmp_path / "more", {**SMALL, "train_images": 9, "val_images": 1})
    few, more = files(tmp_path / "few"), files(tmp_path / "more")
    for name in [f"train/{i:06d}.png" for i in range(6)] + ["val/000000.png"]:
        assert few[name] == more[name]


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    shapes.generate(tmp_path, {**SMALL, "train_images": 60})
    coco = COCO(str(tmp_path / "annotations" / "train.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(shapes.CLASSES)
    assert sorted(coco.getImgIds()) == list(range(1, 61))
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))  # 0 would never match in COCO's evaluator
    assert len(coco.anns) > 60
    empty = [i for i in coco.getImgIds() if not coco.getAnnIds([i])]
    assert empty == [50]
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = cv2.imread(str(tmp_path / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def test_boxes_are_tight_around_the_pixels_that_an_object_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On black, with nothing added, an object's pixels are those that are not black: no mask is asked."""
    monkeypatch.setattr(drawing, "draw_background", lambda rng, size: np.zeros((size, size, 3), np.float32))
    for name, value in {"BLUR": (0, 0), "NOISE": (0, 0), "SHADING": 0.0, "OBJECTS": (1, 1)}.items():
        monkeypatch.setattr(drawing, name, value)
    shapes.generate(tmp_path, {**SMALL, "train_images": 40})
    content = json.loads((tmp_path / "annotations" / "train.json").read_text())
    assert len(content["annotations"]) == 40
    for box in content["annotations"]:
        pixels = cv2.imread(str(tmp_path / "train" / f"{box['image_id'] - 1:06d}.png")).max(2).astype(float)
        inside = pixels >= 0.5 * pixels.max() - 1  # at least half covered; 1: pixels are rounded
        rows, columns = np.where(inside.any(1))[0], np.where(inside.any(0))[0]
        measured = np.array([columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1])
        assert np.abs(measured - box["bbox"]).max() <= 1
        assert abs(inside.sum() - box["area"]) <= 0.03 * box["area"] + 2


def test_boxes_lie_within_the_image_and_match_their_masks() -> None:
    for placed in many(40):
        for shape in placed:
            x, y, w, h = shape.box
            assert x >= 0 and y >= 0 and x + w <= 160 and y + h <= 160
            outside = shape.visible.copy()
            outside[y : y + h, x : x + w] = False
            assert not outside.any()
            inside = shape.visible[y : y + h, x : x + w]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            assert shape.area == shape.visible.sum() > 0


def test_objects_overlap_little_and_stay_visible() -> None:
    pairs, covered = 0, 0
    for placed in many(60):
        for shape in placed:
            assert shape.visible.sum() >= 0.75 * shape.mask.sum()
            covered += shape.visible.sum() < shape.mask.sum()
        for a, b in combinations([s.box for s in placed], 2):
            width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
            height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
            overlap = max(width, 0) * max(height, 0)
            assert overlap / (a[2] * a[3] + b[2] * b[3] - overlap) < 0.3
            pairs += overlap > 0
    assert pairs > 5 and covered > 0  # or the limits were never tried


def test_objects_stay_visible_where_boxes_may_overlap_freely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MAX_OVERLAP", 1.0)
    shares = [s.visible.sum() / s.mask.sum() for placed in many(100) for s in placed]
    assert min(shares) >= 0.75
    assert min(shares) < 0.85  # or the limit was never tried


def test_sides_are_spread_log_uniformly() -> None:
    placed = many(400)
    sides = np.log([max(shape.box[2:]) for image in placed for shape in image])
    assert len(sides) > 800
    shares = np.linspace(0, 1, 11)[1:-1]
    expected = np.log(12) + shares * np.log(130 / 12)
    assert np.abs(np.quantile(sides, shares) - expected).max() < 0.15  # 15 % of a side
    assert sides.min() >= np.log(12 - 1.5) and sides.max() <= np.log(130 + 1.5)


def test_all_classes_and_all_numbers_of_objects_occur() -> None:
    placed = many(200)
    classes = np.bincount([shape.category for image in placed for shape in image])
    assert len(classes) == len(shapes.CLASSES) and classes.min() > 0.7 * classes.mean()
    assert {len(image) for image in placed} >= set(range(drawing.OBJECTS[0], drawing.OBJECTS[1] + 1))


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 10
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.generate(tmp_path / "set", SMALL, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_leaves_the_old_set(tmp_path: Path) -> None:
    shapes.generate(tmp_path / "set", SMALL)
    before = files(tmp_path / "set")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.generate(tmp_path / "set", {**SMALL, "seed": 9}, interrupt, force=True)
    assert files(tmp_path / "set") == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_current_set_is_not_made_again(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    shapes.generate(tmp_path / "set", SMALL, lambda *step: steps.append(step))
    assert steps == [(i, 10) for i in range(1, 11)]
    assert shapes.is_current(tmp_path / "set", SMALL)
    shapes.generate(tmp_path / "set", SMALL, lambda *step: steps.append(step))
    assert len(steps) == 10


@pytest.mark.parametrize("harm", ["image", "annotations", "manifest", "parameters", "version"])
def test_a_stale_set_is_refused_with_the_command_that_remakes_it(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = tmp_path / "set", dict(SMALL)
    shapes.generate(root, SMALL)
    if harm == "image":
        (root / "val" / "000003.png").unlink()
    elif harm == "annotations":
        (root / "annotations" / "val.json").unlink()
    elif harm == "manifest":
        (root / "shapes.json").write_text("{")
    elif harm == "parameters":
        params["size"] = 100
    else:
        monkeypatch.setattr(shapes, "GENERATOR_VERSION", shapes.GENERATOR_VERSION + 1)
    before = files(root)
    assert not shapes.is_current(root, params)
    with pytest.raises(UserError, match="holds shapes of other parameters") as caught:
        shapes.generate(root, params)
    assert caught.value.hint is not None and "msdet data make shapes --force" in caught.value.hint
    assert files(root) == before
    shapes.generate(root, params, force=True)
    assert shapes.is_current(root, params)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_never_touched(force: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds no shapes\.json"):
        shapes.generate(tmp_path, SMALL, force=force)
    assert files(tmp_path) == {"thesis.tex": b"mine"}


def test_force_does_not_delete_what_was_put_beside_the_set(tmp_path: Path) -> None:
    shapes.generate(tmp_path, SMALL)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"also holds thesis\.tex"):
        shapes.generate(tmp_path, SMALL, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written there"):
        shapes.generate(tmp_path / "file" / "set", SMALL)


def test_a_full_disk_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match="cannot be written there: No space left on device") as caught:
        shapes.generate(tmp_path / "set", SMALL)
    assert caught.value.exit_code == INTERRUPTED and list(tmp_path.iterdir()) == []


def test_the_fingerprint_follows_from_parameters_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    first = shapes.compute_fingerprint(SMALL)
    assert len(first) == 16 and int(first, 16) >= 0
    assert shapes.compute_fingerprint(dict(reversed(SMALL.items()))) == first
    assert shapes.compute_fingerprint({**SMALL, "seed": 4}) != first
    assert shapes.compute_fingerprint({}) == shapes.compute_fingerprint(shapes.Parameters().model_dump())
    monkeypatch.setattr(shapes, "GENERATOR_VERSION", shapes.GENERATOR_VERSION + 1)
    assert shapes.compute_fingerprint(SMALL) != first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_sid": 4}, "min_sid: unknown key; did you mean 'min_side'"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"train_images": 0}, "train_images: 0 is not allowed"),
        ({"max_side": 200}, "max_side <= size"),
        ({"min_side": 140}, "min_side < max_side"),
    ],
)
def test_wrong_parameters_are_named(wrong: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        shapes.generate(tmp_path / "set", wrong)
    assert not (tmp_path / "set").exists()

"""Verifying a data set: counts against independent ones, and problems collected without stopping."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from msdet_cli.commands.data import app
from tests.unit.data.conftest import CocoSet, VocSet


def kinds(found: dict[str, Any], split: str = "train") -> dict[str, int]:
    return {kind: problem["count"] for kind, problem in found["splits"][split]["problems"].items()}


# Against independent counts


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_coco_against_pycocotools(split: str, real_coco: DatasetSpec) -> None:
    found = verify(real_coco, read_images=split == "val")
    assert found["usable"]
    counts = found["splits"][split]
    api = COCO(str(Path(real_coco.root) / f"annotations/instances_{split}2017.json"))
    assert counts["images"] == len(api.getImgIds()) == {"train": 120, "val": 66}[split]
    assert counts["boxes"] == len(api.getAnnIds(iscrowd=False))
    assert counts["crowd_boxes"] == len(api.getAnnIds(iscrowd=True)) > 0
    assert counts["images_without_boxes"] == sum(not api.getAnnIds([i]) for i in api.getImgIds())
    assert counts["sizes"] == {
        "small": len(api.getAnnIds(areaRng=[-1, 32**2], iscrowd=False)),
        "medium": len(api.getAnnIds(areaRng=[32**2 - 1e-6, 96**2], iscrowd=False)),
        "large": len(api.getAnnIds(areaRng=[96**2 - 1e-6, 1e12], iscrowd=False)),
    }
    by_class = {c["name"]: len(api.getAnnIds(catIds=[c["id"]], iscrowd=False)) for c in api.cats.values()}
    assert counts["classes"] == by_class
    assert counts["classes_without_boxes"] == [name for name, count in by_class.items() if not count]
    assert counts["problems"] == {}


def test_real_coco_adds_up_to_the_numbers_published_with_it(real_coco: DatasetSpec) -> None:
    found = verify(real_coco, read_images=False)["splits"]
    assert sum(split["boxes"] for split in found.values()) == 1529
    assert sum(split["images_without_boxes"] for split in found.values()) == 3
    met = {name for split in found.values() for name, count in split["classes"].items() if count}
    assert len(met) == 76


def test_real_voc_against_a_search_through_the_text(real_voc: DatasetSpec) -> None:
    found = verify(real_voc)
    assert found["usable"]
    root = Path(real_voc.root)
    empty = {}
    for split, counts in found["splits"].items():
        ids = (root / f"ImageSets/Main/{split}.txt").read_text().split()
        texts = {i: (root / f"Annotations/{i}.xml").read_text() for i in ids}
        names = Counter(name for text in texts.values() for name in re.findall(r"<name>(\w+)</name>", text))
        assert counts["images"] == len(ids) and counts["classes"] == dict(sorted(names.items()))
        assert counts["boxes"] == names.total()
        corners = r"<xmin>(\d+)</xmin>\s*<ymin>(\d+)</ymin>\s*<xmax>(\d+)</xmax>\s*<ymax>(\d+)</ymax>"
        boxes = [(i, *map(int, m)) for i, text in texts.items() for m in re.findall(corners, text)]
        areas = np.array([(x2 - x1) * (y2 - y1) for _, x1, y1, x2, y2 in boxes])
        assert counts["sizes"] == {
            "small": (areas < 1024).sum(),
            "medium": ((areas >= 1024) & (areas < 9216)).sum(),
            "large": (areas >= 9216).sum(),
        }
        empty[split] = [i for i, x1, y1, x2, y2 in boxes if x2 <= x1 or y2 <= y1]
        problem = counts["problems"]["empty box"]
        assert problem["count"] == len(empty[split]) == 1
        assert empty[split][0] in problem["examples"][0]
        assert counts["problems"].keys() == {"empty box"}
    assert empty == {"train": ["BloodImage_00343"], "val": ["BloodImage_00338"]}


# Problems, by making them


def test_a_sound_set_has_none(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given in (coco_set, voc_set):
        found = verify(given.spec())
        assert found["usable"] and kinds(found) == kinds(found, "val") == {}
        assert json.loads(json.dumps(found)) == found


def test_counts_of_a_small_set(coco_set: CocoSet, voc_set: VocSet) -> None:
    boxes = coco_set.content["train"]["annotations"]
    boxes += [
        {"id": 3, "image_id": 1, "category_id": 7, "bbox": [0, 0, 40, 30], "area": 1024, "iscrowd": 0},
        {"id": 4, "image_id": 1, "category_id": 7, "bbox": [0, 0, 40, 30], "area": 9216},
        {"id": 5, "image_id": 3, "category_id": 14, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 1},
    ]
    coco_set.write()
    counts = verify(coco_set.spec())["splits"]["train"]
    assert (counts["images"], counts["images_without_boxes"]) == (3, 0)
    assert (counts["boxes"], counts["crowd_boxes"], counts["difficult_boxes"]) == (4, 1, 0)
    assert counts["sizes"] == {"small": 2, "medium": 1, "large": 1}
    assert counts["classes"] == {"cat": 3, "dog": 1}
    counts = verify(voc_set.spec())["splits"]["train"]
    assert (counts["boxes"], counts["crowd_boxes"], counts["difficult_boxes"]) == (3, 0, 3)
    assert counts["classes"] == {"cat": 3, "dog": 0} and counts["classes_without_boxes"] == ["dog"]


def test_classes_that_are_left_out_are_counted_apart(coco_set: CocoSet, voc_set: VocSet) -> None:
    for given, count in ((coco_set, 1), (voc_set, 3)):
        counts = verify(given.spec(classes=["cat"]))["splits"]["train"]
        assert counts["classes"] == {"cat": count} and counts["other_classes"] == {"dog": count}
        assert counts["boxes"] == count


def test_all_problems_of_a_coco_set_are_collected(coco_set: CocoSet) -> None:
    content = coco_set.content["train"]
    boxes = [[5, 5, 0, 9], [5, 5, 9, -1], [35, 5, 9, 9], [-2, 5, 9, 9], [50, 5, 9, 9], [0, 0, 40.4, 30]]
    for index, box in enumerate(boxes):
        content["annotations"].append(
            {"id": 10 + index, "image_id": 1, "category_id": 7, "bbox": box, "area": 9, "iscrowd": 0}
        )
    content["annotations"] += [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 0, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 21, "image_id": 98, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 22, "image_id": 99, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 23, "image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 24, "image_id": 1, "category_id": 7, "bbox": "1 1 2 2", "area": 4},
    ]
    content["images"].append({"id": 3, "file_name": "1.png", "width": 40, "height": 30})
    content["images"][1]["width"] = 41
    coco_set.write()
    (coco_set.root / "train" / "3.png").unlink()
    found = verify(coco_set.spec())
    assert not found["usable"]
    assert kinds(found) == {
        "annotation entry wrong": 1,
        "duplicate id": 2,
        "unknown image id": 2,
        "unknown category id": 1,
        "missing image": 1,
        "image size differs": 1,
        "unusual id": 1,
        "empty box": 2,
        "box partly outside": 2,
        "box wholly outside": 1,
        "same box twice": 1,
    }
    assert kinds(found, "val") == {}


def test_boxes_of_a_voc_set_outside_or_empty(voc_set: VocSet) -> None:
    voc_set.write_xml("a", [("cat", (1, 1, 40, 30), 0), ("cat", (0, 1, 9, 9), 0), ("cat", (5, 5, 42, 9), 0)])
    voc_set.write_xml("b", [("cat", (7, 7, 7, 9), 0), ("cat", (45, 5, 49, 9), 0)], size="41 30")
    found = verify(voc_set.spec())
    expected = {"box partly outside": 2, "empty box": 1, "box wholly outside": 1, "image size differs": 1}
    assert kinds(found) == expected and found["usable"]


def test_damaged_images_are_found(coco_set: CocoSet) -> None:
    folder = coco_set.root / "train"
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    png = cv2.imencode(".png", noise)[1].tobytes()
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.png").write_bytes(b"")
    (folder / "3.png").write_bytes(png[: len(png) // 2])
    cv2.imwrite(str(coco_set.root / "val" / "1.png"), np.zeros((30, 40), np.uint8))  # greyscale is fine
    found = verify(coco_set.spec())
    assert kinds(found) == {"unreadable image": 3} and not found["usable"]
    assert kinds(found, "val") == {}
    examples = found["splits"]["train"]["problems"]["unreadable image"]["examples"]
    assert [text.split(": ")[0] for text in examples] == [str(folder / f"{i}.png") for i in (1, 2, 3)]
    assert kinds(verify(coco_set.spec(), read_images=False)) == {}


def test_unusable_annotations_do_not_hide_the_other_split(coco_set: CocoSet, voc_set: VocSet) -> None:
    coco_set.path("train").write_text('{"images": [')
    (coco_set.root / "val" / "2.png").unlink()
    found = verify(coco_set.spec())
    assert not found["usable"]
    assert kinds(found) == {"annotation file unusable": 1, "no boxes to train on": 1}
    assert kinds(found, "val") == {"missing image": 1}
    voc_set.xml("a").write_text("<annotation>")
    voc_set.xml("c").unlink()
    found = verify(voc_set.spec())
    assert kinds(found) == {"annotation file unusable": 2} and found["splits"]["train"]["images"] == 3


def test_classes_that_do_not_fit_are_named(coco_set: CocoSet, voc_set: VocSet) -> None:
    coco_set.content["val"]["categories"].reverse()
    coco_set.write()
    assert kinds(verify(coco_set.spec()), "val") == {"classes wrong": 1}
    assert kinds(verify(voc_set.spec(classes=["cat", "dogs"]))) == {"classes wrong": 1}
    voc_set.write_xml("d", [("cart", (1, 2, 11, 22), 0)])
    assert kinds(verify(voc_set.spec()), "val") == {"classes wrong": 1}


def test_what_cannot_be_found_cannot_be_used_and_the_other_way_round(coco_set: CocoSet) -> None:
    """`verify` calls a set usable exactly where `find_dataset` accepts it, images' contents aside."""
    sound = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0}
    harms: list[dict[str, Any]] = [
        *({}, {"image_id": 9}, {"category_id": 9}, {"bbox": [1]}, {"iscrowd": 1}, {"id": 0}),
        {"bbox": [1, 2, 0, 0]},
    ]
    accepted = []
    for harm in harms:
        coco_set.content["train"]["annotations"] = [{**sound, **harm}]
        coco_set.write()
        try:
            find_dataset(coco_set.spec())
            accepted.append(True)
        except UserError:
            accepted.append(False)
        assert verify(coco_set.spec())["usable"] == accepted[-1], harm
    assert accepted == [True, False, False, False, False, True, False]


def test_difficult_or_empty_boxes_alone_cannot_be_trained_on(voc_set: VocSet) -> None:
    for name in ("a", "b", "c"):
        voc_set.write_xml(name, [("cat", (1, 2, 11, 22), 1), ("dog", (5, 5, 5, 9), 0)])
    with pytest.raises(UserError, match="no boxes to train on"):
        find_dataset(voc_set.spec())
    assert "no boxes to train on" in kinds(verify(voc_set.spec()))


def test_a_missing_set_is_an_error_and_progress_is_told(coco_set: CocoSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        verify(coco_set.spec(), tmp_path / "nowhere")
    steps: list[tuple[int, int]] = []
    verify(coco_set.spec(), progress=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]


# The command


@pytest.fixture
def page(coco_set: CocoSet, tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(coco_set.spec().model_dump_json())  # JSON is YAML
    return str(path)


def test_the_command_shows_counts_and_ends_with_0(page: str) -> None:
    result = CliRunner().invoke(app, ["verify", page])
    assert result.exit_code == 0, result.output
    for text in ("images", "small < 32²", "cat", "dog"):
        assert text in result.output
    assert "missing" not in result.output


def test_the_command_ends_with_2_where_training_is_impossible(page: str, coco_set: CocoSet) -> None:
    (coco_set.root / "train" / "1.png").unlink()
    result = CliRunner().invoke(app, ["verify", page])
    assert result.exit_code == 2
    assert "missing image: 1" in result.output and "1.png" in result.output
    result = CliRunner().invoke(app, ["verify", page, "--json", "--no-images"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["usable"] is False


def test_a_warning_leaves_exit_code_0(page: str, coco_set: CocoSet) -> None:
    coco_set.content["val"]["annotations"][0]["bbox"] = [1, 1, 0, 0]
    coco_set.write()
    result = CliRunner().invoke(app, ["verify", page])
    assert result.exit_code == 0 and "empty box: 1" in result.output


def test_square_brackets_in_names_are_shown(page: str, coco_set: CocoSet) -> None:
    for content in coco_set.content.values():
        content["categories"][0]["name"] = "[red]cat[/red]"
    coco_set.write()
    assert "[red]cat[/red]" in CliRunner().invoke(app, ["verify", page]).output


def test_make_and_ls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes" / "datasets"
    folder.mkdir(parents=True)
    splits = {s: {"annotations": f"annotations/{s}.json", "images": s} for s in ("train", "val")}
    small = {"train_images": 3, "val_images": 2, "size": 64, "max_side": 50}
    spec = {"name": "dots", "format": "coco", "root": "dots", "splits": splits, "generate": small}
    (folder / "dots.yaml").write_text(json.dumps(spec))

    def row() -> dict[str, Any]:
        rows = json.loads(CliRunner().invoke(app, ["ls", "--json"]).stdout)
        return next(row for row in rows if row["name"] == "dots")

    assert (row()["found"], row()["state"]) == (False, "made when needed")
    assert not (tmp_path / "dots").exists()
    assert CliRunner().invoke(app, ["make", "dots"]).exit_code == 0
    assert (row()["found"], row()["images"]) == (True, {"train": 3, "val": 2})
    assert row()["root"] == str(tmp_path / "dots")
    assert "3 + 2" in CliRunner().invoke(app, ["ls"]).output
    (tmp_path / "dots" / "val" / "000000.png").unlink()
    assert "not all of them" in row()["state"]
    assert isinstance(CliRunner().invoke(app, ["make", "dots"]).exception, UserError)
    assert CliRunner().invoke(app, ["make", "dots", "--force"]).exit_code == 0
    assert row()["found"]


def test_only_built_in_data_can_be_made(page: str) -> None:
    result = CliRunner().invoke(app, ["make", page])
    assert isinstance(result.exception, UserError) and "is not built in" in result.exception.message

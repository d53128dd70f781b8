"""Ids are only names: COCO's AP and VOC's mAP are those of the same data numbered from 1, however ids are spelled."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments import detection  # noqa: F401  (first: it installs the operators)
from experiments.data.find import find_dataset
from experiments.data.ground_truth import read_ground_truth
from experiments.reporting.breakdown.coco_pass import CocoPass
from experiments.reporting.breakdown.run_breakdown import Evaluated, load_breakdown
from experiments.reporting.breakdown.voc_pass import compute_voc_aps
from experiments.runs.run_folder import RunFolder
from experiments.training.metrics import COCO_METRICS, compute_coco_aps
from tests.unit.data.conftest import CocoSet, VocSet
from tests.unit.data.loading import evaluated, evaluation_set, infos, kinds, random_detections

Spelling = Callable[[int], int]
ANNOTATIONS: dict[str, Spelling] = {
    "from 0": lambda i: i - 1,
    "negative": lambda i: -i,
    "around 0": lambda i: i - 5,
    "above 2^31": lambda i: 2**31 + i,
    "above 2^53": lambda i: 2**53 + i,
    "above 2^63": lambda i: 2**63 + i,
    "above 2^64": lambda i: 2**64 + i,
    "backwards": lambda i: 10**6 - i,
    "of 400 digits": lambda i: 10**400 + i,
}
IMAGES: dict[str, Spelling] = {**ANNOTATIONS, "scattered": lambda i: (i * 7919) % 10007}
CATEGORIES: dict[str, Spelling] = {**ANNOTATIONS, "scattered": lambda i: (0, 91, 3, 17)[i]}


def as_is(number: int) -> int:
    return number


SPELLINGS = [
    *((name, spelling, as_is, as_is) for name, spelling in ANNOTATIONS.items()),
    *((name, as_is, spelling, as_is) for name, spelling in IMAGES.items()),
    *((name, as_is, as_is, spelling) for name, spelling in CATEGORIES.items()),
    *((f"all {name}", spelling, spelling, spelling) for name, spelling in ANNOTATIONS.items()),
]
WHERE = (
    ["annotations"] * len(ANNOTATIONS)
    + ["images"] * len(IMAGES)
    + ["categories"] * len(CATEGORIES)
    + [""] * 99
)
IDS = [f"{where} {row[0]}".strip() for where, row in zip(WHERE, SPELLINGS)]


def content(
    annotation: Spelling = as_is, image: Spelling = as_is, category: Spelling = as_is, crowd: str = "iscrowd"
) -> dict[str, Any]:
    """Twelve images with up to eight objects of three classes, of all sizes, one in eight a crowd."""
    rng = np.random.default_rng(3)
    made: dict[str, Any] = {"images": [], "annotations": []}
    made["categories"] = [
        {"id": category(i), "name": name} for i, name in enumerate(("cow", "cat", "dog"), start=1)
    ]
    for number in range(1, 13):
        made["images"].append(
            {"id": image(number), "file_name": f"{number}.png", "width": 400, "height": 300}
        )
        for _ in range(rng.integers(1, 9)):
            side = rng.choice([12, 60, 150])
            x, y, width, height = *rng.uniform(0, 140, 2), *rng.uniform(side / 2, side, 2)
            flag = int(rng.random() < 0.125)
            made["annotations"].append({
                "id": annotation(len(made["annotations"]) + 1), "image_id": image(number),
                "category_id": category(int(rng.integers(1, 4))), "bbox": [x, y, width, height],
                "area": width * height, crowd: flag,
            })  # fmt: skip
    return made


def detections(image: Spelling = as_is, category: Spelling = as_is) -> list[dict[str, Any]]:
    """Results as they are kept, with the ids of the file; no two scores are the same."""
    rng, made = np.random.default_rng(5), []
    for entry in content()["annotations"]:
        for _ in range(rng.integers(0, 3)):
            _, _, width, height = entry["bbox"]
            box = entry["bbox"] + rng.normal(0, 0.06, 4) * (width, height, width, height)
            label = entry["category_id"] if rng.random() < 0.9 else int(rng.integers(1, 4))
            made.append({"image_id": image(entry["image_id"]), "category_id": category(label),
                         "bbox": box.tolist(), "score": float(rng.random())})  # fmt: skip
    return made


def by_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)  # it writes into its annotations
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * value for name, value in zip(COCO_METRICS, evaluation.stats)}


EXPECTED = by_pycocotools(content(), detections())


class OddSet(CocoSet):
    """A COCO set of which only the annotations are there."""

    def __init__(self, root: Path, odd: dict[str, Any]) -> None:
        self.root = root
        self.content = {"train": odd, "val": odd}
        for split in ("train", "val"):
            (root / split).mkdir(parents=True)
        self.write()


def by_msdet(root: Path, odd: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, float]]:
    """AP by the metric, by the pass that takes it apart, and by the error analysis of a finished run."""
    given = OddSet(root, odd)
    names = [category["name"] for category in odd["categories"]]
    truth = read_ground_truth(given.spec(), root, names)
    run = RunFolder(root / "run")
    run.detections.mkdir(parents=True)
    (run.detections / "val.bbox.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        measured = compute_coco_aps(truth, found)
        _, sizes, counts = CocoPass(truth, found).by_size()
        record = SimpleNamespace(dataset={"classes": names}, metrics=measured, status="done", digests={})
        page = load_breakdown(Evaluated(run, record, SimpleNamespace(weighting={}), truth))  # type: ignore[arg-type]
    assert counts["sizes"]["all"] == sum(not entry.get("iscrowd") for entry in content()["annotations"])
    three = {"AP": "all", "APS": "small", "APM": "medium", "APL": "large"}
    page_sizes = {"all": page.overall, **page.sizes}
    return [measured, *({n: values[key] for n, key in three.items()} for values in (sizes, page_sizes))]


def same(measured: list[dict[str, float]], expected: dict[str, float]) -> bool:
    return all(
        values == pytest.approx({n: expected[n] for n in values}, rel=0, abs=1e-9) for values in measured
    )


def test_the_expected_values_are_neither_all_wrong_nor_all_right() -> None:
    assert all(5 < value < 95 for value in EXPECTED.values()) and len(set(EXPECTED.values())) == 6


def test_pycocotools_itself_is_wrong_where_ids_are_odd() -> None:
    """That the tests below can fail."""
    assert by_pycocotools(content(lambda i: i - 1), detections())["AP"] < EXPECTED["AP"] - 1e-3


@pytest.mark.parametrize(("annotation", "image", "category"), [row[1:] for row in SPELLINGS], ids=IDS)
def test_coco_ap_does_not_depend_on_how_ids_are_spelled(
    annotation: Spelling, image: Spelling, category: Spelling, tmp_path: Path
) -> None:
    measured = by_msdet(tmp_path, content(annotation, image, category), detections(image, category))
    assert len(measured[0]) == 6 and same(measured, EXPECTED)


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    for number, section in enumerate(("images", "annotations", "categories")):
        odd = content()
        np.random.default_rng(0).shuffle(odd[section])
        assert same(by_msdet(tmp_path / str(number), odd, detections()), EXPECTED)


def test_ignore_is_evaluated_as_a_crowd(tmp_path: Path) -> None:
    odd = content(crowd="ignore")
    for entry in odd["annotations"]:
        entry["iscrowd"] = 0
    assert by_pycocotools(odd, detections())["AP"] != pytest.approx(EXPECTED["AP"], rel=0, abs=1e-3)
    given = [by_msdet(tmp_path / "ignore", odd, detections())[0]]
    assert same(given, EXPECTED)


@pytest.mark.parametrize("area", [0, None, -1, "missing"])
def test_a_box_without_area_is_evaluated_with_its_width_times_height(area: Any, tmp_path: Path) -> None:
    odd = content()
    for entry in odd["annotations"][::2]:
        entry["area"] = area
        if area == "missing":
            del entry["area"]
    assert same(by_msdet(tmp_path, odd, detections()), EXPECTED)


@pytest.mark.parametrize("flag", [True, 1.0])
def test_other_spellings_of_a_crowd(flag: Any, tmp_path: Path) -> None:
    odd = content()
    for entry in odd["annotations"]:
        entry["iscrowd"] = flag if entry["iscrowd"] else None
    assert same(by_msdet(tmp_path, odd, detections()), EXPECTED)


def test_one_class_of_three_is_evaluated_alone(tmp_path: Path) -> None:
    """The page leaves out the others; their objects and detections count nowhere."""
    for number, spelling in enumerate((as_is, lambda i: -i, lambda i: 2**63 + i)):
        given = OddSet(tmp_path / str(number), content(spelling, spelling, spelling))
        truth = read_ground_truth(given.spec(), given.root, ["cat"])
        found = [e for e in detections(spelling, spelling) if e["category_id"] == spelling(2)]
        plain = {**content(), "categories": [{"id": 2, "name": "cat"}]}
        plain["annotations"] = [e for e in plain["annotations"] if e["category_id"] == 2]
        expected = by_pycocotools(plain, [e for e in detections() if e["category_id"] == 2])
        with contextlib.redirect_stdout(io.StringIO()):
            assert same([compute_coco_aps(truth, found)], expected)


# Through the pipeline and the evaluator of a run


@pytest.mark.parametrize("name", ["from 0", "negative", "above 2^53", "above 2^63", "of 400 digits"])
def test_ids_survive_the_way_through_the_pipeline(name: str, coco_set: CocoSet, tmp_path: Path) -> None:
    spelling = ANNOTATIONS[name]
    before = find_dataset(coco_set.spec())
    found = random_detections(before, 1)
    expected = evaluated(before, found, tmp_path / "before")
    assert 0 < expected["AP"] < 100
    for split in ("train", "val"):
        for section, key in itertools.product(coco_set.content[split], ("id", "image_id", "category_id")):
            for entry in coco_set.content[split][section]:
                if key in entry:
                    entry[key] = spelling(entry[key])
    coco_set.write()
    after = find_dataset(coco_set.spec())
    assert after.classes == before.classes
    assert evaluated(after, found, tmp_path / "after") == pytest.approx(expected, rel=0, abs=1e-9)
    kept = json.loads((tmp_path / "after.bbox.json").read_text())
    assert {entry["image_id"] for entry in kept} <= {spelling(1), spelling(2)}
    assert {entry["category_id"] for entry in kept} <= {spelling(7), spelling(14)}
    assert "unusual id" in kinds(coco_set.spec(), "val")


def test_unusual_ids_are_mentioned_and_others_are_not(coco_set: CocoSet) -> None:
    for number, counted in ((0, 1), (-1, 1), (2**53 - 1, 0), (2**53, 1), (5, 0)):
        coco_set.content["train"]["annotations"][0]["id"] = number
        coco_set.write()
        assert kinds(coco_set.spec()) == ({"unusual id": 1} if counted else {})


VOC_IDS = [["0", "-1"], ["000", "00"], ["9007199254740993", "9007199254740992"], ["9" * 100, "9" * 99],
           ["1e5", "100000"], ["NaN", "nan"], ["Käse", "猫"], ["a.b", "a.b.c"], ["None", "True"],
           ["#1", "%20"]]  # fmt: skip


@pytest.mark.parametrize("names", VOC_IDS, ids=["/".join(names)[:24] for names in VOC_IDS])
def test_voc_map_does_not_depend_on_how_ids_are_spelled(
    names: list[str], voc_set: VocSet, tmp_path: Path
) -> None:
    voc_set.write_xml("d", [("cat", (9, 9, 25, 25), 0), ("dog", (2, 2, 15, 12), 0)])
    before = find_dataset(voc_set.spec())
    found = random_detections(before, 4)
    expected = evaluated(before, found, tmp_path / "before")["mAP"]
    assert 0 < expected < 100
    for old, new in zip(("d", "e"), names, strict=True):
        voc_set.xml(old).rename(voc_set.xml(new))
        (voc_set.root / "JPEGImages" / f"{old}.jpg").rename(voc_set.root / "JPEGImages" / f"{new}.jpg")
    (voc_set.root / "val.txt").write_text("\n".join(names))
    after = find_dataset(voc_set.spec())
    assert [info["img_id"] for info in infos(evaluation_set(after))] == names
    assert evaluated(after, found, tmp_path / "after")["mAP"] == expected
    truth = read_ground_truth(voc_set.spec(), voc_set.root, after.classes)
    kept = json.loads((tmp_path / "after.bbox.json").read_text())
    assert compute_voc_aps(truth, kept, after.classes)[1] == expected

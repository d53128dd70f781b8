"""AP taken apart: against pycocotools, levels against the detectors' own formulas, and what a report makes of it."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.reporting import breakdown as errors
from experiments.reporting import build_report, collect
from experiments.reporting.breakdown.comparison import load_group
from experiments.reporting.breakdown.image_drawing import select_boxes
from experiments.reporting.breakdown.level_ranges import BY_HALF_SIDE, Resize, find_levels
from experiments.reporting.breakdown.run_breakdown import load_breakdown, open_evaluation
from experiments.runs.outputs import digest_outputs
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app

from .conftest import MakeRun

Farm = Callable[..., RunFolder]
CATEGORIES = {"cat": 9, "dog": 3, "cow": 12}
PIPELINE = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}]
STRIDES = [8, 16, 32, 64, 128]
ANCHORS = {"octave_base_scale": 4, "scales_per_octave": 3, "strides": STRIDES, "ratios": [0.5, 1.0, 2.0]}
RETINA = {"bbox_head": {"type": "RetinaHead", "anchor_generator": ANCHORS}}
FCOS = {"bbox_head": {"type": "FCOSHead", "strides": STRIDES}}
FASTER = {
    "rpn_head": {
        "anchor_generator": {"scales": [8], "ratios": [0.5, 1.0, 2.0], "strides": [4, 8, 16, 32, 64]}
    },
    "roi_head": {"bbox_roi_extractor": {"type": "SingleRoIExtractor", "featmap_strides": [4, 8, 16, 32]}},
}


def config_for(model: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "test_dataloader": {"dataset": {"pipeline": PIPELINE}}}


# ---------------------------------------------------------------------------------------------- levels


def test_anchor_levels_are_those_of_the_best_centred_anchor():
    levels = find_levels(config_for(RETINA))
    anchors = [(f"P{3 + i}", 4 * stride * 2 ** (k / 3)) for i, stride in enumerate(STRIDES) for k in range(3)]
    for length in np.geomspace(5, 2000, 700):
        overlap = {anchor: min(length, anchor[1]) ** 2 / max(length, anchor[1]) ** 2 for anchor in anchors}
        best = max(overlap, key=lambda anchor: overlap[anchor])[0]
        assert [n for n, (low, high) in levels.ranges.items() if low <= length < high] == [best]
    assert levels.ranges["P3"][1] == pytest.approx(32 * 2 ** (5 / 6))
    assert levels.words("P3") == "below 57 px"


def test_roi_levels_are_where_the_extractor_pools():
    levels = find_levels(config_for(FASTER))
    for length in np.geomspace(5, 2000, 300):
        pooled = min(max(math.floor(math.log2(length / 56)), 0), 3)
        assert [n for n, (low, high) in levels.ranges.items() if low <= length < high] == [f"P{2 + pooled}"]
    assert list(find_levels(config_for(FASTER), where="rpn").ranges) == ["P2", "P3", "P4", "P5", "P6"]


def test_fcos_levels_are_its_regression_ranges_at_an_objects_centre():
    levels = find_levels(config_for(FCOS))
    assert levels.measure == BY_HALF_SIDE
    assert levels.ranges["P3"] == (0, 64)
    assert levels.ranges["P7"] == (512, math.inf)
    assert (levels.named, levels.words("P4")) == ("longer side", "128 to 256 px")
    given = {
        "bbox_head": {**FCOS["bbox_head"], "regress_ranges": [[-1, 16], [16, 1e8], [1, 2], [1, 2], [1, 2]]}
    }
    assert list(find_levels(config_for(given)).ranges.values())[:2] == [(0, 16), (16, math.inf)]
    # 100 x 40 in an image of 640 x 480, which is tested at 1067 x 800
    assert levels.size(100, 40, (640, 480)) == pytest.approx(100 * 1067 / 640 / 2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"bbox_head": {"type": "FSAFHead", "anchor_generator": ANCHORS}}, "by its loss"),
        ({"roi_head": {"bbox_roi_extractor": {"type": "SoftRoIExtractor"}}}, "from all levels"),
        ({"bbox_head": {"type": "Odd"}}, "tell levels apart"),
        ({}, "tell levels apart"),
    ],
)
def test_where_no_level_follows_from_a_size_it_is_said(model: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        find_levels(config_for(model))


def test_sizes_are_those_of_the_resized_image():
    assert Resize((1333, 800), True).factors(640, 480) == (1067 / 640, 800 / 480)
    assert Resize((1333, 800), True).factors(500, 2000) == (333 / 500, 1333 / 2000)
    assert Resize((160, 80), False).factors(320, 320) == (0.5, 0.25)


# -------------------------------------------------------------------------------------------- one run


def made_data(folder: Path, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of images of several sizes, some of them crowds, and detections that find most objects."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for image_id in range(3, 33):
        width, height = int(rng.integers(300, 700)), int(rng.integers(300, 700))
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
        for _ in range(rng.integers(0, 6)):
            sides = np.exp(rng.uniform(np.log(8), np.log(280), 2))
            box = [*rng.uniform(0, np.array([width, height]) - sides), *sides]
            category = int(rng.choice([9, 3]))  # no cow
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": box,
                 "iscrowd": int(rng.random() < 0.1), "area": sides[0] * sides[1] * rng.uniform(0.4, 1)}
            )  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                moved = np.array(box) + rng.normal(0, rng.choice([0.02, 0.1, 0.3]), 4) * np.tile(sides, 2)
                moved[2:] = np.maximum(moved[2:], 1)
                found.append({"image_id": image_id, "bbox": moved.tolist(), "score": float(rng.random()),
                              "category_id": category if rng.random() < 0.9 else 12})  # fmt: skip
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": i, "name": name} for name, i in CATEGORIES.items()]
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(content))
    return content, found


def pycocotools(
    content: dict[str, Any], found: list[dict[str, Any]], areas: list, measure: Any = None
) -> np.ndarray:
    """(classes, areas) AP in percent, NaN without ground truth; `measure` gives a box its area."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        results = truth.loadRes(copy.deepcopy(found))
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for box in [*truth.anns.values(), *results.anns.values()] if measure else ():
            box["area"] = measure(*box["bbox"][2:], *sizes[box["image_id"]])
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = areas, [str(a) for a in areas]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]
    precision[precision < 0] = np.nan
    return 100 * precision.mean(axis=(0, 1))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    page = f"name: farm\nformat: coco\nroot: {tmp_path}\nsplits:\n"
    page += "".join(f"  {s}: {{annotations: {s}.json, images: images}}\n" for s in ("train", "val"))
    path = tmp_path / "farm.yaml"
    path.write_text(page)
    return path


def config_page(model: dict[str, Any]) -> str:
    """As MMEngine dumps it: assignments, with `dict(...)` for mappings."""

    def written(value: Any) -> str:
        if isinstance(value, dict):
            return f"dict({', '.join(f'{k}={written(v)}' for k, v in value.items())})"
        return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else repr(value)

    return "".join(f"{key} = {written(value)}\n" for key, value in config_for(model).items())


@pytest.fixture
def farm(tmp_path: Path, spec: Path, make_run: MakeRun) -> Farm:
    """Makes finished runs on that data; `draw` decides which of the detections a run has."""
    content, every = made_data(tmp_path)

    def make(recipe: str, seed: int, draw: int = 0) -> RunFolder:
        rng = np.random.default_rng(draw)
        found = [entry for entry in every if rng.random() < 0.8]
        ap = float(np.nanmean(pycocotools(content, found, [[0, 1e10]])))
        run = make_run(recipes.load_recipe(recipe, "tiny", dataset=str(spec)), seed, {"AP": ap})
        record = run.read()
        record.dataset |= {"root": str(tmp_path), "format": "coco", "classes": list(CATEGORIES)}
        run.write(record)
        run.config.write_text(config_page(RETINA))
        run.detections.mkdir()
        (run.detections / "val.bbox.json").write_text(json.dumps(found))
        return run

    return make


def test_every_part_is_what_pycocotools_finds(farm: Farm, tmp_path: Path):
    run = farm("retinanet-r50", 0)
    made = load_breakdown(open_evaluation(run))
    content = json.loads((tmp_path / "val.json").read_text())
    found = json.loads((run.detections / "val.bbox.json").read_text())
    per_class = pycocotools(content, found, [[0, 1e10], [0, 1024], [1024, 9216], [9216, 1e10], [256, 1024]])
    assert made.overall == pytest.approx(np.nanmean(per_class[:, 0]), abs=1e-9)
    assert 15 < made.overall < 90
    assert made.classes == pytest.approx({"cat": per_class[1, 0], "dog": per_class[0, 0]}, abs=1e-9)
    assert np.mean(list(made.classes.values())) == pytest.approx(made.overall, abs=1e-9)
    sizes = {n: made.sizes[n] for n in ("small", "medium", "large", "16-32 px")}
    assert list(sizes.values()) == pytest.approx(np.nanmean(per_class[:, 1:], axis=0), abs=1e-9)

    def tested(width: float, height: float, image_width: int, image_height: int) -> float:
        """px^2 in the tested image, which is 1333 x 800 at most, either way round."""
        long, short = max(image_width, image_height), min(image_width, image_height)
        factor = min(1333 / long, 800 / short)
        grown = [math.floor(side * factor + 0.5) / side for side in (image_width, image_height)]
        return width * grown[0] * height * grown[1]

    borders = [0, *(32 * 2 ** (5 / 6 + i) for i in range(4)), 1e5]
    areas = [[low**2, high**2] for low, high in itertools.pairwise(borders)]
    by_level = pycocotools(content, found, areas, tested)
    expected = {f"P{3 + i}": np.nanmean(ap) for i, ap in enumerate(by_level.T) if not np.isnan(ap).all()}
    assert len(expected) >= 4
    assert made.levels == pytest.approx(expected, abs=1e-9)
    counting = [a for a in content["annotations"] if not a["iscrowd"]]
    assert sum(made.counts["classes"].values()) == sum(made.counts["levels"].values()) == len(counting)


def test_what_was_computed_is_cached_until_detections_change(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDET_NO_CACHE", raising=False)
    run = farm("retinanet-r50", 0)
    detections = run.detections / "val.bbox.json"
    os.utime(detections, (1, 1))  # a file that changed just now may change again unnoticed
    first = load_breakdown(open_evaluation(run))
    assert load_breakdown(open_evaluation(run)) == first
    assert capsys.readouterr().err == f"error analysis of {run.name} (remembered for next time)\n"
    assert sorted(path.name for path in run.detections.iterdir()) == ["val.bbox.json"]
    detections.write_text(json.dumps(json.loads(detections.read_text())[10:]))
    os.utime(detections, (2, 2))
    with pytest.raises(UserError, match="its record says"):
        load_breakdown(open_evaluation(run))
    assert capsys.readouterr().err.startswith("error analysis of")
    for entry in (tmp_path / "cache").rglob("*.json"):
        entry.write_text("{")  # a cache that is broken is none
    with pytest.raises(UserError, match="its record says"):
        load_breakdown(open_evaluation(run))


# ----------------------------------------------------------------------------------- commands and report


def test_a_report_says_where_differences_lie(
    farm: Farm, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import cv2

    monkeypatch.setattr("experiments.reporting.breakdown.image_drawing.IMAGES", 1)
    (tmp_path / "images").mkdir()
    for image in range(3, 33):
        cv2.imwrite(str(tmp_path / "images" / f"{image}.jpg"), np.zeros((48, 64, 3), np.uint8))
    aps: dict[str, list[float]] = {"retinanet-r50": [], "retinanet-r50-rlo": []}
    for draw, recipe in enumerate(list(aps) * 3):
        aps[recipe].append(farm(recipe, draw // 2, draw).read().metrics["AP"])
    differences, detections = errors.build_breakdown_sections(build_report(collect(results), ["table1"]))
    assert differences.title.startswith("Where the differences lie: RetinaNet w/ RLO against RetinaNet")
    assert [grid.header[0] for grid in differences.grids] == ["class", "level", "size"]
    means = [f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} (3)" for values in aps.values()]
    change = np.mean(aps["retinanet-r50-rlo"]) - np.mean(aps["retinanet-r50"])
    for grid in differences.grids:
        assert list(grid.rows[0][2:4]) == means
        assert grid.rows[0][4].startswith(f"{change:+.1f} [")
        assert all(len(row) == len(grid.header) for row in grid.rows)
    assert {row[0] for row in differences.grids[0].rows[1:]} == {"cat", "dog"}
    assert [picture.name for picture in differences.pictures] == ["errors-classes", "errors-levels"]
    assert len(differences.folders) == 6
    (drawn,) = detections.pictures
    assert drawn.png.startswith(b"\x89PNG")
    assert drawn.svg.startswith("<svg")
    assert "drawn at random" in drawn.caption


def test_drawn_boxes_are_the_kept_detections_above_the_threshold(farm: Farm):
    one = open_evaluation(farm("retinanet-r50", 0))
    names = {i: name for name, i in CATEGORIES.items()}
    ids = [image.id for image in one.truth.images]
    boxes = select_boxes(one, ids, 0.5)
    kept = json.loads((one.run.detections / "val.bbox.json").read_text())
    for image in ids:
        wanted = [(e["bbox"], f"{names[e['category_id']]} {e['score']:.2f}") for e in kept
                  if e["image_id"] == image and e["score"] >= 0.5]  # fmt: skip
        assert [(list(box.box), box.label) for box in boxes[image]] == wanted
    assert 0 < sum(map(len, boxes.values())) < len(kept)


def test_a_report_without_the_data_says_so(farm: Farm, results: Path, tmp_path: Path):
    farm("retinanet-r50", 0)
    farm("retinanet-r50-rlo", 0, 1)
    (tmp_path / "val.json").unlink()
    differences, detections = errors.build_breakdown_sections(build_report(collect(results), ["table1"]))
    assert any("val.json" in text for text in differences.texts)
    assert not differences.grids
    assert "val.json" in detections.texts[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "holds no detections: Invalid JSON"),
        ('{"a": 1}', "holds no detections"),
        ('[{"image_id": 3, "category_id": 3, "bbox": [1, 2], "score": 0.5}]', "holds no detections"),
        (
            '[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}]',
            "image 1 with category 3",
        ),
        (
            '[{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
            "image 3 with category 1",
        ),
    ],
)
def test_odd_detections_are_a_sentence(farm: Farm, content: str, says: str):
    run = farm("retinanet-r50", 0)
    (run.detections / "val.bbox.json").write_text(content)
    made = load_group("a run", [run])
    assert not made.by_seed
    (problem,) = made.problems
    assert says in problem


def test_detections_that_changed_since_are_left_out_though_their_ap_is_the_same(farm: Farm):
    run = farm("retinanet-r50", 0)
    record = run.read()
    record.digests = digest_outputs(run, record)
    run.write(record)
    assert not load_group("a run", [run]).problems
    detections = run.detections / "val.bbox.json"
    detections.write_text(json.dumps(json.loads(detections.read_text())[::-1]))
    (problem,) = load_group("a run", [run]).problems
    assert "val.bbox.json is not as the run wrote it" in problem


def test_a_report_without_pairs_has_no_such_section(farm: Farm, results: Path, make_run: MakeRun):
    assert errors.build_breakdown_sections(build_report(collect(results), ["table1"])) == []
    farm("retinanet-r50", 0)
    make_run("retinanet-r50-rlo", 1, status="failed", profile="tiny")
    assert errors.build_breakdown_sections(build_report(collect(results), ["table1"])) == []


def test_the_command_compares_all_seeds_of_each_config(farm: Farm, results: Path, tmp_path: Path):
    for seed in range(2):
        farm("retinanet-r50", seed, seed)
        farm("retinanet-r50-rlo", seed, seed + 2)
    words = ["errors", "retinanet-r50", "retinanet-r50-rlo", "--results-dir", str(results)]
    told = CliRunner().invoke(app, [*words, "--json", "--out", str(tmp_path / "drawn")])
    assert told.exit_code == 0, told.output
    content = json.loads(told.stdout)
    values = {
        seed: made["overall"] for seed, made in content["sides"]["retinanet-r50-rlo"]["by_seed"].items()
    }
    own = sorted(results.glob("runs/retinanet-r50-rlo/*/*"))
    recorded = {str(seed): RunFolder(path).read().metrics["AP"] for seed, path in enumerate(own)}
    assert values == pytest.approx(recorded, abs=1e-9)
    assert content["differences"]["retinanet-r50-rlo"]["classes"]["cat"]["n"] == 2
    assert (tmp_path / "drawn" / "retinanet-r50-rlo-classes.svg").is_file()
    shown = CliRunner().invoke(app, words)
    assert "AP by pyramid level" in shown.output
    assert "fewer than three seeds" in shown.output
    wrong = CliRunner().invoke(app, ["errors", "retinanet-r50", "nothing", "--results-dir", str(results)])
    assert isinstance(wrong.exception, UserError)

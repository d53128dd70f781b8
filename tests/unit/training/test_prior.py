"""The foreground prior against a count on paper and against stock MMDetection's targets; its cache; where it goes."""

from __future__ import annotations

import copy
import json
import os
import random
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mmengine import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from typer.testing import CliRunner

from experiments.common import cache
from experiments.common.errors import UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.training import components  # noqa: F401  (registers what the configs name)
from experiments.training.config import foreground_prior as prior_module
from experiments.training.config.anchor_count import AnchorCounter, select_candidates
from experiments.training.config.builder import build_config
from experiments.training.config.foreground_prior import (
    ForegroundPrior,
    count_prior,
    find_known_prior,
    set_prior,
)
from experiments.training.config.keys import set_key
from msdet_cli.app import app
from tests.children import search_path
from tests.unit.training.conftest import write_coco, write_voc

from mmdet.registry import DATASETS, MODELS  # isort: skip

# Anchors of 16 pixels every 16 pixels, in an image of 64 x 48 padded to 64 x 64: 16 of them, centred on multiples
# of 16. IoU 0.5 and more is foreground, 0.4 to 0.5 is ignored.
ANCHORS = (
    "model.bbox_head.anchor_generator={type: AnchorGenerator, strides: [16], ratios: [1.0], scales: [1.0]}"
)
SAME_AS_AN_ANCHOR = (8, 8, 24, 24)  # that at (16, 16)
ACROSS_TWO = (24, 24, 54, 40)  # 16/30 of the union with the one at (32, 32), 14/32 with the one at (48, 32)
HIDDEN = (0, 0, 64, 48)  # a crowd, or difficult: neither foreground nor ignored anchors come from it
# Two images with boxes or a crowd, one with nothing, which training leaves out: 2 foreground, 1 ignored of 32.
ON_PAPER = ForegroundPrior(images=2, foreground=2, anchors=31, classes=2)


def settle(root: Path) -> None:
    """Makes everything look an hour old: what rests on files that changed just now is not remembered."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)


def make_coco(root: Path) -> dict[str, Any]:
    sized = [
        [c, x, y, x2 - x, y2 - y]
        for c, (x, y, x2, y2) in ((3, SAME_AS_AN_ANCHOR), (9, ACROSS_TWO), (3, HIDDEN))
    ]
    write_coco(root, "train", {"a.png": sized, "b.png": sized[2:], "c.png": []}, "train")
    write_coco(root, "val", {"a.png": sized[:1]}, "val")
    content = json.loads((root / "train.json").read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation["bbox"] == [0, 0, 64, 48])
    (root / "train.json").write_text(json.dumps(content))
    return {"train": {"annotations": "train.json", "images": "train"},
            "val": {"annotations": "val.json", "images": "val"}}  # fmt: skip


def make_voc(root: Path) -> dict[str, Any]:
    def thing(name: str, difficult: int, box: tuple[int, ...]) -> tuple:
        return (name, difficult, *(corner + 1 for corner in box))  # VOC counts pixels from 1

    objects = [thing("cat", 0, SAME_AS_AN_ANCHOR), thing("dog", 0, ACROSS_TWO), thing("cat", 1, HIDDEN)]
    write_voc(root, "train", {"a": objects, "b": objects[2:], "c": []})
    write_voc(root, "val", {"d": objects[:1]})
    return {split: {"annotations": f"ImageSets/Main/{split}.txt"} for split in ("train", "val")}


def small(tmp_path: Path, data_format: str, *sets: str) -> tuple[Recipe, FoundDataset]:
    """The tiny recipe over the data set above, with the anchors above."""
    root = tmp_path / data_format
    if not root.exists():
        root.mkdir()
        splits = (make_coco if data_format == "coco" else make_voc)(root)
        settle(root)
        spec = {"name": "mine", "format": data_format, "root": str(root), "splits": splits}
        (tmp_path / f"{data_format}.yaml").write_text(yaml.safe_dump(spec))
    sets = ("image_size=[64, 64]", ANCHORS, *sets)
    recipe = load_recipe("retinanet-r50-guided", "tiny", sets, str(tmp_path / f"{data_format}.yaml"))
    return recipe, find_dataset(recipe.dataset)


def built(recipe: Recipe, found: FoundDataset) -> Config:
    return build_config(recipe, found.classes, found.root, Path("run"))


@pytest.mark.parametrize("data_format", ["coco", "voc"])
def test_the_prior_is_that_counted_on_paper(data_format: str, tmp_path: Path) -> None:
    recipe, found = small(tmp_path, data_format, "dataset.repeat=3")
    for image in [*found.root.rglob("*.png"), *found.root.rglob("*.jpg")]:
        image.write_bytes(b"no image")  # nothing needs to read it
    steps = []
    counted = count_prior(built(recipe, found), found.fingerprint, lambda *done: steps.append(done))
    assert counted == ON_PAPER
    assert counted.value == pytest.approx(2 / (31 * 2))
    assert counted.score_threshold == pytest.approx(2 / 31)
    assert steps == [(1, 2), (2, 2)]


def test_anchors_that_reach_out_of_the_image_count_only_where_they_are_trained(tmp_path: Path) -> None:
    # of 16 anchors the 6 centred on x = 16, 32, 48 and y = 16, 32 lie within 64 x 48; one of them is ignored once
    recipe, found = small(tmp_path, "coco", "model.train_cfg.allowed_border=0")
    assert count_prior(built(recipe, found), found.fingerprint) == ForegroundPrior(2, 2, 5 + 6, 2)


def test_every_image_is_counted_as_stock_mmdetection_assigns_it(shapes_root: Path) -> None:
    # not square, so that the images are padded, and through the detector's own layers, which size the levels
    recipe = load_recipe("retinanet-r50-guided", "tiny", ["image_size=[200, 150]"])
    config = build_config(recipe, ["disc", "square", "triangle", "star"], shapes_root, Path("run"))
    part = config.train_dataloader.dataset
    bare = DATASETS.build({**part, "pipeline": []})
    load, *rest = config.val_dataloader.dataset.pipeline
    annotations = dict(type="LoadAnnotations", with_bbox=True)
    pipeline = [load, annotations, *(s for s in rest if s["type"] != "LoadAnnotations")]
    with DefaultScope.overwrite_default_scope("mmdet"):
        whole, model = DATASETS.build({**part, "pipeline": pipeline}), MODELS.build(config.model)
    counter = AnchorCounter(config)
    for index in range(6):
        data = model.data_preprocessor(pseudo_collate([whole[index]]), training=True)
        sample, head = data["data_samples"][0], model.bbox_head
        with torch.no_grad():
            levels = [f.shape[-2:] for f in model.extract_feat(data["inputs"])]
        anchors, valid = head.get_anchors(levels, [sample.metainfo], "cpu")
        targets = head.get_targets(
            anchors, valid, [sample.gt_instances], [sample.metainfo], [sample.ignored_instances]
        )
        labels, weights = torch.cat(targets[0], 1), torch.cat(targets[1], 1)
        expected = int((labels < head.num_classes).sum()), int((weights > 0).sum())
        assert counter.count(bare.get_data_info(index)) == expected
        assert expected[0] > 0


def test_leaving_out_anchors_that_cannot_matter_changes_no_count(shapes_root: Path) -> None:
    config = build_config(load_recipe("retinanet-r50-guided"), ["thing"], shapes_root, Path("run"))
    quick, full = AnchorCounter(config), AnchorCounter(config)
    assert quick._bound == 0.4
    full._bound = None
    generator = torch.Generator().manual_seed(0)
    for boxes in (1, 5, 12):
        # from slivers and specks that overlap no anchor much, to the whole image
        sides = (torch.rand(boxes, 2, generator=generator) * 6).exp().clamp(max=300)
        start = torch.rand(boxes, 2, generator=generator) * (300 - sides)
        instances = [
            dict(bbox=b, bbox_label=0, ignore_flag=0) for b in torch.cat([start, start + sides], 1).tolist()
        ]
        info = dict(height=300, width=310, instances=instances)
        assert quick.count(info) == full.count(info)


def test_a_box_of_no_size_leaves_all_anchors_to_the_assigner() -> None:
    grid = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 16, 2]], [[0, 8, 8, 16], [0, 8, 16, 12]]])[:, None]
    assert select_candidates([grid], torch.tensor([[3.0, 1, 3, 9]]), 0.4).all()
    assert select_candidates([grid], torch.tensor([[0.0, 0, 8, 8]]), 0.4).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_without_foreground_there_is_no_prior(tmp_path: Path) -> None:
    recipe, found = small(tmp_path, "coco", "model.train_cfg.assigner.match_low_quality=false",
                          "model.train_cfg.assigner.pos_iou_thr=1.1")  # fmt: skip
    with pytest.raises(UserError, match="no anchor is foreground in the 2 training images"):
        count_prior(built(recipe, found), found.fingerprint)


def test_a_worker_that_is_asked_to_stop_does_not_count_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, found = small(tmp_path, "coco")
    monkeypatch.setattr(prior_module, "STOP", threading.Event())
    with pytest.raises(KeyboardInterrupt):
        count_prior(built(recipe, found), found.fingerprint, lambda *done: prior_module.STOP.set())
    assert find_known_prior(built(recipe, found), found.fingerprint) is None


# A sample of large sets


def sampled(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(prior_module, "SAMPLE_IMAGES", size)
    monkeypatch.setattr(cache, "_MIN_AGE_S", -60.0)  # else new files leave nothing in the cache


@pytest.mark.slow
def test_of_a_large_set_a_sample_is_counted_and_exact_counts_all(
    shapes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config(
        load_recipe("retinanet-r50-guided", "tiny"),
        ["disc", "square", "triangle", "star"],
        shapes_root,
        Path("run"),
    )
    everything = count_prior(config, "whole")
    assert (everything.sampled_from, everything.standard_error) == (None, 0.0)
    assert everything.images == len(DATASETS.build({**config.train_dataloader.dataset, "pipeline": []}))
    sampled(monkeypatch, everything.images - 4)
    first, again = count_prior(config, "sample"), count_prior(config, "sample")
    assert first == again and (first.images, first.sampled_from) == (everything.images - 4, everything.images)
    assert first.standard_error > 0 and abs(first.value - everything.value) < 4 * first.standard_error
    assert (
        find_known_prior(config, "sample") == first and find_known_prior(config, "sample", exact=True) is None
    )
    assert count_prior(config, "sample", exact=True) == everything
    assert find_known_prior(config, "sample") == everything  # the better one counts from here on


def test_the_standard_error_is_the_spread_of_the_ratio_over_samples() -> None:
    generator = random.Random(3)
    population = [
        (x // 20 + generator.randrange(9), x) for x in (generator.randrange(50, 400) for _ in range(300))
    ]
    ratios, errors = [], []
    for _ in range(2000):
        drawn = generator.sample(population, 120)
        ratios.append(sum(y for y, _ in drawn) / sum(x for _, x in drawn))
        errors.append(prior_module.compute_standard_error(drawn, len(population)))
    assert statistics.mean(errors) == pytest.approx(statistics.stdev(ratios), rel=0.05)
    assert prior_module.compute_standard_error(population, len(population)) == 0


@pytest.mark.slow
def test_the_command_shows_the_standard_error_of_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path, "coco")
    sampled(monkeypatch, 1)
    monkeypatch.setattr(prior_module, "compute_standard_error", lambda pairs, total: 0.5 / total)
    monkeypatch.setattr(prior_module, "SAMPLE_SEED", 1)  # the image with foreground
    command = ["prior", "retinanet-r50-guided", "-p", "tiny", "--dataset", str(tmp_path / "coco.yaml"),
               "--set", "image_size=[64, 64]", "--set", ANCHORS]  # fmt: skip
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (found["images"], found["training_images"], found["standard_error"]) == (1, 2, 0.125)
    printed = CliRunner().invoke(app, command).stdout
    assert "in 1 of 2 training images" in printed and "standard error of π   0.12" in printed
    exact = json.loads(CliRunner().invoke(app, [*command, "--json", "--exact"]).stdout)
    assert (exact["images"], exact["prior"], exact["standard_error"]) == (2, ON_PAPER.value, 0)


# The cache


def test_a_second_time_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, found = small(tmp_path, "voc")
    config = built(recipe, found)
    assert find_known_prior(config, found.fingerprint) is None
    count_prior(config, found.fingerprint)
    assert find_known_prior(built(recipe, found), found.fingerprint) == ON_PAPER
    monkeypatch.setattr(prior_module, "count_prior", None)
    assert set_prior(config, recipe, found.fingerprint) == ON_PAPER.value


def test_what_the_count_follows_from_makes_another_entry(tmp_path: Path) -> None:
    recipe, found = small(tmp_path, "coco")
    config = built(recipe, found)
    count_prior(config, found.fingerprint)
    assert find_known_prior(config, found.fingerprint) == ON_PAPER
    assert find_known_prior(config, "0" * 16) is None
    for key, value in {
        "model.bbox_head.anchor_generator.scales": [2.0],
        "model.train_cfg.assigner.pos_iou_thr": 0.6,
        "model.train_cfg.allowed_border": 0,
        "model.data_preprocessor.pad_size_divisor": 16,
        "train_dataloader.dataset.metainfo.classes": ["dog", "cat"],
        "train_dataloader.dataset.filter_cfg.min_size": 50,
        "val_dataloader.dataset.pipeline.1.scale": [96, 96],
    }.items():
        changed = copy.deepcopy(config)
        set_key(changed, key, value)
        assert find_known_prior(changed, found.fingerprint) is None, key
    (found.root / "train.json").touch()
    assert find_known_prior(config, found.fingerprint) is None


def test_what_the_count_does_not_follow_from_changes_nothing(tmp_path: Path) -> None:
    recipe, found = small(tmp_path, "coco")
    count_prior(built(recipe, found), found.fingerprint)
    other, _ = small(tmp_path, "coco", "weighting.rule=rlo", "schedule.lr=0.1", "model.bbox_head.stacked_convs=3",
                     "model.test_cfg.score_thr=0.2", "dataset.repeat=2")  # fmt: skip
    assert find_known_prior(built(other, found), found.fingerprint) == ON_PAPER


# Where it goes


def given(tmp_path: Path, *sets: str, **options: Any) -> tuple[float | None, Any, Any]:
    """What `set_prior` returns, and the config's prior and score threshold after it."""
    recipe, found = small(tmp_path, "coco", *sets)
    config = built(recipe, found)
    returned = set_prior(config, recipe, found.fingerprint, **options)
    return returned, config.model.bbox_head.get("foreground_prior"), config.model.test_cfg.score_thr


def test_the_config_gets_prior_and_score_threshold_as_plain_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    prior = ON_PAPER.value
    assert given(tmp_path) == (prior, prior, pytest.approx(2 / 31))
    assert "counting the foreground prior: 2 of 2 images" in capfd.readouterr().err
    recipe, found = small(tmp_path, "coco")
    config = built(recipe, found)
    set_prior(config, recipe, found.fingerprint)
    written = Config.fromstring(config.pretty_text, ".py")
    assert written.model.bbox_head.foreground_prior == prior
    assert written.model.test_cfg.score_thr == prior * 2
    head = MODELS.build({**written.model.bbox_head, "train_cfg": written.model.train_cfg})
    assert head.foreground_prior == prior


def test_what_the_recipe_gives_is_taken_literally(tmp_path: Path) -> None:
    assert given(tmp_path, "model.bbox_head.foreground_prior=1e-5") == (1e-5, 1e-5, pytest.approx(2e-5))
    assert given(tmp_path, "model.test_cfg.score_thr=0.05")[2] == 0.05
    assert given(tmp_path, "model.test_cfg={nms_pre: 9, score_thr: 0.04}")[2] == 0.04
    assert given(tmp_path, trained_with=0.125) == (0.125, 0.125, 0.25)
    for wrong in ("2", "often"):
        with pytest.raises(
            UserError, match=r"foreground_prior: .* is not allowed: a number above 0 and below 1"
        ):
            given(tmp_path, f"model.bbox_head.foreground_prior={wrong}")


@pytest.mark.slow
def test_nothing_is_counted_to_show_a_config_or_for_another_detector(tmp_path: Path) -> None:
    assert given(tmp_path, count=False) == (None, None, 0.05)
    recipe, found = load_recipe("retinanet-r50-rlo", "tiny"), small(tmp_path, "coco")[1]
    config = built(recipe, found)
    before = config.pretty_text
    assert set_prior(config, recipe, found.fingerprint) is None
    assert config.pretty_text == before


def test_the_command_prints_what_it_counts(tmp_path: Path) -> None:
    small(tmp_path, "coco")
    command = ["prior", "retinanet-r50-guided", "-p", "tiny", "--dataset", str(tmp_path / "coco.yaml"),
               "--set", "image_size=[64, 64]", "--set", ANCHORS]  # fmt: skip
    for _ in range(2):  # counted, then remembered
        found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
        assert (found["images"], found["foreground_anchors"], found["anchors"], found["classes"]) == (
            2,
            2,
            31,
            2,
        )
        assert found["prior"] == ON_PAPER.value
        assert found["score_threshold"] == pytest.approx(2 / 31)
    printed = CliRunner().invoke(app, command).stdout
    assert "prior π               0.03226" in printed and "score threshold π · C 0.06452" in printed
    other = CliRunner().invoke(app, ["prior", "retinanet-r50", *command[2:6]])
    assert isinstance(other.exception, UserError) and "no Guided Loss" in other.exception.message


def test_a_process_of_its_own_knows_the_data_sets(tmp_path: Path) -> None:
    """Other tests have registered them in this one."""
    small(tmp_path, "coco")
    words = ["prior", "retinanet-r50-guided", "-p", "tiny", "--dataset", str(tmp_path / "coco.yaml"),
             "--set", "image_size=[64, 64]", "--set", ANCHORS, "--json"]  # fmt: skip
    command = [sys.executable, "-c", "from msdet_cli.main import main; main()", *words]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": search_path()}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["prior"] == ON_PAPER.value

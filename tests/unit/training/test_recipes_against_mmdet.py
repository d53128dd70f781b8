"""The shipped recipes: what each baseline changes in the MMDetection config that it names, and every schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config

from experiments.recipes import catalogue
from experiments.recipes.loading import load_recipe
from tests.unit.training.test_config import (
    ABSENT,
    CONFIGS,
    EVALUATOR,
    READER,
    REMOVED,
    RESUMING,
    built,
    differences,
)

from mmdet.datasets import CocoDataset, VOCDataset  # isort: skip

RECIPES = list(catalogue.list_pages("recipe"))
COCO, VOC = CocoDataset.METAINFO["classes"], VOCDataset.METAINFO["classes"]

# ------------------------------------------------------------------------- against MMDetection's configs

HALVED = {
    "optim_wrapper.optimizer.lr": (0.01, 0.005)
}  # RetinaNet's rate in the paper; others': 16 images to 8
RCNN = {"optim_wrapper.optimizer.lr": (0.02, 0.01)}
BALANCED_L1 = {"alpha": 0.5, "gamma": 1.5, "beta": 1.0}
LIBRA_NECK = Config.fromfile(CONFIGS / "libra_rcnn" / "libra-retinanet_r50_fpn_1x_coco.py").model.neck
FPN = Config.fromfile(CONFIGS / "retinanet" / "retinanet_r50_fpn_1x_coco.py").model.neck

# Each baseline recipe: the config that it names, and what it changes there beside what all of them change.
BASELINES: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "retinanet-r50": ("retinanet/retinanet_r50_fpn_1x_coco.py", HALVED),
    "retinanet-r101": ("retinanet/retinanet_r101_fpn_1x_coco.py", HALVED),
    "fcos-r50": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", {}),
    "fcos-r101": ("fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py", {}),
    "faster-rcnn-r50": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", RCNN),
    "faster-rcnn-r101": ("faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py", RCNN),
    "faster-rcnn-r50-pafpn": ("pafpn/faster-rcnn_r50_pafpn_1x_coco.py", RCNN),
    "faster-rcnn-r50-balanced-l1": (
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        {
            **RCNN,
            "model.roi_head.bbox_head.loss_bbox.type": ("L1Loss", "BalancedL1Loss"),
            **{f"model.roi_head.bbox_head.loss_bbox.{k}": (ABSENT, v) for k, v in BALANCED_L1.items()},
        },
    ),
    "fsaf-r50": ("fsaf/fsaf_r50_fpn_1x_coco.py", HALVED),
    "foveabox-r50": (
        "foveabox/fovea_r50_fpn_4xb4-1x_coco.py",
        {**HALVED, "train_dataloader.batch_size": (4, 2), "train_dataloader.num_workers": (4, 2)},
    ),
    "atss-r50": ("atss/atss_r50_fpn_1x_coco.py", HALVED),
    "retinanet-r50-ghm": ("ghm/retinanet_r50_fpn_ghm-1x_coco.py", HALVED),
    "retinanet-r101-ghm": ("ghm/retinanet_r101_fpn_ghm-1x_coco.py", HALVED),
    "retinanet-r50-bfp": (
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        {**HALVED, "model.neck": (FPN.to_dict(), [neck.to_dict() for neck in LIBRA_NECK])},
    ),
    "retinanet-r50-pafpn": (
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        {**HALVED, "model.neck.type": ("FPN", "PAFPN")},
    ),
    "retinanet-r50-voc": ("pascal_voc/retinanet_r50_fpn_1x_voc0712.py", HALVED),
    "faster-rcnn-r50-voc": ("pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py", {}),
}

CHANGED_BY_ALL = {
    "model.weighting": (ABSENT, {"rule": "uniform", "alpha": 100, "epsilon": 1e-5}),
    "custom_imports": (
        ABSENT, {"imports": ["experiments.training.components"], "allow_failed_imports": False}
    ),
    "randomness": (ABSENT, {"seed": 0}),
    "val_evaluator.outfile_prefix": (ABSENT, "/run/detections/val"),
    **{f"{split}_dataloader.pin_memory": (ABSENT, True) for split in ("train", "val")},
    **RESUMING,
}  # fmt: skip
COCO_DATA = {
    "train_dataloader.dataset.data_root": ("data/coco/", "/data"),
    "train_dataloader.dataset.metainfo": (ABSENT, {"classes": COCO}),
    "val_dataloader.dataset.data_root": ("data/coco/", "/data"),
    "val_dataloader.dataset.metainfo": (ABSENT, {"classes": COCO}),
    "val_evaluator.type": ("CocoMetric", "ExactCocoMetric"),
    "val_evaluator.ann_file": ("data/coco/annotations/instances_val2017.json", EVALUATOR["ann_file"]),
    "val_evaluator.format_only": (False, ABSENT),
    "val_evaluator.backend_args": (None, ABSENT),
    **READER,
}
YEARS = [f"train_dataloader.dataset.dataset.datasets.{year}" for year in (0, 1)]
VOC_DATA = {
    **{f"{place}.data_root": ("data/VOCdevkit/", "/data") for place in [*YEARS, "val_dataloader.dataset"]},
    **{f"{place}.metainfo": (ABSENT, {"classes": VOC}) for place in [*YEARS, "val_dataloader.dataset"]},
    **{
        f"{place}.type": ("VOCDataset", "AnnotatedVocDataset") for place in [*YEARS, "val_dataloader.dataset"]
    },
    "val_evaluator.type": ("VOCMetric", "ExactVocMetric"),
}
# The bases' own variables, which only helped to write them.
HELPERS = {*REMOVED, "max_epochs"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_changes_this_in_mmdetections_config_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # MMEngine's logger looks there
    monkeypatch.setenv("MSDET_CORES", "3")  # as many data workers as stock has
    base, own = BASELINES[name]
    stock = Config.fromfile(CONFIGS / base)
    is_voc = name.endswith("-voc")
    config = built(name, classes=list(VOC if is_voc else COCO), processes=4)
    assert load_recipe(name).model == f"mmdet:{base}"
    found = {
        place: change
        for place, change in differences(stock.to_dict(), config.to_dict())
        if place not in HELPERS and not place.startswith(("test_dataloader.", "test_evaluator."))
    }
    kind = stock.model.type
    detector = {"model.type": (kind, f"LevelWeighted{kind}")}
    assert found == {**CHANGED_BY_ALL, **detector, **(VOC_DATA if is_voc else COCO_DATA), **own}


def test_the_table_above_holds_every_baseline():
    """Those are left out whose detector or neck is not MMDetection's."""
    plain = {name for name in RECIPES if load_recipe(name).weighting["rule"] == "uniform"}
    assert plain - {n for n in plain if n.endswith(("-augfpn", "-guided"))} == set(BASELINES)


@pytest.mark.parametrize("name", [n for n in RECIPES if n.endswith(("-rlo", "-avw"))])
def test_a_weighted_recipe_differs_from_its_baseline_in_the_weighting_alone(name: str):
    baseline, _, rule = name.rpartition("-")
    for profile in (None, "tiny"):
        one, two = load_recipe(baseline, profile), load_recipe(name, profile)
        places = {place for place, _ in differences(one.model_dump(), two.model_dump())}
        assert places - {"name"} == {p for p in places if p.startswith("weighting.")}
        assert two.weighting["rule"] == rule
        # the paper's: alpha 100, N 2, 1.5 and 1; under the profile a tenth of alpha
        defaults = load_recipe(f"retinanet-r50-{rule}", profile).weighting
        assert two.weighting == defaults
        assert defaults["alpha"] == (100 if profile is None else 10)


# --------------------------------------------------------------------------------------------- schedules

# "Training settings of the paper": SGD; the other rivals' rates are MMDetection's 0.01 for 16 images at 8.
RATE = {
    "retinanet": 0.005,
    "fcos": 0.01,
    "faster-rcnn": 0.01,
    "fsaf": 0.005,
    "foveabox": 0.005,
    "atss": 0.005,
}
CLIPPED = {"fcos": 35, "fsaf": 10, "ghm": 35}  # gradients, as MMDetection does it: to this norm


@pytest.mark.parametrize("name", RECIPES)
def test_rate_schedule_batch_and_input_are_the_papers(name: str):
    family, _, rest = name.partition("-r50" if "-r50" in name else "-r101")
    voc = "voc" in rest
    schedule = load_recipe(name).schedule
    assert schedule.lr == RATE[family]
    assert (schedule.epochs, schedule.milestones) == ((4, [3]) if voc else (12, [8, 11]))
    assert (schedule.gpus, schedule.images_per_gpu) == (4, 2)

    config = built(name, classes=[])
    optimizer = {"type": "SGD", "lr": RATE[family], "momentum": 0.9, "weight_decay": 1e-4}
    assert config.optim_wrapper.optimizer == optimizer
    clip = CLIPPED.get("ghm" if "ghm" in rest else family)
    assert (config.optim_wrapper.get("clip_grad") or {}).get("max_norm") == clip
    loader = config.train_dataloader
    batch = loader.batch_size * loader.batch_sampler.shards
    assert (config.train_cfg.max_epochs, batch) == (4 if voc else 12, 8)
    warmup = {"factor": 1 / 3} if family == "fcos" else {"start_factor": 0.001}
    warmup = {
        "type": "ConstantLR" if family == "fcos" else "LinearLR",
        "by_epoch": False,
        "end": 500,
        **warmup,
    }
    *before, steps = config.param_scheduler
    assert before == ([] if voc else [{**warmup, "begin": 0}])
    assert (steps.type, steps.gamma, steps.milestones) == ("MultiStepLR", 0.1, [3] if voc else [8, 11])
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    if voc:
        assert (train.type, train.times) == ("RepeatDataset", 3)
        assert config.val_evaluator.eval_mode == "11points"
        train = train.dataset.datasets[0]
    for dataset in (train, val):
        resize = next(step for step in dataset.pipeline if step["type"] == "Resize")
        assert resize == {"type": "Resize", "scale": (1000, 600) if voc else (1333, 800), "keep_ratio": True}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_config_under_the_tiny_profile(name: str):
    recipe, full = load_recipe(name, "tiny"), load_recipe(name)
    config, other = built(recipe), built(name)
    assert config.model.type == other.model.type
    assert (config.model.backbone.depth, config.model.backbone.base_channels) == (18, 32)
    assert recipe.dataset.name == ("shapes-voc" if full.dataset.format == "voc" else "shapes")
    assert recipe.dataset.format == full.dataset.format
    assert config.val_evaluator.type == other.val_evaluator.type  # its own metric
    assert recipe.weighting["rule"] == full.weighting["rule"]


@pytest.mark.parametrize("name", ["retinanet-r101-rlo", "fcos-r50", "faster-rcnn-r50-pafpn"])
def test_recipes_under_the_small_profile_start_from_torchvisions_weights(name: str):
    recipe = load_recipe(name, "small")
    assert (recipe.dataset.name, recipe.image_size, recipe.schedule.epochs) == ("coco", [512, 512], None)
    model = built(recipe).model
    assert model.type == built(name).model.type
    assert (model.backbone.depth, model.backbone.style, model.backbone.frozen_stages) == (18, "pytorch", -1)
    assert model.backbone.init_cfg == {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}
    assert model.data_preprocessor.bgr_to_rgb  # as torchvision trained them
    assert model.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert model.neck.in_channels == [64, 128, 256, 512]


@pytest.mark.slow
@pytest.mark.parametrize("profile", [None, "tiny", "small"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_printed_config_loads_back_equal(name: str, profile: str | None):
    config = built(name, profile=profile)
    Path("config.py").write_text(config.pretty_text, encoding="utf-8")
    assert dict(differences(Config.fromfile("config.py").to_dict(), config.to_dict())) == {}


@pytest.mark.parametrize("name", ["retinanet", "fcos", "faster-rcnn"])
@pytest.mark.parametrize("depth", [50, 101])
def test_the_papers_detectors_have_a_recipe_for_every_rule_and_backbone(name: str, depth: int):
    for suffix in ("", "-avw", "-rlo"):
        config = built(f"{name}-r{depth}{suffix}", classes=[])
        assert config.model.backbone.depth == depth
        assert str(depth) in config.model.backbone.init_cfg.checkpoint

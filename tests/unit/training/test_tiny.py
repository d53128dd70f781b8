"""The shipped profiles: every level of every detector but at most the coarsest has positives to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from experiments.data.find import find_dataset
from experiments.recipes import catalogue
from experiments.recipes.loading import load_recipe
from experiments.training import components  # noqa: F401  (registers what the configs name)
from tests.end_to_end.conftest import SHARED_DATA
from tests.unit.training.test_config import built

from mmdet.registry import MODELS  # isort: skip

IMAGES = 32  # of the 400 for training
FEWEST = 4  # positives of a level over these
FAST = ["fcos-r50", "atss-r50", "fsaf-r50", "foveabox-r50", "faster-rcnn-r50"]


def batches(config: Config, model: torch.nn.Module):
    """Some of what the model is trained on in an epoch."""
    images = 0
    np.random.seed(0)  # flips
    for batch in Runner.build_dataloader(config.train_dataloader, seed=0):
        batch = model.data_preprocessor(batch, training=True)
        yield batch["inputs"], batch["data_samples"]
        images += len(batch["data_samples"])
        if images >= IMAGES:
            return
    raise AssertionError(f"only {images} images")


def model_of(config: Config) -> torch.nn.Module:
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def assigned(config: Config) -> list[int]:
    """Positive anchors per level, as MMDetection's own assigner hands them out."""
    model = model_of(config)
    head, sizes, totals = model.bbox_head, None, torch.zeros(5, dtype=torch.long)
    for images, samples in batches(config, model):
        if sizes is None:
            with torch.no_grad():
                sizes = [feature.shape[-2:] for feature in model.extract_feat(images)]
        metas = [sample.metainfo for sample in samples]
        anchors, valid = head.get_anchors(sizes, metas, device="cpu")
        labels = head.get_targets(anchors, valid, [sample.gt_instances for sample in samples], metas)[0]
        totals += torch.tensor([((level >= 0) & (level < head.num_classes)).sum() for level in labels])
    return totals.tolist()


def told(config: Config) -> dict[str, list[int]]:
    """Positives per level of every weighted head, as the heads tell them with the mean IoU of their trace."""
    model = model_of(config)
    totals = {head.head: torch.zeros(len(head.levels)) for head in model.weighting}
    for head in model.weighting:
        head.iteration = head.rule.alpha - 1  # the last step of an interval tells IoUs
    for images, samples in batches(config, model):
        with torch.no_grad():
            model.loss(images, samples)
        for head in model.weighting:
            totals[head.head] += model.head_of(head).level_ious[1]
    return {head: counts.int().tolist() for head, counts in totals.items()}


def test_retinanets_levels_have_positives(shapes_root: Path):
    config = built(profile="tiny", data_root=shapes_root)
    *levels, _coarsest = assigned(config)
    assert len(levels) == 4
    assert all(level >= FEWEST for level in levels), levels
    assert told(config) == {"bbox_head": [*levels, _coarsest]}  # so the others' counts can be believed


@pytest.mark.slow
def test_with_stock_anchors_such_small_images_would_leave_a_level_without(shapes_root: Path):
    stock = "model.bbox_head.anchor_generator.octave_base_scale=4"
    assert assigned(built("retinanet-r50-rlo", stock, profile="tiny", data_root=shapes_root))[3] == 0


def distinct(profile: str = "tiny") -> list[str]:
    """The recipes, those left out whose model under the profile is another's."""
    seen, names = set(), []
    for name in sorted(catalogue.list_pages("recipe"), key=len):
        page = built(name, profile=profile).model.to_dict()
        page.pop("weighting")
        text = json.dumps(page, sort_keys=True)
        if text not in seen:
            seen.add(text)
            names.append(name)
    return names


def check(name: str, root: Path, **options: Any) -> None:
    sets = ["model.backbone.init_cfg=null"]
    if name.startswith("faster-rcnn") and not name.endswith("-augfpn"):  # there a RoI has no level of its own
        sets += ["weighting.where=both"]
    if name.endswith("-guided"):  # a run counts it
        sets += ["model.bbox_head.foreground_prior=0.001"]
    options = {"profile": "tiny", "dataset": "shapes", **options}
    found = told(built(name, *sets, data_root=root, **options))
    assert found
    for head, (*levels, _coarsest) in found.items():
        assert all(level >= FEWEST for level in levels), (head, levels)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_every_detectors_levels_have_positives(name: str, shapes_root: Path):
    check(name, shapes_root)


@pytest.mark.slow
def test_every_recipes_levels_have_positives(shapes_root: Path):
    names = distinct()
    assert set(FAST) <= set(names)
    assert len(names) >= 11  # the detectors, GHM, the other necks and losses
    for name in names:
        check(name, shapes_root)


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "folder"), [("bccd", "bccd/BCCD"), ("coco", "coco-mini")])
def test_every_recipes_levels_have_positives_on_photographs(dataset: str, folder: str):
    root = SHARED_DATA / folder
    if not root.is_dir():
        pytest.skip(f"no real data in {root}")
    classes = find_dataset(catalogue.load_dataset(dataset), root).classes
    for name in distinct("small"):
        if not name.startswith("fsaf"):  # it chooses an object's level by its loss
            check(name, root, profile="small", dataset=dataset, classes=classes)


def test_the_voc_recipes_train_on_the_same_scenes():
    voc, coco = (load_recipe(f"faster-rcnn-r50{suffix}", "tiny") for suffix in ("-voc", ""))
    assert voc.dataset.generate == coco.dataset.generate
    assert voc.set == coco.set
    assert voc.schedule == coco.schedule

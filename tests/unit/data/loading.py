"""What msdet's training and evaluation really make of a data set: its config, its loaders, its evaluator."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

from experiments.common.errors import BAD_INPUT, UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.data.problems import KINDS
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.training import components  # noqa: F401  (registers what the configs name)
from experiments.training.config.builder import build_config
from experiments.training.config.data import set_data, walk_innermost

from mmdet.registry import DATASETS  # isort: skip

LEFT_OUT = ("empty box", "box wholly outside", "box under 1 pixel", "box under min_box_size")
Detection = tuple[Sequence[float], float, int]  # corners in pixels, score, label


@functools.cache
def _base() -> tuple[Recipe, Config]:
    recipe = load_recipe("retinanet-r50", "tiny")
    return recipe, build_config(recipe, ["thing"], Path("data"), Path("run"))


def config_of(found: FoundDataset) -> Config:
    """The config that a run on the data set has."""
    init_default_scope("mmdet")
    recipe, config = copy.deepcopy(_base())  # a config from its file takes half a second
    set_data(config, recipe.model_copy(update={"dataset": found.spec}), found.classes, found.root)
    return config


def training_set(found: FoundDataset) -> Any:
    return _built(config_of(found).train_dataloader.dataset)


def evaluation_set(found: FoundDataset) -> Any:
    return _built(config_of(found).val_dataloader.dataset)


def _built(dataset: ConfigDict) -> Any:
    for part in walk_innermost(dataset):
        part.serialize_data = False  # it collects garbage, which takes half a second
    return DATASETS.build(dataset)


def infos(dataset: Any) -> list[dict[str, Any]]:
    """What the loader knows of each image, in its order."""
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def boxes(listed: Sequence[dict[str, Any]], ignore_flag: int = 0) -> int:
    return sum(box["ignore_flag"] == ignore_flag for info in listed for box in info["instances"])


def kinds(spec: DatasetSpec, split: str = "train") -> dict[str, int]:
    """Kind of problem to its count, as `verify` tells it."""
    problems = verify(spec)["splits"][split]["problems"]
    return {kind: problem["count"] for kind, problem in problems.items()}


def assert_trains_on(
    spec: DatasetSpec, images: int, learnt: int, ignored: int = 0, **counts: int
) -> FoundDataset:
    """Check the loader against counts by hand, and that `find_dataset`, `verify` and the loader say the same.

    Args:
        counts: Kinds of problems in the training split, with `_` for spaces, and how many there are.
    """
    expected = {
        kind: counts.pop(kind.replace(" ", "_")) for kind in KINDS if kind.replace(" ", "_") in counts
    }
    assert counts == {}, "no such kinds"
    found = find_dataset(spec)
    assert found.problems.get("train", {}) == kinds(spec) == expected
    listed = infos(training_set(found))
    assert (len(listed), boxes(listed), boxes(listed, 1)) == (images, learnt, ignored)
    told = verify(spec)["splits"]["train"]
    left_out = sum(expected.get(kind, 0) for kind in LEFT_OUT)
    assert told["boxes"] - left_out == learnt
    return found


def refusal(spec: DatasetSpec) -> str:
    """The line that looking for the data set ends with; `verify` calls the set unusable too."""
    with pytest.raises(UserError) as caught:
        find_dataset(spec)
    assert caught.value.exit_code == BAD_INPUT
    assert len(caught.value.message.splitlines()) == 1 and len(caught.value.message) < 500
    with contextlib.suppress(UserError):
        assert not verify(spec)["usable"]
    return caught.value.message


def evaluated(
    found: FoundDataset, detections: Sequence[Sequence[Detection]], prefix: Path
) -> dict[str, float]:
    """The metrics that a run's evaluator computes from detections on each image of the validation set."""
    config = config_of(found)
    dataset = _built(config.val_dataloader.dataset)
    assert len(dataset) == len(detections)
    evaluator = Evaluator({**config.val_evaluator, "outfile_prefix": str(prefix)})
    evaluator.dataset_meta = dataset.metainfo
    with contextlib.redirect_stdout(io.StringIO()):
        for index, listed in enumerate(detections):
            sample = dataset[index]["data_samples"].to_dict()
            sample["pred_instances"] = {
                "bboxes": torch.tensor(np.array([box for box, _, _ in listed], np.float32).reshape(-1, 4)),
                "scores": torch.tensor([score for _, score, _ in listed], dtype=torch.float32),
                "labels": torch.tensor([label for _, _, label in listed], dtype=torch.int64),
            }
            evaluator.process([sample], None)
        return dict(evaluator.evaluate(len(dataset)))


def random_detections(found: FoundDataset, seed: int = 0) -> list[list[Detection]]:
    """Detections around the objects of each image of the validation set, and some where there is nothing."""
    rng, made = np.random.default_rng(seed), []
    for info in infos(evaluation_set(found)):
        listed: list[Detection] = []
        for box in info["instances"]:
            for _ in range(rng.integers(0, 3)):
                corners = np.array(box["bbox"]) + rng.normal(0, 1, 4)
                label = box["bbox_label"] if rng.random() < 0.9 else rng.integers(len(found.classes))
                listed.append((corners.tolist(), float(rng.random()), int(label)))
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(0, 20, 2)
            listed.append(([x, y, x + 9, y + 9], float(rng.random()), int(rng.integers(len(found.classes)))))
        made.append(listed)
    return made

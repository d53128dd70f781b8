"""The data part of a config: the recipe's data set, its evaluator, the size of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine import Config, ConfigDict

from experiments.data.spec import DatasetSpec
from experiments.errors import UserError
from experiments.recipes import Recipe


def set_data(config: Config, recipe: Recipe, classes: list[str], root: Path) -> None:
    """Puts the recipe's data set in the place of the model config's own; its pipelines stay."""
    spec = recipe.dataset
    train, val = config.train_dataloader, config.val_dataloader
    train.dataset = _train_set(spec, classes, root, _innermost(train.dataset))
    val.dataset = _part(spec, spec.splits["val"][0], classes, root, _innermost(val.dataset), train=False)
    config.val_evaluator = _evaluator(spec, root)
    for helper in (
        "data_root",
        "dataset_type",
        "train_pipeline",
        "test_pipeline",
        "backend_args",
        "img_scales",
    ):
        config.pop(helper, None)  # the base's own variables would now mislead a reader


def _innermost(dataset: Any) -> Any:
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def _train_set(spec: DatasetSpec, classes: list[str], root: Path, base: Any) -> ConfigDict:
    parts = [_part(spec, part, classes, root, base, train=True) for part in spec.splits["train"]]
    dataset = parts[0]
    if len(parts) > 1:
        dataset = ConfigDict(type="ConcatDataset", ignore_keys=["dataset_type"], datasets=parts)
    if spec.repeat > 1:
        dataset = ConfigDict(type="RepeatDataset", times=spec.repeat, dataset=dataset)
    return dataset


def _part(spec: DatasetSpec, part: Any, classes: list[str], root: Path, base: Any, train: bool) -> ConfigDict:
    folder = part.images.rstrip("/") + "/" if part.images else ""
    dataset = ConfigDict(
        data_root=str(root), ann_file=part.annotations, pipeline=base.pipeline, backend_args=None
    )
    if classes:
        dataset.metainfo = dict(classes=tuple(classes))
    if spec.format == "coco":
        dataset.update(type="CocoDataset", data_prefix=dict(img=folder))
    else:
        dataset.update(type="VOCDataset", data_prefix=dict(sub_data_root=folder))
    if train:
        dataset.filter_cfg = dict(base.get("filter_cfg") or dict(filter_empty_gt=True, min_size=32))
        if spec.format == "voc":
            dataset.filter_cfg["bbox_min_size"] = spec.min_box_size
    else:
        dataset.test_mode = True
    return dataset


def _evaluator(spec: DatasetSpec, root: Path) -> ConfigDict:
    if spec.format == "coco":
        annotations = Path(root) / spec.splits["val"][0].annotations
        return ConfigDict(type="ExactCocoMetric", ann_file=str(annotations), metric="bbox")
    return ConfigDict(type="ExactVocMetric", metric="mAP", eval_mode="11points")


def set_image_size(config: Config, size: Sequence[int]) -> None:
    """One size (width, height in pixels) for all images.

    Raises:
        UserError: The pipeline resizes nothing.
    """
    for dataset in (_innermost(config.train_dataloader.dataset), config.val_dataloader.dataset):
        steps = [
            step
            for step in dataset.pipeline
            if step["type"] in ("Resize", "RandomResize", "RandomChoiceResize")
        ]
        if not steps:
            raise UserError(
                "image_size: the model's pipeline has no Resize to set", "set it under 'set' instead"
            )
        for step in steps:
            keep_ratio = step.get("keep_ratio", True)
            step.clear()
            step.update(type="Resize", scale=tuple(size), keep_ratio=keep_ratio)

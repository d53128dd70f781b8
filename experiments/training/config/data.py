"""The data part of a config: the recipe's data set, its evaluator, the size of its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine import Config, ConfigDict

from experiments.common.errors import UserError
from experiments.common.processes import count_cores_per_process
from experiments.data.readers import Split, list_part_files
from experiments.data.spec import DatasetSpec
from experiments.recipes.schema import Recipe

MAX_DATA_WORKERS = 4  # each loads a hundred images a second at (1333, 800), and holds some in shared memory
# Of the model's config, beside what they are used in: with another data set they would mislead a reader.
_VARIABLES = ("data_root", "dataset_type", "train_pipeline", "test_pipeline", "backend_args", "img_scales")


def set_data(config: Config, recipe: Recipe, classes: list[str], root: Path) -> None:
    """Put the recipe's data set in the place of the model config's own; keep its pipelines."""
    spec = recipe.dataset
    train, val = config.train_dataloader, config.val_dataloader
    train.dataset = _split(spec, "train", classes, root, next(walk_innermost(train.dataset)))
    val.dataset = _split(spec, "val", classes, root, next(walk_innermost(val.dataset)))
    if spec.format == "coco":
        annotations = root / spec.splits["val"][0].annotations
        config.val_evaluator = dict(type="ExactCocoMetric", ann_file=str(annotations), metric="bbox")
    else:
        config.val_evaluator = dict(type="ExactVocMetric", metric="mAP", eval_mode="11points")
    for name in _VARIABLES:
        config.pop(name, None)


def walk_innermost(dataset: Any) -> Iterator[Any]:
    """Yield the data sets below whatever repeats, joins or mixes them."""
    if "datasets" in dataset or "dataset" in dataset:
        for part in dataset.get("datasets") or [dataset["dataset"]]:
            yield from walk_innermost(part)
    else:
        yield dataset


def test_pipeline(config: Config) -> list[Any]:
    """Return the transforms that an image passes through when it is evaluated."""
    return next(walk_innermost(config.val_dataloader.dataset)).pipeline


def _split(spec: DatasetSpec, split: Split, classes: list[str], root: Path, base: Any) -> ConfigDict:
    """Return the data set of a split: one for each annotation file, joined where there are several."""
    parts = []
    for part, (_, _, prefix) in zip(spec.splits[split], list_part_files(spec, root, split)):
        folder = part.images.rstrip("/") + "/" if part.images else ""
        dataset = ConfigDict(
            data_root=str(root), ann_file=part.annotations, pipeline=base.pipeline, backend_args=None
        )
        if classes:
            dataset.metainfo = dict(classes=tuple(classes))
        if spec.format == "coco":
            dataset.update(type="AnnotatedCocoDataset", data_prefix=dict(img=folder))
        else:
            dataset.update(type="AnnotatedVocDataset", data_prefix=dict(sub_data_root=folder))
            if prefix:
                dataset.id_prefix = prefix
        if split == "train":
            dataset.filter_cfg = dict(base.get("filter_cfg") or dict(filter_empty_gt=True))
            dataset.filter_cfg["min_size"] = spec.min_image_size
            dataset.filter_cfg.pop("bbox_min_size", None)  # of the model's own data set
            if spec.format == "voc" or spec.min_box_size > 1:
                dataset.filter_cfg["bbox_min_size"] = spec.min_box_size
        else:
            dataset.test_mode = True
        parts.append(dataset)
    if len(parts) > 1:
        dataset = ConfigDict(type="ConcatDataset", ignore_keys=["dataset_type"], datasets=parts)
    if split == "train" and spec.repeat > 1:
        dataset = ConfigDict(type="RepeatDataset", times=spec.repeat, dataset=dataset)
    return dataset


def set_data_workers(config: Config) -> None:
    """Set the data workers of each process on a GPU: one for each of its cores but its own, up to MAX_DATA_WORKERS."""
    workers = min(MAX_DATA_WORKERS, max(1, count_cores_per_process() - 1))
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(num_workers=workers, persistent_workers=True, pin_memory=True)


def set_image_size(config: Config, size: Sequence[int]) -> None:
    """Set one size (width, height in pixels) for all images.

    Raises:
        UserError: The pipeline resizes nothing.
    """
    loaders = (config.train_dataloader, config.val_dataloader)
    for dataset in (part for loader in loaders for part in walk_innermost(loader.dataset)):
        kinds = ("Resize", "RandomResize", "RandomChoiceResize")
        steps = [step for step in dataset.pipeline if step["type"] in kinds]
        if not steps:
            raise UserError(
                "image_size: the model's pipeline has no Resize to set", "set it under 'set' instead"
            )
        for step in steps:
            keep_ratio = step.get("keep_ratio", True)
            step.clear()
            step.update(type="Resize", scale=tuple(size), keep_ratio=keep_ratio)

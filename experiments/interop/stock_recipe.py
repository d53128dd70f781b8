"""Match a training by stock MMDetection to a recipe, and find its differences. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common.checking import validate
from experiments.common.config_text import flatten_keys, get_at
from experiments.common.errors import UserError
from experiments.data.find import FoundDataset
from experiments.interop.stock_run import StockRun
from experiments.recipes import catalogue
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe

PREFIX = "imported-"  # of the recipe's name, so that an import never replaces a run of msdet
# Keys of file locations and reading speed, which do not change what is trained.
_PLACES = re.compile(r"(^|\.)(data_root|ann_file|backend_args|data_prefix\..*|metainfo\..*|_scope_)$")
# msdet's data sets have the same images and boxes as MMDetection's.
_STOCK_TYPES = {"AnnotatedCocoDataset": "CocoDataset", "AnnotatedVocDataset": "VOCDataset"}


def find_recipe_name(stock: StockRun) -> str:
    """Return the name of the unweighted recipe with the file name and data of the trained config.

    Raises:
        UserError: No recipe fits, or more than one does.
    """
    fitting = []
    for name in catalogue.list_pages("recipe"):
        try:
            recipe = recipes.load_recipe(name)
        except UserError:
            continue
        plain = recipe.weighting["rule"] == "uniform" and not recipe.set and recipe.profile is None
        if plain and Path(recipe.model).stem == stock.name and _annotations_differ(stock, recipe) is None:
            fitting.append(name)
    if len(fitting) != 1:
        what = f"several recipes: {', '.join(fitting)}" if fitting else "no recipe's model and data"
        raise UserError(
            f"{stock.source}: its config '{stock.name}.py' fits {what}",
            "--recipe NAME [-p PROFILE] [--dataset NAME] [--set KEY=VALUE]",
        )
    return fitting[0]


def match_recipe(recipe: Recipe, stock: StockRun) -> tuple[Recipe, list[str]]:
    """Return the recipe with the schedule and precision of the training, under an own name.

    Returns:
        That recipe, and one line for each thing that the work folder does not say.

    Raises:
        UserError: The training had other data or another weighting than the recipe.
    """
    other = _annotations_differ(stock, recipe)
    if other is not None:
        raise UserError(
            f"{stock.source} was trained on {other}, recipe {recipe.name} is for data set '{recipe.dataset.name}'",
            "--dataset NAME",
        )
    trained = _plain(stock.config.weighting or {})
    if any(recipe.weighting.get(key) != value for key, value in {"rule": "uniform", **trained}.items()):
        raise UserError(
            f"{stock.source} was trained with weighting {trained or 'uniform (none)'},"
            f" recipe {recipe.name} has {recipe.weighting}",
            "--recipe NAME, or --set weighting.KEY=VALUE",
        )
    unknown = []
    workers = stock.logs[-1].world_size if stock.logs else None
    if not workers:
        batch = recipe.schedule.batch
        workers = max(1, batch // ((stock.config.batch_size or 1) * stock.accumulation))
        unknown.append(f"the number of GPUs, taken as {workers} for the recipe's batch of {batch}")
    content = recipe.model_dump()
    content["name"] = recipe.name if recipe.name.startswith(PREFIX) else PREFIX + recipe.name
    content["schedule"] |= _schedule(stock, recipe, workers)
    half = "bf16" if stock.config.dtype == "bfloat16" else "fp16"
    content["amp"] = half if stock.config.wrapper == "AmpOptimWrapper" else None
    return validate(Recipe, content, str(stock.config_file)), unknown


def _annotations_differ(stock: StockRun, recipe: Recipe) -> str | None:
    """Return the training's annotation files where they differ, by the end of their paths; None if equal."""
    trained = set(map(str, stock.training_data("ann_file")))
    wanted = [part.annotations for part in recipe.dataset.splits["train"]]
    fits = len(trained) > 0 and all(any(f"/{t}".endswith(f"/{w}") for w in wanted) for t in trained)
    fits = fits and all(any(f"/{t}".endswith(f"/{w}") for t in trained) for w in wanted)
    return None if fits else ", ".join(sorted(trained)) or "unknown data"


def check_classes(stock: StockRun, data: FoundDataset) -> None:
    """Raise UserError where the config names other classes than the data set has, or another order."""
    for value in stock.training_data("metainfo.classes"):
        trained = list(value) if isinstance(value, (list, tuple)) else [value]
        if trained != list(data.classes):
            some = ", ".join(str(name) for name in trained[:4])
            raise UserError(
                f"{stock.source} was trained on {len(trained)} classes ({some} ...), data set '{data.spec.name}' in"
                f" {data.root} has {len(data.classes)}: they must be the same, in the same order",
                "--dataset NAME, --data-root DIR",
            )


def _schedule(stock: StockRun, recipe: Recipe, workers: int) -> dict[str, Any]:
    """Return the training's values for the recipe's schedule."""
    config = stock.config
    images, optimizer = config.batch_size or 1, (config.optimizer or "").lower()
    if config.lr is None:
        raise UserError(f"{stock.config_file}: has no optim_wrapper.optimizer.lr")
    found: dict[str, Any] = {"gpus": workers, "images_per_gpu": images * stock.accumulation, "lr": config.lr}
    found |= {"epochs": None, "iterations": None, "milestones": []}
    if stock.by_epoch:
        found["epochs"] = stock.length
    else:
        found["iterations"] = stock.length // stock.accumulation
    if config.is_lr_scaled and config.base_batch_size:  # as MMEngine's Runner.scale_lr does
        found["lr"] *= workers * images / config.base_batch_size
    if optimizer in ("sgd", "adamw"):
        found["optimizer"] = optimizer
    for scheduler in config.schedulers or ():
        if scheduler.type == "MultiStepLR" and scheduler.by_epoch and stock.by_epoch:
            passed = [m for m in scheduler.milestones if m < stock.length]
            found |= {"decay": "step", "milestones": passed}
        elif scheduler.type == "CosineAnnealingLR":
            found["decay"] = "cosine"
        elif scheduler.type == "LinearLR" and not scheduler.by_epoch and recipe.schedule.warmup is not None:
            found["warmup"] = scheduler.end
    if stock.by_epoch and config.val_interval is not None and recipe.schedule.eval_every is not None:
        found["eval_every"] = config.val_interval
    return found


def select_comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted config keys that define training and evaluation, with stock MMDetection's types."""
    parts: dict[str, Any] = {key: config.get(key) for key in ("model", "param_scheduler")}
    for key in ("optimizer", "paramwise_cfg", "clip_grad"):
        parts[key] = get_at(config, f"optim_wrapper.{key}")
    for name in ("train", "val"):
        dataset = get_at(config, f"{name}_dataloader.dataset")
        while inner := get_at(dataset, "dataset") or get_at(dataset, "datasets.0"):
            dataset = inner
        parts[f"{name}_dataset"] = dataset
    found = {key: _plain(value) for key, value in flatten_keys(parts).items() if value is not None}
    found = {k: v for k, v in found.items() if not _PLACES.search(k) and not k.startswith("model.weighting")}
    for key in ("model.type", "train_dataset.type", "val_dataset.type"):
        if key in found:
            name = str(found[key]).removeprefix("LevelWeighted")
            found[key] = _STOCK_TYPES.get(name, name)
    return found


def list_differences(trained: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return `key: trained value (the recipe's)` for each difference of two configs."""
    one, two = select_comparable(trained), select_comparable(expected)
    pairs = {key: (one.get(key, "-"), two.get(key, "-")) for key in sorted({*one, *two})}
    return [f"{key}: {mine} ({theirs})" for key, (mine, theirs) in pairs.items() if mine != theirs]


def _plain(value: Any) -> Any:
    """Return the value with tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value

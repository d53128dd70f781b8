"""Match a training by stock MMDetection to a recipe, and find its differences. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from experiments.common.checking import one_line
from experiments.common.config_text import at, flat
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


def recipe_name(stock: StockRun) -> str:
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


def as_recipe(recipe: Recipe, stock: StockRun) -> tuple[Recipe, list[str]]:
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
    _check_weighting(stock, recipe)
    schedule, unknown = _schedule(stock, recipe)
    content = recipe.model_dump()
    content["name"] = recipe.name if recipe.name.startswith(PREFIX) else PREFIX + recipe.name
    content["schedule"].update(schedule)
    if stock.get("optim_wrapper.type") == "AmpOptimWrapper":
        content["amp"] = "bf16" if stock.get("optim_wrapper.dtype") == "bfloat16" else "fp16"
    else:
        content["amp"] = None
    try:
        return Recipe.model_validate(content), unknown
    except ValidationError as error:
        raise UserError(f"{stock.config_file}: not a valid recipe: {one_line(error)}") from None


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
        if list(value) != list(data.classes):
            some = ", ".join(str(name) for name in list(value)[:4])
            raise UserError(
                f"{stock.source} was trained on {len(value)} classes ({some} ...), data set '{data.spec.name}' in"
                f" {data.root} has {len(data.classes)}: they must be the same, in the same order",
                "--dataset NAME, --data-root DIR",
            )


def _check_weighting(stock: StockRun, recipe: Recipe) -> None:
    trained = stock.get("model.weighting")
    rule = trained.get("rule", "uniform") if isinstance(trained, Mapping) else "uniform"
    wanted = recipe.weighting
    options = trained.items() if isinstance(trained, Mapping) else ()
    if rule != wanted["rule"] or any(wanted.get(key) != _plain(value) for key, value in options):
        raise UserError(
            f"{stock.source} was trained with weighting {_plain(trained) or 'uniform (none)'},"
            f" recipe {recipe.name} has {wanted}",
            "--recipe NAME, or --set weighting.KEY=VALUE",
        )


def _schedule(stock: StockRun, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Return the training's values for the recipe's schedule, and one line for each that is not known."""
    unknown = []
    images = stock.get("train_dataloader.batch_size") or 1
    steps = stock.accumulation
    workers = stock.logs[-1].world_size if stock.logs else None
    if workers is None:
        whole = recipe.schedule.gpus * recipe.schedule.images_per_gpu
        workers = max(1, whole // (images * steps))
        unknown.append(f"the number of GPUs, taken as {workers} for the recipe's batch of {whole}")
    found: dict[str, Any] = {"gpus": workers, "images_per_gpu": images * steps}
    found |= {"epochs": None, "iterations": None, "milestones": []}
    found |= {"epochs": stock.length} if stock.by_epoch else {"iterations": stock.length // steps}
    lr, base = stock.get("optim_wrapper.optimizer.lr"), stock.get("auto_scale_lr.base_batch_size")
    if not isinstance(lr, (int, float)):
        raise UserError(f"{stock.config_file}: optim_wrapper.optimizer.lr is {lr!r}, not a number")
    if stock.get("auto_scale_lr.enable") and isinstance(base, int):
        lr = lr * workers * images / base  # as MMEngine's Runner.scale_lr does
    found["lr"] = float(lr)
    optimizer = str(stock.get("optim_wrapper.optimizer.type")).lower()
    if optimizer in ("sgd", "adamw"):
        found["optimizer"] = optimizer
    for scheduler in stock.get("param_scheduler") or []:
        kind, by_epoch = scheduler.get("type"), scheduler.get("by_epoch", True)
        if kind == "MultiStepLR" and by_epoch and stock.by_epoch:
            passed = [m for m in scheduler.get("milestones", []) if m < stock.length]
            found |= {"decay": "step", "milestones": passed}
        elif kind == "CosineAnnealingLR":
            found["decay"] = "cosine"
        elif kind == "LinearLR" and not by_epoch and recipe.schedule.warmup is not None:
            found["warmup"] = scheduler.get("end")
    every = stock.get("train_cfg.val_interval")
    if stock.by_epoch and isinstance(every, int) and recipe.schedule.eval_every is not None:
        found["eval_every"] = every
    return found, unknown


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted config keys that define training and evaluation, with stock MMDetection's types."""
    parts: dict[str, Any] = {key: config.get(key) for key in ("model", "param_scheduler")}
    parts["optimizer"] = at(config, "optim_wrapper.optimizer")
    parts["paramwise_cfg"] = at(config, "optim_wrapper.paramwise_cfg")
    parts["clip_grad"] = at(config, "optim_wrapper.clip_grad")
    for name in ("train", "val"):
        dataset = at(config, f"{name}_dataloader.dataset")
        while isinstance(dataset, Mapping) and ("dataset" in dataset or dataset.get("datasets")):
            dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
        parts[f"{name}_dataset"] = dataset
    parts = {key: value for key, value in parts.items() if value is not None}
    found = {key: _plain(value) for key, value in flat(parts).items() if value is not None}
    found = {k: v for k, v in found.items() if not _PLACES.search(k) and not k.startswith("model.weighting")}
    for key in ("model.type", "train_dataset.type", "val_dataset.type"):
        if key in found:
            found[key] = _STOCK_TYPES.get(found[key], str(found[key]).removeprefix("LevelWeighted"))
    return found


def differences(trained: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return `key: trained value (the recipe's)` for each difference of two configs."""
    one, two = comparable(trained), comparable(expected)
    return [
        f"{key}: {one.get(key, '-')} ({two.get(key, '-')})"
        for key in sorted({*one, *two})
        if one.get(key, "-") != two.get(key, "-")
    ]


def _plain(value: Any) -> Any:
    """Return the value with tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value

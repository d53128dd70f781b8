"""Recipes checked against the model that they train, before anything is written."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common import cache as answers
from experiments.common.errors import UserError
from experiments.recipes import catalogue
from experiments.recipes.schema import Recipe
from experiments.weighting.options import is_users_own
from msdet_cli import __version__

if TYPE_CHECKING:
    from mmengine import Config

MIN_LEVELS = 4  # of the shipped models: the RoI head's P2 to P5


def check_models(recipes: Iterable[Recipe]) -> None:
    """Check keys under `set` and options that depend on levels, where a recipe has any that no shipped one has.

    Importing MMDetection takes seconds, so that a check that was passed once is remembered.

    Raises:
        UserError: A key or an option is wrong, or the model cannot be weighted.
    """
    unchecked = {json.dumps(_content(recipe)): recipe for recipe in recipes if _needs_model(recipe)}
    for content, recipe in unchecked.items():
        is_own = not recipe.model.startswith("mmdet:")
        if is_own and not Path(recipe.model).is_file():  # said without the import
            hint = "name MMDetection's own as mmdet:<family>/<file>.py"
            raise UserError(f"recipe {recipe.name}: model: no file {recipe.model}", hint)
        is_fixed = not is_own and not recipe.imports
        if is_fixed and answers.recall(content):
            continue
        check_model(recipe)
        if is_fixed:
            answers.remember(content, {"is_checked": True}, {})


def check_model(recipe: Recipe) -> None:
    """Build config and detector as a run would, without weights. Raises: as `check_models`."""
    config = build_mmengine_config(recipe)
    from experiments.training.config.builder import check_detector

    with _named(recipe):
        check_detector(config)


def build_mmengine_config(recipe: Recipe) -> Config:
    """Return the config of a run of this recipe, with or without its data.

    Raises:
        UserError: A key under `set` does not exist, or the model cannot be weighted.
    """
    from experiments.data.find import find_dataset

    with contextlib.redirect_stdout(io.StringIO()):  # MMDetection prints on import
        from experiments.training.config.builder import build_config
        from experiments.training.config.foreground_prior import set_prior
    fingerprint = ""
    try:
        found = find_dataset(recipe.dataset, None, generate=False)
        classes, root, fingerprint = found.classes, found.root, found.fingerprint
    except UserError:  # without data: the listed classes, else the model's own
        classes, root = recipe.dataset.classes, Path(recipe.dataset.root)
    with _named(recipe):
        config = build_config(recipe, classes, root, Path("results"), processes=recipe.schedule.gpus)
        set_prior(config, recipe, fingerprint, count=False)
    return config


@contextlib.contextmanager
def _named(recipe: Recipe) -> Iterator[None]:
    """Begin a mistake's message with the recipe's name; hide what MMDetection prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except UserError as error:
        hint = error.hint and error.hint.replace("RECIPE", recipe.name)
        raise UserError(f"recipe {recipe.name}: {error.message}", hint) from None
    except Exception as error:
        if not recipe.set and not recipe.imports and recipe.model.startswith("mmdet:"):
            raise  # nothing of the user's own is in it
        text = f"no config can be built of its model, imports and set: {type(error).__name__}: {error}"
        raise UserError(f"recipe {recipe.name}: {text}", f"msdet show {recipe.name}   (all keys)") from error


def _content(recipe: Recipe) -> list[Any]:
    """Return all of a recipe that the check depends on."""
    weighting = {**recipe.weighting, "weights": len(recipe.weighting.get("weights", ()))}
    parts = {key: weighting.get(key) for key in ("rule", "where", "n", "weights")}
    return ["model check", __version__, recipe.model, recipe.set, parts, recipe.amp, recipe.dataset.format]


def _needs_model(recipe: Recipe) -> bool:
    """Return whether only the model tells if the recipe is right; shipped settings are tested."""
    weighting, (models, settings) = recipe.weighting, _shipped_settings()
    return (
        recipe.model not in models
        or bool(recipe.imports)
        or any((key, json.dumps(value)) not in settings for key, value in recipe.set.items())
        or weighting.get("n", 1) > MIN_LEVELS
        or not weighting.keys().isdisjoint(("weights", "where"))
        or is_users_own(weighting["rule"])
    )


@functools.cache
def _shipped_settings() -> tuple[set[str], set[tuple[str, str]]]:
    """Return the models of the shipped recipes, and the keys with values under `set` in recipes and profiles."""
    folder = catalogue.find_shipped()
    pages = [catalogue.read_yaml(p) for p in (*folder.glob("*.yaml"), *folder.glob("profiles/*.yaml"))]
    blocks = [block for page in pages for block in (page, *page.get("profiles", {}).values())]
    settings = {(k, json.dumps(v)) for block in blocks for k, v in block.get("set", {}).items()}
    return {page["model"] for page in pages if "model" in page}, settings

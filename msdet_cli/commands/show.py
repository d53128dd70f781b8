"""`msdet show`: print a recipe, or its MMEngine config, fully resolved."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from experiments.common.errors import UserError
from experiments.recipes.loading import dump, load_recipe
from experiments.recipes.schema import Recipe
from msdet_cli.options import DatasetOpt, ProfileOpt, RecipeArg, SetOpt

if TYPE_CHECKING:
    from mmengine import Config


def show(
    recipe: RecipeArg,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    config: Annotated[bool, typer.Option("--config", help="Print the MMEngine config instead.")] = False,
) -> None:
    """Print a recipe, fully resolved.

    The output is itself a recipe: saved to a file, it can be run.

    \b
    msdet show retinanet-r50-rlo
    msdet show retinanet-r50-rlo -p tiny --set weighting.alpha=5
    msdet show retinanet-r50-rlo --config
    """
    resolved = load_recipe(recipe, profile, sets or (), dataset)
    if config:
        _print_page(mmengine_config(resolved).pretty_text, "python")
    else:
        _print_page(dump(resolved), "yaml")


def mmengine_config(recipe: Recipe) -> Config:
    """Return the config of a run of this recipe, with or without its data.

    Raises:
        UserError: A key under `set` does not exist, or the model cannot be weighted.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # MMDetection prints on import
        return _build(recipe)


def _build(recipe: Recipe) -> Config:
    from experiments.data.find import find_dataset
    from experiments.training.config.builder import build_config
    from experiments.training.config.foreground_prior import set_prior

    fingerprint = ""
    try:
        found = find_dataset(recipe.dataset, None, generate=False)
        classes, root, fingerprint = list(found.classes), Path(found.root), found.fingerprint
    except UserError:  # without data: the listed classes, else the model's own
        classes, root = list(recipe.dataset.classes), Path(recipe.dataset.root)
    try:
        config = build_config(recipe, classes, root, Path("results"), processes=recipe.schedule.gpus)
        set_prior(config, recipe, fingerprint, count=False)
        return config
    except UserError as error:
        raise UserError(f"recipe {recipe.name}: {error.message}", error.hint) from None


def _print_page(text: str, language: str) -> None:
    console = Console()
    if console.is_terminal:
        console.print(Syntax(text, language, background_color="default", word_wrap=True))
    else:
        print(text, end="" if text.endswith("\n") else "\n")

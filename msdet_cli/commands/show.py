"""`msdet show`: print a recipe, or its MMEngine config, fully resolved."""

from __future__ import annotations

from typing import Annotated

from rich.console import Console

from experiments.recipes.loading import dump, load_recipe
from msdet_cli.model_checks import build_mmengine_config
from msdet_cli.options import DatasetOpt, ProfileOpt, RecipeArg, SetOpt, option


def show(
    recipe: RecipeArg,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    config: Annotated[bool, option("--config", "Print the MMEngine config instead.")] = False,
) -> None:
    """Print a recipe, fully resolved.

    The output is itself a recipe: saved to a file, it can be run.

    \b
    msdet show retinanet-r50-rlo
    msdet show retinanet-r50-rlo -p tiny --set weighting.alpha=5
    msdet show retinanet-r50-rlo --config
    """
    resolved = load_recipe(recipe, profile, sets or (), dataset)
    text = build_mmengine_config(resolved).pretty_text if config else dump(resolved)
    console = Console()
    if console.is_terminal:
        from rich.syntax import Syntax  # takes a tenth of the command line's start

        language = "python" if config else "yaml"
        console.print(Syntax(text, language, background_color="default", word_wrap=True))
    else:
        print(text, end="" if text.endswith("\n") else "\n")

"""What the runs of one config were started from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.runs.run_folder import RunFolder


def recipe_of(folders: Iterable[Path]) -> Recipe | None:
    """Return the first of the runs' recipes that can be read; None where none can be."""
    for folder in folders:
        try:
            return recipes.load_recipe(str(RunFolder(folder).recipe.resolve()))
        except UserError:
            continue
    return None

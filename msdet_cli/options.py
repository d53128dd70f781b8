"""Arguments and options that several commands share, so that they are named and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from experiments.common.errors import UserError


def complete(kind: str) -> Callable[[str], list[str]]:
    """Shell completion with the names of one kind: recipe, profile, dataset or table."""

    def matching(incomplete: str) -> list[str]:
        from experiments.recipes.catalogue import names

        return [name for name in names(kind) if name.startswith(incomplete)]

    return matching


RecipeArg = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="Name of a recipe, or path to one.", autocompletion=complete("recipe")
    ),
]
RecipesArg = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE...", help="Names of recipes, or paths.", autocompletion=complete("recipe")
    ),
]
RunArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Folder, name (recipe/hash/seed), or a part of one that fits no other."
    ),
]
ProfileOpt = Annotated[
    str | None,
    typer.Option(
        "--profile", "-p", metavar="NAME", help="Profile, such as tiny.", autocompletion=complete("profile")
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe, or of its MMEngine config. Repeatable.",
    ),
]
DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Another data set: a name or a path.",
        autocompletion=complete("dataset"),
    ),
]
DataRootOpt = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the data set lies, in place of its own root."),
]
ResultsOpt = Annotated[
    Path,
    typer.Option("--results-dir", metavar="DIR", envvar="MSDET_RESULTS", help="Where run folders are kept."),
]
SeedsOpt = Annotated[
    int | None,
    typer.Option("--seeds", metavar="COUNT", min=1, help="How many seeds: 0, 1, ... one run each."),
]
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="K", min=0, help="One seed (default 0).")]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")]
RetryOpt = Annotated[
    bool, typer.Option("--retry-failed", help="Try failed runs again, from their last checkpoint.")
]
ForceOpt = Annotated[bool, typer.Option("--force", help="Throw away what these runs have, and start anew.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

RESULTS = Path("results")  # the default of ResultsOpt


def chosen_seeds(seed: int | None, seeds: int | None) -> list[int]:
    """What `--seed` and `--seeds` mean together.

    Raises:
        UserError: Both are given.
    """
    if seed is not None and seeds is not None:
        raise UserError(
            "--seed and --seeds exclude each other", "--seed 3 is one seed; --seeds 3 are seeds 0, 1, 2"
        )
    return list(range(seeds)) if seeds is not None else [seed or 0]

"""Arguments and options that several commands share, each named and explained once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from experiments.common.errors import UserError, did_you_mean
from experiments.runs.record import Status
from msdet_cli.completion import complete, complete_runs, complete_settings, complete_words

RESULTS = Path("results")  # the default of ResultsOpt
STATES = get_args(Status)


def check_choice(option: str, value: str, allowed: Iterable[str]) -> str:
    """Return an option's value; raise UserError where it is none of the allowed ones."""
    if value not in allowed:
        raise UserError(f"{option}: '{value}' is unknown; {did_you_mean(value, allowed)}")
    return value


def argument(metavar: str, help_text: str, completion: Callable[..., list[str]] | None = None) -> Any:
    """Return an argument, to be used in `Annotated`."""
    return typer.Argument(metavar=metavar, help=help_text, autocompletion=completion)


def option(
    usage: str, help_text: str, completion: Callable[..., list[str]] | None = None, **more: Any
) -> Any:
    """Return an option, to be used in `Annotated`.

    Args:
        usage: Its names, then what stands for its value, as in `--out DIR`; a flag has names only.
        more: As `typer.Option` takes it.
    """
    words = usage.split()
    names = [word for word in words if word.startswith("-")]
    metavar = " ".join(words[len(names) :]) or None
    return typer.Option(*names, metavar=metavar, help=help_text, autocompletion=completion, **more)


def _named(kind: str, help_text: str, short: str = "") -> Any:
    """Return the option that takes the name of a recipe, profile or data set."""
    return option(f"--{kind} {short} NAME", help_text, complete(kind))


RecipeArg = Annotated[str, argument("RECIPE", "Name of a recipe, or path to one.", complete("recipe"))]
RunArg = Annotated[
    str, argument("RUN", "Folder, name (recipe/hash/seed), or any unambiguous part of a name.", complete_runs)
]
RunsArg = Annotated[
    list[str] | None,
    argument("[RUN]...", "Folders, names, or parts of names: see msdet runs.", complete_runs),
]
RecipeOpt = Annotated[str | None, _named("recipe", "Recipe of what msdet has not trained.")]
ProfileOpt = Annotated[
    str | None, _named("profile", "A purpose that changes the recipe: tiny runs on a CPU.", "-p")
]
DatasetOpt = Annotated[str | None, _named("dataset", "Use another data set: its name, or a YAML file.")]
RecipesOpt = Annotated[list[str] | None, _named("recipe", "Only of this recipe. Repeatable.")]
ProfilesOpt = Annotated[
    list[str] | None, _named("profile", "Only under this profile, or `none`. Repeatable.", "-p")
]
DatasetsOpt = Annotated[list[str] | None, _named("dataset", "Only on this data set. Repeatable.")]
SetOpt = Annotated[
    list[str] | None,
    option("--set KEY=VALUE", "Change one key, as in weighting.alpha=5. Repeatable.", complete_settings),
]
DataRootOpt = Annotated[
    Path | None, option("--data-root DIR", "Where the data set lies, if not in its own folder.")
]
ResultsOpt = Annotated[Path, option("--results-dir DIR", "Folder of the runs.", envvar="MSDET_RESULTS")]
SeedOpt = Annotated[int | None, option("--seed K", "One seed (default 0).", min=0)]
StatesOpt = Annotated[
    list[str] | None,
    option(
        "--state STATE",
        f"Only runs in this state: {', '.join(STATES)}. Repeatable.",
        complete_words(STATES),
        callback=lambda values: [check_choice("--state", value, STATES) for value in values or ()],
    ),
]
YesOpt = Annotated[bool, option("--yes -y", "Delete without asking.")]
JsonOpt = Annotated[bool, option("--json", "Print JSON.")]

"""Arguments and options that several commands share, each named and explained once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from experiments.common.errors import UserError, did_you_mean
from experiments.runs.record import Status
from msdet_cli.completion import complete, complete_runs, complete_settings, complete_words

RESULTS = Path("results")  # the default of ResultsOpt
STATES = get_args(Status)


def print_note(sentence: str) -> None:
    """Print what a person should know beside the result of a command."""
    print(f"note: {sentence}", file=sys.stderr)


def check_choice(option: str, value: str, allowed: Iterable[str]) -> str:
    """Return an option's value; raise UserError where it is none of the allowed ones."""
    if value not in allowed:
        raise UserError(f"{option}: '{value}' is unknown; {did_you_mean(value, allowed)}")
    return value


def _named(kind: str, help_text: str, *short: str) -> Any:
    """Return the option that takes the name of a recipe, profile or data set."""
    return typer.Option(f"--{kind}", *short, metavar="NAME", help=help_text, autocompletion=complete(kind))


def _argument(metavar: str, help_text: str, completion: Any = complete_runs) -> Any:
    return typer.Argument(metavar=metavar, help=help_text, autocompletion=completion)


RecipeArg = Annotated[str, _argument("RECIPE", "Name of a recipe, or path to one.", complete("recipe"))]
RunArg = Annotated[
    str, _argument("RUN", "Folder, name (recipe/hash/seed), or any unambiguous part of a name.")
]
RunsArg = Annotated[
    list[str] | None, _argument("[RUN]...", "Folders, names, or parts of names: see msdet runs.")
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
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key, as in weighting.alpha=5. Repeatable.",
        autocompletion=complete_settings,
    ),
]
DataRootOpt = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the data set lies, if not in its own folder."),
]
ResultsOpt = Annotated[
    Path, typer.Option("--results-dir", metavar="DIR", envvar="MSDET_RESULTS", help="Folder of the runs.")
]
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="K", min=0, help="One seed (default 0).")]
StatesOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only runs in this state: {', '.join(STATES)}. Repeatable.",
        callback=lambda values: [check_choice("--state", value, STATES) for value in values or ()],
        autocompletion=complete_words(STATES),
    ),
]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]

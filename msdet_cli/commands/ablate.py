"""`msdet ablate`: vary a recipe around itself."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.forecast import iterations_of
from experiments.launching.plan import PlannedRun, plan
from experiments.recipes.loading import load_variants
from experiments.recipes.overrides import parse_assignment, split_values
from experiments.recipes.schema import Recipe
from experiments.runs.lookup import results_dir
from experiments.weighting.options import ACTIONS
from msdet_cli.console.result_tables import print_comparison
from msdet_cli.launch_options import LaunchOptions, with_launch_options
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    DryRunOpt,
    ForceOpt,
    JsonOpt,
    ProfileOpt,
    ResultsOpt,
    RetryOpt,
    SeedOpt,
    SeedsOpt,
    chosen_seeds,
    complete,
)
from msdet_cli.run_plan import run_plan

Axis = tuple[str, list[str]]


@with_launch_options
def ablate(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="Name or path.", autocompletion=complete("recipe"))
    ] = "retinanet-r50-rlo",
    alpha: Annotated[
        str | None, typer.Option(metavar="VALUES", help="Iterations per interval, literally.")
    ] = None,
    n: Annotated[str | None, typer.Option("--n", metavar="VALUES", help="Levels enhanced.")] = None,
    actions: Annotated[
        str | None, typer.Option(metavar="VALUES", help="Action sets, joined by +; 'all' is all four.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(metavar="VALUES", help="Reward step of a probability.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUES", help="Any key; with one value, set in all. Repeatable."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="All combinations, instead of one option at a time.")
    ] = False,
    profile: ProfileOpt = None,
    seed: SeedOpt = None,
    seeds: SeedsOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    dry_run: DryRunOpt = False,
    retry_failed: RetryOpt = False,
    force: ForceOpt = False,
    as_json: JsonOpt = False,
    *,
    launch_options: LaunchOptions,
) -> None:
    """Vary a recipe: each option alone around the recipe, or all combinations with --grid.

    Values are separated by commas; commas inside brackets do not separate. Values are literal: a profile
    does not scale them. --set with a single value holds for all variants. One failed run does not stop
    the rest.

    \b
    msdet ablate --alpha 5,50,100,200,500
    msdet ablate --n 1,2,3 --actions variance,largest+uniform,all --seeds 2 -p tiny
    msdet ablate --set weighting.amplification=[1.5,1.0],[2.0,1.0] --dry-run
    """
    axes, fixed = _axes(alpha, n, actions, gamma, sets or [])
    chosen = chosen_seeds(seed, seeds)
    variants = list(_combinations(axes, grid))
    sets = [[*fixed, *(f"{key}={value}" for key, value in variant)] for variant in variants]
    varied = map(launch_options.execution.changed, load_variants(recipe, profile, sets, dataset))
    labelled = list(zip(map(_label, variants), varied))
    folder = results_dir(results)
    planned = plan(
        labelled,
        chosen,
        folder,
        data_root,
        retry_failed,
        force,
        generate=not dry_run,
        execution=launch_options.execution,
        gpus=launch_options.gpus,
    )
    _warn_of_long_intervals(planned)

    def compare(console: Console, code: int) -> None:
        from experiments.reporting import comparison

        print_comparison(console, comparison([p.folder for p in planned], [p.label for p in planned]))

    run_plan(planned, dry_run, as_json, compare, launch_options=launch_options, results=folder)


def _axes(
    alpha: str | None, n: str | None, actions: str | None, gamma: str | None, sets: list[str]
) -> tuple[list[Axis], list[str]]:
    """What varies, recipe keys with their values as text; and the assignments that hold for all."""
    fixed = []
    axes: list[Axis] = [
        (f"weighting.{name}", split_values(text))
        for name, text in (("alpha", alpha), ("n", n), ("gamma", gamma))
        if text is not None
    ]
    if actions is not None:
        axes.append(("weighting.actions", [_action_set(text) for text in split_values(actions)]))
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals:
            parse_assignment(assignment)  # says what is wrong
        values = split_values(text)
        if len(values) == 1:
            fixed.append(assignment)
        else:
            axes.append((key, values))
    if not axes:
        raise UserError("nothing to vary", "msdet ablate --alpha 5,50,100,200,500")
    for key, values in axes:
        if not values or any(not value.strip() for value in values):
            raise UserError(
                f"--{key.removeprefix('weighting.')}: a value is missing", "msdet ablate --alpha 5,50,100"
            )
    return axes, fixed


def _action_set(text: str) -> str:
    names = list(ACTIONS) if text.strip() == "all" else [name.strip() for name in text.split("+")]
    return f"[{', '.join(names)}]"


def _combinations(axes: list[Axis], grid: bool) -> Iterable[list[tuple[str, str]]]:
    """The variants, each a list of keys with their values."""
    if grid:
        keys = [key for key, _ in axes]
        for combination in itertools.product(*(values for _, values in axes)):
            yield list(zip(keys, combination))
    else:
        for key, values in axes:
            for value in values:
                yield [(key, value)]


def _label(variant: list[tuple[str, str]]) -> str:
    return ", ".join(f"{key.removeprefix('weighting.')}={value.strip()}" for key, value in variant)


def _warn_of_long_intervals(planned: list[PlannedRun]) -> None:
    warned: set[tuple[str, int]] = set()
    for run in planned:
        alpha, iterations = _alpha(run.recipe), iterations_of(run)
        if alpha is not None and alpha >= iterations and (run.label, iterations) not in warned:
            warned.add((run.label, iterations))
            print(
                f"warning: {run.label}: no interval of {alpha} iterations ends before the run does"
                f" ({iterations} iterations), so the weights never change",
                file=sys.stderr,
            )


def _alpha(recipe: Recipe) -> int | None:
    alpha = recipe.weighting.get("alpha")
    return alpha if isinstance(alpha, int) else None

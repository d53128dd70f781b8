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
from experiments.launching.plan import PlannedRun
from experiments.recipes.loading import load_variants
from experiments.recipes.overrides import parse_assignment, split_values
from experiments.weighting.options import ACTIONS
from msdet_cli.console.result_tables import print_comparison
from msdet_cli.options import RunOptions, complete, with_run_options
from msdet_cli.run_plan import run_plan

Axis = tuple[str, list[str]]


@with_run_options()
def ablate(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="Name or path.", autocompletion=complete("recipe"))
    ] = "retinanet-r50-rlo",
    alpha: Annotated[
        str | None,
        typer.Option(metavar="VALUES", help="Iterations per interval; a profile does not scale them."),
    ] = None,
    n: Annotated[str | None, typer.Option("--n", metavar="VALUES", help="Number of enhanced levels.")] = None,
    actions: Annotated[
        str | None, typer.Option(metavar="VALUES", help="Action sets, each joined by +; 'all' is all four.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(metavar="VALUES", help="Probability step of a reward.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUES", help="Any key; one value holds for all variants. Repeatable."
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="All combinations instead of one option at a time.")
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Vary a recipe: one option at a time, or all combinations.

    --grid takes all combinations. Commas separate values, except inside brackets. A profile does not scale
    values. --set with one value holds for all variants. A failed run does not stop the others.

    \b
    msdet ablate --alpha 5,50,100,200,500
    msdet ablate --n 1,2,3 --actions variance,largest+uniform,all --seeds 2 -p tiny
    msdet ablate --set weighting.amplification=[1.5,1.0],[2.0,1.0] --dry-run
    """
    axes, fixed = _axes(alpha, n, actions, gamma, sets or [])
    variants = list(_combinations(axes, grid))
    overrides = [[*fixed, *(f"{key}={value}" for key, value in variant)] for variant in variants]
    varied = load_variants(recipe, options.profile, overrides, options.dataset)
    planned = options.plan(zip(map(_label, variants), map(options.execution.changed, varied)))
    _warn_of_long_intervals(planned)

    def compare(console: Console, code: int) -> None:
        from experiments.reporting import compare_runs

        print_comparison(console, compare_runs([p.folder for p in planned], [p.label for p in planned]))

    run_plan(planned, options, compare)


def _axes(
    alpha: str | None, n: str | None, actions: str | None, gamma: str | None, sets: list[str]
) -> tuple[list[Axis], list[str]]:
    """Return the varied keys with their values as text, and the assignments of all variants."""
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
        raise UserError(
            "nothing to vary: name an option with several values", "msdet ablate --alpha 5,50,100,200,500"
        )
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
    """Yield the variants, each a list of (key, value)."""
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
    """Print a warning for each variant whose weights never change."""
    warned: set[tuple[str, int]] = set()
    for run in planned:
        alpha, iterations = run.recipe.weighting.get("alpha"), iterations_of(run)
        if isinstance(alpha, int) and alpha >= iterations and (run.label, iterations) not in warned:
            warned.add((run.label, iterations))
            print(
                f"warning: {run.label}: no interval of {alpha} iterations ends before the run does"
                f" ({iterations} iterations), so the weights never change",
                file=sys.stderr,
            )

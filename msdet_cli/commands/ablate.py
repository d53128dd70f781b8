"""`msdet ablate`: vary a recipe around itself, as a table."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from experiments.common.config_text import flatten_keys
from experiments.common.errors import UserError
from experiments.common.files import display_path
from experiments.launching.forecast import count_iterations
from experiments.launching.plan import PlannedRun
from experiments.recipes.ablations import Ablation, extend_ablation
from experiments.recipes.loading import load_recipe
from experiments.recipes.overrides import parse_assignment, parse_values
from experiments.recipes.schema import Recipe
from experiments.recipes.table_files import update_table
from experiments.weighting.options import ACTIONS
from msdet_cli.commands.reproduce import plan_tables, run_tables
from msdet_cli.completion import complete, complete_settings
from msdet_cli.options import argument, option
from msdet_cli.run_options import RunOptions, with_run_options


@with_run_options()
def ablate(
    recipe: Annotated[str, argument("[RECIPE]", "Name or path.", complete("recipe"))] = "retinanet-r50-rlo",
    alpha: Annotated[
        str | None, option("--alpha VALUES", "Iterations per interval; a profile does not scale them.")
    ] = None,
    n: Annotated[str | None, option("--n VALUES", "Number of enhanced levels.")] = None,
    actions: Annotated[
        str | None, option("--actions VALUES", "Action sets, each joined by +; 'all' is all four.")
    ] = None,
    gamma: Annotated[str | None, option("--gamma VALUES", "Probability step of a reward.")] = None,
    sets: Annotated[
        list[str] | None,
        option("--set KEY=VALUES", "Any key; one value holds for all rows. Repeatable.", complete_settings),
    ] = None,
    grid: Annotated[bool, option("--grid", "All combinations instead of one option at a time.")] = False,
    name: Annotated[
        str | None, option("--name NAME", "The table's name. Default: recipe and options.")
    ] = None,
    against: Annotated[
        str | None, option("--against ROW", "What rows are compared with: recipe (default), baseline, a row.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Vary a recipe: one option at a time, or all combinations.

    Writes a table, results/ablations/RECIPE-OPTIONS.yaml, runs what it lacks and prints it. The table has
    the recipe's own values and the uniform baseline as well. The same command with more values or seeds
    extends it. Commas separate values, except inside brackets. A profile does not scale values. A failed
    run does not stop the others.

    \b
    msdet ablate --alpha 5,50,100,200,500
    msdet ablate --n 1,2,3 --actions variance,largest+uniform,all --seeds 2 -p tiny
    msdet ablate --set weighting.amplification=[1.5,1.0],[2.0,1.0] --dry-run
    """
    axes, shared = _axes({"alpha": alpha, "n": n, "gamma": gamma}, actions, sets or [])
    own = load_recipe(recipe, options.profile, shared, options.dataset)
    shared |= changes_by_options(own, options)
    wanted = Ablation(recipe, axes, grid, options.profile, options.dataset, shared, against, name)
    table = extend_ablation(wanted, options.results)
    planned = plan_tables([table], options)
    _warn_of_long_intervals(planned)
    if options.dry_run:
        print(f"table: {display_path(table.path)} (not written in a dry run)", file=sys.stderr)
    else:  # made again: another command may have extended the file by now
        table = update_table(table.path, lambda: extend_ablation(wanted, options.results))
    run_tables({table.path.stem: table}, planned, options)


def _axes(
    typed: dict[str, str | None], actions: str | None, sets: list[str]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the varied keys with their values, and the values of all rows."""
    axes = {f"weighting.{name}": parse_values(text) for name, text in typed.items() if text is not None}
    if actions is not None:
        axes["weighting.actions"] = [_action_set(value) for value in parse_values(actions)]
    shared: dict[str, Any] = {}
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        values = parse_values(text) if equals and text else []
        if len(values) > 1:
            key, _ = parse_assignment(f"{key}=null")  # refuses what is no key
            axes[key] = axes.get(key, []) + values
        else:
            shared |= [parse_assignment(assignment)]
    if not axes:
        raise UserError(
            "nothing to vary: name an option with several values", "msdet ablate --alpha 5,50,100,200,500"
        )
    return axes, shared


def _action_set(value: Any) -> Any:
    return list(ACTIONS) if value == "all" else value.split("+") if isinstance(value, str) else value


def changes_by_options(own: Recipe, options: RunOptions) -> dict[str, Any]:
    """Return what --amp and --scale-lr make of the recipe, as keys that all rows share."""
    before, after = (flatten_keys(one.model_dump()) for one in (own, options.execution.changed(own)))
    return {key: value for key, value in after.items() if value != before[key]}


def _warn_of_long_intervals(planned: list[PlannedRun]) -> None:
    """Print a warning for the rows whose weights never change."""
    labels: dict[tuple[int, int], dict[str, None]] = {}
    for run in planned:
        alpha, iterations = run.recipe.weighting.get("alpha"), count_iterations(run)
        has_intervals = run.recipe.weighting["rule"] not in ("uniform", "static")
        if has_intervals and isinstance(alpha, int) and alpha >= iterations:
            labels.setdefault((alpha, iterations), {})[run.label] = None
    for (alpha, iterations), rows in labels.items():
        print(
            f"warning: {'; '.join(rows)}: no interval of {alpha} iterations ends before the run does"
            f" ({iterations} iterations), so the weights never change",
            file=sys.stderr,
        )

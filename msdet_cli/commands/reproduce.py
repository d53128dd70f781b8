"""`msdet reproduce`: run what a table lacks, then print it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.plan import PlannedRun
from experiments.launching.table_runs import RecipeOf, first_recipes, later_recipes
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row, Table, load_table
from msdet_cli.completion import complete_tables
from msdet_cli.console.result_tables import print_results
from msdet_cli.options import print_note
from msdet_cli.run_options import RunOptions, with_run_options
from msdet_cli.run_plan import print_next, run_plan


@with_run_options("seed", "dataset")
def reproduce(
    tables: Annotated[
        list[str],
        typer.Argument(metavar="TABLE...", help="Names of tables, or paths.", autocompletion=complete_tables),
    ],
    *,
    options: RunOptions,
) -> None:
    """Run what tables lack, then print the tables.

    Every row's recipe is run with each seed. A run that several rows share is done once; done runs are
    skipped. Rows with the mean weights of another row's runs come last, after those runs. Ctrl-C saves a
    checkpoint; the same command resumes from it.

    \b
    msdet reproduce table3 -p tiny                 minutes per row on a CPU, built-in data
    msdet reproduce table1 --seeds 3 --dry-run     the missing runs and their cost
    msdet reproduce controls --seeds 3 --data-root /data/coco
    """
    loaded = {name: load_table(name, options.results_folder) for name in tables}
    run_tables(loaded, plan_tables(list(loaded.values()), options), options)


def plan_tables(tables: Sequence[Table], options: RunOptions) -> list[PlannedRun]:
    """Return the runs of all rows but those with mean weights."""
    for table in tables:
        for row in table.rows():
            if row.recipe is None:
                print_note(f"{table.name}: '{row.label}' ({row.id}) has no recipe: skipped")
    labelled = first_recipes(tables, _recipe_of(options))
    sets = {recipe.dataset.model_dump_json(): recipe.dataset.name for _, recipe in labelled}
    if options.data_root is not None and len(sets) > 1:
        raise UserError(
            f"--data-root: one folder cannot hold the {len(sets)} data sets of these rows:"
            f" {', '.join(sorted(sets.values()))}",
            "reproduce the tables one by one, or link the data: msdet data ls",
        )
    return options.plan(labelled)


def run_tables(tables: dict[str, Table], planned: list[PlannedRun], options: RunOptions) -> NoReturn:
    """Run what tables lack, print them, and exit.

    Args:
        tables: By the names or paths that `msdet report` finds them by.
        planned: As `plan_tables` returns them.
        options: Of the command.
    """

    def rounds() -> Iterator[list[PlannedRun]]:
        yield planned
        labelled, waiting = later_recipes(
            list(tables.values()), _recipe_of(options), planned, options.dry_run
        )
        for sentence in waiting:
            print_note(sentence)
        yield options.plan(labelled)

    def print_tables(console: Console, code: int) -> None:
        paths = [str(table.path) for table in tables.values()]
        print_results(console, options.results_folder, paths, [run.folder for run in planned])
        print_next(console, code, options, *tables)

    run_plan(planned, options, print_tables, rounds())


def _recipe_of(options: RunOptions) -> RecipeOf:
    def recipe_of(table: Table, row: Row, weights: Sequence[float] = (1.0,)) -> Recipe:
        return options.execution.changed(table.recipe_of(row, weights, options.profile))

    return recipe_of

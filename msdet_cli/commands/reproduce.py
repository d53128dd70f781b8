"""`msdet reproduce`: run what a table lacks, then print it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.plan import PlannedRun
from experiments.launching.table_runs import Labelled, first_recipes, later_recipes, without_recipe
from experiments.recipes.tables import load_table
from msdet_cli.console.result_tables import print_legend, print_problems, print_table
from msdet_cli.options import RunOptions, complete, with_run_options
from msdet_cli.run_plan import run_plan


@with_run_options("seed", "dataset")
def reproduce(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE...", help="Names of tables, or paths.", autocompletion=complete("table")
        ),
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
    names = list(dict.fromkeys(tables))
    loaded = [load_table(name) for name in names]
    change = options.execution.changed
    _print_notes(without_recipe(loaded))
    first = first_recipes(loaded, options.profile, change)
    _check_data_root(first, options.data_root)
    planned = options.plan(first)

    def plan_more() -> list[PlannedRun]:
        labelled, waiting = later_recipes(loaded, options.profile, planned, options.dry_run, change)
        _print_notes(waiting)
        return options.plan(labelled)

    def print_tables(console: Console, code: int) -> None:
        _print_tables(console, names, planned, options)

    run_plan(planned, options, print_tables, plan_more)


def _print_notes(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"note: {sentence}", file=sys.stderr)


def _check_data_root(labelled: Sequence[Labelled], data_root: Path | None) -> None:
    sets = {recipe.dataset.model_dump_json(): recipe.dataset.name for _, recipe in labelled}
    if data_root is not None and len(sets) > 1:
        raise UserError(
            f"--data-root: one folder cannot hold the {len(sets)} data sets of these rows:"
            f" {', '.join(sorted(sets.values()))}",
            "reproduce the tables one by one, or link the data: msdet data ls",
        )


def _print_tables(
    console: Console, names: list[str], planned: Sequence[PlannedRun], options: RunOptions
) -> None:
    """Print the tables in these runs' contexts; under a profile without published numbers."""
    from experiments.reporting import build_report, collect, context_of

    made = build_report(collect(options.results_folder), names)
    contexts = {context_of(run.recipe) for run in planned}
    in_contexts = [table for table in made.in_contexts if table.context in contexts]
    shown = made.published if options.profile is None else in_contexts
    console.print()
    for table in shown:
        print_table(console, table)
    if any(table.folders for table in shown):
        print_legend(console)
    print_problems(console, made.problems)

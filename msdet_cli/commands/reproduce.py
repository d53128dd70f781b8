"""`msdet reproduce`: run what a table lacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.plan import PlannedRun, plan
from experiments.launching.table_runs import Labelled, first_recipes, later_recipes, without_recipe
from experiments.recipes.tables import load_table
from experiments.runs.lookup import results_dir
from msdet_cli.console.result_tables import print_legend, print_problems, print_table
from msdet_cli.launch_options import LaunchOptions, with_launch_options
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DryRunOpt,
    ForceOpt,
    JsonOpt,
    ProfileOpt,
    ResultsOpt,
    RetryOpt,
    SeedsOpt,
    chosen_seeds,
    complete,
)
from msdet_cli.run_plan import run_plan


@with_launch_options
def reproduce(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE...", help="Names of tables, or paths.", autocompletion=complete("table")
        ),
    ],
    profile: ProfileOpt = None,
    seeds: SeedsOpt = None,
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    dry_run: DryRunOpt = False,
    retry_failed: RetryOpt = False,
    force: ForceOpt = False,
    as_json: JsonOpt = False,
    *,
    launch_options: LaunchOptions,
) -> None:
    """Run what tables lack: every row's recipe with each seed, then print the tables.

    A run that several rows share is done once, and what is done already is skipped. Rows whose weights are the
    mean weights of another row's runs come last, once those runs are there. Ctrl-C saves a checkpoint; the same
    command goes on from there.

    \b
    msdet reproduce table3 -p tiny                 minutes a row on a CPU, built-in data
    msdet reproduce table1 --seeds 3 --dry-run     what there is to do, and where
    msdet reproduce controls --seeds 3 --data-root /data/coco
    """
    names = list(dict.fromkeys(tables))
    loaded = [load_table(name) for name in names]
    folder = results_dir(results)
    _note(without_recipe(loaded))

    def planned_for(labelled: Sequence[Labelled]) -> list[PlannedRun]:
        chosen = chosen_seeds(None, seeds)
        return plan(
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

    first = first_recipes(loaded, profile, launch_options.execution.changed)
    _check_data_root(first, data_root)
    planned = planned_for(first)

    def plan_more() -> list[PlannedRun]:
        labelled, waiting = later_recipes(loaded, profile, planned, dry_run, launch_options.execution.changed)
        _note(waiting)
        return planned_for(labelled)

    def show_tables(console: Console, code: int) -> None:
        _print_tables(console, names, profile, planned, folder)

    run_plan(planned, dry_run, as_json, show_tables, plan_more, launch_options=launch_options, results=folder)


def _note(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"note: {sentence}", file=sys.stderr)


def _check_data_root(labelled: Sequence[Labelled], data_root: Path | None) -> None:
    sets = {recipe.dataset.model_dump_json(): recipe.dataset.name for _, recipe in labelled}
    if data_root is not None and len(sets) > 1:
        raise UserError(
            f"--data-root: one folder cannot hold the {len(sets)} data sets of these rows:"
            f" {', '.join(sorted(sets.values()))}",
            "reproduce their tables one by one, or link the data: msdet data ls",
        )


def _print_tables(
    console: Console, names: list[str], profile: str | None, planned: Sequence[PlannedRun], results: Path
) -> None:
    """The tables as far as this command's runs go: under a profile not those of the published numbers."""
    from experiments.reporting import build_report, collect, context_of

    made = build_report(collect(results), names)
    contexts = {context_of(run.recipe) for run in planned}
    shown = made.published if profile is None else [t for t in made.in_contexts if t.context in contexts]
    console.print()
    for table in shown:
        print_table(console, table)
    if any(table.folders for table in shown):
        print_legend(console)
    print_problems(console, made.problems)

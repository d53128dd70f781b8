"""`msdet reproduce`: run what a table lacks, then print it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NoReturn

from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.devices import load_figures
from experiments.launching.plan import PlannedRun
from experiments.launching.table_runs import list_first_recipes, list_later_recipes
from experiments.recipes.tables import Table, load_table
from msdet_cli.completion import complete_tables
from msdet_cli.console.output import print_lines, print_note
from msdet_cli.console.result_tables import print_results
from msdet_cli.options import argument
from msdet_cli.run_options import RunOptions, with_run_options
from msdet_cli.run_plan import print_next, run_plan


@with_run_options("seed", "dataset")
def reproduce(
    tables: Annotated[list[str], argument("TABLE...", "Names of tables, or paths.", complete_tables)],
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
    msdet reproduce table1 --seeds 5 --dry-run --on h100x4     the same for GPUs that are elsewhere
    msdet reproduce controls --seeds 3 --data-root /data/coco
    """
    loaded = {name: load_table(name, options.results) for name in tables}
    run_tables(loaded, plan_tables(list(loaded.values()), options), options)


def plan_tables(tables: Sequence[Table], options: RunOptions) -> list[PlannedRun]:
    """Return the runs of all rows but those with mean weights."""
    for table in tables:
        for row in table.rows():
            if row.recipe is None:
                print_note(f"{table.name}: '{row.label}' ({row.id}) has no recipe: skipped")
    labelled = list_first_recipes(tables, options.recipe_of)
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
    """

    def rounds() -> Iterator[list[PlannedRun]]:
        yield planned
        labelled, waiting = list_later_recipes(
            list(tables.values()), options.recipe_of, planned, options.dry_run
        )
        for sentence in waiting:
            print_note(sentence)
        yield options.plan(labelled)

    def print_tables(console: Console, code: int) -> None:
        paths = [str(table.path) for table in tables.values()]
        print_results(console, options.results, paths, [run.folder for run in planned])
        print_next(console, code, options, *tables)

    def print_seeds(console: Console) -> None:
        for table in tables.values() if options.device else ():
            print_seeds_needed(console, table)

    run_plan(planned, options, print_tables, rounds(), on_dry_run=print_seeds)


def print_seeds_needed(console: Console, table: Table) -> None:
    """Print how many seeds could show each published difference, at the spread that others report."""
    from experiments.reporting.stats.power import MAX_SEEDS, compute_power
    from experiments.reporting.stats.statistics import MIN_SEEDS, Difference, format_signed

    metric = table.columns[0]
    spread = load_figures()["spread"].get(metric)
    published = [(row, table.published_difference(row)) for row in table.rows() if not row.reference]
    differences = [(row, difference) for row, difference in published if difference]
    if spread is None or not differences:
        return
    two_seeds = Difference(0.0, error=spread["sd"], n=2)  # sd² / 2 + sd² / 2
    rows = []
    for row, difference in differences:
        needed = compute_power(two_seeds, difference)
        seeds = max(needed.needed, MIN_SEEDS) if needed and needed.needed else f"more than {MAX_SEEDS}"
        name = f"{row.label}, {row.backbone}" if row.backbone else row.label
        rows.append([name, format_signed(difference), str(seeds)])
    console.print()
    header = [table.name, f"published {metric}", "seeds"]
    print_lines(console, header, rows, right=header[1:])
    console.print(
        f"seeds: of each row, to show the difference with 80 % power if seeds differ by {spread['sd']} {metric}"
        f" (sd; {spread['source']})",
        highlight=False,
    )

"""`msdet compare`: add seeds until it is settled whether a recipe beats its baseline."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from rich.console import Console

from experiments.common.errors import INTERRUPTED, UserError
from experiments.common.files import display_path
from experiments.recipes.ablations import Ablation
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.overrides import parse_assignment
from experiments.recipes.studies import extend_study
from experiments.recipes.table_files import update_table
from msdet_cli.commands.ablate import changes_by_options
from msdet_cli.commands.reproduce import plan_tables
from msdet_cli.completion import complete
from msdet_cli.console.output import make_console, print_line, print_note
from msdet_cli.console.result_tables import print_results
from msdet_cli.hints import repeat_command
from msdet_cli.options import SetOpt, argument, option
from msdet_cli.run_options import RunOptions, with_run_options
from msdet_cli.run_plan import print_next, run_plan

MAX_SEEDS = 20


@with_run_options("seed", "seeds", "force", "yes", "nodes", "rdzv", "slurm")
def compare(
    recipe: Annotated[str, argument("RECIPE", "Name or path.", complete("recipe"))],
    baseline: Annotated[
        str | None,
        argument("[BASELINE]", "Name or path. Default: the same with uniform weights.", complete("recipe")),
    ] = None,
    effect: Annotated[
        float | None, option("--effect POINTS", "Smallest difference that matters. Default: 0.5.")
    ] = None,
    max_seeds: Annotated[
        int, option("--max-seeds COUNT", "Seeds to end at, settled or not.", min=2)
    ] = MAX_SEEDS,
    spread: Annotated[
        float | None,
        option("--spread POINTS", "Expected standard deviation of a seed's difference. Default: the effect."),
    ] = None,
    sets: SetOpt = None,
    name: Annotated[str | None, option("--name NAME", "The study's name. Default: compare-BASELINE.")] = None,
    *,
    options: RunOptions,
) -> None:
    """Add seeds until a recipe's gain or loss is settled.

    Trains both with one seed after the other, several runs at once where --jobs or the GPUs allow, and
    looks after each: is there a gain, a loss, or less than the effect that matters? The intervals hold
    however often one looks. Writes a table, results/ablations/compare-BASELINE.yaml, which further recipes
    join. The same command resumes, or goes on with more --max-seeds. A seed that fails is left out.

    \b
    msdet compare retinanet-r50-rlo --effect 0.5 --data-root /data/coco
    msdet compare retinanet-r50-rlo retinanet-r50 --effect 3 -p tiny --jobs 2
    msdet compare retinanet-r50-avw --effect 3 -p tiny --max-seeds 40 --dry-run
    """
    from msdet_cli.study_run import StudyRun  # imports pandas

    for flag, value in (("--effect", effect), ("--spread", spread)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{flag}: {value:g} is not allowed: a number above 0", f"{flag} 0.5")
    shared = dict(map(parse_assignment, sets or ()))
    own = load_recipe(recipe, options.profile, shared, options.dataset)
    shared |= changes_by_options(own, options)
    wanted = Ablation(recipe, {}, False, options.profile, options.dataset, shared, baseline, name)
    options = dataclasses.replace(options, seeds=max_seeds)
    table = extend_study(wanted, effect, spread, options.results)
    planned = plan_tables([table], options)
    if options.dry_run:
        print_note(
            f"at most these runs, fewer once it is settled; {display_path(table.path)} is not written now"
        )
    else:
        table = update_table(table.path, lambda: extend_study(wanted, effect, spread, options.results))
    console = make_console(is_quiet=options.as_json)
    study = StudyRun(table, compute_recipe_id(options.execution.changed(own)), planned, options, console)

    def print_tables(console: Console, code: int) -> None:
        print_results(console, options.results, [str(table.path)], [run.folder for run in study.own])
        if not study.is_settled and code != INTERRUPTED:
            more = repeat_command("--max-seeds", str(2 * max_seeds))
            print_line(console, f"not settled; more seeds: {more}")
        print_next(console, code, options, table.path.stem)

    run_plan(study.own, options, print_tables, study.rounds(), study.content)

"""`msdet run`: train and evaluate recipes."""

from __future__ import annotations

from typing import Annotated

from rich.console import Console

from experiments.recipes.loading import load_recipe
from msdet_cli.completion import complete
from msdet_cli.console.result_tables import print_results
from msdet_cli.options import SetOpt, argument
from msdet_cli.run_options import RunOptions, with_run_options
from msdet_cli.run_plan import print_next, run_plan


@with_run_options()
def run(
    recipes: Annotated[list[str], argument("RECIPE...", "Names of recipes, or paths.", complete("recipe"))],
    sets: SetOpt = None,
    *,
    options: RunOptions,
) -> None:
    """Train and evaluate recipes, each with each seed.

    Runs are executed in parallel as far as the GPUs allow. Done runs are skipped, interrupted ones resume
    from their last checkpoint. Ctrl-C saves a checkpoint first; the same command resumes from it.

    \b
    msdet run retinanet-r50-rlo -p tiny                      minutes on a CPU, built-in data
    msdet run retinanet-r50-rlo --data-root /data/coco       the paper's setting
    msdet run retinanet-r50 retinanet-r50-rlo --seeds 3 -p tiny
    msdet run retinanet-r50-rlo -p tiny --set weighting.alpha=5
    """
    label = ", ".join(sets or [])
    resolved = [load_recipe(name, options.profile, sets or (), options.dataset) for name in recipes]
    planned = options.plan((label, options.execution.changed(recipe)) for recipe in resolved)

    def print_table(console: Console, code: int) -> None:
        if len(recipes) > 1:
            print_results(console, options.results, [], [one.folder for one in planned])
        print_next(console, code, options)

    run_plan(planned, options, print_table)

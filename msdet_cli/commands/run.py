"""`msdet run`: train and evaluate recipes."""

from __future__ import annotations

from rich.console import Console

from experiments.launching.plan import plan
from experiments.recipes.loading import load_recipe
from experiments.runs.lookup import results_dir
from msdet_cli.launch_options import LaunchOptions, with_launch_options
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    DryRunOpt,
    ForceOpt,
    JsonOpt,
    ProfileOpt,
    RecipesArg,
    ResultsOpt,
    RetryOpt,
    SeedOpt,
    SeedsOpt,
    SetOpt,
    chosen_seeds,
)
from msdet_cli.run_plan import run_plan


@with_launch_options
def run(
    recipes: RecipesArg,
    profile: ProfileOpt = None,
    seed: SeedOpt = None,
    seeds: SeedsOpt = None,
    sets: SetOpt = None,
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
    """Train and evaluate recipes, each with each seed, as many at once as the machine has room for.

    Runs that are done are skipped, interrupted ones go on from their last checkpoint. Ctrl-C saves a
    checkpoint first; the same command goes on from there.

    \b
    msdet run retinanet-r50-rlo -p tiny                      minutes on a CPU, built-in data
    msdet run retinanet-r50-rlo --data-root /data/coco       the paper's setting
    msdet run retinanet-r50 retinanet-r50-rlo --seeds 3 -p tiny
    msdet run retinanet-r50-rlo -p tiny --set weighting.alpha=5
    """
    chosen = chosen_seeds(seed, seeds)
    label = ", ".join(sets or [])
    labelled = [
        (label, launch_options.execution.changed(load_recipe(name, profile, sets or (), dataset)))
        for name in recipes
    ]
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

    def say_what_is_next(console: Console, code: int) -> None:
        tiny = f" -p {profile}" if profile else ""
        more = f"; more seeds: msdet run {recipes[0]}{tiny} --seeds 3" if len(chosen) == 1 else ""
        if code == 0:
            console.print(f"next: msdet report{more}", soft_wrap=True)

    run_plan(planned, dry_run, as_json, say_what_is_next, launch_options=launch_options, results=folder)

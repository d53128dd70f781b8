"""`msdet run`: train and evaluate recipes."""

from __future__ import annotations

from rich.console import Console

from experiments.launching.plan import plan
from experiments.recipes import load_recipe
from experiments.runs import results_dir
from msdet_cli.execute import finish
from msdet_cli.launching import How, launched
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


@launched
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
    how: How,
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
        (label, how.execution.changed(load_recipe(name, profile, sets or (), dataset))) for name in recipes
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
        execution=how.execution,
        gpus=how.gpus,
    )

    def say_what_is_next(console: Console, code: int) -> None:
        tiny = f" -p {profile}" if profile else ""
        more = f"; more seeds: msdet run {recipes[0]}{tiny} --seeds 3" if len(chosen) == 1 else ""
        if code == 0:
            console.print(f"next: msdet report{more}", soft_wrap=True)

    finish(planned, dry_run, as_json, say_what_is_next, how=how, results=folder)

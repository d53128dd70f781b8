"""`msdet run`: train and evaluate recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.errors import UserError
from experiments.launching.plan import PlannedRun, plan
from experiments.recipes import load_recipe
from experiments.runs import results_dir
from msdet_cli.execute import execute, print_json, show_plan
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    JsonOpt,
    ProfileOpt,
    RecipesArg,
    ResultsOpt,
    SeedsOpt,
    SetOpt,
)
from msdet_cli.tables import wide_console

DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")]
RetryOpt = Annotated[
    bool, typer.Option("--retry-failed", help="Try failed runs again, from their last checkpoint.")
]
ForceOpt = Annotated[bool, typer.Option("--force", help="Throw away what these runs have, and start anew.")]


def run(
    recipes: RecipesArg,
    profile: ProfileOpt = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="K", min=0, help="One seed (default 0).")
    ] = None,
    seeds: SeedsOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    dry_run: DryRunOpt = False,
    retry_failed: RetryOpt = False,
    force: ForceOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Train and evaluate recipes, each with each seed, one after another.

    Runs that are done are skipped, interrupted ones go on from their last checkpoint. Ctrl-C saves a
    checkpoint first; the same command goes on from there.

    \b
    msdet run retinanet-r50-rlo -p tiny                      minutes on a CPU, built-in data
    msdet run retinanet-r50-rlo --data-root /data/coco       the paper's setting
    msdet run retinanet-r50 retinanet-r50-rlo --seeds 3 -p tiny
    msdet run retinanet-r50-rlo -p tiny --set weighting.alpha=5
    """
    chosen = chosen_seeds(seed, seeds)
    resolved = [(_label(sets), load_recipe(name, profile, sets or (), dataset)) for name in recipes]
    planned = plan(
        resolved, chosen, results_dir(results), data_root, retry_failed, force, generate=not dry_run
    )
    finish(planned, dry_run, as_json, recipes[0], profile)


def chosen_seeds(seed: int | None, seeds: int | None) -> list[int]:
    if seed is not None and seeds is not None:
        raise UserError(
            "--seed and --seeds exclude each other", "--seed 3 is one seed; --seeds 3 are seeds 0, 1, 2"
        )
    return list(range(seeds)) if seeds is not None else [seed or 0]


def _label(sets: list[str] | None) -> str:
    return ", ".join(sets or [])


def finish(planned: list[PlannedRun], dry_run: bool, as_json: bool, recipe: str, profile: str | None) -> None:
    """Runs (or shows) the plan, prints what to type next, and exits with the shared code."""
    console = None if as_json else wide_console()
    if dry_run:
        if console is not None:
            show_plan(console, planned)
        else:
            print_json(planned)
        return
    code = execute(planned, console)
    if console is None:
        print_json(planned)
    elif code == 0:
        tiny = f" -p {profile}" if profile else ""
        more = (
            ""
            if len({run.seed for run in planned}) > 1
            else f"; more seeds: msdet run {recipe}{tiny} --seeds 3"
        )
        console.print(f"next: msdet report{more}", soft_wrap=True)
    raise typer.Exit(code)

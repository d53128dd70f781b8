"""`msdet runs`: list runs, and say what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from experiments.common.cache import FileFacts
from experiments.common.errors import UserError, did_you_mean
from experiments.launching.run_states import read_runs
from experiments.recipes import catalogue
from experiments.runs.lookup import find_existing_results_dir, find_runs, iterate
from experiments.runs.run_folder import RunFolder
from msdet_cli.completion import complete_words
from msdet_cli.console.output import make_console, print_json, print_line
from msdet_cli.console.result_tables import print_problems
from msdet_cli.console.run_list import ListedRun, list_runs, print_details, print_runs
from msdet_cli.options import (
    RESULTS,
    STATES,
    DatasetsOpt,
    JsonOpt,
    ProfilesOpt,
    RecipesOpt,
    ResultsOpt,
    RunsArg,
    StatesOpt,
    check_choice,
    option,
)

SORT_KEYS: dict[str, Callable[[ListedRun], Any]] = {
    "run": lambda one: "",
    "state": lambda one: STATES.index(one.state),
    "metric": lambda one: max(one.metrics.values(), default=-1),
    "started": lambda one: one.started,
    "took": lambda one: one.seconds or 0.0,
    "size": lambda one: one.size,
}
DESCENDING = ("metric", "started", "took", "size")  # best, newest, longest, largest first


def runs(
    which: RunsArg = None,
    recipes: RecipesOpt = None,
    profiles: ProfilesOpt = None,
    datasets: DatasetsOpt = None,
    states: StatesOpt = None,
    sort: Annotated[
        str, option("--sort KEY", f"Order: {', '.join(SORT_KEYS)}.", complete_words(SORT_KEYS))
    ] = "run",
    with_size: Annotated[bool, option("--size", "Show the disk use of each run.")] = False,
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """List runs: what they are, their state and result.

    `differs` is in what a run's recipe differs from the page of its name: own value, the page's in brackets.
    Of one RUN everything is shown.

    \b
    msdet runs
    msdet runs retinanet-r50-rlo --sort metric
    msdet runs --state failed --profile tiny
    msdet runs retinanet-r50-rlo/1a2b3c4d/seed0
    msdet runs --size --sort size
    """  # fmt: skip
    check_choice("--sort", sort, SORT_KEYS)
    folder = find_existing_results_dir(results)
    unreadable: list[OSError] = []
    known, errors = read_runs(_select(which or (), folder, unreadable))
    problems = [f"{error.filename} cannot be read: {error.strerror}." for error in unreadable]
    problems += [f"{error.message}." for error in errors]
    facts = FileFacts(["digests", str(folder.absolute())])
    listed = [
        one
        for one in list_runs(known, facts)
        if (not recipes or one.record.recipe in recipes)
        and (not profiles or (one.record.profile or "none") in profiles)
        and (not datasets or one.data in datasets)
        and (not states or one.state in states)
    ]
    listed.sort(key=SORT_KEYS[sort], reverse=sort in DESCENDING)
    console = Console(stderr=True) if as_json else make_console()
    if as_json:
        print_json([one.as_json() | ({"bytes": one.size} if with_size else {}) for one in listed])
    elif listed:
        print_runs(console, listed, with_size)
        if which and len(listed) == 1:
            print_details(console, listed[0])
    elif known:
        print(f"none of {len(known)} runs is like that")
    elif not problems:
        typed = which[0] if which else "retinanet-r50-rlo"
        of = f" of {typed}" if which else ""
        print_line(console, f"no runs{of} in {folder}; try: msdet run {typed} -p tiny")
    print_problems(console, problems)
    facts.save()


def _select(references: Sequence[str], results: Path, unreadable: list[OSError]) -> list[RunFolder]:
    """Return the runs that any of the references fits; all without one. A recipe need not have runs."""
    if not references:
        return list(iterate(results, unreadable.append))
    found: dict[Path, RunFolder] = {}
    for reference in references:
        try:
            found |= {run.path: run for run in find_runs(reference, results)}
        except UserError as error:
            recipes = {*catalogue.list_pages("recipe"), *(run.path.parts[-3] for run in iterate(results))}
            if reference not in recipes:
                close = did_you_mean(reference, recipes)
                raise UserError(f"runs of '{reference}' not found; {close}", error.hint) from None
    return list(found.values())

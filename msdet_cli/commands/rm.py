"""`msdet rm`: delete runs, or all of their checkpoints but the last."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.common.errors import FAILED, UserError
from experiments.launching.run_states import read_runs
from experiments.runs import removal
from experiments.runs.lookup import find_existing_results_dir, select
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import ACTIVE_STATES, format_size
from msdet_cli.console.output import confirm, make_console, print_lines, print_note
from msdet_cli.options import RESULTS, ResultsOpt, RunsArg, StatesOpt, YesOpt, option


def rm(
    which: RunsArg = None,
    states: StatesOpt = None,
    every: Annotated[bool, option("--all", "All runs, or all that match RUN.")] = False,
    checkpoints: Annotated[
        bool, option("--checkpoints", "Delete checkpoints only, and keep the last of each run.")
    ] = False,
    yes: YesOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Delete runs: list them with their sizes, ask, delete.

    Queued and running runs are left. Links are not followed.

    \b
    msdet rm retinanet-r50-rlo/1a2b3c4d/seed0
    msdet rm --state failed
    msdet rm retinanet-r50-rlo --all --checkpoints
    """
    has_all = every or bool(states)
    runs = select(which or [], find_existing_results_dir(results), has_all)
    found = {one.run: one.state for one in read_runs(runs)[0]}
    doomed: dict[RunFolder, list[Path]] = {}
    for run in runs:
        state = found.get(run, "unreadable")
        if states and state not in states:
            continue
        if state in ACTIVE_STATES and not has_all:
            raise UserError(f"run {run.name} is {state}", f"msdet cancel {run.name}")
        if state in ACTIVE_STATES:
            print_note(f"skipped: {run.name} is {state}")
        elif paths := removal.list_old_checkpoints(run) if checkpoints else [run.path]:
            doomed[run] = paths
    if not doomed:
        print("nothing to delete")
        return
    sizes = {run: sum(map(removal.measure_disk_use, paths)) for run, paths in doomed.items()}
    rows = [[run.name, found.get(run, "unreadable"), format_size(sizes[run])] for run in doomed]
    print_lines(make_console(), ["run", "state", "frees"], rows, right=("frees",))
    what = f"{len(doomed)} run{'s' * (len(doomed) > 1)}, {sum(row[1] == 'done' for row in rows)} of them done"
    what = f"old checkpoints of {what}" if checkpoints else what
    confirm(f"this deletes {what}, and frees {format_size(sum(sizes.values()))}", yes)
    freed, remove = 0, removal.remove_old_checkpoints if checkpoints else removal.remove_run
    for run, size in sizes.items():
        try:
            remove(run)
            freed += size
        except UserError as error:
            print_note(f"skipped: {error.message}")
    print(f"freed {format_size(freed)}")
    if freed < sum(sizes.values()):
        raise typer.Exit(FAILED)

"""`msdet cancel`: runs at work save and end, runs that wait are left out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.common.errors import DONE, FAILED, UserError, did_you_mean
from experiments.launching.cancel import Cancel
from experiments.runs.lookup import SeveralRunsError, fits, iterate, resolve, results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.options import RESULTS, JsonOpt, ResultsOpt

PATIENCE_S = (
    120  # an optimizer step of a full-size recipe on a CPU takes long, and a checkpoint is written after it
)
LOOK_EVERY_S = 0.2
UNDER_WAY = ("queued", "running")


def cancel(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Folders, names, or parts of names: see msdet runs."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All runs under way, or all of them that the RUNs fit.")
    ] = False,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Cancel runs: those at work save a checkpoint and end, those that wait are not begun.

    A cancelled run is left alone by the command that planned it; --retry-failed goes on with it from its last
    checkpoint.

    \b
    msdet cancel retinanet-r50-rlo/1a2b3c4d/seed0
    msdet cancel retinanet-r50-rlo --all
    msdet cancel --all
    """
    folder = results_dir(results)
    runs = _under_way(which or [], folder) if every else _named(which or [], folder)
    cancels = [Cancel(run) for run in runs]
    told: set[str] = set()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for one in cancels:
                if one.step() and one.run.name not in told:
                    told.add(one.run.name)
                    _tell(one, as_json)
            if len(told) == len(cancels) or time.monotonic() > deadline:
                break
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:  # they were asked, and end whether anybody waits or not
        pass
    _close(cancels, as_json)


def _named(which: list[str], results: Path) -> list[RunFolder]:
    if not which:
        raise UserError(
            "no run is named", "msdet cancel RUN, or msdet cancel --all for all that are under way"
        )
    try:
        runs = [resolve(one, results) for one in which]
    except SeveralRunsError as error:
        raise UserError(error.message, "name it in full, or cancel them all: --all") from None
    return list({run.path.resolve(): run for run in runs}.values())


def _under_way(which: list[str], results: Path) -> list[RunFolder]:
    """Those of the runs that fit which are queued or at work; what cannot be read is not."""
    all_runs = {run.name: run for run in iterate(results)}
    for one in which:
        if not any(fits(one, name) for name in all_runs):
            raise UserError(
                f"run '{one}' not found in {results.resolve()}; {did_you_mean(one, all_runs)}", "msdet runs"
            )
    found = []
    for name, run in all_runs.items():
        if not which or any(fits(one, name) for one in which):
            try:
                if run.state() in UNDER_WAY:
                    found.append(run)
            except UserError as error:
                print(f"note: left out: {error.message}", file=sys.stderr)
    return found


def _tell(one: Cancel, as_json: bool) -> None:
    if as_json:
        return
    if one.outcome == "cancelled":
        text = "cancelled" + (" (a checkpoint is saved)" if one.run.last_checkpoint() else "")
    elif one.outcome == "was over":
        text = f"{one.before}: there is nothing to cancel"
    else:
        text = f"{one.run.state()} before it could be cancelled"
    print(f"{one.run.name}: {text}" + (f"; {one.note}" if one.note else ""), flush=True)


def _close(cancels: list[Cancel], as_json: bool) -> None:
    left = [one for one in cancels if one.outcome is None]
    if as_json:
        rows = [
            {
                "run": one.run.name,
                "before": one.before,
                "state": one.run.state(),
                "cancelled": one.outcome == "cancelled",
                "note": one.note,
            }
            for one in cancels
        ]
        print(json.dumps(rows, indent=2))
    else:
        for one in left:
            print(f"{one.run.name}: asked to end, still at work; it ends by itself behind its step")
        if not cancels:
            print("no run is under way: there is nothing to cancel")
        if any(one.outcome == "cancelled" for one in cancels):
            print("  --retry-failed, with the command that planned them, goes on with cancelled runs")
    raise typer.Exit(FAILED if left else DONE)

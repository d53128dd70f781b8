"""`msdet cancel`: stop running runs with a checkpoint saved, and drop queued ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from experiments.common.errors import DONE, FAILED, UserError
from experiments.launching.cancel import Cancel
from experiments.runs.lookup import select
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import ACTIVE_STATES
from msdet_cli.console.output import print_json, print_note
from msdet_cli.options import RESULTS, JsonOpt, ResultsOpt, RunsArg, option

WAIT_S = 120  # a full-size optimizer step on a CPU and a checkpoint take long
POLL_INTERVAL_S = 0.2


def cancel(
    which: RunsArg = None,
    every: Annotated[bool, option("--all", "All active runs, or all active runs that match.")] = False,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Cancel runs: save a checkpoint and stop.

    Queued runs do not start. A cancelled run stays cancelled until --retry-failed resumes it from its last
    checkpoint.

    \b
    msdet cancel retinanet-r50-rlo/1a2b3c4d/seed0
    msdet cancel retinanet-r50-rlo --all
    msdet cancel --all
    """
    runs = select(which or [], results, every)
    cancels = [Cancel(run) for run in (_active(runs) if every else runs)]
    with contextlib.suppress(KeyboardInterrupt):  # the runs stop without this command, too
        deadline = time.monotonic() + WAIT_S
        while True:
            for one in [one for one in cancels if one.outcome is None]:
                if _is_over(one, is_single=len(cancels) == 1) and not as_json:
                    _report(one)
            if all(one.outcome for one in cancels) or time.monotonic() > deadline:
                break
            time.sleep(POLL_INTERVAL_S)
    _report_end(cancels, as_json)


def _is_over(one: Cancel, is_single: bool) -> bool:
    """Do the next step of a cancellation; one that cannot be done is over, and does not stop the others."""
    try:
        return one.step()
    except UserError as error:
        if is_single:
            raise
        one.outcome, one.note = "refused", error.message
        return True


def _active(runs: list[RunFolder]) -> Iterator[RunFolder]:
    """Yield the runs that are queued or running; say which cannot be read."""
    for run in runs:
        try:
            if run.state() in ACTIVE_STATES:
                yield run
        except UserError as error:
            print_note(f"skipped: {error.message}")


def _report(one: Cancel) -> None:
    if one.outcome == "cancelled":
        text = "cancelled" + (" (a checkpoint is saved)" if one.run.last_checkpoint() else "")
    elif one.outcome == "was over":
        text = f"{one.before}: nothing to cancel"
    elif one.outcome == "refused":
        text = "not cancelled"
    else:
        text = f"{one.run.state()} before the request reached it"
    print(f"{one.run.name}: {text}" + (f"; {one.note}" if one.note else ""), flush=True)


def _report_end(cancels: list[Cancel], as_json: bool) -> None:
    left = [one for one in cancels if one.outcome is None]
    has_failed = bool(left) or any(one.outcome == "refused" for one in cancels)
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
        print_json(rows)
    else:
        for one in left:
            print(f"{one.run.name}: stop requested, still running; it stops after its current step")
        if not cancels:
            print("no active runs: nothing to cancel")
        if any(one.outcome == "cancelled" for one in cancels):
            print("  resume cancelled runs: the command that planned them, with --retry-failed")
    raise typer.Exit(FAILED if has_failed else DONE)

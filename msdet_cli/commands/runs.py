"""`msdet runs`: list runs with state, progress and result."""

from __future__ import annotations

import json
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError, did_you_mean
from experiments.recipes import catalogue
from experiments.runs.lookup import iterate, results_dir
from experiments.runs.record import Record, Status
from experiments.runs.run_flags import marks_of
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import MAIN_METRICS, format_duration, format_iterations, format_main_metric
from msdet_cli.console.result_tables import COLOURS, make_console, print_marks, print_problems
from msdet_cli.console.text_lines import Cell, print_lines
from msdet_cli.options import RESULTS, JsonOpt, ResultsOpt, complete

WIDE_CONSOLE = 100  # characters; a narrower one omits the year
MAX_REMARK = 60  # characters
STATES = get_args(Status)


class Listed(NamedTuple):
    """A run, its record, its state, and Slurm's reason for it, if any."""

    run: RunFolder
    record: Record
    state: Status
    why: str | None = None


def runs(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Only runs of this recipe.", autocompletion=complete("recipe")),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help=f"Only runs in this state: {', '.join(STATES)}. Repeatable."
        ),
    ] = None,
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """List runs: state, progress, main metric, duration.

    \b
    msdet runs
    msdet runs retinanet-r50-rlo
    msdet runs --state failed --state running
    msdet runs --json
    """
    for state in states or ():
        if state not in STATES:
            raise UserError(
                f"--state: '{state}' is unknown; {did_you_mean(state, STATES)}", "msdet runs --help"
            )
    folder = results_dir(results)
    found, problems = _read(folder, recipe)
    if recipe is not None and not found:
        _check_recipe(recipe, folder)
    if states and found:
        found = [one for one in found if one.state in states]
        if not found and not as_json:
            print(f"no run is {' or '.join(states)}")
    if as_json:
        print(json.dumps([_as_json(one) for one in found], indent=2))
        print_problems(Console(stderr=True), problems)
        return
    console = make_console()
    if found:
        _print(console, found)
        print_marks(console, [marks_of(one.record) for one in found])
    elif not problems and not states:
        typed = recipe or "retinanet-r50-rlo"
        of = f" of {recipe}" if recipe else ""
        text = f"no runs{of} in {folder}; try: msdet run {typed} -p tiny"
        console.print(Text(text), soft_wrap=True)
    print_problems(console, problems)


def _read(folder: Path, recipe: str | None) -> tuple[list[Listed], list[str]]:
    """Return the runs, and a message for each that cannot be read; reads each record once."""
    found, problems = [], []
    for run in iterate(folder):
        if recipe is not None and run.path.parts[-3] != recipe:
            continue
        try:
            found.append((run, run.read()))
        except UserError as error:
            problems.append(f"{error.message}.")
    if not any(record.slurm for _, record in found):
        return [Listed(run, record, run.state(record)) for run, record in found], problems
    from experiments.launching.slurm.job import slurm_states, status_in_slurm

    jobs = slurm_states(record.slurm["job_id"] for _, record in found if record.slurm and _is_open(record))
    return [Listed(run, record, *status_in_slurm(run, record, jobs)) for run, record in found], problems


def _is_open(record: Record) -> bool:
    """Return whether Slurm may know the run's state better."""
    return record.status not in ("done", "cancelled")


def _check_recipe(recipe: str, folder: Path) -> None:
    known = {*catalogue.names("recipe"), *(run.path.parts[-3] for run in iterate(folder))}
    if recipe not in known:
        raise UserError(f"runs of '{recipe}' not found; {did_you_mean(recipe, known)}", "msdet runs")


def _as_json(one: Listed) -> dict[str, Any]:
    return {
        "run": one.run.name,
        "folder": str(one.run.path),
        "state": one.state,
        "why": one.why,
        "progress": _progress(one.run, one.state),
        "record": one.record.model_dump(),
    }


def _print(console: Console, found: list[Listed]) -> None:
    metrics = [m for m in MAIN_METRICS if any(m in one.record.metrics for one in found)] or MAIN_METRICS
    metric = " or ".join(metrics)
    header = ["run", "state", "progress", metric, "took", "started", ""]
    rows = [_cells(one, narrow=console.width < WIDE_CONSOLE) for one in found]
    print_lines(console, header, rows, right=("progress", metric, "took"))


def _cells(one: Listed, narrow: bool) -> list[Cell]:
    record, state = one.record, one.state
    metric = format_main_metric(record.metrics) if state == "done" else ""
    started = record.attempts[0].started if record.attempts else record.created
    return [
        one.run.name,
        (state, COLOURS.get(state, "")),
        format_iterations(_progress(one.run, state) or {}),
        metric + marks_of(record),
        format_duration(_seconds(record, state)),
        _local(started)[5 if narrow else 0 :],
        _remark(one),
    ]


def _remark(one: Listed) -> str:
    """Return where a run is running, what it waits for, or why it failed."""
    record, attempt = one.record, one.record.attempts[-1] if one.record.attempts else None
    job = f"Slurm job {record.slurm['job_id']}" if record.slurm else ""
    if one.state == "running" and attempt is not None:
        host = "" if attempt.host == socket.gethostname() else f"on {attempt.host}"
        many = (
            f"{attempt.world_size} x {attempt.device}"
            if attempt.world_size > 1 or attempt.device != "cpu"
            else ""
        )
        return ", ".join(part for part in (many, host, job) if part)
    if one.state in ("queued", "running"):
        return ": ".join(part for part in (job, one.why) if part)
    message = one.why or (attempt.message if attempt is not None and one.state == "failed" else None) or ""
    return message if len(message) <= MAX_REMARK else f"{message[: MAX_REMARK - 1]}…"


def _progress(run: RunFolder, state: Status) -> dict[str, Any] | None:
    """Return the progress of a running or interrupted run; None if there is none."""
    if state not in ("running", "interrupted"):
        return None
    try:
        content = json.loads(run.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _seconds(record: Record, state: Status) -> float | None:
    """Return the duration of all attempts, without those of unknown end."""
    if state == "done" and "total_s" in record.timings:
        return record.timings["total_s"]
    total = None
    for attempt in record.attempts:
        began, ended = _time(attempt.started), _time(attempt.ended)
        if attempt is record.attempts[-1] and state == "running":
            ended = datetime.now(timezone.utc)
        if began and ended:
            total = (total or 0.0) + max((ended - began).total_seconds(), 0.0)
    return total


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _local(text: str) -> str:
    """Return a recorded time in the local time zone."""
    moment = _time(text)
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else ""

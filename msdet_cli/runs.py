"""`msdet runs`: what has been run, and what became of it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import catalogue
from experiments.errors import UserError, did_you_mean
from experiments.marks import marks_of
from experiments.runs import Record, RunFolder, Status, iterate, results_dir
from msdet_cli.options import RESULTS, JsonOpt, ResultsOpt, complete
from msdet_cli.tables import coloured, print_marks, print_problems, wide_console
from msdet_cli.views import duration

MAIN_METRICS = ("AP", "mAP")
WIDE = 100  # characters: narrower consoles leave the year out


def runs(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Only runs of this recipe.", autocompletion=complete("recipe")),
    ] = None,
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """List the runs: state, progress, main metric and duration of each.

    \b
    msdet runs
    msdet runs retinanet-r50-rlo
    msdet runs --json
    """
    folder = results_dir(results)
    found, problems = _read(folder, recipe)
    if recipe is not None and not found:
        _check_recipe(recipe, folder)
    if as_json:
        print(json.dumps([_as_json(run, record, state) for run, record, state in found], indent=2))
        print_problems(Console(stderr=True), problems)
        return
    console = wide_console()
    if found:
        console.print(_table(found, narrow=console.width < WIDE))
        print_marks(console, [marks_of(record) for _, record, _ in found])
    elif not problems:
        typed = recipe or "retinanet-r50-rlo"
        of = f" of {recipe}" if recipe else ""
        text = f"There are no runs{of} in {folder} yet. For a first one: msdet run {typed} -p tiny"
        console.print(Text(text), soft_wrap=True)
    print_problems(console, problems)


def _read(folder: Path, recipe: str | None) -> tuple[list[tuple[RunFolder, Record, Status]], list[str]]:
    """The runs with their states, and a sentence for each that cannot be read."""
    found, problems = [], []
    for run in iterate(folder):
        if recipe is not None and run.path.parts[-3] != recipe:
            continue
        try:
            record = run.read()
        except UserError as error:
            problems.append(f"{error.message}.")
            continue
        found.append((run, record, run.state(record)))
    return found, problems


def _check_recipe(recipe: str, folder: Path) -> None:
    known = {*catalogue.names("recipe"), *(run.path.parts[-3] for run in iterate(folder))}
    if recipe not in known:
        raise UserError(f"runs of '{recipe}' not found; {did_you_mean(recipe, known)}", "msdet runs")


def _as_json(run: RunFolder, record: Record, state: Status) -> dict[str, Any]:
    return {
        "run": run.name,
        "folder": str(run.path),
        "state": state,
        "progress": _progress(run, state),
        "record": record.model_dump(),
    }


def _table(found: list[tuple[RunFolder, Record, Status]], narrow: bool) -> Table:
    rows = [_cells(run, record, state, narrow) for run, record, state in found]
    metrics = [m for m in MAIN_METRICS if any(m in record.metrics for _, record, _ in found)] or MAIN_METRICS
    header = ["run", "state", "progress", " or ".join(metrics), "took", "started"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    kept = [i for i, name in enumerate(header) if name != "progress" or any(row[i].plain for row in rows)]
    for i in kept:
        numbers = header[i] not in ("run", "state", "started")
        table.add_column(header[i], justify="right" if numbers else "left", no_wrap=i > 0, overflow="fold")
    for row in rows:
        table.add_row(*[row[i] for i in kept])
    return table


def _cells(run: RunFolder, record: Record, state: Status, narrow: bool) -> list[Text]:
    metric = next((f"{record.metrics[m]:.1f}" for m in MAIN_METRICS if m in record.metrics), "")
    started = record.attempts[0].started if record.attempts else record.created
    rest = [
        _share(_progress(run, state)),
        metric + marks_of(record) if state == "done" else marks_of(record),
        duration(_seconds(record, state)),
        _local(started)[5 if narrow else 0 :],  # without the year
    ]
    return [Text(run.name), coloured(state), *[Text(text) for text in rest]]


def _progress(run: RunFolder, state: Status) -> dict[str, Any] | None:
    """What the run last said of itself, while it is under way; None where it has not said anything yet."""
    if state not in ("running", "interrupted"):
        return None
    try:
        content = json.loads(run.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _share(progress: dict[str, Any] | None) -> str:
    """`120/400 30%`."""
    done, total = (progress or {}).get("iteration"), (progress or {}).get("total")
    if not isinstance(done, int) or not isinstance(total, int) or total < 1:
        return ""
    return f"{done}/{total} {100 * done // total}%"


def _seconds(record: Record, state: Status) -> float | None:
    """How long all of its attempts took; one that ended without saying so is not counted."""
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
    """A recorded time as the clock on the wall shows it."""
    moment = _time(text)
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else ""

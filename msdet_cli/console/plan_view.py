"""The plan of a dry run: a table of runs, what differs between them, and the forecast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.devices import Device, DeviceFigure, load_figures
from experiments.launching.forecast import CPU, Forecast, Measured, forecast
from experiments.launching.plan import PlannedRun
from msdet_cli.console.formatting import TODO_TEXTS, format_hours, format_size
from msdet_cli.console.output import Cell, print_line, print_lines

PENDING = ("start", "resume", "running")
MAX_SOURCES = 5  # measured runs, or models, named below the table
REMARKS = {
    "failed": "resume failed and cancelled runs with --retry-failed",
    "unreadable": "unreadable: a newer msdet wrote the record; --force starts anew",
}


def show_plan(console: Console, planned: Sequence[PlannedRun], on: Device | bool | None = None) -> None:
    """Print the table of runs and the forecast for all of them; `on` is as `forecast` takes it.

    A column that is the same for all runs is left out of the table.
    """
    costs = forecast(planned, on)
    workers = {cost.workers for run, cost in zip(planned, costs) if run.todo in PENDING}
    has_labels = len({run.label for run in planned}) > 1
    unit = "workers" if on is False else "GPUs"
    basis = f" ({on.basis})" if isinstance(on, Device) else ""
    header = ["run", "varied", "state", "iterations", unit, f"hours{basis}", f"disk{basis}"]
    rows = [_row(run, cost, has_labels, len(workers) > 1) for run, cost in zip(planned, costs)]
    print_lines(console, header, rows, right=header[3:])
    console.print()
    for line in _summary(planned, costs, workers, unit, on):
        print_line(console, line)


def _row(run: PlannedRun, cost: Forecast, has_labels: bool, has_workers: bool) -> list[Cell]:
    what: list[Cell] = [run.folder.name, run.label if has_labels else "", TODO_TEXTS[run.todo]]
    if run.todo not in PENDING:
        return [*what, *[""] * 4]
    hours = "" if cost.worker_seconds is None else format_hours(cost.worker_seconds)
    disk = "" if cost.disk is None else format_size(cost.disk)
    return [*what, str(cost.iterations), str(cost.workers) if has_workers else "", hours, disk]


def _summary(
    planned: Sequence[PlannedRun],
    costs: Sequence[Forecast],
    workers: set[int],
    unit: str,
    on: Device | bool | None,
) -> list[str]:
    """Return the lines below the table: counts, totals, and the measurements they rest on."""
    states: Counter[str] = Counter(run.todo for run in planned)
    counts = ", ".join(f"{n} {TODO_TEXTS[todo]}" for todo, n in states.items())
    lines = [f"{len(planned)} run{'s' if len(planned) != 1 else ''}: {counts}"]
    if len(workers) == 1 and workers != {1}:
        lines.append(f"{unit} per run: {workers.pop()}")
    if planned:
        lines.append(f"run folders: {planned[0].folder.path.parents[2]}")
    lines += [remark for todo, remark in REMARKS.items() if states[todo]]
    left = [cost for run, cost in zip(planned, costs) if run.todo in PENDING]
    basis = f", {on.basis}" if isinstance(on, Device) else ""
    totals = {"CPU": 0.0, "GPU": 0.0}
    for cost in left:
        if cost.source is not None:
            totals["CPU" if cost.source.device == CPU else "GPU"] += cost.worker_seconds or 0.0
    for device, seconds in totals.items():
        if not seconds:
            continue
        lines.append(f"about {format_hours(seconds)} {device}-hours of training, without evaluation{basis}")
        if isinstance(on, Device):
            days = f"{seconds / on.count / 86400:.2g} days"
            lines.append(f"about {days} if {on.count} x {on.name} do nothing else")
    disks = [cost.disk for cost in left if cost.disk is not None]
    if disks:
        lines.append(f"about {format_size(sum(disks))} on disk{basis}")
    sources = list(dict.fromkeys(_source_line(cost.source, cost.likeness) for cost in left if cost.source))
    lines += sources[:MAX_SOURCES]
    if len(sources) > MAX_SOURCES:
        lines.append(f"  and {len(sources) - MAX_SOURCES} more")
    if isinstance(on, Device):
        notes = load_figures()["notes"]
        lines.append("  " + notes.get(on.name, notes["estimated"]).format(device=on.name))
    unknown = sum(cost.worker_seconds is None for cost in left)
    if unknown:
        which = "time and disk" if unknown == len(left) else f"time and disk of {unknown} of {len(left)} runs"
        if isinstance(on, Device):
            lines.append(f"{which}: unknown, there is no figure for their models and profiles")
        else:
            lines.append(f"{which}: unknown, no similar run was measured here")
            lines.append("  to measure: start the command, stop it with Ctrl-C after a minute")
    return lines


def _source_line(source: Measured | DeviceFigure, likeness: str | None) -> str:
    if isinstance(source, Measured):
        found = f"measured in {source.run.name} ({likeness})"
    else:
        found = f"{source.basis} for {source.model}"
    rate = source.worker_seconds / source.workers
    return f"  {found}: {rate:.3g} s per iteration on {source.workers} x {source.device}"


def describe_runs(
    planned: Sequence[PlannedRun], dry_run: bool = False, on: Device | bool | None = None
) -> list[dict[str, Any]]:
    """Return each run's folder, todo and record, for JSON; in a dry run also its forecast."""
    costs = forecast(planned, on) if dry_run else [None] * len(planned)
    return [_as_json(run, cost) for run, cost in zip(planned, costs)]


def _as_json(run: PlannedRun, cost: Forecast | None) -> dict[str, Any]:
    try:
        read = run.folder.read()
        state, record = run.folder.state(read), read.model_dump()
    except UserError:  # not there yet, or unreadable
        state, record = None, None
    row: dict[str, Any] = {"run": run.folder.name, "folder": str(run.folder.path), "label": run.label,
                           "todo": run.todo, "state": state, "record": record}  # fmt: skip
    if cost is not None:
        row |= {
            "workers": cost.workers,
            "iterations_left": cost.iterations,
            "worker_seconds": cost.worker_seconds,
            "disk_bytes": cost.disk,
            "measured": None,
        }
        row |= _source_as_json(cost.source, cost.likeness) if cost.source else {}
    return row


def _source_as_json(source: Measured | DeviceFigure, likeness: str | None) -> dict[str, Any]:
    """Return what a forecast rests on under `measured`, or `estimated` if a device's figures are."""
    speed = {
        "device": source.device,
        "workers": source.workers,
        "seconds_per_iteration": source.worker_seconds / source.workers,
    }
    if isinstance(source, Measured):
        return {"measured": {"run": source.run.name, "like": likeness, **speed}}
    return {source.basis: {"model": source.model, **speed}}

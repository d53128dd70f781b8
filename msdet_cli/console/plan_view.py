"""What a dry run prints: each planned run, what would be done, where and by which command, and what it would take."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.launching.forecast import CPU, Forecast, forecast
from experiments.launching.plan import PlannedRun
from msdet_cli.console.equivalent import equivalent_command
from msdet_cli.console.text_lines import Cell, print_lines

WORDS = {
    "start": "start",
    "resume": "resume from its last checkpoint",
    "skip": "done already",
    "failed": "failed or cancelled before; --retry-failed tries again",
    "running": "running now",
    "unreadable": "nothing: a newer msdet wrote its record",
}
TO_DO = ("start", "resume", "running")
MOST_COMMANDS = 20  # of a longer plan, those that come first


def show_plan(console: Console, planned: Sequence[PlannedRun], on_gpus: bool | None = None) -> None:
    """Prints the plan, and the forecast for the whole of it.

    Args:
        on_gpus: As `forecast` takes it.
    """
    costs = forecast(planned, on_gpus)
    header = ["run", "seed", "would", "iterations left", "workers" if on_gpus is False else "GPUs", "hours",
              "disk", "folder"]  # fmt: skip
    rows: list[list[Cell]] = [_row(run, cost) for run, cost in zip(planned, costs)]
    print_lines(console, header, rows, right=("seed", *header[3:7]))
    to_do = [run for run in planned if run.todo in TO_DO]
    commands = [command for run in to_do[:MOST_COMMANDS] if (command := equivalent_command(run))]
    if commands:
        console.print()
        more = f" (the first {MOST_COMMANDS} of {len(to_do)}; all of them: --json)"
        console.print(
            Text(f"One by one{more if len(to_do) > MOST_COMMANDS else ''}:", "bold"), soft_wrap=True
        )
        console.print(Text("\n".join(f"  {command}" for command in commands)), soft_wrap=True)
    console.print()
    for line in _summary(planned, costs):
        console.print(Text(line), soft_wrap=True)


def _row(run: PlannedRun, cost: Forecast) -> list[Cell]:
    name = f"{run.recipe.name} ({run.label})" if run.label else run.recipe.name
    to_do = run.todo in TO_DO
    return [
        name,
        str(run.seed),
        WORDS[run.todo],
        str(cost.iterations) if to_do else "",
        str(cost.workers) if to_do else "",
        ("?" if cost.worker_seconds is None else hours(cost.worker_seconds)) if to_do else "",
        ("?" if cost.disk is None else size(cost.disk)) if to_do else "",
        str(run.folder.path),
    ]


def _summary(planned: Sequence[PlannedRun], costs: Sequence[Forecast]) -> list[str]:
    """How many runs, what they take together, what that rests on, and what is not known."""
    states = Counter(run.todo for run in planned)
    counted = ", ".join(f"{n} {_SHORT[todo]}" for todo, n in states.items())
    lines = [f"{len(planned)} run{'s' if len(planned) != 1 else ''}: {counted}"]
    left = [(run, cost) for run, cost in zip(planned, costs) if run.todo in TO_DO]
    for unit, seconds in _by_unit(costs).items():
        lines.append(f"about {hours(seconds)} {unit}-hours of training, evaluations not counted")
    disk = sum(cost.disk for _, cost in left if cost.disk is not None)
    if any(cost.disk is not None for _, cost in left):
        lines.append(f"about {size(disk)} on disk")
    sources = {(cost.source.run.name, cost.likeness): cost.source for _, cost in left if cost.source}
    for (name, likeness), source in list(sources.items())[:MOST_SOURCES]:
        rate = source.worker_seconds / source.workers
        lines.append(
            f"  {rate:.3g} s an iteration on {source.workers} x {source.device}: measured in {name} ({likeness})"
        )
    if len(sources) > MOST_SOURCES:
        lines.append(f"  and {len(sources) - MOST_SOURCES} more measured runs")
    unknown = [run for run, cost in left if cost.worker_seconds is None]
    if unknown:
        lines += _how_to_measure(unknown, len(left))
    return lines


_SHORT = {"start": "to start", "resume": "to resume", "skip": "done already", "failed": "failed or cancelled before",
          "running": "running now", "unreadable": "unreadable"}  # fmt: skip
MOST_SOURCES = 5


def _by_unit(costs: Sequence[Forecast]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for cost in costs:
        if cost.source is not None and cost.worker_seconds is not None:
            unit = "CPU" if cost.source.device == CPU else "GPU"
            totals[unit] = totals.get(unit, 0.0) + cost.worker_seconds
    return totals


def _how_to_measure(unknown: Sequence[PlannedRun], left: int) -> list[str]:
    which = "not known" if len(unknown) == left else f"not known for {len(unknown)} of {left} runs"
    return [
        f"time and disk: {which}: nothing like them was measured here",
        "  start one of them, and stop it with Ctrl-C after a minute: nothing is lost, and its rate is kept",
    ]


def print_json(planned: Sequence[PlannedRun], dry_run: bool = False, on_gpus: bool | None = None) -> None:
    """One JSON list: each run's folder, what was to do, and its record as it is now; in a dry run the forecast, too."""
    costs = forecast(planned, on_gpus) if dry_run else [None] * len(planned)
    print(json.dumps([_as_json(run, cost) for run, cost in zip(planned, costs)], indent=2))


def _as_json(run: PlannedRun, cost: Forecast | None) -> dict[str, Any]:
    try:
        read = run.folder.read()
        state, record = run.folder.state(read), read.model_dump()
    except UserError:  # not there yet, or unreadable
        state, record = None, None
    row: dict[str, Any] = {"run": run.folder.name, "folder": str(run.folder.path), "label": run.label, "todo": run.todo,
           "state": state, "record": record}  # fmt: skip
    if cost is not None:
        source = cost.source
        row |= {
            "command": equivalent_command(run) if run.todo in TO_DO else None,
            "workers": cost.workers,
            "iterations_left": cost.iterations,
            "worker_seconds": cost.worker_seconds,
            "disk_bytes": cost.disk,
            "measured": source
            and {
                "run": source.run.name,
                "like": cost.likeness,
                "device": source.device,
                "workers": source.workers,
                "seconds_per_iteration": source.worker_seconds / source.workers,
            },
        }
    return row


def hours(seconds: float) -> str:
    """`0.02`, `3.4`, `120`: two digits that count."""
    value = seconds / 3600
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def size(count: float) -> str:
    """Bytes as `4.1 MB`, in powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 9.95 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

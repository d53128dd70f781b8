"""Works through planned runs, shows them, and ends with one exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from experiments.common.errors import BAD_INPUT, DONE, INTERRUPTED, UserError
from experiments.data.find import FoundDataset
from experiments.launching.local import last_lines, shared_exit_code
from experiments.launching.plan import PlannedRun
from experiments.launching.queue import Queue, QueueItem
from msdet_cli.console.plan_view import print_json, show_plan
from msdet_cli.console.queue_view import QueueView
from msdet_cli.console.result_tables import make_console
from msdet_cli.console.views import duration, metrics_line
from msdet_cli.detach import detach
from msdet_cli.launch_options import LaunchOptions

STEP_S = 0.25  # between two looks at what is shown
LOG_LINES = 5  # of a failed run, shown at the end


class StopOnSignal:
    """Turns Ctrl-C and SIGTERM into requests: once stops the runs at work, twice ends them at once."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def __enter__(self) -> StopOnSignal:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.queue.stop()


def run_plan(
    planned: list[PlannedRun],
    dry_run: bool,
    as_json: bool,
    on_done: Callable[[Console, int], None],
    plan_more: Callable[[], list[PlannedRun]] = list,
    *,
    launch_options: LaunchOptions,
    results: Path,
) -> NoReturn:
    """What a command does with its plan: runs it, or shows it in a dry run, and exits with the shared code.

    Args:
        as_json: Print nothing but JSON, at the end.
        then: Prints what follows; given the code, and not called after a dry run.
        later: Runs that can be planned only when the others have ended.
    """
    console = None if as_json else make_console()
    warn_of_data(run.data for run in planned)
    if launch_options.detach and not dry_run:
        detach(results, as_json)
        raise typer.Exit(DONE)
    if launch_options.slurm is not None and not dry_run:
        more = plan_more()  # it says what has to wait
        _submit([*planned, *more], launch_options, results, console)
        raise typer.Exit(DONE)
    code = DONE if dry_run else execute(planned, console, launch_options)
    if code != INTERRUPTED:
        more = plan_more()
        planned = [*planned, *more]
        code = code if dry_run else shared_exit_code([code, execute(more, console, launch_options)])
    on_gpus = (
        None if launch_options.slurm is not None else bool(launch_options.gpus)
    )  # what Slurm will give is not known here
    if console is None:
        print_json(planned, dry_run, on_gpus)
    elif dry_run:
        show_plan(console, planned, on_gpus)
    else:
        on_done(console, code)
    raise typer.Exit(code)


def execute(
    planned: Sequence[PlannedRun], console: Console | None, launch_options: LaunchOptions | None = None
) -> int:
    """Runs what is left to do; one failure does not stop the rest. Returns the shared exit code.

    Raises:
        UserError: The only run cannot be begun.
    """
    launch_options = launch_options or LaunchOptions()
    queue = Queue(planned, sys.argv, launch_options.execution, launch_options.gpus)
    told: dict[int, tuple[str, int]] = {}
    with StopOnSignal(queue), QueueView(console, queue) as view:
        left = bool(planned)
        while left:
            left = queue.step(STEP_S)
            for number, entry in enumerate(queue.entries):
                if told.get(number) != (entry.state, entry.attempts):
                    told[number] = entry.state, entry.attempts
                    _tell(console, entry, len(planned))
            if queue.asked:
                view.note = "stopping: saves checkpoints (Ctrl-C again to end at once)"
            view.update()
    _tell_failures(console, queue.entries)
    return shared_exit_code([entry.code or DONE for entry in queue.entries])


def _tell(console: Console | None, entry: QueueItem, of: int) -> None:
    """A line when a run comes to an end, is tried again, or turns out to be another process's."""
    name, message = entry.run.folder.name, escape(entry.message or "")
    hint = entry.hint and escape(entry.hint)
    if entry.is_over and entry.attempts == 0 and entry.code == BAD_INPUT and of == 1:
        raise UserError(entry.message or "", entry.hint)
    if entry.state == "elsewhere":
        _say(console, f"{name}: another process works on it; waiting for it to save and end")
    elif entry.state == "running" and entry.attempts > 1:
        _say(console, f"[yellow]{name}: attempt {entry.attempts}:[/] {message}")
    elif entry.state in ("done", "skipped"):
        record = entry.run.folder.read()
        took = f" in {duration(record.timings.get('total_s'))}" if entry.attempts else " already"
        metrics = metrics_line(record.metrics)
        where = f"folder: {escape(str(entry.run.folder.path))}" if entry.attempts else None
        _say(console, f"[green]{name}: done[/]{took}: [bold]{metrics}[/]", where)
    elif entry.state in ("interrupted", "cancelled"):
        _say(console, f"[yellow]{name}: {entry.state}:[/] {message}", hint)
    elif entry.state == "failed":
        word = "bad input" if entry.code == BAD_INPUT else f"failed (exit code {entry.code})"
        _say(console, f"[red]{name}: {word}:[/] {message}", hint)


def _tell_failures(console: Console | None, entries: Sequence[QueueItem]) -> None:
    """What failed, together at the end: the last lines of each log, and where it is."""
    failed = [entry for entry in entries if entry.state == "failed"]
    if failed and len(entries) > 1:
        _say(console, f"[red]{len(failed)} of {len(entries)} runs failed:[/]")
    for entry in failed:
        if len(entries) > 1:
            _say(console, f"[red]{entry.run.folder.name}:[/] {escape(entry.message or '')}")
        lines = last_lines(entry.run.folder, LOG_LINES)
        for line in lines:
            _say(console, f"    [dim]{escape(line)}[/]")
        if lines:
            _say(console, f"  log: {escape(str(entry.run.folder.log))}")


def _submit(
    planned: list[PlannedRun], launch_options: LaunchOptions, results: Path, console: Console | None
) -> None:
    from experiments.launching.slurm import submission as slurm

    assert launch_options.slurm is not None
    submitted = slurm.submit(planned, launch_options.slurm, results, sys.argv)
    if console is None:
        rows = [{"run": s.run.folder.name, "job": s.job_id, "why_not": s.why} for s in submitted]
        print(json.dumps(rows, indent=2))
    for one in submitted:
        _say(
            console,
            f"{one.run.folder.name}: " + (f"job {one.job_id}" if one.job_id else escape(one.why or "")),
        )
    _say(console, "next: msdet runs")


def warn_of_data(found: Iterable[FoundDataset]) -> None:
    """A line on standard error for each data set with something in it that changes numbers."""
    for line in dict.fromkeys(data.warning() for data in found):
        if line:
            print(f"warning: {line}", file=sys.stderr)


def _say(console: Console | None, line: str, hint: str | None = None) -> None:
    if console is not None:
        console.print(line, soft_wrap=True, highlight=False)
        if hint:
            console.print(f"  {hint}", soft_wrap=True, highlight=False)

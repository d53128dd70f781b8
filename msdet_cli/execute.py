"""Works through planned runs one after another, shows them, and ends with one exit code."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, UserError
from experiments.launching.local import LocalWorker, shared_exit_code
from experiments.launching.plan import PlannedRun, Todo, prepare
from msdet_cli.tables import wide_console
from msdet_cli.views import RunView, duration, metrics_line

WORDS = {
    "start": "start",
    "resume": "resume from its last checkpoint",
    "skip": "done already",
    "failed": "failed before; --retry-failed tries again",
    "running": "running now",
}
PATIENCE_S = 30  # a worker notices within seconds that its command was killed, and saves


class Stop:
    """Turns Ctrl-C and SIGTERM into requests: once stops the run at work, twice ends it at once."""

    def __init__(self) -> None:
        self.asked = 0
        self.worker: LocalWorker | None = None

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked += 1
        if self.worker is not None:
            self.worker.stop()


def finish(
    planned: list[PlannedRun],
    dry_run: bool,
    as_json: bool,
    then: Callable[[Console, int], None],
    later: Callable[[], list[PlannedRun]] = list,
) -> NoReturn:
    """What a command does with its plan: runs it, or shows it in a dry run, and exits with the shared code.

    Args:
        as_json: Print nothing but JSON, at the end.
        then: Prints what follows; given the code, and not called after a dry run.
        later: Runs that can be planned only when the others have ended.
    """
    console = None if as_json else wide_console()
    code = DONE if dry_run else execute(planned, console)
    if code != INTERRUPTED:
        more = later()
        planned = [*planned, *more]
        code = code if dry_run else shared_exit_code([code, execute(more, console)])
    if console is None:
        print_json(planned)
    elif dry_run:
        show_plan(console, planned)
    else:
        then(console, code)
    raise typer.Exit(code)


def show_plan(console: Console, planned: Sequence[PlannedRun]) -> None:
    """What a dry run prints: each run, what would be done, how much, and where."""
    table = Table("run", "seed", "would", "iterations", box=None, pad_edge=False)
    table.add_column("folder", overflow="fold")  # to be copied whole
    for run in planned:
        name = f"{run.recipe.name} ({run.label})" if run.label else run.recipe.name
        row = [name, str(run.seed), WORDS[run.todo], str(iterations_of(run)), str(run.folder.path)]
        table.add_row(*[escape(cell) for cell in row])
    console.print(table)


def iterations_of(run: PlannedRun) -> int:
    """Optimizer steps of the whole run; images that training leaves out, empty ones say, are counted in."""
    schedule = run.recipe.schedule
    if schedule.iterations is not None:
        return schedule.iterations
    batch = schedule.gpus * schedule.images_per_gpu
    return (schedule.epochs or 0) * math.ceil(run.data.images["train"] * run.recipe.dataset.repeat / batch)


def execute(planned: Sequence[PlannedRun], console: Console | None) -> int:
    """Runs what is left to do; one failure does not stop the rest. Returns the shared exit code."""
    codes = []
    with Stop() as stop:
        for number, run in enumerate(planned, start=1):
            if stop.asked:
                codes.append(INTERRUPTED)
                break
            codes.append(_one(run, f"{number} of {len(planned)}", console, stop))
    return shared_exit_code(codes)


def _one(run: PlannedRun, title: str, console: Console | None, stop: Stop) -> int:
    todo = run.todo
    try:
        if todo in ("start", "resume", "running"):  # what was planned may be out of date by now
            todo = prepare(run, sys.argv)
        if todo == "running":
            _say(console, f"{run.folder.name}: another process works on it; waiting for it to save and end")
            todo = _wait_for_the_other(run, stop)
    except UserError as error:
        if title == "1 of 1":
            raise
        _say(
            console, f"[red]{run.folder.name}:[/] {escape(error.message)}", error.hint and escape(error.hint)
        )
        return error.exit_code
    if todo == "skip":
        _say(console, f"{run.folder.name}: done already: {metrics_line(run.folder.read().metrics)}")
        return DONE
    if todo == "failed":
        attempts = run.folder.read().attempts
        reason = attempts[-1].message if attempts else "cancelled"
        _say(
            console,
            f"[red]{run.folder.name}: failed before:[/] {escape(str(reason))}",
            f"--retry-failed tries again; log: {escape(str(run.folder.log))}",
        )
        return (attempts[-1].exit_code if attempts else None) or FAILED
    return _work(run, title, console, stop)


def _wait_for_the_other(run: PlannedRun, stop: Stop) -> Todo:
    """Prepares the run as soon as the other process has left it: one whose command was killed ends by itself.

    Raises:
        UserError: It goes on working.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (todo := prepare(run, sys.argv)) == "running":
        if stop.asked or time.monotonic() > deadline:
            raise UserError(f"another process works on {run.folder.name}", "msdet runs shows how far it is")
        time.sleep(0.2)
    return todo


def _work(run: PlannedRun, title: str, console: Console | None, stop: Stop) -> int:
    worker = LocalWorker(run.folder)
    stop.worker = worker
    if stop.asked:  # it came between two workers
        worker.stop()
    with RunView(console, run.folder, title) as view:
        while not worker.wait(0.25):
            if stop.asked:
                view.note = "stopping: saves a checkpoint (Ctrl-C again to end at once)"
            view.update()
    stop.worker = None
    code = worker.exit_code()
    _say_result(console, run, code, worker)
    return code


def _say_result(console: Console | None, run: PlannedRun, code: int, worker: LocalWorker) -> None:
    name = run.folder.name
    if code == DONE:
        record = run.folder.read()
        took = duration(record.timings.get("total_s"))
        _say(
            console,
            f"[green]{name}: done[/] in {took}: [bold]{metrics_line(record.metrics)}[/]",
            f"folder: {escape(str(run.folder.path))}",
        )
        return
    colour = "yellow" if code == INTERRUPTED else "red"
    word = {INTERRUPTED: "interrupted", BAD_INPUT: "bad input"}.get(code, f"failed (exit code {code})")
    hint = "type the same command to go on" if code == INTERRUPTED else escape(worker.hint())
    _say(console, f"[{colour}]{name}: {word}:[/] {escape(worker.message() or '')}", hint)


def _say(console: Console | None, line: str, hint: str | None = None) -> None:
    if console is not None:
        console.print(line, soft_wrap=True, highlight=False)
        if hint:
            console.print(f"  {hint}", soft_wrap=True, highlight=False)


def print_json(planned: Sequence[PlannedRun]) -> None:
    """One JSON list: each run's folder, what was to do, and its record as it is now."""
    rows = []
    for run in planned:
        record = run.folder.read().model_dump() if run.folder.record_file.exists() else None
        rows.append({"run": run.folder.name, "folder": str(run.folder.path), "label": run.label, "todo": run.todo,
                     "state": run.folder.state() if record else None, "record": record})  # fmt: skip
    print(json.dumps(rows, indent=2))

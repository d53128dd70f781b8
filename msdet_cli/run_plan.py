"""Execute planned runs, show their progress, and exit with one code."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from experiments.common.errors import BAD_INPUT, DONE, INTERRUPTED, UserError
from experiments.common.files import refusing
from experiments.common.processes import PATHS
from experiments.data.find import FoundDataset
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.local import combine_exit_codes, read_last_lines
from experiments.launching.plan import PlannedRun
from experiments.launching.queue import Queue, QueueItem
from experiments.launching.run_states import read_runs
from experiments.training.environment import SLOW_OPERATORS, has_fast_operators
from msdet_cli.console.formatting import format_duration, format_metrics
from msdet_cli.console.output import confirm, make_console, print_json, print_line
from msdet_cli.console.plan_view import describe_runs, show_plan
from msdet_cli.console.queue_view import QueueView
from msdet_cli.hints import make_next_command, repeat_command
from msdet_cli.run_options import RunOptions

if TYPE_CHECKING:
    from experiments.launching.slurm.options import SlurmOptions

STEP_S = 0.25  # between updates of the console
DETACHED_BOOT = PATHS + "from msdet_cli.main import main; main()"
MAX_NAMES = 3  # of runs in a question
LOG_LINES = 5  # of a failed run's log, shown at the end


@contextlib.contextmanager
def stop_on_signals(queue: Queue) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into stop requests: the first saves checkpoints, the second kills."""
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda *_: queue.stop())
            stack.callback(signal.signal, number, before)
        yield


def run_plan(
    planned: list[PlannedRun],
    options: RunOptions,
    on_done: Callable[[Console, int], None],
    rounds: Iterable[list[PlannedRun]] | None = None,
    to_json: Callable[[list[dict[str, Any]]], Any] = list,
    on_dry_run: Callable[[Console], object] = lambda _: None,
) -> NoReturn:
    """Run the plan, submit it, detach it or print it, and exit with the shared code.

    Args:
        planned: All runs that are known now.
        on_done: Prints results, given the exit code; not called in a dry run or with `--json`.
        rounds: Runs to execute one list after the other, where later ones depend on results; asked for the next list
            once the last has ended. None: the planned ones.
        to_json: Makes the content for `--json` from that of the runs.
        on_dry_run: Prints what belongs below the plan of a dry run.
    """
    console = make_console(is_quiet=options.as_json)
    dry_run, slurm = options.dry_run, options.slurm_options
    warn_of_data(run.data for run in planned)
    if options.on is None and options.local_gpus and not has_fast_operators():
        print(f"warning: {SLOW_OPERATORS}", file=sys.stderr)
    if not dry_run:
        _confirm_force(planned, options.yes)
    if options.detach and not dry_run:
        _detach(planned, options)
        raise typer.Exit(DONE)
    executed, code = [], DONE
    for runs in [planned] if rounds is None else rounds:
        executed += runs
        if not dry_run and slurm is None:
            code = combine_exit_codes([code, execute(runs, console, options.execution, options.local_gpus)])
        if code == INTERRUPTED:
            break
    if slurm is not None and not dry_run:
        _submit(executed, slurm, options, console)
        raise typer.Exit(DONE)
    on_gpus = None if slurm is not None else bool(options.local_gpus)  # Slurm's devices are unknown here
    if options.as_json:
        print_json(to_json(describe_runs(executed, dry_run, options.device or on_gpus)))
    elif dry_run:
        show_plan(console, executed, options.device or on_gpus)
        on_dry_run(console)
    else:
        on_done(console, code)
    raise typer.Exit(code)


def _confirm_force(planned: Sequence[PlannedRun], is_agreed: bool) -> None:
    """Ask where `--force` deletes finished runs."""
    forced = read_runs(run.folder for run in planned if run.force)[0]
    done = [one.run.name for one in forced if one.state == "done"]
    if done:
        some = f"{', '.join(done[:MAX_NAMES])}{', ...' * (len(done) > MAX_NAMES)}"
        confirm(f"--force deletes {len(done)} finished run{'s' * (len(done) > 1)}, {some}", is_agreed)


def print_next(console: Console, code: int, options: RunOptions, *tables: str) -> None:
    """Print what to type after a command that trains, given its exit code."""
    if code == DONE:
        more = f"; more seeds: {repeat_command('--seeds', '3', without=['--seed'])}"
        more = more if len(options.chosen_seeds) == 1 else ""
        print_line(console, f"next: {make_next_command('report', *tables)}{more}")
    elif code == INTERRUPTED:
        print_line(console, f"next: {repeat_command()}   (resumes)")


def execute(
    planned: Sequence[PlannedRun],
    console: Console,
    execution: Execution = Execution(),
    gpus: Sequence[Gpu] = (),
) -> int:
    """Execute the runs that are not done and return the shared exit code; a failure does not stop the rest.

    Raises:
        UserError: The only run cannot be started.
    """
    queue = Queue(planned, sys.argv, execution, gpus)
    reported: dict[int, tuple[str, int]] = {}
    with stop_on_signals(queue), QueueView(console, queue) as view:
        is_left = bool(planned)
        while is_left:
            is_left = queue.step(STEP_S)
            for index, entry in enumerate(queue.entries):
                if reported.get(index) != (entry.state, entry.attempts):
                    reported[index] = entry.state, entry.attempts
                    _report_entry(console, entry, len(planned))
            if queue.asked:
                view.note = "stopping: saving checkpoints (Ctrl-C again kills the runs)"
            view.update()
    _report_failures(console, queue.entries)
    return combine_exit_codes([entry.code or DONE for entry in queue.entries])


def _report_entry(console: Console, entry: QueueItem, total: int) -> None:
    """Print a line when a run ends, is retried, or is locked by another process."""
    name, message = entry.run.folder.name, escape(entry.message or "")
    hint = entry.hint and escape(entry.hint)
    if entry.is_over and entry.attempts == 0 and entry.code == BAD_INPUT and total == 1:
        raise UserError(entry.message or "", entry.hint)
    if entry.state == "locked":
        _print_line(console, f"{name}: locked by {message}; waiting for it")
    elif entry.state == "running" and entry.attempts > 1:
        _print_line(console, f"[yellow]{name}: attempt {entry.attempts}:[/] {message}")
    elif entry.state in ("done", "skipped"):
        record = entry.run.folder.read()
        took = f" in {format_duration(record.timings.get('total_s'))}" if entry.attempts else " already"
        folder = f"folder: {escape(str(entry.run.folder.path))}" if entry.attempts else None
        metrics = escape(format_metrics(record.metrics))
        _print_line(console, f"[green]{name}: done[/]{took}: [bold]{metrics}[/]", folder)
    elif entry.state in ("interrupted", "cancelled"):
        _print_line(console, f"[yellow]{name}: {entry.state}:[/] {message}", hint)
    elif entry.state == "failed":
        kind = "bad input" if entry.code == BAD_INPUT else f"failed (exit code {entry.code})"
        _print_line(console, f"[red]{name}: {kind}:[/] {message}", hint)


def _report_failures(console: Console, entries: Sequence[QueueItem]) -> None:
    """Print all failed runs with the last lines of their logs."""
    failed = [entry for entry in entries if entry.state == "failed"]
    if failed and len(entries) > 1:
        _print_line(console, f"[red]{len(failed)} of {len(entries)} runs failed:[/]")
    for entry in failed:
        if len(entries) > 1:
            _print_line(console, f"[red]{entry.run.folder.name}:[/] {escape(entry.message or '')}")
        lines = read_last_lines(entry.run.folder.log, LOG_LINES)
        for line in lines:
            _print_line(console, f"    [dim]{escape(line)}[/]")
        if lines:
            print_line(console, f"  log: {entry.run.folder.log}")


def _detach(planned: Sequence[PlannedRun], options: RunOptions) -> None:
    """Start this command without `--detach` in its own session, and print its process id and log."""
    words = [word for word in sys.argv[1:] if word not in ("--detach", "--json")]
    folder = options.results / "queues"
    stem = f"{datetime.now():%Y%m%d-%H%M%S}"
    with refusing(f"the results folder {options.results} cannot be written", "--results-dir DIR"):
        folder.mkdir(parents=True, exist_ok=True)
        starting = folder / f"{stem}.starting"
        with open(starting, "w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", DETACHED_BOOT, *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log = starting.rename(folder / f"{stem}-{process.pid}.log")
    if options.as_json:
        print(json.dumps({"pid": process.pid, "log": str(log)}))
        return
    names = [planned[0].folder.name] if len(planned) == 1 else sorted({run.recipe.name for run in planned})
    stop = make_next_command("cancel", *names, *(["--all"] if len(planned) > 1 else []))
    print(f"in the background as process {process.pid}; log: {log}")
    print(f"  progress: {make_next_command('runs')}\n  stop and save checkpoints: {stop}")


def _submit(planned: list[PlannedRun], slurm: SlurmOptions, options: RunOptions, console: Console) -> None:
    from experiments.launching.slurm.submission import submit

    submitted = submit(planned, slurm, options.results, sys.argv)
    if options.as_json:
        rows = [{"run": s.run.folder.name, "job": s.job_id, "why_not": s.why} for s in submitted]
        print_json(rows)
    for one in submitted:
        outcome = f"job {one.job_id}" if one.job_id else one.why or ""
        print_line(console, f"{one.run.folder.name}: {outcome}")
    print_line(console, f"next: {make_next_command('runs')}")


def warn_of_data(found: Iterable[FoundDataset]) -> None:
    """Print a warning for each data set with problems that change numbers."""
    for line in dict.fromkeys(data.warning() for data in found):
        if line:
            print(f"warning: {line}", file=sys.stderr)


def _print_line(console: Console, line: str, hint: str | None = None) -> None:
    console.print(line, soft_wrap=True, highlight=False)
    if hint:
        console.print(f"  {hint}", soft_wrap=True, highlight=False)

"""Runs as rows: what each is, how far it is, its result, and why it failed."""

from __future__ import annotations

import socket
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console

from experiments.common.cache import FileFacts
from experiments.common.metric_names import MAIN_METRICS
from experiments.interop.stock_recipe import PREFIX as IMPORT_PREFIX
from experiments.launching.run_states import KnownRun, read_runs
from experiments.recipes.differences import NamedRecipes, join_differences
from experiments.runs.outputs import find_changed_files
from experiments.runs.record import Attempt, Record, Status, format_now, parse_time
from experiments.runs.removal import measure_disk_use
from experiments.runs.run_flags import list_marks
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import (
    ACTIVE_STATES,
    format_duration,
    format_iterations,
    format_size,
    strip_section,
)
from msdet_cli.console.output import Cell, print_line, print_lines
from msdet_cli.console.result_tables import COLOURS, print_marks

WIDE_CONSOLE = 100  # characters; a narrower one omits the year and, beside others, all differences but one
MAX_DIFFERENCES = 2  # of a run, in a table
MAX_NAMES = 3  # of runs that failed for one reason
MAX_REASONS = 20  # below a table
MAX_CANDIDATES = 12  # of an ambiguous reference


@dataclass
class ListedRun:
    """A run with what is read of it only where it is shown or sorted by."""

    run: RunFolder
    record: Record
    state: Status
    slurm_reason: str | None
    named: NamedRecipes
    facts: FileFacts

    @cached_property
    def differs(self) -> list[str]:
        """In what it differs from the recipe of its name, one text for each key."""
        name = self.record.recipe.removeprefix(IMPORT_PREFIX if self.record.imported else "")
        return self.named.list_differences(self.run.recipe, self.record.recipe_id, name)

    @cached_property
    def size(self) -> int:
        """Bytes of its folder."""
        return measure_disk_use(self.run.path)

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.record.dataset.get("name") or ""

    @property
    def last_attempt(self) -> Attempt | None:
        return self.record.attempts[-1] if self.record.attempts else None

    @property
    def started(self) -> str:
        return self.record.attempts[0].started if self.record.attempts else self.record.created

    @property
    def metrics(self) -> dict[str, float]:
        """AP or mAP of a finished run; an earlier attempt of another may have left some."""
        return {name: self.record.metrics[name] for name in MAIN_METRICS
                if self.state == "done" and name in self.record.metrics}  # fmt: skip

    @property
    def reason(self) -> str | None:
        """Why it failed, or ended before its end."""
        if self.state in ACTIVE_STATES:
            return None
        message = self.last_attempt.message if self.last_attempt and self.state == "failed" else None
        return message if self.slurm_reason is None else self.slurm_reason

    @property
    def progress(self) -> dict[str, Any]:
        """Progress of a running or interrupted run; empty if there is none."""
        return self.run.read_progress() if self.state in ("running", "interrupted") else {}

    @property
    def seconds(self) -> float | None:
        """Duration of all attempts, without those of unknown end."""
        if self.state == "done" and "total_s" in self.record.timings:
            return self.record.timings["total_s"]
        known = []
        for attempt in self.record.attempts:
            is_running = attempt is self.last_attempt and self.state == "running"
            began, ended = map(parse_time, (attempt.started, format_now() if is_running else attempt.ended))
            known += [max((ended - began).total_seconds(), 0.0)] if began and ended else []
        return sum(known) if known else None

    @cached_property
    def marks(self) -> str:
        """Return what its number is marked with."""
        digests = self.record.digests if self.state == "done" else {}
        return list_marks(self.record, find_changed_files(self.run, digests, self.facts))

    def as_json(self) -> dict[str, Any]:
        """Return what `msdet runs --json` prints."""
        return {
            "run": self.run.name,
            "folder": str(self.run.path),
            "state": self.state,
            "why": self.slurm_reason,
            "differs": self.differs,
            "progress": self.progress or None,
            "marks": self.marks,
            "record": self.record.model_dump(),
        }


def list_runs(known: Iterable[KnownRun], facts: FileFacts | None = None) -> list[ListedRun]:
    """Return the runs as a list shows them; pages of recipes are read once, `facts` remembers files' digests."""
    named, facts = NamedRecipes(), facts or FileFacts()
    return [ListedRun(*one, named, facts) for one in known]


def print_runs(console: Console, listed: Sequence[ListedRun], with_size: bool = False) -> None:
    """Print a row for each run, what all share below them, and why runs failed."""
    first, *others = listed
    shared = [text for text in first.differs if others and all(text in one.differs for one in others)]
    _print_rows(console, listed, shared, with_size)
    counts = ", ".join(f"{n} {state}" for state, n in Counter(one.state for one in listed).items())
    parts = [f"{len(listed)} run{'s' * bool(others)}: {counts}"]
    names: dict[str, set[str | None]] = {
        "profile": {one.record.profile for one in listed},
        "data set": {one.data for one in listed},
    }
    parts += [f"{word} {name}" for word, found in names.items() for name in found if name and len(found) == 1]
    parts += [format_size(sum(one.size for one in listed))] if with_size else []
    print_line(console, "; ".join(parts))
    if shared:
        print_line(console, f"all differ from the recipes of their names in {', '.join(shared)}")
    _print_reasons(console, listed)
    print_marks(console, [one.marks for one in listed])


def print_candidates(runs: Sequence[RunFolder]) -> None:
    """Print on standard error what tells runs apart that one reference fits."""
    listed = list_runs(read_runs(runs[:MAX_CANDIDATES])[0])
    if listed:
        _print_rows(Console(stderr=True), listed)
    if len(runs) > MAX_CANDIDATES:
        print(f"and {len(runs) - MAX_CANDIDATES} more", file=sys.stderr)


def _print_rows(
    console: Console, listed: Sequence[ListedRun], shared: Sequence[str] = (), with_size: bool = False
) -> None:
    """Print a row for each run, without the differences that are `shared` by all.

    Profile and data set have a column where runs differ in them.
    """
    has_profiles = len({one.record.profile for one in listed}) > 1
    has_data = len({one.data for one in listed}) > 1
    is_wide = console.width >= WIDE_CONSOLE
    rows: list[dict[str, Cell]] = []
    for one in listed:
        own = [strip_section(text) for text in one.differs if text not in shared]
        metrics = {name: f"{value:.1f}{one.marks}" for name, value in one.metrics.items()}
        started = format_local_time(one.started)
        rows.append(
            {
                "run": one.run.name,
                "differs": join_differences(own, MAX_DIFFERENCES if is_wide else 1),
                "profile": (one.record.profile or "none") if has_profiles else "",
                "data set": one.data if has_data else "",
                "state": (one.state, COLOURS.get(one.state, "")),
                "progress": format_iterations(one.progress),
                **{name: metrics.get(name, "") for name in MAIN_METRICS},
                "took": format_duration(one.seconds),
                "started": started if is_wide else started[len("2026-") :],
                "size": format_size(one.size) if with_size else "",
                "": _where(one),
            }
        )
    right = ("progress", *MAIN_METRICS, "took", "size")
    optional = ("took", "started", "differs", "progress")
    print_lines(
        console, list(rows[0]), [list(row.values()) for row in rows], right, optional, below="differs"
    )


def _where(one: ListedRun) -> str:
    """Return where a run is running, or what it waits for."""
    attempt, job = one.last_attempt, one.record.slurm and f"Slurm job {one.record.slurm['job_id']}"
    if one.state == "running" and attempt is not None:
        is_plain = attempt.world_size == 1 and attempt.device == "cpu"
        many = "" if is_plain else f"{attempt.world_size} x {attempt.device}"
        host = "" if attempt.host == socket.gethostname() else f"on {attempt.host}"
        return ", ".join(part for part in (many, host, job) if part)
    if one.state in ACTIVE_STATES:
        return ": ".join(part for part in (job, one.slurm_reason) if part)
    return ""


def _print_reasons(console: Console, listed: Sequence[ListedRun]) -> None:
    """Print each reason whole, with the runs that it ended and what solves it."""
    found = defaultdict(list)
    for one in listed:
        if one.reason:
            hint = one.last_attempt.hint if one.last_attempt and one.state == "failed" else None
            found[one.state, one.reason, hint].append(one.run.name)
    for (state, reason, hint), names in list(found.items())[:MAX_REASONS]:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        print_line(console, f"{', '.join(names[:MAX_NAMES])}{more}: {state}: {reason}")
        if hint:
            print_line(console, f"  try: {hint}")
    if len(found) > MAX_REASONS:
        print_line(console, f"{len(found) - MAX_REASONS} more reasons: msdet runs --state failed --json")


def print_details(console: Console, one: ListedRun) -> None:
    """Print of one run what a row has no room for."""
    record = one.record
    rows = [["folder", str(one.run.path)], ["differs", ", ".join(one.differs)]]
    for number, attempt in enumerate(record.attempts, start=1):
        last = "" if attempt.last_iteration is None else f" to {attempt.last_iteration}"
        outcome = attempt.exit_class or ("running" if one.state == "running" else "did not end by itself")
        told = (
            format_local_time(attempt.started),
            f"{attempt.world_size} x {attempt.device}",
            attempt.host and f"on {attempt.host}",
            f"iterations {attempt.first_iteration}{last}",
            f"{outcome}{f': {attempt.message}' if attempt.message else ''}",
        )
        rows.append([f"attempt {number}", ", ".join(part for part in told if part)])
    rows += [["note", note] for note in record.notes]
    rows += [["command", " ".join(record.command)]]
    rows = [row for row in rows if row[1]]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print_line(console, f"{name.ljust(width)}  {text}")


def format_local_time(text: str) -> str:
    """Return a recorded time in the local time zone, to the minute."""
    moment = parse_time(text)
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else ""

"""Progress and results of a queue's runs, read from the run folders only when they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments.common.errors import UserError
from experiments.launching.forecast import count_iterations
from experiments.launching.queue import QueueItem
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import WORKING_STATES, format_duration, format_main_metric
from msdet_cli.console.run_view import RunView

STATE_ORDER = ("done", "running", "locked", "waiting", "failed", "interrupted", "cancelled")


class QueueProgress:
    """Progress of the queue's running items, and metrics of all."""

    def __init__(self, entries: Sequence[QueueItem]) -> None:
        self.entries = entries
        self.max_parallel = 1  # runs seen running at once
        self.views: dict[int, RunView] = {}  # of running runs, by index in the queue
        self._results: dict[int, tuple[str, float | None]] = {}  # metric, seconds per iteration
        self._left: dict[int, int] = {}  # iterations left of waiting runs

    def update(self) -> None:
        """Note which runs have started and ended."""
        total = len(self.entries)
        for index, entry in enumerate(self.entries):
            if entry.state in WORKING_STATES and index not in self.views:
                title = f"{index + 1} of {total}" if total > 1 else ""
                self.views[index] = RunView(entry.run.folder, title)
            elif entry.state not in WORKING_STATES:
                self.views.pop(index, None)
                if entry.state in ("done", "skipped") and index not in self._results:
                    self._results[index] = _result(entry.run.folder)
        self.max_parallel = max(self.max_parallel, sum(e.state == "running" for e in self.entries))

    def report(self, index: int) -> dict[str, Any]:
        """Return a running run's latest progress; empty if there is none."""
        return self.views[index].progress() if index in self.views else {}

    def metric(self, index: int) -> str:
        """Return a done run's result, a running run's last evaluation and its iteration, or ''."""
        if index in self._results:
            return self._results[index][0]
        return self.views[index].last_evaluation() if index in self.views else ""

    def seconds_left(self) -> tuple[float, int]:
        """Estimate the training time left, and count the runs that the estimate leaves out.

        A waiting run is assumed to take the mean seconds per iteration of this queue's runs of the same model,
        with as many runs in parallel as there have been at most.
        """
        rates: dict[str, list[float]] = {}
        work, longest, unknown = 0.0, 0.0, 0
        for index, entry in enumerate(self.entries):
            is_known = index in self._results
            rate = self._results[index][1] if is_known else self.report(index).get("seconds_per_iteration")
            if rate:
                rates.setdefault(entry.run.recipe.model, []).append(rate)
        for index, entry in enumerate(self.entries):
            if entry.is_over:
                continue
            seconds, known = self.report(index).get("eta_s"), rates.get(entry.run.recipe.model)
            if seconds is None and known:
                seconds = self._iterations_left(index) * sum(known) / len(known)
            if seconds is None:
                unknown += 1
            else:
                work, longest = work + seconds, max(longest, seconds)
        return max(longest, work / self.max_parallel), unknown

    def _iterations_left(self, index: int) -> int:
        if index not in self._left:
            run = self.entries[index].run
            done = run.folder.count_iterations_saved() if run.todo == "resume" else 0
            self._left[index] = max(count_iterations(run) - done, 0)
        return self._left[index]

    def summary(self) -> str:
        """Return `3 done, 2 running, 5 waiting; about 1:02:03 of training left`."""
        counts: Counter[str] = Counter("done" if e.state == "skipped" else e.state for e in self.entries)
        line = ", ".join(f"{counts[state]} {state}" for state in STATE_ORDER if counts[state])
        seconds, unknown = self.seconds_left()
        if seconds:
            line += f"; {'more than' if unknown else 'about'} {format_duration(seconds)} of training left"
        return line


def _result(run: RunFolder) -> tuple[str, float | None]:
    try:
        record = run.read()
    except UserError:
        return "", None
    return format_main_metric(record.metrics), record.timings.get("seconds_per_iteration")

"""What is known of each run of a queue while it works, read from the run folders as seldom as can be."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.common.errors import UserError
from experiments.launching.forecast import iterations_of
from experiments.launching.queue import QueueItem
from experiments.launching.retry_policy import iterations_saved
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.views import RunView, duration, main_metric

AT_WORK = ("running", "elsewhere")


class Rows:
    """Watches the entries of a queue: progress and last evaluation of those at work, metrics of those that are done."""

    def __init__(self, entries: Sequence[QueueItem]) -> None:
        self.entries = entries
        self.most_at_once = 1
        self._runs: dict[int, RunView] = {}  # by place in the queue
        self._done: dict[int, tuple[str, float | None]] = {}  # metric, seconds an iteration
        self._evaluated: dict[int, tuple[float, str]] = {}  # the file's time, metric
        self._left: dict[int, int] = {}  # iterations of those that wait

    def look(self) -> None:
        """Takes note of which runs have begun and ended."""
        of = len(self.entries)
        for number, entry in enumerate(self.entries):
            if entry.state in AT_WORK and number not in self._runs:
                self._runs[number] = RunView(
                    None, entry.run.folder, f"{number + 1} of {of}" if of > 1 else ""
                )
            elif entry.state not in AT_WORK:
                self._runs.pop(number, None)
                if entry.state in ("done", "skipped") and number not in self._done:
                    self._done[number] = _result(entry.run.folder)
        self.most_at_once = max(self.most_at_once, sum(e.state == "running" for e in self.entries))

    def watched(self, number: int) -> RunView | None:
        """The run at work at a place in the queue."""
        return self._runs.get(number)

    def at_work(self) -> Iterable[RunView]:
        return self._runs.values()

    def metric(self, number: int) -> str:
        """The result of a run that is done; of one at work, that of its last evaluation and when it was."""
        if number in self._done:
            return self._done[number][0]
        if number not in self._runs:
            return ""
        path = self._runs[number].run.metrics
        try:
            changed = path.stat().st_mtime
        except OSError:
            return ""
        if self._evaluated.get(number, (0.0, ""))[0] != changed:
            self._evaluated[number] = changed, _last_evaluation(self._runs[number].run)
        return self._evaluated[number][1]

    def seconds_left(self) -> tuple[float, int]:
        """Estimated seconds of training until all runs are over, and the count of runs that this leaves out.

        The rate of a run that waits is the mean over the runs of its model that this queue has measured; as many
        runs are taken to work at once as have done so at most.
        """
        rates: dict[str, list[float]] = {}
        work, longest, unknown = 0.0, 0.0, 0
        for number, entry in enumerate(self.entries):
            progress = self._runs[number].progress() if number in self._runs else {}
            rate = self._done[number][1] if number in self._done else progress.get("seconds_per_iteration")
            if rate:
                rates.setdefault(entry.run.recipe.model, []).append(rate)
        for number, entry in enumerate(self.entries):
            if entry.is_over:
                continue
            progress = self._runs[number].progress() if number in self._runs else {}
            seconds, known = progress.get("eta_s"), rates.get(entry.run.recipe.model)
            if seconds is None and known:
                seconds = self._iterations_left(number) * sum(known) / len(known)
            if seconds is None:
                unknown += 1
            else:
                work, longest = work + seconds, max(longest, seconds)
        return max(longest, work / self.most_at_once), unknown

    def _iterations_left(self, number: int) -> int:
        if number not in self._left:
            run = self.entries[number].run
            done = iterations_saved(run.folder) if run.todo == "resume" else 0
            self._left[number] = max(iterations_of(run) - done, 0)
        return self._left[number]


def state_line(rows: Rows) -> str:
    """`3 done, 2 running, 5 waiting; about 1:02:03 of training left`."""
    counts: Counter[str] = Counter("done" if e.state == "skipped" else e.state for e in rows.entries)
    order = ("done", "running", "elsewhere", "waiting", "failed", "interrupted", "cancelled")
    words = {"elsewhere": "running elsewhere"}
    line = ", ".join(f"{counts[state]} {words.get(state, state)}" for state in order if counts[state])
    seconds, unknown = rows.seconds_left()
    if seconds:
        line += f"; {'more than' if unknown else 'about'} {duration(seconds)} of training left"
    return line


def _result(run: RunFolder) -> tuple[str, float | None]:
    try:
        record = run.read()
    except UserError:
        return "", None
    return main_metric(record.metrics), record.timings.get("seconds_per_iteration")


def _last_evaluation(run: RunFolder) -> str:
    try:
        with open(run.metrics, newline="", encoding="utf-8") as stream:
            last = list(csv.DictReader(stream))[-1]
        values = {name: float(value) for name, value in last.items() if value}
    except (OSError, ValueError, IndexError, TypeError):
        return ""
    metric = main_metric(values)
    return f"{metric} at {last['iteration']}" if metric and "iteration" in last else metric

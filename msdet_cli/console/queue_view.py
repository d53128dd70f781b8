"""A queue of runs on the console: one run with all levels, or a table of several."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.launching.queue import Queue, QueueItem
from msdet_cli.console.formatting import QUEUE_STATES, format_duration, format_iterations, strip_section
from msdet_cli.console.output import print_line
from msdet_cli.console.queue_progress import QueueProgress
from msdet_cli.console.result_tables import COLOURS
from msdet_cli.console.run_view import format_status

BAR_WIDTH, MIN_BAR_WIDTH = 16, 4  # characters
GAP = 2  # characters between columns
NEVER_CUT, EXTRA = ("run", "varied", "state"), ("loss", "s/it")  # columns; the latter only beside a bar
FOLDED = ("run", "varied")  # where they are longer than the screen
PLAIN_INTERVAL_S = 15  # between lines if the output is no terminal
RESERVED_LINES = 5  # of the screen: header, omitted rows, totals, note, cursor


class QueueView:
    """A queue's progress: live on a terminal, as lines from time to time elsewhere.

        with QueueView(console, queue) as view:
            while queue.step(0.25):
                view.update()

    Args:
        console: Where to write; nothing is drawn for a quiet one (`--json`).

    Attributes:
        note: One line below everything else.
    """

    def __init__(self, console: Console, queue: Queue) -> None:
        self.console = console
        self.queue = queue
        self.note = ""
        self.progress = QueueProgress(queue.entries)
        self._announced: set[int] = set()
        self._line_at = time.monotonic()
        self._live: Live | None = None
        runs = [entry.run for entry in queue.entries]
        self._has_labels = len({run.label for run in runs}) > 1
        self._has_unique_names = len({(run.recipe.name, run.seed, run.label) for run in runs}) == len(runs)
        formats = {"coco": "AP", "voc": "mAP"}
        self._metric_title = " or ".join(sorted({formats[run.recipe.dataset.format] for run in runs}))

    def __enter__(self) -> QueueView:
        if self.console.is_terminal and not self.console.quiet:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show what has changed."""
        if self.console.quiet:
            return
        self.progress.update()
        if self._live is not None:
            self._live.update(self.panel())
        else:
            self._print_lines()

    def panel(self) -> RenderableType:
        """Return what a terminal shows."""
        entries = self.queue.entries
        note = [Text(self.note, "yellow")] if self.note else []
        if len(entries) == 1:
            view = self.progress.views.get(0)
            return Group(*([view.panel()] if view else []), *note)
        room = count = max(self.console.size.height - RESERVED_LINES, 3)
        while True:
            visible = select_rows(entries, count)
            table = self._table(visible, self.console.width)
            lines = len(self.console.render_lines(table, pad=False)) - 1
            if lines <= room or count == 1:
                break
            count = max(min(count - 1, count * room // lines), 1)  # names take several lines each
        omitted = Counter(e.state for index, e in enumerate(entries) if index not in set(visible))
        more = ", ".join(f"{count} {state}" for state, count in omitted.items())
        lines_below = [Text(f"  and {more}", "dim")] if more else []
        return Group(table, *lines_below, Text(self.progress.summary()), *note)

    def _table(self, visible: Sequence[int], width: int) -> Table:
        """Return the rows of these runs.

        Name, varied value and state are whole at any width. Of the rest that much is shown which fits, as short as
        it must be; the bar takes what is left.
        """
        for is_short in (False, True):
            rows = [self._row(index, is_short) for index in visible]
            titles = [title for title in rows[0] if any(row[title] for row in rows)]
            widths = {t: max(cell_len(t), *(cell_len(row[t]) for row in rows)) + GAP for t in titles}
            if sum(widths[title] for title in titles if title not in EXTRA) <= width + GAP:
                break
        room, shown = width + GAP, []
        for title in titles:
            reserved = MIN_BAR_WIDTH + GAP if title in EXTRA else 0
            if title in NEVER_CUT or widths[title] + reserved <= room:
                shown.append(title)
                room -= widths[title]
        if room - GAP >= MIN_BAR_WIDTH:
            shown.insert(shown.index("state") + 1, "bar")
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for title in shown:
            if title == "bar":
                table.add_column("", width=min(room - GAP, BAR_WIDTH))
                continue
            justify: Literal["left", "right"] = "left" if title in (*NEVER_CUT, "GPUs") else "right"
            table.add_column(title, justify=justify, no_wrap=title not in FOLDED, overflow="fold")
        for index, row in zip(visible, rows):
            report, state = self.progress.report(index), self.queue.entries[index].state
            cells: dict[str, RenderableType] = {title: Text(text) for title, text in row.items()}
            cells["state"] = Text(row["state"], COLOURS.get(state, ""))
            cells["bar"] = ProgressBar(report["total"] or 1, report["iteration"]) if report else ""
            table.add_row(*(cells[title] for title in shown))
        return table

    def _row(self, index: int, is_short: bool) -> dict[str, str]:
        """Return what is known of a run, by title of column; a short one without hash and counts of iterations."""
        entry, report = self.queue.entries[index], self.progress.report(index)
        recipe, _, seed = entry.run.folder.path.parts[-3:]
        is_evaluating = report.get("phase") == "evaluate"
        iterations, metric = format_iterations(report), self.progress.metric(index)
        if is_short:
            iterations, metric = iterations.rpartition(" ")[2], metric.partition(" at ")[0]
        attempt = f" (attempt {entry.attempts})" if entry.attempts > 1 and not entry.is_over else ""
        rates = {"loss": report.get("loss"), "s/it": report.get("seconds_per_iteration")}
        return {
            "run": f"{recipe} {seed}" if is_short and self._has_unique_names else entry.run.folder.name,
            "varied": strip_section(entry.run.label) if self._has_labels else "",
            "state": entry.state + attempt,
            "progress": "evaluating" if is_evaluating else iterations,
            "ETA": "" if is_evaluating else format_duration(report.get("eta_s")),
            self._metric_title: metric,
            "GPUs": ",".join(entry.gpus),
            **{title: "" if rate is None else f"{rate:#.3g}" for title, rate in rates.items()},
        }

    def _print_lines(self) -> None:
        console, total = self.console, len(self.queue.entries)
        for index, entry in enumerate(self.queue.entries):
            if entry.state == "running" and index not in self._announced:
                self._announced.add(index)
                run = entry.run.folder
                print_line(console, f"{run.name} ({index + 1} of {total}) starts; log: {run.log}")
        if time.monotonic() - self._line_at < PLAIN_INTERVAL_S:
            return
        self._line_at = time.monotonic()
        for view in self.progress.views.values():
            if progress := view.progress():
                print_line(console, f"{view.run.name}  {format_status(progress)}")
        if total > 1:
            print_line(console, self.progress.summary())


def select_rows(entries: Sequence[QueueItem], room: int) -> list[int]:
    """Return the indices of the `room` most urgent entries, in queue order."""

    def urgency(index: int) -> tuple[int, int]:
        state = entries[index].state
        return QUEUE_STATES.index(state), -index if state in ("done", "skipped") else index

    return sorted(sorted(range(len(entries)), key=urgency)[:room])

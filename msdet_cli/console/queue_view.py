"""A queue of runs on the console: one run with all levels, or a table of several."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.launching.queue import Queue, QueueItem
from msdet_cli.console.formatting import QUEUE_STATES, format_duration, format_iterations, strip_section
from msdet_cli.console.queue_progress import QueueProgress
from msdet_cli.console.result_tables import COLOURS
from msdet_cli.console.run_view import status_line

BAR_WIDTH, MIN_BAR_WIDTH = 16, 4  # characters
GAP = 2  # characters between columns
PLAIN_INTERVAL_S = 15  # between lines if the output is no terminal
RESERVED_LINES = 5  # of the screen: header, omitted rows, totals, note, cursor


class QueueView:
    """A queue's progress: live on a terminal, as lines from time to time elsewhere.

        with QueueView(console, queue) as view:
            while queue.step(0.25):
                view.update()

    Args:
        console: Where to write; None writes nothing (`--json`).

    Attributes:
        note: One line below everything else.
    """

    def __init__(self, console: Console | None, queue: Queue) -> None:
        self.console = console
        self.queue = queue
        self.note = ""
        self.progress = QueueProgress(queue.entries)
        self._announced: set[int] = set()
        self._line_at = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> QueueView:
        if self.console is not None and self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show what has changed."""
        if self.console is None:
            return
        self.progress.update()
        if self._live is not None:
            self._live.update(self.panel())
        else:
            self._print_lines(self.console)

    def panel(self) -> RenderableType:
        """Return what a terminal shows."""
        entries = self.queue.entries
        note = [Text(self.note, "yellow")] if self.note else []
        if len(entries) == 1:
            view = self.progress.view(0)
            return Group(*([view.panel()] if view else []), *note)
        assert self.console is not None
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
        entries = [self.queue.entries[index] for index in visible]
        has_labels = len({entry.run.label for entry in self.queue.entries}) > 1
        labels = [strip_section(entry.run.label) if has_labels else "" for entry in entries]
        states = _Column("state", [_describe_state(entry) for entry in entries])
        has_unique_names = len(
            {(_without_hash(entry), label) for entry, label in zip(entries, labels)}
        ) == len(entries)
        for is_short in (False, True):
            names = [
                _without_hash(e) if is_short and has_unique_names else e.run.folder.name for e in entries
            ]
            shown = [
                column for column in (_Column("run", names), _Column("varied", labels)) if any(column.cells)
            ]
            shown.append(states)
            wanted = self._progress_columns(visible, is_short)
            if sum(column.width for column in (*shown, *wanted)) <= width + GAP:
                break
        reports = [self._progress(index) for index in visible]
        extra = [
            _Column("loss", [_format_number(report, "loss", 3) for report in reports], True),
            _Column("s/it", [_format_number(report, "seconds_per_iteration", 2) for report in reports], True),
        ]
        room = width + GAP - sum(column.width for column in shown)
        for columns, reserved in ((wanted, 0), (extra, MIN_BAR_WIDTH + GAP)):
            for column in columns:
                if any(column.cells) and column.width + reserved <= room:
                    shown.append(column)
                    room -= column.width
        return _as_table(shown, min(room - GAP, BAR_WIDTH), entries, reports)

    def _progress_columns(self, visible: Sequence[int], is_short: bool) -> list[_Column]:
        """Return progress, time left, metric and GPUs; a short one has no counts of iterations."""
        progress, left, metrics, gpus = [], [], [], []
        for index in visible:
            entry, report = self.queue.entries[index], self._progress(index)
            iterations = format_iterations(report)
            progress.append(
                "evaluating"
                if report.get("phase") == "evaluate"
                else iterations.split()[-1]
                if iterations and is_short
                else iterations
            )
            left.append("" if report.get("phase") == "evaluate" else format_duration(report.get("eta_s")))
            metric = self.progress.metric(index)
            metrics.append(metric.partition(" at ")[0] if is_short else metric)
            gpus.append(",".join(entry.gpus))
        formats = {entry.run.recipe.dataset.format for entry in self.queue.entries}
        title = " or ".join(name for name, form in (("AP", "coco"), ("mAP", "voc")) if form in formats)
        titles = ("progress", "ETA", title)
        columns = [_Column(name, cells, True) for name, cells in zip(titles, (progress, left, metrics))]
        return [column for column in (*columns, _Column("GPUs", gpus)) if any(column.cells)]

    def _progress(self, index: int) -> dict[str, Any]:
        view = self.progress.view(index)
        return view.progress() if view else {}

    def _print_lines(self, console: Console) -> None:
        total = len(self.queue.entries)
        for index, entry in enumerate(self.queue.entries):
            if entry.state == "running" and index not in self._announced:
                self._announced.add(index)
                starts = (
                    f"{entry.run.folder.name} ({index + 1} of {total}) starts; log: {entry.run.folder.log}"
                )
                console.print(starts, soft_wrap=True, markup=False, highlight=False)
        if time.monotonic() - self._line_at < PLAIN_INTERVAL_S:
            return
        self._line_at = time.monotonic()
        for view in self.progress.views():
            if progress := view.progress():
                line = f"{view.run.name}  {status_line(progress)}"
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        if total > 1:
            console.print(self.progress.summary(), soft_wrap=True, markup=False, highlight=False)


def select_rows(entries: Sequence[QueueItem], room: int) -> list[int]:
    """Return the indices of the `room` most urgent entries, in queue order."""

    def urgency(index: int) -> tuple[int, int]:
        state = entries[index].state
        return QUEUE_STATES.index(state), -index if state in ("done", "skipped") else index

    return sorted(sorted(range(len(entries)), key=urgency)[:room])


@dataclass
class _Column:
    title: str
    cells: list[str]
    is_number: bool = False

    @property
    def width(self) -> int:
        """Characters with the gap behind it."""
        return max(map(cell_len, (self.title, *self.cells))) + GAP


def _as_table(
    columns: Sequence[_Column],
    bar_width: int,
    entries: Sequence[QueueItem],
    reports: Sequence[dict[str, Any]],
) -> Table:
    """Return the columns with a bar behind the state, where it has room."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    cells: list[list[RenderableType]] = []
    for column in columns:
        is_whole = column.title in ("run", "varied")
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.title, justify=justify, no_wrap=not is_whole, overflow="fold")
        styles = [COLOURS.get(e.state, "") if column.title == "state" else "" for e in entries]
        cells.append([Text(text, style) for text, style in zip(column.cells, styles)])
        if column.title == "state" and bar_width >= MIN_BAR_WIDTH:
            table.add_column("", width=bar_width)
            cells.append([_bar(report, bar_width) for report in reports])
    for row in zip(*cells):
        table.add_row(*row)
    return table


def _bar(report: dict[str, Any], width: int) -> RenderableType:
    if not report:
        return ""
    return ProgressBar(total=max(report["total"], 1), completed=report["iteration"], width=width)


def _without_hash(entry: QueueItem) -> str:
    recipe, _, seed = entry.run.folder.path.parts[-3:]
    return f"{recipe} {seed}"


def _describe_state(entry: QueueItem) -> str:
    return entry.state + (f" (attempt {entry.attempts})" if entry.attempts > 1 and not entry.is_over else "")


def _format_number(report: dict[str, Any], key: str, decimals: int) -> str:
    return "" if report.get(key) is None else f"{report[key]:.{decimals}f}"

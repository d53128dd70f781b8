"""A queue of runs on the console: one run with all levels, or a table of several."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.launching.queue import Queue, QueueItem
from msdet_cli.console.formatting import QUEUE_STATES, format_duration, format_iterations
from msdet_cli.console.queue_progress import QueueProgress
from msdet_cli.console.result_tables import coloured
from msdet_cli.console.run_view import status_line

BAR_WIDTH = 16  # characters
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
        visible = select_rows(entries, max(self.console.size.height - RESERVED_LINES, 3))
        omitted = Counter(e.state for index, e in enumerate(entries) if index not in set(visible))
        more = ", ".join(f"{count} {state}" for state, count in omitted.items())
        lines = [Text(f"  and {more}", "dim")] if more else []
        return Group(self._table(visible), *lines, Text(self.progress.summary()), *note)

    def _table(self, visible: Sequence[int]) -> Table:
        entries = self.queue.entries
        has_labels = len({entry.run.label for entry in entries}) > 1
        has_gpus = any(entry.gpus for entry in entries)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("run", *(["varied"] if has_labels else []), "state"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        table.add_column("progress", no_wrap=True, min_width=BAR_WIDTH)
        for name in ("", "ETA", "AP or mAP"):
            table.add_column(name, no_wrap=True, justify="right")
        if has_gpus:
            table.add_column("GPUs", no_wrap=True)
        for index in visible:
            entry = entries[index]
            cells: list[RenderableType] = [Text(entry.run.folder.name)]
            cells += [Text(entry.run.label)] if has_labels else []
            cells += [_state(entry), *self._bar(index), Text(self.progress.metric(index))]
            cells += [Text(",".join(entry.gpus))] if has_gpus else []
            table.add_row(*cells)
        return table

    def _bar(self, index: int) -> list[RenderableType]:
        """Return the cells of bar, iterations and ETA."""
        view = self.progress.view(index)
        progress = view.progress() if view else {}
        if not progress:
            return ["", "", ""]
        bar = ProgressBar(total=max(progress["total"], 1), completed=progress["iteration"], width=BAR_WIDTH)
        eta = "evaluating" if progress["phase"] == "evaluate" else format_duration(progress["eta_s"])
        return [bar, Text(format_iterations(progress)), Text(eta)]

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


def _state(entry: QueueItem) -> Text:
    text = coloured(entry.state)
    return text.append(f" (attempt {entry.attempts})" if entry.attempts > 1 and not entry.is_over else "")

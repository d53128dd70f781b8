"""What the console shows of a queue at work: its one run with all levels, or a table of several."""

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
from msdet_cli.console.queue_rows import Rows, state_line
from msdet_cli.console.result_tables import coloured
from msdet_cli.console.views import PLAIN_EVERY_S, duration, share, status_line

BAR_WIDTH = 16
BESIDE_ROWS = 5  # lines of the screen: the header, what is left out, totals, a note, the cursor's
FIRST = (
    "running",
    "elsewhere",
    "failed",
    "interrupted",
    "cancelled",
    "waiting",
    "done",
    "skipped",
)  # if all do not fit


class QueueView:
    """Follows the entries of a queue and their `progress.json`: live on a terminal, lines now and then elsewhere.

        with QueueView(console, queue) as view:
            while queue.step(0.25):
                view.update()

    Args:
        console: Where to write; nothing is written where it is None (`--json`).

    Attributes:
        note: One line below all else.
    """

    def __init__(self, console: Console | None, queue: Queue) -> None:
        self.console = console
        self.queue = queue
        self.note = ""
        self.rows = Rows(queue.entries)
        self._started: set[int] = set()
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
        """Shows what has changed."""
        if self.console is None:
            return
        self.rows.look()
        if self._live is not None:
            self._live.update(self.panel())
        else:
            self._plain_lines(self.console)

    def panel(self) -> RenderableType:
        """What a terminal shows."""
        note = [Text(self.note, "yellow")] if self.note else []
        if len(self.queue.entries) == 1:
            watched = self.rows.watched(0)
            return Group(*([watched.panel()] if watched else []), *note)
        assert self.console is not None
        room = max(self.console.size.height - BESIDE_ROWS, 3)
        shown = rows_that_fit(self.queue.entries, room)
        left_out = Counter(e.state for n, e in enumerate(self.queue.entries) if n not in set(shown))
        more = ", ".join(f"{count} {state}" for state, count in left_out.items())
        lines = [Text(f"  and {more}", "dim")] if more else []
        return Group(self._table(shown), *lines, Text(state_line(self.rows)), *note)

    def _table(self, shown: Sequence[int]) -> Table:
        entries = self.queue.entries
        labels = len({entry.run.label for entry in entries}) > 1
        gpus = any(entry.gpus for entry in entries)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("run", no_wrap=True, overflow="ellipsis")
        for name in (*(["varied"] if labels else []), "state"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        table.add_column("progress", no_wrap=True, min_width=BAR_WIDTH)
        for name in ("", "ETA", "AP or mAP"):
            table.add_column(name, no_wrap=True, justify="right")
        if gpus:
            table.add_column("GPUs", no_wrap=True)
        for number in shown:
            entry = entries[number]
            cells: list[RenderableType] = [Text(entry.run.folder.name)]
            cells += [Text(entry.run.label)] if labels else []
            cells += [_state(entry), *self._progress(number), Text(self.rows.metric(number))]
            cells += [Text(",".join(entry.gpus))] if gpus else []
            table.add_row(*cells)
        return table

    def _progress(self, number: int) -> list[RenderableType]:
        watched = self.rows.watched(number)
        progress = watched.progress() if watched else {}
        if not progress:
            return ["", "", ""]
        total, done = max(progress["total"], 1), progress["iteration"]
        bar = ProgressBar(total=total, completed=done, width=BAR_WIDTH)
        left = "evaluates" if progress["phase"] == "evaluate" else duration(progress["eta_s"])
        return [bar, Text(share(progress)), Text(left)]

    def _plain_lines(self, console: Console) -> None:
        of = len(self.queue.entries)
        for number, entry in enumerate(self.queue.entries):
            if entry.state == "running" and number not in self._started:
                self._started.add(number)
                starts = f"{entry.run.folder.name} ({number + 1} of {of}) starts; log: {entry.run.folder.log}"
                console.print(starts, soft_wrap=True, markup=False, highlight=False)
        if time.monotonic() - self._line_at < PLAIN_EVERY_S:
            return
        self._line_at = time.monotonic()
        for run in self.rows.at_work():
            if progress := run.progress():
                line = f"{run.run.name}  {status_line(progress)}"
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        if of > 1:
            console.print(state_line(self.rows), soft_wrap=True, markup=False, highlight=False)


def rows_that_fit(entries: Sequence[QueueItem], room: int) -> list[int]:
    """The places of at most `room` entries, in their order: those at work before those that failed, before those
    that wait, before those that are done, of which the last come first."""

    def importance(number: int) -> tuple[int, int]:
        state = entries[number].state
        return FIRST.index(state), -number if state in ("done", "skipped") else number

    return sorted(sorted(range(len(entries)), key=importance)[:room])


def _state(entry: QueueItem) -> Text:
    text = coloured("running elsewhere" if entry.state == "elsewhere" else entry.state)
    return text.append(f" (attempt {entry.attempts})" if entry.attempts > 1 and not entry.is_over else "")

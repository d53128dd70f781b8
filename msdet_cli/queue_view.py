"""What the console shows of a queue at work: the one run with all its levels, or a line for each of several."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from experiments.launching.queue import Queue
from msdet_cli.views import PLAIN_EVERY_S, RunView, status_line


class QueueView:
    """Follows the entries of a queue and their `progress.json`: live on a terminal, lines now and then elsewhere.

    Args:
        console: Where to write; nothing is written where it is None (`--json`).
    """

    def __init__(self, console: Console | None, queue: Queue) -> None:
        self.console = console
        self.queue = queue
        self.note = ""
        self._runs: dict[int, RunView] = {}  # by place in the queue
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
        of = len(self.queue.entries)
        for number, entry in enumerate(self.queue.entries):
            if entry.state == "running" and number not in self._runs:
                self._runs[number] = RunView(None, entry.run.folder, f"{number + 1} of {of}")
                if self._live is None:
                    log = entry.run.folder.log
                    starts = f"{entry.run.folder.name} ({number + 1} of {of}) starts; log: {log}"
                    self.console.print(starts, soft_wrap=True, markup=False)
            elif entry.is_over:
                self._runs.pop(number, None)
        if self._live is not None:
            self._live.update(self._panel())
        elif time.monotonic() - self._line_at >= PLAIN_EVERY_S:
            self._line_at = time.monotonic()
            for run in self._runs.values():
                if progress := run.progress():
                    line = f"{run.run.name}  {status_line(progress)}"
                    self.console.print(line, soft_wrap=True, markup=False)

    def _panel(self) -> RenderableType:
        runs = list(self._runs.values())
        note = Text(self.note, "yellow")
        if len(runs) == 1:
            return Group(runs[0].panel(), note)
        lines = [
            Text(f"{r.run.name}  {status_line(p, weights=False) if (p := r.progress()) else 'loading'}")
            for r in runs
        ]
        over = sum(entry.is_over for entry in self.queue.entries)
        return Group(Text(f"{over} of {len(self.queue.entries)} runs are over"), *lines, note)

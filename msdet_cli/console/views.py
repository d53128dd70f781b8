"""What the console shows while runs work, and when they have ended."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.runs.run_folder import RunFolder

MAIN_METRICS = ("AP", "mAP")
PLAIN_EVERY_S = 15  # between lines where the output is no terminal
BAR_WIDTH = 24


def duration(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; empty where unknown."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class RunView:
    """Follows one run's `progress.json`: a live panel on a terminal, a line now and then elsewhere.

    Args:
        console: Where to write; nothing is written where it is None (`--json`).
        run: The run folder.
        title: What is being run, "2 of 6" say.
    """

    def __init__(self, console: Console | None, run: RunFolder, title: str) -> None:
        self.console = console
        self.run = run
        self.title = title
        self.note = ""
        self._seen: tuple[float, dict[str, Any]] = (0.0, {})
        self._line_at = 0.0
        self._live: Live | None = None
        self._began = time.time()

    def __enter__(self) -> RunView:
        if self.console is not None:
            if self.console.is_terminal:
                self._live = Live(self.panel(), console=self.console, refresh_per_second=4, transient=True)
                self._live.start()
            else:
                starts = f"{self.run.name} ({self.title}) starts; log: {self.run.log}"
                self.console.print(starts, soft_wrap=True, markup=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Shows what has changed."""
        if self._live is not None:
            self._live.update(self.panel())
        elif self.console is not None and time.monotonic() - self._line_at >= PLAIN_EVERY_S:
            progress = self.progress()
            if progress:
                self._line_at = time.monotonic()
                self.console.print(f"{self.run.name}  {status_line(progress)}", soft_wrap=True, markup=False)

    def progress(self) -> dict[str, Any]:
        """The newest progress of this attempt; empty before it has written any."""
        try:
            changed = self.run.progress.stat().st_mtime
            if changed > self._seen[0]:
                self._seen = (changed, json.loads(self.run.progress.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            pass
        return self._seen[1] if self._seen[0] >= self._began - 1 else {}

    def panel(self) -> RenderableType:
        head = Text.assemble((self.run.name, "bold"), f"  {self.title}", (f"  {self.note}", "yellow"))
        progress = self.progress()
        if not progress:
            return Group(
                head, Text(f"loading MMDetection and the data ... {duration(time.time() - self._began)}")
            )
        if progress["phase"] == "evaluate":
            done, total = progress.get("batch", 0), progress.get("batches", 1)
        else:
            done, total = progress["iteration"], progress["total"]
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH * 2), f"{done}/{total}")
        line = Text(status_line(progress, weights=False))
        return Group(head, bar, line, *[_levels(h) for h in progress["heads"]])


def status_line(progress: dict[str, Any], weights: bool = True) -> str:
    """One line: phase, iteration, time left, loss, learning rate, and the levels' weights if wanted."""
    if progress["phase"] == "evaluate":
        return f"evaluates, batch {progress.get('batch', 0)} of {progress.get('batches', '?')}"
    parts = [
        f"epoch {min(progress['epoch'], progress['epochs'])}/{progress['epochs']}",
        f"iteration {progress['iteration']}/{progress['total']}",
    ]
    if progress["eta_s"] is not None:
        parts.append(f"ETA {duration(progress['eta_s'])} ({progress['seconds_per_iteration']:.2f} s/it)")
    if progress["loss"] is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress["lr"] is not None:
        parts.append(f"lr {progress['lr']:.2g}")
    for head in progress["heads"] if weights else ():
        shown = " ".join(f"{level} {w:.2f}" for level, w in head["weights"].items())
        parts.append(f"weights {shown}" + (f" ({head['action']})" if head["action"] else ""))
    return ", ".join(parts)


def _levels(head: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    if any(w != 1 for w in head["weights"].values()) or head["probabilities"]:
        top = max(2.0, *head["weights"].values())
        for level, weight in head["weights"].items():
            table.add_row(
                Text(level), ProgressBar(total=top, completed=weight, width=BAR_WIDTH), f"{weight:.3f}"
            )
    for action, probability in head["probabilities"].items():
        mark = "in force" if action == head["action"] else ""
        bar = ProgressBar(total=1, completed=probability, width=BAR_WIDTH, complete_style="magenta")
        table.add_row(Text(f"p({action})"), bar, f"{probability:.3f}", mark)
    return table


def metrics_line(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.1f}" for name, value in metrics.items())


def main_metric(metrics: dict[str, float]) -> str:
    """AP or mAP, to one digit; empty where there is none."""
    return next((f"{metrics[name]:.1f}" for name in MAIN_METRICS if name in metrics), "")


def share(progress: dict[str, Any]) -> str:
    """`120/400 30%`; empty where the progress does not say."""
    done, total = progress.get("iteration"), progress.get("total")
    if not isinstance(done, int) or not isinstance(total, int) or total < 1:
        return ""
    return f"{done}/{total} {100 * done // total}%"

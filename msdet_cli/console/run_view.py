"""One running run on the console: progress, losses, level weights and action probabilities."""

from __future__ import annotations

import contextlib
import csv
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.common.files import explain_unreadable
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import format_duration, format_main_metric

BAR_WIDTH = 24  # characters
KEYS = {"phase", "iteration", "total", "epoch", "epochs", "seconds_per_iteration", "eta_s", "loss", "lr",
        "heads"}  # fmt: skip


class RunView:
    """A run's `progress.json` as a panel; `title` is the run's place in the plan, "2 of 6" for example."""

    def __init__(self, run: RunFolder, title: str) -> None:
        self.run = run
        self.title = title
        self._seen: tuple[float, dict[str, Any]] = (0.0, {})  # modification time, content
        self._evaluated = (0.0, "")  # modification time, metric
        self._began = time.time()

    def progress(self) -> dict[str, Any]:
        """Return the latest progress of this attempt; empty before there is any."""
        with contextlib.suppress(OSError):
            changed = self.run.progress.stat().st_mtime
            content = self.run.read_progress() if changed > self._seen[0] else {}
            if content.keys() >= KEYS:
                self._seen = (changed, content)
        return self._seen[1] if self._seen[0] >= self._began - 1 else {}

    def last_evaluation(self) -> str:
        """Return the metric of the last evaluation and its iteration; empty before there is any."""
        changed = self.run.metrics.stat().st_mtime if self.run.metrics.is_file() else 0.0
        if changed != self._evaluated[0]:
            self._evaluated = changed, _last_evaluation(self.run)
        return self._evaluated[1]

    def panel(self) -> RenderableType:
        """Return what a terminal shows of the run."""
        head = Text.assemble((self.run.name, "bold"), f"  {self.title}")
        progress = self.progress()
        if not progress:
            waited = format_duration(time.time() - self._began)
            return Group(head, Text(f"loading MMDetection and the data ... {waited}"))
        if progress["phase"] == "evaluate":
            done, total = progress.get("batch", 0), progress.get("batches", 1)
        else:
            done, total = progress["iteration"], progress["total"]
        bar = Table.grid(padding=(0, 1))
        bar.add_column(max_width=BAR_WIDTH * 2)  # it shrinks on a narrow terminal, the numbers do not
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(total=max(total, 1), completed=done), f"{done}/{total}")
        line = Text(format_status(progress, with_weights=False))
        return Group(head, bar, line, *[_level_table(head) for head in progress["heads"]])


def format_status(progress: dict[str, Any], with_weights: bool = True) -> str:
    """Return one line: phase, iteration, ETA, loss, learning rate, and level weights if wanted."""
    if progress["phase"] == "evaluate":
        batch, batches = progress.get("batch", 0), progress.get("batches", "?")
        return "computing metrics" if batch == batches else f"evaluating, batch {batch} of {batches}"
    parts = [
        f"epoch {min(progress['epoch'], progress['epochs'])}/{progress['epochs']}",
        f"iteration {progress['iteration']}/{progress['total']}",
    ]
    if progress["eta_s"] is not None:
        parts.append(
            f"ETA {format_duration(progress['eta_s'])} ({progress['seconds_per_iteration']:.2f} s/it)"
        )
    if progress["loss"] is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress["lr"] is not None:
        parts.append(f"lr {progress['lr']:.2g}")
    for head in progress["heads"] if with_weights else ():
        weights = " ".join(f"{level} {w:.2f}" for level, w in head["weights"].items())
        parts.append(f"weights {weights}" + (f" ({head['action']})" if head["action"] else ""))
    return ", ".join(parts)


def _level_table(head: dict[str, Any]) -> RenderableType:
    """Return bars of one head's level weights and action probabilities."""
    table = Table.grid(padding=(0, 1))
    if any(w != 1 for w in head["weights"].values()) or head["probabilities"]:
        top = max(2.0, *head["weights"].values())
        for level, weight in head["weights"].items():
            bar = ProgressBar(total=top, completed=weight, width=BAR_WIDTH)
            table.add_row(Text(level), bar, f"{weight:.3f}")
    for action, probability in head["probabilities"].items():
        mark = "in force" if action == head["action"] else ""
        bar = ProgressBar(total=1, completed=probability, width=BAR_WIDTH, complete_style="magenta")
        table.add_row(Text(f"p({action})"), bar, f"{probability:.3f}", mark)
    return table


def _last_evaluation(run: RunFolder) -> str:
    if explain_unreadable(run.metrics) is not None:
        return ""
    try:
        with open(run.metrics, newline="", encoding="utf-8") as stream:
            last = list(csv.DictReader(stream))[-1]
        values = {name: float(value) for name, value in last.items() if value}
    except (OSError, ValueError, IndexError, TypeError, csv.Error):
        return ""
    metric = format_main_metric(values)
    return f"{metric} at {last['iteration']}" if metric and "iteration" in last else metric

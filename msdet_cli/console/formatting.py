"""Quantities, metrics and states as text: one form for every command."""

from __future__ import annotations

import re
from typing import Any

from experiments.common.metric_names import MAIN_METRICS

ACTIVE_STATES = ("queued", "running")  # states of a run that has not ended
WORKING_STATES = ("running", "locked")  # of a queue item that some process trains
# by urgency
QUEUE_STATES = ("running", "locked", "failed", "interrupted", "cancelled", "waiting", "done", "skipped")
TODO_TEXTS = {
    "start": "to start",
    "resume": "to resume",
    "skip": "done",
    "failed": "failed or cancelled",
    "running": "running",
    "unreadable": "unreadable",
}


def format_duration(seconds: float | None) -> str:
    """Return `1:02:03` or `2:03`; an empty string for None."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def format_hours(seconds: float) -> str:
    """Return seconds as hours with two significant digits: `0.02`, `3.4`, `120`."""
    value = seconds / 3600
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def format_size(count: float) -> str:
    """Return bytes as `4.1 MB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 9.95 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_metrics(metrics: dict[str, float]) -> str:
    """Return `AP 36.9  AP50 55.1  ...`."""
    return "  ".join(f"{name} {value:.1f}" for name, value in metrics.items())


def format_main_metric(metrics: dict[str, float]) -> str:
    """Return AP or mAP with one decimal; an empty string if there is neither."""
    return next((f"{metrics[name]:.1f}" for name in MAIN_METRICS if name in metrics), "")


def format_iterations(progress: dict[str, Any]) -> str:
    """Return `120/400 30%`; an empty string if the progress lacks the numbers."""
    done, total = progress.get("iteration"), progress.get("total")
    if not isinstance(done, int) or not isinstance(total, int) or total < 1:
        return ""
    return f"{done}/{total} {100 * done // total}%"


def strip_section(text: str) -> str:
    """Return `alpha=5` for `weighting.alpha=5`: keys of these sections are told apart without them."""
    return re.sub(r"\b(weighting|schedule)\.", "", text)

"""Digests of what a run wrote: a number that rotted or was changed later is found out. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.common.files import file_digest
from experiments.common.regular_files import why_unreadable
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

_METRICS = "metrics"  # the record's own values, which tables show


def digest_outputs(run: RunFolder, record: Record) -> dict[str, str]:
    """Return the SHA-256 of the final metrics, and of the files they can be compared with, by relative path."""
    files = [
        path for path in (run.metrics, run.trace, *sorted(run.detections.glob("*.json"))) if path.is_file()
    ]
    named = {path.relative_to(run.path).as_posix(): file_digest(path) for path in files}
    return {_METRICS: _digest_metrics(record), **named}


def has_changed_metrics(record: Record) -> bool:
    """Return whether the record's metrics are not those that its run wrote; unknown counts as unchanged."""
    return record.digests.get(_METRICS, "") not in ("", _digest_metrics(record))


def changed_files(
    run: RunFolder, digests: Mapping[str, str], digest: Callable[[Path], str] = file_digest
) -> list[str]:
    """Return which of metrics.csv and trace.csv are missing, or not as the finished run wrote them.

    Args:
        digests: The record's. Detections are not read: they are large, and no table's number comes from them.
        digest: Returns a file's SHA-256; a caller may remember it.
    """
    changed = []
    for path in (run.metrics, run.trace):
        expected = digests.get(path.name)
        if expected and (why_unreadable(path) or digest(path) != expected):
            changed.append(path.name)
    return changed


def _digest_metrics(record: Record) -> str:
    numbers = {name: float(value) for name, value in record.metrics.items()}  # as JSON gives them back
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()

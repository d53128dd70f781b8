"""Digests of what a run wrote: a number that rotted or was changed later is found out. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from experiments.common.cache import FileFacts
from experiments.common.files import MAX_TEXT_BYTES, explain_unreadable, hash_file
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

_METRICS = "metrics"  # the record's own values, which tables show


def digest_outputs(run: RunFolder, record: Record) -> dict[str, str]:
    """Return the SHA-256 of the final metrics, and of the files they can be compared with, by relative path."""
    files = [
        path for path in (run.metrics, run.trace, *sorted(run.detections.glob("*.json"))) if path.is_file()
    ]
    named = {path.relative_to(run.path).as_posix(): hash_file(path) for path in files}
    return {_METRICS: _digest_metrics(record), **named}


def has_changed_metrics(record: Record) -> bool:
    """Return whether the record's metrics are not those that its run wrote; unknown counts as unchanged."""
    return record.digests.get(_METRICS, "") not in ("", _digest_metrics(record))


def find_changed_files(run: RunFolder, digests: Mapping[str, str], facts: FileFacts) -> list[str]:
    """Return which of metrics.csv and trace.csv are missing, or not as the finished run wrote them.

    Args:
        digests: The record's. Detections are not read here, for they are large; those who read them compare them.
        facts: Where the files' digests are remembered.
    """
    changed = []
    for path in (run.metrics, run.trace):
        expected = digests.get(path.name)
        name = f"{run.name}/{path.name}:sha256"
        if expected and facts.fact(name, path, lambda p=path: (_digest_if_readable(p), True)) != expected:
            changed.append(path.name)
    return changed


def is_as_written(record: Record, name: str, content: bytes) -> bool:
    """Return whether a file's bytes are those that its finished run wrote; unknown counts as unchanged.

    `name` is its path in the run folder.
    """
    expected = record.digests.get(name) if record.status == "done" else None
    return expected in (None, "", hashlib.sha256(content).hexdigest())


def _digest_if_readable(path: Path) -> str:
    return "" if explain_unreadable(path, MAX_TEXT_BYTES) else hash_file(path)


def _digest_metrics(record: Record) -> str:
    numbers = {name: float(value) for name, value in record.metrics.items()}  # as JSON gives them back
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()

"""Rows of what long tests counted or measured, kept under `results/`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.common.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"


def keep_rows(path: Path, columns: Sequence[str], key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows in the place of older ones that have the same value under `key`; all are ordered by it."""
    old: list[Mapping[str, Any]] = []
    replaced = {str(row[key]) for row in rows}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as stream:
            old = [row for row in csv.DictReader(stream) if row[key] not in replaced]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted([*old, *rows], key=lambda row: str(row[key]).zfill(6)))
    path.parent.mkdir(exist_ok=True)
    write_text(path, text.getvalue())


def short_commit(git: Mapping[str, Any] | None) -> str:
    """Eight digits of the commit; `+`: the checkout had changes."""
    git = git or {}
    return git.get("commit", "")[:8] + ("+" if git.get("dirty") else "")

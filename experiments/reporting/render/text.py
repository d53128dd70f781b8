"""Texts that every format shares: where a report comes from, names, links."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from experiments.common.files import make_unique_name
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.report_model import LEGEND, Report
from experiments.runs.run_flags import explain_marks

_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")
RANKS = "Bold is the best value of a block, underlined the second, by the digits shown, whatever the noise."


@dataclass(frozen=True)
class ReportMetadata:
    """When a report was made, with what, of which results folders."""

    when: datetime
    version: str
    folders: Sequence[Path]


def explain_no_results(report: Report, folders: Sequence[Path]) -> str:
    """Return the sentence for a report without a measured number; empty where it has one."""
    where = " and ".join(map(str, folders))
    groups = report.groups
    if any(group.metrics for group in groups):
        return ""
    if report.has_runs:
        states = sum((Counter(group.states) for group in groups), Counter[str]())
        counts = f": {', '.join(f'{n} {state}' for state, n in states.items())}" if states else ""
        return f"No run in {where} that belongs here has finished{counts}. Their states, and why: msdet runs"
    if report.problems:
        return f"No run in {where} can be read."
    return f"There are no runs in {where} yet. For a first one: msdet run retinanet-r50-rlo -p tiny"


def describe_origin(report: Report, made: ReportMetadata) -> str:
    """Return `Made 2026-01-01 10:00 UTC with msdet 0.1.0 from 18 runs (17 done, 1 failed) in results; code of ...`."""
    states = {run["path"]: run["state"] for group in report.groups for run in group.runs}
    parts = ", ".join(f"{n} {state}" for state, n in Counter(states.values()).most_common())
    runs = f"{len(states)} run{'' if len(states) == 1 else 's'}" + (f" ({parts})" if parts else "")
    commits = dict.fromkeys(run["commit"] for group in report.groups for run in group.runs if run["commit"])
    code = f"; code of commit {', '.join(commit[:12] for commit in commits)}" if commits else ""
    began = f"Made {made.when:%Y-%m-%d %H:%M} UTC with msdet {made.version}"
    return f"{began} from {runs} in {', '.join(map(str, made.folders))}{code}."


def list_reading_notes(groups: Iterable[Group]) -> list[str]:
    """Return how measured numbers read, and what those marks mean that these runs have."""
    return [f"{LEGEND} {RANKS}", *explain_marks([group.marks for group in groups])]


def minus(text: str) -> str:
    """Return the text with minus signs before numbers in place of hyphens."""
    return _MINUS.sub("−", text)


def make_file_name(table: str) -> str:
    """Return a table's name as the stem of a file, wherever the table came from."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", table).strip(".-") or "table"


def make_stems(names: Iterable[str]) -> dict[str, str]:
    """Return file stems by name, unique on file systems that ignore case, too; none is that of the report."""
    used = {"report"}
    return {name: make_unique_name(make_file_name(name), used) for name in dict.fromkeys(names)}


def link(folder: Path, base: Path) -> str:
    """Return a relative URL from the page's folder; a colon is quoted, so that it names no scheme."""
    relative = _relative(folder.parent, base)
    return urllib.parse.quote(f"{relative}/{folder.name}" if relative != "." else folder.name)


@lru_cache(maxsize=65536)
def _relative(folder: Path, base: Path) -> str:
    """Return the relative path; cached, for resolving symbolic links of a shared folder is slow."""
    return os.path.relpath(folder.resolve(), base.resolve())

"""The figures of a report: a set for each context, and Figure 4 for each machine with a bench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common.files import make_unique_name
from experiments.reporting.bench.results import find_newest
from experiments.reporting.figures import traces as trace_files
from experiments.reporting.figures.curves import draw_level_curves
from experiments.reporting.figures.forest import draw_forest
from experiments.reporting.figures.policy import draw_policy_figure
from experiments.reporting.figures.series import name_seeds
from experiments.reporting.figures.sweeps import draw_sweeps
from experiments.reporting.figures.timing import draw_ap_over_time, draw_inference_time
from experiments.reporting.tables.matching import Context
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Picture, Section

MAX_TABLES = 12  # of one context that are drawn: what a page can bear


def build_figure_sections(report: Report, bench: Sequence[dict[str, Any]]) -> list[Section]:
    """Return the figures of a report; a set with nothing to draw is left out.

    Args:
        bench: As `experiments.reporting.bench.results.read` gives it.
    """
    contexts: dict[Context | None, list[MeasuredTable]] = {}
    for table in report.tables:
        contexts.setdefault(table.context, []).append(table)
    used: set[str] = set()
    made = [_of_context(tables, used) for tables in contexts.values()]
    return [section for section in (*made, _of_bench(report, bench, used)) if section is not None]


def draw_runs(folders: Sequence[Path], stem: str) -> tuple[list[Picture], list[str]]:
    """Draw level curves and policy of one config's runs, by head; return problems of traces, too."""
    traces, what = trace_files.read(folders), trace_files.describe_runs(folders)
    found = []
    for head in traces.heads:
        of, several = traces.of(head), len(traces.heads) > 1
        name, whose = (f"{stem}-{head}", f"{what}, {head}") if several else (stem, what)
        found += [
            draw_level_curves(of, f"{name}-levels", whose),
            draw_policy_figure(of, f"{name}-policy", whose),
        ]
    return [picture for picture in found if picture is not None], traces.problems


def make_stem(text: str, used: set[str]) -> str:
    """Return a file's stem of small letters, digits and hyphens that is not used yet; it is from now on."""
    return make_unique_name(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure", used)


def _of_context(tables: Sequence[MeasuredTable], used: set[str]) -> Section | None:
    drawn = [table for table in tables if table.folders]
    pictures: list[Picture] = []
    for table in drawn[:MAX_TABLES]:
        stem = make_stem(table.long_name, used)
        forest = draw_forest(table, f"{stem}-differences") if _says_more(table, drawn) else None
        pictures += [forest] if forest is not None else []
        pictures += draw_sweeps(table, stem)
    texts, more = [], len(drawn) - MAX_TABLES
    if more > 0:
        texts.append(f"Figures of the first {MAX_TABLES} tables; {more} more are not drawn.")
    folders = _add_trainings(drawn, used, pictures, texts)
    if not pictures and not texts:
        return None
    common = tables[0].common
    return Section("Figures" + (f", {common}" if common else ""), texts, (), pictures, folders)


def _add_trainings(
    tables: Sequence[MeasuredTable], used: set[str], pictures: list[Picture], texts: list[str]
) -> list[Path]:
    """Draw the trainings of the RLO row with most seeds, and of its baseline; return their folders."""
    rows = [
        (row, row.group.finished_folders)
        for table in tables
        for row in table.rows
        if row.group and row.is_rlo
    ]
    rows.sort(key=lambda pair: (pair[0].baseline is None, -len(pair[1])))
    for row, own in rows:
        baseline = row.baseline.finished_folders if row.baseline is not None else []
        drawn = []
        for folders in filter(None, (baseline, own)):
            found, problems = draw_runs(folders, make_stem("-".join(folders[0].parts[-3:-1]), used))
            drawn += found
            texts += [problem for problem in problems if problem not in texts]
        if drawn:
            pictures += drawn
            seeds = name_seeds(sorted(map(trace_files.seed_of, own)))
            texts.append(
                f"The trainings drawn are those of {row.full_label} ({seeds}), for no RLO row has more seeds,"
                " and of its baseline."
            )
            return [*baseline, *own]
    return []


def _of_bench(report: Report, bench: Sequence[dict[str, Any]], used: set[str]) -> Section | None:
    pictures = []
    for part in find_newest(bench, "inference"):
        stem = make_stem(f"fig4-{part['host']}-{part['result']['device']}", used)
        pictures.append(draw_inference_time(part, f"{stem}-time"))
        against = draw_ap_over_time(part, report, f"{stem}-ap")
        pictures += [against] if against is not None else []
    return Section("Figure 4: inference time", (), (), pictures) if pictures else None


def _says_more(table: MeasuredTable, tables: Sequence[MeasuredTable]) -> bool:
    """Return whether no other table shows all of its differences, nor an earlier one the same."""
    own, before = _compared(table), True
    for other in tables if table.context is not None else ():
        if other is table:
            before = False
        elif own < (theirs := _compared(other)) or (before and own == theirs):
            return False
    return True


def _compared(table: MeasuredTable) -> set[tuple[Path, Path]]:
    """Return the configs that have a difference, each with that of its baseline."""
    pairs = [(row.group, row.baseline) for row in table.rows]
    return {(one.folders[0].parent, base.folders[0].parent) for one, base in pairs if one and base}

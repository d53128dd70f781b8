"""Collected runs into the paper's tables, tables of their rows in other contexts, and tables of variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from experiments.recipes.tables import Table, all_tables, load_table
from experiments.reporting.collect import Collected, metric_names
from experiments.reporting.tables.groups import group_runs
from experiments.reporting.tables.matching import Context, Matcher, context_of
from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, Report, described
from experiments.reporting.tables.table_rows import blocks_of
from experiments.reporting.tables.variants import variants_of


def build_report(collected: Collected, names: Sequence[str] = ()) -> Report:
    """The report over collected runs.

    Args:
        names: Of the tables to show; none means all that have published values or runs of their own, and then
            also the runs that fit no table.

    Raises:
        UserError: A table is unknown, or its file is wrong.
    """
    wanted = [load_table(name) for name in dict.fromkeys(names or all_tables())]
    matcher = Matcher(collected.runs, collected.indexes)
    published = [_published(table, matcher) for table in wanted]
    in_contexts = [_in_context(table, c, matcher) for c in matcher.contexts for table in wanted]
    shown = [table for table in in_contexts if table is not None]
    if not names:
        published, shown = _with_something_new(published), _with_something_new(shown)
    variants = [] if names else [_measured(table) for table in variants_of(matcher)]
    other = [] if names else _other(matcher)
    problems = [*collected.problems, *matcher.problems]
    return Report(published, shown, other, problems, len(collected.runs) > 0, variants)


def _with_something_new(tables: Sequence[MeasuredTable]) -> list[MeasuredTable]:
    """Without tables that hold no published number, and no run that a table before them does not hold."""
    seen: set[str] = set()
    kept = []
    for table in tables:
        if table.has_published or not seen.issuperset(table.folders):
            kept.append(table)
        seen.update(table.folders)
    return kept


def _published(table: Table, matcher: Matcher) -> MeasuredTable:
    runs = {row.id: matcher.find(matcher.of_row(table, row)) for row in table.rows()}
    blocks = blocks_of(table, runs, {row.id for row in table.rows()}, table.columns, matcher, True)
    notes = [table.note] if table.note else []
    title = f"{_numbered(table)}: {table.title}"
    return _measured(MeasuredTable(table.name, title, None, list(table.columns), blocks, notes))


def _in_context(table: Table, context: Context, matcher: Matcher) -> MeasuredTable | None:
    """The table's rows as run in a context; None where none of its own rows was."""
    runs, scaled = _runs_in_context(table, context, matcher)
    if all(row.reference for row in table.rows() if row.id in runs):
        return None
    metrics = metric_names(pd.concat(runs.values()))
    columns = [c for c in table.columns if c in metrics] or metrics or list(table.columns)
    shown = set(runs) | {row.baseline for row in table.rows() if row.id in runs and row.baseline}
    hidden = [row for row in table.rows() if row.id not in runs and not row.reference]
    notes = [f"Rows are named as in the paper: {table.title}." if table.has_published else f"{table.title}."]
    if scaled:
        notes[0] += f" With profile {context.profile}, {', '.join(scaled)}."
    if hidden:
        notes.append(f"{len(hidden)} rows of the table have no runs here.")
    common = described(context, matcher.contexts)
    title = f"{_numbered(table)}, {common}"
    title += " (NOT comparable with the published numbers)" if table.has_published else ""
    blocks = blocks_of(table, runs, shown, columns, matcher)
    return _measured(MeasuredTable(table.name, title, context, columns, blocks, notes, common))


def _runs_in_context(
    table: Table, context: Context, matcher: Matcher
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Runs by row id, for rows that have any; and what the profile made of their intervals."""
    runs: dict[str, pd.DataFrame] = {}
    scaled: list[str] = []
    for row in table.rows():
        full = matcher.full_size(row.recipe, row.overrides()) if row.recipe else None
        if full is None or context_of(full) == context:  # the latter is the published table's
            continue
        as_run = matcher.of_row(table, row, context)
        found = matcher.find(as_run)
        if found.empty:
            continue
        runs[row.id] = found
        asked, got = full.weighting.get("alpha"), as_run[0].weighting.get("alpha")
        if asked != got:
            scaled.append(f"alpha = {asked} ran as {got}")
    return runs, list(dict.fromkeys(scaled))


def _measured(table: MeasuredTable) -> MeasuredTable:
    """The table with what must be said below it of the code that its runs were made by."""
    groups = [line.group for line in table.lines if line.group is not None]
    commits = {commit for group in groups for commit in group.runs["commit"] if commit}
    if len(commits) < 2:
        return table
    note = f"These runs were made by {len(commits)} different commits of the code; record.json names each."
    return replace(table, notes=[*table.notes, note])


def _numbered(table: Table) -> str:
    """`table1` is `Table 1`, `fig4` is `Figure 4`; any other name stays."""
    for stem, word in (("table", "Table"), ("fig", "Figure")):
        number = table.name.removeprefix(stem)
        if number != table.name and number.isdigit():
            return f"{word} {number}"
    return table.name


def _other(matcher: Matcher) -> list[OtherRuns]:
    return [
        OtherRuns(group, matcher.differs(group.runs.iloc[0]))
        for _, runs in matcher.unmatched().groupby("config_hash", sort=False)
        for group in group_runs(runs)
    ]

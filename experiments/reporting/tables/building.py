"""Build a report: the paper's tables, their rows in other contexts, and tables of variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from experiments.recipes.tables import Table, all_tables, load_table
from experiments.reporting.collect import Collected, metric_names
from experiments.reporting.tables.groups import group_runs
from experiments.reporting.tables.matching import Context, Matcher, context_of
from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, Report, describe_context
from experiments.reporting.tables.table_rows import RowBuilder
from experiments.reporting.tables.variants import variants_of


def build_report(collected: Collected, names: Sequence[str] = ()) -> Report:
    """Return the report over collected runs.

    Args:
        names: Of the tables to show; none means all that have published values or runs of their own, and then
            also the runs that fit no table.

    Raises:
        UserError: A table is unknown, or its file is wrong.
    """
    wanted = [load_table(name) for name in dict.fromkeys(names or all_tables())]
    builder = _TableBuilder(Matcher(collected.runs, collected.indexes))
    matcher = builder.matcher
    published = [builder.published(table) for table in wanted]
    in_contexts = [builder.in_context(table, context) for context in matcher.contexts for table in wanted]
    shown = [table for table in in_contexts if table is not None]
    if not names:
        published, shown = _with_something_new(published), _with_something_new(shown)
    variants = [] if names else [_with_commits(table) for table in variants_of(matcher)]
    other = [] if names else builder.other()
    problems = [*collected.problems, *matcher.problems]
    return Report(published, shown, other, problems, len(collected.runs) > 0, variants)


def _with_something_new(tables: Sequence[MeasuredTable]) -> list[MeasuredTable]:
    """Drop tables without published numbers all of whose runs an earlier table shows."""
    seen: set[str] = set()
    kept = []
    for table in tables:
        if table.has_published or not seen.issuperset(table.folders):
            kept.append(table)
        seen.update(table.folders)
    return kept


@dataclass(frozen=True)
class _TableBuilder:
    """Builds tables from the runs that a matcher finds."""

    matcher: Matcher

    def published(self, table: Table) -> MeasuredTable:
        """Return the table at full size, published values beside measured ones."""
        runs = {row.id: self.matcher.find(self.matcher.of_row(table, row)) for row in table.rows()}
        blocks = RowBuilder(table, runs, table.columns, self.matcher, as_published=True).blocks(set(runs))
        notes = [table.note] if table.note else []
        title = f"{_numbered(table)}: {table.title}"
        return _with_commits(MeasuredTable(table.name, title, None, list(table.columns), blocks, notes))

    def in_context(self, table: Table, context: Context) -> MeasuredTable | None:
        """Return the table's rows as run in a context; None where none of its own rows was."""
        runs, scaled = self._runs_in_context(table, context)
        if all(row.reference for row in table.rows() if row.id in runs):
            return None
        metrics = metric_names(pd.concat(runs.values()))
        columns = [c for c in table.columns if c in metrics] or metrics or list(table.columns)
        shown = set(runs) | {row.baseline for row in table.rows() if row.id in runs and row.baseline}
        hidden = [row for row in table.rows() if row.id not in runs and not row.reference]
        notes = [
            f"Rows are named as in the paper: {table.title}." if table.has_published else f"{table.title}."
        ]
        if scaled:
            notes[0] += f" With profile {context.profile}, {', '.join(scaled)}."
        if hidden:
            notes.append(f"{len(hidden)} rows of the table have no runs here.")
        common = describe_context(context, self.matcher.contexts)
        title = f"{_numbered(table)}, {common}"
        title += " (NOT comparable with the published numbers)" if table.has_published else ""
        blocks = RowBuilder(table, runs, columns, self.matcher).blocks(shown)
        return _with_commits(MeasuredTable(table.name, title, context, columns, blocks, notes, common))

    def _runs_in_context(self, table: Table, context: Context) -> tuple[dict[str, pd.DataFrame], list[str]]:
        """Return runs by row id, for rows that have any; and what the profile made of their intervals."""
        runs: dict[str, pd.DataFrame] = {}
        scaled: list[str] = []
        for row in table.rows():
            full = self.matcher.full_size(row.recipe, row.overrides()) if row.recipe else None
            if full is None or context_of(full) == context:  # the latter is the published table's
                continue
            as_run = self.matcher.of_row(table, row, context)
            found = self.matcher.find(as_run)
            if found.empty:
                continue
            runs[row.id] = found
            asked, got = full.weighting.get("alpha"), as_run[0].weighting.get("alpha")
            if asked != got:
                scaled.append(f"alpha = {asked} ran as {got}")
        return runs, list(dict.fromkeys(scaled))

    def other(self) -> list[OtherRuns]:
        """Return the runs that no table has found."""
        return [
            OtherRuns(group, self.matcher.differs(group.runs.iloc[0]))
            for _, runs in self.matcher.unmatched().groupby("config_hash", sort=False)
            for group in group_runs(runs)
        ]


def _with_commits(table: MeasuredTable) -> MeasuredTable:
    """Return the table with a note where its runs were made by different commits."""
    groups = table.groups
    commits = {commit for group in groups for commit in group.runs["commit"] if commit}
    if len(commits) < 2:
        return table
    note = f"These runs were made by {len(commits)} different commits of the code; record.json names each."
    return replace(table, notes=[*table.notes, note])


def _numbered(table: Table) -> str:
    """Return `Table 1` for `table1`, `Figure 4` for `fig4`; any other name as it is."""
    for stem, word in (("table", "Table"), ("fig", "Figure")):
        number = table.name.removeprefix(stem)
        if number != table.name and number.isdigit():
            return f"{word} {number}"
    return table.name

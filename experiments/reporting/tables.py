"""The paper's tables with measured numbers beside, and tables of their own for other runs of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from experiments.reporting.collect import Collected, metric_names
from experiments.reporting.groups import Group, against, split
from experiments.reporting.matching import Context, Matcher, context_of
from experiments.reporting.statistics import Difference
from experiments.tables import Row, Table, all_tables, load_table

LEGEND = (
    "Measured: mean ± sample standard deviation (number of seeds). Δ: the mean minus the baseline row's;"
    " ± is the standard error of the difference, from the pooled standard deviation, seeds not paired."
    " Run as: processes x images per process and step (x accumulated steps)."
)


@dataclass(frozen=True)
class Line:
    """One group of runs of a table row, or the row without any.

    Attributes:
        group: None where the row has no runs.
        published_difference: Of the first column, to the baseline row as published.
        difference: The same as measured.
        remark: "no runs", "no recipe yet", or what a reader must know of the group.
    """

    row: Row
    group: Group | None
    published_difference: float | None
    difference: Difference | None
    remark: str


@dataclass(frozen=True)
class MeasuredTable:
    """A table as it is shown.

    Attributes:
        context: None for the table at full size on its rows' own data, as published.
        columns: Metrics; in a context those of the runs.
        blocks: Title and lines.
        notes: Sentences for below the table.
        common: The context in words; empty without one.
    """

    name: str
    title: str
    context: Context | None
    columns: list[str]
    blocks: list[tuple[str, list[Line]]]
    notes: list[str] = field(default_factory=list)
    common: str = ""

    @property
    def lines(self) -> list[Line]:
        return [line for _, lines in self.blocks for line in lines]

    @property
    def has_published(self) -> bool:
        """Whether there are published values to show, or to be compared with."""
        return any(line.row.published is not None for line in self.lines)

    @property
    def folders(self) -> list[str]:
        """Patterns of the run folders that the numbers come from."""
        return patterns(line.group for line in self.lines if line.group is not None)


@dataclass(frozen=True)
class OtherRuns:
    """Runs of one config that belong to no row.

    Attributes:
        differs: In what they differ from the recipe of their name, as far as known.
    """

    group: Group
    differs: str

    def of(self, column: str) -> str:
        """What the collected frame says of them: recipe, profile, dataset, config_hash."""
        return str(self.group.runs[column].iloc[0])


@dataclass(frozen=True)
class Report:
    """Everything that `msdet report` shows, in no format yet."""

    published: list[MeasuredTable]
    in_contexts: list[MeasuredTable]
    other: list[OtherRuns]
    problems: list[str]
    has_runs: bool

    @property
    def by_name(self) -> dict[str, list[MeasuredTable]]:
        """Each table's name to its published form and its contexts."""
        tables = [*self.published, *self.in_contexts]
        return {name: [t for t in tables if t.name == name] for name in dict.fromkeys(t.name for t in tables)}


def build_report(collected: Collected, names: Sequence[str] = ()) -> Report:
    """The report over collected runs.

    Args:
        names: Of the tables to show; none means all that have published values or runs of their own, and then
            also the runs that fit no table.

    Raises:
        UserError: A table is unknown, or its file is wrong.
    """
    wanted = [load_table(name) for name in dict.fromkeys(names or all_tables())]
    matcher = Matcher(collected.runs)
    published = [_published(table, matcher) for table in wanted]
    in_contexts = [_in_context(table, c, matcher) for c in matcher.contexts for table in wanted]
    shown = [table for table in in_contexts if table is not None]
    if not names:
        published, shown = _with_something_new(published), _with_something_new(shown)
    other = [] if names else _other(matcher)
    return Report(published, shown, other, [*collected.problems, *matcher.problems], len(collected.runs) > 0)


def _with_something_new(tables: Sequence[MeasuredTable]) -> list[MeasuredTable]:
    """Without tables that hold no published number, and no run that a table before them does not hold."""
    seen: set[str] = set()
    kept = []
    for table in tables:
        if table.has_published or not seen.issuperset(table.folders):
            kept.append(table)
        seen.update(table.folders)
    return kept


def patterns(groups: Iterable[Group]) -> list[str]:
    """`results/runs/<recipe>/<hash>/seed*`, one for each config."""
    return list(
        dict.fromkeys((folder.parent / "seed*").as_posix() for group in groups for folder in group.folders)
    )


def _published(table: Table, matcher: Matcher) -> MeasuredTable:
    runs = {row.id: matcher.find(matcher.of_row(table, row)) for row in table.rows()}
    blocks = _blocks(table, runs, {row.id for row in table.rows()}, table.columns[0])
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
    common = _describe(context, matcher.contexts)
    title = f"{_numbered(table)}, {common}"
    title += " (NOT comparable with the published numbers)" if table.has_published else ""
    blocks = _blocks(table, runs, shown, columns[0])
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


def _blocks(
    table: Table, runs: dict[str, pd.DataFrame], shown: set[str], metric: str
) -> list[tuple[str, list[Line]]]:
    groups = {row_id: split(found) for row_id, found in runs.items() if len(found)}
    blocks = []
    for block in table.blocks:
        lines = [line for row in block.rows if row.id in shown for line in _lines(row, table, groups, metric)]
        if lines:
            blocks.append((block.title or "", lines))
    return blocks


def _lines(row: Row, table: Table, groups: dict[str, list[Group]], metric: str) -> list[Line]:
    """A line for each group of the row's runs, or one that says that there is none."""
    change, baseline = None, table.row(row.baseline) if row.baseline else None
    if baseline is not None and baseline.published is not None and row.published is not None:
        change = round(row.published[0] - baseline.published[0], 1)
    if row.id not in groups:
        return [Line(row, None, change, None, "no runs" if row.recipe else "no recipe yet")]
    lines = []
    for group in groups[row.id]:
        measured, remark = against(group, groups.get(row.baseline or "", []), metric)
        lines.append(
            Line(row, group, change, measured, "; ".join(text for text in (group.remark(), remark) if text))
        )
    return lines


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


def _describe(context: Context, contexts: Sequence[Context]) -> str:
    name = context.dataset.name
    if len({c.data for c in contexts if c.dataset.name == name}) > 1:
        name += f" (definition {context.digest})"
    return f"profile {context.profile} on {name}" if context.profile else f"full size on {name}"


def _other(matcher: Matcher) -> list[OtherRuns]:
    return [
        OtherRuns(group, matcher.differs(group.runs.iloc[0]))
        for _, runs in matcher.unmatched().groupby("config_hash", sort=False)
        for group in split(runs)
    ]

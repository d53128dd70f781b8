"""Views of a report's tables: columns and cells, decided once for all formats."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.reporting.stats.statistics import Difference, compute_spread, format_signed
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.row_evidence import choose_controls, summarize_controls
from experiments.reporting.tables.sections import EMPTY, Cell, Column, TableView


def build_measured_view(table: MeasuredTable) -> TableView:
    """Return one of the report's tables.

    In a table with published values, the measured cells of metrics after the first have the published one below. Rows
    have cells `published <metric>` and `measured <metric>` for every metric, whatever the columns.
    """
    main, *others = table.columns
    columns = [Column("label", "Method" if table.is_as_published else "Row"), *_identifying_columns(table)]
    if table.is_as_published and not table.is_measured:
        columns += [Column(f"published {name}", name, True) for name in table.columns]
        columns += [Column("published change", f"Δ {main}", True), Column("remark", "")]
        return TableView(table.title, columns, _blocks(table))
    has_intervals = any(row.difference is not None and row.difference.low is not None for row in table.rows)
    interval = " [95\u00a0%]" if has_intervals else ""
    if table.is_as_published:
        columns += [
            Column(f"published {main}", "published", True, main),
            Column(f"measured {main}", "measured", True, main),
            Column("gap", "measured − published", True, main),
            Column("published change", "published", True, f"Δ {main}"),
            Column("change", f"measured{interval}", True, f"Δ {main}"),
        ]
    else:
        columns += [Column(f"measured {main}", main, True), Column("change", f"Δ {main}{interval}", True)]
    columns += [Column("verdict", "Verdict"), *[Column(f"measured {name}", name, True) for name in others]]
    return TableView(table.title, [*columns, Column("runs", "Seeds")], _blocks(table))


def _identifying_columns(table: MeasuredTable) -> list[Column]:
    """Return the column that says what a row is beside its name; none where all rows have the same recipe."""
    if table.has_differs:
        is_any = any(row.differs for row in table.rows)
        return [Column("context", "Differs from the recipe")] if is_any else []
    if table.is_as_published:
        return [Column("context", "Backbone")]
    is_one = len({row.definition.recipe for row in table.rows}) == 1 and len(table.rows) > 1
    return [] if is_one else [Column("context", "Recipe")]


def _blocks(table: MeasuredTable) -> list[tuple[str, list[dict[str, Cell]]]]:
    """Return each block's rows; a row with several groups of runs has its published values once."""
    first = {row.definition.id: row for row in reversed(table.rows)}
    return [
        (title, [_cells(row, table, is_first=row is first[row.definition.id]) for row in rows])
        for title, rows in table.blocks
    ]


def _cells(row: TableRow, table: MeasuredTable, is_first: bool) -> dict[str, Cell]:
    main, definition = table.columns[0], row.definition
    own = definition.backbone if table.is_as_published else definition.recipe_name
    cells = {
        "label": Cell(row.label),
        "context": Cell((row.differs if table.has_differs else own) or ""),
        "remark": Cell(row.remark),
        "runs": Cell(runs=row.group.folders if row.group else ()),
    }
    if table.is_as_published and definition.published is not None and is_first:
        for name, value in zip(table.columns, definition.published):
            rank = row.published_ranks.get(name, 0)
            cells[f"published {name}"] = Cell(f"{value:.1f}", value, rank, is_published=True)
        change = row.published_difference
        if change is not None:
            cells["published change"] = Cell(format_signed(change), change, is_published=True)
    if row.gap is not None:
        cells["gap"] = Cell(format_signed(row.gap), row.gap)
    cells |= _difference_cells(row.difference, summarize_controls(row))
    for name in table.columns:
        below = None if name == main else cells.get(f"published {name}")
        cells[f"measured {name}"] = _measured(row, name, main, below)
    return cells


def _measured(row: TableRow, metric: str, main: str, below: Cell | None) -> Cell:
    """Return `36.9 ± 0.2 (3)†`, of the first metric with what the row has instead: `no runs`, `2 failed`."""
    if row.group is None:
        return Cell(note=row.remark if metric == main else "", below=below)
    group = row.group
    note, folder = (group.counts(without="done"), group.configs[0]) if metric == main else ("", None)
    found, first = group.metrics.get(metric), group.metrics.get(main)
    if found is None:
        return Cell(note=note, below=below, folder=folder)
    is_same_number = metric != main and first is not None and first.n == found.n
    brief = f"{str(found).rpartition(' (')[0]}{group.marks}" if is_same_number else ""
    return Cell(f"{found}{group.marks}", found.mean, row.ranks.get(metric, 0), brief, note, below, folder)


def _difference_cells(change: Difference | None, controls: str = "") -> dict[str, Cell]:
    if change is None:
        return {}
    below = Cell(controls) if controls else None
    return {"change": Cell(str(change), change.value), "verdict": Cell(change.verdict, below=below)}


def build_controls_view(table: MeasuredTable) -> TableView | None:
    """Return the controls of all rows that have any."""
    rows = [
        {
            "label": Cell(row.full_label),
            "control": Cell(control.name),
            "value": Cell(str(control.spread), control.spread.mean)
            if control.spread
            else Cell(note=": ".join(filter(None, ("not run", control.note)))),
            **_difference_cells(control.difference),
            "missing": Cell(" ".join(map(str, control.missing))),
            "runs": Cell(runs=control.folders),
        }
        for row in table.rows
        for control in choose_controls(row)
    ]
    columns = [
        Column("label", "Row"), Column("control", "Control"), Column("value", table.columns[0], True),
        Column("change", "Row - control [95 %]", True), Column("verdict", "Verdict"),
        Column("missing", "Seeds missing"), Column("runs", "Seeds"),
    ]  # fmt: skip
    title = "Controls: the same seeds without what the rule learns"
    return TableView(title, columns, [("", rows)]) if rows else None


def build_runs_view(groups: Sequence[Group]) -> TableView:
    """Return every run behind a report: what it is, how it was run, where it is."""
    columns = [
        Column("recipe", "Recipe"), Column("config", "Config"), Column("context", "Profile, data set"),
        Column("data", "Data"), Column("runs", "Seeds"), Column("states", "States"), Column("execution", "Run as"),
        Column("iterations", "Iterations", True), Column("minutes", "Minutes a run", True), Column("commit", "Commit"),
    ]  # fmt: skip
    rows = []
    for group in groups:
        first = group.runs[0]
        seconds = compute_spread(run["seconds"] for run in group.runs)
        commits = dict.fromkeys(run["commit"][:12] for run in group.runs if run["commit"])
        rows.append(
            {
                "recipe": Cell(first["recipe"]),
                "config": Cell(first["config_hash"]),
                "context": Cell(" on ".join(filter(None, (first["profile"], first["dataset"])))),
                "data": Cell(group.fingerprint[:12]),
                "runs": Cell(runs=group.folders),
                "states": Cell(group.counts() + group.marks),
                "execution": Cell(group.execution),
                "iterations": Cell(f"{first['iterations']:,}", float(first["iterations"])),
                "minutes": Cell(f"{seconds.mean / 60:.1f}", seconds.mean) if seconds else EMPTY,
                "commit": Cell(", ".join(commits)),
            }
        )
    return TableView("Runs behind this page", columns, [("", rows)])

"""Views of a report's tables: columns and cells, decided once for all formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.reporting.collect import METRICS
from experiments.reporting.stats.statistics import Difference, Spread, signed
from experiments.reporting.tables.groups import Group, absence
from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, TableRow
from experiments.reporting.tables.row_evidence import controls_in_brief, controls_to_show
from experiments.reporting.tables.table_view import EMPTY, Cell, Column, TableView

if TYPE_CHECKING:
    from experiments.reporting.tables.run_comparison import Comparison

OTHER_TITLE = "Other runs: they fit no row of any table"


def measured_view(table: MeasuredTable, has_measured_columns: bool | None = None) -> TableView:
    """Return one of the report's tables.

    In a table with published values, the measured cells of metrics after the first have the published one below. Rows
    have cells `published <metric>` and `measured <metric>` for every metric, whatever the columns.

    Args:
        has_measured_columns: Whether a table of published values has columns for measured ones; by default, where
            something was measured.
    """
    main, *others = table.columns
    own = table.is_as_published
    columns = [
        Column("label", "Method" if own else "Row"),
        Column("context", "Backbone" if own else "Recipe"),
    ]
    if own and not (table.is_measured if has_measured_columns is None else has_measured_columns):
        columns += [Column(f"published {name}", name, True) for name in table.columns]
        columns += [Column("published change", f"Δ {main}", True), Column("remark", "")]
        return TableView(table.title, columns, _blocks(table))
    has_intervals = any(row.difference is not None and row.difference.low is not None for row in table.rows)
    interval = " [95\u00a0%]" if has_intervals else ""
    if own:
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
    columns += [Column("runs", "Seeds"), Column("number", "")]
    return TableView(table.title, columns, _blocks(table))


def _blocks(table: MeasuredTable) -> list[tuple[str, list[dict[str, Cell]]]]:
    """Return each block's rows; a row with several groups of runs has its published values once."""
    blocks, seen, number = [], set(), 0
    for title, rows in table.blocks:
        shown = []
        for row in rows:
            number += row.group is not None
            shown.append(_row(row, table, row.definition.id not in seen, f"[{number}]" if row.group else ""))
            seen.add(row.definition.id)
        blocks.append((title, shown))
    return blocks


def _row(row: TableRow, table: MeasuredTable, is_first: bool, number: str) -> dict[str, Cell]:
    own, main = table.is_as_published, table.columns[0]
    cells = {
        "label": Cell(row.label),
        "context": Cell((row.definition.backbone if own else row.definition.recipe) or ""),
        "remark": Cell(row.remark),
        "runs": Cell(runs=row.group.folders if row.group else ()),
        "number": Cell(number),
    }
    if own and row.definition.published is not None:
        for name, value in zip(table.columns, row.definition.published):
            rank = row.published_ranks.get(name, 0)
            cells[f"published {name}"] = (
                Cell(f"{value:.1f}", value, rank, is_published=True) if is_first else EMPTY
            )
        change = row.published_difference
        if change is not None and is_first:
            cells["published change"] = Cell(signed(change), change, is_published=True)
    if row.gap is not None:
        cells["gap"] = Cell(signed(row.gap), row.gap)
    if row.difference is not None:
        cells |= _difference_cells(row.difference, controls_in_brief(row))
    for name in table.columns:
        below = None if name == main else cells.get(f"published {name}")
        cells[f"measured {name}"] = _measured(row, name, main, below)
    return cells


def _measured(row: TableRow, metric: str, main: str, below: Cell | None) -> Cell:
    """Return `36.9 ± 0.2 (3)†`, of the first metric with what the row has instead: `no runs`, `2 failed`."""
    if row.group is None:
        return Cell(note=row.remark if metric == main else "", below=below)
    note = row.group.absence() if metric == main else ""
    spread, first = row.group.metrics.get(metric), row.group.metrics.get(main)
    folder = row.group.configs[0] if metric == main else None
    is_same = metric != main and first is not None and spread is not None and first.n == spread.n
    cell = spread_cell(spread, row.group.marks, note, row.ranks.get(metric, 0), is_same)
    return Cell(cell.text, cell.value, cell.rank, cell.brief, note, below, folder)


def spread_cell(
    spread: Spread | None, marks: str, note: str = "", rank: int = 0, has_brief: bool = False
) -> Cell:
    """Return a metric over seeds, with its marks."""
    if spread is None:
        return Cell(note=note)
    text = f"{spread}{marks}"
    brief = f"{str(spread).rpartition(' (')[0]}{marks}" if has_brief else text
    return Cell(text, spread.mean, rank, brief, note)


def _difference_cells(change: Difference | None, controls: str = "") -> dict[str, Cell]:
    if change is None:
        return {}
    below = Cell(controls) if controls else None
    return {"change": Cell(str(change), change.value), "verdict": Cell(change.verdict, below=below)}


def controls_view(table: MeasuredTable) -> TableView | None:
    """Return the controls of all rows that have any."""
    rows = [
        {
            "label": Cell(row.label),
            "control": Cell(control.name),
            "value": spread_cell(
                control.spread,
                "",
                "" if control.spread else ": ".join(filter(None, ("not run", control.note))),
            ),
            **_difference_cells(control.difference),
            "missing": Cell(" ".join(map(str, control.missing))),
            "runs": Cell(runs=control.folders),
        }
        for row in table.rows
        for control in controls_to_show(row)
    ]
    columns = [
        Column("label", "Row"), Column("control", "Control"), Column("value", table.columns[0], True),
        Column("change", "Row - control [95 %]", True), Column("verdict", "Verdict"),
        Column("missing", "Seeds missing"), Column("runs", "Seeds"),
    ]  # fmt: skip
    title = "Controls: the same seeds without what the rule learns"
    return TableView(title, columns, [("", rows)]) if rows else None


def other_view(other: Sequence[OtherRuns]) -> TableView:
    """Return the runs that fit no row; `result` has the first metric of each, or why there is none."""
    metrics = metrics_of(runs.group for runs in other)
    names = {"recipe": "Recipe", "profile": "Profile", "dataset": "Data set", "config_hash": "Config"}
    columns = [Column(key, title) for key, title in names.items()]
    columns += [Column("result", "Result", True), *[Column(name, name, True) for name in metrics]]
    columns += [
        Column("differs", "Differs from the recipe"),
        Column("runs", "Seeds"),
        Column("remark", "Remarks"),
    ]
    rows = []
    for runs in other:
        group = runs.group
        cells = {key: Cell(runs.of(key)) for key in names}
        cells |= {name: spread_cell(spread, group.marks) for name, spread in group.metrics.items()}
        first = next((f"{name} {spread}{group.marks}" for name, spread in group.metrics.items()), "")
        cells |= {"result": Cell(first, note=group.absence()), "differs": Cell(runs.differs)}
        rows.append(cells | {"runs": Cell(runs=group.folders), "remark": Cell(group.remark())})
    return TableView(OTHER_TITLE, columns, [("", rows)])


def runs_view(groups: Sequence[Group]) -> TableView:
    """Return every run behind a report: what it is, how it was run, where it is."""
    columns = [
        Column("recipe", "Recipe"), Column("config", "Config"), Column("context", "Profile, data set"),
        Column("data", "Data"), Column("runs", "Seeds"), Column("states", "States"), Column("execution", "Run as"),
        Column("iterations", "Iterations", True), Column("minutes", "Minutes a run", True), Column("commit", "Commit"),
    ]  # fmt: skip
    rows = []
    for group in groups:
        first, seconds = group.runs.iloc[0], group.runs["seconds"].dropna()
        commits = dict.fromkeys(commit[:12] for commit in group.runs["commit"] if commit)
        rows.append(
            {
                "recipe": Cell(str(first["recipe"])),
                "config": Cell(str(first["config_hash"])),
                "context": Cell(" on ".join(text for text in (first["profile"], first["dataset"]) if text)),
                "data": Cell(str(first["fingerprint"])[:12]),
                "runs": Cell(runs=group.folders),
                "states": Cell(group.counts() + group.marks),
                "execution": Cell(group.execution),
                "iterations": Cell(f"{first['iterations']:,}", float(first["iterations"])),
                "minutes": Cell(f"{seconds.mean() / 60:.1f}", float(seconds.mean()))
                if len(seconds)
                else EMPTY,
                "commit": Cell(", ".join(commits)),
            }
        )
    return TableView("Runs behind this page", columns, [("", rows)])


def comparison_view(compared: Comparison) -> TableView:
    """Return a row for each label, with its difference to the first row."""
    main = compared.metrics[0] if compared.metrics else ""
    columns = [Column("label", ""), Column(f"measured {main}", main or "runs", True)]
    columns += [Column("change", f"Δ {main}", True)] if any(row.difference for row in compared.rows) else []
    columns += [Column(f"measured {name}", name, True) for name in compared.metrics[1:]]
    rows: list[Mapping[str, Cell]] = []
    for row in compared.rows:
        note = absence(row.states)
        cells = {
            "label": Cell(row.label),
            f"measured {main}": Cell(note=note),
            **_difference_cells(row.difference),
        }
        for name, spread in row.metrics.items():
            cells[f"measured {name}"] = spread_cell(spread, row.marks, note if name == main else "")
        rows.append(cells)
    return TableView("", columns, [("", rows)])


def metrics_of(groups: Iterable[Group]) -> list[str]:
    """Return all metrics that some group has, in the order in which tables show them."""
    names = dict.fromkeys(name for group in groups for name in group.metrics)
    return sorted(names, key=lambda n: METRICS.index(n) if n in METRICS else len(METRICS))

"""Tables of results on the console. What they show is decided in `experiments.reporting`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.runs.run_flags import explain_marks

if TYPE_CHECKING:  # these import pandas
    from experiments.reporting.tables.groups import Group
    from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, TableRow
    from experiments.reporting.tables.run_comparison import Comparison
    from experiments.reporting.tables.table_view import TableView

MAX_ROWS = 60  # of a table; longer ones are for a file
STYLES = {1: "bold", 2: "underline"}  # best and second of a block
COLOURS = {"done": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}


def make_console() -> Console:
    """Return standard output's console, 120 characters wide where the width is unknown."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def coloured(state: str) -> Text:
    """Return a run's state in its colour."""
    return Text(state, COLOURS.get(state, ""))


def print_comparison(console: Console, compared: Comparison) -> None:
    """Print a row for each label, with the difference to the first row."""
    from experiments.reporting.tables.report_views import comparison_view

    view = comparison_view(compared)
    console.print(_fitting(console, view, [f"measured {name}" for name in compared.metrics[1:]]))
    for row in compared.rows:
        if row.remark:
            _line(console, f"{row.label}: {row.remark}")
    if compared.metrics:
        both = "mean ± standard deviation (seeds)"
        has_change = any(column.key == "change" for column in view.columns)
        _line(console, f"{both}; Δ: to the first row [its 95 % interval]" if has_change else both)
    print_marks(console, [row.marks for row in compared.rows])
    print_problems(console, compared.problems)


def print_table(console: Console, table: MeasuredTable) -> None:
    """Print one of the report's tables, what must be said of it, and where its runs are."""
    from experiments.reporting.tables.report_views import measured_view

    console.print(Text(table.title, "bold"))
    left_out = len(table.rows) - MAX_ROWS
    table = _shortened(table)
    view = measured_view(table, has_measured_columns=True)
    main, *others = table.columns
    if table.is_as_published:
        shown = ["label", "context", f"published {main}", "published change", f"measured {main}"]
        console.print(_grid(view.select(*shown, *(("change", "number") if table.is_measured else ()))))
    else:
        means = [f"measured {name}" for name in others]
        console.print(_fitting(console, view.without("verdict", "runs"), means, "context"))
    for note in table.notes:
        console.print(Text(note, "dim"))
    if left_out > 0:
        console.print(Text(f"{left_out} more rows: msdet report --format csv", "dim"))
    if len(table.columns) > 1:
        console.print(Text(f"All of {', '.join(table.columns)}: --format md, csv or html.", "dim"))
    for number, row in enumerate((row for row in table.rows if row.group), start=1):
        _print_evidence(console, f"[{number}]", row)
    console.print()


def _shortened(table: MeasuredTable) -> MeasuredTable:
    """Return the table with no more rows than a person scrolls through."""
    blocks, room = [], MAX_ROWS
    for title, rows in table.blocks:
        if room > 0:
            blocks.append((title, rows[:room]))
        room -= len(rows)
    return replace(table, blocks=blocks)


def _print_evidence(console: Console, number: str, row: TableRow) -> None:
    """Print what a row's number rests on: verdict, comparison, controls, runs."""
    from experiments.reporting.tables import row_evidence

    group = row.group
    if group is None:
        return
    verdict = [row.difference.verdict] if row.difference else []
    told = "; ".join([*verdict, *row_evidence.evidence(row, resampling=False)])
    _line(console, f"{number} {row.label}: {told + ': ' if told else ''}{_where(group)}")
    controls = row_evidence.controls_to_show(row)
    if controls:
        _line(console, f"    {row_evidence.controls_in_words(controls)}")
    for command in dict.fromkeys(command for control in controls for command in control.commands):
        _line(console, f"    {command}")


def print_legend(console: Console) -> None:
    """Print, once for all tables, how measured numbers read."""
    from experiments.reporting.tables.report_model import LEGEND

    console.print(Text(LEGEND, "dim"))
    console.print()


def print_marks(console: Console, marks: Sequence[str]) -> None:
    """Print what the marks mean that were shown."""
    for line in explain_marks(marks):
        console.print(Text(line, "dim"), soft_wrap=True)


def print_other(console: Console, other: Sequence[OtherRuns]) -> None:
    """Print the closing section, for runs that no table has."""
    from experiments.reporting.tables.report_views import other_view

    view = other_view(other[:MAX_ROWS]).select("recipe", "profile", "dataset", "config_hash", "result")
    console.print(Text(view.title, "bold"))
    console.print(_grid(view))
    if len(other) > MAX_ROWS:
        console.print(Text(f"{len(other) - MAX_ROWS} more: msdet report --format csv", "dim"))
    for runs in other[:MAX_ROWS]:
        differs = f"; differs from the recipe: {runs.differs}" if runs.differs else ""
        _line(console, f"{runs.of('config_hash')}: {runs.group.remark()}{differs}: {_where(runs.group)}")
    console.print()


def print_problems(console: Console, problems: Sequence[str]) -> None:
    """Print a line for each run or table that was left out."""
    for problem in problems:
        console.print(Text(f"Left out: {problem}", "yellow"), soft_wrap=True)


def _fitting(console: Console, view: TableView, others: Sequence[str], *more: str) -> Table:
    """Return the table with means of more metrics than the first, if the console is wide enough for them."""
    whole = _grid(view, others)
    needed = Measurement.get(console, console.options.update(width=10_000), whole).maximum
    return whole if needed <= console.width else _grid(view.without(*others, *more))


def _grid(view: TableView, means: Sequence[str] = ()) -> Table:
    """Return a table for the console.

    Args:
        means: Keys of columns that show means alone.
    """
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in view.columns:
        title = "\n".join(text for text in (column.group, column.title) if text)
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        grid.add_column(Text(title), justify=justify, no_wrap=column.is_number)
    for title, rows in view.blocks:
        if title:
            grid.add_section()
            grid.add_row(Text(title, "italic"))
        for row in rows:
            texts = []
            for column, cell in zip(view.columns, view.cells(row)):
                is_mean = column.key in means and cell.value is not None
                texts.append(Text(f"{cell.value:.1f}" if is_mean else str(cell), STYLES.get(cell.rank, "")))
            grid.add_row(*texts)
    return grid


def _where(group: Group) -> str:
    from experiments.reporting.tables.report_model import patterns

    return ", ".join(patterns([group]))


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)

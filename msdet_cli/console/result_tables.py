"""Tables of results on the console. What they show is decided in `experiments.reporting`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.runs.run_flags import explain_marks
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.output import print_line

if TYPE_CHECKING:
    from experiments.reporting import MeasuredTable
    from experiments.reporting.render.claims import Claim
    from experiments.reporting.tables.sections import TableView

MAX_ROWS = 60  # of a table; longer ones are for a file
MAX_NOTES = 12  # on the rows of a table
MAX_CLAIMS = 8  # the answer is no longer than a screen
FEW_CLAIMS = 2  # so many are told in full, even with too few seeds
MAX_FOLDERS = 6
ALL_CLAIMS = "msdet report --format html --out report/"
STYLES = {1: "bold", 2: "underline"}  # best and second of a block
COLOURS = {"done": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}
VERDICT_COLOURS = {"gain": "green", "loss": "red"}


def print_results(console: Console, results: Path, names: Sequence[str], runs: Sequence[RunFolder]) -> None:
    """Print what tables of these names, or paths, show of some runs; without names, a table of the runs alone.

    The runs need not have been started.
    """
    from experiments.reporting import build_report, build_run_tables, collect, collect_folders

    if names:
        report = build_report(collect(results), names)
        tables, problems = report.tables, report.problems
        paths = {str(run.path) for run in runs}
        theirs = [t for t in tables if any(run["path"] in paths for group in t.groups for run in group.runs)]
        tables = theirs or tables
    else:
        collected = collect_folders(run for run in runs if run.record_file.exists())
        tables, problems = build_run_tables(collected), collected.problems
    console.print()
    if any(group.metrics for table in tables for group in table.groups):
        print_claims(console, tables)
    print_tables(console, tables, problems)


def print_claims(console: Console, tables: Sequence[MeasuredTable]) -> None:
    """Print what can be said of the measured rows: the most certain first, and no more than a screen shows."""
    from experiments.reporting.render.claims import count_verdicts, find_claims

    claims = find_claims(tables)
    console.print(Text("What can be said", "bold"))
    console.print(Text(count_verdicts(claims)))
    judged = [claim for claim in claims if claim.verdict != "too few seeds"]
    waiting = [claim for claim in claims if claim.verdict == "too few seeds"][:MAX_CLAIMS]
    chosen = sorted(range(len(judged)), key=lambda i: judged[i].verdict not in VERDICT_COLOURS)[:MAX_CLAIMS]
    shown = [judged[i] for i in sorted(chosen)]
    if len(claims) <= FEW_CLAIMS:
        shown, waiting = claims, []
    for context, members in groupby(shown, key=lambda claim: claim.context):
        console.print(Text(f"{context}:", "italic"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for claim in members:
            verdict = Text(f"  {claim.verdict}", VERDICT_COLOURS.get(claim.verdict, "dim"))
            grid.add_row(verdict, _claim_text(claim, with_table=len(tables) > 1))
        console.print(grid)
    if waiting:
        brief = "; ".join(f"{claim.row.name}: {claim.metric} {claim.difference}" for claim in waiting)
        console.print(Text(f"too few seeds: {brief}", "dim"))
    if left_out := len(claims) - len(shown) - len(waiting):
        print_line(console, f"{left_out} more: {ALL_CLAIMS}")
    console.print()


def _claim_text(claim: Claim, with_table: bool) -> Text:
    from experiments.reporting.tables.row_evidence import summarize_controls

    text = Text(claim.text)
    controls = summarize_controls(claim.row)
    text.append(f"; {controls}" if controls else "")
    if with_table:
        text.append(f" ({', '.join(table.short_title for table in claim.tables)})", "dim")
    return text


def print_tables(console: Console, tables: Sequence[MeasuredTable], problems: Sequence[str] = ()) -> None:
    """Print tables, how their numbers are to be read, and what was left out."""
    from experiments.reporting.tables.report_model import LEGEND

    for table in tables:
        _print_table(console, table)
    if any(table.is_measured for table in tables):
        console.print(Text(LEGEND, "dim"))
        print_marks(console, [group.marks for table in tables for group in table.groups])
        console.print()
    print_problems(console, problems)


def print_empty(console: Console, names: Sequence[str]) -> None:
    """Print one line on the tables that have no runs of their own, and the command that would fill one."""
    if names:
        listed = f"{', '.join(names)} have" if len(names) > 1 else f"{names[0]} has"
        hint = f"To fill one: msdet reproduce {names[0]} -p tiny"
        print_line(console, f"{listed} no runs of their own yet. {hint}")


def _print_table(console: Console, table: MeasuredTable) -> None:
    """Print a table, what must be said of it, the evidence for its rows, and where its runs are."""
    from experiments.reporting.tables import report_views, row_evidence

    console.print(Text(table.title, "bold"))
    left_out, table = len(table.rows) - MAX_ROWS, table.shorten(MAX_ROWS)
    optional = [f"{kind} {name}" for name in table.columns[:0:-1] for kind in ("measured", "published")]
    optional += ["gap", *([] if table.has_differs else ["context"]), "published change"]
    console.print(fit_view(console, report_views.build_measured_view(table).without("runs"), optional))
    for note in table.notes:
        console.print(Text(note, "dim"))
    if left_out > 0:
        print_line(console, f"{left_out} more rows: msdet report --format csv")
    notes = row_evidence.list_row_notes(table, has_resampling=False)
    for label, text in notes[:MAX_NOTES]:
        print_line(console, f"{label}: {text}")
    if len(notes) > MAX_NOTES:
        print_line(console, f"notes on {len(notes) - MAX_NOTES} more rows: --format md, html or csv")
    for row in table.rows:
        if controls := row_evidence.choose_controls(row):
            print_line(console, f"{row.full_label}: {row_evidence.describe_controls(controls)}")
    for command in row_evidence.list_control_commands(table):
        print_line(console, f"  {command}")
    if folders := table.folders:
        more = f", and {len(folders) - MAX_FOLDERS} more" if len(folders) > MAX_FOLDERS else ""
        print_line(console, f"Runs: {', '.join(folders[:MAX_FOLDERS])}{more}")
    console.print()


def print_marks(console: Console, marks: Sequence[str]) -> None:
    """Print what the marks mean that were shown."""
    for line in explain_marks(marks):
        print_line(console, line, "dim")


def print_problems(console: Console, problems: Sequence[str]) -> None:
    """Print a line for each run or table that was left out."""
    for problem in problems:
        print_line(console, f"Left out: {problem}", "yellow")


def fit_view(console: Console, view: TableView, optional: Sequence[str] = ()) -> Table:
    """Return the table without as many of its optional columns, in their order, as the console has no room for.

    Where that is not enough numbers wrap, too: else labels alone would give way, down to a letter a line.
    """
    means = [key for key in optional if key.startswith("measured ")]
    for key in (*optional, None):
        grid = draw_view(view, means)
        if Measurement.get(console, console.options.update(width=10_000), grid).maximum <= console.width:
            return grid
        view = view if key is None else view.without(key)
    for column in grid.columns:
        column.no_wrap = False
    return grid


def draw_view(view: TableView, means: Sequence[str] = ()) -> Table:
    """Return a table for the console.

    Args:
        means: Keys of columns that show means alone.
    """
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in view.columns:
        title = "\n".join(filter(None, (column.group, column.title.replace(" − ", "\n− "))))
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        grid.add_column(Text(title), justify=justify, no_wrap=column.is_number, overflow="fold")
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

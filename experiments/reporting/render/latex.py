"""A report as LaTeX: a file per table, to be \\input into a paper, and one document of them all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from experiments.reporting.render import text as report_text
from experiments.reporting.render.latex_text import escape_tex, make_comment
from experiments.reporting.tables import row_evidence
from experiments.reporting.tables.report_model import MeasuredTable
from experiments.reporting.tables.report_views import build_controls_view, build_measured_view
from experiments.reporting.tables.sections import EMPTY, Cell, Column, TableView

PACKAGES = "booktabs and graphicx"
MAX_ROWS = 60  # of a table; more cannot be read on a page
MAX_NOTES_BELOW = 8  # notes on rows that stand right below a table


def render_latex_table(table: MeasuredTable) -> str:
    """Return floats: published beside measured beside their differences, with run folders as comments.

    As in the paper where nothing was measured. With runs the first metric comes first; many notes on the rows (seeds,
    power) and their controls have a float of their own. What is wider than the line, shrinks.
    """
    left_out, table = len(table.rows) - MAX_ROWS, table.shorten(MAX_ROWS)
    notes = [f"{left_out} more rows: msdet report --format csv"] if left_out > 0 else []
    notes += [*table.notes, *(report_text.list_reading_notes(table.groups) if table.is_measured else [])]
    view, controls = build_measured_view(table).without("runs"), build_controls_view(table)
    below = [f"{name}: {text}." for name, text in row_evidence.list_row_notes(table)]
    further = [_small(below)] if below else []
    if controls is not None:
        further.append(fit_to_page(view_tabular(controls.without("runs"), with_sources=False)))
    elif len(below) <= MAX_NOTES_BELOW:
        notes, further = [*below, *notes], []
    caption, name = _caption(table), report_text.make_file_name(table.long_name)
    floats = [_float(caption, name, [fit_to_page(view_tabular(view, with_title=False)), _small(notes)])]
    floats += [_float(f"{caption}: behind the rows", f"{name}-rows", further)] if further else []
    commands = row_evidence.list_control_commands(table)
    if commands:
        floats += [
            make_comment(text)
            for text in ("For the controls that are missing:", *(f"  {c}" for c in commands))
        ]
    return "\n".join([make_comment(f"Needs the packages {PACKAGES}."), *floats]) + "\n"


def _cell(cell: Cell, column: Column) -> str:
    text = cell.brief or cell.text
    text = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(cell.rank, "%s") % escape_tex(text) if text else ""
    text = ", ".join(part for part in (text, escape_tex(cell.note)) if part)
    if cell.below is None or not cell.below.text:
        return text
    below = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(cell.below.rank, "%s") % escape_tex(cell.below.text)
    return rf"\shortstack[{'r' if column.is_number else 'l'}]{{{text}\\\scriptsize {below}}}"


def _caption(table: MeasuredTable) -> str:
    """Return the title reworded to stand without a number, because LaTeX numbers tables itself."""
    name, _, rest = table.title.partition(": ")
    if rest:
        return f"{rest} ({name} of the paper)" if table.has_published else f"{rest} ({name})"
    return f"Rows of the paper's {table.title}" if table.has_published else table.title


def _float(caption: str, label: str, parts: Sequence[str]) -> str:
    head = [
        r"\begin{table*}[htbp]",
        r"\centering\small\renewcommand{\arraystretch}{1.15}",
        rf"\caption{{{escape_tex(caption)}.}}",
        rf"\label{{tab:{label}}}",
    ]
    return "\n".join([*head, "\n\\par\\smallskip\n".join(part for part in parts if part), r"\end{table*}"])


def _small(notes: Sequence[str]) -> str:
    text = "\\par\n".join(escape_tex(note) for note in notes)
    return rf"\parbox{{\linewidth}}{{\scriptsize\raggedright {text}}}" if text else ""


def view_tabular(view: TableView, with_title: bool = True, with_sources: bool = True) -> str:
    """Return a table as `tabular`."""
    lines = [
        rf"\begin{{tabular}}{{@{{}}{align_columns(view)}@{{}}}}",
        r"\toprule",
        *([rf"{_spanning(view, view.title)} \\"] if with_title and view.title else []),
        *_groups(view.columns),
        render_head(view),
        r"\midrule",
        *render_body(view, with_sources),
        r"\bottomrule",
    ]
    return "\n".join([*lines, r"\end{tabular}"])


def align_columns(view: TableView) -> str:
    """Return `llrr`, a letter for each column."""
    return "".join("r" if column.is_number else "l" for column in view.columns)


def render_head(view: TableView) -> str:
    """Return the line of the columns' titles."""
    return render_row([escape_tex(column.title) for column in view.columns])


def render_body(view: TableView, with_sources: bool = True) -> list[str]:
    """Return a line for each title of a block and each row, before each row its run folders as comments."""
    lines = []
    for title, rows in view.blocks:
        lines += [rf"\addlinespace{_spanning(view, title)} \\"] if title else []
        for row in rows:
            lines += (
                [make_comment(str(folder)) for folder in row.get("runs", EMPTY).runs] if with_sources else []
            )
            lines.append(
                render_row([_cell(cell, column) for cell, column in zip(view.cells(row), view.columns)])
            )
    return lines


def _spanning(view: TableView, title: str) -> str:
    return rf"\multicolumn{{{len(view.columns)}}}{{@{{}}l}}{{\emph{{{escape_tex(title)}}}}}"


def _groups(columns: Sequence[Column]) -> list[str]:
    """Return the line of headings above several columns, and the rules below them."""
    spans: list[str] = []
    rules, place = "", 1
    for group, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        spans += [rf"\multicolumn{{{width}}}{{c}}{{{escape_tex(group)}}}"] if group else [""] * width
        rules += rf"\cmidrule(lr){{{place}-{place + width - 1}}}" if group else ""
        place += width
    return [render_row(spans), rules] if rules else []


def render_row(cells: Sequence[str]) -> str:
    """Return the cells as a row of a LaTeX table."""
    return " & ".join(cells) + r" \\"


def fit_to_page(tabular: str) -> str:
    """Return it as large as it is, or shrunk to the width of the line and to a page's height."""
    return "\n".join(
        [
            f"\\sbox0{{%\n{tabular}}}%",
            r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
            r"\ifdim\dimexpr\ht0+\dp0\relax>.8\textheight\sbox0{\resizebox*{!}{.8\textheight}{\usebox0}}\fi",
            r"\usebox0",
        ]
    )

"""A report as Markdown, the way GitHub shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.reporting.render import claims
from experiments.reporting.render import text as report_text
from experiments.reporting.tables import row_evidence
from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, Report
from experiments.reporting.tables.report_views import controls_view, measured_view, other_view
from experiments.reporting.tables.sections import Section
from experiments.reporting.tables.table_view import EMPTY, Column, TableView, ViewRow, grid_view


def markdown(table: MeasuredTable, base: Path) -> str:
    """Return a table: each row as published, below it as measured; then what stands behind the rows.

    Args:
        base: The folder that links are relative to.
    """
    view, draw = measured_view(table), _Rows(table, base)
    parts = [f"## {escaped(table.title)}"]
    for title, rows in view.blocks:
        parts += [f"### {escaped(title)}"] if title else []
        parts.append(_grid(draw.columns, [cells for row in rows for cells in draw.cells(row)]))
    parts += [escaped(note) for note in table.notes]
    parts += _behind(table)
    if table.folders:
        parts += map(escaped, report_text.reading_notes(table.groups))
        parts.append("Runs: " + ", ".join(f"`{pattern.replace('`', '')}`" for pattern in table.folders))
    return "\n\n".join(parts) + "\n"


def markdown_other(other: Sequence[OtherRuns], base: Path) -> str:
    """Return the closing section, for runs that no table has."""
    view = other_view(other)
    columns = [column for column in view.columns if column.key not in ("result", "remark")]
    rows = [
        [_runs(row, base) if column.key == "runs" else _cell(row, column.key) for column in columns]
        for row in view.rows
    ]
    notes = report_text.reading_notes((runs.group for runs in other), has_ranks=False)
    return "\n\n".join([f"## {view.title}", _grid(columns, rows), *map(escaped, notes)]) + "\n"


def markdown_index(
    report: Report, made: report_text.ReportMetadata, files: Mapping[str, str], sections: Sequence[Section]
) -> str:
    """Return the page that leads to the tables: claims, and everything that is no table.

    Args:
        files: File name of each page to its title.
    """
    parts = ["# Published beside measured", escaped(report_text.made_line(report, made))]
    standing = report_text.no_results_message(report, made.folders)
    parts += [escaped(standing)] if standing else markdown_claims(report)
    parts.append("## Tables")
    parts.append("\n".join(f"- [{escaped(title)}](<{name}>)" for name, title in files.items()))
    parts += [markdown_sections(sections).rstrip()] if sections else []
    return "\n\n".join([*parts, *markdown_problems(report)]) + "\n"


def markdown_claims(report: Report) -> list[str]:
    """Return what can be claimed: a heading, the balance, and a list of the differences."""
    found = claims.claims(report.tables)
    lines = [f"- **{claim.difference.verdict}**: {escaped(str(claim))}" for claim in found]
    return ["## What can be claimed", escaped(claims.balance(found)), *(["\n".join(lines)] if lines else [])]


def markdown_problems(report: Report) -> list[str]:
    """Return what was left out, as one list; empty where nothing was."""
    lines = [f"- {escaped(f'Left out: {text}')}" for text in report.problems]
    return ["\n".join(lines)] if lines else []


def markdown_sections(sections: Sequence[Section]) -> str:
    """Return figures, error analysis and bench; pictures lie beside the page, in `figures/`."""
    parts = []
    for section in sections:
        parts += [f"## {escaped(section.title)}", *[escaped(text) for text in section.texts]]
        for grid in section.grids:
            parts += [f"### {escaped(grid.title)}"] if grid.title else []
            parts.append(_plain(grid_view(grid)))
        for picture in section.pictures:
            parts.append(f"![{escaped(picture.alt)}](<figures/{report_text.file_name(picture.name)}.png>)")
            parts.append(escaped(picture.caption))
    return "\n\n".join(parts) + "\n"


def _behind(table: MeasuredTable) -> list[str]:
    """Return each row's differences and power, then the controls, and what to type for missing ones."""
    rows = [
        f"- {escaped(row.label)}: {escaped('; '.join(texts))}."
        for row in table.rows
        if row.group and (texts := row_evidence.differences_in_words(row))
    ]
    parts = ["\n".join(rows)] if rows else []
    controls = controls_view(table)
    if controls is not None:
        parts += [f"### {escaped(controls.title)}", _plain(controls.without("runs"))]
    commands = row_evidence.control_commands(table)
    if commands:
        fence = "\n".join(" ".join(command.split()).replace("`", "'") for command in commands)
        parts += ["For the controls that are missing:", f"```sh\n{fence}\n```"]
    return parts


class _Rows:
    """The rows of a table: where there are published values, one for them and one for the measured ones."""

    def __init__(self, table: MeasuredTable, base: Path) -> None:
        self.table, self.base = table, base
        own, measured = table.is_as_published, table.is_measured
        self.columns = [Column("label", "Row"), Column("context", "Backbone" if own else "Recipe")]
        self.columns += [Column("source", "")] if own else []
        self.columns += [Column(name, name, True) for name in table.columns]
        change = Column("change", f"Δ {table.columns[0]}" + (" [95 %]" if measured else ""), True)
        self.columns += [change, *([Column("verdict", "Verdict")] if measured else [])]
        self.columns += [Column("gap", "Measured - published", True)] if own and measured else []
        self.columns.append(Column("remark", "Runs"))

    def cells(self, row: ViewRow) -> list[list[str]]:
        names, published = self.table.columns, f"published {self.table.columns[0]}"
        shown = {"label": _cell(row, "label"), "context": _cell(row, "context")}
        made = []
        if published in row and row[published].text:
            values = {name: _cell(row, f"published {name}") for name in names}
            told = "" if row["runs"].runs else escaped(row["remark"].text)
            change = _cell(row, "published change")
            made.append({**shown, "source": "published", **values, "change": change, "remark": told})
        if published not in row or row["runs"].runs:
            values = {name: _cell(row, f"measured {name}") for name in names}
            values |= {key: _cell(row, key) for key in ("change", "verdict", "gap")}
            head = {} if published in row else shown
            made.append({**head, "source": "measured", **values, "remark": _runs(row, self.base)})
        return [[cells.get(column.key, "") for column in self.columns] for cells in made]


def _cell(row: ViewRow, key: str) -> str:
    cell = row.get(key, EMPTY)
    text = (
        escaped(cell.text) if cell.value is None else cell.text
    )  # brackets of an interval stand as they are
    text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    return f"{text}; {escaped(cell.below.text)}" if key == "verdict" and cell.below else text


def _runs(row: ViewRow, base: Path) -> str:
    """Return the remark, and a link to each run folder."""
    links = [f"[{escaped(folder.name)}]({report_text.link(folder, base)})" for folder in row["runs"].runs]
    return "; ".join(text for text in (escaped(row["remark"].text), " ".join(links)) if text)


def _plain(view: TableView) -> str:
    return _grid(view.columns, [[escaped(str(cell)) for cell in view.cells(row)] for row in view.rows])


def _grid(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    header = [escaped(column.title) for column in columns]
    rules = ["--:" if column.is_number else "---" for column in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in a table's cell too."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)

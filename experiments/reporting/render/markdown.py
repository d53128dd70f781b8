"""A report as Markdown, the way GitHub shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.report_views import controls_view, measured_view
from experiments.reporting.tables.row_evidence import control_commands, row_notes
from experiments.reporting.tables.sections import Section
from experiments.reporting.tables.table_view import EMPTY, Column, TableView, ViewRow, grid_view


def markdown(table: MeasuredTable, base: Path) -> str:
    """Return a table, then the evidence for its rows.

    Args:
        base: The folder that links are relative to.
    """
    view = measured_view(table)
    parts = [f"## {escaped(table.title)}"]
    for title, rows in view.blocks:
        parts += [f"### {escaped(title)}"] if title else []
        parts.append(_grid(view.columns, [[_cell(row, c, base) for c in view.columns] for row in rows]))
    if table.is_stacked:
        parts.append("Below a measured value stands the published one.")
    parts += [escaped(note) for note in table.notes]
    parts += _evidence(table)
    if table.is_measured:
        parts += map(escaped, report_text.reading_notes(table.groups))
        parts.append("Runs: " + ", ".join(f"`{pattern.replace('`', '')}`" for pattern in table.folders))
    return "\n\n".join(parts) + "\n"


def markdown_index(
    report: Report, made: report_text.ReportMetadata, files: Mapping[str, str], sections: Sequence[Section]
) -> str:
    """Return the page that leads to the tables: claims, and everything that is no table.

    Args:
        files: File name of each page to its title.
    """
    parts = ["# Published beside measured", escaped(report_text.made_line(report, made))]
    parts += markdown_claims(report, made)
    parts.append("## Tables")
    parts.append("\n".join(f"- [{escaped(title)}](<{name}>)" for name, title in files.items()))
    parts += [markdown_sections(sections).rstrip()] if sections else []
    return "\n\n".join(parts) + "\n"


def markdown_claims(report: Report, made: report_text.ReportMetadata) -> list[str]:
    """Return what can be claimed, or why nothing can; then what was left out."""
    standing = report_text.no_results_message(report, made.folders)
    claims = find_claims(report.tables)
    parts = [escaped(standing)] if standing else ["## What can be claimed"]
    parts += [] if standing else [escaped(count_verdicts(claims))]
    lines = [f"- **{claim.verdict}**: {escaped(str(claim))}" for claim in claims]
    left_out = [
        escaped(text) for text in (*report.missing, *(f"Left out: {text}" for text in report.problems))
    ]
    return [*parts, *("\n".join(each) for each in (lines, [f"- {text}" for text in left_out]) if each)]


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


def _evidence(table: MeasuredTable) -> list[str]:
    """Return what each row's number rests on, then the controls, and what to type for missing ones."""
    notes = [f"- {escaped(label)}: {escaped(text)}." for label, text in row_notes(table)]
    parts = ["\n".join(notes)] if notes else []
    controls = controls_view(table)
    if controls is not None:
        parts += [f"### {escaped(controls.title)}", _plain(controls.without("runs"))]
    commands = control_commands(table)
    if commands:
        fence = "\n".join(" ".join(command.split()).replace("`", "'") for command in commands)
        parts += ["For the controls that are missing:", f"```sh\n{fence}\n```"]
    return parts


def _cell(row: ViewRow, column: Column, base: Path) -> str:
    cell = row.get(column.key, EMPTY)
    if cell.runs:
        return " ".join(f"[{escaped(run.name)}]({report_text.link(run, base)})" for run in cell.runs)
    # brackets of an interval stand as they are
    text = cell.brief or cell.text
    text = _ranked(text if cell.value is not None else escaped(text), cell.rank)
    text = ", ".join(part for part in (text, escaped(cell.note)) if part)
    below = _ranked(escaped(cell.below.text), cell.below.rank) if cell.below else ""
    return f"{text}<br>{below}" if below else text


def _ranked(text: str, rank: int) -> str:
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)


def _plain(view: TableView) -> str:
    return _grid(view.columns, [[escaped(str(cell)) for cell in view.cells(row)] for row in view.rows])


def _grid(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    header = [escaped(" ".join(filter(None, (column.group, column.title)))) for column in columns]
    rules = ["--:" if column.is_number else "---" for column in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in a table's cell too."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)

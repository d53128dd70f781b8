"""A report as Markdown, the way GitHub shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.report_views import build_controls_view, build_measured_view
from experiments.reporting.tables.row_evidence import list_control_commands, list_row_notes
from experiments.reporting.tables.sections import Cell, Column, Section, TableView


def render_markdown(table: MeasuredTable, base: Path) -> str:
    """Return a table, then the evidence for its rows.

    Args:
        base: The folder that links are relative to.
    """
    view = build_measured_view(table)
    parts = [f"## {escape_markdown(table.title)}"]
    for title, rows in view.blocks:
        parts += [f"### {escape_markdown(title)}"] if title else []
        parts.append(_grid(view.columns, [[_cell(cell, base) for cell in view.cells(row)] for row in rows]))
    if table.is_stacked:
        parts.append("Below a measured value stands the published one.")
    parts += [escape_markdown(note) for note in table.notes]
    parts += _evidence(table)
    if table.is_measured:
        parts += map(escape_markdown, report_text.list_reading_notes(table.groups))
        parts.append("Runs: " + ", ".join(f"`{pattern.replace('`', '')}`" for pattern in table.folders))
    return "\n\n".join(parts) + "\n"


def render_markdown_index(
    report: Report, made: report_text.ReportMetadata, files: Mapping[str, str], sections: Sequence[Section]
) -> str:
    """Return the page that leads to the tables: claims, and everything that is no table.

    Args:
        files: File name of each page to its title.
    """
    parts = ["# Published beside measured", escape_markdown(report_text.describe_origin(report, made))]
    parts += render_markdown_claims(report, made)
    parts.append("## Tables")
    parts.append("\n".join(f"- [{escape_markdown(title)}](<{name}>)" for name, title in files.items()))
    for section in sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def render_markdown_claims(report: Report, made: report_text.ReportMetadata) -> list[str]:
    """Return what can be claimed, or why nothing can; then what was left out."""
    standing, claims = report_text.explain_no_results(report, made.folders), find_claims(report.tables)
    parts = [] if standing else ["## What can be claimed"]
    parts.append(escape_markdown(standing or count_verdicts(claims)))
    lines = [f"- **{claim.verdict}**: {escape_markdown(str(claim))}" for claim in claims]
    left_out = [*report.missing, *(f"Left out: {text}" for text in report.problems)]
    lists = (lines, [f"- {escape_markdown(text)}" for text in left_out])
    return [*parts, *("\n".join(each) for each in lists if each)]


def _section(section: Section) -> list[str]:
    """Return a section's paragraphs; its pictures lie beside the page, in `figures/`."""
    parts = [f"## {escape_markdown(section.title)}", *map(escape_markdown, section.texts)]
    for grid in section.grids:
        parts += [f"### {escape_markdown(grid.title)}"] if grid.title else []
        parts.append(_plain(grid.view))
    for picture in section.pictures:
        file = f"figures/{report_text.make_file_name(picture.name)}.png"
        parts += [f"![{escape_markdown(picture.alt)}](<{file}>)", escape_markdown(picture.caption)]
    return parts


def _evidence(table: MeasuredTable) -> list[str]:
    """Return what each row's number rests on, then the controls, and what to type for missing ones."""
    notes = [f"- {escape_markdown(label)}: {escape_markdown(text)}." for label, text in list_row_notes(table)]
    parts = ["\n".join(notes)] if notes else []
    controls = build_controls_view(table)
    if controls is not None:
        parts += [f"### {escape_markdown(controls.title)}", _plain(controls.without("runs"))]
    commands = list_control_commands(table)
    if commands:
        fence = "\n".join(" ".join(command.split()).replace("`", "'") for command in commands)
        parts += ["For the controls that are missing:", f"```sh\n{fence}\n```"]
    return parts


def _cell(cell: Cell, base: Path) -> str:
    if cell.runs:
        return " ".join(f"[{escape_markdown(run.name)}]({report_text.link(run, base)})" for run in cell.runs)
    # brackets of an interval stand as they are
    text = cell.brief or cell.text
    text = _ranked(text if cell.value is not None else escape_markdown(text), cell.rank)
    text = ", ".join(filter(None, (text, escape_markdown(cell.note))))
    below = _ranked(escape_markdown(cell.below.text), cell.below.rank) if cell.below else ""
    return f"{text}<br>{below}" if below else text


def _ranked(text: str, rank: int) -> str:
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)


def _plain(view: TableView) -> str:
    return _grid(
        view.columns, [[escape_markdown(str(cell)) for cell in view.cells(row)] for row in view.rows]
    )


def _grid(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    header = [escape_markdown(" ".join(filter(None, (column.group, column.title)))) for column in columns]
    rules = ["--:" if column.is_number else "---" for column in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in a table's cell too."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)

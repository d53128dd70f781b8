"""A report as Markdown, the way GitHub shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.reporting.render import claims
from experiments.reporting.render import row_evidence as behind
from experiments.reporting.render import text as words
from experiments.reporting.stats.statistics import signed
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.report_model import LEGEND, MeasuredTable, OtherRuns, Report, TableRow
from experiments.reporting.tables.sections import Grid, Section
from experiments.runs.run_flags import joined, legend

TEXTS = ("Runs", "Verdict", "Differs from the recipe")  # columns that are not numbers


def markdown(table: MeasuredTable, base: Path) -> str:
    """A table: each row as published where it was, and below it as measured; then what stands behind the rows.

    Args:
        base: The folder that links are relative to.
    """
    own = table.has_published and table.context is None
    measured = any(line.group for line in table.lines)
    header = ["Row", "Backbone" if own else "Recipe", *([""] if own else []), *table.columns]
    header += [f"Δ {table.columns[0]}" + (" [95 %]" if measured else ""), *(["Verdict"] if measured else [])]
    header += [*(["Measured - published"] if own and measured else []), "Runs"]
    parts = [f"## {escaped(table.title)}"]
    for title, lines in table.blocks:
        rows = [
            row for line in lines for row in (_published_rows if own else _context_rows)(line, table, base)
        ]
        parts += [f"### {escaped(title)}"] if title else []
        parts.append(_grid(header, rows, text_columns=3 if own else 2))
    parts += [escaped(note) for note in table.notes]
    parts += _behind(table)
    if table.folders:
        parts += [
            escaped(f"{LEGEND} {words.RANKS}"),
            *_marks(line.group for line in table.lines if line.group),
        ]
        parts.append("Runs: " + ", ".join(f"`{pattern.replace('`', '')}`" for pattern in table.folders))
    return "\n\n".join(parts) + "\n"


def markdown_other(other: Sequence[OtherRuns], base: Path) -> str:
    """The closing section, for runs that no table has."""
    metrics = words.metrics_of(runs.group for runs in other)
    rows = [
        [
            *[escaped(runs.of(column)) for column in ("recipe", "profile", "dataset", "config_hash")],
            *[_spread(runs.group, name) for name in metrics],
            escaped(runs.differs),
            _remark(runs.group.remark(), runs.group, base),
        ]
        for runs in other
    ]
    header = ["Recipe", "Profile", "Data set", "Config", *metrics, "Differs from the recipe", "Runs"]
    parts = [f"## {words.OTHER_TITLE}", _grid(header, rows, text_columns=4), escaped(LEGEND)]
    return "\n\n".join([*parts, *_marks(runs.group for runs in other)]) + "\n"


def markdown_index(
    report: Report, made: words.ReportMetadata, files: Mapping[str, str], sections: Sequence[Section]
) -> str:
    """The page that leads to the tables' own: what can be claimed, and everything that is no table.

    Args:
        files: File name of each page to its title.
    """
    parts = ["# Published beside measured", escaped(words.made_line(report, made))]
    standing = words.no_results_message(report, made.folders)
    parts += [escaped(standing)] if standing else markdown_claims(report)
    parts.append("## Tables")
    parts.append("\n".join(f"- [{escaped(title)}](<{name}>)" for name, title in files.items()))
    parts += [markdown_sections(sections).rstrip()] if sections else []
    return "\n\n".join([*parts, *markdown_problems(report)]) + "\n"


def markdown_claims(report: Report) -> list[str]:
    """What can be claimed: a heading, the balance, and a list of the differences."""
    found = claims.claims(report.tables)
    lines = [f"- **{claim.difference.verdict}**: {escaped(str(claim))}" for claim in found]
    return ["## What can be claimed", escaped(claims.balance(found)), *(["\n".join(lines)] if lines else [])]


def markdown_problems(report: Report) -> list[str]:
    """What was left out, as one list; empty where nothing was."""
    lines = [f"- {escaped(f'Left out: {text}')}" for text in report.problems]
    return ["\n".join(lines)] if lines else []


def markdown_sections(sections: Sequence[Section]) -> str:
    """Figures, error analysis and bench; pictures are expected beside the page, in `figures/`."""
    parts = []
    for section in sections:
        parts += [f"## {escaped(section.title)}", *[escaped(text) for text in section.texts]]
        for grid in section.grids:
            parts += [f"### {escaped(grid.title)}"] if grid.title else []
            parts.append(_plain_grid(grid))
        for picture in section.pictures:
            parts.append(f"![{escaped(picture.alt)}](<figures/{words.file_name(picture.name)}.png>)")
            parts.append(escaped(picture.caption))
    return "\n\n".join(parts) + "\n"


def _behind(table: MeasuredTable) -> list[str]:
    """Per row: power, seeds, remarks are in the row itself; then the controls and what to type for missing ones."""
    rows = [
        f"- {escaped(words.label(line))}: {escaped('; '.join(texts))}."
        for line in table.lines
        if line.group and (texts := behind.differences_in_words(line))
    ]
    parts = ["\n".join(rows)] if rows else []
    controls = behind.control_grid(table)
    if controls is not None:
        parts += [f"### {escaped(controls.title)}", _plain_grid(controls)]
    commands = behind.control_commands(table)
    if commands:
        fence = "\n".join(" ".join(command.split()).replace("`", "'") for command in commands)
        parts += ["For the controls that are missing:", f"```sh\n{fence}\n```"]
    return parts


def _published_rows(line: TableRow, table: MeasuredTable, base: Path) -> list[list[str]]:
    """The line as published where it was, and as measured where there are runs."""
    row, rows = line.row, []
    head = [escaped(words.label(line)), escaped(row.backbone or "")]
    if row.published is not None:
        values = [
            _ranked(f"{value:.1f}", line.published_ranks.get(name, 0))
            for name, value in zip(table.columns, row.published)
        ]
        if words.is_first(line, table):
            last = "" if line.group else escaped(line.remark)
            measured = any(other.group for other in table.lines)
            empty = ["", ""] if measured else []
            rows = [[*head, "published", *values, words.published_change(line), *empty, last]]
        head = ["", ""]
    if line.group or row.published is None:
        rows.append([*head, "measured", *_measured_cells(line, table, base, gap=True)])
    return rows


def _context_rows(line: TableRow, table: MeasuredTable, base: Path) -> list[list[str]]:
    return [[escaped(line.row.label), escaped(line.row.recipe or ""), *_measured_cells(line, table, base)]]


def _measured_cells(line: TableRow, table: MeasuredTable, base: Path, gap: bool = False) -> list[str]:
    beyond = ["" if line.gap is None else signed(line.gap)] if gap else []
    if line.group is None:
        return [*([""] * len(table.columns)), "", "", *([""] if gap else []), escaped(line.remark)]
    values = [_ranked(_spread(line.group, name), line.ranks.get(name, 0)) for name in table.columns]
    return [*values, *_change(line), *beyond, _remark(line.remark, line.group, base)]


def _change(line: TableRow) -> list[str]:
    if line.difference is None:
        return ["", ""]
    brief = behind.controls_in_brief(line)
    verdict = line.difference.verdict + (f"; {brief}" if brief else "")
    return [str(line.difference), escaped(verdict)]


def _ranked(text: str, rank: int) -> str:
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text) if text else ""


def _spread(group: Group, metric: str) -> str:
    return f"{group.metrics[metric]}{group.marks}" if metric in group.metrics else ""


def _marks(groups: Iterable[Group]) -> list[str]:
    return [escaped(line) for line in legend(joined([group.marks for group in groups]))]


def _remark(remark: str, group: Group, base: Path) -> str:
    """The remark, and a link to each run folder."""
    links = [f"[{escaped(folder.name)}]({words.link(folder, base)})" for folder in group.folders]
    return "; ".join(text for text in (escaped(remark), " ".join(links)) if text)


def _plain_grid(grid: Grid) -> str:
    rows = [[escaped(cell) for cell in row] for row in grid.rows]
    return _grid([escaped(name) for name in grid.header], rows, grid.texts)


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    rules = ["---" if i < text_columns or name in TEXTS else "--:" for i, name in enumerate(header)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too: no markup, no HTML, one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)

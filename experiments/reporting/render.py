"""A report as Markdown and as CSV."""

from __future__ import annotations

import csv
import html
import io
import os
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.marks import IMPORTED, REDUCED, joined, legend
from experiments.reporting.collect import METRICS
from experiments.reporting.groups import STATES, Group
from experiments.reporting.statistics import Spread
from experiments.reporting.tables import LEGEND, Line, MeasuredTable, OtherRuns

TEXTS = ("Runs", "Differs from the recipe")  # columns that are not numbers
OTHER_TITLE = "Other runs: they fit no row of any table"


def file_name(table: str) -> str:
    """A table's name as the stem of a file, wherever the table came from."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", table).lstrip(".-") or "table"


def label(line: Line) -> str:
    """A row's name, with the paper's own mark of what its authors trained themselves."""
    return line.row.label + ("*" if line.row.reimplemented else "")


def markdown(table: MeasuredTable, base: Path) -> str:
    """A table as GitHub shows it: each row as published where it was, and below it as measured.

    Args:
        base: The folder that links are relative to.
    """
    own = table.has_published and table.context is None
    header = ["Row", "Backbone" if own else "Recipe", *([""] if own else []), *table.columns]
    header += [f"Δ {table.columns[0]}", "Runs"]
    parts = [f"## {escaped(table.title)}"]
    for title, lines in table.blocks:
        rows = [
            row for line in lines for row in (_published_rows if own else _context_rows)(line, table, base)
        ]
        parts += [f"### {escaped(title)}"] if title else []
        parts.append(_grid(header, rows, text_columns=3 if own else 2))
    parts += [escaped(note) for note in table.notes]
    if table.folders:
        parts += [escaped(LEGEND), *_marks(line.group for line in table.lines if line.group)]
        parts.append("Runs: " + ", ".join(f"`{pattern.replace('`', '')}`" for pattern in table.folders))
    return "\n\n".join(parts) + "\n"


def markdown_other(other: Sequence[OtherRuns], base: Path) -> str:
    """The closing section, for runs that no table has."""
    metrics = metrics_of(runs.group for runs in other)
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
    parts = [f"## {OTHER_TITLE}", _grid(header, rows, text_columns=4), escaped(LEGEND)]
    return "\n\n".join([*parts, *_marks(runs.group for runs in other)]) + "\n"


def _marks(groups: Iterable[Group]) -> list[str]:
    return [escaped(line) for line in legend(joined([group.marks for group in groups]))]


def metrics_of(groups: Iterable[Group]) -> list[str]:
    """All metrics that some group has, in the order in which tables show them."""
    names = dict.fromkeys(name for group in groups for name in group.metrics)
    return sorted(names, key=lambda n: METRICS.index(n) if n in METRICS else len(METRICS))


def _published_rows(line: Line, table: MeasuredTable, base: Path) -> list[list[str]]:
    """The line as published where it was, and as measured where there are runs."""
    row, rows = line.row, []
    head = [escaped(label(line)), escaped(row.backbone or "")]
    if row.published is not None:
        change = "" if line.published_difference is None else f"{line.published_difference:+.1f}"
        values = [f"{value:.1f}" for value in row.published]
        if line is next(other for other in table.lines if other.row.id == row.id):
            rows = [[*head, "published", *values, change, "" if line.group else escaped(line.remark)]]
        head = ["", ""]
    if line.group or row.published is None:
        rows.append([*head, "measured", *_measured_cells(line, table, base)])
    return rows


def _context_rows(line: Line, table: MeasuredTable, base: Path) -> list[list[str]]:
    return [[escaped(line.row.label), escaped(line.row.recipe or ""), *_measured_cells(line, table, base)]]


def _measured_cells(line: Line, table: MeasuredTable, base: Path) -> list[str]:
    if line.group is None:
        return [*([""] * len(table.columns)), "", escaped(line.remark)]
    change = str(line.difference) if line.difference else ""
    values = [_spread(line.group, name) for name in table.columns]
    return [*values, change, _remark(line.remark, line.group, base)]


def _spread(group: Group, metric: str) -> str:
    return f"{group.metrics[metric]}{group.marks}" if metric in group.metrics else ""


def _remark(remark: str, group: Group, base: Path) -> str:
    """The remark, and a link to each run folder."""
    links = [f"[{folder.name}]({_link(folder, base)})" for folder in group.folders]
    return "; ".join(text for text in (escaped(remark), " ".join(links)) if text)


def _link(folder: Path, base: Path) -> str:
    try:
        relative = os.path.relpath(folder.resolve(), base.resolve())
    except ValueError:  # another drive
        relative = str(folder.resolve())
    return urllib.parse.quote(Path(relative).as_posix())


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    rules = ["---" if i < text_columns or name in TEXTS else "--:" for i, name in enumerate(header)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too: no markup, no HTML, one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def csv_text(tables: Sequence[MeasuredTable], other: Sequence[OtherRuns] = ()) -> str:
    """One wide row for each line of the tables; numbers are plain and unrounded.

    `context` is `published`, or says what the runs have in common: then without published values. A table that
    has none is `full size`. `reduced` and `imported` count the runs that have the mark.
    """
    groups = [line.group for t in tables for line in t.lines if line.group] + [runs.group for runs in other]
    metrics = list(dict.fromkeys([*(name for t in tables for name in t.columns), *metrics_of(groups)]))
    rows = [_table_row(table, block, line, metrics) for table in tables for block, line in _each(table)]
    rows += [_other_row(runs, metrics) for runs in other]
    text = io.StringIO()
    writer = csv.DictWriter(text, _header(metrics), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _each(table: MeasuredTable) -> Iterable[tuple[str, Line]]:
    return ((title, line) for title, lines in table.blocks for line in lines)


def _header(metrics: Sequence[str]) -> list[str]:
    measured = [f"measured_{name}_{part}" for name in metrics for part in ("mean", "sd", "n")]
    return [
        "table", "context", "profile", "dataset", "block", "id", "label", "backbone", "reimplemented",
        "reference", "baseline", "recipe", *[f"published_{name}" for name in metrics], "published_difference",
        *measured, "measured_difference", "measured_difference_error", *STATES, "seeds", "run_as",
        "reduced", "imported",
        "fingerprint", "config_hash", "remark", "folders",
    ]  # fmt: skip


def _table_row(table: MeasuredTable, block: str, line: Line, metrics: Sequence[str]) -> dict[str, Any]:
    row = line.row
    cells: dict[str, Any] = {
        "table": table.name, "block": block, "id": row.id, "label": row.label, "backbone": row.backbone,
        "reimplemented": int(row.reimplemented), "reference": int(row.reference), "baseline": row.baseline,
        "recipe": row.recipe, "remark": line.remark,
    }  # fmt: skip
    if table.context is None:
        cells |= {"context": "published" if table.has_published else "full size"}
        cells |= {"published_difference": line.published_difference}
        cells |= {f"published_{name}": value for name, value in zip(table.columns, row.published or ())}
    else:
        del cells["backbone"]  # a profile may have another
        cells |= {
            "context": table.common,
            "profile": table.context.profile,
            "dataset": table.context.dataset.name,
        }
    if line.difference:
        cells |= {"measured_difference": _plain(line.difference.value)}
        cells |= {"measured_difference_error": _plain(line.difference.error)}
    return cells | (_group_cells(line.group, metrics) if line.group else {})


def _other_row(runs: OtherRuns, metrics: Sequence[str]) -> dict[str, Any]:
    cells = {"table": "other", "context": "other", "label": runs.differs, "remark": runs.group.remark()}
    cells |= {column: runs.of(column) for column in ("recipe", "profile", "dataset")}
    return cells | _group_cells(runs.group, metrics)


def _group_cells(group: Group, metrics: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {state: group.states.get(state, 0) for state in STATES}
    for name in metrics:
        found: Spread | None = group.metrics.get(name)
        if found:
            cells |= {f"measured_{name}_mean": _plain(found.mean), f"measured_{name}_sd": _plain(found.sd)}
            cells |= {f"measured_{name}_n": found.n}
    return cells | {
        "seeds": " ".join(str(seed) for seed in sorted(group.runs["seed"])),
        "run_as": group.execution,
        "reduced": len(group.marked(REDUCED)),
        "imported": len(group.marked(IMPORTED)),
        "fingerprint": group.fingerprint,
        "config_hash": group.runs["config_hash"].iloc[0],
        "folders": " ".join(str(folder) for folder in group.folders),
    }


def _plain(number: float | None) -> float | None:
    """Without the last digits, which are noise of the summation."""
    return None if number is None else round(number, 9)

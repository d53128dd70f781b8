"""The lines of a table: each row's runs, what they come to, and what must stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from experiments.recipes.tables import Block, Row, Table
from experiments.reporting.stats.best_values import ranks_by_metric
from experiments.reporting.stats.power import power
from experiments.reporting.tables.controls import controls_of
from experiments.reporting.tables.groups import Group, compared, counterpart, group_runs
from experiments.reporting.tables.matching import Matcher
from experiments.reporting.tables.report_model import TableRow

MOST_WITH_CONTROLS = 50  # rows of a table; in a longer one the controls of gains alone are looked up

Blocks = list[tuple[str, list[TableRow]]]


def blocks_of(
    table: Table,
    runs: Mapping[str, pd.DataFrame],
    shown: set[str],
    columns: Sequence[str],
    matcher: Matcher,
    as_published: bool = False,
) -> Blocks:
    """The table's blocks with a line for each group of a row's runs, or one that says that there is none.

    Args:
        runs: By row id.
        shown: Ids of the rows to show.
        columns: Metrics; differences are of the first.
        as_published: Whether published values compare with the measured ones.
    """
    groups = {row_id: group_runs(found) for row_id, found in runs.items() if len(found)}
    gains_only = len(groups) > MOST_WITH_CONTROLS
    blocks = []
    for block in table.blocks:
        lines = [
            line
            for row in block.rows
            if row.id in shown
            for line in _lines(row, table, groups, columns[0], matcher, gains_only)
        ]
        if lines:
            blocks.append((block.title or "", _ranked(lines, block, columns, as_published)))
    return blocks


def _lines(
    row: Row,
    table: Table,
    groups: dict[str, list[Group]],
    metric: str,
    matcher: Matcher,
    gains_only: bool,
) -> list[TableRow]:
    published = _published_difference(row, table)
    if row.id not in groups:
        return [TableRow(row, None, published, None, "no runs" if row.recipe else "no recipe yet")]
    lines = []
    for group in groups[row.id]:
        base = counterpart(group, groups.get(row.baseline or "", []), metric)
        change, remark = compared(group, base, metric) if base else (None, "")
        remark = "; ".join(text for text in (group.remark(), remark) if text)
        needed = change is not None and (change.verdict == "gain" if gains_only else change.value > 0)
        controls = controls_of(group, metric, matcher) if needed else ()
        able, own = power(change, published), matcher.recipe_for_id(group.recipe_id)
        lines.append(
            TableRow(
                row,
                group,
                published,
                change,
                remark,
                power=able,
                controls=controls,
                recipe=own,
                baseline=base,
            )
        )
    return lines


def _published_difference(row: Row, table: Table) -> float | None:
    if row.published is None or not row.baseline:
        return None
    baseline = table.row(row.baseline)
    if baseline.published is None:
        return None
    return round(row.published[0] - baseline.published[0], 1)


def _ranked(
    lines: list[TableRow], block: Block, columns: Sequence[str], as_published: bool
) -> list[TableRow]:
    published = ranks_by_metric(
        {r.id: dict(zip(columns, r.published or ())) for r in block.rows if not r.reference}, columns
    )
    measured = _measured_ranks(lines, columns)
    ranked = []
    for index, line in enumerate(lines):
        found, row = line.group.metrics.get(columns[0]) if line.group else None, line.row
        gap = found.mean - row.published[0] if found and row.published and as_published else None
        shown = published.get(row.id, {}) if as_published else {}
        ranked.append(replace(line, ranks=measured.get(index, {}), published_ranks=shown, gap=gap))
    return ranked


def _measured_ranks(lines: Sequence[TableRow], columns: Iterable[str]) -> dict[int, dict[str, int]]:
    """By place of the line; only results on the same data are ranked together, and no row of another table."""
    by_data: dict[str, dict[int, dict[str, float]]] = {}
    for index, line in enumerate(lines):
        if line.group and not line.row.reference:
            means = {name: found.mean for name, found in line.group.metrics.items()}
            by_data.setdefault(line.group.fingerprint, {})[index] = means
    found: dict[int, dict[str, int]] = {}
    for rows in by_data.values():
        found |= ranks_by_metric(rows, list(columns))
    return found

"""A report as CSV: one wide row for each row of a table, numbers plain and unrounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.reporting.render.text import file_name
from experiments.reporting.stats.statistics import Difference, Spread
from experiments.reporting.tables.groups import STATES, Group
from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, TableRow
from experiments.reporting.tables.report_views import metrics_of
from experiments.reporting.tables.row_evidence import bootstrap
from experiments.runs.run_flags import IMPORTED, REDUCED

if TYPE_CHECKING:
    from experiments.reporting.tables.controls import Control


def csv_text(tables: Sequence[MeasuredTable], other: Sequence[OtherRuns] = ()) -> str:
    """Return one wide row for each row of the tables; numbers are plain and unrounded.

    `context` is `published`, or says what the runs have in common: then without published values. A table that
    has none is `full size`. `reduced` and `imported` count the runs that have the mark. Ranks are 1 (best) and 2 of
    the block. A control's difference is the row minus that control.
    """
    groups = [group for t in tables for group in t.groups] + [runs.group for runs in other]
    metrics = list(dict.fromkeys([*(name for t in tables for name in t.columns), *metrics_of(groups)]))
    controls = list(dict.fromkeys(c.name for t in tables for row in t.rows for c in row.controls))
    rows = [
        _table_row(table, block, row, metrics)
        for table in tables
        for block, members in table.blocks
        for row in members
    ]
    rows += [_other_row(runs, metrics) for runs in other]
    text = io.StringIO()
    writer = csv.DictWriter(text, _header(metrics, controls), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _header(metrics: Sequence[str], controls: Sequence[str]) -> list[str]:
    measured = [f"measured_{name}_{part}" for name in metrics for part in ("mean", "sd", "n")]
    return [
        "table", "context", "profile", "dataset", "block", "id", "label", "backbone", "reimplemented",
        "reference", "baseline", "recipe", *[f"published_{name}" for name in metrics], "published_difference",
        *measured, "measured_difference", "measured_difference_error", *STATES, "seeds", "run_as",
        "reduced", "imported",
        "fingerprint", "config_hash", "remark", "folders",
        "measured_difference_low", "measured_difference_high", "paired", "compared_seeds", "differences_by_seed",
        "bootstrap_low", "bootstrap_high", "verdict", "gap", "seeds_needed", "detectable_difference",
        *[f"published_{name}_rank" for name in metrics], *[f"measured_{name}_rank" for name in metrics],
        *[column for name in controls for column in _control_columns(name)],
    ]  # fmt: skip


def _table_row(table: MeasuredTable, block: str, row: TableRow, metrics: Sequence[str]) -> dict[str, Any]:
    definition = row.definition
    cells: dict[str, Any] = {
        "table": table.name, "block": block, "id": definition.id, "label": definition.label,
        "backbone": definition.backbone, "reimplemented": int(definition.reimplemented),
        "reference": int(definition.reference), "baseline": definition.baseline, "recipe": definition.recipe,
        "remark": row.remark,
    }  # fmt: skip
    if table.context is None:
        cells |= {"context": "published" if table.has_published else "full size"}
        cells |= {"published_difference": row.published_difference}
        cells |= {
            f"published_{name}": value for name, value in zip(table.columns, definition.published or ())
        }
        cells |= {f"published_{name}_rank": rank for name, rank in row.published_ranks.items()}
        cells |= {"gap": _plain(row.gap)}
    else:
        del cells["backbone"]  # a profile may have another
        cells |= {
            "context": table.common,
            "profile": table.context.profile,
            "dataset": table.context.dataset.name,
        }
    cells |= _difference_cells(row.difference) if row.difference else {}
    if row.power:
        cells |= {"seeds_needed": row.power.needed, "detectable_difference": _plain(row.power.detectable)}
    cells |= {f"measured_{name}_rank": rank for name, rank in row.ranks.items()}
    for control in row.controls:
        cells |= _control_cells(control)
    return cells | (_group_cells(row.group, metrics) if row.group else {})


def _difference_cells(change: Difference) -> dict[str, Any]:
    low, high = bootstrap(change) or (None, None)
    return {
        "measured_difference": _plain(change.value),
        "measured_difference_error": _plain(change.error),
        "measured_difference_low": _plain(change.low),
        "measured_difference_high": _plain(change.high),
        "paired": int(change.paired),
        "compared_seeds": change.n,
        "differences_by_seed": " ".join(str(_plain(pair)) for pair in change.pairs),
        "bootstrap_low": _plain(low),
        "bootstrap_high": _plain(high),
        "verdict": change.verdict,
    }


def _control_columns(name: str) -> list[str]:
    stem = f"control_{file_name(name).replace('-', '_').lower()}"
    return [f"{stem}_{part}" for part in ("mean", "difference", "low", "high", "verdict", "missing_seeds")]


def _control_cells(control: Control) -> dict[str, Any]:
    change = control.difference
    values: list[Any] = [_plain(control.spread.mean) if control.spread else None]
    values += (
        [_plain(change.value), _plain(change.low), _plain(change.high), change.verdict]
        if change
        else [None] * 4
    )
    values.append(" ".join(map(str, control.missing)))
    return dict(zip(_control_columns(control.name), values))


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
    """Return a number without its last digits, which are rounding noise."""
    return None if number is None else round(number, 9)

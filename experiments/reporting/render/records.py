"""A report for programs: a flat record for each row of a table, as CSV, JSON or a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.printable import make_cell_safe
from experiments.reporting.collect import collect
from experiments.reporting.render.claims import find_claims
from experiments.reporting.render.text import make_file_name
from experiments.reporting.stats.statistics import Difference
from experiments.reporting.tables.building import build_report
from experiments.reporting.tables.controls import Control
from experiments.reporting.tables.groups import STATES, Group
from experiments.reporting.tables.report_model import MeasuredTable, Report, TableRow
from experiments.reporting.tables.row_evidence import draw_bootstrap, find_anytime_valid
from experiments.runs.run_flags import IMPORTED, REDUCED

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]


def report_frame(
    results: Path | str | Sequence[Path] = "results", tables: Sequence[str] = ()
) -> pd.DataFrame:
    """Return what `msdet report --format csv` prints as a data frame, for notebooks.

    Args:
        results: One or more results folders.
        tables: Names or paths; none: all that have something to show.
    """
    import pandas as pd

    names, records = _table_records(build_report(collect(results), tables).tables)
    return pd.DataFrame(records, columns=names).convert_dtypes()


def render_csv(tables: Sequence[MeasuredTable]) -> str:
    """Return one wide row for each row of the tables; numbers are plain and unrounded.

    `context` is `published`, or says what the runs have in common: then without published values. A table that
    has none is `full size`. `reduced` and `imported` count the runs that have the mark. Ranks are 1 (best) and 2 of
    the block. A control's difference is the row minus that control.
    """
    names, records = _table_records(tables)
    text = io.StringIO()
    rows = [names, *([record.get(name, "") for name in names] for record in records)]
    csv.writer(text, lineterminator="\n").writerows(map(make_cell_safe, cells) for cells in rows)
    return text.getvalue()


def report_content(report: Report) -> dict[str, Any]:
    """Return the report for JSON: claims, tables with rows and their results by seed, and warnings."""
    return {
        "claims": [
            {"verdict": c.verdict, "text": c.text, "context": c.context, **_difference(c.difference)}
            for c in find_claims(report.tables)
        ],
        "tables": [_table_content(table) for table in report.tables],
        "warnings": [*report.missing, *report.problems],
    }


def _table_content(table: MeasuredTable) -> dict[str, Any]:
    rows = []
    for title, row in ((title, row) for title, rows in table.blocks for row in rows):
        record = {key: value for key, value in _record(table, title, row).items() if value not in (None, "")}
        if row.group is not None:
            record["by_seed"] = {name: row.group.by_seed(name) for name in row.group.metrics}
            record["folders"] = [str(folder) for folder in row.group.folders]
        rows.append(record)
    about = {"name": table.name, "title": table.title, "columns": table.columns, "notes": table.notes}
    return {**about, "rows": rows}


def _table_records(tables: Sequence[MeasuredTable]) -> tuple[list[str], list[Record]]:
    """Return the columns, and a record for each row of the tables."""
    records = [_record(table, title, row) for table in tables for title, rows in table.blocks for row in rows]
    of_groups = (name for table in tables for group in table.groups for name in group.metrics)
    metrics = list(dict.fromkeys([*(name for table in tables for name in table.columns), *of_groups]))
    controls = list(dict.fromkeys(c.name for table in tables for row in table.rows for c in row.controls))
    measured = [f"measured_{name}_{part}" for name in metrics for part in ("mean", "sd", "n")]
    names = [
        "table", "context", "profile", "dataset", "block", "id", "label", "backbone", "reimplemented",
        "reference", "baseline", "recipe", *[f"published_{name}" for name in metrics], "published_difference",
        *measured, "measured_difference", "measured_difference_error", *STATES, "seeds", "run_as",
        "reduced", "imported",
        "fingerprint", "config_hash", "remark", "folders",
        "measured_difference_low", "measured_difference_high", "paired", "compared_seeds", "differences_by_seed",
        "bootstrap_low", "bootstrap_high", "verdict", "gap", "seeds_needed", "detectable_difference",
        *[f"published_{name}_rank" for name in metrics], *[f"measured_{name}_rank" for name in metrics],
        *[column for name in controls for column in _control_columns(name)], "own", "differs",
        "p_value", "p_adjusted", "anytime_low", "anytime_high", "e_value",
    ]  # fmt: skip
    return names, records


def _record(table: MeasuredTable, block: str, row: TableRow) -> Record:
    definition = row.definition
    record: Record = {
        "table": table.name, "block": block, "id": definition.id, "label": definition.label,
        "reimplemented": int(definition.reimplemented), "reference": int(definition.reference),
        "baseline": definition.baseline, "recipe": definition.recipe, "remark": row.remark,
        "own": int(definition.own), "differs": row.differs,
    }  # fmt: skip
    if table.context is None:
        record |= {"context": "published" if table.has_published else "full size", "gap": _plain(row.gap)}
        record |= {"backbone": definition.backbone, "published_difference": row.published_difference}
        published = zip(table.columns, definition.published or ())
        record |= {f"published_{name}": value for name, value in published}
        record |= {f"published_{name}_rank": rank for name, rank in row.published_ranks.items()}
    else:  # a profile may have another backbone
        dataset = table.context.dataset.name
        record |= {"context": table.common, "profile": table.context.profile, "dataset": dataset}
    record |= _difference(row.difference) if row.difference else {}
    if (anytime := find_anytime_valid(row)) is not None:
        record |= {"anytime_low": _plain(anytime.low), "anytime_high": _plain(anytime.high)}
        record |= {"e_value": _plain(anytime.e_value)}
    if row.power:
        record |= {"seeds_needed": row.power.needed, "detectable_difference": _plain(row.power.detectable)}
    record |= {f"measured_{name}_rank": rank for name, rank in row.ranks.items()}
    for control in row.controls:
        record |= _control(control)
    return record | (_group(row.group) if row.group else {})


def _difference(change: Difference) -> Record:
    low, high = draw_bootstrap(change) or (None, None)
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
        "p_value": _plain(change.p_value),
        "p_adjusted": _plain(change.p_adjusted),
    }


def _control_columns(name: str) -> list[str]:
    stem = f"control_{make_file_name(name).replace('-', '_').lower()}"
    return [f"{stem}_{part}" for part in ("mean", "difference", "low", "high", "verdict", "missing_seeds")]


def _control(control: Control) -> Record:
    change, mean = control.difference, control.spread.mean if control.spread else None
    numbers = (change.value, change.low, change.high) if change else (None,) * 3
    verdict, missing = change.verdict if change else None, " ".join(map(str, control.missing))
    return dict(zip(_control_columns(control.name), [*map(_plain, (mean, *numbers)), verdict, missing]))


def _group(group: Group) -> Record:
    record: Record = {state: group.states.get(state, 0) for state in STATES}
    for name, found in group.metrics.items():
        parts = {"mean": _plain(found.mean), "sd": _plain(found.sd), "n": found.n}
        record |= {f"measured_{name}_{part}": value for part, value in parts.items()}
    return record | {
        "seeds": " ".join(str(seed) for seed in sorted(run["seed"] for run in group.runs)),
        "run_as": group.execution,
        "reduced": len(group.marked(REDUCED)),
        "imported": len(group.marked(IMPORTED)),
        "fingerprint": group.fingerprint,
        "config_hash": group.runs[0]["config_hash"],
        "folders": " ".join(str(folder) for folder in group.folders),
    }


def _plain(number: float | None) -> float | None:
    """Return a number without its last digits, which are rounding noise."""
    return None if number is None else round(number, 9)

"""Runs of several labels, each compared with the first: how `run` and `ablate` end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from experiments.reporting.collect import frame
from experiments.reporting.stats.statistics import Difference, Spread
from experiments.reporting.tables.groups import Group, against, group_runs
from experiments.runs.run_folder import RunFolder


@dataclass(frozen=True)
class ComparisonRow:
    """One label's runs (a second row where some of them may not be averaged with the others).

    Attributes:
        metrics: By name, over the finished runs.
        states: State to number of runs.
        difference: Of the first metric, to the comparison's first row; None for that row itself.
        remark: What sets it apart from the other rows; mostly empty.
        marks: As `experiments.runs.run_flags` has them.
    """

    label: str
    metrics: dict[str, Spread]
    states: dict[str, int]
    difference: Difference | None = None
    remark: str = ""
    marks: str = ""


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the labels.

    Attributes:
        metrics: What at least one row has, the main metric first.
        problems: One sentence for each run folder that could not be read.
    """

    metrics: list[str]
    rows: list[ComparisonRow]
    problems: list[str] = field(default_factory=list)


def compare_runs(runs: Sequence[RunFolder], labels: Sequence[str] | None = None) -> Comparison:
    """Compare runs: mean, standard deviation and seeds of each label, difference to the first.

    Args:
        runs: Finished, or not, or not even started; every seed of a label is a run of its own.
        labels: One for each run; equal labels share a row. Without: the recipe's name, with the config's hash
            where a name stands for more than one.
    """
    if labels is not None and len(labels) != len(runs):
        raise ValueError(f"labels: {len(labels)} for {len(runs)} runs")
    collected = frame(run for run in runs if run.record_file.exists())
    table = collected.runs
    named = _names(table) if labels is None else _labels(table, runs, labels)
    by_label = table.groupby(pd.Series(named, index=table.index, dtype=object), sort=False)
    grouped = {str(label): group_runs(part) for label, part in by_label}
    rows = _rows(grouped, collected.metrics)
    missing = [i for i, run in enumerate(runs) if not run.record_file.exists()]
    waiting = Counter(labels[i] if labels is not None else runs[i].path.parts[-3] for i in missing)
    rows += [ComparisonRow(label, {}, {"not started": n}) for label, n in waiting.items()]
    if labels is not None:
        rows.sort(key=lambda row: labels.index(row.label))
    return Comparison(collected.metrics, rows, collected.problems)


def _names(table: pd.DataFrame) -> list[str]:
    several = table.groupby("recipe")["config_hash"].nunique() > 1
    return [f"{r} ({h})" if several[r] else r for r, h in zip(table["recipe"], table["config_hash"])]


def _labels(table: pd.DataFrame, runs: Sequence[RunFolder], labels: Sequence[str]) -> list[str]:
    """Return the labels of those runs that could be read."""
    by_path = {str(run.path): label for run, label in zip(runs, labels)}
    return [by_path[path] for path in table["path"]]


def _rows(grouped: dict[str, list[Group]], metrics: list[str]) -> list[ComparisonRow]:
    rows = []
    first = next(iter(grouped.values()), [])
    for label, groups in grouped.items():
        for group in groups:
            change, remark = None, ""
            if groups is not first and metrics:
                change, remark = against(group, first, metrics[0])
            remarks = "; ".join(text for text in (group.distinguishing_label, remark, *group.notes()) if text)
            rows.append(ComparisonRow(label, group.metrics, group.states, change, remarks, group.marks))
    return rows

"""Runs beside one another, first against the rest: what `msdet run` and `msdet ablate` end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.reporting.collect import frame
from experiments.reporting.groups import Group, against, split
from experiments.reporting.statistics import Difference, Spread
from experiments.runs import RunFolder


@dataclass(frozen=True)
class ComparisonRow:
    """One label's runs (a second row where some of them may not be averaged with the others).

    Attributes:
        metrics: By name, over the finished runs.
        states: State to number of runs.
        difference: Of the first metric, to the comparison's first row; None for that row itself.
        remark: How it was run, and what sets it apart.
    """

    label: str
    metrics: dict[str, Spread]
    states: dict[str, int]
    difference: Difference | None = None
    remark: str = ""


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


def comparison(runs: Sequence[RunFolder], labels: Sequence[str] | None = None) -> Comparison:
    """Compares runs: mean, standard deviation and number of seeds of each label, and the difference to the first.

    Args:
        runs: Finished or not; every seed of a label is a run of its own.
        labels: One for each run; equal labels share a row. Without: the recipe's name, with the config's hash
            where a name stands for more than one.
    """
    if labels is not None and len(labels) != len(runs):
        raise ValueError(f"labels: {len(labels)} for {len(runs)} runs")
    collected = frame(runs)
    table = collected.runs
    if labels is None:
        hashes = table.groupby("recipe")["config_hash"].transform("nunique") if len(table) else []
        named = [
            f"{recipe} ({digest})" if count > 1 else recipe
            for recipe, digest, count in zip(table["recipe"], table["config_hash"], hashes)
        ]
    else:
        by_path = {str(run.path): label for run, label in zip(runs, labels)}
        named = [by_path[path] for path in table["path"]]
    grouped = {label: split(part) for label, part in table.groupby(named, sort=False)} if len(table) else {}
    return Comparison(collected.metrics, list(_rows(grouped, collected.metrics)), collected.problems)


def _rows(grouped: dict[str, list[Group]], metrics: list[str]) -> list[ComparisonRow]:
    rows = []
    first = next(iter(grouped.values()), [])
    for label, groups in grouped.items():
        for group in groups:
            change, remark = None, ""
            if groups is not first and metrics:
                change, remark = against(group, first, metrics[0])
            remarks = [text for text in (group.apart, remark) if text]
            rows.append(ComparisonRow(label, group.metrics, group.states, change, "; ".join(remarks)))
    return rows

"""The rows of a table: each row's runs, their statistics, and remarks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from experiments.recipes.tables import Block, Row, Table
from experiments.reporting.collect import Run, split_by
from experiments.reporting.stats.power import compute_power
from experiments.reporting.stats.sequences import add_sequence
from experiments.reporting.stats.statistics import Difference, adjust_by_holm, rank_by_metric
from experiments.reporting.tables.controls import find_controls
from experiments.reporting.tables.groups import Group, compare_groups, group_runs, select_baseline
from experiments.reporting.tables.matching import Matcher
from experiments.reporting.tables.report_model import TableRow

MAX_ROWS_WITH_CONTROLS = 50  # in a longer table the controls of gains alone are looked up


@dataclass(frozen=True)
class RowBuilder:
    """Builds the rows of a table from runs."""

    table: Table
    runs: Mapping[str, list[Run]]  # by row id
    columns: Sequence[str]  # metrics; differences are of the first
    matcher: Matcher
    as_published: bool = False  # published values compare with the measured ones
    differs: Mapping[str, str] = field(default_factory=dict)  # by row id, from the recipe of its name

    @cached_property
    def _groups(self) -> dict[str, list[Group]]:
        return {row_id: group_runs(found) for row_id, found in self.runs.items() if found}

    def blocks(self, shown: Collection[str]) -> list[tuple[str, list[TableRow]]]:
        """Return blocks with a row for each group of runs of the rows in `shown`, or one that says there is none."""
        blocks = []
        for block in self.table.blocks:
            rows = [made for row in block.rows if row.id in shown for made in self._rows(row)]
            if rows:
                blocks.append((block.title or "", self._completed(rows, block)))
        return blocks

    def _rows(self, row: Row) -> Iterator[TableRow]:
        published, metric = self.table.published_difference(row), self.columns[0]
        if row.id not in self._groups:
            yield TableRow(row, None, published, None, "no runs" if row.recipe else "no recipe yet")
        for group in self._groups.get(row.id, []):
            baseline = select_baseline(group, self._groups.get(row.baseline or "", []), metric)
            change, remark = compare_groups(group, baseline, metric) if baseline else (None, "")
            if change is not None and self.table.study is not None:
                change = add_sequence(change, self.table.study.effect, self.table.study.scale)
            gains_only = len(self._groups) > MAX_ROWS_WITH_CONTROLS
            needed = change is not None and (change.verdict == "gain" if gains_only else change.value > 0)
            spread, stated = group.metrics.get(metric), row.published if self.as_published else None
            yield TableRow(
                row,
                group,
                published,
                change,
                "; ".join(filter(None, (group.remark(), remark))),
                gap=spread.mean - stated[0] if spread and stated else None,
                power=None if self.table.study else compute_power(change, published),
                controls=find_controls(group, metric, self.matcher) if needed else (),
                recipe=self.matcher.recipe_by_id[group.recipe_id],
                baseline=baseline,
                differs=self.differs.get(row.id, ""),
            )

    def _completed(self, rows: list[TableRow], block: Block) -> list[TableRow]:
        """Return a block's rows with what the others decide: ranks, and p-values adjusted for their number."""
        values = {r.id: dict(zip(self.columns, r.published or ())) for r in block.rows if not r.reference}
        published = rank_by_metric(values, self.columns) if self.as_published else {}
        ranks, differences = self._measured_ranks(rows), _adjusted_differences(rows)
        return [
            replace(
                row,
                difference=differences.get(place),
                ranks=ranks.get(place, {}),
                published_ranks=published.get(row.definition.id, {}),
            )
            for place, row in enumerate(rows)
        ]

    def _measured_ranks(self, rows: Sequence[TableRow]) -> dict[int, dict[str, int]]:
        """Return ranks by the row's place; only among results on the same data, and without rows of other tables."""
        ranked = [(i, row.group) for i, row in enumerate(rows) if row.group and not row.definition.reference]
        ranks: dict[int, dict[str, int]] = {}
        for alike in split_by(ranked, lambda member: member[1].fingerprint):
            means = {i: {name: found.mean for name, found in group.metrics.items()} for i, group in alike}
            ranks |= rank_by_metric(means, self.columns)
        return ranks


def _adjusted_differences(rows: list[TableRow]) -> dict[int, Difference]:
    """Return differences by the row's place; those to one baseline are a family of comparisons."""
    families: dict[str | None, dict[int, Difference]] = {}
    for place, row in enumerate(rows):
        if row.difference is not None:
            families.setdefault(row.definition.baseline, {})[place] = row.difference
    return {place: c for family in families.values() for place, c in adjust_by_holm(family).items()}

"""The rows of a table: each row's runs, their statistics, and remarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from experiments.recipes.tables import Block, Row, Table
from experiments.reporting.collect import Run
from experiments.reporting.stats.best_values import rank_by_metric
from experiments.reporting.stats.power import compute_power
from experiments.reporting.stats.sequences import add_sequence
from experiments.reporting.stats.statistics import Difference, adjust_by_holm
from experiments.reporting.tables.controls import find_controls
from experiments.reporting.tables.groups import Group, compare_groups, group_runs, select_baseline
from experiments.reporting.tables.matching import Matcher
from experiments.reporting.tables.report_model import TableRow

MAX_ROWS_WITH_CONTROLS = 50  # in a longer table the controls of gains alone are looked up

Blocks = list[tuple[str, list[TableRow]]]


@dataclass(frozen=True)
class RowBuilder:
    """Builds the rows of a table from runs.

    Attributes:
        runs: By row id.
        columns: Metrics; differences are of the first.
        as_published: Whether published values compare with the measured ones.
        differs: By row id, in what it differs from the recipe of its name.
    """

    table: Table
    runs: Mapping[str, list[Run]]
    columns: Sequence[str]
    matcher: Matcher
    as_published: bool = False
    differs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> dict[str, list[Group]]:
        return {row_id: group_runs(found) for row_id, found in self.runs.items() if found}

    def blocks(self, shown: set[str]) -> Blocks:
        """Return blocks with a row for each group of a row's runs, or one that says that there is none.

        Args:
            shown: Ids of the rows to show.
        """
        blocks = []
        for block in self.table.blocks:
            rows = [made for row in block.rows if row.id in shown for made in self._rows(row)]
            if rows:
                blocks.append((block.title or "", self._ranked(_adjusted(rows), block)))
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
            yield TableRow(
                row,
                group,
                published,
                change,
                "; ".join(text for text in (group.remark(), remark) if text),
                power=None if self.table.study else compute_power(change, published),
                controls=find_controls(group, metric, self.matcher) if needed else (),
                recipe=self.matcher.recipe_for_id(group.recipe_id),
                baseline=baseline,
                differs=self.differs.get(row.id, ""),
            )

    def _ranked(self, rows: list[TableRow], block: Block) -> list[TableRow]:
        main = self.columns[0]
        published = rank_by_metric(
            {r.id: dict(zip(self.columns, r.published or ())) for r in block.rows if not r.reference},
            self.columns,
        )
        measured = self._measured_ranks(rows)
        ranked = []
        for index, row in enumerate(rows):
            spread, values = row.group.metrics.get(main) if row.group else None, row.definition.published
            gap = spread.mean - values[0] if spread and values and self.as_published else None
            shown = published.get(row.definition.id, {}) if self.as_published else {}
            ranked.append(replace(row, ranks=measured.get(index, {}), published_ranks=shown, gap=gap))
        return ranked

    def _measured_ranks(self, rows: Sequence[TableRow]) -> dict[int, dict[str, int]]:
        """Return ranks by the row's place; only among results on the same data, and without rows of other tables."""
        by_data: dict[str, dict[int, dict[str, float]]] = {}
        for index, row in enumerate(rows):
            if row.group and not row.definition.reference:
                means = {name: spread.mean for name, spread in row.group.metrics.items()}
                by_data.setdefault(row.group.fingerprint, {})[index] = means
        return {
            index: ranks
            for members in by_data.values()
            for index, ranks in rank_by_metric(members, self.columns).items()
        }


def _adjusted(rows: list[TableRow]) -> list[TableRow]:
    """Return a block's rows with the p-values of those against one baseline adjusted for their number."""
    families: dict[str | None, dict[int, Difference]] = {}
    for place, row in enumerate(rows):
        if row.difference is not None:
            families.setdefault(row.definition.baseline, {})[place] = row.difference
    found = {place: c for family in families.values() for place, c in adjust_by_holm(family).items()}
    return [replace(row, difference=found.get(place)) for place, row in enumerate(rows)]

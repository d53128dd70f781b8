"""Tables of the runs that belong to no row of any table: one for each context, a row for each recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experiments.recipes.differences import join_differences, list_differences
from experiments.recipes.loading import compute_recipe_id, describe_identity
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Block, Row, Table
from experiments.reporting.collect import Run, list_metrics
from experiments.reporting.tables.matching import Context, Matcher
from experiments.reporting.tables.report_model import MeasuredTable
from experiments.reporting.tables.table_rows import RowBuilder
from experiments.runs.run_flags import IMPORTED

NAME, TITLE = "other-runs", "Runs of no table"
NOTE = "Each row says in what it differs from the recipe of its name, with that recipe's value in brackets."


def build_other_tables(matcher: Matcher, runs: list[Run], is_to_first: bool = False) -> list[MeasuredTable]:
    """Return a table for each context that these runs have; no metric of COCO shares a column with one of VOC.

    Rows are compared with uniformly weighted runs that are otherwise the same, else with the recipe as it stands, if
    that differs in one key or in the weighting alone. Those are shown, too, wherever else they belong.

    Args:
        is_to_first: Whether they are all compared with the first row instead, and no other runs are shown.
    """
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: IMPORTED in run["marks"]):  # imports name last
        names.setdefault(run["recipe_id"], run["recipe"])
    by_context: dict[Context | None, dict[str, list[str]]] = {}  # then by name: identities
    for digest in dict.fromkeys(run["recipe_id"] for run in runs):
        own = matcher.recipe_by_id[digest]
        by_name = by_context.setdefault(matcher.context_of(own) if own else None, {})
        by_name.setdefault(names[digest], []).append(digest)
    uniform = {
        _without_weighting(own): digest
        for digest, own in matcher.recipe_by_id.items()
        if own is not None and _is_uniform(own)
    }
    return [
        _OtherTable(matcher, context, uniform, is_to_first).build(by_name)
        for context, by_name in by_context.items()
    ]


def _is_uniform(recipe: Recipe) -> bool:
    return recipe.weighting.get("rule") == "uniform"


def _without_weighting(recipe: Recipe) -> str:
    content = describe_identity(recipe)
    del content["weighting"]
    return json.dumps(content, sort_keys=True)


@dataclass
class _OtherTable:
    """The making of one table."""

    matcher: Matcher
    context: Context | None
    uniform: dict[str, str]  # identities of uniformly weighted runs, by the rest of their recipes
    is_to_first: bool
    runs: dict[str, list[Run]] = field(default_factory=dict)  # by row id
    differs: dict[str, str] = field(default_factory=dict)

    def build(self, by_name: Mapping[str, Sequence[str]]) -> MeasuredTable:
        """Return the table of the recipes with these identities, by the name under which runs were started."""
        blocks = [self._block(name, digests) for name, digests in by_name.items()]
        rows = [row for block in blocks for row in block.rows]
        if self.is_to_first:
            blocks = [Block(rows=rows)]
            for row in rows:
                row.baseline = rows[0].id if row is not rows[0] else None
        metrics = list_metrics(run for found in self.runs.values() for run in found) or ["AP"]
        table = Table(name=NAME, title=TITLE, columns=metrics, blocks=blocks)
        builder = RowBuilder(table, self.runs, metrics, self.matcher, differs=self.differs)
        shown = builder.blocks(self.runs.keys())
        common = "" if self.context is None else self.matcher.describe_context(self.context)
        title = f"{'Comparison' if self.is_to_first else TITLE}, {common or 'recipes cannot be read'}"
        notes = [NOTE] if any(self.differs.values()) else []
        return MeasuredTable(NAME, title, self.context, metrics, shown, notes, common, has_differs=True)

    def _block(self, name: str, digests: Sequence[str]) -> Block:
        """Return the rows of one recipe: what they are compared with, then its variants by the keys that differ."""
        named = self._load_named(name)
        changes = {digest: self._list_changes(digest, named) for digest in digests}
        stands = compute_recipe_id(named) if named is not None else ""
        bases = {digest: self._select_base(digest, stands, changes[digest]) for digest in digests}
        references = [base for base in dict.fromkeys(bases.values()) if base and base not in bases]
        ordered = sorted(digests, key=lambda digest: _order(changes[digest]))
        rows = []
        for digest in references:  # under the name that its runs have
            other = self.matcher.runs_with_ids([digest])[0]["recipe"]
            row = self._row(name, digest, other, self._list_changes(digest, self._load_named(other)))
            rows.append(row.model_copy(update={"reference": True}))
        rows += [self._row(name, digest, name, changes[digest], bases[digest]) for digest in ordered]
        return Block(rows=rows)

    def _select_base(self, digest: str, stands: str, changes: Sequence[str]) -> str:
        """Return the identity of what a recipe is compared with; empty where there is nothing."""
        own = self.matcher.recipe_by_id[digest]
        if self.is_to_first or own is None:
            return ""
        if not _is_uniform(own) and (base := self.uniform.get(_without_weighting(own))):
            return base
        is_comparable = len(changes) == 1 or all(text.startswith("weighting.") for text in changes)
        return stands if is_comparable and stands != digest and stands in self.matcher.recipe_by_id else ""

    def _row(self, block: str, digest: str, name: str, changes: list[str], base: str = "") -> Row:
        row_id = f"{block}/{digest}"
        self.runs[row_id] = self.matcher.runs_with_ids([digest])
        self.differs[row_id] = join_differences(changes)
        return Row(id=row_id, label=name, recipe=name, baseline=f"{block}/{base}" if base else None)

    def _load_named(self, name: str) -> Recipe | None:
        if self.context is None:
            return None
        named = self.matcher.load_named(name, self.context.profile)
        return named and named.model_copy(update={"dataset": self.context.dataset})

    def _list_changes(self, digest: str, named: Recipe | None) -> list[str]:
        own = self.matcher.recipe_by_id[digest]
        return list_differences(own, named) if own and named else []


def _order(changes: Sequence[str]) -> list[tuple[str, float, str]]:
    """Return a sort key: by key, then numbers by size, before everything else by its text."""
    parts = []
    for text in changes:
        key, _, value = text.partition(": ")
        number = re.match(r"-?[\d.]+(e-?\d+)?(?= \()", value)
        parts.append((key, float(number[0]) if number else float("inf"), value))
    return parts

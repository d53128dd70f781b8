"""Tables of a user's own ablations: runs of no row, beside the recipe they vary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from experiments.common.config_text import flat
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Block, Row, Table
from experiments.reporting.collect import metric_names
from experiments.reporting.tables.matching import Context, Matcher
from experiments.reporting.tables.report_model import MeasuredTable, describe_context
from experiments.reporting.tables.table_rows import RowBuilder

AS_IT_STANDS = "as it stands"


def variants_of(matcher: Matcher) -> list[MeasuredTable]:
    """Return a table for each recipe and context that has runs left which belong to no row.

    Its rows are the recipe as it stands, its variants by the key that they change, and uniformly weighted runs that are
    otherwise the same: these are what a variant is compared with, else the recipe as it stands, if that differs in one
    key or in the weighting alone. A lone config, with nothing to compare it with, makes no table. Marks what it shows
    as matched.
    """
    uniform = _uniform(matcher)
    tables = []
    for (name, context), own in _left(matcher).items():
        table = _Variants(name, context, own, uniform, matcher).table()
        if table is not None:
            tables.append(table)
    return tables


def _left(matcher: Matcher) -> dict[tuple[str, Context], list[Recipe]]:
    """Return the recipes of unmatched runs, by the name they were started under and context."""
    left: dict[tuple[str, Context], list[Recipe]] = {}
    runs = matcher.unmatched()
    for name, digest in dict.fromkeys(zip(runs["recipe"], runs["recipe_id"])):
        own = matcher.recipe_for_id(digest)
        if own is not None:
            left.setdefault((name, matcher.context_of(own)), []).append(own)
    return left


def _uniform(matcher: Matcher) -> dict[str, list[tuple[str, Recipe]]]:
    """Return recipes of all runs with rule `uniform`, with ids, by all but their weighting."""
    found: dict[str, list[tuple[str, Recipe]]] = {}
    for digest in matcher.runs["recipe_id"].unique():
        own = matcher.recipe_for_id(str(digest))
        if own is not None and own.weighting.get("rule") == "uniform":
            found.setdefault(_apart_from_weighting(own), []).append((str(digest), own))
    return found


def _apart_from_weighting(recipe: Recipe) -> str:
    content = recipes.identity(recipe)
    del content["weighting"]
    return json.dumps(content, sort_keys=True)


@dataclass
class _Variants:
    """The making of one table."""

    name: str
    context: Context
    own: list[Recipe]
    uniform: dict[str, list[tuple[str, Recipe]]]
    matcher: Matcher
    runs: dict[str, pd.DataFrame] = field(default_factory=dict)  # by row id
    recipes: list[Recipe] = field(default_factory=list)  # of all rows

    def table(self) -> MeasuredTable | None:
        named = self.matcher.load(self.name, {}, self.context.profile, quiet=True)
        named = named and named.model_copy(update={"dataset": self.context.dataset})
        reference = named or self.own[0]
        said = flat(recipes.identity(reference))
        by_keys: dict[tuple[str, ...], list[tuple[dict[str, Any], Recipe]]] = {}
        for own in self.own:
            changes = _changes(own, said)
            if changes or named is None:
                by_keys.setdefault(tuple(changes), []).append((changes, own))
        blocks = [
            self._block(number, keys, members, reference)
            for number, (keys, members) in enumerate(by_keys.items())
        ]
        if not blocks and not self._is_lone(reference):  # nothing varied, but there is a baseline to it
            blocks = [self._block(0, (), [], reference)]
        if sum(len(block.rows) for block in blocks) < 2:
            return None
        return self._measured(blocks)

    def _is_lone(self, recipe: Recipe) -> bool:
        return recipe.weighting.get("rule") == "uniform" or not self.uniform.get(
            _apart_from_weighting(recipe)
        )

    def _block(
        self,
        number: int,
        keys: tuple[str, ...],
        members: Iterable[tuple[dict[str, Any], Recipe]],
        reference: Recipe,
    ) -> Block:
        """Return the reference and the variants that change these keys, in the order of the values."""
        rows = [(changes, own, _label(changes) or recipes.recipe_id(own)) for changes, own in members]
        if all(own is not reference for _, own, _ in rows) and len(self.matcher.runs_of([reference])):
            values = flat(recipes.identity(reference))
            as_is = {key: values[key] for key in keys if key in values}
            label = f"{_label(as_is)} ({AS_IT_STANDS})" if as_is else AS_IT_STANDS
            rows.insert(0, (as_is, reference, label))
        rows.sort(key=lambda row: [_order(value) for value in row[0].values()])
        baselines: dict[str, str] = {}  # recipe id to row id, of the baselines that this block shows
        made: list[Row] = []
        for place, (changes, own, label) in enumerate(rows):
            baseline = self._baseline(own, reference, number, baselines, made)
            row_id = f"{number}.{place}"
            self._take(row_id, own)
            made.append(self._row(row_id, label, baseline, changes))
        comparable = len(keys) < 2 or all(key.startswith("weighting.") for key in keys)
        reference_row = next((row.id for row in made if AS_IT_STANDS in row.label and comparable), None)
        for index, row in enumerate(made):
            if row.baseline is None and not row.reference and reference_row not in (None, row.id):
                made[index] = row.model_copy(update={"baseline": reference_row})
        title = ", ".join(map(_short, keys)) if keys else None
        return Block(title=title, rows=made)

    def _baseline(
        self, own: Recipe, reference: Recipe, number: int, shown: dict[str, str], made: list[Row]
    ) -> str | None:
        """Return the row of uniform runs otherwise the same, created where it is missing."""
        if own.weighting.get("rule") == "uniform" or not self.uniform:
            return None
        for digest, base in self.uniform.get(_apart_from_weighting(own), []):
            if digest not in shown:
                shown[digest] = row_id = f"{number}.uniform{len(shown)}"
                self._take(row_id, base)
                said = flat(recipes.identity(reference))
                changes = {k: v for k, v in _changes(base, said).items() if not k.startswith("weighting.")}
                label = f"uniform, {_label(changes)}" if changes else "uniform (baseline)"
                made.append(Row(id=row_id, label=label, recipe=base.name, reference=True))
            return shown[digest]
        return None

    def _row(self, row_id: str, label: str, baseline: str | None, changes: dict[str, Any]) -> Row:
        return Row(id=row_id, label=label, recipe=self.name, baseline=baseline, set=changes)

    def _take(self, row_id: str, recipe: Recipe) -> None:
        self.runs[row_id] = self.matcher.runs_of([recipe])
        self.recipes.append(recipe)

    def _measured(self, blocks: list[Block]) -> MeasuredTable:
        self.matcher.find(self.recipes)  # only now, for a table that comes to nothing shows none of them
        common = describe_context(self.context, self.matcher.contexts)
        columns = metric_names(self.matcher.runs_of(self.recipes)) or ["AP"]
        title = f"Variants of {self.name}"
        table = Table(name=f"{self.name}, {common}", title=title, columns=columns, blocks=blocks)
        measured = RowBuilder(table, self.runs, columns, self.matcher).blocks(set(self.runs))
        notes = ["Rows say in what they differ from the recipe of that name."]
        return MeasuredTable(table.name, f"{title}, {common}", self.context, columns, measured, notes, common)


def _changes(recipe: Recipe, reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the recipe says otherwise than the reference, key by key, the rule first."""
    changed = {k: v for k, v in flat(recipes.identity(recipe)).items() if reference.get(k) != v}
    if "weighting.rule" in changed:
        changed = {"weighting.rule": changed.pop("weighting.rule"), **changed}
    return changed


def _label(changes: dict[str, Any]) -> str:
    return ", ".join(f"{_short(key)}={_text(value)}" for key, value in changes.items())


def _short(key: str) -> str:
    return key.removeprefix("weighting.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _order(value: Any) -> tuple[int, float, str]:
    """Return a sort key: numbers by size, before everything else by its text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, _text(value)

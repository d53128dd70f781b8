"""Build a report: a user's ablations, the paper's tables, their rows in other contexts, and all other runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.common.errors import UserError, did_you_mean
from experiments.recipes.differences import join_differences, list_differences
from experiments.recipes.tables import ABLATIONS, Row, Table, list_ablations, list_tables, load_table
from experiments.reporting.collect import Collected, Run, list_metrics, split_by
from experiments.reporting.tables.groups import group_runs
from experiments.reporting.tables.matching import Context, Matcher, find_context
from experiments.reporting.tables.other_runs import build_other_tables
from experiments.reporting.tables.report_model import MeasuredTable, Report, TableRow
from experiments.reporting.tables.table_rows import RowBuilder

STUDY_NOTE = (
    "A study: seeds are added until the question is settled, so intervals are anytime-valid (95 % confidence"
    " sequences of paired differences). The smallest difference that matters: {:g} points."
)
MAX_NEAREST = 3  # recipes of runs in no row that are named with their nearest row
MAX_NEAR_KEYS = 2  # in which they differ; without any so near, the nearest is named
MAX_RECIPES = 50  # of runs that are compared with rows, to find those


def build_report(
    collected: Collected, names: Sequence[str] = (), recipes: Sequence[str] = (), against: str | None = None
) -> Report:
    """Return the report over collected runs.

    Args:
        names: Tables, by name or path; none: all that have something to show, and the runs that belong to none.
        recipes: Only rows of these, with the rows that they are compared with; none: all.
        against: A row's id or label, `recipe` or `baseline`: what the other rows of each table are compared with.

    Raises:
        UserError: A table is unknown, or its file is wrong; no row is what `against` names.
    """
    matcher = Matcher(collected)
    builder = _TableBuilder(matcher)
    tables, problems = _load_tables(dict.fromkeys(names), [Path(place) for place in collected.facts])
    if against:
        tables = _compare_with(tables, against)
    shown = [form for table in tables for form in builder.forms(table)]
    if not names:
        own = {table.name for table in tables if _has_one_form(table)}
        shown = _with_something_new(shown, own) + build_other_tables(matcher, matcher.unmatched())
    if recipes:
        shown = _of_recipes(shown, set(recipes))
    measured = {table.name for table in shown if table.is_measured}
    missing = [text for t in tables for text in builder.find_nearest(t, t.name in measured)] if names else []
    problems = [*collected.problems, *problems, *dict.fromkeys(matcher.problems)]
    matcher.save()
    return Report(list(map(_with_notes, shown)), problems, bool(collected.runs), missing)


def build_run_tables(collected: Collected) -> list[MeasuredTable]:
    """Return tables of given runs, a row a recipe, compared with the first."""
    return list(map(_with_notes, build_other_tables(Matcher(collected), collected.runs, is_to_first=True)))


def _load_tables(names: Collection[str], places: Sequence[Path]) -> tuple[list[Table], list[str]]:
    """Return the tables of these names, else all; and problems of ablations that nobody named."""
    if names:
        homes = [next((place for place in places if name in list_ablations(place)), None) for name in names]
        return [load_table(name, home) for name, home in zip(names, homes)], []
    tables, problems = [], []
    for place in places:
        for path in list_ablations(place).values():
            try:
                tables.append(load_table(str(path)))
            except UserError as error:
                problems.append(f"{error.message}.")
    return tables + [load_table(name) for name in list_tables()], problems


def _compare_with(tables: Sequence[Table], against: str) -> list[Table]:
    """Return the tables that have a row of that name, with it as the baseline of all others."""
    found = []
    for table in tables:
        target = next((row.id for row in table.rows() if _is_named(row, against)), None)
        if target is not None:
            compared = table.model_copy(deep=True)
            for row in compared.rows():
                row.baseline = target if row.id != target else None
            found.append(compared)
    if not found:
        labels = [text for table in tables for row in table.rows() for text in (row.id, row.label)]
        raise UserError(f"--against: no row '{against}'; {did_you_mean(against, labels)}")
    return found


def _is_named(row: Row, name: str) -> bool:
    if name == "recipe":
        return row.own
    is_uniform = row.set.get("weighting.rule") == "uniform" or row.id in ("baseline", "uniform")
    return name in (row.id, row.label) or (name == "baseline" and is_uniform)


def _with_something_new(tables: Sequence[MeasuredTable], own: set[str]) -> list[MeasuredTable]:
    """Drop forms without published numbers all of whose runs another table shows, but none of a user's `own`."""
    shown = [frozenset(table.folders) for table in tables]
    kept = []
    for place, (table, runs) in enumerate(zip(tables, shown)):
        is_elsewhere = runs in shown[:place] or any(runs < others for others in shown)
        if table.is_as_published or table.name in own or not is_elsewhere:
            kept.append(table)
    return kept


def _of_recipes(tables: Sequence[MeasuredTable], recipes: set[str]) -> list[MeasuredTable]:
    def is_shown(row: TableRow) -> bool:
        names = set() if row.group is None else {run["recipe"] for run in row.group.runs}
        return bool(recipes & (names | {row.definition.recipe}))

    return [table for table in (table.select(is_shown) for table in tables) if table.blocks]


@dataclass(frozen=True)
class _TableBuilder:
    """Builds tables from the runs that a matcher finds."""

    matcher: Matcher

    def forms(self, table: Table) -> list[MeasuredTable]:
        """Return a table at full size, and its rows in each context that they were run in.

        A table that names its profile, its data set or what its rows share has one form: as its rows were run.
        """
        if _has_one_form(table):
            return [self._own(table)]
        contexts = (self._in_context(table, context) for context in self.matcher.contexts)
        return [self._full_size(table), *(form for form in contexts if form is not None)]

    def _full_size(self, table: Table) -> MeasuredTable:
        """Return the table on its rows' own data, published values beside measured ones."""
        runs = {row.id: self.matcher.find(self.matcher.recipes_of(table, row)) for row in table.rows()}
        blocks = RowBuilder(table, runs, table.columns, self.matcher, as_published=True).blocks(runs.keys())
        notes = [table.note] if table.note else []
        if table.study is not None:
            notes.append(STUDY_NOTE.format(table.study.effect))
        title = f"{_numbered(table)}: {table.title}"
        return MeasuredTable(table.name, title, None, list(table.columns), blocks, notes)

    def _own(self, table: Table) -> MeasuredTable:
        """Return the one form of a table whose rows share profile, data set or keys."""
        form = self._full_size(table)
        wanted = (self.matcher.recipes_of(table, row) for row in table.rows())
        first = next((recipes[0] for recipes in wanted if recipes), None)
        context = find_context(first) if first is not None and not table.has_published else None
        common = self.matcher.describe_context(context) if context else ""
        return replace(form, title=table.title, context=context, common=common)

    def _in_context(self, table: Table, context: Context) -> MeasuredTable | None:
        """Return the table's rows as run in a context; None where none of its own rows was."""
        runs, scaled = self._runs_in_context(table, context)
        if all(row.reference for row in table.rows() if row.id in runs):
            return None
        metrics = list_metrics(run for found in runs.values() for run in found)
        columns = [c for c in table.columns if c in metrics] or metrics or list(table.columns)
        shown = set(runs) | {row.baseline for row in table.rows() if row.id in runs and row.baseline}
        hidden = [row for row in table.rows() if row.id not in runs and not row.reference]
        origin = "Rows are named as in the paper: " if table.has_published else ""
        ran_as = f" With profile {context.profile}, {', '.join(scaled)}." if scaled else ""
        notes = [f"{origin}{table.title}.{ran_as}"]
        if hidden:
            notes.append(f"{len(hidden)} rows of the table have no runs here.")
        common = self.matcher.describe_context(context)
        title = f"{_numbered(table)}, {common}"
        if table.has_published:
            title += " (NOT comparable with the published numbers)"
        blocks = RowBuilder(table, runs, columns, self.matcher).blocks(shown)
        return MeasuredTable(table.name, title, context, columns, blocks, notes, common)

    def _runs_in_context(self, table: Table, context: Context) -> tuple[dict[str, list[Run]], list[str]]:
        """Return runs by row id, for rows that have any; and what the profile made of their intervals."""
        runs: dict[str, list[Run]] = {}
        scaled: list[str] = []
        for row in table.rows():
            full = self.matcher.load_row(table, row)
            if full is None or find_context(full) == context:  # the latter is the published table's
                continue
            as_run = self.matcher.recipes_of(table, row, context)
            found = self.matcher.find(as_run)
            if not found:
                continue
            runs[row.id] = found
            asked, got = full.weighting.get("alpha"), as_run[0].weighting.get("alpha")
            if asked != got:
                scaled.append(f"alpha = {asked} ran as {got}")
        return runs, list(dict.fromkeys(scaled))

    def find_nearest(self, table: Table, is_measured: bool) -> list[str]:
        """Return in which keys finished runs that are in no row differ from the nearest row.

        Of a table that has runs, `is_measured`, only what is near says something.
        """
        done = [run for run in self.matcher.unmatched() if run["state"] == "done"]
        found: list[tuple[int, str]] = []
        for runs in split_by(done, lambda run: run["recipe_id"])[:MAX_RECIPES]:
            own = self.matcher.recipe_by_id[runs[0]["recipe_id"]]
            if own is None:
                continue
            context = None if _has_one_form(table) else self.matcher.context_of(own)
            rows = [
                (list_differences(own, recipe), row.label)
                for row in table.rows()
                for recipe in self.matcher.recipes_of(table, row, context)
            ]
            changes, label = min(rows, key=lambda pair: len(pair[0]), default=([], ""))
            if changes:
                folder = group_runs(runs)[0].patterns[0]
                text = f"{folder} is in no row of {table.name}: nearest is '{label}'"
                found.append((len(changes), f"{text} but for {join_differences(changes)}."))
        found.sort(key=lambda pair: pair[0])
        near = [text for count, text in found[:MAX_NEAREST] if count <= MAX_NEAR_KEYS]
        return near or [text for _, text in found[: 0 if is_measured else 1]]


def _has_one_form(table: Table) -> bool:
    lies_in_ablations = table.path.parent.name == ABLATIONS
    return bool(lies_in_ablations or table.profile or table.dataset or table.set)


def _with_notes(table: MeasuredTable) -> MeasuredTable:
    """Return the table with notes on what its differences are to, and on runs of different commits."""
    wanted = {row.definition.baseline for row in table.rows}
    baselines = {row.full_label: row for row in table.rows if row.definition.id in wanted}
    notes = list(table.notes)
    if baselines:
        whose = "" if len(baselines) == 1 else "each row's own baseline, "
        if all(row.definition.own for row in baselines.values()):
            whose = "the recipe as it stands, "
        notes.append(f"Δ {table.columns[0]}: to {whose}{', '.join(baselines)}.")
    commits = {run["commit"] for group in table.groups for run in group.runs if run["commit"]}
    if len(commits) > 1:
        notes.append(
            f"These runs were made by {len(commits)} different commits of the code; record.json names each."
        )
    return replace(table, notes=notes)


def _numbered(table: Table) -> str:
    """Return `Table 1` for `table1`, `Figure 4` for `fig4`; any other name as it is."""
    found = re.fullmatch(r"(table|fig)(\d+)", table.name)
    return f"{'Table' if found[1] == 'table' else 'Figure'} {found[2]}" if found else table.name

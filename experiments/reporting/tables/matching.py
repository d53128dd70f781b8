"""Match runs to rows of tables, by what their recipes say and not by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.common.errors import UserError
from experiments.data.spec import DatasetSpec
from experiments.recipes import loading as recipes
from experiments.recipes.differences import join_differences, list_differences
from experiments.recipes.schema import Recipe, Schedule
from experiments.recipes.tables import Row, Table
from experiments.reporting.index import Index
from experiments.runs.mean_weights import mean_weights, time_means
from experiments.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Context:
    """What makes runs comparable with one another: a profile ("" for full size) and a data set's definition.

    Attributes:
        data: The definition without its name and place, as canonical JSON.
        dataset: The same, to be put into a row's recipe.
    """

    profile: str
    data: str
    dataset: DatasetSpec = field(compare=False)

    @property
    def digest(self) -> str:
        """Tells definitions of the same name apart."""
        return hashlib.sha256(self.data.encode()).hexdigest()[:6]


def context_of(recipe: Recipe) -> Context:
    """Return the profile and data set of a recipe: only runs of one context are compared."""
    data = recipe.dataset.model_dump(exclude={"name", "root"})  # as in the recipe's identity
    return Context(recipe.profile or "", json.dumps(data, sort_keys=True), recipe.dataset)


class Matcher:
    """Finds the runs of table rows, and remembers which have found a row.

    Args:
        runs: As collected.
        indexes: Of their results folders, as collected.

    Attributes:
        contexts: Of all runs, in the order in which they come.
        problems: One sentence for each recipe that could not be read.
    """

    def __init__(self, runs: pd.DataFrame, indexes: Mapping[str, Index] | None = None) -> None:
        self.runs = runs
        self._indexes = defaultdict(Index, indexes or {})
        self.problems: list[str] = []
        self.matched: set[str] = set()
        self._loaded: dict[tuple[str, str, str], Recipe | None] = {}
        self._own: dict[str, Recipe | None] = {}
        self._rows = {
            str(digest): rows for digest, rows in runs.groupby("recipe_id", sort=False).indices.items()
        }
        self._ids: dict[int, str] = {}  # by object: those of self._own, which live as long as this does
        self._datasets: dict[str, DatasetSpec] = {}
        self._contexts: dict[tuple[str, int], Context] = {}
        owned = [self.recipe_for_id(digest) for digest in self._rows]
        self.contexts = list(dict.fromkeys(self.context_of(recipe) for recipe in owned if recipe))
        self._results = dict(zip(runs["path"], runs["results"]))
        self._fixed_weights = {tuple(r.weighting.get("weights", ())) for r in owned if r}
        self._save()

    def recipe_for_id(self, recipe_id: str) -> Recipe | None:
        """Return the recipe that runs of an identity were started from; None if no page can be read."""
        if recipe_id not in self._own:
            self._own[recipe_id] = self._recipe_of_runs(self._rows[recipe_id])
        return self._own[recipe_id]

    def context_of(self, own: Recipe) -> Context:
        """Return the context of a recipe that `recipe_for_id` gave, looked up once."""
        key = (own.profile or "", id(own.dataset))
        if key not in self._contexts:
            self._contexts[key] = context_of(own)
        return self._contexts[key]

    def full_size(self, recipe: str, overrides: Mapping[str, Any]) -> Recipe | None:
        """Return a row's recipe on its own data set; None where it cannot be read."""
        return self.load(recipe, overrides, "")

    def in_context(self, recipe: str, overrides: Mapping[str, Any], context: Context) -> Recipe | None:
        """Return a row's recipe under the profile and on the data set of a context."""
        found = self.load(recipe, overrides, context.profile)
        return found and found.model_copy(update={"dataset": context.dataset})

    def of_row(self, table: Table, row: Row, context: Context | None = None) -> list[Recipe]:
        """Return the recipes that a row stands for: at full size on its own data, or in a context.

        Mostly one, none where it cannot be read. A row with `mean_weights_of` has one for each set of weights that
        `msdet reproduce` may have taken from that row's runs: the means over seed 0, over 0 and 1, and so on.
        """
        if row.recipe is None:
            return []
        choices = [row.overrides()]
        if row.mean_weights_of is not None:
            measured = self._mean_weights(table, table.row(row.mean_weights_of), row.mean, context)
            choices = [row.overrides(weights) for weights in measured]
        found = [
            self.full_size(row.recipe, overrides)
            if context is None
            else self.in_context(row.recipe, overrides, context)
            for overrides in choices
        ]
        return [recipe for recipe in found if recipe is not None]

    def _mean_weights(
        self, table: Table, source: Row, mean: Literal["level", "overall"], context: Context | None
    ) -> list[list[float]]:
        """Return means of each folder's seeds, and of all folders together, that there are runs with.

        Without such runs, return what the control would have now. (Thousands of seeds give thousands of means.)
        """
        runs = self.runs_of(self.of_row(table, source, context))
        done = runs.drop(runs.index[runs["state"] != "done"]).sort_values("seed", kind="stable")
        weights: list[list[float]] = []
        for _, alike in done.groupby("config_hash", sort=False):
            folders = alike["path"].map(lambda path: Path(path).parent)
            parts = [part for _, part in alike.groupby(folders, sort=False)]
            together = [alike] if len(parts) > 1 else []  # the seeds of several machines
            for part in [*parts, *together]:
                weights += self._means_in_turn(part, mean)
        return [one for one in weights if tuple(one) in self._fixed_weights] or weights[-1:]

    def _means_in_turn(self, runs: pd.DataFrame, mean: Literal["level", "overall"]) -> list[list[float]]:
        """Return means over seed 0, seeds 0 and 1, ...; empty where a trace is broken."""
        once = runs.drop_duplicates("seed")
        in_turn = [path for n, (path, seed) in enumerate(zip(once["path"], once["seed"])) if n == seed]
        with contextlib.suppress(UserError):  # nobody can have run the row; `msdet reproduce` says why
            return self.mean_weights(in_turn, mean)
        return []

    def mean_weights(
        self, paths: Iterable[Path | str], mean: Literal["level", "overall"]
    ) -> list[list[float]]:
        """Return mean weights as `experiments.runs.mean_weights`, reading unchanged traces once.

        Raises:
            UserError: A trace is missing or broken, or the runs differ in their levels.
        """
        try:
            return mean_weights([RunFolder(path) for path in paths], mean, self._time_means)
        finally:
            self._save()

    def _time_means(self, run: RunFolder) -> dict[str, float]:
        index = self._indexes[self._results[str(run.path)]]
        found: dict[str, float] = index.fact(run.name, run.trace, lambda: (time_means(run), True))
        return found

    def load(
        self, recipe: str, overrides: Mapping[str, Any], profile: str, quiet: bool = False
    ) -> Recipe | None:
        """Return a recipe, read once; None where it cannot be, which is a problem unless `quiet`."""
        key = (recipe, json.dumps(overrides, sort_keys=True), profile)
        if key not in self._loaded:
            try:
                self._loaded[key] = recipes.load_recipe(recipe, profile=profile or None, overrides=overrides)
            except UserError as error:
                self._loaded[key] = None
                if not quiet:
                    self._note(error)
        return self._loaded[key]

    def find(self, wanted: Iterable[Recipe]) -> pd.DataFrame:
        """Return all runs of these recipes, whatever their name, and mark them as matched."""
        found = self.runs_of(wanted)
        self.matched.update(found["path"])
        return found

    def runs_of(self, wanted: Iterable[Recipe]) -> pd.DataFrame:
        """Return all runs of these recipes without marking them."""
        ids = dict.fromkeys(self._id(recipe) for recipe in wanted)
        rows = [row for digest in ids for row in self._rows.get(digest, ())]
        return self.runs.take(sorted(rows))

    def _id(self, recipe: Recipe) -> str:
        """Return a recipe's identity; known of most recipes that `recipe_for_id` gave."""
        return self._ids.get(id(recipe)) or recipes.recipe_id(recipe)

    def unmatched(self) -> pd.DataFrame:
        """Return the runs that no `find` has found."""
        return self.runs.drop(self.runs.index[self.runs["path"].isin(self.matched)])

    def differs(self, run: pd.Series) -> str:
        """Return how a run differs from the recipe of its name; empty where that is unknown."""
        own = self.recipe_for_id(run["recipe_id"])
        named = self.load(run["recipe"], {}, run["profile"], quiet=True)
        return join_differences(list_differences(own, named)) if own and named else ""

    def _recipe_of_runs(self, rows: Iterable[int]) -> Recipe | None:
        """Return the first readable recipe of runs with one identity."""
        errors = []
        for row in rows:
            run = RunFolder(str(self.runs["path"].iat[row]))
            index = self._indexes[str(self.runs["results"].iat[row])]
            try:
                return self._recipe(run, index)
            except UserError as error:
                errors.append(error)
        self._note(errors[0])
        return None

    def _recipe(self, run: RunFolder, index: Index) -> Recipe:
        """Return the recipe on a run's page; UserError where it cannot be read."""

        def read() -> tuple[Any, bool]:
            recipe = recipes.load_resolved(run.recipe)
            if recipe is None:
                return recipes.load_recipe(str(run.recipe.resolve())), False
            content = {"recipe_id": recipes.recipe_id(recipe), **recipe.model_dump()}
            return (content, True) if _outlasts_json(content) else (recipe, False)

        found = index.fact(run.name, run.recipe, read)
        if isinstance(found, Recipe):
            return found
        recipe_id = found["recipe_id"]
        data = json.dumps(found["dataset"])
        if data not in self._datasets:
            self._datasets[data] = DatasetSpec.model_validate(found["dataset"])
        parts = {"dataset": self._datasets[data], "schedule": Schedule.model_construct(**found["schedule"])}
        fields = {key: value for key, value in found.items() if key != "recipe_id"}
        recipe = Recipe.model_construct(**{**fields, **parts})  # validated when it was read
        self._ids[id(recipe)] = recipe_id
        return recipe

    def _save(self) -> None:
        for index in self._indexes.values():
            index.save()

    def _note(self, error: UserError) -> None:
        sentence = f"{error.message}."
        if sentence not in self.problems:
            self.problems.append(sentence)


def _outlasts_json(content: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(json.dumps(content)) == content)
    except (TypeError, ValueError):
        return False

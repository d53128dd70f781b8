"""Match runs to rows of tables, by what their recipes say and not by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.common.cache import FileFacts
from experiments.common.errors import UserError
from experiments.data.spec import DatasetSpec
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe, Schedule
from experiments.recipes.tables import Row, Table
from experiments.reporting.collect import Collected, Run, find_parent, split_by
from experiments.runs.mean_weights import compute_mean_weights, time_means
from experiments.runs.run_folder import RunFolder

UNKNOWN_WEIGHTS = (1.0,)  # what a recipe is loaded with whose weights do not matter


@dataclass(frozen=True)
class Context:
    """What makes runs comparable with one another: a profile ("" for full size) and a data set's definition."""

    profile: str
    data: str  # the definition without its name and place, as canonical JSON
    dataset: DatasetSpec = field(compare=False)  # the same, to be put into a row's recipe


def find_context(recipe: Recipe) -> Context:
    """Return the profile and data set of a recipe: only runs of one context are compared."""
    data = recipe.dataset.model_dump(exclude={"name", "root"})  # as in the recipe's identity
    return Context(recipe.profile or "", json.dumps(data, sort_keys=True), recipe.dataset)


class Matcher:
    """Finds the runs of table rows, and remembers which have found a row."""

    def __init__(self, collected: Collected) -> None:
        self.runs = collected.runs
        self.problems: list[str] = []  # a sentence for each recipe that could not be read; rows may share one
        self.matched: set[str] = set()
        self._facts = defaultdict(FileFacts, collected.facts)
        self._loaded: dict[tuple[Any, ...], Recipe | None] = {}
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, run in enumerate(self.runs):
            self._places[run["recipe_id"]].append(place)
        self._datasets: dict[str, DatasetSpec] = {}
        self._contexts: dict[tuple[str, int], Context] = {}
        # By the runs' `recipe_id`, in the order in which they come: what they were started from; None if no page of
        # them can be read.
        self.recipe_by_id = {digest: self._recipe_of_runs(places) for digest, places in self._places.items()}
        readable = [recipe for recipe in self.recipe_by_id.values() if recipe]
        self.contexts = list(dict.fromkeys(map(self.context_of, readable)))  # in the same order
        self._means: dict[str, dict[str, float]] = {}
        self._results = {run["path"]: run["results"] for run in self.runs}
        self._fixed_weights = {tuple(recipe.weighting.get("weights", ())) for recipe in readable}

    def context_of(self, own: Recipe) -> Context:
        """Return the context of a recipe of `recipe_by_id`, looked up once."""
        key = (own.profile or "", id(own.dataset))
        if key not in self._contexts:
            self._contexts[key] = find_context(own)
        return self._contexts[key]

    def describe_context(self, context: Context) -> str:
        """Return `profile tiny on shapes` or `full size on coco`, with a digest if the name is ambiguous."""
        name = context.dataset.name
        if len({other.data for other in self.contexts if other.dataset.name == name}) > 1:
            name += f" (definition {hashlib.sha256(context.data.encode()).hexdigest()[:6]})"
        return f"profile {context.profile} on {name}" if context.profile else f"full size on {name}"

    def recipes_of(self, table: Table, row: Row, context: Context | None = None) -> list[Recipe]:
        """Return the recipes that a row stands for: as its table says, or in a context.

        Mostly one, none where it cannot be read. A row with `mean_weights_of` has one for each set of weights that
        `msdet reproduce` may have taken from that row's runs: the means over seed 0, over 0 and 1, and so on.
        """
        choices: list[tuple[float, ...]] = [UNKNOWN_WEIGHTS]
        if row.mean_weights_of is not None:
            choices = self._measured_weights(table, table.row(row.mean_weights_of), row.mean, context)
        profile = context.profile if context else ""
        found = [self.load_row(table, row, weights, profile) for weights in choices]
        update = {"dataset": context.dataset} if context else {}
        return [recipe.model_copy(update=update) for recipe in found if recipe is not None]

    def load_row(
        self, table: Table, row: Row, weights: tuple[float, ...] = UNKNOWN_WEIGHTS, profile: str = ""
    ) -> Recipe | None:
        """Return what a row runs, read once; None where it has no recipe, or that cannot be read."""
        if row.recipe is None:
            return None
        key = (id(table), row.id, weights, profile)
        if key not in self._loaded:
            try:
                self._loaded[key] = table.recipe_of(row, weights, profile or None)
            except UserError as error:
                self._loaded[key] = None
                self.problems.append(f"{error.message}.")
        return self._loaded[key]

    def load_named(self, name: str, profile: str) -> Recipe | None:
        """Return the recipe of a name as it stands, under a profile; None where it cannot be read."""
        key = (name, profile)
        if key not in self._loaded:
            self._loaded[key] = None
            with contextlib.suppress(UserError):
                self._loaded[key] = recipes.load_recipe(name, profile or None)
        return self._loaded[key]

    def _measured_weights(
        self, table: Table, source: Row, mean: Literal["level", "overall"], context: Context | None
    ) -> list[tuple[float, ...]]:
        """Return means of each folder's seeds, and of all folders together, that there are runs with.

        Without such runs, return what the control would have now. (Thousands of seeds give thousands of means.)
        """
        runs = self.runs_of(self.recipes_of(table, source, context))
        done = sorted((run for run in runs if run["state"] == "done"), key=lambda run: run["seed"])
        weights: list[tuple[float, ...]] = []
        for alike in split_by(done, lambda run: run["config_hash"]):
            parts = split_by(alike, find_parent)
            together = [alike] if len(parts) > 1 else []  # the seeds of several machines
            for part in [*parts, *together]:
                weights += map(tuple, self._means_in_turn(part, mean))
        return [one for one in weights if self.has_run_with(one)] or weights[-1:]

    def has_run_with(self, weights: Iterable[float]) -> bool:
        """Return whether any run had these fixed weights: few of the means that thousands of seeds give."""
        return tuple(weights) in self._fixed_weights

    def _means_in_turn(self, runs: list[Run], mean: Literal["level", "overall"]) -> list[list[float]]:
        """Return means over seed 0, seeds 0 and 1, ...; empty where a trace is broken."""
        once = {run["seed"]: run["path"] for run in reversed(runs)}
        in_turn = [once[seed] for n, seed in enumerate(sorted(once)) if n == seed]
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
        return compute_mean_weights([RunFolder(path) for path in paths], mean, self._time_means)

    def _time_means(self, run: RunFolder) -> dict[str, float]:
        path, name = str(run.path), f"{run.name}/trace.csv"
        if path not in self._means:  # two controls, and several tables, ask for those of a run
            facts = self._facts[self._results[path]]
            self._means[path] = facts.fact(name, run.trace, lambda: (time_means(run), True))
        return self._means[path]

    def find(self, wanted: Iterable[Recipe]) -> list[Run]:
        """Return all runs of these recipes, whatever their name, and mark them as matched."""
        found = self.runs_of(wanted)
        self.matched.update(run["path"] for run in found)
        return found

    def runs_of(self, wanted: Iterable[Recipe]) -> list[Run]:
        """Return all runs of these recipes without marking them."""
        return self.runs_with_ids(dict.fromkeys(map(recipes.compute_recipe_id, wanted)))

    def runs_with_ids(self, recipe_ids: Iterable[str]) -> list[Run]:
        """Return all runs of these identities, in the order in which they were collected."""
        places = sorted(place for digest in recipe_ids for place in self._places.get(digest, ()))
        return [self.runs[place] for place in places]

    def unmatched(self) -> list[Run]:
        """Return the runs that no `find` has found."""
        return [run for run in self.runs if run["path"] not in self.matched]

    def _recipe_of_runs(self, places: Iterable[int]) -> Recipe | None:
        """Return the first readable recipe of runs with one identity."""
        errors = []
        for place in places:
            run = self.runs[place]
            try:
                return self._recipe(RunFolder(run["path"]), self._facts[run["results"]])
            except UserError as error:
                errors.append(error)
        self.problems.append(f"{errors[0].message}.")
        return None

    def _recipe(self, run: RunFolder, facts: FileFacts) -> Recipe:
        """Return the recipe on a run's page; UserError where it cannot be read."""

        def read() -> tuple[Any, bool]:
            recipe = recipes.load_resolved(run.recipe)
            if recipe is None:  # it needs other files
                return recipes.load_recipe(str(run.recipe.resolve())), False
            content = recipe.model_dump()
            return (content, True) if _outlasts_json(content) else (recipe, False)

        found = facts.fact(f"{run.name}/recipe.yaml", run.recipe, read)
        if isinstance(found, Recipe):
            return found
        data = json.dumps(found["dataset"])
        if data not in self._datasets:
            self._datasets[data] = DatasetSpec.model_validate(found["dataset"])
        parts = {"dataset": self._datasets[data], "schedule": Schedule.model_construct(**found["schedule"])}
        return Recipe.model_construct(**{**found, **parts})  # validated when it was read

    def save(self) -> None:
        """Keep what was read for the next report."""
        for facts in self._facts.values():
            facts.save()


def _outlasts_json(content: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(json.dumps(content)) == content)
    except (TypeError, ValueError):
        return False

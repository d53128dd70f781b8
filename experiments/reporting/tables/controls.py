"""The controls of a row that lies above its baseline: what adapts must beat what does not.

A rule that raises the sum of the weights acts a little like a larger learning rate, and a policy that learns nothing
may look as good. So beside a row of an adaptive rule stand, over the same seeds and otherwise of the same recipe: for
RLO the same with gamma = 0, then random weights, and the row's own mean weights held fixed, level by level and over all
levels.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.reporting.stats.statistics import Difference, Spread
from experiments.reporting.tables.groups import Group, compare_groups, group_runs
from experiments.reporting.tables.matching import Matcher
from experiments.runs.run_folder import RunFolder
from experiments.weighting.options import check_options, is_adaptive

MAX_COMMANDS = 5  # for single seeds; more are asked for by their highest, which skips those that are done


@dataclass(frozen=True)
class Control:
    """One control of a row."""

    name: str
    spread: Spread | None  # over those of the row's seeds that have a finished run of it; None where none has
    difference: Difference | None  # the row minus this control
    missing: tuple[int, ...]  # seeds of the row without a finished run of the control
    commands: tuple[str, ...]  # what to type for those
    folders: tuple[Path, ...]
    note: str = ""  # why there is no command, if so


def find_controls(group: Group, metric: str, matcher: Matcher) -> tuple[Control, ...]:
    """Return the controls of a row's runs; none where its rule is one itself, or its recipe cannot be read."""
    recipe = matcher.recipe_by_id[group.recipe_id]
    if recipe is None or not is_adaptive(recipe.weighting) or group.is_imported:
        return ()
    finder = _ControlFinder(group, metric, recipe, matcher)
    return tuple(finder.control(*kind) for kind in finder.kinds())


@dataclass(frozen=True)
class _ControlFinder:
    """Finds the controls of a group of runs that have one recipe."""

    group: Group
    metric: str
    recipe: Recipe
    matcher: Matcher

    def kinds(self) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
        """Yield each control's name, what of `weighting` it changes, and why that is not known.

        Where several changes will do, the preferred one comes last.
        """
        if self.recipe.weighting.get("rule") == "rlo":
            yield "gamma = 0", [{"gamma": 0.0}], ""
        yield "random weights", [{"rule": "random"}], ""
        names: dict[Literal["level", "overall"], str] = {
            "level": "its mean weight of each level",
            "overall": "its mean weight, all levels",
        }
        for mean, name in names.items():
            try:
                *before, last = self.matcher.mean_weights(self.group.finished_folders, mean)
                by_count = [*filter(self.matcher.has_run_with, before), last]
                yield name, [{"rule": "static", "weights": weights} for weights in by_count], ""
            except UserError as error:
                yield name, [], error.message

    def control(self, name: str, changes: list[dict[str, Any]], reason: str) -> Control:
        """Return a control's runs on the group's data and seeds; of several ways to have it, that with most seeds."""
        seeds, own = set(self.group.by_seed(self.metric)), self.recipe
        wanted = [own.model_copy(update={"weighting": _changed(own.weighting, change)}) for change in changes]
        runs = self.matcher.runs_of(wanted)
        ours = [run for run in runs if run["seed"] in seeds and run["fingerprint"] == self.group.fingerprint]
        found = [part for part in group_runs(ours) if self.metric in part.metrics and not part.is_imported]
        best = max(found, key=lambda part: part.metrics[self.metric].n, default=None)
        missing = tuple(sorted(seeds - set(best.by_seed(self.metric)) if best else seeds))
        commands = self._commands(changes[-1], missing) if changes and missing else ()
        if best is None:
            return Control(name, None, None, missing, commands, (), reason)
        change, _ = compare_groups(self.group, best, self.metric)
        return Control(
            name, best.metrics[self.metric], change, missing, commands, tuple(best.folders), reason
        )

    def _commands(self, change: dict[str, Any], seeds: tuple[int, ...]) -> tuple[str, ...]:
        """Return `msdet run ...`, from the recipe's name where that says it all, else from a run's own page."""
        folder = self.group.folders[0]
        words = ["msdet", "run", *self._page(folder)]
        for key, value in change.items():
            words += ["--set", f"weighting.{key}={value if isinstance(value, str) else json.dumps(value)}"]
        results = str(folder.parents[3])
        where = ["--results-dir", results] if results != "results" else []
        if seeds == tuple(range(len(seeds))) or len(seeds) > MAX_COMMANDS:
            return (shlex.join([*words, "--seeds", str(seeds[-1] + 1), *where]),)
        return tuple(shlex.join([*words, "--seed", str(seed), *where]) for seed in seeds)

    def _page(self, folder: Path) -> list[str]:
        name, profile = self.recipe.name, self.recipe.profile
        named = self.matcher.load_named(name, profile or "")
        if named is not None and recipes.describe_identity(named) == recipes.describe_identity(self.recipe):
            return [name, *(["-p", profile] if profile else [])]
        return [str(RunFolder(folder).recipe)]


def _changed(weighting: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return the weighting changed as `--set` would: another rule keeps what every rule has."""
    rule = change.get("rule", weighting["rule"])
    is_same = rule == weighting["rule"]
    kept = {key: value for key, value in weighting.items() if is_same or key in ("alpha", "epsilon")}
    options = {key: value for key, value in {**kept, **change}.items() if key not in ("rule", "where")}
    where = {"where": weighting["where"]} if "where" in weighting else {}
    return {"rule": rule, **check_options(rule, options), **where}

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
from experiments.reporting.tables.groups import Group, against, group_runs
from experiments.reporting.tables.matching import Matcher
from experiments.runs.run_folder import RunFolder
from experiments.weighting.options import adapts, check_options


@dataclass(frozen=True)
class Control:
    """One control of a row.

    Attributes:
        spread: Over those of the row's seeds that have a finished run of it; None where none has.
        difference: The row minus this control.
        missing: Seeds of the row without a finished run of the control.
        commands: What to type for those.
        note: Why there is no command, if so.
    """

    name: str
    spread: Spread | None
    difference: Difference | None
    missing: tuple[int, ...]
    commands: tuple[str, ...]
    folders: tuple[Path, ...]
    note: str = ""


def controls_of(group: Group, metric: str, matcher: Matcher) -> tuple[Control, ...]:
    """The controls of a row's runs; none where its rule is one itself, or its recipe cannot be read."""
    own = matcher.recipe_for_id(group.recipe_id)
    if own is None or not adapts(own.weighting) or group.is_imported:
        return ()
    return tuple(
        _control(name, changes, reason, own, group, metric, matcher)
        for name, changes, reason in _kinds(own, group, matcher)
    )


def _kinds(own: Recipe, group: Group, matcher: Matcher) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
    """Name, what of `weighting` changes (several ways where several will do, the preferred one last), and why none is
    known."""
    if own.weighting.get("rule") == "rlo":
        yield "gamma = 0", [{"gamma": 0.0}], ""
    yield "random weights", [{"rule": "random"}], ""
    kinds: tuple[tuple[Literal["level", "overall"], str], ...] = (
        ("level", "its mean weight of each level"),
        ("overall", "its mean weight, all levels"),
    )
    for mean, name in kinds:
        try:
            by_count = matcher.mean_weights(group.finished_folders, mean)
            yield name, [{"rule": "static", "weights": weights} for weights in by_count], ""
        except UserError as error:
            yield name, [], error.message


def _control(
    name: str,
    changes: list[dict[str, Any]],
    reason: str,
    own: Recipe,
    group: Group,
    metric: str,
    matcher: Matcher,
) -> Control:
    seeds = set(group.by_seed(metric))
    wanted = [own.model_copy(update={"weighting": _changed(own.weighting, change)}) for change in changes]
    runs = matcher.runs_of(wanted)
    ours = runs["seed"].isin(seeds) & (runs["fingerprint"] == group.fingerprint)
    runs = runs.drop(runs.index[~ours])
    found = [part for part in group_runs(runs) if metric in part.metrics and not part.is_imported]
    best = max(found, key=lambda part: part.metrics[metric].n, default=None)
    missing = sorted(seeds - set(best.by_seed(metric)) if best else seeds)
    commands = _commands(group, changes[-1], missing, own, matcher) if changes and missing else ()
    if best is None:
        return Control(name, None, None, tuple(missing), commands, (), reason)
    change, _ = against(group, [best], metric)
    return Control(name, best.metrics[metric], change, tuple(missing), commands, tuple(best.folders), reason)


def _changed(weighting: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """As `--set` would have it: another rule keeps what every rule has."""
    rule = change.get("rule", weighting["rule"])
    kept = (
        weighting
        if rule == weighting["rule"]
        else {k: weighting[k] for k in ("alpha", "epsilon") if k in weighting}
    )
    options = {key: value for key, value in {**kept, **change}.items() if key not in ("rule", "where")}
    where = {"where": weighting["where"]} if "where" in weighting else {}
    return {"rule": rule, **check_options(rule, options), **where}


def _commands(
    group: Group, change: dict[str, Any], seeds: list[int], own: Recipe, matcher: Matcher
) -> tuple[str, ...]:
    """`msdet run ...`, from the recipe's name where that says it all, else from a run's own page."""
    folder = group.folders[0]
    results = folder.parents[3]
    words = ["msdet", "run", *_page(own, folder, matcher)]
    for key, value in change.items():
        words += ["--set", f"weighting.{key}={value if isinstance(value, str) else json.dumps(value)}"]
    where = ["--results-dir", str(results)] if str(results) != "results" else []
    if seeds == list(range(len(seeds))):
        return (shlex.join([*words, "--seeds", str(len(seeds)), *where]),)
    return tuple(shlex.join([*words, "--seed", str(seed), *where]) for seed in seeds)


def _page(own: Recipe, folder: Path, matcher: Matcher) -> list[str]:
    named = matcher.load(own.name, {}, own.profile or "", quiet=True)
    if named is not None and recipes.identity(named) == recipes.identity(own):
        return [own.name, *(["-p", own.profile] if own.profile else [])]
    return [str(RunFolder(folder).recipe)]

"""The command that does one planned run and nothing else, whatever command has planned it."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from experiments.common.errors import UserError
from experiments.data.find import resolve_root
from experiments.launching.plan import PlannedRun
from experiments.recipes.catalogue import load_dataset
from experiments.recipes.loading import load_recipe

Content = dict[str, Any]
_PLAIN = re.compile(r"[A-Za-z][\w./:-]*[\w/]")  # text that YAML reads as this text, but for a few words
_WORDS = ("true", "false", "null", "yes", "no", "on", "off")


def equivalent_command(run: PlannedRun) -> str | None:
    """`msdet run NAME -p PROFILE --set KEY=VALUE ... --seed K`, for a shell.

    None where the recipe cannot be called by its name, as one from a path, or `--set` cannot make it.
    """
    recipe = run.recipe
    base = _base(recipe.name, recipe.profile)
    options = None if base is None else _options(base, recipe.model_dump())
    if options is None:
        return None
    words = ["msdet", "run", recipe.name, *(["-p", recipe.profile] if recipe.profile else []), *options]
    words += ["--seed", str(run.seed)]
    if resolve_root(recipe.dataset) != run.data.root:
        words += ["--data-root", str(run.data.root)]
    if run.launch.processes > 1:
        words += ["--gpus", str(run.launch.processes)]
    if run.launch.track:
        words += ["--track", ",".join(run.launch.track)]
    results = str(run.folder.path.parents[3])
    return shlex.join(words + (["--results-dir", results] if results != "results" else []))


@functools.lru_cache(maxsize=256)
def _base(name: str, profile: str | None) -> Content | None:
    try:
        return load_recipe(name, profile).model_dump()
    except UserError:
        return None


def _options(base: Content, wanted: Content) -> list[str] | None:
    """What makes one recipe of the other; None where nothing does."""
    options: list[str] = []
    for key, value in wanted.items():
        before = base[key]
        if key == "set" and value != before:
            if not _replaces(before, value):
                return None
            options += _sets((f"set.{inner}", each) for inner, each in value.items())
        elif key == "dataset" and value != before:
            named = _named_dataset(value)
            options += ["--dataset", named] if named else _sets([(key, value)])
        elif key == "weighting" and value.get("rule") != before.get("rule"):
            options += _sets([(key, value)])
        elif key in ("weighting", "schedule"):
            changed = [name for name in {**before, **value} if before.get(name) != value.get(name)]
            options += _sets((f"{key}.{name}", value.get(name)) for name in changed)
        elif value != before:
            options += _sets([(key, value)])
    return options


def _replaces(before: Content, wanted: Content) -> bool:
    """Whether nothing of `before` is left when all of `wanted` is set: a key replaces those below it."""
    new = [key.lstrip("+") for key in wanted]
    return all(any(f"{old.lstrip('+')}.".startswith(f"{key}.") for key in new) for old in before)


def _sets(pairs: Any) -> Iterator[str]:
    for key, value in pairs:
        yield "--set"
        yield f"{key}={_yaml(value)}"


def _yaml(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)  # which is YAML, too


def _named_dataset(wanted: Content) -> str | None:
    try:
        return wanted["name"] if load_dataset(wanted["name"]).model_dump() == wanted else None
    except UserError:
        return None

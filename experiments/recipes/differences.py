"""In which keys two recipes differ, and a run's recipe from the page of its name. No torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from experiments.common.config_text import flatten_keys
from experiments.common.errors import UserError
from experiments.recipes import loading
from experiments.recipes.schema import Recipe


def list_differences(recipe: Recipe, other: Recipe) -> list[str]:
    """Return `weighting.alpha: 5 (10)` for each key: the first recipe's value, and the other's in brackets.

    A data set of another definition is one entry, `dataset: mine (coco)`.
    """
    one, two = (loading.describe_identity(each) for each in (recipe, other))
    is_same_data = one.pop("dataset") == two.pop("dataset")
    data = [] if is_same_data else [f"dataset: {recipe.dataset.name} ({other.dataset.name})"]
    values, others = flatten_keys(one), flatten_keys(two)
    keys = [key for key in {**values, **others} if repr(values.get(key, "-")) != repr(others.get(key, "-"))]
    texts = ([json.dumps(each[key]) if key in each else "-" for key in keys] for each in (values, others))
    return [*(f"{key}: {own} ({named})" for key, own, named in zip(keys, *texts)), *data]


def join_differences(found: list[str], max_keys: int = 4) -> str:
    """Return differences as one text that names no more than `max_keys` of them."""
    more = f", and {len(found) - max_keys} more" if len(found) > max_keys else ""
    return ", ".join(found[:max_keys]) + more


class NamedRecipes:
    """Compares the recipes of runs with the pages of their names; reads each page once."""

    def __init__(self) -> None:
        self._differences: dict[tuple[str, str], list[str]] = {}
        self._load_named = functools.cache(_load_named)

    def list_differences(self, page: Path, recipe_id: str, name: str) -> list[str]:
        """Return in what a run's recipe, on `page`, differs from that of its name; empty where one cannot be read.

        Runs of one identity and name share the answer.
        """
        key = (recipe_id, name)
        if key not in self._differences:
            own = _read(page)
            named = self._load_named(name, own.profile) if own else None
            self._differences[key] = list_differences(own, named) if own and named else []
        return self._differences[key]


def _load_named(name: str, profile: str | None) -> Recipe | None:
    try:
        return loading.load_recipe(name, profile)
    except UserError:  # no page of that name here, or it is broken
        return None


def _read(page: Path) -> Recipe | None:
    try:
        return loading.load_resolved(page) or loading.load_recipe(str(page.resolve()))
    except UserError:
        return None

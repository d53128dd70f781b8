"""Layers of a recipe: merging them, and reading `--set KEY=VALUE` as one. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.common.errors import UserError
from experiments.recipes.catalogue import load_dataset
from experiments.recipes.schema import Recipe, Schedule
from experiments.recipes.yaml_format import parse_yaml
from experiments.weighting.options import OPTIONS

RECIPE_KEYS = tuple(key for key in Recipe.model_fields if key != "profile")  # those that --set takes
SECTIONS = ("dataset", "schedule", "weighting", "set")  # those with keys of their own


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the unvalidated recipe `base` changed by `layer`; neither is altered.

    Mappings merge key by key, all else replaces. A weighting with another rule replaces the old one except for
    `where`, which belongs to the detector. A data set with a name replaces the old one. An MMEngine key under `set`
    replaces all keys below it. A length in epochs replaces one in iterations, and the reverse.
    """
    merged = dict(base)
    for key, value in layer.items():
        old = merged.get(key)
        if not (isinstance(value, Mapping) and isinstance(old, Mapping)):
            merged[key] = value
        elif key == "set":
            merged[key] = _merge_set(old, value)
        elif key == "weighting" and value.get("rule", rule := old.get("rule", "uniform")) != rule:
            merged[key] = {**{k: v for k, v in old.items() if k == "where"}, **value}
        elif key == "dataset" and "name" in value:
            merged[key] = dict(value)
        elif key == "schedule":
            merged[key] = {**_without_other_unit(old, value), **value}
        else:
            merged[key] = merge(old, value)
    return merged


def _merge_set(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    replaced = tuple(f"{key.lstrip('+')}." for key in new)
    kept = {key: value for key, value in old.items() if not f"{key.lstrip('+')}.".startswith(replaced)}
    return {**kept, **new}


def _without_other_unit(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(old)
    for unit, other in (("epochs", "iterations"), ("iterations", "epochs")):
        if new.get(unit) is not None and new.get(other) is None:
            kept.pop(other, None)
    return kept


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return `a.b=1e-3` as ("a.b", 0.001); the value is YAML: a number, text, true, null, [a, b], {a: b}.

    Raises:
        UserError: No `=`, no key, no value, or the value is not YAML.
    """
    where, syntax = f"--set {text}", "write KEY=VALUE, as in --set schedule.lr=0.01"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"{where}: {'the key' if equals else 'an =VALUE'} is missing", syntax)
    if not all(part.strip() == part != "" for part in key.removeprefix("+").split(".")):
        raise UserError(f"{where}: '{key}' is not a dotted key", syntax)
    if not value.strip():
        choice = f"--set {key}=null for none, --set {key}='\"\"' for no text"
        raise UserError(f"{where}: the value is missing", choice)
    return key, parse_yaml(value, where)


def build_layer(assignments: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return dotted keys as a layer: recipe keys in their places, all others under `set` for MMEngine."""
    layer: dict[str, Any] = {}
    paths = [(_path(key), value) for key, value in assignments]
    for path, value in sorted(paths, key=lambda pair: len(pair[0])):  # the whole before its parts
        _put(layer, path, value)
    return layer


def _path(key: str) -> list[str]:
    """Return the path into a recipe where the value of a dotted key belongs."""
    first, dot, rest = key.partition(".")
    if first == "set" and dot:
        return ["set", rest]
    if first in SECTIONS or (first in RECIPE_KEYS and not dot):
        return key.split(".")
    if key.startswith("+") or (dot and first == "model"):
        return ["set", key]
    if first in ("profile", "profiles", "extends"):
        raise UserError(f"--set {key}: '{first}' cannot be set", "choose a profile with -p NAME")
    if first in RECIPE_KEYS:
        raise UserError(f"--set {key}: '{first}' has no keys below it", f"--set {first}=VALUE")
    known = {name: f"{name}.{rest}" for name in SECTIONS} if dot else list_dotted_keys()
    close = difflib.get_close_matches(first, known, n=1, cutoff=0.8 if dot else 0.6)
    if close:
        text = f"--set {key}: unknown key; did you mean '{known[close[0]]}'?"
        raise UserError(text, f"an MMEngine key of that name is set with --set set.{key}=VALUE")
    return ["set", key]


def list_dotted_keys() -> dict[str, str]:
    """Return the last word of each key of a recipe to the whole key, options of all rules included."""
    keys = {name: f"schedule.{name}" for name in Schedule.model_fields}
    keys |= {name: f"weighting.{name}" for options in OPTIONS.values() for name in options.model_fields}
    keys |= {"rule": "weighting.rule", "where": "weighting.where", "root": "dataset.root"}
    return keys | {name: name for name in RECIPE_KEYS}


def _put(layer: dict[str, Any], path: list[str], value: Any) -> None:
    node = layer
    for depth, part in enumerate(path[:-1]):
        below = node.setdefault(part, {})
        if part == "dataset" and depth == 0 and isinstance(below, str):
            below = node[part] = load_dataset(below).model_dump()
        if not isinstance(below, dict):
            above = ".".join(path[: depth + 1])
            raise UserError(f"--set {'.'.join(path)}: '{above}' is set to {below!r} as well")
        node = below
    node[path[-1]] = value


def parse_values(text: str) -> list[Any]:
    """Return `5,50,[1.5,1.0]` as [5, 50, [1.5, 1.0]]: commas in brackets, braces and quotes do not separate.

    Raises:
        UserError: A value is empty or not YAML.
    """
    try:
        values = parse_yaml(f"[{text}]", text)
    except UserError:
        values = None
    if not isinstance(values, list) or not values or text.rstrip().endswith(","):
        raise UserError(
            f"'{text}': a value is empty, or brackets or quotes do not match", "write values as a,b,[c,d]"
        )
    return values

"""Recipes: read from YAML with all they extend, identified by a hash, and written. No torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from experiments.common.checking import check_keys, describe_mistake
from experiments.common.errors import UserError
from experiments.common.files import display_path, read_text
from experiments.recipes import catalogue
from experiments.recipes.overrides import build_layer, merge, parse_assignment
from experiments.recipes.schema import WHERE, Recipe
from experiments.recipes.yaml_format import dump_yaml, parse_quickly
from experiments.weighting.options import OPTIONS

MAX_CHAIN = 50  # recipes that extend each other
Sets = Sequence[str] | Mapping[str, Any]  # `KEY=VALUE` strings, or dotted recipe keys to values
Variants = Callable[[Sets], Recipe]  # what `prepare_variants` returns


def load_recipe(
    ref: str,
    profile: str | None = None,
    sets: Sets = (),
    dataset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return a resolved recipe.

    Layers, each changing those before: the recipe that it extends, the recipe, `overrides`, the profile, the
    recipe's additions to that profile, `dataset`, `sets`. Finally the profile's `alpha_scale` shortens the
    interval, unless `sets` has an `alpha`.

    Args:
        ref: Name or path. A resolved recipe (`recipe.yaml` in a run folder) is returned unchanged.
        profile, dataset: Names or paths; the data set replaces the recipe's.
        overrides: Dotted recipe keys to values, as rows of tables have them.

    Raises:
        UserError: A key or value is wrong; names the file, the dotted key and what is allowed.
    """
    return prepare_variants(ref, profile, dataset, overrides)(sets)


def load_resolved(path: Path) -> Recipe | None:
    """Return what `load_recipe` does for a page that `dump` wrote, in an eighth of the time.

    Returns:
        None where the page was not written by `dump`, needs other files or is wrong: use `load_recipe`.
    """
    with contextlib.suppress(UserError, ValueError, yaml.YAMLError, RecursionError):
        raw = parse_quickly(read_text(path))
        match raw:
            case {"name": _, "dataset": dict(), "model": str(model)} if model.startswith("mmdet:"):
                if raw.keys() <= Recipe.model_fields.keys() and raw.get("init_from") is None:
                    return _validated(raw, str(path), {})
    return None


def prepare_variants(
    ref: str, profile: str | None, dataset: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Variants:
    """Read a recipe's files, and return a function that takes `sets` and returns what `load_recipe` does."""
    path = catalogue.find("recipe", str(ref))
    where = f"recipe {display_path(path)}"
    raw = _read_chain(path)
    raw = merge(raw, _anchored(build_layer((overrides or {}).items()), Path.cwd()))
    blocks = raw.pop("profiles", None) or {}
    raw, scale = (raw, 1.0) if profile is None else _with_profile(raw, profile, blocks, where)
    if dataset is not None:
        raw["dataset"] = catalogue.load_dataset(dataset).model_dump()
    return functools.partial(_with_sets, raw, scale, where)


def _with_sets(raw: dict[str, Any], scale: float, where: str, sets: Sets) -> Recipe:
    """Return the recipe with the last layer, `sets`; `raw` is not changed."""
    layer = build_layer(sets.items() if isinstance(sets, Mapping) else map(parse_assignment, sets))
    check_keys(layer, Recipe, "--set")
    changed = merge(raw, _anchored(layer, Path.cwd()))
    weighting = layer.get("weighting")
    if not (isinstance(weighting, dict) and weighting.get("alpha") is not None):
        changed["weighting"] = _scaled(changed.get("weighting"), scale)
    return _validated(changed, where, layer)


def _read_chain(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the unvalidated recipe in `path`, merged onto those it extends."""
    where = f"recipe {display_path(path)}"
    if path in seen:
        cycle = " -> ".join(p.stem for p in (*seen[seen.index(path) :], path))
        raise UserError(f"{where}: extends itself: {cycle}", "change or remove its `extends`")
    if len(seen) > MAX_CHAIN:
        raise UserError(f"{where}: stands behind more than {MAX_CHAIN} others that extend each other")
    raw = catalogue.read_yaml(path)
    check_keys(raw, Recipe, where, extra=("extends", "profiles"))
    blocks = raw.pop("profiles", None) or {}
    if not isinstance(blocks, dict):
        raise UserError(f"{where}: profiles: must be a mapping of profile names, not {blocks!r}")
    raw["profiles"] = {
        name: _profile_layer(block, path.parent, f"{where}: profiles.{name}")
        for name, block in blocks.items()
    }
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "recipe")
    parent = raw.pop("extends", None)
    raw = _anchored(raw, path.parent)
    if parent is None:
        return raw
    try:
        below = catalogue.find("recipe", parent, path.parent)
    except UserError as error:
        raise UserError(f"{where}: extends: {error.message}", error.hint) from None
    return merge(_read_chain(below, (*seen, path)), raw)


def _anchored(layer: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return a layer with its data set read and its paths, relative to the folder `base`, made absolute."""
    layer = dict(layer)
    if isinstance(layer.get("dataset"), str):
        layer["dataset"] = catalogue.load_dataset(layer["dataset"], base).model_dump()
    model = layer.get("model")
    if isinstance(model, str) and model.endswith(".py") and not model.startswith("mmdet:"):
        layer["model"] = str(catalogue.resolve_path(model, base).resolve())
    weights = layer.get("init_from")
    if isinstance(weights, str) and catalogue.is_file(catalogue.resolve_path(weights, base)):
        layer["init_from"] = str(catalogue.resolve_path(weights, base).resolve())
    return layer


def _profile_layer(block: Any, base: Path, where: str) -> dict[str, Any]:
    if not isinstance(block, dict):
        raise UserError(f"{where}: must be a mapping, not {block!r}")
    check_keys(block, Recipe, where, extra=("alpha_scale",))
    for key in ("name", "profile"):
        if key in block:
            raise UserError(f"{where}: {key}: a profile cannot change that")
    return _anchored(block, base)


def _with_profile(
    raw: dict[str, Any], profile: str, blocks: dict[str, Any], where: str
) -> tuple[dict[str, Any], float]:
    """Return the recipe changed by a profile, and the profile's `alpha_scale`.

    A recipe that was resolved with this profile is returned as it is, and not scaled twice.
    """
    label, made_by = catalogue.name_of(profile), raw.get("profile")
    if made_by == label:
        return raw, 1.0
    if made_by is not None:
        text = f"{where}: was resolved with profile '{made_by}'; '{profile}' cannot follow"
        raise UserError(text, f"start from a recipe without a profile: msdet run {raw['name']} -p {profile}")
    layer: dict[str, Any] = {}
    if label not in blocks or catalogue.is_path(profile) or profile in catalogue.list_pages("profile"):
        path = catalogue.find("profile", profile)
        layer = _profile_layer(catalogue.read_yaml(path), path.parent, f"profile {display_path(path)}")
    layer = merge(layer, blocks.get(label, {}))
    scale = layer.pop("alpha_scale", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < float("inf"):
        raise UserError(f"profile {profile}: alpha_scale: {scale!r} is not allowed: a number above 0")
    return {**merge(raw, layer), "profile": label}, scale


def _scaled(weighting: Any, scale: float) -> Any:
    if scale == 1.0 or not isinstance(weighting, (dict, type(None))):
        return weighting
    weighting = dict(weighting or {})
    options = OPTIONS.get(str(weighting.get("rule", "uniform")))
    alpha = weighting.get("alpha")
    if alpha is None and options is not None:
        alpha = options.model_fields["alpha"].default
    if isinstance(alpha, int) and not isinstance(alpha, bool) and alpha >= 2:  # else validation will complain
        weighting["alpha"] = max(2, round(alpha * scale))
    return weighting


def _validated(raw: dict[str, Any], where: str, set_layer: dict[str, Any]) -> Recipe:
    raw = {key: value for key, value in raw.items() if value is not None}  # null: as if never said
    for section in ("weighting", "dataset"):
        if isinstance(raw.get(section), dict):
            raw[section] = {key: value for key, value in raw[section].items() if value is not None}
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        message = describe_mistake(error)
        section, *rest = re.sub(r"[^\w.].*", "", message).split(".")  # the place that it begins with
        blamed = set_layer.get(section, {})
        if section in set_layer and (not isinstance(blamed, dict) or not rest or rest[0] in blamed):
            where = "--set"
        raise UserError(f"{where}: {message}", "msdet show retinanet-r50-rlo   (a complete recipe)") from None


def describe_identity(recipe: Recipe) -> dict[str, Any]:
    """Return what makes two recipes the same experiment, in plain types.

    Names, the data root, the checkpoint interval, the distribution of the batch over GPUs and a default `where` are
    left out. A user's own model config counts by its text (not that of its bases), wherever it lies.
    """
    content = recipe.model_dump(exclude={"name", "checkpoint_every"})
    for key in ("name", "root", "min_image_size"):  # images left out by the last change the fingerprint
        content["dataset"].pop(key)
    if recipe.amp is None:
        del content["amp"]  # keeps the hashes of runs made before the key existed
    if content["weighting"].get("where") == WHERE[0]:
        del content["weighting"]["where"]
    schedule = content["schedule"]
    schedule["batch"] = schedule.pop("gpus") * schedule.pop("images_per_gpu")
    content["set"] = {key.lstrip("+"): value for key, value in content["set"].items()}
    if not recipe.model.startswith("mmdet:") and Path(recipe.model).is_file():
        text = Path(recipe.model).read_bytes()
        content["model"] = {"file": Path(recipe.model).name, "sha256": hashlib.sha256(text).hexdigest()}
    return content


def with_scaled_lr(recipe: Recipe, workers: int) -> Recipe:
    """Return the recipe for a batch of `workers` x `images_per_gpu` images, with the learning rate in proportion.

    This linear rule (Goyal et al., https://arxiv.org/abs/1706.02677) makes another experiment, with its own hash:
    its steps have other images, and an epoch has another number of them.
    """
    schedule = recipe.schedule
    factor = workers / schedule.gpus
    scaled = schedule.model_copy(update={"gpus": workers, "lr": schedule.lr * factor})
    return recipe.model_copy(update={"schedule": scaled})


def compute_recipe_id(recipe: Recipe) -> str:
    """Return eight hexadecimal digits that change with the experiment."""
    return _short_hash(describe_identity(recipe))


def compute_config_hash(recipe: Recipe, fingerprint: str) -> str:
    """Return `compute_recipe_id` with the data set's fingerprint in it: the hash in a run folder's path."""
    return _short_hash({"recipe": describe_identity(recipe), "data": fingerprint})


def _short_hash(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def dump(recipe: Recipe) -> str:
    """Return the recipe as a page of YAML that can be run by its path, and loads back equal."""
    made_by = f" with profile {recipe.profile}" if recipe.profile else ""
    header = f"# {recipe.name}{made_by}, fully resolved: nothing comes from other files.\n"
    header += "#   msdet run FILE                   this file, wherever it lies\n"
    content = {key: value for key, value in recipe.model_dump().items() if value is not None and value != []}
    return header + dump_yaml(content)

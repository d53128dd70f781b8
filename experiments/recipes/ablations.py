"""Tables of ablations: a recipe varied around itself, as a table file that later commands extend. No torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.common.checking import validate
from experiments.common.config_text import get_at
from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import display_path
from experiments.common.metric_names import COCO_METRICS
from experiments.recipes import catalogue
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import ABLATIONS, PATH_KEYS, Block, Row, Table, load_table
from experiments.weighting.options import ACTIONS

EVERY_RULES = ("weighting.rule", "weighting.where", "weighting.alpha", "weighting.epsilon")  # options


@dataclass(frozen=True)
class Ablation:
    """What is varied, and what all rows share. Recipe, profile and dataset are names or paths.

    Rows are compared with what `against` says: `recipe`, `baseline`, or the id or label of a row. If it is None, a new
    table's rows are compared with the recipe, and those added to a table as the others there.
    """

    recipe: str
    axes: Mapping[str, list[Any]]  # dotted keys to values
    is_grid: bool = False  # rows are combinations, instead of one key at a time
    profile: str | None = None
    dataset: str | None = None
    shared: Mapping[str, Any] = field(default_factory=dict)  # dotted keys to values of all rows
    against: str | None = None
    name: str | None = None  # of the table; None: the recipe's name and the varied keys


def extend_ablation(wanted: Ablation, results: Path) -> Table:
    """Return the table of an ablation, or the one that is there with the rows that it lacks. Writes nothing.

    A new table begins with the uniform baseline, and has a block for each varied key: its values in order, the recipe's
    own among them. Rows that are there keep their ids, labels and order.

    Raises:
        UserError: A key or value is wrong, or the rows of the table that is there have something else in common.
    """
    own = load_recipe(wanted.recipe, wanted.profile, dict(wanted.shared), wanted.dataset)
    stem = "-".join([own.name, *map(_last_part, wanted.axes)])
    table = find_table_to_extend(wanted, own, results, stem)
    recipe = make_portable("recipe", wanted.recipe, table.path)
    old = {row.id for row in table.rows()}
    if not old or wanted.against == "baseline":
        _add_baseline(table, recipe, own)
    axes = wanted.axes
    for keys in [tuple(axes)] if wanted.is_grid else [(key,) for key in axes]:  # each has a block
        combinations = itertools.product(*(axes[key] for key in keys))
        _add_rows(table, recipe, own, keys, [dict(zip(keys, values)) for values in combinations])
    for block in table.blocks:
        usual = next((row.baseline for row in block.rows if row.id in old and row.baseline), "recipe")
        chosen = _row_to_compare_with(table, block, wanted.against or usual)
        for row in block.rows:
            if wanted.against is not None or row.id not in old:
                row.baseline = None if chosen == row.id else chosen
    return validate(Table, table.model_dump(exclude_defaults=True), f"table {table.name}").at_path(table.path)


def find_table_to_extend(wanted: Ablation, own: Recipe, results: Path, stem: str) -> Table:
    """Return the table that is there, or a new one without rows; of another name if it has another context.

    Args:
        own: The wanted recipe as it stands.
        results: The results folder.
        stem: The table's name, if `wanted` has none.
    """
    folder, stem = (results / ABLATIONS).resolve(), wanted.name or stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", stem) or stem in catalogue.list_pages("table"):
        raise UserError(
            f"--name: '{stem}' is not allowed: letters, digits and . _ + -, and no other table's name"
        )
    for is_last_try in (wanted.name is not None, True):
        new = _new_table(wanted, own, folder / f"{stem}.yaml")
        if not catalogue.is_file(new.path):
            return new
        there = load_table(str(new.path))
        differs = _differing_parts(new, there, own)
        recipe = make_portable("recipe", wanted.recipe, new.path)
        if not differs and any(row.recipe == recipe for row in there.rows()):
            return there
        if is_last_try or not differs:
            break
        stem = re.sub(r"[^\w.+-]+", "-", "-".join([stem, *differs]))
    raise UserError(
        f"{display_path(new.path)}: its rows have something else in common: {', '.join(differs) or 'the recipe'}",
        "--name NAME",
    )


def _new_table(wanted: Ablation, own: Recipe, path: Path) -> Table:
    context = f"profile {own.profile}" if own.profile else "full size"
    shared = [f"{_short(key)} = {_text(value)}" for key, value in wanted.shared.items()]
    return Table.model_construct(
        name=path.stem,
        title=", ".join([f"Ablation of {own.name}", f"{context} on {own.dataset.name}", *shared]),
        columns=["mAP"] if own.dataset.format == "voc" else list(COCO_METRICS),
        profile=make_portable("profile", wanted.profile, path),
        dataset=make_portable("dataset", wanted.dataset, path),
        set={key: make_portable(key, value, path) for key, value in wanted.shared.items()},
        blocks=[],
    ).at_path(path)


def make_portable(key: str, value: Any, table: Path) -> Any:
    """Return a shipped page's name, and the path of a user's own file from the folder of the file `table`.

    The table then means the same wherever a command is typed.

    Args:
        key: `recipe`, `profile`, `dataset`, or a dotted key, whose value may be anything else.
    """
    if not isinstance(value, str) or key not in (*catalogue.FOLDERS, *PATH_KEYS):
        return value
    if key == "profile" and not catalogue.is_path(value) and value not in catalogue.list_pages(key):
        return value  # the recipe itself has it, under `profiles`
    if key in catalogue.FOLDERS:
        path = catalogue.find(key, value)
        if path.is_relative_to(catalogue.find_shipped()):
            return path.stem
    else:
        path = catalogue.resolve_path(value).resolve()
    return os.path.relpath(path, table.parent) if catalogue.is_file(path) else value


def _differing_parts(new: Table, there: Table, own: Recipe) -> list[str]:
    """Return what the new table's rows have in common and those that are there have not, as parts of a file name."""
    parts = [own.profile or "full-size"] if new.profile != there.profile else []
    parts += [own.dataset.name] if new.dataset != there.dataset else []
    changed = [key for key in {**new.set, **there.set} if new.set.get(key) != there.set.get(key)]
    return parts + [f"{_last_part(key)}-{_text(new.set.get(key, 'default'))}" for key in changed]


def _add_baseline(table: Table, recipe: str, own: Recipe) -> None:
    """Add the recipe with uniform weights, unless it has them, or such a row is there."""
    if own.weighting["rule"] != "uniform" and not any(map(_is_uniform, table.rows())):
        other = {key: None for key in table.set if key.startswith("weighting.") and key not in EVERY_RULES}
        row = Row(id="baseline", label="uniform (baseline)", recipe=recipe)
        row.set = {"weighting.rule": "uniform", **other}
        table.blocks.insert(0, Block(rows=[row]))


def _is_uniform(row: Row) -> bool:
    return row.set.get("weighting.rule") == "uniform"


def _add_rows(
    table: Table, recipe: str, own: Recipe, keys: tuple[str, ...], variants: list[dict[str, Any]]
) -> None:
    """Add the rows that a block lacks, each before the first with larger values."""
    block = next((b for b in table.blocks if any(row.set.keys() == set(keys) for row in b.rows)), None)
    should_have_own = block is None or any(map(_is_uniform, block.rows)) or any(row.own for row in block.rows)
    if block is None:
        block = Block.model_construct(title=", ".join(map(_short, keys)), rows=[])
        table.blocks.append(block)
    known = {
        compute_recipe_id(table.recipe_of(row)): row
        for row in block.rows
        if row.recipe and not row.mean_weights_of
    }
    for identity, row in known.items():  # the recipe may have changed since
        row.own = identity == compute_recipe_id(own)
    if should_have_own and not any(row.own for row in block.rows):
        variants = [*variants, _own_values(table, recipe, own, keys)]
    for values in variants:
        row = _make_row(table, recipe, values)
        identity = compute_recipe_id(table.recipe_of(row))
        if identity not in known:
            known[identity] = row
            row.own = identity == compute_recipe_id(own)
            place = [_order(row.set.get(key)) for key in keys]
            larger = (n for n, r in enumerate(block.rows) if [_order(r.set.get(key)) for key in keys] > place)
            block.rows.insert(next(larger, len(block.rows)), row)


def _own_values(table: Table, recipe: str, own: Recipe, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the recipe's own values of keys; none where they are not in the recipe, but in MMDetection's config."""
    content = own.model_dump()
    values = {k: own.dataset.name if k == "dataset" else own.set.get(k, get_at(content, k)) for k in keys}
    if None in values.values():
        return {}
    row = Row(id="own", label="", recipe=recipe, set=values)
    with contextlib.suppress(UserError):  # a data set that is in the recipe's page has no page of its own
        if compute_recipe_id(table.recipe_of(row)) == compute_recipe_id(own):
            return values
    return {}


def _make_row(table: Table, recipe: str, values: dict[str, Any]) -> Row:
    label = ", ".join(f"{_short(key)} = {_text(value)}" for key, value in values.items())
    stem = "-".join(f"{_last_part(key)}-{_text(value)}" for key, value in values.items()) or "recipe"
    stem = re.sub(r"[^\w.+-]+", "-", stem).strip("-")
    taken = {row.id for row in table.rows()}
    row_id = next(name for n in itertools.count(1) if (name := f"{stem}-{n}" if n > 1 else stem) not in taken)
    settings = {key: make_portable(key, value, table.path) for key, value in values.items()}
    return Row(id=row_id, label=label or "as it stands", recipe=recipe, set=settings)


def _row_to_compare_with(table: Table, block: Block, against: str) -> str:
    """Return the id of the row that the rows of a block are compared with."""
    every = list(table.rows())
    own = [row.id for row in (*block.rows, *every) if row.own] or [every[0].id]
    if against == "recipe":
        return own[0]
    if against == "baseline":
        return next((row.id for row in every if _is_uniform(row)), own[0])
    names = {name: row.id for row in every for name in (row.label, row.id)}
    if against not in names:
        raise UserError(f"--against: '{against}' is no row; {did_you_mean(against, [r.id for r in every])}")
    return names[against]


def _short(key: str) -> str:
    return key.removeprefix("weighting.")


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _text(value: Any) -> str:
    if value == list(ACTIONS):
        return "all"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "+".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _order(value: Any) -> tuple[int, float, str]:
    """Return a sort key: nothing first, then numbers by size, then everything else by its text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 1, float(value), ""
    return (0, 0.0, "") if value is None else (2, 0.0, _text(value))

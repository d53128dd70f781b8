"""Tables of studies: recipes against one baseline, seed by seed, until the question is settled. No torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.common.checking import validate
from experiments.common.errors import UserError
from experiments.common.files import display_path
from experiments.recipes import catalogue
from experiments.recipes.ablations import Ablation, find_table_to_extend, make_portable
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Block, Row, Study, Table

DEFAULT_EFFECT = 0.5  # points


def extend_study(wanted: Ablation, effect: float | None, spread: float | None, results: Path) -> Table:
    """Return the table of a study, or the one that is there with the row that it lacks. Writes nothing.

    Args:
        wanted: The recipe, the baseline in `against`, and what both have in common.
        effect: The smallest difference that matters. None: that of the study, 0.5 of a new one.
        spread: The expected standard deviation of a seed's difference. None: that of the study.

    Raises:
        UserError: A recipe is wrong, both are the same, or the study that is there decides by something else.
    """
    own = _load(wanted.recipe, wanted)
    baseline = wanted.against or _uniform_counterpart(own, wanted)
    beside = _load(baseline, wanted)
    if compute_recipe_id(own) == compute_recipe_id(beside):
        text = f"'{wanted.recipe}' and '{baseline}' are the same experiment"
        raise UserError(text, "name a baseline: msdet compare RECIPE BASELINE")
    table = find_table_to_extend(
        dataclasses.replace(wanted, recipe=baseline), beside, results, f"compare-{beside.name}"
    )
    first, name = (make_portable("recipe", one, table.path) for one in (baseline, wanted.recipe))
    if not table.blocks:
        table.study = Study(effect=effect or DEFAULT_EFFECT, spread=spread)
        table.title = f"Study against {table.title.removeprefix('Ablation of ')}"
        table.blocks = [Block(rows=[Row(id="baseline", label=beside.name, recipe=first)])]
    if table.study is None:
        raise UserError(f"{display_path(table.path)}: is no study of `msdet compare`", "--name NAME")
    for option, typed in {"effect": effect, "spread": spread}.items():
        there = getattr(table.study, option)
        if typed is not None and typed != there:
            text = f"--{option}: {typed:g} is not that of {display_path(table.path)}, {there or 'none'}"
            raise UserError(text, "--name NAME")
    rows = {row.recipe: row for row in table.rows()}
    if name not in rows:
        row_id = name if own.name in {row.id for row in table.rows()} else own.name
        table.blocks[0].rows.append(Row(id=row_id, label=own.name, recipe=name, baseline=rows[first].id))
    elif rows[name].baseline != rows[first].id:
        raise UserError(f"{display_path(table.path)}: '{name}' has another baseline there", "--name NAME")
    return validate(Table, table.model_dump(exclude_defaults=True), f"table {table.name}").at_path(table.path)


def _load(name: str, wanted: Ablation) -> Recipe:
    return load_recipe(name, wanted.profile, dict(wanted.shared), wanted.dataset)


def _uniform_counterpart(own: Recipe, wanted: Ablation) -> str:
    """Return the shipped recipe that is this one with uniform weights: retinanet-r50 of retinanet-r50-rlo."""
    stems = [name for name in catalogue.list_pages("recipe") if own.name.startswith(f"{name}-")]
    for name in sorted(stems, key=len, reverse=True):
        if _load(name, wanted).weighting["rule"] == "uniform":
            return name
    text = f"no recipe with uniform weights is named as '{own.name}' begins"
    raise UserError(text, f"msdet compare {wanted.recipe} BASELINE")

"""The recipes of tables' rows, and which of them can be planned only after others have run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from experiments.common.errors import UserError
from experiments.launching.plan import PlannedRun
from experiments.recipes.loading import load_recipe, recipe_id
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row, Table
from experiments.runs.mean_weights import mean_weights

Labelled = tuple[str, Recipe]  # the label says in what the row differs from the recipe of its name
Change = Callable[[Recipe], Recipe]  # of every row's recipe, as the command's options say


def unchanged(recipe: Recipe) -> Recipe:
    """Return the recipe as it is."""
    return recipe


def first_recipes(tables: Sequence[Table], profile: str | None, change: Change = unchanged) -> list[Labelled]:
    """Return the recipes of all rows but those with mean weights, each experiment once.

    Raises:
        UserError: A row's recipe is not there, or wrong.
    """
    rows = (row for table in tables for row in table.rows() if row.mean_weights_of is None)
    return _each_once(_labelled(row, row.set, profile, change) for row in rows if row.recipe is not None)


def later_recipes(
    tables: Sequence[Table],
    profile: str | None,
    planned: Sequence[PlannedRun],
    dry_run: bool,
    change: Change = unchanged,
) -> tuple[list[Labelled], list[str]]:
    """Return the recipes of the rows with mean weights: means over the planned runs of another row.

    Args:
        planned: The runs of `first_recipes`, by seed, and executed by now unless in a dry run.

    Returns:
        What can be planned now, and a sentence for each row that cannot.
    """
    found, waiting = [], []
    for table in tables:
        for row in table.rows():
            if row.mean_weights_of is None:
                continue
            source = table.row(row.mean_weights_of)
            wanted = recipe_id(_labelled(source, source.set, profile, change)[1])
            runs = [run for run in planned if recipe_id(run.recipe) == wanted]
            missing = sum(not _done(run, dry_run) for run in runs)
            try:
                if missing:
                    raise UserError(f"{missing} of {len(runs)} runs of row '{source.id}' are not done")
                weights = mean_weights([run.folder for run in runs], row.mean)[-1]
                found.append(_labelled(row, row.overrides(weights), profile, change))
            except UserError as error:
                waiting.append(f"{table.name}: '{row.label}' waits for its weights: {error.message}")
    return _each_once(found), waiting


def without_recipe(tables: Sequence[Table]) -> list[str]:
    """Return a sentence for each row that has no recipe."""
    return [
        f"{table.name}: '{row.label}' ({row.id}) has no recipe: skipped"
        for table in tables
        for row in table.rows()
        if row.recipe is None
    ]


def _done(run: PlannedRun, dry_run: bool) -> bool:
    if dry_run and run.force:
        return False  # it would be by then, with weights that nobody knows yet
    try:
        return run.folder.state() == "done"
    except UserError:  # not there, or unreadable
        return False


def _labelled(row: Row, overrides: dict, profile: str | None, change: Change) -> Labelled:
    label = ", ".join(f"{key.removeprefix('weighting.')}={value}" for key, value in overrides.items())
    recipe = load_recipe(row.recipe or "", profile, overrides=overrides)
    return label.replace("'", ""), change(recipe)


def _each_once(labelled: Iterable[Labelled]) -> list[Labelled]:
    """Return the recipes without those that are the same experiment as one before, whatever their names."""
    first: dict[str, Labelled] = {}
    for label, recipe in labelled:
        first.setdefault(recipe_id(recipe), (label, recipe))
    return list(first.values())

"""The recipes of tables' rows, and which of them can be planned only after others have run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from experiments.common.errors import UserError
from experiments.launching.plan import PlannedRun
from experiments.recipes.loading import compute_recipe_id
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row, Table
from experiments.runs.mean_weights import compute_mean_weights

Labelled = tuple[str, Recipe]  # the label says in what the row differs from the recipe of its name
# Returns the recipe of a row as the command's options say; takes a table, then what `Table.recipe_of` takes.
RecipeOf = Callable[..., Recipe]


def list_first_recipes(tables: Sequence[Table], recipe_of: RecipeOf) -> list[Labelled]:
    """Return the recipes of all rows but those with mean weights, each experiment once.

    Raises:
        UserError: A row's recipe is not there, or wrong.
    """
    return _each_once(
        (_label(row), recipe_of(table, row))
        for table in tables
        for row in table.rows()
        if row.recipe is not None and row.mean_weights_of is None
    )


def list_later_recipes(
    tables: Sequence[Table], recipe_of: RecipeOf, planned: Sequence[PlannedRun], dry_run: bool
) -> tuple[list[Labelled], list[str]]:
    """Return the recipes of the rows with mean weights: means over the planned runs of another row.

    Args:
        planned: The runs of `list_first_recipes`, by seed, and executed by now unless in a dry run.
        dry_run: Whether nothing was executed: runs that are forced are then not done.

    Returns:
        What can be planned now, and a sentence for each row that cannot.
    """
    found, waiting = [], []
    for table in tables:
        for row in table.rows():
            if row.mean_weights_of is None:
                continue
            source = table.row(row.mean_weights_of)
            wanted = compute_recipe_id(recipe_of(table, source))
            runs = [run for run in planned if compute_recipe_id(run.recipe) == wanted]
            missing = sum((dry_run and run.force) or not _is_done(run) for run in runs)
            try:
                if missing:
                    raise UserError(f"{missing} of {len(runs)} runs of row '{source.id}' are not done")
                weights = compute_mean_weights([run.folder for run in runs], row.mean)[-1]
                found.append((_label(row, weights), recipe_of(table, row, weights)))
            except UserError as error:
                waiting.append(f"{table.name}: '{row.label}' waits for its weights: {error.message}")
    return _each_once(found), waiting


def _is_done(run: PlannedRun) -> bool:
    try:
        return run.folder.state() == "done"
    except UserError:  # not there, or unreadable
        return False


def _label(row: Row, weights: Sequence[float] = ()) -> str:
    settings = {key: value for key, value in row.overrides(weights).items() if value is not None}
    label = ", ".join(f"{key.removeprefix('weighting.')}={value}" for key, value in settings.items())
    return label.replace("'", "")


def _each_once(labelled: Iterable[Labelled]) -> list[Labelled]:
    """Return the recipes without those that are the same experiment as one before, whatever their names."""
    first: dict[str, Labelled] = {}
    for label, recipe in labelled:
        first.setdefault(compute_recipe_id(recipe), (label, recipe))
    return list(first.values())
